import pytest

from slant.errors import TaskError
from slant.task.template import Template

TEMPLATE = Template("D: {document}\nN: {narrative}\nA:", "D: {document}\nOverall:")


def test_document_narrative_and_cue_come_in_this_order():
    assert TEMPLATE.render("The text.", "the bridge") == "D: The text.\nN: the bridge\nA:"


@pytest.mark.parametrize("narrative", [None, "", " \n\t"])
def test_no_narrative_or_an_empty_one_asks_for_overall_sentiment(narrative):
    assert TEMPLATE.render("The text.", narrative) == "D: The text.\nOverall:"


def test_white_space_around_the_texts_is_dropped_and_within_them_kept():
    assert TEMPLATE.render("\n a  b\n", "\tc  d ") == "D: a  b\nN: c  d\nA:"


def test_placeholders_and_braces_in_the_texts_stay_as_they_are():
    prompt = TEMPLATE.render("{narrative} {document} {0} {{x}}", "{document} {narrative} }{")
    assert prompt == "D: {narrative} {document} {0} {{x}}\nN: {document} {narrative} }{\nA:"
    assert TEMPLATE.render("{document}", None) == "D: {document}\nOverall:"


@pytest.mark.parametrize(
    ("prompt", "overall"),
    [
        ("{narrative} {document}", "{document}"),
        ("{document}", "{document}"),
        ("{narrative}", "{document}"),
        ("{document} {narrative} {document}", "{document}"),
        ("{document} {narrative} {narrative}", "{document}"),
        ("{document} {narrative}", "nothing"),
        ("{document} {narrative}", "{document} {document}"),
        ("{document} {narrative}", "{document} {narrative}"),
    ],
)
def test_a_wording_that_would_lose_or_repeat_a_text_is_refused(prompt, overall):
    with pytest.raises(TaskError, match=r"the prompt.* \{(document|narrative)\}"):
        Template(prompt, overall)


def test_a_text_is_normalised_when_it_is_asked_about_as_it_was_when_it_was_ingested() -> None:
    decomposed, composed = "cafe\u0301\r\nok\x00", "caf\u00e9\nok"
    assert TEMPLATE.render(decomposed, decomposed) == TEMPLATE.render(composed, composed)
