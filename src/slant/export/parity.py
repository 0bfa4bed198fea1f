"""The proof that an export is what was trained: both are asked the same, and must agree.

The trained checkpoint answers along slant's own path, as it was trained: the adapter beside its
base. The exported folders are read in a fresh process by transformers alone (see ``consumer``), and
where it is wanted the classifiers by vLLM too (see ``served``).
All compute in float32 (but ``int8`` in vLLM on a GPU): what is compared is the weights, not the
rounding of the arithmetic.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from slant.errors import GateError, ModelError
from slant.export.consumer import GPU_ROOM
from slant.export.probes import Probe, describe_probes, sample_probes
from slant.memory import release_memory
from slant.model.base import BaseModel, load_tokenizer
from slant.model.label_head import LabelModel
from slant.model.tuned import load_tuned_adapted
from slant.score.decision import probabilities
from slant.score.torch_engine import TorchEngine
from slant.task.encode import Encoder
from slant.task.spec import TaskSpec

__all__ = [
    "BOUNDS",
    "INT8_BOUND",
    "INT8_MEAN_BOUND",
    "LABEL_AGREEMENT",
    "SCHEMA",
    "SERVED",
    "Answers",
    "Ask",
    "Probabilities",
    "Serve",
    "answer_in_fresh_process",
    "ask_folders",
    "ask_trained",
    "compare",
    "encode_as_trained",
    "label_probabilities",
    "prove",
    "prove_folders",
]

SCHEMA = "slant.parity/1"
Probabilities = NDArray[np.float64]
Ask = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Takes a job of ``consumer`` and returns what the folders answer."""
Serve = Callable[[Path, Sequence[str]], tuple[str, Probabilities]]
"""Takes a classifier's folder and prompts, and returns who read it and what it answers."""
SERVED = ("classifier", "int8")
"""Formats that a server of classifiers reads."""

BOUNDS: Mapping[str, float] = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 5e-3}
"""How far a probability may move when the merged weights are rounded to a dtype."""
INT8_BOUND, INT8_MEAN_BOUND = 0.5, 0.05
"""The same of int8, which rounds activations before every layer, and the mean over all probes. Of
2,000 held-out examples on Gemma 3 270M the largest change was 0.37 and the mean 0.014 (see
benchmarks/results/score.md): one answer says little, the mean tells rounding from damage."""
_CLEAR = 0.5
"""A label that leads by so much never changes by rounding."""
LABEL_AGREEMENT = 0.995
_SAME_WEIGHTS = 1e-3
"""How far answers of the same weights may be apart, whatever the format or the padding."""
_LINES = 3  # of a process that died


@dataclass(frozen=True)
class Answers:
    """What one exported folder answered.

    Attributes:
        reader: the library and its class; of more than one reader, all of them.
        dtype: that the folder keeps its weights in.
        problems: what is odd about its weights; nothing, if all is well.
        ways: name of a way to ask → places of the probes that were asked, ``(N, L)``
            probabilities. The first way is that of all probes.
    """

    reader: str
    dtype: str
    problems: Sequence[str]
    ways: Mapping[str, tuple[Sequence[int], Probabilities]]


def label_probabilities(
    model: LabelModel, spec: TaskSpec, prompts: Sequence[Sequence[int]]
) -> Probabilities:
    """``(N, L)`` calibrated probabilities along slant's own path."""
    logits_NL = TorchEngine(model.eval(), spec.pad_token_id).label_logits(prompts)
    return probabilities(logits_NL, spec.temperature)


def encode_as_trained(
    checkpoint: Path, base: BaseModel, probes: Sequence[Probe]
) -> tuple[TaskSpec, list[list[int]]]:
    """The contract that a checkpoint was trained under, and the token ids of the probes by it.

    Neither the contract of the bundle nor a file of it has a say: they are what is on trial.
    """
    spec = TaskSpec.load(checkpoint)
    encoder = Encoder(load_tokenizer(base.folder), spec)
    return spec, [encoder.encode(*probe.source) for probe in probes]


def ask_trained(
    checkpoint: Path,
    base: BaseModel,
    spec: TaskSpec,
    probes: Sequence[Probe],
    *,
    quantize: str = "none",
) -> Probabilities:
    """``(N, L)``: what the trained checkpoint answers to the probes, in float32.

    Args:
        checkpoint: folder of the tuned checkpoint.
        base: what it was tuned on.
        spec: the calibrated contract; only its temperature is used.
        probes: N pairs.
        quantize: of the base while it was tuned: ``none`` or ``nf4``.
    """
    own, prompts = encode_as_trained(checkpoint, base, probes)
    model = load_tuned_adapted(
        base.folder,
        checkpoint,
        own.verbalizer.token_ids,
        dtype=torch.float32,
        quantize=quantize,
    )
    found = label_probabilities(_on_gpu(model), own.with_temperature(spec.temperature), prompts)
    del model
    release_memory()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # the process that reads the folders wants it
    return found


def ask_folders(
    folders: Mapping[str, Path],
    spec: TaskSpec,
    probes: Sequence[Probe],
    *,
    base: Path | None = None,
    ask: Ask | None = None,
) -> dict[str, Answers]:
    """What exported folders answer to the probes.

    Args:
        folders: format (``causal-lm``, ``classifier``, ``int8``, ``adapter``) → folder.
        spec: the calibrated contract.
        probes: the pairs; the folders make the prompts themselves.
        base: of an adapter.
        ask: who reads the folders; None: a fresh process.

    Raises:
        GateError: a folder cannot be read.
        ModelError: the process died.
    """
    job = {
        "labels": list(spec.labels),
        "label_ids": list(spec.verbalizer.token_ids),
        "temperature": spec.temperature,
        "texts": [[probe.document, probe.narrative] for probe in probes],
        "sample": sample_probes(probes),
        "folders": [
            {"format": name, "path": str(path), "base": str(base)} for name, path in folders.items()
        ],
    }
    found = (ask or answer_in_fresh_process)(job)
    broken = [f"{name}: {entry['error']}" for name, entry in found.items() if "error" in entry]
    if broken:
        raise _refusal(broken)
    return {
        name: Answers(
            entry["reader"],
            entry["dtype"],
            entry["problems"],
            {
                way: (told["places"], np.asarray(told["probabilities"], dtype=np.float64))
                for way, told in entry["ways"].items()
            },
        )
        for name, entry in found.items()
    }


def answer_in_fresh_process(job: Mapping[str, Any], scratch: Path | None = None) -> dict[str, Any]:
    """Run ``consumer`` on a job in a process of its own.

    Args:
        job: see ``consumer``; it holds texts of the corpus.
        scratch: folder that it is written into meanwhile; None: the system's own.

    Raises:
        ModelError: it died.
    """
    with tempfile.TemporaryDirectory(prefix="parity-", dir=scratch) as name:
        files = [Path(name) / "job.json", Path(name) / "answers.json"]
        files[0].write_text(json.dumps(job), "utf-8")
        done = subprocess.run(
            # -P: a file in the working folder must not take the place of a library.
            [sys.executable, "-P", "-m", "slant.export.consumer", *map(str, files)],
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
        if done.returncode == 0:
            answers: dict[str, Any] = json.loads(files[1].read_text("utf-8"))
            return answers
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()[-_LINES:]
    raise ModelError(
        f"the process that reads the exported folders ended with {done.returncode}: "
        f"{' / '.join(lines) or 'it said nothing'}",
        hint="Where it was killed, memory ran out: it holds one exported model in float32.",
    )


def prove(trained: Probabilities, answers: Mapping[str, Answers]) -> dict[str, dict[str, Any]]:
    """Compare every exported format with the trained model, and equal weights with each other.

    Args:
        trained: ``(N, L)``, what the trained checkpoint answers.
        answers: of each format, to the same probes.

    Returns:
        What the proof says of each format.

    Raises:
        GateError: a probability moved by more than the format's bound, too many labels changed, a
            weight was missing, or answers that come from the same weights are apart.
    """
    failures: list[str] = []
    formats = {}
    for name, told in answers.items():
        # The config.json of int8 names the dtype of what was not rounded.
        found = replace(told, dtype="int8") if name == "int8" else told
        bound = {**BOUNDS, "int8": INT8_BOUND}.get(found.dtype, min(BOUNDS.values()))
        entry = formats[name] = _entry(trained, found, bound)
        if found.problems:
            failures.append(f"{name}: weights are {', '.join(found.problems[:3])}")
        for way, figures in entry["ways"].items():
            moved, same = figures["max_difference"], figures["label_agreement"]
            if not moved <= bound or not same >= LABEL_AGREEMENT:
                failures.append(
                    f"{name} ({way}): a probability moved by {moved:.4f} (at most {bound:g} is "
                    f"allowed), {same:.1%} of the labels agree"
                )
        if name == "int8":
            whole = [way for way in entry["ways"].values() if way["count"] == len(trained)]
            moved = float(np.max([way["mean_difference"] for way in whole]))
            if not moved <= INT8_MEAN_BOUND:
                failures.append(f"int8: probabilities moved by {moved:.4f} on average")
        # Not of int8: a last bit of an activation may become a whole step.
        elif not entry["ways_apart"] <= _SAME_WEIGHTS:
            failures.append(f"{name}: ways to ask it differ by {entry['ways_apart']:.4f}")
    if not failures and {"causal-lm", "classifier"} <= answers.keys():
        apart = _apart(answers["causal-lm"], answers["classifier"])
        if not apart <= _SAME_WEIGHTS:
            failures.append(f"causal-lm and classifier differ from each other by {apart:.4f}")
    if failures:
        raise _refusal(failures)
    return formats


def prove_folders(
    folders: Mapping[str, Path],
    spec: TaskSpec,
    probes: Sequence[Probe],
    trained: Probabilities,
    *,
    base: Path | None = None,
    ask: Ask | None = None,
    serve: Serve | None = None,
) -> dict[str, Any]:
    """Ask exported folders, hold them against the trained model, and write the proof down.

    Args:
        folders: as in ``ask_folders``, and likewise ``spec``, ``probes``, ``base`` and ``ask``.
        trained: ``(N, L)``, what the trained model answers to the probes.
        serve: who else is asked, once all is well: its answers are a way ``vllm`` to ask the
            classifiers; None: nobody.

    Returns:
        The proof, as it goes into the bundle (``parity.json``).

    Raises:
        GateError: as ``prove``. The folders are gone then: transformers would load them without
            asking for a manifest.
        ModelError: as ``ask_folders`` and ``serve``.
    """
    try:
        answers = ask_folders(folders, spec, probes, base=base, ask=ask)
        formats = prove(trained, answers)
        if serve is not None:
            prompts = [probe.prompt for probe in probes]
            for name in SERVED:
                if name in folders:
                    answers[name] = _with_served(answers[name], *serve(folders[name], prompts))
            formats = prove(trained, answers)
    except GateError:
        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return {
        "schema": SCHEMA,
        "passed": True,
        "fingerprint": spec.fingerprint,
        "probes": describe_probes(probes),
        "arithmetic": "float32",
        "label_agreement_min": LABEL_AGREEMENT,
        "formats": formats,
    }


def compare(trained: Probabilities, found: Probabilities, bound: float) -> dict[str, Any]:
    """How far ``found`` is from ``trained``, both ``(N, L)``.

    A label may flip only where the two best were as close as twice the bound allows (or 0.5 apart,
    if that is less): others are ``clear``, and ``label_agreement`` is the share of these that kept
    their label.
    """
    moved = np.abs(found - trained)
    best = np.sort(trained, axis=1)
    clear = best[:, -1] - best[:, -2] > min(2 * bound, _CLEAR)
    kept = found.argmax(axis=1) == trained.argmax(axis=1)
    return {
        "count": len(trained),
        "max_difference": round(float(moved.max()), 6),
        "mean_difference": round(float(moved.mean()), 6),
        "label_agreement": round(float(kept[clear].mean()) if clear.any() else 1.0, 6),
        "clear": int(clear.sum()),
        "labels_changed": int((~kept).sum()),
    }


def _entry(trained: Probabilities, found: Answers, bound: float) -> dict[str, Any]:
    """What the proof says of one format: its figures over all ways are those of the worst."""
    ways = {
        way: compare(trained[list(places)], rows, bound)
        for way, (places, rows) in found.ways.items()
    }
    first, *others = found.ways.values()
    apart = [float(np.abs(first[1][list(places)] - rows).max()) for places, rows in others]
    everything = next(iter(ways.values()))
    return {
        "reader": found.reader,
        "dtype": found.dtype,
        "bound": bound,
        # max() would pass over what is no number.
        "max_difference": float(np.max([way["max_difference"] for way in ways.values()])),
        "mean_difference": everything["mean_difference"],
        "label_agreement": float(np.min([way["label_agreement"] for way in ways.values()])),
        "labels_changed": everything["labels_changed"],
        "ways_apart": round(float(np.max(apart, initial=0.0)), 6),
        "ways": ways,
    }


def _with_served(told: Answers, reader: str, rows: Probabilities) -> Answers:
    ways = {**told.ways, "vllm": (range(len(rows)), rows)}
    return replace(told, reader=f"{told.reader}; {reader}", ways=ways)


def _on_gpu(model: LabelModel) -> LabelModel:
    """``model`` on the GPU, where there is one that it fits into."""
    if torch.cuda.is_available():
        size = sum(param.nbytes for param in model.parameters())
        if size * GPU_ROOM < torch.cuda.mem_get_info()[0]:
            return model.to("cuda")
    return model


def _apart(one: Answers, other: Answers) -> float:
    firsts = [next(iter(answers.ways.values()))[1] for answers in (one, other)]
    return float(np.abs(firsts[0] - firsts[1]).max())


def _refusal(failures: Sequence[str]) -> GateError:
    return GateError(
        "the bundle does not reproduce the model that it was made of: " + "; ".join(failures),
        hint="Nothing was published. A little over the bound, with all labels the same, it is the "
        "rounding of a 16-bit dtype: model.dtype: float32 is without. Else please report it.",
    )
