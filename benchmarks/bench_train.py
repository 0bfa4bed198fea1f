"""Training speed and memory: slant's tune and adapt against TRL's SFTTrainer, on the CPU.

    sh benchmarks/peers/setup.sh
    python benchmarks/bench_train.py .venv-trl/bin/python

Both sides train the same base (the embedded Gemma 3 270M, from one folder) with the same adapters
(LoRA rank 16, alpha 32, all linear layers, no dropout), data, examples a step, learning rate and
two threads, in bfloat16, in turns, each leg in a fresh process. Not timed: start-up, the first two
steps and the last one (slant measures its validation split after it). Tokens are those of the
prompts, padding and answers left out. Memory is the peak of the process' resident memory up to its
last step. slant compiles its layers before its first step (some 20 seconds, not timed) and does a
step of tune in passes of 1,024 or 768 tokens, which give the same result as one pass. Between two
legs the matrix products of the machine are measured (bfloat16, 2048 x 2048 x 2048): another load on
the machine shows there. TRL runs as its documentation advises where the CPU has it: completion-only
loss on prompt-completion pairs, chunked loss, no gradient checkpointing, rows grouped by length
(tune), best-fit-decreasing packing (adapt).

Writes benchmarks/results/train.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from train_data import Corpus, base_folder, peer_rows, write_project

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "train.md"
THREADS = 2
WARM_UP_STEPS = 2
MATRIX = 2048

RATE = f"""
import json, statistics, time, torch
torch.set_num_threads({THREADS})
a, b = (torch.randn({MATRIX}, {MATRIX}).bfloat16() for _ in "ab")
seconds = []
for _ in range(40):
    started = time.perf_counter()
    torch.nn.functional.linear(a, b)
    seconds.append(time.perf_counter() - started)
print("RESULT", json.dumps(2 * {MATRIX}**3 / statistics.median(seconds)))
"""


@dataclass(frozen=True)
class Setting:
    """One comparison: a corpus, how slant is asked for it and how TRL is.

    Attributes:
        stage: slant's command, ``tune`` or ``adapt``.
        overrides: slant's ``--set``.
        peer: TRL's settings: rows in a pass, passes in a step, packing.
    """

    name: str
    stage: str
    corpus: Corpus
    overrides: Sequence[str]
    peer: Mapping[str, Any]


SETTINGS = (
    Setting(
        "tune, short rows",
        "tune",
        Corpus(rows=700, texts_per_row=1),
        ["tune.tokens_per_batch=1024", "train.compile=true"],
        {"rows_per_batch": 16, "batches_per_step": 1, "packing": False},
    ),
    Setting(
        "tune, rows of 256 tokens and more",
        "tune",
        Corpus(rows=300, texts_per_row=3, least_tokens=256),
        ["tune.tokens_per_batch=768", "train.compile=true"],
        {"rows_per_batch": 4, "batches_per_step": 4, "packing": False},
    ),
    Setting(
        "adapt, packed rows of 512",
        "adapt",
        Corpus(rows=0, texts_per_row=1),
        ["adapt.tokens=200_000", "adapt.tokens_per_step=4096", "train.compile=true"],
        {"rows_per_batch": 1, "batches_per_step": 8, "packing": True},
    ),
)


@dataclass
class Leg:
    """What one run was seen to do, at the ends of its steps after the warm-up."""

    seconds: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Tokens per second from the first entry to the last."""
        return (self.tokens[-1] - self.tokens[0]) / (self.seconds[-1] - self.seconds[0])


def environment() -> dict[str, str]:
    threads = str(THREADS)
    return {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}


def matmul_rate() -> float:
    """Floating-point operations per second of a bfloat16 matrix product, now."""
    return float(next(results([sys.executable, "-c", RATE])))


def results(command: Sequence[str]) -> Iterator[Any]:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment(), cwd=HERE
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not found:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-4000:]}")
    yield from (json.loads(line.removeprefix("RESULT ")) for line in found)


def slant(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from slant.cli.main import main; main()", *arguments]


def shard(*arguments: str) -> None:
    """Everything that comes before training, in processes of its own."""
    for stage in ("ingest", "shard"):
        command = slant(stage, *arguments)
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment()
        )
        if done.returncode:
            sys.exit(f"slant {stage}\n{done.stderr[-4000:]}")


def run_slant(setting: Setting, folder: Path, limit_s: float) -> Leg:
    """One leg through the command line; it is ended after ``limit_s`` of training.

    Each step's end is seen in ``--json``, where a report comes at most once a second; the tokens
    of a step are in ``events.jsonl``.
    """
    project = str(folder / "slant.yaml")
    sets = [part for value in setting.overrides for part in ("--set", value)]
    shard(project, *sets)
    out = folder / "work" / setting.stage
    command = slant(setting.stage, project, "--json", *sets)
    seen: dict[int, float] = {}
    peak = total = 0
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        watch = threading.Timer(60 * 30, process.kill)
        watch.start()
        for line in process.stderr or []:
            now = time.monotonic()
            report = json.loads(line) if line.startswith("{") else {}
            if report.get("task") != setting.stage:
                continue
            seen.setdefault(report["done"], now)
            total = report["total"]
            peak = max(peak, peak_bytes(process.pid))
            if seen[report["done"]] - min(seen.values()) > limit_s:
                process.terminate()  # it saves and ends
        watch.cancel()
    lines = [json.loads(line) for line in (out / "events.jsonl").read_text("utf-8").splitlines()]
    tokens = {line["step"]: line["tokens"] for line in lines if "tokens" in line}
    steps = [step for step in sorted(seen) if step >= WARM_UP_STEPS and step in tokens]
    steps = [step for step in steps if step < total]
    if len(steps) < 2:
        sys.exit(f"slant {setting.stage}: too few steps were seen ({len(seen)} of {total})")
    return Leg([seen[step] for step in steps], [tokens[step] for step in steps], peak)


def peak_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    except OSError:
        return 0
    return max((int(x.split()[1]) * 1024 for x in lines if x.startswith("VmHWM")), default=0)


def run_peer(peer: str, setting: Setting, folder: Path, limit_s: float, *, answers: bool) -> Leg:
    """One leg of TRL; ``answers``: with its loss patched to score the answers only."""
    rows = folder / "peer.jsonl"
    base = peer_rows(folder, setting.stage, rows)
    settings = {
        "objective": setting.stage,
        "base": str(base),
        "data": str(rows),
        "out": str(folder / "peer"),
        "max_seconds": limit_s,
        "max_length": 512,
        "learning_rate": 4e-4 if setting.stage == "tune" else 2e-4,
        "rank": 16,
        "alpha": 32,
        "seed": 17,
        "answers_only": answers,
        **setting.peer,
    }
    (folder / "peer.json").write_text(json.dumps(settings), "utf-8")
    script = str(HERE / "peers" / "trl_sft.py")
    found = next(results([peer, script, str(folder / "peer.json")]))
    tokens = [count * found["prompt_share"] for count in found["tokens"]]
    warm = slice(WARM_UP_STEPS - 1, None)
    return Leg(found["seconds"][warm], tokens[warm], found["peak_bytes"], found["versions"])


def flops_per_token(base: Path, rank: int, row_tokens: float) -> float:
    """Floating-point operations of a forward and a backward pass, for each token.

    Linear layers: 2 for each weight forward and 2 for the gradient of the activations; frozen
    weights have no gradient. Adapters: 6 for each weight. Attention: scores and mixing are 4 x
    reach x query width forward and twice that backward, where a token reaches half of the row (or
    its window). Embeddings, norms, activations and the LM head are left out.
    """
    config = json.loads((base / "config.json").read_text("utf-8"))
    hidden, wide = config["hidden_size"], config["intermediate_size"]
    query = config["num_attention_heads"] * config["head_dim"]
    key = config["num_key_value_heads"] * config["head_dim"]
    layers = config["num_hidden_layers"]
    shapes = [(hidden, query), (hidden, key), (hidden, key), (query, hidden)]
    shapes += [(hidden, wide), (hidden, wide), (wide, hidden)]
    # Of the last layer tune needs keys and values of all tokens, and the rest of one in a row.
    counts = [layers - 1, layers, layers, *[layers - 1] * 4]
    linear = sum(n * a * b for n, (a, b) in zip(counts, shapes, strict=True))
    lora = rank * sum(n * (a + b) for n, (a, b) in zip(counts, shapes, strict=True))
    reach = min(row_tokens, config.get("sliding_window") or row_tokens) / 2
    return 4 * linear + 6 * lora + layers * 12 * reach * query


def compare(
    setting: Setting, peer: str, root: Path, rounds: int, limit_s: float, *, answers: bool
) -> dict[str, Any]:
    """All legs of a setting, in turns."""
    legs: dict[str, list[Leg]] = {"slant": [], "TRL": []}
    ceilings = []
    for number in range(rounds):
        for side, done in legs.items():
            folder = root / f"{side}-{number}"
            write_project(folder, setting.corpus, setting.stage)
            ceilings.append(matmul_rate())
            if side == "slant":
                leg = run_slant(setting, folder, limit_s)
            else:
                shard(str(folder / "slant.yaml"))
                leg = run_peer(peer, setting, folder, limit_s, answers=answers)
            done.append(leg)
            print(
                f"{setting.name}, round {number + 1}, {side}: {leg.rate:,.0f} tokens/s, "
                f"{leg.peak_bytes / 2**30:.2f} GiB; matmul {ceilings[-1] / 1e9:,.0f} GFLOP/s",
                flush=True,
            )
    return {"setting": setting, "legs": legs, "ceilings": ceilings}


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def row(found: Mapping[str, Any]) -> str:
    """A row of the table: medians of both sides and their ratios."""
    rates = {side: [leg.rate for leg in legs] for side, legs in found["legs"].items()}
    peaks = {side: max(leg.peak_bytes for leg in legs) for side, legs in found["legs"].items()}
    ours, theirs = (statistics.median(rates[side]) for side in ("slant", "TRL"))
    spread = "; ".join(f"{min(r):,.0f} to {max(r):,.0f}" for r in rates.values())
    return (
        f"| {found['setting'].name} | {ours:,.0f} | {theirs:,.0f} | **{ours / theirs:.2f}** | "
        f"{peaks['slant'] / 2**30:.2f} | {peaks['TRL'] / 2**30:.2f} | "
        f"**{peaks['slant'] / peaks['TRL']:.2f}** | {spread} |"
    )


def share_of_ceiling(found: Mapping[str, Any], base: Path, row_tokens: float) -> str:
    """slant's arithmetic in the settings with long rows, as a share of the machine's."""
    rate = statistics.median(leg.rate for leg in found["legs"]["slant"])
    needed, ceiling = flops_per_token(base, 16, row_tokens), statistics.median(found["ceilings"])
    return (
        f"{found['setting'].name}: {needed / 1e6:,.0f} MFLOP a token x {rate:,.0f} tokens/s = "
        f"{rate * needed / 1e9:,.0f} GFLOP/s, **{rate * needed / ceiling:.0%}** of the "
        f"{ceiling / 1e9:,.0f} GFLOP/s of a matrix product in the same run."
    )


def header(rounds: int, versions: Mapping[str, str], *, answers: bool) -> str:
    what, _, how = (part.strip() for part in (__doc__ or "").split("\n\n")[:3])
    named = ", ".join(f"{name} {number}" for name, number in versions.items())
    patched = (
        "TRL's loss was patched to score the answers only, as it does by itself on CUDA."
        if answers
        else "On a CPU TRL's loss scores the whole vocabulary at every token of the prompt, though "
        "only the answers count; on CUDA it scores the answers only (`--answers-only`)."
    )
    return f"""# Training

{" ".join(what.split())} {" ".join(how.split())}

    sh benchmarks/peers/setup.sh
    python benchmarks/bench_train.py .venv-trl/bin/python --rounds {rounds}{
        " --answers-only" if answers else ""
    }

{datetime.now(UTC):%Y-%m-%d}, {processor()}, {THREADS} threads, Python {platform.python_version()};
the peer: {named}; medians of {rounds} rounds, peaks of all. {patched} Liger's kernels,
the hub's and FlashAttention want CUDA or Triton and cannot run here.

| setting | slant, tokens/s | TRL, tokens/s | ratio | slant, GiB | TRL, GiB | ratio |\
 tokens/s from to, slant; TRL |
|---|---|---|---|---|---|---|---|
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("peer", help="a Python that has TRL")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=75.0, help="of training in a leg")
    parser.add_argument("--only", default="", help="settings whose name holds this")
    parser.add_argument("--answers-only", action="store_true", help="patch TRL's loss")
    parser.add_argument("--out", type=Path, default=RESULT)
    asked = parser.parse_args()
    rows, notes, versions = [], [], {}
    base = base_folder()
    for setting in (s for s in SETTINGS if asked.only in s.name):
        with tempfile.TemporaryDirectory() as name:
            found = compare(
                setting,
                str(Path(asked.peer).absolute()),
                Path(name),
                asked.rounds,
                asked.seconds,
                answers=asked.answers_only,
            )
        rows.append(row(found))
        versions = found["legs"]["TRL"][0].versions
        if setting.corpus.least_tokens:
            notes.append(share_of_ceiling(found, base, setting.corpus.least_tokens))
        print(rows[-1], *notes, sep="\n", flush=True)
    text = header(asked.rounds, versions, answers=asked.answers_only) + "\n".join(rows)
    asked.out.write_text("\n\n".join([text, *notes]) + "\n", "utf-8")


if __name__ == "__main__":
    main()
