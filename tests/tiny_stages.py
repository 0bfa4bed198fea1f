"""Small inputs for the stages: models of several architectures, an ingest artifact, settings.

Run as a program it is a worker for the fault tests: ``python tiny_stages.py tune ROOT OUT``.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slant.artifacts import Artifact, Recipe, build, digest_file, digest_json, load
from slant.config.settings import ProjectSettings
from slant.model.base import BaseModel, quiet_transformers
from slant.progress import SilentProgress
from slant.records import Document, Example, Narrative, write_jsonl, write_parquet
from tiny import BOS, PAD, tiny_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

EOS = 258
ARCHITECTURES = ("mistral", "mistral-sliding", "llama", "qwen3", "gemma3")
LABELS = ("negative", "neutral", "positive")


def tiny_config(architecture: str) -> Any:
    """A two-layer configuration; windows are shorter than the prompts of the tests."""
    from transformers import Gemma3TextConfig, LlamaConfig, MistralConfig, Qwen3Config

    common: dict[str, Any] = {
        "vocab_size": tiny_tokenizer().get_vocab_size(),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 1024,
        "bos_token_id": BOS,
        "pad_token_id": PAD,
        "eos_token_id": EOS,
        # Larger than usual, so that what a token sees makes a difference that a test can see.
        "initializer_range": 0.15,
    }
    if architecture == "mistral":
        return MistralConfig(**common, sliding_window=None)
    if architecture == "mistral-sliding":
        return MistralConfig(**common, sliding_window=8)
    if architecture == "llama":
        return LlamaConfig(**common)
    if architecture == "qwen3":
        return Qwen3Config(**common)
    assert architecture == "gemma3"
    return Gemma3TextConfig(
        **common,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"],
        query_pre_attn_scalar=8,
    )


def tiny_causal_lm(architecture: str, seed: int = 0) -> PreTrainedModel:
    """A random model in evaluation mode, float32."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(tiny_config(architecture)).eval()


def save_base(
    folder: Path, architecture: str = "mistral", *, seed: int = 0, **tokenizer_options: Any
) -> BaseModel:
    """Write a Hugging Face folder; ``pad_token=None`` makes it one without a padding token."""
    from transformers import PreTrainedTokenizerFast

    options = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    options |= tokenizer_options
    model = tiny_causal_lm(architecture, seed)
    if options["pad_token"] is None:
        model.config.pad_token_id = None
        model.generation_config.pad_token_id = None
    with quiet_transformers():
        model.save_pretrained(folder)
        fast = PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer(), **options)
        fast.save_pretrained(folder)
    names = ("model.safetensors", "config.json", "tokenizer.json")
    digest = digest_json({name: digest_file(folder / name) for name in names})
    return BaseModel(f"tiny/{architecture}", folder, digest)


# Language → what is praised or blamed, and three ways to speak of it, in label order.
_TEXTS = {
    "en": ("the new bridge", ("is a ruin and a shame", "opens on Monday", "is a joy to cross")),
    "es": ("el puente nuevo", ("es una vergüenza", "abre el lunes", "es una alegría")),
    "ru": ("новый мост", ("это позор и беда", "открывается в среду", "это радость города")),
    "zh": ("新桥", ("令人失望，十分糟糕", "将于周一开放", "令人高兴，非常漂亮")),
    "tl": ("ang bagong tulay", ("ay nakakahiya", "ay bubuksan sa Lunes", "ay nakakatuwa")),
}
_SPLITS = ("train",) * 6 + ("validation", "calibration", "test", "test")


def documents_and_examples() -> tuple[list[Document], list[Narrative], list[Example]]:
    """60 examples of 58 documents in five languages, and 22 documents without a label.

    One language code is missing, two documents are longer than a prompt may be, two documents stand
    under two narratives each, and every sixth example asks for the overall sentiment.
    """
    narratives = [Narrative(f"n-{lang}", subject) for lang, (subject, _) in _TEXTS.items()]
    documents: list[Document] = []
    examples: list[Example] = []
    for number in range(58):
        lang = list(_TEXTS)[number % 5]
        subject, ways = _TEXTS[lang]
        label = number % 3
        # Ten documents of a language; the split must not go with the label or the language.
        split = _SPLITS[(number // 5 + number) % len(_SPLITS)]
        text = f"{subject} {ways[label]}. № {number}"
        if number in (3, 7):
            text = " ".join([text] * 12)
        documents.append(
            _document(
                f"d-{number}",
                text,
                None if number == 11 else lang,
                ("news", "social", None)[number % 3],
            )
        )
        narrative = None if number % 6 == 5 else f"n-{lang}"
        rows = [(narrative, LABELS[label])]
        if number in (0, 1):
            rows.append(("n-zh", "neutral"))
        examples += [
            Example(f"d-{number}", narrative_id, gold, split, "invented", "invented.csv", 1)
            for narrative_id, gold in rows
        ]
    for number in range(22):
        lang = list(_TEXTS)[number % 5]
        subject, ways = _TEXTS[lang]
        text = f"{subject}: {number}. " + " ".join(ways) * (1 + number % 3)
        documents.append(_document(f"u-{number}", text, lang if number else None, "news"))
    return documents, narratives, examples


def _document(id_: str, text: str, lang: str | None, source: str | None) -> Document:
    digest = hashlib.sha256(text.casefold().encode()).hexdigest()
    return Document(id_, text, lang=lang, source=source, digest=digest)


def write_ingest(
    folder: Path,
    records: tuple[list[Document], list[Narrative], list[Example]] | None = None,
) -> Artifact:
    """What the ingest stage would have left."""
    documents, narratives, examples = records or documents_and_examples()
    with build(folder, Recipe("ingest", {}, {}, 0)) as builder:
        write_parquet(folder / "documents.parquet", Document, documents)
        write_jsonl(folder / "narratives.jsonl", narratives)
        write_parquet(folder / "examples.parquet", Example, examples)
        builder.facts["rejected"] = 0
    return load(folder, "ingest")


def tiny_settings(**sections: dict[str, Any] | None) -> ProjectSettings:
    """Settings that train for a second or two; a named section is laid over its default here."""
    content: dict[str, Any] = {
        "seed": 5,
        "ingest": {"examples": [{"path": "invented.csv"}]},
        "model": {"dtype": "float32"},
        "task": {"token_limit": 200},
        "shard": {"sequence_tokens": 96},
        "adapt": {
            "tokens_per_step": 192,
            "epochs": 2,
            "lora": {"rank": 4, "alpha": 8, "dropout": 0.1},
        },
        "tune": {
            "epochs": 3,
            "examples_per_step": 4,
            "tokens_per_batch": 512,
            "learning_rate": 5e-3,
            "lora": {"rank": 4, "alpha": 8, "dropout": 0.1},
        },
        "evaluate": {"bootstrap": 100, "latency_documents": 2},
        "export": {"parity_examples": 8},
    }
    for name, values in sections.items():
        content[name] = None if values is None else {**content.get(name, {}), **values}
    return ProjectSettings.model_validate(content)


def prepare(root: Path, architecture: str = "mistral", **sections: dict[str, Any] | None) -> None:
    """Fill ``root`` with ``ingest/``, ``base/``, ``shard/`` and the settings for ``stage``."""
    from slant.train.shard import run_shard

    settings = tiny_settings(**sections)
    (root / "settings.json").write_text(settings.model_dump_json(), "utf-8")
    base = save_base(root / "base", architecture)
    (root / "base.json").write_text(json.dumps([base.name, base.digest]), "utf-8")
    run_shard(
        settings,
        ingest=write_ingest(root / "ingest"),
        base=base,
        out=root / "shard",
        progress=SilentProgress(),
    )


def run_stage(stage: str, root: Path, out: Path) -> Artifact:
    """Run ``tune`` or ``adapt`` on what ``prepare`` left in ``root``."""
    from slant.train.adapt import run_adapt
    from slant.train.tune import run_tune

    settings = ProjectSettings.model_validate_json((root / "settings.json").read_text("utf-8"))
    name, digest = json.loads((root / "base.json").read_text("utf-8"))
    return {"tune": run_tune, "adapt": run_adapt}[stage](
        settings,
        shards=load(root / "shard", "shard"),
        base=BaseModel(name, root / "base", digest),
        out=out,
        progress=SilentProgress(),
    )


if __name__ == "__main__":
    run_stage(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
