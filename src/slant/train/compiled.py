"""Decoder layers compiled by ``torch.compile``: the same arithmetic with fewer trips to memory.

Compiled code may depend on the shapes that it was first asked for, down to the order of sums. So
each form of batch is compiled on a small batch made for it, never on one of the data: a run that
was killed compiles the same code when it goes on, whatever batch comes first then.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn

from slant.errors import UsageError
from slant.model.attention import use_product_attention
from slant.model.label_head import plain_model
from slant.progress import Progress
from slant.train.job import Job
from slant.train.loop import to_device
from slant.train.parallel import World

__all__ = ["Formed", "compile_layers", "make_fast"]

# Compiling takes some 20 seconds on two cores and saves some 0.4 ms for each token of the embedded
# base model, more of a larger one.
_LEAST_TOKENS = 200_000
_LIMIT = 64  # of versions of a layer's code; there are at most eight forms
_SHORT = 64  # tokens in a row of the batch that is compiled on


class Formed(Protocol):
    """An objective that can tell the forms of its batches and make a small batch of each."""

    def shape_of(self, batch: Any) -> tuple[int, int, bool]:
        """Rows, tokens of a row, and whether positions start again within a row."""
        ...

    def sample(self, num_rows: int, num_tokens: int, *, shared: bool) -> Any:
        """A batch of about that shape on the CPU, always the same."""
        ...


def make_fast(
    objective: nn.Module,
    causal_lm: nn.Module,
    job: Job,
    world: World,
    progress: Progress,
    *,
    num_tokens: float,
    most_tokens: int,
) -> None:
    """Choose the fastest way of training that is right for this model and machine, in place.

    Args:
        objective: what training calls; ``Formed``.
        causal_lm: the model within it.
        job: its settings are asked.
        world: the devices.
        progress: told how long compiling took.
        num_tokens: of the whole training.
        most_tokens: of a prompt or a packed row.

    Raises:
        UsageError: ``train.compile`` is true, and there is no C++ compiler.
    """
    plain = plain_model(causal_lm)
    use_product_attention(plain, most_tokens)
    asked = job.settings.train.compile
    if asked is None:
        asked = (
            world.device == "cpu"
            and num_tokens >= _LEAST_TOKENS
            and _has_compiler()
            and not world.sharded
            and job.settings.model.quantize is None
            and not job.settings.train.activation_checkpointing
        )
    elif asked and world.device == "cpu" and not _has_compiler():
        raise UsageError(
            "train.compile is true, and this machine has no C++ compiler",
            hint="Install g++ (Debian: `apt-get install g++`), or leave train.compile out.",
        )
    if asked:
        compile_layers(objective, plain.get_decoder(), progress)


def _has_compiler() -> bool:
    named = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    return shutil.which(named) is not None


def compile_layers(objective: Any, decoder: Any, progress: Progress) -> None:
    """Let the layers of ``decoder`` run compiled code in training passes, in place.

    Measuring goes on as before. Where compiling fails, training goes on as before too, and says so.

    Args:
        objective: a module that is ``Formed`` and calls ``decoder``.
        decoder: a Hugging Face decoder.
        progress: told how long compiling took.
    """
    window = getattr(decoder.config.get_text_config(), "sliding_window", None)
    # So that the first layer is like the others, and needs no code of its own.
    handles = [decoder.get_input_embeddings().register_forward_hook(_ask_for_gradient)]
    for layer in decoder.layers:
        layer.forward = _switch(layer, layer.forward)
    seen: set[_Form] = set()

    def compile_form_of(_: nn.Module, args: tuple[Any, ...]) -> None:
        if not (objective.training and torch.is_grad_enabled()):
            return
        num_rows, num_tokens, shared = objective.shape_of(args[0])
        form = _Form(num_rows == 1, shared, window is not None and num_tokens > window)
        if form in seen:
            return
        seen.add(form)
        started = time.monotonic()
        try:
            _compile(objective, form, window)
        except Exception as error:
            for handle in handles:
                handle.remove()
            for layer in decoder.layers:
                del layer.forward
            progress.say(f"layers could not be compiled, training goes on without: {error!r}")
        else:
            progress.say(f"compiled the layers in {time.monotonic() - started:.0f} s")

    handles.append(objective.register_forward_pre_hook(compile_form_of))


def _ask_for_gradient(module: nn.Module, args: Any, output: Tensor) -> None:
    if torch.is_grad_enabled() and module.training:
        output.requires_grad_(True)


def _switch(layer: nn.Module, plain: Callable[..., Any]) -> Callable[..., Any]:
    compiled = torch.compile(  # type: ignore[call-overload]
        plain, dynamic=True, recompile_limit=_LIMIT
    )

    def forward(*args: Any, **options: Any) -> Any:
        in_training = layer.training and torch.is_grad_enabled()
        return (compiled if in_training else plain)(*args, **options)

    return forward


@final
@dataclass(frozen=True)
class _Form:
    """What the layers' code depends on, of a batch.

    Attributes:
        single: there is one row.
        shared: positions start again within a row.
        long: rows are longer than the model's sliding window.
    """

    single: bool
    shared: bool
    long: bool


def _compile(objective: Any, form: _Form, window: int | None) -> None:
    """Run a small batch of that form forward and backward; gradients are left as they are."""
    num_tokens = _SHORT + (window or 0) if form.long else _SHORT
    params = [p for p in objective.parameters() if p.requires_grad]
    device = params[0].device
    batch = objective.sample(1 if form.single else 2, num_tokens, shared=form.shared)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.autograd.grad(objective(to_device(batch, device)), params, allow_unused=True)
