"""Scoring speed: slant against vLLM, `generate` and a pipeline, and against its ceiling.

    slant run examples/public/slant.yaml
    sh benchmarks/peers/setup_vllm.sh
    SLANT_PUBLIC_DATA=… python benchmarks/bench_score.py examples/public/slant.yaml \
        --vllm .venv-vllm/bin/python

All with the bundle of that project (Gemma 3 270M, tuned) on one machine's CPU, in bfloat16, in
turns; between turns the rate of matrix products is measured, the ceiling of the same minute. Short
prompts: 256 sentences of NewsMTSC. Articles: sentences one after another, 600 tokens. FLOPs are
those of the layers' products and of attention (``slant.model.flops``), padding not counted.

Writes benchmarks/results/score.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from result import save, stamp

from slant.artifacts import load
from slant.corpus import Corpus
from slant.model.base import load_causal_lm, load_tokenizer, quiet_transformers
from slant.model.batches import make_batches
from slant.model.flops import Shape, flops_per_token, matmul_rate
from slant.project import Project
from slant.score.decision import probabilities
from slant.score.torch_engine import TorchEngine
from slant.task.encode import Encoder
from slant.task.spec import TaskSpec

THREADS = 2
SHORT, LONGEST_SHORT = 256, 60
ARTICLE_TOKENS = 600
ONE_BY_ONE = 32
HELD_OUT, HELD_OUT_NF4 = 2000, 100  # on a CPU bitsandbytes goes at some prompts a second
MEMORY_ROWS = 5_000_000


class Bundle(NamedTuple):
    folder: Path
    spec: TaskSpec
    encoder: Encoder

    def engine(self, **options: Any) -> TorchEngine:
        causal_lm = load_causal_lm(self.folder / "causal-lm", dtype=torch.bfloat16)
        ids, pad = self.spec.verbalizer.token_ids, self.spec.pad_token_id
        return TorchEngine.of(causal_lm, ids, pad, **options)


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def sentences() -> list[tuple[str, str]]:
    path = Path(os.environ["SLANT_PUBLIC_DATA"]) / "labelled" / "en_newsmtsc.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [(row["text"], row["target"]) for row in rows]


def short_pairs(bundle: Bundle) -> list[tuple[str, str]]:
    pairs = sentences()[: 8 * SHORT]
    ids = bundle.encoder.encode_batch(pairs)
    return [pair for pair, own in zip(pairs, ids, strict=True) if len(own) <= LONGEST_SHORT][:SHORT]


def article(bundle: Bundle, number: int) -> list[list[int]]:
    """Prompts of one article under so many narratives, whatever the bundle's token limit."""
    tokenizer = load_tokenizer(bundle.folder / "causal-lm")
    encoder = Encoder(tokenizer, replace(bundle.spec, token_limit=4 * ARTICLE_TOKENS))
    pairs, text = sentences(), ""
    for sentence in dict.fromkeys(text for text, _ in pairs):
        if len(encoder.encode(f"{text} {sentence}", None)) > ARTICLE_TOKENS:
            break
        text = f"{text} {sentence}".strip()
    names = list(dict.fromkeys(name for _, name in pairs))[:number]
    return encoder.encode_batch([(text, name) for name in names])


def flops(bundle: Bundle, prompts: Sequence[Sequence[int]]) -> float:
    config = json.loads((bundle.folder / "causal-lm" / "config.json").read_text("utf-8"))
    shape = Shape.from_config(config)
    return sum(
        len(ids) * flops_per_token(shape, row_tokens=len(ids), head="labels", method="full").forward
        for ids in prompts
    )


def ceiling() -> float:
    return matmul_rate("cpu", torch.bfloat16, seconds=1.0)


@contextmanager
def vllm(python: str | None, model: Path, prompts: Sequence[Sequence[int]]) -> Iterator[Any]:
    """What runs all prompts through vLLM and tells the seconds; None without a Python of it."""
    if python is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as scratch:
        asked = Path(scratch) / "prompts.json"
        asked.write_text(json.dumps(list(map(list, prompts))), "utf-8")
        cores = f"0-{THREADS - 1}"
        environment = {
            **os.environ,
            "VLLM_CPU_OMP_THREADS_BIND": cores,
            "VLLM_CPU_KVCACHE_SPACE": "2",
            "VLLM_LOGGING_LEVEL": "ERROR",
        }
        script = Path(__file__).parent / "peers" / "vllm_generate.py"
        peer = subprocess.Popen(
            [python, str(script), str(model), str(asked)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        assert peer.stdin is not None
        assert peer.stdout is not None

        def answer(word: str) -> str:
            for line in peer.stdout or ():
                if line.startswith(word):
                    return line.removeprefix(word).strip()
            sys.exit("vLLM has ended; run peers/vllm_generate.py by hand to see why")

        answer("READY")

        def turn() -> float:
            assert peer.stdin is not None
            peer.stdin.write("go\n")
            peer.stdin.flush()
            return float(answer("RESULT"))

        try:
            yield turn
        finally:
            peer.stdin.close()
            peer.wait(120)


def generate_one_by_one(bundle: Bundle, prompts: Sequence[Sequence[int]]) -> Callable[[], object]:
    model = load_causal_lm(bundle.folder / "causal-lm", dtype=torch.bfloat16)

    @torch.inference_mode()
    def work() -> None:
        for ids in prompts:
            given = torch.tensor([list(ids)])
            model.generate(
                input_ids=given, attention_mask=torch.ones_like(given), max_new_tokens=4,
                do_sample=False, use_cache=True, pad_token_id=bundle.spec.pad_token_id,
            )  # fmt: skip

    return work


def pipeline(bundle: Bundle, pairs: Sequence[tuple[str, str]]) -> Callable[[], object]:
    import transformers as hf

    with quiet_transformers():
        classify = hf.pipeline(
            "text-classification", str(bundle.folder / "classifier"), dtype=torch.bfloat16
        )
    texts = [bundle.encoder.prompt(*pair) for pair in pairs]
    return lambda: classify(texts, top_k=None)


def short(bundle: Bundle, python: str | None, turns: int) -> list[str]:
    pairs = short_pairs(bundle)
    prompts = bundle.encoder.encode_batch(pairs)
    few = prompts[:: len(prompts) // ONE_BY_ONE][:ONE_BY_ONE]
    mean = statistics.mean(map(len, prompts))
    work: dict[str, tuple[Callable[[], object], int]] = {}
    engines = {
        "slant": bundle.engine(),
        "slant, compiled": bundle.engine(compile=True),
        "slant, int8, compiled": bundle.engine(quantize="int8", compile=True),
    }
    for name, engine in engines.items():
        work[name] = (lambda engine=engine: engine.label_logits(prompts), len(prompts))
    work["pipeline(text-classification)"] = (pipeline(bundle, pairs), len(prompts))
    work["model.generate, 4 tokens, one by one"] = (generate_one_by_one(bundle, few), len(few))
    found: dict[str, list[float]] = {name: [] for name in work}
    ceilings = []
    with vllm(python, bundle.folder / "causal-lm", prompts) as ask_vllm:
        for turn in range(turns + 1):  # the first warms up
            for name, (run, number) in work.items():
                took = seconds(run)
                if turn:
                    found[name].append(number / took)
            if ask_vllm:
                found.setdefault("vLLM generate(max_tokens=1)", []).append(
                    len(prompts) / ask_vllm()
                )
            ceilings.append(ceiling())
    cost = flops(bundle, prompts) / len(prompts)
    top = statistics.median(ceilings)
    best = statistics.median(found["slant, compiled"])
    lines = [
        f"## {len(prompts)} short prompts, {mean:.0f} tokens each",
        "",
        f"Median of {turns} turns; ceiling {top / 1e9:.0f} GFLOP/s "
        f"({min(ceilings) / 1e9:.0f} to {max(ceilings) / 1e9:.0f}).",
        "",
        "| system | prompts/s | slowest to fastest turn | share of the ceiling | compiled is |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, rates in found.items():
        rate = statistics.median(rates)
        lines.append(
            f"| {name} | {rate:.1f} | {min(rates):.1f} to {max(rates):.1f} | "
            f"{rate * cost / top:.0%} | {best / rate:.2f}× |"
        )
    return lines


def latency(bundle: Bundle) -> list[str]:
    """One document, one narrative, warm: the whole way from text against the bare forward pass."""
    from slant.score.scorer import Scorer

    engine = bundle.engine()
    scorer = Scorer(bundle.spec, bundle.encoder, engine)
    pairs = short_pairs(bundle)[:100]
    bare: list[float] = []
    whole: list[float] = []
    for number, (pair, ids) in enumerate(
        zip(pairs, bundle.encoder.encode_batch(pairs), strict=True)
    ):
        (batch,) = make_batches([ids], 4096, 0)
        with torch.inference_mode():
            took = seconds(lambda batch=batch: engine._model(batch))
        spent = seconds(lambda pair=pair: scorer.predict(*pair))
        if number >= 10:
            bare.append(took * 1e3)
            whole.append(spent * 1e3)
    mid, top = statistics.median(bare), statistics.median(whole)
    return [
        "## One document, one narrative, warm",
        "",
        f"`Scorer.predict`: p50 {top:.1f} ms, p95 {np.percentile(whole, 95):.1f} ms. The bare "
        f"forward pass: p50 {mid:.1f} ms. Ratio {top / mid:.2f}.",
    ]


def articles(bundle: Bundle, turns: int) -> list[str]:
    engine = bundle.engine()
    lines = [
        f"## An article of {ARTICLE_TOKENS} tokens under many narratives",
        "",
        "| narratives | s together | times one narrative | s apart | times faster than apart |",
        "|---:|---:|---:|---:|---:|",
    ]
    first = 0.0
    for number in (1, 5, 20, 100, 200):
        prompts = article(bundle, number)

        def together(prompts: Sequence[Sequence[int]] = prompts) -> object:
            return engine.label_logits(prompts, groups=[0] * len(prompts))

        together()
        took = statistics.median(seconds(together) for _ in range(turns))
        first = first or took
        cells = ["", ""]
        if number <= 20:
            apart = seconds(lambda prompts=prompts: engine.label_logits(prompts))
            cells = [f"{apart:.2f}", f"{apart / took:.1f}×"]
        lines.append(f"| {number} | {took:.3f} | {took / first:.2f}× | {cells[0]} | {cells[1]} |")
    return lines


def quantised(bundle: Bundle, corpus: Corpus) -> list[str]:
    """Macro-F1 and probabilities on held-out examples, rounded and not."""
    from sklearn.metrics import f1_score

    items = list(corpus.split("test"))
    items = items[:: max(1, len(items) // HELD_OUT)][:HELD_OUT]
    prompts = bundle.encoder.encode_batch([item.text for item in items])
    gold = np.array([bundle.spec.labels.index(item.example.label) for item in items])
    lines = [
        f"## Rounded weights: {len(items)} held-out examples of the project",
        "",
        "| weights | examples | macro-F1 | of bfloat16 on the same | labels changed | largest "
        "change of a probability | mean | prompts/s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    exact = np.empty((0, len(bundle.spec.labels)))
    for scheme in ("none", "int8", "nf4"):
        number = HELD_OUT_NF4 if scheme == "nf4" else len(prompts)
        asked, right = prompts[-number:], gold[-number:]
        engine = bundle.engine(quantize=scheme, compile=scheme != "nf4")
        engine.label_logits(asked[:64])
        started = time.perf_counter()
        found = probabilities(engine.label_logits(asked), bundle.spec.temperature)
        rate = len(asked) / (time.perf_counter() - started)
        exact = found if scheme == "none" else exact
        before = exact[-number:]
        changed = float((found.argmax(axis=1) != before.argmax(axis=1)).mean())
        off = np.abs(found - before)
        f1, f1_before = (
            f1_score(right, each.argmax(axis=1), average="macro") for each in (found, before)
        )
        lines.append(
            f"| {'bfloat16' if scheme == 'none' else scheme} | {number} | {f1:.4f} | "
            f"{f1_before:.4f} | {changed:.1%} | {off.max():.3f} | {off.mean():.4f} | {rate:.1f} |"
        )
    return lines


MEMORY = """
import sys
from pathlib import Path
import numpy as np
from slant.progress import SilentProgress
from slant.score.files import score_files
from slant.score.scorer import Scorer
from slant.task.encode import Encoder
from slant.task.spec import TaskSpec
from slant.model.base import load_tokenizer
import torch, pyarrow.parquet

def peak_gib():  # not that of getrusage, which begins with the parent's
    (line,) = (x for x in open("/proc/self/status") if x.startswith("VmHWM"))
    return int(line.split()[1]) / 2**20

class AtOnce:
    def label_logits(self, prompts, on_done=None, *, groups=None):
        return np.zeros((len(prompts), 3), np.float32)

folder, source, target = map(Path, sys.argv[1:])
spec = TaskSpec.load(folder)
scorer = Scorer(spec, Encoder(load_tokenizer(folder / "causal-lm"), spec), AtOnce())
before = peak_gib()
score_files(scorer, [source], target, progress=SilentProgress())
print("RESULT", before, peak_gib())
"""


def memory(bundle: Bundle, number: int) -> list[str]:
    """A Parquet file through the scorer, the model aside: an engine that answers at once."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [text for text, _ in sentences()]
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "rows.parquet", Path(scratch) / "scored.parquet"
        schema = pa.schema([("id", pa.string()), ("text", pa.string())])
        with pq.ParquetWriter(source, schema, compression="zstd") as writer:
            for start in range(0, number, 100_000):
                ids = range(start, min(number, start + 100_000))
                rows = {"id": map(str, ids), "text": (texts[i % len(texts)] for i in ids)}
                writer.write_table(pa.table({k: list(v) for k, v in rows.items()}, schema=schema))
        command = [sys.executable, "-c", MEMORY, str(bundle.folder), str(source), str(target)]
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        took = time.perf_counter() - started
        if done.returncode:
            sys.exit(done.stderr[-4000:])
        before, peak = map(float, done.stdout.split()[-2:])
        rows = pq.ParquetFile(target).metadata.num_rows
        size = source.stat().st_size / 2**20
    return [
        "## Memory of a long file",
        "",
        f"{rows:,} rows of Parquet ({size:,.0f} MiB) through the scorer with an engine that "
        f"answers at once: {before:.2f} GiB before the first row, {peak:.2f} GiB at the peak "
        f"({peak - before:.2f} GiB more), {rows / took:,.0f} rows/s read, encoded and written.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("config", help="slant.yaml of a project that was run, on the public data")
    parser.add_argument("--vllm", help="Python of an environment with vLLM for CPUs")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rows", type=int, default=MEMORY_ROWS)
    given = parser.parse_args()
    torch.set_num_threads(THREADS)
    project = Project(given.config)
    folder = project.folder("export")
    spec = TaskSpec.load(folder)
    bundle = Bundle(folder, spec, Encoder(load_tokenizer(folder / "causal-lm"), spec))
    corpus = Corpus(load(project.folder("ingest"), "ingest"))
    command = f"python benchmarks/bench_score.py {given.config}"
    peer = "" if given.vllm is None else f" --vllm {given.vllm}"
    lines = [
        "# Scoring",
        "",
        f"{stamp()}: `{command}{peer}`. Gemma 3 270M, tuned; {THREADS} threads, bfloat16; torch "
        f"{torch.__version__}.",
    ]
    for part in (
        lambda: short(bundle, given.vllm, given.turns),
        lambda: latency(bundle),
        lambda: articles(bundle, given.turns),
        lambda: quantised(bundle, corpus),
        lambda: memory(bundle, given.rows),
    ):
        lines += ["", *part()]
        print("\n".join(lines), flush=True)
    save("score", lines)


if __name__ == "__main__":
    main()
