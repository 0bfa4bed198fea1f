"""The prompt as a chat template, for programs that know a tokenizer and not slant.

    messages = [{"role": "document", "content": …}, {"role": "narrative", "content": …}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False)

gives the text of ``Template.render``; without the second message, that of the overall prompt. The
template does all that ``normalise_text`` does but one thing: Jinja has no Unicode normalisation, so
texts must come in NFC. It gives the text alone: a tokenizer puts its BOS before it, as before any
text, in a call of its own. The form of such templates is that of transformers ("Chat templates").
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from slant.disk import write_atomically
from slant.task.spec import TaskSpec

__all__ = ["CHAT_TEMPLATE_FILE", "chat_template", "write_chat_template"]

CHAT_TEMPLATE_FILE = "chat_template.jinja"
_OTHERS = "additional_chat_templates"
# As in task.normalise, in the order in which it replaces them.
_LINE_ENDS = ("\r\n", "\r", "\x0b", "\x0c", "\x85")
_CONTROLS = "".join(map(chr, (*range(0x09), *range(0x0E, 0x20), *range(0x7F, 0xA0))))
_UNSAFE = str.maketrans(
    {"\\": "\\\\", "'": "\\'"}
    | {chr(code): f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
    | {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
    # Lines end here for some readers of text files.
    | {"\u2028": "\\u2028", "\u2029": "\\u2029"}
)

_TEMPLATE = """\
{{#- The prompt of a document and a narrative; see slant.json. Texts must be in Unicode NFC. -#}}
{{%- set texts = namespace(document='', narrative='') -%}}
{{%- for message in messages -%}}
{{%- set clean = namespace(text=message['content'] or '') -%}}
{{%- for line_end in [{line_ends}] -%}}
{{%- set clean.text = clean.text | replace(line_end, '\\n') -%}}
{{%- endfor -%}}
{{%- for control in {controls} -%}}
{{%- set clean.text = clean.text | replace(control, '') -%}}
{{%- endfor -%}}
{{%- if message['role'] == 'document' -%}}
{{%- set texts.document = clean.text | trim -%}}
{{%- elif message['role'] == 'narrative' -%}}
{{%- set texts.narrative = clean.text | trim -%}}
{{%- else -%}}
{{{{- raise_exception('the roles are document and narrative, not ' ~ message['role']) -}}}}
{{%- endif -%}}
{{%- endfor -%}}
{{%- if texts.narrative -%}}
{{{{- {before} ~ texts.document ~ {between} ~ texts.narrative ~ {after} -}}}}
{{%- else -%}}
{{{{- {overall_before} ~ texts.document ~ {overall_after} -}}}}
{{%- endif -%}}
"""


def chat_template(spec: TaskSpec) -> str:
    """The Jinja template of a task's prompt; see the module's text for what it takes and gives.

    A message of any other role is refused by the template.
    """
    before, _, rest = spec.template.prompt.partition("{document}")
    between, _, after = rest.partition("{narrative}")
    overall_before, _, overall_after = spec.template.prompt_overall.partition("{document}")
    return _TEMPLATE.format(
        line_ends=", ".join(map(_literal, _LINE_ENDS)),
        controls=_literal(_CONTROLS),
        before=_literal(before),
        between=_literal(between),
        after=_literal(after),
        overall_before=_literal(overall_before),
        overall_after=_literal(overall_after),
    )


def write_chat_template(folder: Path, spec: TaskSpec) -> None:
    """Make it the one chat template of the tokenizer in ``folder``.

    A base model's own templates go: they are those of another conversation, which the tuned model
    was not trained to have.
    """
    shutil.rmtree(folder / _OTHERS, ignore_errors=True)
    config = folder / "tokenizer_config.json"
    if config.is_file():
        content = json.loads(config.read_text("utf-8"))
        if content.pop("chat_template", None) is not None:
            write_atomically(config, json.dumps(content, ensure_ascii=False, indent=2) + "\n")
    write_atomically(folder / CHAT_TEMPLATE_FILE, chat_template(spec))


def _literal(text: str) -> str:
    """``text`` as a string of Jinja, on one line."""
    return f"'{text.translate(_UNSAFE)}'"
