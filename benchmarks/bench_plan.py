"""The memory that `slant plan` estimates against the memory that training takes.

    python benchmarks/bench_plan.py

Measured: `slant tune` and `slant adapt` on the embedded Gemma 270M, each in a process of its own,
and the largest resident memory that the system saw of it (on a GPU: the most that PyTorch reserved
there). What the process itself and the gaps between blocks take of main memory, and the share of
the matmul rate, were set by such runs, so that these ratios show that the form holds over sizes,
not that the allowances would elsewhere. Counted: every tensor of a forward pass, a backward pass
and an update on the shape of Mistral 7B, on PyTorch's fake tensors, which have sizes and no
content, as an allocator without gaps would hold them. Published: figures of others for 7B and 8B
models; their recipes differ from ours in what is noted, so these are a check on the order of
magnitude and no measurement.

Writes benchmarks/results/plan.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from result import save, stamp
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from slant.config.load import load_settings
from slant.config.settings import ProjectSettings
from slant.model.adapter import unfreeze_layers
from slant.model.flops import Shape
from slant.model.label_head import plain_model
from slant.plan.cards import find_card
from slant.plan.estimate import make_plan
from slant.plan.fit import load_of
from slant.plan.memory import Load, training_memory
from slant.plan.shapes import PUBLISHED, find_shape

GIB = 1 << 30
QUICKSTART = Path(__file__).resolve().parent.parent / "examples" / "quickstart"
CONFIG = """\
task: {token_limit: 512}
shard: {heldout_share: 0.01}
ingest:
  documents: [{path: unlabelled.jsonl, columns: {id: id, lang: lang}}]
  examples: [{path: labelled.jsonl, columns: {id: id, narrative: narrative, lang: lang}}]
  split: {validation: 0.1, calibration: 0.1, test: 0.1}
adapt: {tokens: 4096, tokens_per_step: 2048}
tune: {epochs: 1}
"""
# What a stage's process prints last: the most that PyTorch reserved on a GPU.
CHILD = """
import sys
from slant.cli.main import main
try:
    main()
except SystemExit as end:
    import torch
    print("RESERVED", torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0)
    sys.exit(end.code)
"""
RUNS: tuple[tuple[Literal["adapt", "tune"], tuple[str, ...]], ...] = (
    ("tune", ("tune.tokens_per_batch=1024",)),
    ("tune", ("tune.tokens_per_batch=2048",)),
    ("tune", ("tune.tokens_per_batch=4096",)),
    ("tune", ("tune.tokens_per_batch=4096", "train.activation_checkpointing=true")),
    ("adapt", ("adapt.tokens_per_batch=512",)),
    ("adapt", ("adapt.tokens_per_batch=2048",)),
)


# --- measured ------------------------------------------------------------------------------------


def make_project(folder: Path) -> Path:
    """Long texts, so that every row is full and a step is more than one pass."""
    rng = random.Random(0)
    rows = [json.loads(line) for line in (QUICKSTART / "labelled.jsonl").open("rb")]
    texts = [row["text"] for row in rows]
    labelled, unlabelled = [], []
    for number, row in enumerate(rows[:34]):
        kept = {key: row[key] for key in ("narrative", "label", "lang")}
        text = " ".join(rng.sample(texts, 24))
        labelled.append({"id": f"d{number}", "text": text, **kept})
    for number in range(12):
        text = " ".join(rng.sample(texts, 24))
        unlabelled.append({"id": f"u{number}", "text": text, "lang": "en"})
    for name, content in (("labelled", labelled), ("unlabelled", unlabelled)):
        lines = "".join(json.dumps(row) + "\n" for row in content)
        (folder / f"{name}.jsonl").write_text(lines, "utf-8")
    (folder / "slant.yaml").write_text(CONFIG, "utf-8")
    return folder / "slant.yaml"


def peak_bytes(stage: str, config: Path, changes: Sequence[str]) -> tuple[int, int]:
    """Peak of a stage's process in main memory, and on the GPU."""
    options = [part for change in changes for part in ("--set", change)]
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, stage, str(config), *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"slant {stage} {' '.join(changes)} failed:\n{out}")
    return usage.ru_maxrss * 1024, int(out.rpartition("RESERVED")[2])


def measured_rows() -> Iterator[str]:
    card = find_card("auto")
    with tempfile.TemporaryDirectory() as name:
        config = make_project(Path(name))
        ready: tuple[str, ...] | None = None
        for stage, changes in RUNS:
            # adapt is left out before tune, so that tune starts from the base itself.
            left_out = ("adapt=null",) if stage == "tune" else ()
            changed = (*changes, *left_out)
            if ready != left_out:
                for before in ("ingest", "shard"):
                    peak_bytes(before, config, left_out)
                ready = left_out
            settings = load_settings(config, changed)
            shape, _ = find_shape(settings.model.base, revision=None, start=Path(name))
            memory = training_memory(load_of(settings, stage, shape, card))
            # The number of tokens in a pass changes no result: without this, nothing would run.
            shutil.rmtree(Path(name) / "work" / stage, ignore_errors=True)
            host, reserved = peak_bytes(stage, config, changed)
            estimate, measured = memory.total, host
            if card.is_gpu:  # PyTorch does not count the CUDA context
                estimate, measured = memory.total - memory.parts["process and allocator"], reserved
            row = (
                f"| {stage} | {', '.join(changes)} | {estimate / GIB:.2f} | {measured / GIB:.2f} |"
            )
            row += f" **{estimate / measured:.2f}** | {speeds(settings, stage, Path(name))} |"
            print(row, flush=True)
            yield row


def speeds(settings: ProjectSettings, stage: str, folder: Path) -> str:
    """Tokens/s as planned and as they were, in a run of a minute; saving and loading left out."""
    plan = make_plan(settings, folder, counts=None)
    planned = next(one.tokens_per_s for one in plan.stages if one.stage == stage)
    facts = json.loads((folder / "work" / stage / "manifest.json").read_text("utf-8"))["facts"]
    return f"{planned:,.0f} | {facts['tokens'] / facts['seconds']:,.0f}"


# --- counted -------------------------------------------------------------------------------------


class Held(TorchDispatchMode):
    """Bytes of all tensors that are alive, now and at most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._sizes: dict[int, int] = {}

    def add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.now -= self._sizes.pop(key)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_iter(out):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        return out


def fake_model(base: str, load: Load) -> nn.Module:
    """A model with adapters, or with trainable layers, on the meta device."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    config = dict(PUBLISHED[base])
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(config.pop("model_type"), **config), dtype=torch.bfloat16
        )
        if load.checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if load.method == "full":
            return unfreeze_layers(model).train()
        adapters = LoraConfig(r=load.rank, target_modules="all-linear", task_type="CAUSAL_LM")
        return get_peft_model(model, adapters, low_cpu_mem_usage=True).train()


def materialise(model: nn.Module) -> None:
    """Give every parameter and buffer a fake tensor; what is trained is float32."""
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, param in list(module._parameters.items()):
            if param is None:
                continue
            if id(param) not in made:
                dtype = torch.float32 if param.requires_grad else param.dtype
                made[id(param)] = nn.Parameter(
                    torch.empty(param.shape, dtype=dtype), requires_grad=param.requires_grad
                )
            module._parameters[name] = made[id(param)]
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def counted_bytes(base: str, load: Load) -> int:
    """Peak of two passes and an update of AdamW, of bare tensors."""
    model = fake_model(base, load)
    rows, width = load.pass_tokens // load.row_tokens, load.row_tokens
    with FakeTensorMode(allow_non_fake_inputs=True):
        materialise(model)
        trained = [param for param in model.parameters() if param.requires_grad]
        optimizer = torch.optim.AdamW(trained, foreach=True)
        held = Held()
        for tensor in (*model.parameters(), *model.buffers()):
            held.add(tensor)
        ids = torch.zeros(rows, width, dtype=torch.long)
        with held:
            mask = torch.ones(rows, 1, width, width, dtype=torch.bool).tril()
            for _ in range(2):  # the second pass has the gradients of the first beside it
                with torch.autocast("cpu", torch.bfloat16):
                    decoder = plain_model(model).get_decoder()
                    hidden = decoder(input_ids=ids, attention_mask=mask, use_cache=False)[0]
                    loss = hidden[:, -1].float().sum()
                loss.backward()
            optimizer.step()
            # The moments are there from now on: a pass of a later step.
            with torch.autocast("cpu", torch.bfloat16):
                hidden = decoder(input_ids=ids, attention_mask=mask, use_cache=False)[0]
                loss = hidden[:, -1].float().sum()
            loss.backward()
        return held.most


def counted_rows() -> Iterator[str]:
    name = "mistralai/Mistral-7B-v0.3"
    load = Load(Shape.from_config(PUBLISHED[name]), "tune", pass_tokens=2048, row_tokens=2048)
    cases = (
        ("LoRA, one row of 2,048", load),
        ("LoRA, 16 rows of 128", replace(load, row_tokens=128)),
        ("LoRA, checkpointing, one row", replace(load, checkpointing=True)),
        ("LoRA, checkpointing, 4 rows", replace(load, checkpointing=True, pass_tokens=8192)),
        ("all layers, one row", replace(load, method="full")),
        ("all layers, checkpointing", replace(load, method="full", checkpointing=True)),
    )
    for what, case in cases:
        memory = training_memory(case)
        estimate = memory.total - memory.parts["process and allocator"]
        counted = counted_bytes(name, case)
        row = f"| {what} | {estimate / GIB:.2f} | {counted / GIB:.2f} |"
        yield f"{row} **{estimate / counted:.3f}** |"


# --- published -----------------------------------------------------------------------------------


def published_rows() -> Iterator[str]:
    llama3 = Load(
        Shape.from_config(PUBLISHED["meta-llama/Llama-3.1-8B"]),
        "tune",
        rank=8,
        checkpointing=True,
        pass_tokens=4096,
        row_tokens=2048,
    )
    llama2 = Load(
        Shape.from_config(
            {
                **PUBLISHED["meta-llama/Llama-3.1-8B"],
                "vocab_size": 32000,
                "intermediate_size": 11008,
                "num_key_value_heads": 32,
            }
        ),
        "tune",
        rank=8,
        pass_tokens=1304,
        row_tokens=1304,
    )
    nf4, again = {"quantized": True}, {"checkpointing": True}
    compiled = "compiled, batch 2, packed 2,048, checkpointing; fewer adapters than ours"
    littler = "batch 1, at most 1,304 tokens; adapters on q and v alone, all logits held"
    unsaid = "a table without batch or length; ours: one row of 1,304 tokens, checkpointing"
    cases = (
        ("torchtune, Llama 3.1 8B, LoRA", llama3, 16.2 * GIB, compiled),
        ("torchtune, Llama 3.1 8B, QLoRA", replace(llama3, **nf4), 7.4 * GIB, compiled),
        ("litgpt, Llama 2 7B, LoRA", llama2, 21.30e9, littler),
        ("litgpt, Llama 2 7B, NF4 double", replace(llama2, **nf4), 13.84e9, littler),
        ("LLaMA-Factory, 7B, LoRA", replace(llama2, **again), 16e9, unsaid),
        ("LLaMA-Factory, 7B, QLoRA", replace(llama2, **again, **nf4), 6e9, unsaid),
    )
    for what, case, theirs, note in cases:
        memory = training_memory(case)
        # They report what PyTorch allocated, in which no CUDA context is.
        ours = memory.total - memory.parts["process and allocator"]
        yield f"| {what} | {ours / GIB:.1f} | {theirs / GIB:.1f} | {ours / theirs:.2f} | {note} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--without-runs", action="store_true", help="count, do not train")
    arguments = parser.parse_args()
    paragraphs = (__doc__ or "").split("\n\n")
    card = find_card("auto")
    lines = [
        "# Plan",
        "",
        " ".join(f"{paragraphs[0]} {paragraphs[2]}".split()),
        "",
        "    python benchmarks/bench_plan.py",
        "",
        f"{stamp()}, torch {torch.__version__}. Sizes in GiB; the ratio is estimate over truth.",
    ]
    if not arguments.without_runs:
        lines += [
            "",
            f"## Measured: Gemma 270M, rows of 512 tokens, {card.title}",
            "",
            "| stage | settings | estimated | measured | ratio | tokens/s, planned | measured |",
            "|---|---|---|---|---|---|---|",
            *measured_rows(),
        ]
    lines += [
        "",
        "## Counted: the shape of Mistral 7B, bfloat16",
        "",
        "| training | estimated | counted | ratio |",
        "|---|---|---|---|",
        *counted_rows(),
        "",
        "## Published by others: no measurement of ours",
        "",
        "| recipe | estimated for ours | published for theirs | ratio | theirs |",
        "|---|---|---|---|---|",
        *published_rows(),
        "",
        "torchtune's full fine-tuning of 8B in 18.9 GiB is not in the table: it keeps bfloat16",
        "weights, 8-bit moments and no gradients, where `method: full` keeps all in float32.",
        "Sources: the READMEs of torchtune, litgpt and LLaMA-Factory.",
    ]
    save("plan", lines)


if __name__ == "__main__":
    main()
