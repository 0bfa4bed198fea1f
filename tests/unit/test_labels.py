import pytest

from slant.errors import TaskError
from slant.labels import LabelSet

LABELS = LabelSet(["negative", "neutral", "positive"])


def test_the_position_of_a_label_is_the_one_it_was_given_in():
    assert [LABELS.index(name) for name in LABELS] == [0, 1, 2]
    assert [LABELS[i] for i in range(len(LABELS))] == ["negative", "neutral", "positive"]
    assert LABELS.names == ("negative", "neutral", "positive")


def test_an_unknown_label_is_an_error_that_names_the_closest_one_and_all_of_them():
    with pytest.raises(TaskError, match=r"'positiv'; did you mean 'positive'\?") as raised:
        LABELS.index("positiv")
    assert "negative, neutral, positive" in raised.value.hint
    assert "positiv" not in LABELS
    assert "neutral" in LABELS


@pytest.mark.parametrize("names", [[], ["one"], ["a", "a"], ["a", ""]])
def test_labels_must_be_two_or_more_different_and_not_empty(names):
    with pytest.raises(TaskError, match="label"):
        LabelSet(names)


def test_order_is_part_of_equality():
    assert LabelSet(["a", "b"]) == LabelSet(iter(["a", "b"]))
    assert hash(LabelSet(["a", "b"])) == hash(LabelSet(["a", "b"]))
    assert LabelSet(["a", "b"]) != LabelSet(["b", "a"])
    assert LABELS != ("negative", "neutral", "positive")
    assert repr(LabelSet(["a", "b"])) == "LabelSet(['a', 'b'])"
