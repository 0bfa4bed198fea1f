"""Stage ``shard``: documents and examples become token ids in MDS shards.

It writes
    slant.json                    the task contract
    adapt/train/LANG/             packed rows: tokens, lengths of the documents in them
    adapt/heldout/LANG/           the same of documents kept aside, to measure perplexity on
    tune/train/, tune/validation/ encoded prompts with their label, and the shares of its judgements

With ``shard.to`` the streams lie there, in a folder named by the recipe's key, so that one version
never mixes with another; the artifact then says where (``shards.json``, see ``streams``).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from slant.artifacts import Artifact, Recipe, build, load
from slant.config.load import expand_variables
from slant.config.settings import ProjectSettings
from slant.corpus import Corpus, DocumentRows, LabelledDocument
from slant.errors import InputError, ShardError, TaskError
from slant.labels import LabelSet
from slant.model.base import BaseModel, find_pad_id, load_tokenizer
from slant.progress import Progress
from slant.shards.pack import pack_documents
from slant.storage import check_url, is_url, join_url
from slant.task.encode import Encoder
from slant.task.languages import UNKNOWN_LANGUAGE
from slant.task.spec import SPEC_SCHEMA, TaskSpec
from slant.task.template import Template
from slant.task.verbalizer import find_bos
from slant.train.streams import Chunk, Stream, StreamWriter, open_shards, stream_names

__all__ = ["run_shard", "shard_recipe", "verify_shards"]

ADAPT_COLUMNS = {"tokens": "ndarray:int32", "lengths": "ndarray:int32"}
TUNE_COLUMNS = {
    "document_id": "str",
    "input_ids": "ndarray:int32",
    "label": "int",
    "lang": "str",
    "narrative_id": "str",
    "shares": "ndarray:float32",
}
# Part of the recipe, so that a change of what the shards hold has them written anew. Columns count
# by themselves; raise the number where what stands in them changes.
_VERSION = 1
_TUNE_CHUNK = 512
# Rows are packed within a chunk. It is large, so that few rows are cut short at its end, and
# bounded in characters too, so that long documents do not fill the memory.
_ADAPT_CHUNK, _ADAPT_CHUNK_CHARACTERS = 4096, 8_000_000
_ENCODE_BATCH = 256  # enough for all cores; what a tokenizer returns takes far more than its ids


def shard_recipe(settings: ProjectSettings, ingest: Artifact, base: BaseModel) -> Recipe:
    """What the shards are made from."""
    return Recipe(
        "shard",
        {"corpus": Corpus(ingest).digest, "base": base.digest},
        {
            "shard": settings.shard.model_dump(exclude={"cache_bytes"}),
            "task": settings.task.model_dump(),
            "labels": settings.labels,
            "adapt": settings.adapt is not None,
            "format": {"version": _VERSION, "adapt": ADAPT_COLUMNS, "tune": TUNE_COLUMNS},
            "contract": SPEC_SCHEMA,
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
    start: Path | None = None,
) -> Artifact:
    """Encode the corpus for training.

    A stage that was killed goes on where it stopped: complete shards are not written again, and
    the result is byte for byte that of an uninterrupted one.

    Args:
        settings: the project; ``shard``, ``task``, ``labels``, ``adapt`` and ``seed`` are used.
        ingest: of the ingest stage.
        base: its tokenizer encodes the texts.
        out: folder of the artifact.
        progress: told of examples and documents.
        start: folder that a relative ``shard.to`` starts from; None: the present one.

    Raises:
        TaskError: the label words or the token limit cannot be kept with this tokenizer.
        InputError: no training example is left, or the storage of ``shard.to`` does not answer.
        StorageError: the shards cannot be written.
        UsageError: ``shard.to`` names a variable that is not set, or holds credentials.
    """
    corpus = Corpus(ingest)
    tokenizer = load_tokenizer(base.folder)
    spec = _make_spec(settings, tokenizer, base)
    encoder = Encoder(tokenizer, spec)
    recipe = shard_recipe(settings, ingest, base)
    location = _location(settings, recipe, start or Path(), out)
    with build(out, recipe) as builder:
        spec.save(out)
        writer = StreamWriter(out, builder.scratch, settings.shard, location)
        for split in ("train", "validation"):
            stream = _tune_stream(split, corpus.split(split), encoder, LabelSet(settings.labels))
            counts = writer.write(stream, progress)
            if not counts["examples"]:
                raise InputError(
                    f"the {split} split holds no example that can be used",
                    hint="Give more examples, or change ingest.split or task.token_limit.",
                )
            builder.facts[stream.name] = counts
        if settings.adapt is not None:
            builder.facts["adapt"] = _write_adapt(corpus, tokenizer, settings, writer, progress)
        writer.finish()
    return load(out, "shard")


def verify_shards(artifact: Artifact, progress: Progress) -> None:
    """Check every size and every hash of every stream, where the shards really are.

    Args:
        artifact: of the shard stage.
        progress: told of every shard.

    Raises:
        ShardError: files are missing or damaged; the message has a line for each of them.
        InputError: their storage does not answer, or refuses.
    """
    problems: list[str] = []
    for name in stream_names(artifact):
        try:
            open_shards(artifact, name).verify(progress)
        except ShardError as error:
            problems.append(error.message)
    if problems:
        raise ShardError(
            "\n".join(problems),
            hint="Copy the files again from where they came, or remove the folder and run "
            "`slant shard` again.",
        )


def _location(settings: ProjectSettings, recipe: Recipe, start: Path, out: Path) -> str | None:
    """Where the streams go: a URL, or a folder relative to ``out``; None: into ``out``."""
    if settings.shard.to is None:
        return None
    to, version = expand_variables(settings.shard.to), recipe.key[:16]
    if is_url(to):
        check_url(to)
        return join_url(to, version)
    if Path(to).is_absolute():
        return str(Path(to) / version)
    # So that a project may be moved.
    return Path(os.path.relpath(start / to / version, out)).as_posix()


def _make_spec(settings: ProjectSettings, tokenizer: Tokenizer, base: BaseModel) -> TaskSpec:
    return TaskSpec.create(
        tokenizer,
        template=Template(settings.task.prompt, settings.task.prompt_overall),
        labels=LabelSet(settings.labels),
        label_words=settings.task.label_words,
        token_limit=settings.task.token_limit,
        pad_token_id=find_pad_id(tokenizer, base.folder),
        base=(base.name, base.digest),
        long_documents=settings.task.long_documents,
    )


def _tune_stream(
    split: str, examples: Sequence[LabelledDocument], encoder: Encoder, labels: LabelSet
) -> Stream:
    """Encoded prompts; one that does not fit the token limit is left out and counted."""

    def chunks(first: int) -> Iterator[Chunk]:
        for start in range(first, len(examples), _TUNE_CHUNK):
            items = examples[start : start + _TUNE_CHUNK]
            samples: list[dict[str, Any]] = [
                {
                    "document_id": item.document.id,
                    "input_ids": np.asarray(ids, dtype=np.int32),
                    "label": labels.index(item.example.label),
                    "lang": item.document.lang or UNKNOWN_LANGUAGE,
                    "narrative_id": item.example.narrative_id or "",
                    "shares": np.asarray(item.example.shares or (), dtype=np.float32),
                }
                for item, ids in zip(items, _encode(encoder, items), strict=True)
                if ids is not None
            ]
            counts = {
                "examples": len(samples),
                "tokens": sum(len(sample["input_ids"]) for sample in samples),
                "refused": len(items) - len(samples),
            }
            yield Chunk(start + len(items), samples, counts)

    counted = ("examples", "tokens", "refused")
    return Stream(f"tune/{split}", TUNE_COLUMNS, len(examples), "examples", counted, chunks)


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
    corpus: Corpus,
    tokenizer: Tokenizer,
    settings: ProjectSettings,
    writer: StreamWriter,
    progress: Progress,
) -> dict[str, dict[str, int]]:
    """Write packed rows and held-out documents per language; returns their counts."""
    limit = settings.shard.sequence_tokens
    counts: dict[str, dict[str, int]] = {}
    for lang, documents in corpus.adaptation_rows().items():
        is_heldout = _hold_out(documents, settings)
        parts = {"train": documents.rows[~is_heldout], "heldout": documents.rows[is_heldout]}
        counts[lang] = {part: len(rows) for part, rows in parts.items()}
        for part, rows in parts.items():
            stream = _adapt_stream(f"adapt/{part}/{lang}", rows, corpus, tokenizer, limit)
            counts[lang][f"{part}_tokens"] = writer.write(stream, progress)["tokens"]
    return counts


def _adapt_stream(
    name: str, rows: NDArray[np.int64], corpus: Corpus, tokenizer: Tokenizer, limit: int
) -> Stream:
    """Documents packed into rows of tokens."""

    def chunks(first: int) -> Iterator[Chunk]:
        end = first
        for texts in _batches(corpus.texts(rows[first:])):
            end += len(texts)
            packed = list(pack_documents(_encode_documents(tokenizer, texts), limit))
            samples = [{"tokens": row.tokens, "lengths": row.lengths} for row in packed]
            tokens = sum(len(row.tokens) for row in packed)
            yield Chunk(end, samples, {"tokens": tokens})

    return Stream(name, ADAPT_COLUMNS, len(rows), "documents", ("tokens",), chunks)


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    """Texts in batches that depend on nothing but the texts from the first on."""
    batch: list[str] = []
    num_characters = 0
    for text in texts:
        batch.append(text)
        num_characters += len(text)
        if len(batch) == _ADAPT_CHUNK or num_characters >= _ADAPT_CHUNK_CHARACTERS:
            yield batch
            batch, num_characters = [], 0
    if batch:
        yield batch


def _encode_documents(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[list[int]]:
    """Token ids of whole documents, BOS first; on all cores."""
    bos = find_bos(tokenizer)
    tokenizer.encode_special_tokens = True  # "<eos>" in a document is plain text
    for start in range(0, len(texts), _ENCODE_BATCH):
        stripped = [text.strip() for text in texts[start : start + _ENCODE_BATCH]]
        for encoding in tokenizer.encode_batch_fast(stripped, add_special_tokens=False):
            yield encoding.ids if bos is None else [bos, *encoding.ids]


def _hold_out(documents: DocumentRows, settings: ProjectSettings) -> NDArray[np.bool_]:
    """Hold out the groups whose names, salted with the seed, hash lowest: a stable choice.

    All documents of one text, or of nearly the same, go the same way, or perplexity would be
    measured on what was learnt.
    """
    rank = {
        group: hashlib.sha256(f"{settings.seed}:{group}".encode()).digest()
        for group in set(documents.groups)
    }
    count = max(1, round(settings.shard.heldout_share * len(rank))) if len(rank) > 1 else 0
    chosen = set(sorted(rank, key=rank.__getitem__)[:count])
    held = [group in chosen for group in documents.groups]
    return np.array(held, dtype=np.bool_)
