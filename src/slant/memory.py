"""Memory: that it ran out, and giving it back to the system."""

from __future__ import annotations

import ctypes
import gc
import sys

__all__ = ["is_out_of_memory", "release_memory", "trim_memory"]


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out. PyTorch has a class for it on GPUs, and on CPUs only a text."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error)
    return any(
        words in text
        for words in ("can't allocate memory", "not enough memory", "MPS backend out of memory")
    )


def release_memory() -> None:
    """Give back what is no longer used, so that peaks do not add up over a long process.

    Models hang in reference cycles until they are collected.
    """
    gc.collect()
    trim_memory()


def trim_memory() -> None:
    """Give back what was freed already; takes milliseconds.

    Batches of ever other shapes leave the C library with gaps that it keeps: gigabytes after some
    minutes of training on a CPU.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl has not
        if trim is not None:
            trim(0)
