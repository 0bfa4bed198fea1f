"""A bundle that vLLM can serve, and a vLLM server of its own for a test.

vLLM does not install beside slant, so that the server is the ``vllm`` executable of another Python
environment (``make vllm`` makes one).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import final
from urllib.error import URLError
from urllib.request import urlopen

import torch

from slant.export.formats import write_classifier
from slant.model.base import load_causal_lm
from slant.model.folder import save_causal_lm
from slant.task.spec import TaskSpec
from tiny import save_tiny_model, tiny_model
from tiny_task import tiny_spec

__all__ = ["VllmServer", "write_tiny_bundle"]

_HOST = "127.0.0.1"
_START_S = 600.0
_STOP_S = 60.0
_SPREAD = 40.0
"""How much further apart the label rows of the head are than a random model has them."""


def write_tiny_bundle(folder: Path, *, temperature: float = 1.7) -> TaskSpec:
    """Write the two exported models and ``slant.json`` of a random Mistral.

    Its heads have 64 dimensions, because the attention of vLLM for CPUs has no smaller ones. A
    random head gives every label about a third; this one is scaled, so that probabilities differ.
    """
    base = save_tiny_model(folder.with_name(folder.name + "-base"))  # for its tokenizer
    causal_lm = tiny_model(
        hidden_size=128, num_attention_heads=2, num_key_value_heads=1, head_dim=64
    )
    with torch.no_grad():
        causal_lm.get_output_embeddings().weight.mul_(_SPREAD)
    spec = tiny_spec(token_limit=512).with_temperature(temperature)
    folder.mkdir()
    save_causal_lm(causal_lm, base, folder / "causal-lm")
    write_classifier(
        load_causal_lm(folder / "causal-lm", dtype=torch.float32), spec, base, folder / "classifier"
    )
    spec.save(folder)
    return spec


@final
class VllmServer:
    """``vllm serve`` on a classifier folder; returns when it answers.

    Args:
        executable: ``vllm`` of its environment.
        classifier: the folder to serve.
        log: what the server prints.
        options: further options of ``vllm serve``.
    """

    def __init__(self, executable: str, classifier: Path, log: Path, *options: str) -> None:
        with socket.create_server((_HOST, 0)) as found:
            port = found.getsockname()[1]
        self.url = f"http://{_HOST}:{port}"
        self._log = log
        command = [executable, "serve", str(classifier), "--host", _HOST, "--port", str(port)]
        command += ["--runner", "pooling", "--enable-prefix-caching", *options]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self.kill()
            raise

    def _wait(self) -> None:
        until = time.monotonic() + _START_S
        while not self._answers():
            assert self._process.poll() is None, f"vLLM ended:\n{self._last_lines()}"
            assert time.monotonic() < until, f"vLLM does not start:\n{self._last_lines()}"
            time.sleep(0.5)

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def _last_lines(self) -> str:
        return "\n".join(self._log.read_text("utf-8", errors="replace").splitlines()[-20:])

    def metric(self, name: str) -> float:
        """Sum of a counter of ``/metrics`` over its label sets; 0 where there is none."""
        with urlopen(f"{self.url}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        found = [line for line in lines if line.startswith((f"{name}{{", f"{name} "))]
        return sum(float(line.rpartition(" ")[2]) for line in found)

    def kill(self) -> None:
        """End the server and the processes that it started, at once."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """End the server as a person would; with SIGKILL where that does not help."""
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_S)
        self.kill()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)  # the group lives as long as any of its processes


def _environment() -> dict[str, str]:
    ours = {
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    return {**ours, **os.environ}
