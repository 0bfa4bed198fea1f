"""examples/public: its configuration, and the converter of the five public sets."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from slant.config.load import load_settings
from slant.errors import ConfigError
from slant.ingest.sources import source_files

EXAMPLE = Path(__file__).parents[3] / "examples" / "public"
CONFIG = EXAMPLE / "slant.yaml"
DATASETS = {
    "en_newsmtsc": ("en", "news"),
    "ru_rusentne": ("ru", "news"),
    "es_elecciones_headlines": ("es", "news"),
    "zh_cstance": ("zh", "social"),
    "tl_firecs": ("tl", "review"),
}
FIELDS = ["id", "text", "target", "label", "lang", "source", "dataset", "split"]


def load_converter() -> ModuleType:
    spec = importlib.util.spec_from_file_location("public_convert", EXAMPLE / "convert.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


convert = load_converter()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8", newline="")


def sentence(text: str, *targets: tuple[str, float]) -> str:
    named = [{"mention": mention, "polarity": polarity} for mention, polarity in targets]
    return json.dumps({"sentence_normalized": text, "targets": named}) + "\n"


@pytest.fixture
def clones(tmp_path: Path) -> Path:
    """Invented files in the form of the five sources."""
    root = tmp_path / "clones"
    news = root / "NewsMTSC" / convert.NEWSMTSC
    write(
        news / "train.jsonl",
        sentence("Ann\u00a0praised  Bo.", ("Ann", 4.0), ("Bo", 6.0))
        + sentence("Seen in the test set.", ("test", 2.0))
        + sentence("ANN PRAISED BO!", ("bo", 6.0), ("Cy", 2.0)),
    )
    write(news / "devtest_mt.jsonl", sentence("Di met Ed.", ("Di", 4.0), ("Ed", 2.0)))
    write(news / "devtest_rw.jsonl", sentence("Seen in the test set.", ("seen", 4.0)))

    head = "sentence\tentity\tentity_tag\tentity_pos_start_rel\tentity_pos_end_rel\tlabel\n"
    write(
        root / "RuSentNE-evaluation" / "train_data.csv",
        head
        + '"Клуб ""Искра"" победил."\t"""Искра"""\tORGANIZATION\t6\t13\t1\n'
        + "Мэр ушёл.\tМэр\tPROFESSION\t0\t3\t0\n"
        + "Мэр ушёл\tмэр\tPROFESSION\t0\t3\t-1\n"
        + "Общее предложение.\tпредложение\tORGANIZATION\t6\t17\t0\n"
        + "Суд отказал\u00a0— снова.\tСуд\tORGANIZATION\t0\t3\t-1\n",
    )
    write(
        root / "RuSentNE-evaluation" / "validation_data_labeled.csv",
        head + "Общее предложение.\tОбщее\tORGANIZATION\t0\t5\t1\n",
    )

    write(
        root / "sentiment-elecciones" / "data" / "dataset.json",
        json.dumps(
            [
                {
                    "titulo": "Paz gana a Ríos ",
                    "id": 7,
                    "targets": [
                        {"nombre": "Paz ", "etiqueta": "POS"},
                        {"nombre": "Ríos", "etiqueta": "NEG"},
                    ],
                },
                {"titulo": "Habla Sol", "id": 9, "targets": [{"nombre": "Sol", "etiqueta": "NEU"}]},
            ]
        ),
    )

    stance = root / "C-STANCE" / convert.C_STANCE
    head = "\ufeffText,Target 1,Stance 1,Type\r\n"
    write(
        stance / "raw_train_all_onecol.csv",
        head + '"好书,\n\u2028推荐",书,支持,noun_phrases\r\n测试文,话题,中立,noun_phrases\r\n',
    )
    write(stance / "raw_val_all_onecol.csv", head + "太贵了,价格很合理,反对,claims\r\n")
    write(stance / "raw_test_all_onecol.csv", head + "测试文,别的,反对,claims\r\n")

    write(
        root / "3dev-taglish-review-analyzer" / "FiReCS.csv",
        "review,label\nmaganda naman,2.0\nmaganda  naman,2.0\nok lang,1.0\nsira agad,0.0\n",
    )
    return root


def run(clones: Path, out: Path) -> int:
    code = convert.main(["--clones", str(clones), "--out", str(out)])
    assert isinstance(code, int)
    return code


def rows_of(out: Path, dataset: str) -> list[dict[str, Any]]:
    lines = (out / "labelled" / f"{dataset}.jsonl").read_text("utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


Brief = tuple[str, str, str | None, str, str | None]
EXPECTED: dict[str, list[Brief]] = {
    "en_newsmtsc": [  # numbers run on over the rows left out and into the second file
        ("newsmtsc-train-0", "Ann praised Bo.", "Ann", "neutral", "train"),
        ("newsmtsc-train-1", "Ann praised Bo.", "Bo", "positive", "train"),
        ("newsmtsc-train-4", "ANN PRAISED BO!", "Cy", "negative", "train"),
        ("newsmtsc-devtest_mt-5", "Di met Ed.", "Di", "neutral", "dev"),
        ("newsmtsc-devtest_mt-6", "Di met Ed.", "Ed", "negative", "dev"),
    ],
    "ru_rusentne": [  # quotation marks stay as they are; contradictions go
        ("rusentne-train-0", '"Клуб ""Искра"" победил."', '"""Искра"""', "positive", "train"),
        ("rusentne-train-4", "Суд отказал — снова.", "Суд", "negative", "train"),
    ],
    "es_elecciones_headlines": [
        ("es_elec-7-0", "Paz gana a Ríos", "Paz", "positive", None),
        ("es_elec-7-1", "Paz gana a Ríos", "Ríos", "negative", None),
        ("es_elec-9-0", "Habla Sol", "Sol", "neutral", None),
    ],
    "zh_cstance": [
        ("cstance-train-0", "好书, 推荐", "书", "positive", "train"),
        ("cstance-dev-2", "太贵了", "价格很合理", "negative", "dev"),
    ],
    "tl_firecs": [
        ("firecs-0", "maganda naman", None, "positive", None),
        ("firecs-2", "ok lang", None, "neutral", None),
        ("firecs-3", "sira agad", None, "negative", None),
    ],
}


def test_the_configuration_loads_where_the_variable_is_set(
    clones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(clones, tmp_path / "data") == 0
    monkeypatch.setenv("SLANT_PUBLIC_DATA", str(tmp_path / "data"))
    settings = load_settings(CONFIG)
    assert settings.adapt is None
    sources = settings.ingest.examples
    files = [path for source in sources for path in source_files(source.path, CONFIG.parent)]
    assert [Path(path).stem for path in files] == list(DATASETS)
    for source in sources:
        assert source.columns.id is None  # ids of these files are per row, not per document
        assert source.columns.narrative == "target"
        assert source.sizes is not None
        assert source.sizes.model_dump() == {
            "train": 600, "validation": 60, "calibration": 150, "test": 400
        }  # fmt: skip


def test_without_the_variable_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLANT_PUBLIC_DATA", raising=False)
    with pytest.raises(ConfigError, match="SLANT_PUBLIC_DATA is not set") as caught:
        load_settings(CONFIG)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("dataset", DATASETS)
def test_each_source_is_converted(clones: Path, tmp_path: Path, dataset: str) -> None:
    assert run(clones, tmp_path / "data") == 0
    rows = rows_of(tmp_path / "data", dataset)
    lang, kind = DATASETS[dataset]
    assert rows == [
        dict(zip(FIELDS, (*row[:4], lang, kind, dataset, row[4]), strict=True))
        for row in EXPECTED[dataset]
    ]
    assert all(list(row) == FIELDS for row in rows)


@pytest.mark.parametrize("source", convert.SOURCES, ids=lambda source: str(source.clone))
def test_a_missing_clone_is_one_message_and_nothing_is_written(
    clones: Path, tmp_path: Path, source: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (clones / source.clone).rename(tmp_path / "elsewhere")
    assert run(clones, tmp_path / "data") == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {clones / source.clone} is not a folder; ")
    assert message.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_a_missing_folder_of_clones_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "none", tmp_path / "data") == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        ("RuSentNE-evaluation/train_data.csv", None, "train_data.csv does not exist"),
        ("RuSentNE-evaluation/train_data.csv", "sentence\tentity\n", "has no column label"),
        ("RuSentNE-evaluation/train_data.csv", "sentence\tentity\tlabel\na\n", "row 0: 1 cells"),
        ("3dev-taglish-review-analyzer/FiReCS.csv", "", "has no column review, label"),
        ("3dev-taglish-review-analyzer/FiReCS.csv", "review,label\na,5\n", "unknown label '5'"),
        ("3dev-taglish-review-analyzer/FiReCS.csv", f"review,label\n{'a' * 200_000},2.0\n",
         "FiReCS.csv, line 2: field larger"),
        ("sentiment-elecciones/data/dataset.json", "[", "dataset.json is not JSON"),
        ("sentiment-elecciones/data/dataset.json", '[{"id": 1}]', "headline 0 is not"),
        (f"NewsMTSC/{convert.NEWSMTSC}/train.jsonl", '{"targets": 1}\n', "train.jsonl, line 1 is"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_as_expected_is_one_message(
    *,
    clones: Path,
    tmp_path: Path,
    path: str,
    text: str | None,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if text is None:
        (clones / path).unlink()
    else:
        write(clones / path, text)
    assert run(clones, tmp_path / "data") == 2
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1


@pytest.mark.public_data
@pytest.mark.skipif(
    not os.environ.get("SLANT_PUBLIC_DATA"),
    reason="SLANT_PUBLIC_DATA is not set; examples/public/README.md says how to get the data",
)
def test_the_public_sets_have_the_expected_form() -> None:
    for dataset, (lang, kind) in DATASETS.items():
        rows = rows_of(Path(os.environ["SLANT_PUBLIC_DATA"]), dataset)
        assert len(rows) > 1000
        assert len({row["id"] for row in rows}) == len(rows)
        for row in rows:
            assert list(row) == FIELDS
            assert (row["lang"], row["source"], row["dataset"]) == (lang, kind, dataset)
            assert row["label"] in {"negative", "neutral", "positive"}
            assert row["text"]
            assert (row["target"] is None) == (dataset == "tl_firecs")
