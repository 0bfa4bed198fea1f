"""The corpora of bench_train.py: a project for slant, and the same rows for the peer.

Texts come from examples/quickstart. The peer gets what slant's shards hold: the prompts that
slant's own template and encoder made (tune), or the same documents (adapt).
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

from slant.artifacts import load
from slant.corpus import Corpus as Ingested
from slant.model.base import load_tokenizer, resolve_base
from slant.progress import SilentProgress
from slant.task.encode import Encoder
from slant.task.spec import TaskSpec

__all__ = ["Corpus", "base_folder", "peer_rows", "write_project"]

_QUICKSTART = Path(__file__).resolve().parent.parent / "examples" / "quickstart"
_BASE = "gemma-3-270m"
_HELD_OUT = 16  # examples, of each split that is not for training


@dataclass(frozen=True)
class Corpus:
    """How many labelled rows there are and how many texts are joined to make a document of one."""

    rows: int
    texts_per_row: int
    least_tokens: int = 0


def base_folder() -> Path:
    """The folder of the embedded base model, which both sides load."""
    progress = SilentProgress()
    return resolve_base(_BASE, revision=None, start=Path(), progress=progress).folder


def write_project(folder: Path, corpus: Corpus, stage: str) -> None:
    """Write slant.yaml and its inputs into a new folder."""
    folder.mkdir()
    labelled, unlabelled = (_read(name) for name in ("labelled.jsonl", "unlabelled.jsonl"))
    documents = [{"id": row["id"], "text": row["text"], "lang": row["lang"]} for row in unlabelled]
    if stage == "adapt":
        seen = {row["text"]: row for row in labelled}.values()
        documents += [{"id": row["id"], "text": row["text"], "lang": row["lang"]} for row in seen]
    _write(folder / "documents.jsonl", documents)
    rows = _labelled(labelled, unlabelled, corpus) if stage == "tune" else labelled[:200]
    for number, row in enumerate(rows):
        held_out = ("validation", "calibration", "test")
        place = number // _HELD_OUT
        row["split"] = held_out[place] if place < len(held_out) else "train"
    _write(folder / "labelled.jsonl", rows)
    (folder / "slant.yaml").write_text(_yaml(stage), "utf-8")


def peer_rows(folder: Path, stage: str, out: Path) -> Path:
    """Write the peer's rows from what slant ingested; returns the base's folder."""
    ingested, base = Ingested(load(folder / "work" / "ingest", "ingest")), base_folder()
    if stage == "adapt":
        rows = [{"text": document.text} for document in ingested.documents.values()]
    else:
        spec = TaskSpec.load(folder / "work" / "shard")
        encoder = Encoder(load_tokenizer(base), spec)
        words = dict(zip(spec.labels, spec.verbalizer.words, strict=True))
        rows = [
            {
                "prompt": encoder.prompt(*example.text),
                "completion": " " + words[example.example.label].strip(),
            }
            for example in ingested.split("train")
        ]
    _write(out, rows)
    return base


def _labelled(
    labelled: list[dict[str, str]], unlabelled: list[dict[str, str]], corpus: Corpus
) -> list[dict[str, str]]:
    """Rows of as many texts as asked for; no text is in two of them."""
    rng = random.Random(17)
    if corpus.texts_per_row == 1:
        return [dict(row) for row in rng.sample(labelled, min(corpus.rows, len(labelled)))]
    tokenizer = load_tokenizer(base_folder())
    by_lang: dict[str, list[str]] = {}
    for text, lang in {row["text"]: row["lang"] for row in [*unlabelled, *labelled]}.items():
        by_lang.setdefault(lang, []).append(text)
    rows: list[dict[str, str]] = []
    for lang, texts in sorted(by_lang.items()):
        rng.shuffle(texts)
        document = ""
        for text in texts:
            document = f"{document}\n\n{text}".strip()
            if len(tokenizer.encode(document, add_special_tokens=False)) < corpus.least_tokens:
                continue
            like = rng.choice(labelled)
            rows.append(
                {
                    "id": f"{lang}-{len(rows)}",
                    "text": document,
                    "lang": lang,
                    "narrative": like["narrative"],
                    "label": like["label"],
                }
            )
            document = ""
    rng.shuffle(rows)
    return rows[: corpus.rows]


def _yaml(stage: str) -> str:
    adapt = "adapt: {learning_rate: 2e-4, checkpoint_every_s: 3600}"
    return f"""seed: 17
labels: [negative, neutral, positive]
model: {{base: {_BASE}, dtype: bfloat16}}
ingest:
  documents:
    - path: documents.jsonl
      columns: {{id: id, text: text, lang: lang}}
  examples:
    - path: labelled.jsonl
      columns: {{id: id, text: text, narrative: narrative, label: label, lang: lang, split: split}}
shard: {{sequence_tokens: 512, heldout_share: 0.01}}
{adapt if stage == "adapt" else "adapt: null"}
tune: {{epochs: 1, examples_per_step: 16, learning_rate: 4e-4, checkpoint_every_s: 3600}}
"""


def _read(name: str) -> list[dict[str, str]]:
    lines = (_QUICKSTART / name).read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
