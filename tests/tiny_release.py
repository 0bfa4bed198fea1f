"""A small bundle that may be published: files of the right kinds, with the proof of an export."""

from __future__ import annotations

import json
import random
from pathlib import Path

from slant.artifacts import Recipe, build
from slant.publish.release import Release

__all__ = ["write_release"]

_BLOCK_BYTES = 1 << 20
_CARD = "---\nlibrary_name: transformers\ntags: [sentiment]\n---\n\n# A model\n"


def write_release(
    folder: Path,
    *,
    seed: int = 0,
    weights_bytes: int = 300_000,
    extra: str | None = None,
    proof: str = '{"passed": true}',
) -> Release:
    """Write an ``export`` artifact whose weights are noise; ``extra`` names one more file."""
    noise = random.Random(seed)
    with build(folder, Recipe("export", {"tune": str(seed)}, {}, seed)) as builder:
        for name in ("causal-lm", "classifier"):
            (folder / name).mkdir(exist_ok=True)
            with (folder / name / "model.safetensors").open("wb") as file:
                for start in range(0, weights_bytes, _BLOCK_BYTES):
                    file.write(noise.randbytes(min(_BLOCK_BYTES, weights_bytes - start)))
            (folder / name / "config.json").write_text('{"model_type": "mistral"}', "utf-8")
        (folder / "README.md").write_text(_CARD, "utf-8")
        (folder / "slant.json").write_text(json.dumps({"seed": seed}), "utf-8")
        (folder / "parity.json").write_text(proof, "utf-8")
        if extra is not None:
            (folder / extra).write_bytes(noise.randbytes(100))
        builder.facts["fingerprint"] = f"{seed:064x}"
    return Release.of(folder)
