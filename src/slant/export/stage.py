"""Stage ``export``: the bundle, published only with its proof.

It writes, in this order,
    adapter/, causal-lm/, classifier/, int8/   what ``export.formats`` names; see ``formats``
    parity.json, probes.jsonl                  the trained model and these folders, asked the same
    report.json                                figures of the evaluation
    README.md                                  model card
    slant.json                                 the task contract; nothing loads a bundle without it

and the manifest last of all. A killed export is begun anew, and ends in the same files.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from slant.artifacts import Artifact, Recipe, build, load
from slant.config.settings import ProjectSettings
from slant.corpus import Corpus
from slant.disk import write_atomically
from slant.errors import GateError
from slant.export.card import render_card
from slant.export.formats import write_formats
from slant.export.int8 import check_int8
from slant.export.merge import describe_merge, merge_sentence
from slant.export.origin import describe_origin
from slant.export.parity import (
    SERVED,
    Ask,
    Probabilities,
    Serve,
    answer_in_fresh_process,
    ask_trained,
    prove_folders,
)
from slant.export.probes import choose_probes, probe_lines
from slant.export.served import ask_vllm, find_vllm
from slant.memory import release_memory
from slant.model.base import BaseModel, load_tokenizer, resolve_dtype
from slant.progress import Progress
from slant.task.encode import Encoder
from slant.task.spec import TaskSpec

__all__ = ["export_recipe", "run_export"]


def export_recipe(settings: ProjectSettings, evaluate: Artifact, tune: Artifact) -> Recipe:
    """What the bundle is made from."""
    export: dict[str, Any] = settings.export.model_dump(exclude={"to", "vllm"})
    if settings.export.vllm is not None:
        export["vllm"] = True  # it is the same proof, wherever vLLM lies
    return Recipe(
        "export",
        {"evaluate": evaluate.digest, "tune": tune.digest},
        {
            "export": export,
            "model": settings.model.model_dump(),
        },
        settings.seed,
    )


def run_export(
    settings: ProjectSettings,
    *,
    ingest: Artifact,
    evaluate: Artifact,
    tune: Artifact,
    base: BaseModel,
    out: Path,
    progress: Progress,
    ask: Ask | None = None,
    start: Path = Path(),
) -> Artifact:
    """Write the bundle.

    Args:
        settings: the project; ``export``, ``adapt`` and ``model`` are used.
        ingest: the probes of the proof are taken from its examples.
        evaluate: the calibrated contract and the report.
        tune: the tuned checkpoint.
        base: the model that it was tuned on (adapted, if there was adaptation).
        out: the bundle's folder.
        progress: told of the steps.
        ask: who reads the exported folders; None: a fresh process.
        start: folder that a relative path of ``export.vllm`` starts from.

    Raises:
        GateError: the evaluation's gate was not met, or an exported format does not reproduce the
            trained model. Nothing is published.
        ModelError: a format is not to be had of this model, or its library is not installed; vLLM
            does not start, or does not answer.
        UsageError: ``export.vllm`` is not there, or cannot be run.
    """
    if unmet := evaluate.facts["gate_unmet"]:
        raise GateError(
            "nothing is exported: " + "; ".join(unmet),
            hint="Train further, or change evaluate.gate if the bound was wrong.",
        )
    formats = [str(name) for name in settings.export.formats]
    if "int8" in formats:
        check_int8()
    served = [name for name in SERVED if name in formats]
    vllm = None
    if settings.export.vllm is not None:
        vllm = find_vllm(settings.export.vllm, start)
    elif served and (found := shutil.which("vllm")):
        progress.say(f"vLLM is installed ({found}); export.vllm: vllm puts the proof to it too")
    spec = TaskSpec.load(evaluate.path)
    with (
        build(out, export_recipe(settings, evaluate, tune)) as builder,
        progress.task("export", 3 + len(formats) + len(served) * bool(vllm), "steps") as task,
    ):
        (out / "slant.json").unlink(missing_ok=True)
        write_formats(
            formats,
            spec,
            tune.path,
            base,
            out,
            dtype=resolve_dtype(settings.model.dtype),
            quantize=settings.model.quantize,
            adapted=settings.adapt is not None,
            on_done=lambda _: task.advance(),
        )
        ask = ask or partial(answer_in_fresh_process, scratch=builder.scratch)

        def serve(folder: Path, prompts: Sequence[str]) -> tuple[str, Probabilities]:
            assert vllm is not None
            log = builder.scratch / f"vllm-{folder.name}.log"
            progress.say(f"vLLM is started with {folder.name}/, which takes a while; log: {log}")
            reader, rows = ask_vllm(vllm, folder, spec, prompts, log=log)
            progress.say(f"{reader} answered {len(rows)} prompts with {folder.name}/")
            task.advance()
            return reader, rows

        proof, lines = _prove(
            settings,
            spec,
            Corpus(ingest),
            checkpoint=tune.path,
            base=base,
            out=out,
            ask=ask,
            serve=serve if vllm else None,
        )
        if sentence := merge_sentence(proof["merge"]):
            progress.say(sentence)
        task.advance(2)
        origin = describe_origin(settings, ingest=ingest, tune=tune, evaluate=evaluate, base=base)
        report = json.loads(evaluate.file("report.json").read_text("utf-8"))
        write_atomically(out / "parity.json", _json(proof))
        write_atomically(out / "probes.jsonl", lines)
        write_atomically(out / "report.json", _json(report))
        write_atomically(out / "README.md", render_card(report, spec, proof, origin))
        spec.save(out)
        builder.facts.update(parity=proof, fingerprint=spec.fingerprint)
        task.advance()
    return load(out, "export")


def _prove(
    settings: ProjectSettings,
    spec: TaskSpec,
    corpus: Corpus,
    *,
    checkpoint: Path,
    base: BaseModel,
    out: Path,
    ask: Ask,
    serve: Serve | None,
) -> tuple[dict[str, Any], str]:
    """The contents of ``parity.json`` and of ``probes.jsonl``."""
    release_memory()  # of what was written; the trained model comes next, then a process
    encoder = Encoder(load_tokenizer(base.folder), spec)
    probes = choose_probes(encoder, spec, settings.export.parity_examples, corpus)
    quantize = settings.model.quantize
    trained = ask_trained(checkpoint, base, spec, probes, quantize=quantize)
    merge = describe_merge(checkpoint, base, spec, quantize=quantize, probes=probes, merged=trained)
    release_memory()
    folders = {str(name): out / name for name in settings.export.formats}
    proof = prove_folders(folders, spec, probes, trained, base=base.folder, ask=ask, serve=serve)
    return {**proof, "merge": merge}, probe_lines(probes, trained)


def _json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"
