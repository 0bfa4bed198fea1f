"""The proof that an export is what was trained: both are asked the same, and must agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from slant.errors import GateError
from slant.model.base import load_causal_lm, quiet_transformers
from slant.model.label_head import LabelModel
from slant.score.decision import probabilities
from slant.score.torch_engine import TorchEngine
from slant.task.spec import TaskSpec

__all__ = [
    "BOUNDS",
    "causal_lm_probabilities",
    "classifier_probabilities",
    "exported_causal_lm_probabilities",
    "label_probabilities",
    "prove",
]

Probabilities = NDArray[np.float64]
BOUNDS: Mapping[torch.dtype, float] = {
    torch.float32: 1e-3,
    torch.bfloat16: 2e-2,
    torch.float16: 5e-3,
}
"""How far a probability may move when the merged weights are rounded to a dtype."""
_LABEL_AGREEMENT = 0.995
_BETWEEN_FORMATS = 1e-3
"""The exported folders hold the same weights, so they agree to the rounding of float32."""


def label_probabilities(
    model: LabelModel, spec: TaskSpec, prompts: Sequence[Sequence[int]]
) -> Probabilities:
    """``(N, L)`` calibrated probabilities along slant's own path."""
    logits_NL = TorchEngine(model.eval(), spec.pad_token_id).label_logits(prompts)
    return probabilities(logits_NL, spec.temperature)


def causal_lm_probabilities(
    causal_lm: Any, spec: TaskSpec, prompts: Sequence[Sequence[int]]
) -> Probabilities:
    """As above, of a plain causal language model."""
    return label_probabilities(LabelModel(causal_lm, spec.verbalizer.token_ids), spec, prompts)


def exported_causal_lm_probabilities(
    folder: Path, spec: TaskSpec, prompts: Sequence[Sequence[int]]
) -> Probabilities:
    """As above, from the exported folder, in float32."""
    return causal_lm_probabilities(load_causal_lm(folder, dtype=torch.float32), spec, prompts)


@torch.inference_mode()
def classifier_probabilities(folder: Path, prompts: Sequence[str]) -> Probabilities:
    """``(N, L)`` from the exported classifier in float32, the way its users call it.

    Nothing of slant takes part: tokenizer, padding, pooling and head are the folder's own.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        ).eval()
    rows = []
    for start in range(0, len(prompts), 8):
        batch = tokenizer(list(prompts[start : start + 8]), padding=True, return_tensors="pt")
        rows.append(model(**batch).logits.softmax(dim=-1))
    return np.asarray(torch.cat(rows).numpy(), dtype=np.float64)


def prove(
    trained: Probabilities, exported: Mapping[str, Probabilities], bound: float
) -> dict[str, Any]:
    """Compare every exported format with the trained model, and the formats with each other.

    Returns:
        The proof, as it goes into the bundle.

    Raises:
        GateError: a probability moved by more than ``bound``, a label changed too often, or two
            formats differ by more than 0.001.
    """
    apart = float(np.ptp(list(exported.values()), axis=0).max())
    proof: dict[str, Any] = {
        "examples": len(trained),
        "bound": bound,
        "formats": {},
        "max_difference_between_formats": round(apart, 6),
    }
    failures = []
    if not apart <= _BETWEEN_FORMATS:
        failures.append(f"{' and '.join(exported)} differ from each other by {apart:.4f}")
    for name, found in exported.items():
        moved = float(np.abs(found - trained).max())
        # A label may flip only where the two best were as close as the bound allows.
        top = np.sort(trained, axis=1)
        clear = top[:, -1] - top[:, -2] > 2 * bound
        same = (
            float((found.argmax(axis=1) == trained.argmax(axis=1))[clear].mean())
            if clear.any()
            else 1.0
        )
        proof["formats"][name] = {"max_difference": round(moved, 6), "label_agreement": same}
        if not moved <= bound or same < _LABEL_AGREEMENT:
            failures.append(
                f"{name}: a probability moved by {moved:.4f} (at most {bound:g} is allowed), "
                f"{same:.1%} of the labels agree"
            )
    if failures:
        raise GateError(
            "the export does not reproduce the trained model: " + "; ".join(failures),
            hint="Nothing was published. Please report this with parity figures and model name.",
        )
    return proof
