from __future__ import annotations

import json
from pathlib import Path

import pytest
from jinja2.exceptions import TemplateError
from transformers import AutoTokenizer

from slant.export.chat_template import CHAT_TEMPLATE_FILE, write_chat_template
from tiny_stages import save_base
from tiny_task import TEMPLATE, tiny_spec

MESSAGES = [
    {"role": "document", "content": " Мост\r\nрухнул. "},
    {"role": "narrative", "content": "the bridge"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tokenizer that comes with templates of another conversation, in every place there is."""
    save_base(tmp_path, chat_template="{{ 'another' }}")
    config = tmp_path / "tokenizer_config.json"
    content = json.loads(config.read_text("utf-8"))
    config.write_text(json.dumps({**content, "chat_template": "{{ 'a third' }}"}), "utf-8")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("{{ 'tools' }}")
    return tmp_path


def test_the_tasks_template_takes_the_place_of_all_others(folder: Path) -> None:
    loaded = AutoTokenizer.from_pretrained(folder)
    assert "tool_use" in loaded.chat_template
    before = (folder / "tokenizer.json").read_bytes()
    write_chat_template(folder, tiny_spec())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == (folder / CHAT_TEMPLATE_FILE).read_text("utf-8")
    rendered = tokenizer.apply_chat_template(MESSAGES, tokenize=False)
    assert rendered == TEMPLATE.render(" Мост\nрухнул. ", "the bridge")
    assert "chat_template" not in json.loads((folder / "tokenizer_config.json").read_text())
    assert (folder / "tokenizer.json").read_bytes() == before


def test_writing_it_twice_changes_nothing(folder: Path) -> None:
    write_chat_template(folder, tiny_spec())
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    write_chat_template(folder, tiny_spec())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_a_narrative_that_says_nothing_is_the_overall_prompt(
    content: str | None, folder: Path
) -> None:
    write_chat_template(folder, tiny_spec())
    asked = [MESSAGES[0], {"role": "narrative", "content": content}]
    rendered = AutoTokenizer.from_pretrained(folder).apply_chat_template(asked, tokenize=False)
    assert rendered == "Мост\nрухнул.\n\nOverall sentiment:"


def test_another_role_is_refused_and_not_passed_over(folder: Path) -> None:
    write_chat_template(folder, tiny_spec())
    with pytest.raises(TemplateError, match="the roles are document and narrative, not user"):
        AutoTokenizer.from_pretrained(folder).apply_chat_template(
            [{"role": "user", "content": "x"}], tokenize=False
        )
