"""The adapter of a bundle: for those who keep the base, or many adapters on one base.

    adapter_config.json, adapter_model.safetensors   as they were trained (PEFT)
    label_head.safetensors                           ``rows`` (L, H), and ``bias`` (L,) where the
                                                     LM head has one, if they were trained too:
                                                     they stand for the label rows of the LM head
    base.json                                        name and digest of the base; ``quantize``:
                                                     with ``nf4`` it is to be loaded in 4 bits
    tokenizer files                                  those of the base, with the chat template
    licence files                                    those of the base (see ``model.license``)

Shape letters: L labels, H hidden size.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from slant.disk import write_atomically
from slant.errors import ModelError
from slant.model.base import BaseModel
from slant.model.folder import copy_tokenizer
from slant.model.license import copy_license
from slant.model.tuned import ADAPTER_FOLDER, LABEL_HEAD_FILE

__all__ = ["write_adapter"]

_FILES = ("adapter_config.json", "adapter_model.safetensors")


def write_adapter(
    checkpoint: Path, base: BaseModel, out: Path, *, quantize: str, adapted: bool
) -> None:
    """Copy what was trained, and say which base it belongs on.

    Args:
        checkpoint: folder of the tuned checkpoint.
        base: what it was tuned on.
        out: is made.
        quantize: of the base while it was tuned: ``none`` or ``nf4``.
        adapted: whether ``base`` is itself the result of domain adaptation, and so no model that
            its name would bring.

    Raises:
        ModelError: the whole model was tuned, and there is no adapter.
    """
    source = checkpoint / ADAPTER_FOLDER
    if not source.is_dir():
        raise ModelError(
            f"{checkpoint}: holds the whole model and no adapter",
            hint="Take adapter out of export.formats, or tune with tune.method: lora.",
        )
    out.mkdir(parents=True, exist_ok=True)
    for name in _FILES:
        shutil.copyfile(source / name, out / name)
    if (checkpoint / LABEL_HEAD_FILE).is_file():
        shutil.copyfile(checkpoint / LABEL_HEAD_FILE, out / LABEL_HEAD_FILE)
    copy_tokenizer(base.folder, out)
    copy_license(base.folder, out)
    facts = {
        "name": base.name,
        "digest": base.digest,
        "quantize": quantize,
        "adapted": adapted,
    }
    write_atomically(out / "base.json", json.dumps(facts, ensure_ascii=False, indent=1) + "\n")
