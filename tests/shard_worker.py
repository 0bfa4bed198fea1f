"""The shard stage on small inputs, for a worker that can be killed (see ``forking``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slant.artifacts import load
from slant.config.settings import ProjectSettings
from slant.model.base import BaseModel
from slant.progress import SilentProgress
from slant.records import Document
from slant.train import shard
from tiny_stages import documents_and_examples, save_base, tiny_settings, write_ingest

__all__ = ["prepare_shard", "run_prepared"]


def prepare_shard(root: Path, **sections: dict[str, Any]) -> None:
    """Fill ``root`` with an ingest artifact, a base model and settings."""
    documents, narratives, examples = documents_and_examples()
    more = [
        Document(f"m-{i}", f"{i} " + "какой-то текст " * (i % 7), lang=("ru", "en")[i % 2])
        for i in range(800)
    ]
    write_ingest(root / "ingest", (documents + more, narratives, examples))
    save_base(root / "base")
    settings = tiny_settings(shard={"size_limit_bytes": 2500, **sections.pop("shard", {})})
    (root / "settings.json").write_text(settings.model_dump_json(), "utf-8")


def run_prepared(root_folder: str, out: str) -> None:
    """Run the stage on what ``prepare_shard`` left."""
    root = Path(root_folder)
    shard._TUNE_CHUNK, shard._ADAPT_CHUNK = 5, 60  # several chunks in streams of a few samples
    shard.run_shard(
        ProjectSettings.model_validate_json((root / "settings.json").read_text("utf-8")),
        ingest=load(root / "ingest", "ingest"),
        base=BaseModel("tiny", root / "base", "0" * 64),
        out=Path(out),
        progress=SilentProgress(),
    )
