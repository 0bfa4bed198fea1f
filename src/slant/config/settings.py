"""Everything that slant.yaml can say: one frozen section per stage.

The string under a field is its help: it appears in ``slant config explain``, in the JSON Schema
and in docs/configuration.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from slant.config.ingest_settings import IngestSettings
from slant.config.section import Location, PositiveInt, Section, Share
from slant.errors import did_you_mean

__all__ = [
    "AdaptSettings",
    "EvaluateSettings",
    "ExportSettings",
    "LoraSettings",
    "ModelSettings",
    "ProjectSettings",
    "ShardSettings",
    "TaskSettings",
    "TuneSettings",
]


class ModelSettings(Section):
    """The base model."""

    base: str = "gemma-3-270m"
    """`gemma-3-270m` (embedded, extra `quickstart`), a Hugging Face folder, or a hub id."""
    revision: str | None = None
    """Commit or tag of a hub id; pin it, so that a later run uses the same weights."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Arithmetic of training and scoring. `auto`: bfloat16 where the processor computes it,
    float32 elsewhere."""
    quantize: Literal["none", "nf4"] = "none"
    """`nf4` keeps the frozen base weights in 4 bits while tuning (QLoRA; extra `nf4`)."""


class TaskSettings(Section):
    """The question put to the model. The document comes first, the cue last."""

    prompt: str = "{document}\n\nNarrative: {narrative}\nSentiment toward the narrative:"
    """Prompt for a document and a narrative; must hold `{document}` and then `{narrative}`."""
    prompt_overall: str = "{document}\n\nOverall sentiment:"
    """Prompt where no narrative is given; must hold `{document}`."""
    label_words: dict[str, str] = {}
    """Word that stands for each label after the prompt, e.g. `{negative: against}`; a label that
    is not named here stands for itself."""
    token_limit: PositiveInt = 512
    """Longest prompt in tokens. A longer document loses its middle; the narrative and the cue are
    never cut."""

    @model_validator(mode="after")
    def _has_placeholders(self) -> TaskSettings:
        document, narrative = self.prompt.find("{document}"), self.prompt.find("{narrative}")
        if document < 0 or narrative < document:
            raise ValueError("prompt must hold {document} and, after it, {narrative}")
        if "{document}" not in self.prompt_overall:
            raise ValueError("prompt_overall must hold {document}")
        return self


class ShardSettings(Section):
    """How shards are written."""

    size_limit_bytes: Annotated[int, Field(ge=1024)] = 67_108_864
    """Largest size of one uncompressed shard."""
    compression: Literal["none", "zstd"] = "zstd"
    """Compression of shard files."""
    sequence_tokens: Annotated[int, Field(ge=8)] = 512
    """Length of a packed row of documents for domain adaptation."""
    heldout_share: Annotated[float, Field(gt=0, lt=1)] = 0.10
    """Share of the unlabelled documents kept aside to measure perplexity on."""
    to: Location | None = None
    """Folder or URL (`s3://bucket/shards`) that the shards are written to and read from; without
    it they lie beside the other artifacts. `${NAME}` is replaced from the environment."""
    cache_bytes: Annotated[int, Field(ge=1 << 20)] = 10 << 30
    """Most that the local cache of shards read from a URL may take on the disk."""


class LoraSettings(Section):
    """Low-rank adapters on all linear layers (Hu et al. 2021)."""

    rank: PositiveInt = 16
    """Rank of the update."""
    alpha: PositiveInt = 32
    """Scale of the update: it is multiplied by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the adapters' input; on a CPU it costs a third of the speed."""


class _TrainingSettings(Section):
    learning_rate: Annotated[float, Field(gt=0)]
    """Highest learning rate; it warms up linearly and then falls linearly to zero."""
    warmup_share: Share = 0.06
    """Share of the steps that warm up."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's weight decay."""
    max_gradient_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are clipped to this norm."""
    lora: LoraSettings = LoraSettings()
    """The adapters that are trained."""
    checkpoint_every_s: Annotated[float, Field(gt=0)] = 60.0
    """Seconds between two checkpoints; a killed run goes on from the last one."""
    language_temperature: Annotated[float, Field(ge=1)] = 1.0
    """1 visits every sample once an epoch. Above 1, an epoch of the same size draws languages by
    their share to the power of 1 / temperature: small languages are seen more often, large ones
    less."""


class AdaptSettings(_TrainingSettings):
    """Domain adaptation: next-token loss on the unlabelled documents."""

    tokens: PositiveInt = 50_000_000
    """Tokens to train on, at most; never more than `epochs` passes over the shards."""
    epochs: Annotated[float, Field(gt=0)] = 1.0
    """Passes over the shards, at most."""
    tokens_per_step: PositiveInt = 4096
    """Tokens in one update of the weights."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    """Highest learning rate; it warms up linearly and then falls linearly to zero."""


class TuneSettings(_TrainingSettings):
    """Instruction fine-tuning: cross-entropy over the labels at the end of the prompt."""

    epochs: PositiveInt = 2
    """Passes over the training examples."""
    examples_per_step: PositiveInt = 16
    """Examples in one update of the weights."""
    tokens_per_batch: PositiveInt = 2048
    """Tokens, padding included, that go through the model at once; a step of more is done in
    several passes with the same result."""
    learning_rate: Annotated[float, Field(gt=0)] = 4e-4
    """Highest learning rate; it warms up linearly and then falls linearly to zero."""


class GateBound(Section):
    """A bound that a metric must meet."""

    min: Share
    """The metric must be at least this."""


class EvaluateSettings(Section):
    """What is measured and against what."""

    baselines: list[Literal["prompted", "tfidf", "majority"]] = ["prompted", "tfidf", "majority"]
    """Systems measured on the same items: the untuned base model prompted, TF-IDF with logistic
    regression, the most frequent training label."""
    bootstrap: Annotated[int, Field(ge=100)] = 2000
    """Resamples (of documents) behind every interval."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Confidence of the intervals."""
    latency_documents: PositiveInt = 40
    """Documents timed one by one, for label scoring and for generating the answer."""
    tokens_per_batch: PositiveInt = 4096
    """Tokens, padding included, that go through the model at once."""
    gate: dict[Literal["accuracy", "macro_f1"], GateBound] = {}
    """Bounds on the test metrics, e.g. `{macro_f1: {min: 0.7}}`; `slant evaluate` exits with 3
    where one is not met, and nothing is exported."""


class ExportSettings(Section):
    """What is exported and where to."""

    to: str = "bundle"
    """Folder of the bundle, relative to slant.yaml's work folder."""
    formats: list[Literal["causal-lm", "classifier"]] = Field(
        default=["causal-lm", "classifier"], min_length=1
    )
    """Hugging Face folders in the bundle. slant itself scores with `causal-lm`."""
    parity_examples: PositiveInt = 60
    """Examples scored by the trained model and by the exported one; they must agree."""

    @field_validator("to")
    @classmethod
    def _is_local(cls, value: str) -> str:
        if "://" in value:
            raise ValueError("only a local folder can be exported to in this version")
        return value

    @field_validator("formats")
    @classmethod
    def _has_causal_lm(cls, value: list[str]) -> list[str]:
        if "causal-lm" not in value:
            raise ValueError("causal-lm is needed: slant scores with it")
        return value


class ProjectSettings(Section):
    """A whole slant.yaml."""

    seed: int = 17
    """Seed of every random choice."""
    work: str = "work"
    """Folder of the artifacts, relative to slant.yaml."""
    labels: list[str] = Field(default=["negative", "neutral", "positive"], min_length=2)
    """The classes, in the order of every column and every classifier head."""
    model: ModelSettings = ModelSettings()
    """The base model."""
    task: TaskSettings = TaskSettings()
    """The question put to the model."""
    ingest: IngestSettings
    """What to read."""
    shard: ShardSettings = ShardSettings()
    """How shards are written."""
    adapt: AdaptSettings | None = AdaptSettings()
    """Domain adaptation; `null` leaves it out."""
    tune: TuneSettings = TuneSettings()
    """Instruction fine-tuning."""
    evaluate: EvaluateSettings = EvaluateSettings()
    """Measurement."""
    export: ExportSettings = ExportSettings()
    """The bundle."""

    @model_validator(mode="after")
    def _labels_agree(self) -> ProjectSettings:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels must be different, got {self.labels}")
        for name in self.task.label_words:
            if name not in self.labels:
                raise ValueError(f"task.label_words names {name!r}, which is not among labels")
        for index, source in enumerate(self.ingest.examples):
            for value, meaning in source.labels.items():
                if meaning not in self.labels:
                    raise ValueError(
                        f"ingest.examples[{index}].labels maps {value!r} to {meaning!r}, which is "
                        f"not among labels {self.labels}{did_you_mean(meaning, self.labels)}"
                    )
        return self

    def label_word(self, label: str) -> str:
        """The word that stands for ``label`` after the prompt."""
        return self.task.label_words.get(label, label)


def project_folder(config_path: Path) -> Path:
    """Folder that relative paths of ``config_path`` start from."""
    return config_path.resolve().parent
