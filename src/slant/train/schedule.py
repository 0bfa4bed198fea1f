"""Which examples or rows make up which step, and in which passes they go through the model.

Both schedules are pure functions of the data, the seed and the step's number. The number of
processes only decides who does which part of a step.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from slant.config.training_settings import AdaptSettings, TuneSettings
from slant.errors import ShardError
from slant.model.batches import make_batches
from slant.shards.order import length_bucketed_steps, mixed_order
from slant.shards.pack import positions
from slant.shards.reader import ShardReader
from slant.train.objective import AdaptBatch, TuneBatch
from slant.train.parallel import World

__all__ = ["AdaptSchedule", "Examples", "TuneSchedule", "adapt_batch", "shared_out", "tune_passes"]


@final
@dataclass(frozen=True)
class Examples:
    """The encoded examples of one split, in memory.

    Attributes:
        ids: token ids of each prompt.
        labels: int64 ``(N,)``.
        shares: of each label among an example's judgements; None where there is one judgement.
        langs: language of each document.
        documents: id of each document.
        narratives: id of each narrative, ``""`` for the overall sentiment.
    """

    ids: list[NDArray[np.int32]]
    labels: NDArray[np.int64]
    shares: list[tuple[float, ...] | None]
    langs: list[str]
    documents: list[str]
    narratives: list[str]

    @classmethod
    def read(cls, reader: ShardReader, num_labels: int) -> Examples:
        """Read a ``tune/`` stream.

        Raises:
            ShardError: a label is not one of the task's.
        """
        samples = list(reader)
        labels = np.array([int(sample["label"]) for sample in samples], dtype=np.int64)
        odd = np.flatnonzero((labels < 0) | (labels >= num_labels))
        if len(odd):
            sample = samples[odd[0]]
            raise ShardError(
                f"{reader.folder}: the example of document {sample['document_id']!r} has label "
                f"{sample['label']}, and the task has {num_labels} labels",
                hint="Run `slant shard` again.",
            )
        return cls(
            [np.array(sample["input_ids"], dtype=np.int32) for sample in samples],
            labels,
            [tuple(sample["shares"].tolist()) or None for sample in samples],
            [sample["lang"] for sample in samples],
            [sample["document_id"] for sample in samples],
            [sample["narrative_id"] for sample in samples],
        )

    def __len__(self) -> int:
        return len(self.ids)

    def groups(self, chosen: Sequence[int], *, together: bool) -> list[list[int]]:
        """The chosen examples by document, or each alone."""
        if not together:
            return [[i] for i in chosen]
        groups: dict[str, list[int]] = defaultdict(list)
        for i in chosen:
            groups[self.documents[i]].append(i)
        return list(groups.values())

    def name(self, index: int) -> str:
        """What an error message calls an example."""
        narrative = self.narratives[index]
        return self.documents[index] + (f" under {narrative}" if narrative else "")


def shared_out(
    groups: Sequence[Sequence[int]], lengths: NDArray[np.int64], size: int
) -> list[list[int]]:
    """Divide groups of items among processes so that each gets about as many tokens.

    The longest group goes first, to whoever has least (Graham 1969); equal input, equal result.

    Args:
        groups: items that stay together.
        lengths: tokens of every item.
        size: number of processes.

    Returns:
        The items of each process.
    """
    tokens = [int(lengths[list(group)].sum()) for group in groups]
    parts: list[list[int]] = [[] for _ in range(size)]
    loads = [0] * size
    for place in sorted(range(len(groups)), key=lambda place: (-tokens[place], place)):
        rank = loads.index(min(loads))
        parts[rank].extend(groups[place])
        loads[rank] += tokens[place]
    return parts


@final
class TuneSchedule:
    """Epochs of examples of like length, languages mixed.

    With ``document_once``, examples of one document come one after another, so that most of them
    meet in a step and share a row.

    Args:
        examples: of the training split.
        targets: ``(N, L)`` float32, what is to be predicted.
        weights: ``(N,)`` float32, of the examples in the loss.
        section: of slant.yaml.
        seed: of the order.
        pad_token_id: fills the rows.
    """

    def __init__(
        self,
        examples: Examples,
        targets: NDArray[np.float32],
        weights: NDArray[np.float32],
        section: TuneSettings,
        *,
        seed: int,
        pad_token_id: int,
    ) -> None:
        self._examples = examples
        self._targets = targets
        self._weights = weights
        self._pad_token_id = pad_token_id
        self._lengths = np.array([len(ids) for ids in examples.ids], dtype=np.int64)
        self._documents = _numbered(examples.documents)
        self._together = section.document_once
        streams = _numbered(examples.langs)
        self._steps: list[list[int]] = []
        self.epoch_ends: list[int] = []
        for epoch in range(section.epochs):
            order = mixed_order(streams, section.language_temperature, seed, epoch)
            lengths = self._lengths
            if self._together:
                order = _documents_together(order, self._documents)
                lengths = _longest_of_document(lengths, self._documents)
            steps = length_bucketed_steps(
                lengths, seed, epoch, section.examples_per_step, order=order
            )
            self._steps.extend(step.tolist() for step in steps)
            self.epoch_ends.append(len(self._steps))

    @property
    def num_steps(self) -> int:
        """See Schedule."""
        return len(self._steps)

    @property
    def num_tokens(self) -> int:
        """Of all steps, where no prompts share a row."""
        return sum(int(self._lengths[step].sum()) for step in self._steps)

    def validation_steps(self, per_epoch: int) -> frozenset[int]:
        """Numbers of finished steps after which to validate, evenly over each epoch."""
        starts = [0, *self.epoch_ends[:-1]]
        return frozenset(
            start + max(1, round((end - start) * part / per_epoch))
            for start, end in zip(starts, self.epoch_ends, strict=True)
            for part in range(1, per_epoch + 1)
        )

    def passes(self, step: int, world: World, tokens_per_pass: int) -> Iterator[TuneBatch]:
        """See Schedule."""
        chosen = self._steps[step]
        groups = self._examples.groups(chosen, together=self._together)
        parts = shared_out(groups, self._lengths, world.size)
        for batch in tune_passes(
            self._examples,
            parts,
            world.rank,
            tokens_per_pass,
            self._pad_token_id,
            together=self._together,
        ):
            members = [parts[batch.rank][place] for place in batch.prompts.members]
            yield TuneBatch(
                batch.prompts,
                torch.from_numpy(self._targets[members]),
                torch.from_numpy(self._weights[members]),
                1 / len(chosen) if batch.counts else 0.0,
                tuple(self._examples.name(i) for i in members),
            )


@dataclass(frozen=True)
class _Pass:
    """A pass of one process; one that does not count only keeps step with the others."""

    prompts: Any
    rank: int
    counts: bool


def tune_passes(
    examples: Examples,
    parts: Sequence[Sequence[int]],
    rank: int,
    tokens_per_pass: int,
    pad_token_id: int,
    *,
    together: bool,
) -> Iterator[_Pass]:
    """The passes of one process over its part, as many as the process with most of them has.

    Args:
        examples: all of them.
        parts: the examples of each process.
        rank: whose passes.
        tokens_per_pass: most tokens of a pass, padding included.
        pad_token_id: fills the rows.
        together: whether examples of one document share a row.
    """

    def batches(part: Sequence[int]) -> list[Any]:
        return list(
            make_batches(
                [examples.ids[i].tolist() for i in part],
                tokens_per_pass,
                pad_token_id,
                groups=[examples.documents[i] for i in part] if together else None,
            )
        )

    if len(parts) == 1:
        yield from (_Pass(batch, 0, counts=True) for batch in batches(parts[0]))
        return
    of_all = [batches(part) for part in parts]
    own = [_Pass(batch, rank, counts=True) for batch in of_all[rank]]
    yield from own
    spare = next(
        replace(own[-1], counts=False) if own else _Pass(of_rank[0], other, counts=False)
        for other, of_rank in enumerate(of_all)
        if of_rank
    )
    for _ in range(max(map(len, of_all)) - len(own)):
        yield spare


@final
class AdaptSchedule:
    """Epochs of the packed rows of all languages, mixed and shuffled.

    Args:
        readers: of each language's rows.
        section: of slant.yaml.
        seed: of the order.
        pad_token_id: fills shorter rows of a pass.
    """

    def __init__(
        self,
        readers: Sequence[ShardReader],
        section: AdaptSettings,
        *,
        seed: int,
        pad_token_id: int,
    ) -> None:
        self._rows = [(reader, i) for reader in readers for i in range(len(reader))]
        self._streams = np.repeat(np.arange(len(readers)), [len(reader) for reader in readers])
        self._temperature = section.language_temperature
        self._seed = seed
        self._pad_token_id = pad_token_id
        sizes = [len(reader[i]["tokens"]) for reader, i in self._rows]
        mean_tokens = sum(sizes) / len(sizes)
        self._rows_per_step = max(1, round(section.tokens_per_step / mean_tokens))
        wanted = min(section.tokens / mean_tokens, section.epochs * len(sizes))
        self._num_rows = max(1, round(wanted))
        self.num_tokens = self._num_rows * mean_tokens
        self._order = lru_cache(maxsize=2)(self._order_of)

    @property
    def num_steps(self) -> int:
        """See Schedule."""
        return math.ceil(self._num_rows / self._rows_per_step)

    def _order_of(self, epoch: int) -> NDArray[np.int64]:
        return mixed_order(self._streams, self._temperature, self._seed, epoch)

    def passes(self, step: int, world: World, tokens_per_pass: int) -> Iterator[AdaptBatch]:
        """See Schedule."""
        first = step * self._rows_per_step
        samples, names = [], []
        for number in range(first, min(first + self._rows_per_step, self._num_rows)):
            epoch, place = divmod(number, len(self._rows))
            row = int(self._order(epoch)[place])
            reader, index = self._rows[row]
            samples.append(reader[index])
            names.append(f"row {index} of {reader.folder}")
        targets = sum(len(s["tokens"]) - len(s["lengths"]) for s in samples)
        per_pass = _rows_per_pass([len(s["tokens"]) for s in samples], tokens_per_pass)
        own = list(range(world.rank, len(samples), world.size))
        most = math.ceil(math.ceil(len(samples) / world.size) / per_pass)
        for number in range(most):
            rows = own[number * per_pass : (number + 1) * per_pass]
            share = 1 / max(1, targets) if rows else 0.0
            rows = rows or [0]  # a pass that only keeps step with the other processes
            yield adapt_batch(
                [samples[i] for i in rows],
                share,
                self._pad_token_id,
                names=tuple(names[i] for i in rows),
            )


def _rows_per_pass(lengths: Sequence[int], tokens_per_pass: int) -> int:
    return max(1, tokens_per_pass // max(lengths))


def adapt_batch(
    samples: Sequence[Any], share: float, pad_token_id: int, names: tuple[str, ...] = ()
) -> AdaptBatch:
    """Packed rows as tensors, right-padded; a padding token is a document of its own."""
    width = max(len(sample["tokens"]) for sample in samples)
    input_ids = torch.full((len(samples), width), pad_token_id, dtype=torch.int64)
    places = torch.zeros_like(input_ids)
    targets = torch.full_like(input_ids, -100)
    for row, sample in enumerate(samples):
        tokens = torch.from_numpy(np.array(sample["tokens"], dtype=np.int64))
        input_ids[row, : len(tokens)] = tokens
        places[row, : len(tokens)] = torch.from_numpy(positions(sample["lengths"]))
        targets[row, : len(tokens) - 1] = tokens[1:]
        # The last token of a document has no next one in its row.
        ends = np.cumsum(sample["lengths"], dtype=np.int64) - 1
        targets[row, torch.from_numpy(ends)] = -100
    num_tokens = sum(len(sample["tokens"]) for sample in samples)
    return AdaptBatch(input_ids, places, targets, share, num_tokens if share else 0, names)


def _numbered(names: Sequence[str]) -> NDArray[np.int64]:
    """Equal names as equal numbers."""
    numbers: NDArray[np.int64] = np.unique(np.array(names, dtype=np.str_), return_inverse=True)[1]
    return numbers


def _documents_together(
    order: NDArray[np.int64], documents: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The same order, with the examples of a document moved up to its first one.

    An example that an epoch visits again (by temperature) does so with the others of its document
    that it visits again, and not in the step of its first visit.
    """
    by_example = np.argsort(order, kind="stable")
    counts = np.unique(order, return_counts=True)[1]
    visit = np.empty_like(order)
    visit[by_example] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    keys = documents[order] * (visit.max(initial=0) + 1) + visit
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return order[np.argsort(first[inverse], kind="stable")]


def _longest_of_document(
    lengths: NDArray[np.int64], documents: NDArray[np.int64]
) -> NDArray[np.int64]:
    """For each example the length of the longest of its document, so that sorting keeps them."""
    longest = np.zeros(documents.max(initial=0) + 1, dtype=np.int64)
    np.maximum.at(longest, documents, lengths)
    return longest[documents]
