"""What merging does to an adapter that was trained beside a base in 4 bits (QLoRA).

Such an adapter also makes up for the rounding of the base that it saw. Merged onto the base that
was rounded and made whole again, it is what was trained; merged onto the base as it was, the
rounding is gone and what made up for it is not. slant evaluates and exports the former, and shows
that it is the same, and how far off the latter would be.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from slant.export.parity import (
    BOUNDS,
    Probabilities,
    compare,
    encode_as_trained,
    label_probabilities,
)
from slant.export.probes import Probe, sample_probes
from slant.memory import release_memory
from slant.model.adapter import attach_adapter
from slant.model.base import BaseModel, load_causal_lm
from slant.model.label_head import LabelModel
from slant.model.tuned import ADAPTER_FOLDER, load_tuned_adapted, with_label_rows
from slant.task.spec import TaskSpec

__all__ = ["describe_merge", "merge_sentence"]

_BOUND = BOUNDS["bfloat16"]


def describe_merge(
    checkpoint: Path,
    base: BaseModel,
    spec: TaskSpec,
    *,
    quantize: str,
    probes: Sequence[Probe],
    merged: Probabilities,
) -> dict[str, Any] | None:
    """What was merged onto what, and what that did; None where the whole model was tuned.

    Args:
        checkpoint: the tuned checkpoint.
        base: what it was tuned on.
        spec: the calibrated contract.
        quantize: of the base while tuning: ``none`` or ``nf4``.
        probes: N pairs; after training on 4 bits a few of them are asked.
        merged: ``(N, L)``, what the model answers that is exported.

    Returns:
        ``trained_on`` and ``merged_onto``; after training on 4 bits also, under ``differences``,
        how far from the answers of the adapter beside the 4-bit base those are that were merged
        onto the base made whole again, and those of a merge onto the base as it is. Everything is
        computed in float32.

    Raises:
        ModelError: bitsandbytes is missing.
    """
    if not (checkpoint / ADAPTER_FOLDER).is_dir():
        return None
    facts: dict[str, Any] = {"trained_on": quantize, "merged_onto": "base"}
    if quantize == "none":
        return facts
    places = sample_probes(probes)
    own, prompts = encode_as_trained(checkpoint, base, [probes[place] for place in places])
    own = own.with_temperature(spec.temperature)
    beside = label_probabilities(_on_4_bits(base, checkpoint, own), own, prompts)
    release_memory()
    plain = load_tuned_adapted(
        base.folder, checkpoint, own.verbalizer.token_ids, dtype=torch.float32
    )
    onto_base = label_probabilities(plain, own, prompts)
    return facts | {
        "merged_onto": "dequantised base",
        "differences": {
            "merged_onto_dequantised_base": compare(beside, merged[places], _BOUND),
            "merged_onto_base": compare(beside, onto_base, _BOUND),
        },
    }


def merge_sentence(merge: dict[str, Any] | None) -> str:
    """For the reader, what merging did to an adapter trained on 4 bits; else an empty string."""
    if not merge or "differences" not in merge:
        return ""
    ours, other = (
        merge["differences"][name] for name in ("merged_onto_dequantised_base", "merged_onto_base")
    )
    return (
        f"merge: the adapter was trained on a base in {merge['trained_on']} and is merged onto "
        f"what those 4 bits hold: probabilities differ by at most {ours['max_difference']:.4f}; "
        f"merged onto the base as it is, by {other['mean_difference']:.4f} on the average, at most "
        f"{other['max_difference']:.4f}, and {other['labels_changed']} of {other['count']} labels"
    )


def _on_4_bits(base: BaseModel, checkpoint: Path, spec: TaskSpec) -> LabelModel:
    """The adapter beside the base in 4 bits."""
    causal_lm: Any = load_causal_lm(base.folder, dtype=torch.float32, quantize="nf4")
    adapted = attach_adapter(causal_lm, checkpoint / ADAPTER_FOLDER)
    return with_label_rows(adapted, checkpoint, spec.verbalizer.token_ids).eval()
