"""Models as other programs leave them, and what transformers answers with them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from slant.artifacts import Artifact
from slant.export.consumer import answer
from slant.export.import_model import import_model
from slant.model.base import quiet_transformers
from slant.score.scorer import Scorer
from tiny import tiny_tokenizer
from tiny_stages import tiny_config

TEXTS = ["The bridge is a ruin.", "新桥令人高兴", "Мост открыт <eos>"]
NAMES = ("Negative", "Neutral", "Positive")


def imported(source: Path, bundle: Path, **options: Any) -> Artifact:
    """The proof is made in this process; one test has it made in a fresh one."""
    few = {"parity_examples": 8, "token_limit": 128, "ask": answer}
    return import_model(source, bundle, **{**few, **options})


def save_tokenizer(folder: Path, tokenizer: Tokenizer | None = None) -> None:
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer or tiny_tokenizer(),
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
    ).save_pretrained(folder)


def save_classifier(
    folder: Path, family: str = "mistral", *, names: Sequence[str] = NAMES, **changes: Any
) -> Path:
    """A classifier as transformers' Trainer leaves one."""
    from transformers import AutoModelForSequenceClassification

    config = tiny_config(family)
    config.num_labels = len(names)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: row for row, name in enumerate(names)}
    for name, value in changes.items():
        setattr(config, name, value)
    with torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(3)
        model = AutoModelForSequenceClassification.from_config(config)
        model.to(changes.get("dtype", torch.float32)).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_lora(folder: Path, base: Path, task: str, **options: Any) -> Path:
    """An adapter as PEFT leaves one, with weights that do something."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    auto = AutoModelForCausalLM if task == "CAUSAL_LM" else AutoModelForSequenceClassification
    changes = {} if task == "CAUSAL_LM" else {"num_labels": 3}
    with torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(4)
        model = auto.from_pretrained(base, **changes)
        config = LoraConfig(task_type=task, r=4, target_modules=["q_proj", "v_proj"], **options)
        adapted = get_peft_model(model, config)
        for name, param in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(param, std=0.3)
        adapted.save_pretrained(folder)
    return folder


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


def asked_by_transformers(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """What a classifier answers, one text at a time, by transformers alone."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    with quiet_transformers():
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder, split_special_tokens=True)
    with torch.inference_mode():
        rows = [
            model.eval()(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0]
            for text in texts
        ]
    return torch.stack(rows).numpy()


def scored(bundle: Artifact, texts: Sequence[str]) -> np.ndarray:
    return Scorer.load(bundle.path, dtype="float32").predict_proba(list(texts))
