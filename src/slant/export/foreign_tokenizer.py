"""Whether slant reads a text as the model's own program does.

slant takes ``tokenizer.json`` as it is. transformers has a say of its own
(``tokenizer_config.json``, rules of a model's class), and the model was trained with what it made
of a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slant.errors import ModelError, TaskError
from slant.export.foreign import PREDICTIONS, ForeignModel
from slant.export.probes import Probe
from slant.model.base import quiet_transformers
from slant.task.encode import Encoder

__all__ = ["check_foreign_tokenizer"]

_SHOWN = 8


def check_foreign_tokenizer(model: ForeignModel, encoder: Encoder, probes: Sequence[Probe]) -> None:
    """Compare the token ids of every probe with those of the tokenizer beside the model.

    That of an adapter is its own, or else its base's. Special tokens in a text are plain text to
    both.

    Raises:
        ModelError: transformers cannot load it.
        TaskError: ids differ.
    """
    from transformers import AutoTokenizer

    own = (model.folder / "tokenizer.json").is_file()
    folder = model.folder if own else model.base.folder
    try:
        with quiet_transformers():
            tokenizer: Any = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, split_special_tokens=True
            )
            theirs = [list(tokenizer(probe.prompt)["input_ids"]) for probe in probes]
    except Exception as error:  # it has no error of its own
        raise ModelError(
            f"{folder}: transformers cannot read with its tokenizer: {error}"
        ) from error
    for probe, their_ids in zip(probes, theirs, strict=True):
        our_ids = encoder.encode(*probe.source)
        if our_ids != their_ids:
            raise TaskError(
                f"{folder}: its tokenizer reads a prompt ({probe.edge_case or probe.lang}) "
                f"otherwise in transformers than in slant: "
                f"{_where_they_part(their_ids, our_ids)}",
                hint=f"slant takes tokenizer.json of {model.base.folder} as it is. {PREDICTIONS}",
            )


def _where_they_part(theirs: Sequence[int], ours: Sequence[int]) -> str:
    pairs = enumerate(zip(theirs, ours, strict=False))
    place = next((i for i, (a, b) in pairs if a != b), min(len(theirs), len(ours)))
    shown = [[*ids[place : place + _SHOWN]] for ids in (theirs, ours)]
    return f"from token {place + 1} on {shown[0]}, not {shown[1]}"
