"""The processors that ``slant plan`` knows, and the one of this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import final

from slant.errors import UsageError, did_you_mean

__all__ = ["CARDS", "Card", "find_card"]

_MIB = 1 << 20
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@final
@dataclass(frozen=True)
class Card:
    """A processor to train on.

    Attributes:
        name: as ``plan.card`` has it.
        title: for people.
        memory_bytes: what a process can have of it: for a GPU what its driver reports, which is
            less than what is printed on the box.
        half_flops: peak of dense bfloat16 products, operations a second; None: to be measured.
        single_flops: the same in float32 (TF32 is not used).
        source: where the figures come from.
        is_here: whether it is this machine's.
    """

    name: str
    title: str
    memory_bytes: int
    half_flops: float | None
    single_flops: float | None
    source: str
    is_here: bool = False

    @property
    def is_gpu(self) -> bool:
        """Whether it runs CUDA."""
        return self.name != "cpu"


def _gpu(name: str, title: str, mib: int, *, tflops: tuple[float, float]) -> Card:
    """A card by its memory in MiB and its dense peaks in TFLOP/s (bfloat16, float32)."""
    source = f"NVIDIA's data sheet of the {title.split()[1]}; memory as nvidia-smi reports it"
    return Card(name, title, mib * _MIB, tflops[0] * 1e12, tflops[1] * 1e12, source)


CARDS: Mapping[str, Card] = {
    card.name: card
    for card in (
        _gpu("a10", "NVIDIA A10 24 GB", 23028, tflops=(125, 31.2)),
        _gpu("a10g", "NVIDIA A10G 24 GB", 23028, tflops=(70, 35)),
        _gpu("l4", "NVIDIA L4 24 GB", 23034, tflops=(121, 30.3)),
        _gpu("a100-40", "NVIDIA A100 40 GB", 40960, tflops=(312, 19.5)),
        _gpu("a100-80", "NVIDIA A100 80 GB", 81920, tflops=(312, 19.5)),
        _gpu("h100", "NVIDIA H100 SXM 80 GB", 81559, tflops=(989, 67)),
        _gpu("h200", "NVIDIA H200 SXM 141 GB", 143771, tflops=(989, 67)),
    )
}
"""Dense peaks: where a data sheet gives them with sparsity, half of that."""

# In the order in which they are looked for in the name that CUDA gives a device.
# Kinds of a card with other peaks stand before it and are not listed: they are measured.
_NAMES: tuple[tuple[str, str], ...] = (
    ("A10G", "a10g"),
    ("A100", "a100"),
    ("A10", "a10"),
    ("L40", ""),
    ("L4", "l4"),
    ("H100 PCIe", ""),
    ("H100 NVL", ""),
    ("H100", "h100"),
    ("H200 NVL", ""),
    ("H200", "h200"),
)


def find_card(name: str) -> Card:
    """The card that ``plan.card`` or ``--card`` names; ``auto`` and ``cpu`` are this machine's.

    Raises:
        UsageError: it is not known.
    """
    if name == "auto":
        return _this_gpu() or _this_cpu()
    if name == "cpu":
        return _this_cpu()
    if name in CARDS:
        return CARDS[name]
    known = ("auto", "cpu", *CARDS)
    raise UsageError(
        f"plan.card: there is no card {name!r}{did_you_mean(name, known)}",
        hint=f"Known are {', '.join(known)}.",
    )


def _this_gpu() -> Card | None:
    import torch

    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    found = next((card for words, card in _NAMES if words in properties.name), "")
    if found == "a100":
        found = "a100-80" if properties.total_memory > 60 << 30 else "a100-40"
    listed = CARDS.get(found)
    return Card(
        found or "gpu",
        properties.name,
        properties.total_memory,
        listed.half_flops if listed else None,
        listed.single_flops if listed else None,
        f"memory as CUDA reports it; peak: {listed.source if listed else 'measured'}",
        is_here=True,
    )


def _this_cpu() -> Card:
    return Card(
        "cpu",
        f"this machine's CPU, {os.cpu_count()} cores",
        _main_memory_bytes(),
        None,
        None,
        "memory as the system reports it",
        is_here=True,
    )


def _main_memory_bytes() -> int:
    """Memory of the machine, or of the container that this runs in where that is less."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # absent, or "max"
            limits.append(int(Path(path).read_text("ascii")))
    return min(limits)
