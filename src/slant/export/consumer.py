"""What a program without slant gets from exported folders: texts in, probabilities out.

    python -m slant.export.consumer JOB ANSWERS

reads the folders that the JSON file ``JOB`` names and writes what they answer to ``ANSWERS``. It
runs in a process of its own and takes nothing from slant, so that what it finds is the folders'
own doing: prompt (chat template), tokenizer, padding, weights, pooling, head, names of the labels.

A job holds
    labels, label_ids, temperature   in label order; the last two are not used for classifiers
    texts                            [document, narrative or null] of each probe
    sample                           places of the probes that are asked in every way
    folders                          [{"format", "path", "base"}]; the base of an adapter

and the answers, for each format, ``reader``, ``dtype``, ``problems`` (weights that are missing, or
that found no place) and ``ways``: name → places and ``(N, L)`` probabilities; or else ``error``.

Ways: ``left`` and ``right`` are the sides of padding in a batch, ``single`` is one by one,
``pipeline`` is ``pipeline("text-classification")``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["GPU_ROOM", "answer"]

_CLASSIFIERS = ("classifier", "int8")
_BATCH = 2
"""Rows of a batch in which short prompts and long ones meet: the long one fills the other up."""
_TOKENS = {"cpu": 1024, "cuda": 16_384}
"""Tokens in a batch of prompts of about equal length, padding included."""
GPU_ROOM = 1.3
"""Memory that a model takes, by the size of its weights."""


@dataclass
class _Reader:
    """A folder as it was loaded: float32, whatever its weights are kept in.

    ``logits`` takes what the tokenizer gave and returns ``(N, L)`` whose softmax is wanted.
    """

    kind: str
    dtype: str
    tokenizer: Any
    model: Any
    problems: list[str]
    logits: Callable[[Any], Any]

    @property
    def is_relative(self) -> bool:
        """Whether places are told by rotation, so that padding on the left moves nothing."""
        config = self.model.config.get_text_config()
        return getattr(config, "rope_parameters", None) is not None


def answer(job: Mapping[str, Any]) -> dict[str, Any]:
    """What each folder of a job answers, by format."""
    found: dict[str, Any] = {}
    for folder in job["folders"]:
        try:
            found[folder["format"]] = _ask_folder(job, folder)
        except Exception as error:  # a damaged folder breaks its reader in any way
            found[folder["format"]] = {"error": f"{type(error).__name__}: {error}"}
    return found


def _ask_folder(job: Mapping[str, Any], folder: Mapping[str, Any]) -> dict[str, Any]:
    from transformers import __version__

    classifies, path = folder["format"] in _CLASSIFIERS, Path(folder["path"])
    if classifies:
        reader = _read_classifier(path, job)
    elif folder["format"] == "adapter":
        reader = _read_adapter(path, Path(folder["base"]), job)
    else:
        reader = _read_causal_lm(path, job)
    prompts = [_prompt(reader.tokenizer, *text) for text in job["texts"]]
    sides = ("right", "left") if classifies or not reader.is_relative else ("left", "right")
    batches = list(_by_length(reader, prompts))
    ways = {sides[0]: ([*range(len(prompts))], _ask(reader, prompts, batches, sides[0]))}
    sample = list(job["sample"])
    some = [prompts[place] for place in sample]
    if reader.is_relative:
        ways[sides[1]] = (sample, _ask(reader, some, _in_order(len(some), _BATCH), sides[1]))
    ways["single"] = (sample, _ask(reader, some, _in_order(len(some), 1)))
    if classifies:
        ways["pipeline"] = (sample, _ask_pipeline(reader, some, job["labels"]))
    return {
        "reader": f"transformers {__version__}, {reader.kind}",
        "dtype": reader.dtype,
        "problems": reader.problems,
        "ways": {
            name: {"places": places, "probabilities": rows} for name, (places, rows) in ways.items()
        },
    }


def _prompt(tokenizer: Any, document: str, narrative: str | None) -> str:
    messages = [{"role": "document", "content": document}]
    if narrative is not None:
        messages.append({"role": "narrative", "content": narrative})
    return str(tokenizer.apply_chat_template(messages, tokenize=False))


def _load(auto: Any, path: Path, *, in_4_bits: bool = False) -> tuple[Any, list[str]]:
    """The model of a folder, and what is odd about its weights."""
    import torch

    options = {"quantization_config": _nf4()} if in_4_bits else {}
    model, info = auto.from_pretrained(
        path,
        dtype=torch.float32,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
        **options,
    )
    for module in model.modules():
        # bitsandbytes would pack 4-bit weights anew at the first pass, and round their scales.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    model.eval()
    if torch.cuda.is_available():
        size = sum(param.nbytes for param in model.parameters())
        if size * GPU_ROOM < torch.cuda.mem_get_info()[0]:
            model.to("cuda")
    # transformers fills what is missing with random numbers and goes on.
    problems = [
        f"{kind} {name}"
        for kind in ("missing", "unexpected", "mismatched")
        for name in sorted(map(str, info[f"{kind}_keys"]))
    ]
    return model, problems


def _nf4() -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )


def _load_tokenizer(path: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)


def _stored_dtype(path: Path) -> str:
    config = json.loads((path / "config.json").read_text("utf-8"))
    return str(config.get("dtype", "float32"))


def _read_classifier(path: Path, job: Mapping[str, Any]) -> _Reader:
    from transformers import AutoModelForSequenceClassification as Auto

    model, problems = _load(Auto, path)
    names, places = model.config.id2label, model.config.label2id
    if sorted(names.values()) != sorted(job["labels"]):
        raise ValueError(f"its labels are {[*names.values()]}, not {list(job['labels'])}")
    if any(names[place] != name for name, place in places.items()):
        raise ValueError("id2label and label2id of its config.json contradict each other")
    columns = [places[label] for label in job["labels"]]
    return _Reader(
        Auto.__name__,
        _stored_dtype(path),
        _load_tokenizer(path),
        model,
        problems,
        lambda encoded: model(**encoded).logits[:, columns],
    )


def _read_causal_lm(path: Path, job: Mapping[str, Any]) -> _Reader:
    import torch
    from transformers import AutoModelForCausalLM as Auto

    model, problems = _load(Auto, path)
    label_ids = list(job["label_ids"])

    def logits(encoded: Any) -> Any:
        last = _last_places(encoded["attention_mask"])
        kept, column = last.unique(return_inverse=True)
        # The logits of a whole vocabulary at every place would fill the memory.
        full = model(**encoded, use_cache=False, logits_to_keep=kept).logits
        rows = torch.arange(len(last), device=last.device)
        return full[rows, column][:, label_ids] / job["temperature"]

    return _Reader(
        Auto.__name__, _stored_dtype(path), _load_tokenizer(path), model, problems, logits
    )


def _read_adapter(path: Path, base: Path, job: Mapping[str, Any]) -> _Reader:
    import torch
    from peft import PeftModel
    from peft import __version__ as peft_version
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM as Auto

    told = json.loads((path / "base.json").read_text("utf-8"))
    model, problems = _load(Auto, base, in_4_bits=told.get("quantize") == "nf4")
    PeftModel.from_pretrained(model, path).eval()  # changes the model in place
    head = model.get_output_embeddings()
    rows = {"rows": head.weight, "bias": getattr(head, "bias", None)}
    rows = {
        name: value[list(job["label_ids"])] for name, value in rows.items() if value is not None
    }
    if (path / "label_head.safetensors").is_file():
        rows = load_file(path / "label_head.safetensors", device=str(model.device))
    cap = getattr(model.config, "final_logit_softcapping", None)

    def logits(encoded: Any) -> Any:
        last = _last_places(encoded["attention_mask"])
        hidden = model.get_decoder()(**encoded, use_cache=False).last_hidden_state
        hidden = hidden[torch.arange(len(last), device=last.device), last]
        found = hidden @ rows["rows"].T + rows.get("bias", 0)
        return (cap * torch.tanh(found / cap) if cap else found) / job["temperature"]

    kind = f"{Auto.__name__} with peft {peft_version}"
    return _Reader(kind, "float32", _load_tokenizer(path), model, problems, logits)


def _last_places(attention_mask: Any) -> Any:
    """``(N,)``: the place of the last token that is no padding."""
    import torch

    places = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    return (attention_mask * places).argmax(dim=1)


def _ask(
    reader: _Reader, prompts: Sequence[str], batches: Sequence[Sequence[int]], side: str = ""
) -> list[list[float]]:
    """``(N, L)`` probabilities of prompts, which are batched by their places."""
    import torch

    options: dict[str, Any] = {"padding": True, "padding_side": side} if side else {}
    found: list[list[float]] = [[] for _ in prompts]
    for places in batches:
        texts = [prompts[place] for place in places]
        encoded = reader.tokenizer(texts, return_tensors="pt", **options).to(reader.model.device)
        with torch.inference_mode():
            rows = reader.logits(encoded).double().softmax(dim=-1).tolist()
        for place, row in zip(places, rows, strict=True):
            found[place] = row
    return found


def _ask_pipeline(
    reader: _Reader, prompts: Sequence[str], labels: Sequence[str]
) -> list[list[float]]:
    from transformers import pipeline

    classify = pipeline(
        "text-classification", model=reader.model, tokenizer=reader.tokenizer, top_k=None
    )
    outcomes = classify(list(prompts), batch_size=_BATCH)
    scores = [{entry["label"]: float(entry["score"]) for entry in entries} for entries in outcomes]
    return [[of_prompt[label] for label in labels] for of_prompt in scores]


def _by_length(reader: _Reader, prompts: Sequence[str]) -> Iterator[list[int]]:
    """Batches of prompts of about equal length, by their places."""
    lengths = [len(ids) for ids in reader.tokenizer(list(prompts))["input_ids"]]
    limit, batch = _TOKENS.get(reader.model.device.type, 1024), list[int]()
    for place in sorted(range(len(prompts)), key=lambda place: (lengths[place], place)):
        if batch and (len(batch) + 1) * lengths[place] > limit:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _in_order(count: int, rows: int) -> list[list[int]]:
    return [list(range(start, min(start + rows, count))) for start in range(0, count, rows)]


def main(job: str, answers: str) -> None:
    """Answer a job; the libraries keep quiet."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    found = answer(json.loads(Path(job).read_text("utf-8")))
    Path(answers).write_text(json.dumps(found), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
