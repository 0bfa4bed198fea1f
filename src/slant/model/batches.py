"""Grouping sequences into forward passes.

Passes are bounded by tokens, padding included, not by a number of sequences: the memory and the
time of a pass follow its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["pad_batch", "token_budget_batches"]


def token_budget_batches(lengths: Sequence[int], tokens_per_batch: int) -> list[list[int]]:
    """Cut sequences, longest first, into batches of at most ``tokens_per_batch`` padded tokens.

    Args:
        lengths: of the sequences, in tokens.
        tokens_per_batch: bound on (longest of a batch) × (number in it). A single longer sequence
            is a batch of its own.

    Returns:
        Positions in ``lengths``; each exactly once. Equal input gives equal batches.
    """
    # int64 before anything is done with them: small or unsigned integers would wrap.
    sizes_N = np.asarray(lengths, dtype=np.int64)
    batches: list[list[int]] = []
    for position in np.argsort(-sizes_N, kind="stable").tolist():
        if batches and sizes_N[batches[-1][0]] * (len(batches[-1]) + 1) <= tokens_per_batch:
            batches[-1].append(position)
        else:
            batches.append([position])
    return batches


def pad_batch(sequences: Sequence[Sequence[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Right-pad token ids.

    Returns:
        ``(input_ids, attention_mask)``, both ``(B, T)`` int64; the mask is 0 on padding.
    """
    width = max(len(sequence) for sequence in sequences)
    input_ids = torch.full((len(sequences), width), pad_token_id, dtype=torch.int64)
    attention_mask = torch.zeros_like(input_ids)
    for row, sequence in enumerate(sequences):
        input_ids[row, : len(sequence)] = torch.as_tensor(sequence, dtype=torch.int64)
        attention_mask[row, : len(sequence)] = 1
    return input_ids, attention_mask
