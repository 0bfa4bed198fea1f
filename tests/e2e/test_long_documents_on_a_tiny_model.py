"""What was measured of long documents is what a bundle serves, under every option."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from slant.corpus import Corpus
from slant.evaluate.stage import Subject, run_evaluate
from slant.export.consumer import answer
from slant.export.stage import run_export
from slant.model.base import load_tokenizer
from slant.progress import SilentProgress
from slant.score.scorer import Scorer
from slant.task.encode import Encoder
from slant.task.spec import TaskSpec
from slant.train.shard import run_shard
from slant.train.tune import run_tune
from tiny_stages import LABELS, save_base, tiny_settings, write_ingest


@pytest.mark.parametrize("option", ["cut", "passages", "windows"])
def test_a_bundle_answers_for_long_documents_as_was_measured(option: str, tmp_path: Path) -> None:
    settings = tiny_settings(
        task={"long_documents": option}, adapt=None, tune={"epochs": 2, "learning_rate": 0.01}
    )
    progress = SilentProgress()
    ingest, base = write_ingest(tmp_path / "ingest"), save_base(tmp_path / "base")
    shards = run_shard(
        settings, ingest=ingest, base=base, out=tmp_path / "shard", progress=progress
    )
    tune = run_tune(settings, shards=shards, base=base, out=tmp_path / "tune", progress=progress)
    evaluate = run_evaluate(
        settings,
        ingest=ingest,
        subject=Subject(tune, base, base, None),
        out=tmp_path / "evaluate",
        start=tmp_path,
        progress=progress,
    )
    bundle = run_export(
        settings,
        ingest=ingest,
        evaluate=evaluate,
        tune=tune,
        base=base,
        out=tmp_path / "bundle",
        progress=progress,
        ask=answer,
    )
    spec = TaskSpec.load(bundle.path)
    assert spec.long_documents == option
    test = Corpus(ingest).split("test")
    pairs = [item.text for item in test]
    langs = [item.document.lang for item in test]
    windows = Encoder(load_tokenizer(base.folder), spec).encode_windows(pairs)
    assert (max(map(len, windows)) > 3) == (option == "windows")
    rows = pq.read_table(evaluate.file("predictions.parquet")).to_pylist()
    measured = np.array([[row[f"p_{label}"] for label in LABELS] for row in rows])
    texts, narratives = zip(*pairs, strict=True)
    scorer = Scorer.load(bundle.path, dtype="float32")
    found = scorer.predict_proba(list(texts), list(narratives), langs)
    assert np.abs(found - measured).max() < 1e-4
