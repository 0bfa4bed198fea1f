from __future__ import annotations

import subprocess
import sys
import time

import pytest

from slant.task.passages import choose_passages, join_passages, passage_spans, relatedness

SCRIPTS = {
    "english": "The council met on Monday. It rained all day! Did they discuss it? Nobody knows.",
    "russian": "Совет собрался в понедельник. Весь день шёл дождь! О чём спорили? Никто не знает.",
    "chinese": (
        "市议会于星期一举行了漫长的会议并且没有结果。整天都在下雨所以没有人愿意出门去看看！"
        "有没有讨论过那座新建的大桥的事情呢？没有人知道。"
    ),
    "arabic": "اجتمع المجلس يوم الاثنين. هل ناقشوا الجسر الجديد؟ لا أحد يعرف الجواب.",
    "hindi": "परिषद की बैठक सोमवार को हुई। क्या पुल पर चर्चा हुई? कोई नहीं जानता।",
    "thai": "สภาเมืองประชุมกันเมื่อวันจันทร์ที่ผ่านมา ฝนตกตลอดทั้งวัน ไม่มีใครรู้ว่ามีการพูดถึงสะพานใหม่หรือไม่",
}


def pieces(text: str, longest: int = 300) -> list[str]:
    return [text[start:end] for start, end in passage_spans(text, longest)]


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("longest", [12, 40, 300])
def test_passages_cover_a_text_of_any_script_without_gaps_and_are_bounded(name, longest):
    text = SCRIPTS[name] * 5
    found = pieces(text, longest)
    assert "".join(found) == text
    assert all(found)
    # White space after a passage does not count.
    assert all(len(piece.strip()) <= longest for piece in found)


@pytest.mark.parametrize("name", ["english", "russian", "chinese"])
def test_passages_end_where_sentences_do(name):
    found = pieces(SCRIPTS[name])
    assert len(found) >= 3
    assert all(piece.strip()[-1] in ".!?。！？" for piece in found)


def test_a_point_within_a_number_or_an_address_ends_nothing():
    text = (
        "It grew by 3.5 percent according to www.example.org, they said on that day. So it goes on."
    )
    assert pieces(text)[0].endswith("that day. ")


def test_very_short_sentences_stay_with_what_follows_them():
    assert pieces("No. Never. We asked Dr. Smith about all of it.")[0].startswith("No. Never. ")


def test_a_long_sentence_is_cut_after_a_space_or_a_pause():
    text = "word " * 100 + "子，" * 100
    assert all(piece[-1] in " ，" for piece in pieces(text, 50))


def test_a_vowel_sign_stays_with_its_letter():
    text = "กำ" * 200 + "กี่" * 200
    assert all(piece[0] == "ก" or piece[0] == "ำ" for piece in pieces(text, 31))


def test_an_empty_text_has_no_passages_and_blank_lines_make_none():
    assert pieces("") == []
    assert pieces("a\n\n\n\nb") == ["a\n\n\n\nb"]


@pytest.mark.parametrize(
    "text", ["a" * 10**6, "." * 10**6, " " * 10**6, "\n" * 10**6, "。" * 10**6, ". " * 500_000]
)
def test_a_million_characters_of_anything_take_about_a_second(text):
    started = time.process_time()
    found = [text[start:end] for start, end in passage_spans(text)]
    relatedness(found, "the bridge")
    assert time.process_time() - started < 5
    assert "".join(found) == text


@pytest.mark.parametrize(
    ("passages", "narrative"),
    [
        (["The rain fell.", "The NEW Bridge opened.", "The sun shone."], "the new bridge"),
        (["Шёл дождь.", "Открыт новый мост.", "Светило солнце."], "НОВЫЙ МОСТ"),
        (["整天都在下雨", "人们说新桥很好", "太阳出来了"], "新桥"),
        (["ฝนตกตลอดทั้งวัน", "เมืองเปิดสะพานใหม่แล้ว", "พระอาทิตย์ส่องแสง"], "สะพานใหม่"),
        (["نزل المطر طوال اليوم", "افتتح الجسر الجديد", "أشرقت الشمس"], "الجسر الجديد"),
        (["It is Europe.", "The EU said no.", "A neutral euphemism."], "EU"),
        (["Nothing here.", "Ｂｒｉｄｇｅ in full width", "Nor here."], "bridge"),
    ],
)
def test_the_passage_that_names_the_narrative_is_the_most_related(passages, narrative):
    scores = relatedness(passages, narrative)
    assert max(scores) == scores[1]
    assert scores[1] > max(scores[0], scores[2])


def test_what_every_passage_has_counts_for_nothing():
    assert relatedness(["the bridge"] * 3, "the bridge") == [0.0, 0.0, 0.0]
    assert relatedness(["abc", "def"], "") == [0.0, 0.0]
    assert relatedness(["abc", "def"], "?!") == [0.0, 0.0]
    assert relatedness([], "x") == []


def test_the_numbers_are_the_same_in_every_process():
    code = (
        "from slant.task.passages import relatedness\n"
        "text = 'the mayor opened a new bridge over the wide river in the old town'.split()\n"
        "print(relatedness([' '.join(text[i:i + 4]) for i in range(9)], 'new bridge in town'))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_the_most_related_come_first_then_those_from_the_beginning():
    scores, costs = [0.0, 0.0, 1.0, 0.0, 2.0, 0.0], [5] * 6
    assert choose_passages(scores, costs, gap_cost=0, room=20) == [4, 2, 0, 1]


def test_ties_go_by_position():
    assert choose_passages([0.0, 1.0, 0.0, 1.0, 0.0, 1.0], [5] * 6, 0, 10) == [1, 3]


def test_a_passage_that_does_not_fit_makes_way_for_the_next():
    assert choose_passages([0.0, 2.0, 0.0, 1.0], [9, 50, 9, 5], 0, 8) == [3]


def test_markers_are_paid_for_and_closing_a_gap_gives_them_back():
    costs = [10, 10, 10, 10, 10]
    # One marker is paid for already: a passage in the middle makes a second gap.
    assert choose_passages([0, 0, 1.0, 0, 0], costs, gap_cost=3, room=12) == []
    assert choose_passages([0, 0, 1.0, 0, 0], costs, gap_cost=3, room=13) == [2]
    # The first joins the beginning and the second passage closes the gap between.
    assert choose_passages([0, 0, 1.0, 0, 0], costs, gap_cost=3, room=30) == [2, 0, 1]


def test_where_nothing_is_related_nothing_is_chosen():
    assert choose_passages([0.0, 0.0], [1, 1], 1, 100) == []
    assert choose_passages([], [], 1, 100) == []


def test_chosen_passages_stand_in_the_order_of_the_text_with_markers_between():
    text = "One. Two. Three. Four. Five."
    spans = [(0, 5), (5, 10), (10, 17), (17, 23), (23, 28)]
    assert join_passages(text, spans, [3, 0, 1], " … ") == "One. Two. … Four. … "
    assert join_passages(text, spans, [4, 2], " … ") == " … Three. … Five."
    assert join_passages(text, spans, range(5), " … ") == text


def test_a_narrative_of_a_single_letter_is_found_in_a_text_without_spaces():
    passages = ["今天下雨了。", "新桥很好。", "人们在说话。"]
    found = relatedness(passages, "桥")
    assert found[1] > 0
    assert found[0] == found[2] == 0
    assert relatedness(passages, "!") == [0, 0, 0]
