"""Stage ``shard``: documents and examples become token ids in MDS shards.

It writes
    slant.json                    the task contract
    adapt/train/LANG/             packed rows: tokens, lengths of the documents in them
    adapt/heldout/LANG/           the same of documents kept aside, to measure perplexity on
    tune/train/, tune/validation/ encoded prompts with their label
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from slant.artifacts import Artifact, Recipe, build, load
from slant.config.settings import ProjectSettings
from slant.corpus import Corpus, LabelledDocument
from slant.errors import InputError, TaskError
from slant.labels import LabelSet
from slant.model.base import BaseModel, load_tokenizer
from slant.progress import Progress
from slant.records import Document
from slant.shards.pack import pack_documents
from slant.shards.writer import ShardWriter
from slant.task.encode import Encoder
from slant.task.spec import TaskSpec
from slant.task.template import Template
from slant.task.verbalizer import encode_text, find_bos

__all__ = ["run_shard", "shard_recipe"]

ADAPT_COLUMNS = {"tokens": "ndarray:int32", "lengths": "ndarray:int32"}
TUNE_COLUMNS = {
    "document_id": "str",
    "input_ids": "ndarray:int32",
    "label": "int",
    "lang": "str",
    "narrative_id": "str",
}
_ENCODE_CHUNK = 512


def shard_recipe(settings: ProjectSettings, ingest: Artifact, base: BaseModel) -> Recipe:
    """What the shards are made from."""
    return Recipe(
        "shard",
        {"ingest": ingest.digest, "base": base.digest},
        {
            "shard": settings.shard.model_dump(),
            "task": settings.task.model_dump(),
            "labels": settings.labels,
            "adapt": settings.adapt is not None,
        },
        settings.seed,
    )


def run_shard(
    settings: ProjectSettings,
    *,
    ingest: Artifact,
    base: BaseModel,
    out: Path,
    progress: Progress,
) -> Artifact:
    """Encode the corpus for training.

    Raises:
        TaskError: the label words or the token limit cannot be kept with this tokenizer.
        InputError: no training example is left.
    """
    corpus = Corpus(ingest)
    tokenizer = load_tokenizer(base.folder)
    spec = _make_spec(settings, tokenizer, base)
    encoder = Encoder(tokenizer, spec)
    with build(out, shard_recipe(settings, ingest, base)) as builder:
        spec.save(out)
        for split in ("train", "validation"):
            builder.facts[f"tune/{split}"] = _write_tune(
                out / "tune" / split, corpus.split(split), encoder, settings, progress
            )
        if settings.adapt is not None:
            builder.facts["adapt"] = _write_adapt(
                out / "adapt", corpus.adaptation_documents(), tokenizer, settings, progress
            )
    return load(out, "shard")


def _make_spec(settings: ProjectSettings, tokenizer: Tokenizer, base: BaseModel) -> TaskSpec:
    return TaskSpec.create(
        tokenizer,
        template=Template(settings.task.prompt, settings.task.prompt_overall),
        labels=LabelSet(settings.labels),
        label_words=settings.task.label_words,
        token_limit=settings.task.token_limit,
        pad_token_id=_pad_id(tokenizer, base),
        base=(base.name, base.digest),
    )


def _pad_id(tokenizer: Tokenizer, base: BaseModel) -> int:
    """The model's own padding token where it has one; any id will do, it is masked."""
    config = json.loads((base.folder / "config.json").read_text("utf-8"))
    for name in ("pad_token_id", "eos_token_id"):
        value = config.get(name)
        value = value[0] if isinstance(value, list) else value
        if isinstance(value, int) and 0 <= value < tokenizer.get_vocab_size():
            return value
    return 0


def _writer(folder: Path, columns: dict[str, str], settings: ProjectSettings) -> ShardWriter:
    compression = None if settings.shard.compression == "none" else settings.shard.compression
    return ShardWriter(
        folder,
        columns,
        compression=compression,
        size_limit_bytes=settings.shard.size_limit_bytes,
        overwrite=True,
    )


def _write_tune(
    folder: Path,
    examples: Sequence[LabelledDocument],
    encoder: Encoder,
    settings: ProjectSettings,
    progress: Progress,
) -> dict[str, int]:
    """Write encoded prompts; a prompt that does not fit the token limit is left out and counted."""
    labels = LabelSet(settings.labels)
    written = refused = tokens = 0
    with (
        _writer(folder, TUNE_COLUMNS, settings) as writer,
        progress.task(f"encode {folder.name}", len(examples), "examples") as task,
    ):
        for start in range(0, len(examples), _ENCODE_CHUNK):
            chunk = examples[start : start + _ENCODE_CHUNK]
            for item, ids in zip(chunk, _encode(encoder, chunk), strict=True):
                if ids is None:
                    refused += 1
                    continue
                writer.write(
                    {
                        "document_id": item.document.id,
                        "input_ids": np.asarray(ids, dtype=np.int32),
                        "label": labels.index(item.example.label),
                        "lang": item.document.lang or "und",
                        "narrative_id": item.example.narrative_id or "",
                    }
                )
                written += 1
                tokens += len(ids)
            task.advance(len(chunk))
    if not written:
        raise InputError(
            f"the {folder.name} split holds no example that can be used",
            hint="Give more examples, or change ingest.split or task.token_limit.",
        )
    return {"examples": written, "tokens": tokens, "refused": refused}


def _encode(encoder: Encoder, items: Sequence[LabelledDocument]) -> list[list[int] | None]:
    try:
        return list(encoder.encode_batch([item.text for item in items]))
    except TaskError:
        encoded: list[list[int] | None] = []
        for item in items:
            try:
                encoded.append(encoder.encode(*item.text))
            except TaskError:
                encoded.append(None)
        return encoded


def _write_adapt(
    folder: Path,
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    settings: ProjectSettings,
    progress: Progress,
) -> dict[str, dict[str, int]]:
    """Write packed rows and held-out documents per language; returns their counts."""
    by_lang: dict[str, list[Document]] = {}
    for document in documents:
        by_lang.setdefault(document.lang or "und", []).append(document)
    limit = settings.shard.sequence_tokens
    bos = find_bos(tokenizer)
    counts = {}
    with progress.task("encode adapt", sum(map(len, by_lang.values())), "documents") as task:

        def encoded(members: Sequence[Document]) -> Iterator[list[int]]:
            for document in members:
                ids = encode_text(tokenizer, document.text.strip())
                task.advance()
                yield ids if bos is None else [bos, *ids]

        for lang, members in sorted(by_lang.items()):
            parts = dict(zip(("train", "heldout"), _hold_out(members, settings), strict=True))
            counts[lang] = {name: len(part) for name, part in parts.items()}
            for name, part in parts.items():
                tokens = 0
                with _writer(folder / name / lang, ADAPT_COLUMNS, settings) as writer:
                    for row in pack_documents(encoded(part), limit):
                        writer.write({"tokens": row.tokens, "lengths": row.lengths})
                        tokens += len(row.tokens)
                counts[lang][f"{name}_tokens"] = tokens
    return counts


def _hold_out(
    documents: Sequence[Document], settings: ProjectSettings
) -> tuple[list[Document], list[Document]]:
    """Hold out the texts whose digest, salted with the seed, comes first: a stable choice.

    All documents of one text go the same way, or perplexity would be measured on what was learnt.
    """
    rank = {
        document.id: hashlib.sha256(
            f"{settings.seed}:{document.digest or document.id}".encode()
        ).digest()
        for document in documents
    }
    ranks = sorted(set(rank.values()))
    count = max(1, round(settings.shard.heldout_share * len(ranks))) if len(ranks) > 1 else 0
    chosen = set(ranks[:count])
    ranked = sorted(documents, key=lambda document: rank[document.id])
    return (
        [document for document in ranked if rank[document.id] not in chosen],
        [document for document in ranked if rank[document.id] in chosen],
    )
