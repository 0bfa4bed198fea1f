"""That training visits samples in the order that the settings ask for."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from slant.config.training_settings import AdaptSettings, TuneSettings
from slant.shards.order import epoch_order, length_bucketed_steps
from slant.shards.reader import ShardReader
from slant.shards.writer import ShardWriter
from slant.train.parallel import World
from slant.train.schedule import AdaptSchedule, Examples, TuneSchedule
from slant.train.shard import ADAPT_COLUMNS, TUNE_COLUMNS
from slant.train.targets import target_distribution

LANGS = ["en"] * 64 + ["tl"] * 16


def tune_steps(folder: Path, **settings: float) -> list[list[int]]:
    """The examples of each step, by their numbers."""
    with ShardWriter(folder, TUNE_COLUMNS) as writer:
        for i, lang in enumerate(LANGS):
            writer.write(
                {
                    "document_id": f"d{i}",
                    "input_ids": np.array([i, *[1] * (i % 5)], dtype=np.int32),
                    "label": i % 3,
                    "lang": lang,
                    "narrative_id": "",
                    "shares": np.array([], dtype=np.float32),
                }
            )
    data = Examples.read(ShardReader(folder), num_labels=3)
    section = TuneSettings.model_validate({"epochs": 3, "examples_per_step": 16, **settings})
    targets, weights = target_distribution(data.labels, 3)
    schedule = TuneSchedule(data, targets, weights, section, seed=17, pad_token_id=0)
    return [
        [int(name[1:]) for batch in schedule.passes(step, World(), 64) for name in batch.names]
        for step in range(schedule.num_steps)
    ]


def adapt_rows(folder: Path, **settings: float) -> list[int]:
    """The packed rows in the order in which they are visited, told apart by their first token."""
    for lang in ("en", "tl"):
        with ShardWriter(folder / lang, ADAPT_COLUMNS) as writer:
            for i, of_row in enumerate(LANGS):
                if of_row == lang:
                    tokens = np.array([i, 1, 2, 3], dtype=np.int32)
                    writer.write({"tokens": tokens, "lengths": np.array([4], dtype=np.int32)})
    section = AdaptSettings.model_validate({"epochs": 3, "tokens_per_step": 32, **settings})
    readers = [ShardReader(folder / lang) for lang in ("en", "tl")]
    schedule = AdaptSchedule(readers, section, seed=17, pad_token_id=0)
    batches = (b for step in range(schedule.num_steps) for b in schedule.passes(step, World(), 8))
    return [int(row[0]) for batch in batches for row in batch.input_ids]


def test_tuning_visits_every_example_once_an_epoch_by_default(tmp_path):
    lengths = np.array([1 + i % 5 for i in range(80)])
    plain = [step for e in range(3) for step in length_bucketed_steps(lengths, 17, e, 16)]
    assert [set(step) for step in tune_steps(tmp_path)] == [set(step.tolist()) for step in plain]


def test_tuning_draws_languages_by_temperature(tmp_path):
    steps = tune_steps(tmp_path, language_temperature=2.0)
    visits = Counter(i for step in steps for i in step)
    # 80 · 8 / (8 + 4) = 53 and 27 an epoch, in place of 64 and 16.
    assert sum(visits[i] for i in range(64)) == 3 * 53
    assert {visits[i] for i in range(64)} == {2, 3}
    assert {visits[i] for i in range(64, 80)} == {5, 6}


def test_adaptation_visits_every_row_once_an_epoch_by_default(tmp_path):
    expected = [i for epoch in range(3) for i in epoch_order(80, 17, epoch).tolist()]
    assert adapt_rows(tmp_path) == expected


def test_adaptation_draws_languages_by_temperature(tmp_path):
    visits = Counter(adapt_rows(tmp_path, language_temperature=2.0))
    assert sum(visits[i] for i in range(64)) == 3 * 53
    assert {visits[i] for i in range(64, 80)} == {5, 6}


@pytest.mark.parametrize("section", [AdaptSettings, TuneSettings])
def test_a_temperature_below_one_is_no_setting(section):
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        section(language_temperature=0.5)
