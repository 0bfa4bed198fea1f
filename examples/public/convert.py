"""Convert five public sentiment and stance sets to the form that slant.yaml beside it reads.

CLONES holds a clone of each source repository (README.md names them and their commits); the
result is ``DATA/labelled/*.jsonl``, one row for a document, a target and a label.

A row is left out where its text also stands in the source's held-out file (another task's test
rows must not leak into training), where it repeats an earlier row, and where rows for the same
text and target contradict each other.

Usage: python examples/public/convert.py --clones CLONES --out DATA
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NEWSMTSC = Path("NewsSentiment/controller_data/datasets/NewsMTSC-dataset")
C_STANCE = Path("c_stance_dataset/subtaskA")
RUSENTNE_COLUMNS = ("sentence", "entity", "label")
C_STANCE_COLUMNS = ("Text", "Target 1", "Stance 1")

NEWSMTSC_LABELS = {"2.0": "negative", "4.0": "neutral", "6.0": "positive"}
RUSENTNE_LABELS = {"-1": "negative", "0": "neutral", "1": "positive"}
ELECCIONES_LABELS = {"NEG": "negative", "NEU": "neutral", "POS": "positive"}
C_STANCE_LABELS = {"反对": "negative", "中立": "neutral", "支持": "positive"}
FIRECS_LABELS = {"0.0": "negative", "1.0": "neutral", "2.0": "positive"}

MAX_FIELD_CHARACTERS = 131_072


class ConversionError(Exception):
    """A source that is absent or not of the expected form; the message is for the user."""


@dataclass(frozen=True)
class Row:
    """One labelled example of a source."""

    id: str
    text: str
    target: str | None
    label: str
    split: str | None

    @property
    def key(self) -> tuple[str, str]:
        """What two rows that repeat each other share: letters and digits of the text, target."""
        return re.sub(r"\W+", "", self.text.casefold()), (self.target or "").casefold()


@dataclass(frozen=True)
class Source:
    """A source repository and how its files are read."""

    dataset: str
    clone: str
    lang: str
    kind: str
    read: Callable[[Path], Iterator[Row]]
    read_held_out: Callable[[Path], Iterator[Row]] | None = None


def one_line(text: str) -> str:
    """``text`` with every run of white space (no-break spaces too) made one space."""
    return " ".join(text.split())


def label_of(value: object, labels: Mapping[str, str], where: str) -> str:
    """What the source's own label ``value`` means."""
    label = labels.get(str(value).strip())
    if label is None:
        raise ConversionError(f"{where}: unknown label {value!r}; known are {', '.join(labels)}")
    return label


def read_text(path: Path) -> str:
    """The text of ``path``, line ends as they are."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConversionError(
            f"{path} does not exist; check the clone and its commit (README.md)"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConversionError(f"{path} cannot be read: {error}") from error


def read_json(text: str, where: str) -> Any:
    """The JSON value in ``text``."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ConversionError(f"{where} is not JSON: {error}") from error


def read_table(
    path: Path, columns: Sequence[str], *, tabs: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """Number from 0 and cells of ``columns`` of every row: CSV, or plain tab-separated values."""
    lines = io.StringIO(read_text(path), newline="")
    # A quote that is never closed makes a field of the rest of the file.
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    reader = (
        csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if tabs else csv.reader(lines)
    )
    try:
        head, *rows = [row for row in reader if row] or [[]]
    except csv.Error as error:
        raise ConversionError(f"{path}, line {reader.line_num}: {error}") from error
    missing = [name for name in columns if name not in head]
    if missing:
        raise ConversionError(f"{path} has no column {', '.join(missing)}")
    at = [head.index(name) for name in columns]
    for number, cells in enumerate(rows):
        if len(cells) <= max(at):
            raise ConversionError(f"{path}, row {number}: {len(cells)} cells, not {len(head)}")
        yield number, [cells[index] for index in at]


def newsmtsc_file(path: Path, name: str, split: str, first: int) -> Iterator[Row]:
    """Rows of one NewsMTSC file, one for each target of a sentence, numbered from ``first``."""
    number = first
    for line_number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {line_number}"
        sentence = read_json(line, where)
        try:
            pairs = [(target["mention"], target["polarity"]) for target in sentence["targets"]]
            text = one_line(sentence["sentence_normalized"])
        except (KeyError, TypeError) as error:
            raise ConversionError(f"{where} is not a NewsMTSC sentence: {error!r}") from error
        for mention, polarity in pairs:
            label = label_of(polarity, NEWSMTSC_LABELS, where)
            yield Row(f"newsmtsc-{name}-{number}", text, one_line(mention), label, split)
            number += 1


def newsmtsc(clone: Path) -> Iterator[Row]:
    """NewsMTSC: the training file, then the sentences with several targets."""
    number = 0
    for name, split in (("train", "train"), ("devtest_mt", "dev")):
        for row in newsmtsc_file(clone / NEWSMTSC / f"{name}.jsonl", name, split, number):
            number += 1
            yield row


def newsmtsc_held_out(clone: Path) -> Iterator[Row]:
    """NewsMTSC: the real-world test sentences."""
    return newsmtsc_file(clone / NEWSMTSC / "devtest_rw.jsonl", "devtest_rw", "test", 0)


def rusentne_file(path: Path, name: str) -> Iterator[Row]:
    """Rows of one RuSentNE file: tabs between cells, quotation marks are part of the text."""
    for number, (text, entity, value) in read_table(path, RUSENTNE_COLUMNS, tabs=True):
        label = label_of(value, RUSENTNE_LABELS, f"{path}, row {number}")
        yield Row(f"rusentne-{name}-{number}", one_line(text), one_line(entity), label, name)


def rusentne(clone: Path) -> Iterator[Row]:
    """RuSentNE-2023: the training file."""
    return rusentne_file(clone / "train_data.csv", "train")


def rusentne_held_out(clone: Path) -> Iterator[Row]:
    """RuSentNE-2023: the labelled validation file, which shares sentences with the training one."""
    return rusentne_file(clone / "validation_data_labeled.csv", "validation")


def elecciones(clone: Path) -> Iterator[Row]:
    """Spanish headlines: one row for each politician of a headline."""
    path = clone / "data" / "dataset.json"
    for position, headline in enumerate(read_json(read_text(path), str(path))):
        where = f"{path}, headline {position}"
        try:
            text, number = one_line(headline["titulo"]), headline["id"]
            pairs = [(target["nombre"], target["etiqueta"]) for target in headline["targets"]]
        except (KeyError, TypeError) as error:
            raise ConversionError(f"{where} is not of the expected form: {error!r}") from error
        for index, (name, value) in enumerate(pairs):
            label = label_of(value, ELECCIONES_LABELS, where)
            yield Row(f"es_elec-{number}-{index}", text, one_line(name), label, None)


def c_stance_file(path: Path, name: str, first: int) -> Iterator[Row]:
    """Rows of one file of C-STANCE's subtask A, numbered from ``first``."""
    for number, (text, target, value) in read_table(path, C_STANCE_COLUMNS):
        label = label_of(value, C_STANCE_LABELS, f"{path}, row {number}")
        row_id = f"cstance-{name}-{first + number}"
        yield Row(row_id, one_line(text), one_line(target), label, name)


def c_stance(clone: Path) -> Iterator[Row]:
    """C-STANCE, subtask A: the training file, then the validation file."""
    number = 0
    for part, name in (("train", "train"), ("val", "dev")):
        for row in c_stance_file(clone / C_STANCE / f"raw_{part}_all_onecol.csv", name, number):
            number += 1
            yield row


def c_stance_held_out(clone: Path) -> Iterator[Row]:
    """C-STANCE, subtask A: the test file."""
    return c_stance_file(clone / C_STANCE / "raw_test_all_onecol.csv", "test", 0)


def firecs(clone: Path) -> Iterator[Row]:
    """FiReCS: reviews with an overall label and no target."""
    path = clone / "FiReCS.csv"
    for number, (text, value) in read_table(path, ("review", "label")):
        label = label_of(value, FIRECS_LABELS, f"{path}, row {number}")
        yield Row(f"firecs-{number}", one_line(text), None, label, None)


SOURCES = (
    Source("en_newsmtsc", "NewsMTSC", "en", "news", newsmtsc, newsmtsc_held_out),
    Source("ru_rusentne", "RuSentNE-evaluation", "ru", "news", rusentne, rusentne_held_out),
    Source("es_elecciones_headlines", "sentiment-elecciones", "es", "news", elecciones),
    Source("zh_cstance", "C-STANCE", "zh", "social", c_stance, c_stance_held_out),
    Source("tl_firecs", "3dev-taglish-review-analyzer", "tl", "review", firecs),
)


def usable(rows: Iterable[Row], held_out: Iterable[Row]) -> Iterator[Row]:
    """The rows that are not held out, not repeated and not contradicted, in their order."""
    rows, held_out = list(rows), list(held_out)
    held_out_texts = {row.text for row in held_out}
    labels: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        labels[row.key].add(row.label)
    seen = {row.key for row in held_out}
    for row in rows:
        if row.text in held_out_texts or row.key in seen or len(labels[row.key]) > 1:
            continue
        seen.add(row.key)
        yield row


def convert(source: Source, clones: Path) -> list[dict[str, str | None]]:
    """All rows of ``source`` as slant.yaml reads them."""
    clone = clones / source.clone
    if not clone.is_dir():
        raise ConversionError(f"{clone} is not a folder; clone the source there (README.md)")
    held_out = source.read_held_out(clone) if source.read_held_out else ()
    return [
        {
            "id": row.id,
            "text": row.text,
            "target": row.target,
            "label": row.label,
            "lang": source.lang,
            "source": source.kind,
            "dataset": source.dataset,
            "split": row.split,
        }
        for row in usable(source.read(clone), held_out)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert all sources; nothing is written unless every one of them can be read."""
    parser = argparse.ArgumentParser(description="Convert five public sets for slant.yaml.")
    parser.add_argument("--clones", type=Path, required=True, help="folder that holds the clones")
    parser.add_argument("--out", type=Path, required=True, help="labelled/*.jsonl is written here")
    options = parser.parse_args(arguments)
    try:
        converted = {source.dataset: convert(source, options.clones) for source in SOURCES}
        folder = options.out / "labelled"
        folder.mkdir(parents=True, exist_ok=True)
        for dataset, rows in converted.items():
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (folder / f"{dataset}.jsonl").write_text("".join(lines), "utf-8", newline="\n")
            print(f"{dataset}: {len(rows)} rows")
    except (ConversionError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
