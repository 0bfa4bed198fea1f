"""Checkpoints: what a run that was stopped goes on from.

    checkpoints/step-00000120/progress.json            numbers; whose training it is; its world
    checkpoints/step-00000120/state-0-of-1.safetensors trainable weights and AdamW's moments
    checkpoints/best-00000090/weights-0-of-1.safetensors

A checkpoint is written under another name, synced and renamed: what has its name is whole. With
sharded weights every process writes its own slice (of the first dimension, as ``fully_shard`` cuts
it), and the slices of any number of processes can be read by any other number.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from slant.disk import sync_folder, write_atomically
from slant.errors import ArtifactError
from slant.progress import Progress
from slant.train.parallel import World

__all__ = ["AVERAGE", "Best", "Checkpoints", "State"]

AVERAGE = "average"
"""Of a weight, over the steps: kept beside AdamW's moments, and saved with them."""
_MOMENTS = ("step", "exp_avg", "exp_avg_sq", AVERAGE)
_PROGRESS = "progress.json"
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError)


@dataclass(frozen=True)
class Best:
    """The validation that was best so far: after which step, and its score."""

    step: int
    score: float


@dataclass
class State:
    """How far a training is.

    Attributes:
        steps: finished updates.
        tokens: that went through the model.
        seconds: spent; leaves out what a kill undid.
        events: lines of the event log.
        validated: number of finished steps at the last validation.
        best: the best validation, if there was one.
        worse: validations since it.
        passes: tokens that one pass may take, once memory has run out; 0: as configured.
    """

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    events: int = 0
    validated: int = 0
    best: Best | None = None
    worse: int = 0
    passes: int = 0


@final
@dataclass
class Checkpoints:
    """The checkpoints of one training.

    Args:
        folder: theirs alone.
        params: trainable parameters by name.
        optimizer: AdamW over them.
        world: all its processes call each method together.
        identity: of what is trained; a checkpoint of something else is refused.
        keep: how many to keep.
        progress: told when the last one is damaged and an older one serves.
    """

    folder: Path
    params: Mapping[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    world: World
    identity: str
    keep: int
    progress: Progress

    def save(self, state: State) -> None:
        """Write a checkpoint; only then remove those that are too many."""
        name = f"step-{state.steps:08}"
        with self._published(name) as partial:
            if self._writes:
                _write_tensors(partial / self._file("state"), self._tensors())
            if self.world.is_main:
                content = {"identity": self.identity, **asdict(state)}
                write_atomically(partial / _PROGRESS, json.dumps(content))
        if self.world.is_main:
            self._rotate()

    def save_best(self, steps: int) -> None:
        """Keep the present weights as the best ones; older ones stay until ``save`` is done."""
        with self._published(f"best-{steps:08}") as partial:
            if self._writes:
                weights = {key: _local(param) for key, param in self.params.items()}
                _write_tensors(partial / self._file("weights"), weights)

    def restore(self) -> State:
        """Load the last checkpoint that is whole; a fresh ``State`` where there is none.

        Raises:
            ArtifactError: there are checkpoints and none can be used, or the last one is of
                another training.
        """
        found = sorted(self.folder.glob("step-????????"), reverse=True)
        problems: list[str] = []
        for path in found:
            try:
                state = self._load(path)
            except _UNREADABLE as error:
                problems.append(f"{path}: {error}")
                continue
            if problems and self.world.is_main:
                self.progress.say(f"{problems[0]}; going on from {path.name}")
            return state
        if found:
            raise ArtifactError(
                f"the checkpoint cannot be used: {problems[0]}",
                hint="Delete this folder; training then starts from the beginning.",
            )
        return State()

    def load_best(self, best: Best) -> None:
        """Put the best weights in place of the present ones.

        Raises:
            ArtifactError: they are damaged.
        """
        path = self.folder / f"best-{best.step:08}"
        try:
            with _open_slices(path, "weights") as slices, torch.no_grad():
                for key, param in self.params.items():
                    _put(param, slices(key), key, self.world)
        except _UNREADABLE as error:
            raise ArtifactError(
                f"{path}: the best weights cannot be read: {error}",
                hint=f"Delete {self.folder}; training then starts from the beginning.",
            ) from error

    @contextmanager
    def _published(self, name: str) -> Iterator[Path]:
        """A folder under another name, which gets its own once every process has written."""
        target = self.folder / name
        partial = self.folder / f"{name}.partial"
        if self.world.is_main:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        self.world.barrier()
        yield partial
        self.world.barrier()
        if self.world.is_main:
            sync_folder(partial)
            # There is one already where a stopped run validated here and did not come to save.
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
            sync_folder(self.folder)
        self.world.barrier()

    @property
    def _writes(self) -> bool:
        """Whether this process holds what no other one writes."""
        return self.world.is_main or self.world.sharded

    def _file(self, kind: str) -> str:
        rank, size = (self.world.rank, self.world.size) if self.world.sharded else (0, 1)
        return f"{kind}-{rank}-of-{size}.safetensors"

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {}
        for key, param in self.params.items():
            tensors[f"weight/{key}"] = _local(param)
            for moment, value in self.optimizer.state[param].items():
                tensors[f"{moment}/{key}"] = _local(value)
        return tensors

    def _rotate(self) -> None:
        """Remove what no kept checkpoint needs; a checkpoint needs the best weights it names."""
        steps = sorted(self.folder.glob("step-????????"))
        kept, needed = steps[-self.keep :], set()
        for path in kept:
            best = json.loads((path / _PROGRESS).read_text("utf-8"))["best"]
            needed |= {path.name, f"best-{best['step']:08}" if best else ""}
        for path in self.folder.iterdir():
            if path.name not in needed:
                shutil.rmtree(path)

    def _load(self, path: Path) -> State:
        content = json.loads((path / _PROGRESS).read_text("utf-8"))
        if content.pop("identity") != self.identity:
            raise ArtifactError(
                f"{path}: this checkpoint is of another task, other data or other settings",
                hint="Delete the folder; training then starts from the beginning.",
            )
        best = content.pop("best")
        state = State(best=Best(**best) if best else None, **content)
        if state.best and not (self.folder / f"best-{state.best.step:08}").is_dir():
            raise ValueError(f"the best weights, of step {state.best.step}, are gone")
        with _open_slices(path, "state") as slices, torch.no_grad():
            for key, param in self.params.items():
                _put(param, slices(f"weight/{key}"), key, self.world)
                # A parameter that no gradient has reached yet has no moments.
                moments = {}
                for moment in _MOMENTS:
                    if value := slices(f"{moment}/{key}"):
                        moments[moment] = self._moment(param, moment, value)
                if moments:
                    self.optimizer.state[param] = moments
        return state

    def _moment(self, param: nn.Parameter, moment: str, values: list[Tensor]) -> Tensor:
        if moment == "step":
            return values[0]
        tensor = torch.zeros_like(param)
        _put(tensor, values, moment, self.world)
        return tensor


def _local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    from torch.distributed.tensor import DTensor

    whole = tensor.detach()
    return whole.to_local() if isinstance(whole, DTensor) else whole


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write and sync."""
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def _open_slices(folder: Path, kind: str) -> Iterator[Callable[[str], list[Tensor]]]:
    """A function from a name to its slices, in the order of the processes that wrote them."""
    paths = sorted(folder.glob(f"{kind}-*-of-*.safetensors"), key=_slice_number)
    expected = int(paths[0].stem.rpartition("-")[2]) if paths else 1
    if len(paths) != expected:
        raise ValueError(f"{len(paths)} of {expected} files are there")
    with ExitStack() as stack:
        files = [stack.enter_context(safe_open(path, framework="pt")) for path in paths]
        names = [set(file.keys()) for file in files]

        def slices(name: str) -> list[Tensor]:
            return [
                file.get_tensor(name)
                for file, held in zip(files, names, strict=True)
                if name in held
            ]

        yield slices


def _slice_number(path: Path) -> int:
    return int(path.stem.split("-")[1])


def _put(target: Tensor, slices: list[Tensor], name: str, world: World) -> None:
    """Copy a tensor that was written in slices into ``target``, or its part of it."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not slices:
        raise KeyError(f"{name} is missing")
    whole = slices[0] if len(slices) == 1 else torch.cat(slices)
    if whole.shape != target.shape:  # copy_ would broadcast
        raise ValueError(f"{name} is {[*whole.shape]}, not {[*target.shape]}")
    if isinstance(target, DTensor):
        whole = distribute_tensor(
            whole.to(world.device), target.device_mesh, target.placements, src_data_rank=None
        )
    target.copy_(whole)
