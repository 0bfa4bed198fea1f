"""Bad input to training: refused before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from slant.artifacts import find
from slant.errors import ShardError, TaskError
from slant.shards.reader import ShardReader
from slant.shards.writer import ShardWriter
from slant.train.job import Job
from slant.train.schedule import Examples
from slant.train.shard import TUNE_COLUMNS
from tiny_stages import prepare, run_stage, tiny_settings


@pytest.mark.parametrize("stage", ["adapt", "tune"])
def test_shards_made_with_another_tokenizer_are_refused(tmp_path: Path, stage: str) -> None:
    prepare(tmp_path)
    path = tmp_path / "base" / "tokenizer.json"
    tokenizer = json.loads(path.read_text("utf-8"))
    tokenizer["normalizer"] = {"type": "Lowercase"}
    path.write_text(json.dumps(tokenizer), "utf-8")
    with pytest.raises(TaskError, match="do not fit") as caught:
        run_stage(stage, tmp_path, tmp_path / "out")
    assert "slant shard" in caught.value.hint
    assert find(tmp_path / "out", stage) is None


def test_a_label_outside_the_set_is_an_error_that_names_the_document(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, TUNE_COLUMNS) as writer:
        for number, label in enumerate((0, 2, 3)):
            writer.write(
                {
                    "document_id": f"d-{number}",
                    "input_ids": np.array([1, 2], dtype=np.int32),
                    "label": label,
                    "lang": "tl",
                    "narrative_id": "",
                    "shares": np.array([], dtype=np.float32),
                }
            )
    with pytest.raises(ShardError, match=r"d-2.*label 3.*3 labels"):
        Examples.read(ShardReader(tmp_path), num_labels=3)
    assert len(Examples.read(ShardReader(tmp_path), num_labels=4)) == 3


def test_a_job_is_the_same_in_another_process(tmp_path: Path) -> None:
    prepare(tmp_path)
    settings = tiny_settings(tune={"class_weights": {"neutral": 0.5}, "start_from": "old"})
    from slant.model.base import BaseModel

    base = BaseModel("tiny", tmp_path / "base", "0" * 64)
    job = Job("tune", settings, tmp_path / "shard", base, tmp_path / "out", "key", tmp_path)
    assert Job.from_json(job.to_json()) == job
