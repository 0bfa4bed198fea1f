"""Decoder layers compiled by ``torch.compile``: the same arithmetic with fewer trips to memory.

Compiled code may depend on the shapes that it was first asked for, down to the order of sums. So
each form of batch is compiled on a small batch made for it, never on one of the data, and forms
share no code: a run that was killed compiles the same code when it goes on, whatever comes first
then.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from slant.config.settings import ProjectSettings
from slant.errors import UsageError
from slant.memory import is_out_of_memory
from slant.model.attention import MOST_TOKENS
from slant.model.compiling import has_compiler
from slant.model.last_layer import wide_layers
from slant.progress import Progress
from slant.train.loop import to_device
from slant.train.objective import AdaptObjective, TuneObjective
from slant.train.parallel import World

__all__ = ["compile_layers", "is_to_compile"]

# Compiling takes some 20 seconds on two cores and saves some 0.3 ms for each token of the embedded
# base model, more of a larger one.
_LEAST_TOKENS = 200_000
_LIMIT = 64  # of versions of a layer's code; there are fewer forms
_SHORT = 64  # tokens in a row of the batch that is compiled on, or more than it must be longer than
_TRIES = 2  # Ctrl-C on the terminal also reaches the compiler, which is no reason to do without


def is_to_compile(settings: ProjectSettings, world: World, num_tokens: float) -> bool:
    """Whether to compile the layers for a training.

    Args:
        settings: ``train.compile`` decides; without it, a training on a CPU is compiled if nothing
            speaks against it.
        world: the devices; split weights are never compiled.
        num_tokens: that it trains on.

    Raises:
        UsageError: it is asked for, and there is no C++ compiler.
    """
    asked = settings.train.compile
    on_cpu = world.device == "cpu"
    if world.sharded or asked is False or (asked is None and not on_cpu):
        return False
    if asked and on_cpu and not has_compiler():
        raise UsageError(
            "train.compile is true, and this machine has no C++ compiler",
            hint="Install g++ (Debian: `apt-get install g++`), or leave train.compile out.",
        )
    return bool(asked) or (num_tokens >= _LEAST_TOKENS and settings.can_compile and has_compiler())


def compile_layers(
    objective: TuneObjective | AdaptObjective, decoder: Any, progress: Progress
) -> None:
    """Let the layers of ``decoder`` run compiled code in training passes, in place.

    Measuring goes on as before. Where compiling fails, training goes on as before too, and says so.

    Args:
        objective: calls ``decoder``.
        decoder: a Hugging Face decoder; a narrowed layer (see ``last_layer``) is left as it is.
        progress: told how long compiling took.
    """
    compiler = _Compiler(objective, decoder, progress)
    # So that the first layer is like the others, and needs no code of its own.
    decoder.get_input_embeddings().register_forward_hook(_ask_for_gradient)
    for layer in wide_layers(decoder):
        layer.forward = compiler.switch(layer, layer.forward)
    objective.register_forward_pre_hook(compiler.prepare)


def _ask_for_gradient(module: nn.Module, args: Any, output: Tensor) -> None:
    if torch.is_grad_enabled() and module.training:
        output.requires_grad_(True)


@final
@dataclass(frozen=True)
class _Form:
    """What the layers' code depends on, of a batch.

    Attributes:
        single: there is one row.
        shared: positions start again within a row.
        long: rows are longer than the model's sliding window.
        wide: rows are longer than attention is done for in whole products.
    """

    single: bool
    shared: bool
    long: bool
    wide: bool


@final
class _Compiler:
    """The forms that are compiled so far, and the one at work."""

    def __init__(
        self, objective: TuneObjective | AdaptObjective, decoder: Any, progress: Progress
    ) -> None:
        self._objective = objective
        self._window = getattr(decoder.config.get_text_config(), "sliding_window", None)
        self._progress = progress
        self._forms: set[_Form] = set()
        self._in_use = True
        self._form = ""

    def switch(self, layer: nn.Module, plain: Callable[..., Any]) -> Callable[..., Any]:
        """A layer's forward pass: compiled while it trains."""

        def by_form(form: str, *args: Any, **options: Any) -> Any:
            return plain(*args, **options)

        compiled = torch.compile(  # type: ignore[call-overload]
            by_form, dynamic=True, recompile_limit=_LIMIT
        )

        def forward(*args: Any, **options: Any) -> Any:
            if self._in_use and layer.training and torch.is_grad_enabled():
                return compiled(self._form, *args, **options)
            return plain(*args, **options)

        return forward

    def prepare(self, _: nn.Module, args: tuple[Any, ...]) -> None:
        """Before a pass: compile for its form, if that is new."""
        if not (self._in_use and self._objective.training and torch.is_grad_enabled()):
            return
        form = self._form_of(args[0])
        if form not in self._forms:
            self._forms.add(form)
            self._compile(form)
        self._form = repr(form)

    def _form_of(self, batch: Any) -> _Form:
        num_rows, num_tokens, shared = self._objective.shape_of(batch)
        return _Form(
            single=num_rows == 1,
            shared=shared,
            long=self._window is not None and num_tokens > self._window,
            wide=num_tokens > MOST_TOKENS,
        )

    def _compile(self, form: _Form) -> None:
        started = time.monotonic()
        for left in reversed(range(_TRIES)):
            try:
                self._run_sample(form)
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                if not left:
                    self._in_use = False
                    self._progress.say(
                        f"layers could not be compiled, training goes on without: {error!r}"
                    )
            else:
                seconds = time.monotonic() - started
                self._progress.say(f"compiled the layers in {seconds:.0f} s")
                return

    def _run_sample(self, form: _Form) -> None:
        """A small batch of that form, forward and backward; gradients are left as they are."""
        longest = max(MOST_TOKENS if form.wide else 0, self._window or 0 if form.long else 0)
        batch = self._objective.sample(
            1 if form.single else 2, longest + _SHORT, shared=form.shared
        )
        params = [p for p in self._objective.parameters() if p.requires_grad]
        device = params[0].device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            loss = self._objective(to_device(batch, device))
            torch.autograd.grad(loss, params, allow_unused=True)
