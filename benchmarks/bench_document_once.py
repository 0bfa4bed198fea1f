"""One document under several narratives: one row against a prompt each.

    SLANT_PUBLIC_DATA=… python benchmarks/bench_document_once.py

Tuning: the sentences of NewsMTSC that stand under two targets or more, forward and backward with an
adapter, float32 weights under bfloat16 autocast, as the tune stage runs. Scoring: articles of 600
tokens under 1 to 100 narratives, forward in bfloat16. Both with the embedded Gemma 3 270M, on one
thread and in processor seconds, which work beside it hardly changes; the best of several turns.

Writes benchmarks/results/document_once.md.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from result import save, stamp

from slant.config.settings import ProjectSettings
from slant.labels import LabelSet
from slant.model.adapter import attach_lora
from slant.model.base import load_causal_lm, load_tokenizer
from slant.model.batches import PromptBatch, make_batches
from slant.model.embedded import EMBEDDED, prepare_embedded
from slant.model.label_head import LabelModel
from slant.progress import SilentProgress
from slant.task.encode import Encoder
from slant.task.spec import TaskSpec
from slant.task.template import Template

DOCUMENTS = 60
ARTICLE_TOKENS = 600
TURNS = 3


class Prompts(NamedTuple):
    ids: list[list[int]]
    documents: list[str]


class Cost(NamedTuple):
    seconds: float
    tokens: int


def rows(path: Path) -> dict[str, list[str]]:
    """Targets by sentence."""
    targets: dict[str, list[str]] = defaultdict(list)
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        if row["target"] not in targets[row["text"]]:
            targets[row["text"]].append(row["target"])
    return targets


def sentences(targets: dict[str, list[str]], encoder: Encoder) -> Prompts:
    several = [text for text, asked in targets.items() if len(asked) > 1][:DOCUMENTS]
    pairs = [(text, target) for text in several for target in targets[text]]
    return Prompts(encoder.encode_batch(pairs), [text for text, _ in pairs])


def article(targets: dict[str, list[str]], encoder: Encoder, number: int) -> Prompts:
    """Sentences one after another, and ``number`` of their targets asked of them all."""
    text = ""
    for sentence in targets:
        if len(encoder.encode(f"{text} {sentence}", None)) > ARTICLE_TOKENS:
            break
        text = f"{text} {sentence}".strip()
    names = sorted({target for asked in targets.values() for target in asked})
    return Prompts(
        encoder.encode_batch([(text, name) for name in names[:number]]), ["article"] * number
    )


def measure(
    prompts: Prompts, tokens_per_batch: int, work: Callable[[PromptBatch], object]
) -> tuple[Cost, Cost]:
    """A prompt in each row, and rows shared; in turns."""
    found: list[list[Cost]] = [[], []]
    for _ in range(TURNS):
        for costs, groups in zip(found, (None, prompts.documents), strict=True):
            started = time.process_time()
            batches = list(make_batches(prompts.ids, tokens_per_batch, 0, groups=groups))
            for batch in batches:
                work(batch)
            seconds = time.process_time() - started
            costs.append(Cost(seconds, sum(batch.num_tokens for batch in batches)))
    return min(found[0]), min(found[1])


def table(title: str, measured: Sequence[tuple[str, int, Cost, Cost]]) -> list[str]:
    lines = [
        f"| {title} | prompts | tokens apart | tokens shared | s apart | s shared | times faster |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, number, apart, shared in measured:
        lines.append(
            f"| {name} | {number} | {apart.tokens:,} | {shared.tokens:,} | {apart.seconds:.2f} | "
            f"{shared.seconds:.2f} | {apart.seconds / shared.seconds:.2f} |"
        )
    return lines


def main() -> None:
    torch.set_num_threads(1)
    folder = prepare_embedded(EMBEDDED[0], SilentProgress())
    settings = ProjectSettings.model_validate({"ingest": {"examples": [{"path": "x.csv"}]}})
    tokenizer = load_tokenizer(folder)
    spec = TaskSpec.create(
        tokenizer,
        template=Template(settings.task.prompt, settings.task.prompt_overall),
        labels=LabelSet(settings.labels),
        label_words=settings.task.label_words,
        token_limit=2 * ARTICLE_TOKENS,
        pad_token_id=0,
        base=(EMBEDDED[0], "0" * 64),
    )
    encoder = Encoder(tokenizer, spec)
    targets = rows(Path(os.environ["SLANT_PUBLIC_DATA"]) / "labelled" / "en_newsmtsc.jsonl")

    scorer = LabelModel(
        load_causal_lm(folder, dtype=torch.bfloat16), spec.verbalizer.token_ids
    ).eval()
    scoring = []
    with torch.inference_mode():
        for number in (1, 2, 5, 20, 100):
            prompts = article(targets, encoder, number)
            name = f"{len(prompts.ids[0])} tokens × {number}"
            scoring.append((name, number, *measure(prompts, 4096, scorer)))

    base = load_causal_lm(folder, dtype=torch.float32)
    lora = settings.tune.lora
    adapted = attach_lora(base, rank=lora.rank, alpha=lora.alpha, dropout=0.0, seed=0)
    learner = LabelModel(adapted, spec.verbalizer.token_ids).train()

    def learn(batch: PromptBatch) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            learner(batch).logsumexp(dim=1).sum().backward()

    prompts = sentences(targets, encoder)
    name = f"{len(set(prompts.documents))} sentences"
    tuning = [(name, len(prompts.ids), *measure(prompts, settings.tune.tokens_per_batch, learn))]

    first = scoring[0][3].seconds
    more = ", ".join(f"{row[1]}: {row[3].seconds / first:.2f}×" for row in scoring[1:])
    save(
        "document_once",
        [
            "# Documents once",
            "",
            f"{stamp()}: `python benchmarks/bench_document_once.py`. Gemma 3 270M, one thread, "
            f"processor seconds, best of {TURNS} turns.",
            "",
            "Scoring, forward in bfloat16, 4,096 tokens a batch:",
            "",
            *table("article", scoring),
            "",
            f"Narratives against one narrative of the same article: {more}.",
            "",
            "Tuning, forward and backward, adapter on float32 weights under bfloat16 autocast, "
            f"{settings.tune.tokens_per_batch:,} tokens a batch; NewsMTSC, the sentences with two "
            "targets or more:",
            "",
            *table("sentences", tuning),
        ],
    )


if __name__ == "__main__":
    main()
