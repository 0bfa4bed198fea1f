"""An exported classifier as vLLM serves it: texts in, probabilities out.

vLLM does not install beside slant: it is asked over HTTP, in a server that is the ``vllm``
executable of any Python environment, and that lives no longer than the questions take.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any, Self
from urllib.request import ProxyHandler, build_opener

import numpy as np
import torch

from slant.errors import ModelError, UsageError
from slant.export.parity import Probabilities
from slant.score.http import check_httpx
from slant.score.vllm_engine import Retries, VllmEngine
from slant.task.spec import TaskSpec

__all__ = ["VllmServer", "ask_vllm", "find_vllm"]

_HOST = "127.0.0.1"
_START_S = 900.0
"""How long a server may take until it answers: it may have kernels to compile."""
_STOP_S = 30.0
_POLL_S = 0.5
_LINES = 8  # of the log of a server that went wrong
_DIRECT = build_opener(ProxyHandler({}))  # no proxy stands before this machine


def find_vllm(name: str, start: Path) -> str:
    """The executable that ``export.vllm`` names.

    Args:
        name: looked up on PATH, or where it is more than a name, a path.
        start: folder that a relative path starts from.

    Raises:
        UsageError: it is not there, or nothing that can be run.
        ModelError: httpx is not installed.
    """
    check_httpx("a vLLM server", "vllm")
    is_path = Path(name).name != name
    wanted = str((start / name).absolute()) if is_path else name
    if found := shutil.which(wanted):
        return found
    if not is_path:
        raise UsageError(
            f"export.vllm: there is no program {name!r} on PATH",
            hint="Give the path of the vllm executable, such as PATH/TO/ENVIRONMENT/bin/vllm.",
        )
    problem = "cannot be run" if Path(wanted).exists() else "is not there"
    raise UsageError(
        f"export.vllm: {wanted} {problem}",
        hint="Name the vllm executable of a Python environment, such as .venv-vllm/bin/vllm.",
    )


def ask_vllm(
    executable: str, folder: Path, spec: TaskSpec, prompts: Sequence[str], *, log: Path
) -> tuple[str, Probabilities]:
    """Serve a classifier and ask it.

    vLLM makes the token ids of the prompts itself, and the probabilities of its logits: it is asked
    as any program asks it.

    Args:
        executable: of ``find_vllm``.
        folder: ``classifier/`` or ``int8/``.
        spec: the calibrated contract.
        prompts: N texts, none longer than the token limit.
        log: file for what the server prints.

    Returns:
        The version and the arithmetic that it computed in, and ``(N, L)`` probabilities.

    Raises:
        ModelError: the server does not start, or does not answer as a vLLM server does.
    """
    config = json.loads((folder / "config.json").read_text("utf-8"))
    dtype = _dtype(config)
    options = ["--runner", "pooling", "--dtype", dtype, *_conversion(config)]
    # By default it reserves memory for a text as long as the model can read.
    options += ["--max-model-len", str(spec.token_limit)]
    with VllmServer(executable, folder, log, *options) as server:
        try:
            version = server.version()
            # The wait is for a whole batch of long prompts on a slow machine.
            with VllmEngine.for_bundle(
                server.url,
                spec,
                timeout_s=_START_S,
                prompts_per_request=8,
                retries=Retries(attempts=2),
            ) as engine:
                rows = engine.text_probabilities(prompts)
        except ModelError as error:
            raise ModelError(
                f"vLLM with {folder}: {error.message}{server.last_lines()}",
                hint=f"All that it printed is in {log}.",
            ) from error
    return f"vLLM {version} ({dtype})", rows.astype(np.float64)


def _dtype(config: dict[str, Any]) -> str:
    """Weights are to be compared, not the rounding of the arithmetic.

    But on a GPU vLLM multiplies in 8 bits for 16-bit arithmetic only: it chooses which.
    """
    in_8_bits = "quantization_config" in config
    return "auto" if in_8_bits and torch.cuda.is_available() else "float32"


def _conversion(config: dict[str, Any]) -> list[str]:
    """Options for a classifier whose name does not tell vLLM what it is made of.

    vLLM makes it of the ``XForCausalLM`` that goes with an ``XForSequenceClassification``. That of
    ``Gemma3TextForSequenceClassification`` is named ``Gemma3ForCausalLM``.
    """
    from transformers.models.auto import modeling_auto

    named = str(config["architectures"][0])
    found = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config["model_type"], "")
    guessed = named.replace("ForSequenceClassification", "ForCausalLM")
    if found == guessed or not found.endswith("ForCausalLM"):
        return []
    return ["--convert", "classify", "--hf-overrides", json.dumps({"architectures": [found]})]


class VllmServer:
    """``vllm serve`` on a folder; there once it answers, and for a ``with`` block.

    Args:
        executable: ``vllm`` of its environment.
        folder: of the model.
        log: file for what the server prints.
        options: of ``vllm serve``, beside the address.

    Raises:
        ModelError: it ends before it answers, or takes too long.
    """

    def __init__(self, executable: str, folder: Path, log: Path, *options: str) -> None:
        with socket.create_server((_HOST, 0)) as found:
            port = found.getsockname()[1]
        self.url = f"http://{_HOST}:{port}"
        self._folder, self._log = folder, log
        command = [executable, "serve", str(folder), "--host", _HOST, "--port", str(port)]
        try:
            with log.open("wb") as output:
                # A session of its own: what it starts is ended with it.
                self._process = subprocess.Popen(
                    [*command, *options],
                    env=_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
        except OSError as error:
            raise ModelError(
                f"{executable}: cannot be run: {error.strerror}",
                hint="export.vllm is to name the vllm executable of a Python environment.",
            ) from error
        try:
            self._wait()
        except BaseException:
            self.kill()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.stop()
        else:
            self.kill()

    def version(self) -> str:
        """Of vLLM, as the server tells it.

        Raises:
            ModelError: it does not.
        """
        try:
            return str(json.loads(self.read("/version"))["version"])
        except (OSError, HTTPException, ValueError, LookupError, TypeError) as error:
            raise ModelError(f"{self.url}: does not tell its version: {error}") from error

    def read(self, path: str) -> bytes:
        """What the server answers to GET."""
        with _DIRECT.open(f"{self.url}{path}", timeout=30) as answer:
            content: bytes = answer.read()
        return content

    def last_lines(self) -> str:
        """The end of the log, to be put after a message."""
        lines = self._log.read_text("utf-8", errors="replace").splitlines()
        told = [f"\n    {line.rstrip()}" for line in lines if line.strip()][-_LINES:]
        return "".join([":", *told]) if told else "; it printed nothing"

    def kill(self) -> None:
        """End the server and the processes that it started, at once.

        While it starts or computes, vLLM takes no notice of SIGTERM for a minute.
        """
        self._signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """End the server as a person would; with SIGKILL where that does not help.

        Killed, it leaves shared memory behind.
        """
        try:
            self._signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_S)
        finally:
            self.kill()

    def _wait(self) -> None:
        until = time.monotonic() + _START_S
        while True:
            code = self._process.poll()
            if code is not None:
                raise self._failure(f"ended with {code} before it answered")
            if self._answers():
                return
            if time.monotonic() > until:
                raise self._failure(f"did not answer within {_START_S:g} s")
            time.sleep(_POLL_S)

    def _answers(self) -> bool:
        try:
            with _DIRECT.open(f"{self.url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, HTTPException):
            return False

    def _failure(self, what: str) -> ModelError:
        return ModelError(
            f"vLLM, started with {self._folder}, {what}{self.last_lines()}",
            hint=f"All that it printed is in {self._log}. Without export.vllm, vLLM is not asked.",
        )

    def _signal(self, number: signal.Signals) -> None:
        # The group lives as long as any of its processes. Of zombies, macOS says "not permitted".
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def _environment() -> dict[str, str]:
    theirs = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ours = {
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "2",  # GB; by default a share of the machine's memory
        "VLLM_DO_NOT_TRACK": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    # On a GPU, float32 would else be multiplied as TF32.
    return {**ours, **theirs, "TRITON_F32_DEFAULT": "ieee"}
