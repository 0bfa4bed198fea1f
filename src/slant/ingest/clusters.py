"""Texts that are nearly the same, across all sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from slant.ingest.candidates import LabelledPair, UnlabelledDocuments
from slant.ingest.inputs import Reading
from slant.ingest.ledger import Fate, Ledger, Place
from slant.ingest.near import find_clusters
from slant.ingest.parts import FileParts
from slant.ingest.texts import read_bands, read_texts

__all__ = ["Clusters", "cluster_texts"]


@dataclass(frozen=True)
class Clusters:
    """Clusters of near-duplicates.

    Attributes:
        of_labelled: digest of a labelled text → digest of the first text of its cluster.
        unlabelled: the documents that are left, each the first of its cluster.
        num_clusters: clusters of two texts or more.
    """

    of_labelled: dict[bytes, bytes] = field(repr=False)
    unlabelled: UnlabelledDocuments = field(repr=False)
    num_clusters: int = 0


def cluster_texts(
    files: Sequence[FileParts],
    pairs: Sequence[LabelledPair],
    unlabelled: UnlabelledDocuments,
    ledger: Ledger,
    reading: Reading,
) -> Clusters:
    """Find clusters; set aside unlabelled documents that are nearly the text of an earlier one.

    Labelled texts come before unlabelled ones, so of both the labelled one stays.
    """
    firsts: dict[bytes, Place] = {}
    for pair in pairs:
        firsts.setdefault(pair.first.digest, pair.first.place)
    settings = reading.settings.duplicates
    if not settings.near:
        return Clusters({digest: digest for digest in firsts}, unlabelled)
    places = [*firsts.values(), *unlabelled.places()]

    def texts(indices: NDArray[np.int64]) -> Iterator[tuple[int, str]]:
        wanted = indices.tolist()
        yield from zip(wanted, read_texts(files, (places[i] for i in wanted)), strict=True)

    roots = find_clusters(
        read_bands(files, places),
        texts,
        jaccard=settings.jaccard,
        shingle_characters=settings.shingle_characters,
        progress=reading.progress,
    )
    digests = list(firsts)
    of_labelled = {digest: digests[roots[i]] for i, digest in enumerate(digests)}
    left = UnlabelledDocuments()
    for index in range(len(unlabelled)):
        place, own = unlabelled.place(index), len(digests) + index
        if roots[own] == own:
            left.append(place)
        else:
            ledger.reject(place, _fate(int(roots[own]) < len(digests)))
    sizes = np.bincount(roots) if len(roots) else np.zeros(0, dtype=np.int64)
    return Clusters(of_labelled, left, int((sizes > 1).sum()))


def _fate(is_of_labelled: bool) -> Fate:
    text = "near-duplicate of a labelled document" if is_of_labelled else "near-duplicate document"
    return Fate(text, text, duplicate="near")
