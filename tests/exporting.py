"""Tuned checkpoints made by hand, and what is exported of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

# Loaded when a module is first asked for them; a process that forks wants them loaded.
from transformers import (  # noqa: F401
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    MistralForCausalLM,
    MistralForSequenceClassification,
    PreTrainedTokenizerFast,
    pipeline,
)

from slant.artifacts import Artifact, load
from slant.corpus import Corpus
from slant.evaluate.stage import Subject, run_evaluate
from slant.export.consumer import answer
from slant.export.formats import write_formats
from slant.export.parity import Ask, Probabilities, ask_trained, prove_folders
from slant.export.probes import Probe, choose_probes
from slant.export.stage import run_export
from slant.model.adapter import attach_lora, unfreeze_layers
from slant.model.base import BaseModel, load_causal_lm, load_tokenizer
from slant.model.label_head import LabelModel
from slant.model.tuned import save_tuned
from slant.progress import SilentProgress
from slant.task.encode import Encoder
from slant.task.spec import TaskSpec
from tiny_stages import prepare, run_stage, save_base, tiny_settings

FORMATS = ("causal-lm", "classifier", "adapter", "int8")
TEMPERATURE = 0.3
"""Random models give every label about a third; this tells them apart."""


@dataclass
class Exported:
    """Folders in ``folder``, and what the trained model says to the probes."""

    folder: Path
    checkpoint: Path
    base: BaseModel
    spec: TaskSpec
    probes: list[Probe]
    trained: Probabilities

    def prove(self, *formats: str, **changes: Any) -> dict[str, Any]:
        """The gate, in this process: what it runs in a process of its own is the same code."""
        arguments: dict[str, Any] = {"ask": answer, "spec": self.spec} | changes
        return prove_folders(
            {name: self.folder / name for name in formats},
            probes=self.probes,
            trained=self.trained,
            base=self.base.folder,
            **arguments,
        )


def moved_checkpoint(
    folder: Path, base: BaseModel, spec: TaskSpec, method: str = "lora", *, rows: bool = True
) -> Path:
    """A checkpoint of weights that were moved and not trained; its label rows too."""
    causal_lm: Any = load_causal_lm(base.folder, dtype=torch.float32)
    if method == "full":
        unfreeze_layers(causal_lm)
    else:
        causal_lm = attach_lora(causal_lm, rank=2, alpha=4, dropout=0.0, seed=1)
    model = LabelModel(causal_lm, spec.verbalizer.token_ids, train_rows=rows)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for param in model.parameters():
            if param.requires_grad:
                param.add_(torch.randn(param.shape, generator=generator) * 0.05)
    folder.mkdir()
    save_tuned(folder, model, base)
    spec.save(folder)
    return folder


def export_moved(
    out: Path,
    base: BaseModel,
    spec: TaskSpec,
    checkpoint: Path,
    *,
    formats: Sequence[str] = FORMATS,
    dtype: torch.dtype = torch.float32,
    quantize: str = "none",
    ingest: Path | None = None,
    count: int = 8,
) -> Exported:
    """Write ``formats`` of a checkpoint into ``out``, and ask the checkpoint."""
    out.mkdir(exist_ok=True)
    spec = spec.with_temperature(TEMPERATURE)
    write_formats(
        formats,
        spec,
        checkpoint,
        base,
        out,
        dtype=dtype,
        quantize=quantize,
        adapted=False,
        on_done=lambda _: None,
    )
    corpus = Corpus(load(ingest, "ingest")) if ingest else None
    probes = choose_probes(Encoder(load_tokenizer(base.folder), spec), spec, count, corpus)
    trained = ask_trained(checkpoint, base, spec, probes, quantize=quantize)
    return Exported(out, checkpoint, base, spec, probes, trained)


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Change the weights of a folder behind everybody's back."""
    (path,) = folder.glob("*model.safetensors")
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def prepare_evaluated(root: Path) -> None:
    """Fill ``root`` with a tiny model that was tuned and evaluated."""
    prepare(root, adapt=None, tune={"epochs": 12, "learning_rate": 0.02})
    run_stage("tune", root, root / "tune")
    evaluate(root, load(root / "ingest", "ingest"), "evaluate")


def evaluate(root: Path, ingest: Artifact, name: str, **sections: Any) -> Artifact:
    """Evaluate the tuned model of ``root``."""
    base = save_base(root / "base")
    return run_evaluate(
        tiny_settings(evaluate={"bootstrap": 100, "latency_documents": 1, **sections}),
        ingest=ingest,
        subject=Subject(load(root / "tune", "tune"), base, base, None),
        out=root / name,
        start=root,
        progress=SilentProgress(),
    )


def export(
    root: Path,
    out: Path,
    evaluated: str = "evaluate",
    ingest: str = "ingest",
    ask: Ask | None = answer,
    **sections: Any,
) -> Artifact:
    """Export it. This process reads the folders, in which the libraries are loaded."""
    return run_export(
        tiny_settings(**sections),
        ingest=load(root / ingest, "ingest"),
        evaluate=load(root / evaluated, "evaluate"),
        tune=load(root / "tune", "tune"),
        base=save_base(root / "base"),
        out=out,
        progress=SilentProgress(),
        ask=ask,
    )


def run_prepared(root: str, out: str) -> None:
    """For a process that is killed: a bundle of what ``prepare_evaluated`` left."""
    export(Path(root), Path(out), export={"formats": ["causal-lm", "classifier", "adapter"]})
