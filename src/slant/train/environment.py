"""What torchrun, Slurm and Ray tell a process that they start as one of several.

https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables
"""

from __future__ import annotations

import os

__all__ = ["in_world", "rank"]


def in_world() -> bool:
    """Whether this process was started as one of several that train together."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def rank() -> int:
    """This process's number among them; 0 where it is alone."""
    return int(os.environ["RANK"]) if in_world() else 0
