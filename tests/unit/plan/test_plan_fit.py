from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slant.config.settings import ProjectSettings
from slant.errors import ModelError, UsageError
from slant.model.flops import Shape
from slant.plan.cards import CARDS, Card, find_card
from slant.plan.fit import advice, check_fit, load_of, refusal, verdict
from slant.plan.memory import Load, training_memory
from slant.plan.shapes import PUBLISHED
from slant.progress import SilentProgress
from tiny_stages import tiny_config, tiny_settings

MISTRAL = Load(Shape.from_config(PUBLISHED["mistralai/Mistral-7B-v0.3"]), "tune")
A10 = CARDS["a10"]
SHARP = replace(MISTRAL, pass_tokens=8192, row_tokens=2048)


class Heard(SilentProgress):  # type: ignore[misc] # final, and this is a test
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def settings(**sections: Any) -> ProjectSettings:
    return tiny_settings(**{"model": {"dtype": "bfloat16"}, **sections})


def test_a_7b_model_in_16_bits_does_not_fit_an_a10_and_in_4_bits_does() -> None:
    assert verdict(SHARP, A10) == "does not fit"
    assert verdict(replace(SHARP, quantized=True, checkpointing=True), A10) == "fits"
    assert verdict(SHARP, CARDS["h200"]) == "fits"
    # The bar of the project: 2,048-token rows under 22 GiB, in bfloat16 and in NF4.
    row = replace(SHARP, pass_tokens=2048, checkpointing=True)
    for load in (row, replace(row, quantized=True)):
        assert training_memory(load).total < 22 << 30


def test_above_nine_tenths_is_tight() -> None:
    total = training_memory(MISTRAL).total
    for share, expected in ((1.01, "does not fit"), (0.95, "tight"), (0.85, "fits")):
        card = replace(A10, memory_bytes=int(total / share))
        assert verdict(MISTRAL, card) == expected


def test_advice_names_every_single_change_that_is_enough() -> None:
    assert advice(SHARP, A10)[0].startswith("train.activation_checkpointing: true (")
    wide = replace(SHARP, quantized=True, row_tokens=512)
    assert any(line.startswith("tune.tokens_per_batch: 1024 (") for line in advice(wide, A10))
    full = replace(SHARP, method="full", checkpointing=True)
    assert any(line.startswith("tune.method: lora (") for line in advice(full, A10))
    h100 = advice(full, CARDS["h100"])
    assert any(line.startswith("train: {devices: 2, strategy: fsdp} (") for line in h100)


def test_nothing_is_advised_where_nothing_helps() -> None:
    small = replace(A10, memory_bytes=1 << 30)
    assert advice(SHARP, small) == []
    error = refusal(SHARP, small)
    assert "a smaller task.token_limit" in error.hint
    assert "shard.sequence_tokens" in refusal(replace(SHARP, stage="adapt"), small).hint


@given(
    st.sampled_from(sorted(CARDS)),
    st.sampled_from(sorted(PUBLISHED)),
    st.sampled_from(["lora", "full"]),
    st.integers(256, 65536),
    st.booleans(),
)
def test_advice_keeps_its_word(
    card: str, base: str, method: Any, tokens: int, checkpointing: bool
) -> None:
    load = Load(
        Shape.from_config(PUBLISHED[base]),
        "tune",
        method=method,
        pass_tokens=tokens,
        row_tokens=256,
        checkpointing=checkpointing,
    )
    for line in advice(load, CARDS[card]):
        gib = float(line.rpartition("(")[2].removesuffix(" GiB)"))
        assert gib * (1 << 30) <= 0.9 * CARDS[card].memory_bytes + (1 << 30) // 10


def test_the_refusal_says_what_is_needed_what_is_there_and_what_to_change() -> None:
    error = refusal(SHARP, A10)
    assert "tune does not fit NVIDIA A10 24 GB: a pass of 8,192 tokens takes" in error.message
    assert "22.5 GiB are there" in error.message
    assert error.hint.startswith("It would fit with train.activation_checkpointing: true (")


def test_a_load_follows_the_settings() -> None:
    project = settings(
        train={"devices": 2, "strategy": "fsdp", "activation_checkpointing": True},
        tune={"tokens_per_batch": 64},
    )
    shape = Shape.from_config(tiny_config("mistral").to_dict())
    tune = load_of(project, "tune", shape, A10)
    assert (tune.pass_tokens, tune.row_tokens) == (200, 200)  # a row is never cut
    assert (tune.devices, tune.sharded, tune.checkpointing) == (2, True, True)
    assert (tune.rank, tune.has_dropout, tune.half, tune.cuda) == (4, True, True, True)
    adapt = load_of(project, "adapt", shape, find_card("cpu"))
    assert (adapt.row_tokens, adapt.cuda) == (96, False)
    assert load_of(settings(model={"dtype": "auto"}), "tune", shape, A10).half


def test_processes_share_main_memory_and_not_that_of_a_gpu() -> None:
    cpu = replace(find_card("cpu"), memory_bytes=64 << 30)
    two = replace(MISTRAL, devices=2, cuda=False)
    assert verdict(replace(two, devices=1), cpu) == "fits"
    assert verdict(two, cpu) == "does not fit"


def tiny_folder(tmp_path: Path) -> Path:
    tiny_config("mistral").save_pretrained(tmp_path)
    return tmp_path


def card_of(memory_bytes: float) -> Card:
    return replace(A10, memory_bytes=int(memory_bytes))


def test_a_training_that_cannot_fit_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    base = tiny_folder(tmp_path)
    load = load_of(settings(), "tune", Shape.from_config(tiny_config("mistral").to_dict()), A10)
    least, most = training_memory(load.smallest).total, training_memory(load).total
    assert least < most
    heard = Heard()
    with pytest.raises(ModelError, match="tune does not fit"):
        check_fit(settings(), "tune", base, heard, card=card_of(least / 1.2))
    assert heard.lines == []
    # By less than the estimate may be wrong, it is tried.
    check_fit(settings(), "tune", base, heard, card=card_of(least / 1.05))
    assert "go on with smaller passes" in heard.lines.pop()
    check_fit(settings(), "tune", base, heard, card=card_of(most / 0.95))
    assert heard.lines.pop().startswith("tune may run out of memory: about ")
    check_fit(settings(), "tune", base, heard, card=card_of(2 * most))
    assert heard.lines == []


def test_a_model_of_an_unknown_family_is_not_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "new"}', "utf-8")
    check_fit(settings(), "adapt", tmp_path, SilentProgress(), card=card_of(1))


def test_this_machine_is_known_without_being_named(tmp_path: Path) -> None:
    cpu = find_card("cpu")
    assert (cpu.name, cpu.is_here, cpu.is_gpu) == ("cpu", True, False)
    assert cpu.memory_bytes > 1 << 28
    assert find_card("auto").is_here
    check_fit(settings(), "tune", tiny_folder(tmp_path), SilentProgress())


def test_a_misspelt_card_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no card 'a100-400'; did you mean 'a100-40'"):
        find_card("a100-400")


def test_every_card_names_its_source_and_has_less_than_is_printed_on_it() -> None:
    for card in CARDS.values():
        assert "data sheet" in card.source
        printed = int(card.title.split()[-2])
        assert card.memory_bytes < printed << 30 or card.name.startswith("a100")
        assert card.half_flops is not None
        assert card.single_flops is not None
        assert card.half_flops > card.single_flops
