"""Several processes that train one model: who they are, and how they agree.

``ddp``: every process holds all weights, and gradients are added up once a step. ``fsdp``: every
process holds a slice of each weight (PyTorch's ``fully_shard``). This is done with torch itself,
not with transformers' Trainer or Accelerate, because on a CPU both fall back to one process or to
whole weights without a word, and then nothing that is tested there would show what a GPU does.

A step's loss is a sum of shares (see ``Batch.share``), so gradients are summed over processes, not
averaged, and the result does not depend on how many there are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from slant.errors import UsageError
from slant.train.environment import in_world

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule

__all__ = ["World", "full_norm", "join_world", "let_go", "shard_model", "whole"]

Module = TypeVar("Module", bound=nn.Module)

_BUCKET_ELEMENTS = 1 << 25  # gradients summed at once: 128 MB of float32
_PATIENCE = timedelta(hours=2)  # for a process that validates or saves alone


@final
@dataclass(frozen=True)
class World:
    """The processes of one training and this one's place among them.

    Attributes:
        rank: 0 … size - 1; rank 0 writes files and reports.
        size: number of processes.
        device: of this process.
        sharded: whether weights are split (``fsdp``).
    """

    rank: int = 0
    size: int = 1
    device: str = "cpu"
    sharded: bool = False

    @property
    def is_main(self) -> bool:
        """Whether this process speaks for all."""
        return self.rank == 0

    @property
    def loading_device(self) -> str:
        """Where a model is loaded: one that is split moves to its device slice by slice."""
        return "cpu" if self.sharded else self.device

    def sum(self, values: Sequence[float]) -> list[float]:
        """Element-wise sum over all processes; every process gets the same."""
        if self.size == 1:
            return [float(value) for value in values]
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        return [float(value) for value in total]

    def sum_array(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Element-wise sum of an array over all processes."""
        if self.size == 1:
            return values
        total = torch.from_numpy(values).to(self.device)
        torch.distributed.all_reduce(total)
        summed: NDArray[np.float32] = total.cpu().numpy()
        return summed

    def gather(self, names: list[str]) -> list[str]:
        """The texts of all processes, in the order of their ranks."""
        if self.size == 1:
            return names
        gathered: list[list[str]] = [[] for _ in range(self.size)]
        torch.distributed.all_gather_object(gathered, names)
        return [name for of_rank in gathered for name in of_rank]

    def barrier(self) -> None:
        """Wait until every process has come here."""
        if self.size > 1:
            torch.distributed.barrier()

    def sum_gradients(self, params: Sequence[nn.Parameter]) -> None:
        """Add up the gradients of all processes; with sharded weights that is done already."""
        if self.size == 1 or self.sharded:
            return
        for param in params:
            if param.grad is None:
                param.grad = torch.zeros_like(param)
        for bucket in _buckets(params):
            grads = [param.grad for param in bucket if param.grad is not None]
            flat = torch.cat([grad.reshape(-1) for grad in grads])
            torch.distributed.all_reduce(flat)
            sizes = [grad.numel() for grad in grads]
            for grad, summed in zip(grads, torch.split(flat, sizes), strict=True):
                grad.copy_(summed.view_as(grad))

    @property
    def loss_scale(self) -> int:
        """What a loss is multiplied by: sharded gradients come as a mean over processes."""
        return self.size if self.sharded else 1


def _buckets(params: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    elements = 0
    for param in params:
        if bucket and elements + param.numel() > _BUCKET_ELEMENTS:
            yield bucket
            bucket, elements = [], 0
        bucket.append(param)
        elements += param.numel()
    if bucket:
        yield bucket


@contextmanager
def join_world(strategy: str) -> Iterator[World]:
    """Meet the other processes; alone if this one was not started as one of several.

    Args:
        strategy: ``"ddp"`` or ``"fsdp"``.

    Raises:
        UsageError: there are more processes on this machine than GPUs.
    """
    cuda = torch.cuda.is_available()
    if not in_world():
        yield World(device="cuda" if cuda else "cpu")
        return
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if cuda and local >= torch.cuda.device_count():
        raise UsageError(
            f"process {local} has no GPU: this machine has {torch.cuda.device_count()}",
            hint="Start no more processes than there are GPUs.",
        )
    device = f"cuda:{local}" if cuda else "cpu"
    if cuda:
        torch.cuda.set_device(local)
    # Ray has made the process group before us.
    ours = not torch.distributed.is_initialized()
    if ours:
        torch.distributed.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)
    try:
        yield World(rank, size, device, strategy == "fsdp")
        if ours:
            # Nobody leaves while another is still at work: a process that is gone can end them all.
            torch.distributed.barrier()
    finally:
        if ours:
            torch.distributed.destroy_process_group()


def shard_model(objective: nn.Module, layers: Sequence[nn.Module], world: World) -> None:
    """Split the weights over the processes, layer by layer, in place.

    A layer's weights are gathered for its own pass and let go of afterwards; what is outside the
    layers (embeddings, LM head, norm) is one more group.

    Args:
        objective: what training calls; its parameters become ``DTensor``.
        layers: the decoder layers within it.
        world: nothing is done unless it is ``sharded``.
    """
    if not world.sharded:
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(world.device.split(":", maxsplit=1)[0], (world.size,))
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(objective, mesh=mesh)


def let_go(objective: nn.Module, world: World) -> None:
    """Forget weights that a pass without gradients gathered, after the slices were written to.

    What is outside the layers stays gathered until the next backward pass, so that the next
    forward pass would still compute with the weights of before.
    """
    if world.sharded:
        cast("FSDPModule", objective).reshard()


def whole(objective: Module, world: World, afresh: Callable[[], Module]) -> Module | None:
    """What was trained, in one piece, for rank 0 to save; None for the others, which help.

    Args:
        objective: as it was trained; it is returned itself where its weights are not split.
        world: every process has to call this.
        afresh: makes the objective as it was before training, on the CPU; gets the trained weights.
    """
    if world.sharded:
        weights = _gathered(objective, world)
        if world.is_main:
            objective = afresh()
            objective.load_state_dict(weights, strict=False)
    return objective if world.is_main else None


def _gathered(objective: nn.Module, world: World) -> dict[str, Tensor]:
    """The trained weights on the CPU of rank 0."""
    from torch.distributed.tensor import DTensor

    weights: dict[str, Tensor] = {}
    for name, param in objective.named_parameters():
        if param.requires_grad:
            whole = param.detach()
            whole = whole.full_tensor() if isinstance(whole, DTensor) else whole
            if world.is_main:
                weights[name] = whole.cpu()
    return weights


def full_norm(norm: Tensor) -> float:
    """A gradient norm as a number, of sharded gradients too."""
    from torch.distributed.tensor import DTensor

    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
