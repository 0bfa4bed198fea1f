"""Everything that slant.yaml can say: one frozen section per stage.

The string under a field is its help: it appears in ``slant config explain``, in the JSON Schema
and in docs/configuration.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from slant.config.evaluate_settings import EvaluateSettings
from slant.config.ingest_settings import IngestSettings
from slant.config.section import Location, PositiveInt, Section
from slant.config.training_settings import (
    AdaptSettings,
    LoraSettings,
    PlanSettings,
    TrackSettings,
    TrainSettings,
    TuneSettings,
)
from slant.errors import did_you_mean

__all__ = [
    "AdaptSettings",
    "EvaluateSettings",
    "ExportSettings",
    "LoraSettings",
    "ModelSettings",
    "ProjectSettings",
    "ScoreSettings",
    "ShardSettings",
    "TaskSettings",
    "TrackSettings",
    "TrainSettings",
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
    """Longest prompt in tokens. The narrative and the cue are never cut; `long_documents` says what
    becomes of a document that is too long."""
    long_documents: Literal["cut", "windows", "passages"] = "cut"
    """`cut` leaves the middle of a long document out. `passages` keeps what is most related to the
    narrative. `windows` asks about overlapping parts one by one and averages the answers, which
    takes a prompt for each; training then sees the document as `cut` leaves it."""

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


class ScoreSettings(Section):
    """How the tuned model will be asked. It is evaluated likewise, and the bundle says so."""

    quantize: Literal["none", "int8", "nf4"] = "none"
    """Rounding of the weights. `int8`: weights and activations in 8 bits, faster on CPUs with VNNI
    or AMX and on GPUs. `nf4`: weights in 4 bits, a quarter of the memory, no faster (extra `nf4`).
    """


class ExportSettings(Section):
    """What is exported and where to."""

    to: Location = "bundle"
    """Folder of the bundle, relative to slant.yaml's work folder. Or where it is published once it
    is written to `bundle` there: `s3://bucket/models/name`, `gs://…`, `abfs://…`, `hf://org/name`,
    `mlflow+http://host:port/name`. `${NAME}` is replaced from the environment."""
    formats: list[Literal["causal-lm", "classifier", "adapter", "int8"]] = Field(
        default=["causal-lm", "classifier"], min_length=1
    )
    """Hugging Face folders in the bundle. slant itself scores with `causal-lm`; `adapter` is for
    those who keep the base (PEFT), `int8` a classifier in 8 bits for vLLM (extra `int8`)."""
    parity_examples: PositiveInt = 256
    """Pairs scored by the trained model and by every exported folder, beside fifteen edge cases;
    they must agree."""
    vllm: str | None = None
    """The `vllm` executable of this or any other Python environment: a name is looked up on PATH, a
    path is relative to slant.yaml. Where it is set, vLLM is asked too whether `classifier` and
    `int8` are what was trained (extra `vllm`)."""

    @field_validator("formats")
    @classmethod
    def _has_causal_lm(cls, value: list[str]) -> list[str]:
        if "causal-lm" not in value:
            raise ValueError("causal-lm is needed: slant scores with it")
        if len(set(value)) != len(value):
            raise ValueError(f"a format is named twice, got {value}")
        return value

    @model_validator(mode="after")
    def _vllm_has_a_folder(self) -> ExportSettings:
        if self.vllm is not None and not {"classifier", "int8"} & set(self.formats):
            raise ValueError("vllm reads classifier and int8, and formats names neither")
        return self


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
    train: TrainSettings = TrainSettings()
    """Where adapt and tune run."""
    track: TrackSettings = TrackSettings()
    """Where curves and results are sent."""
    plan: PlanSettings = PlanSettings()
    """What `slant plan` reckons with."""
    score: ScoreSettings = ScoreSettings()
    """How the model is asked."""
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

    @model_validator(mode="after")
    def _training_is_possible(self) -> ProjectSettings:
        if isinstance(self.tune.class_weights, dict):
            for name in self.tune.class_weights:
                if name not in self.labels:
                    raise ValueError(
                        f"tune.class_weights names {name!r}, which is not among labels "
                        f"{self.labels}{did_you_mean(name, self.labels)}"
                    )
        if self.tune.method == "full" and self.tune.start_from is not None:
            raise ValueError("tune.start_from names an adapter, and tune.method: full trains none")
        if self.tune.method == "full" and "adapter" in self.export.formats:
            raise ValueError("export.formats names adapter, and tune.method: full trains none")
        if self.train.compile and not self.can_compile:
            raise ValueError(
                "train.compile goes with neither strategy: fsdp, model.quantize nor "
                "activation_checkpointing"
            )
        if self.model.quantize != "none":
            if self.train.splits_weights:
                raise ValueError("train.strategy: fsdp cannot split 4-bit weights; use ddp")
            for name, section in (("adapt", self.adapt), ("tune", self.tune)):
                if section is not None and section.method == "full":
                    raise ValueError(f"{name}.method: full cannot train 4-bit weights; use lora")
        return self

    @property
    def can_compile(self) -> bool:
        """Whether layers can be compiled: weights are whole, and activations kept."""
        train = self.train
        return self.model.quantize == "none" and not (
            train.splits_weights or train.activation_checkpointing
        )

    @property
    def evaluate_dtype(self) -> str:
        """What the systems of an evaluation compute in, as `model.dtype` names it."""
        return self.evaluate.dtype or self.model.dtype

    def label_word(self, label: str) -> str:
        """The word that stands for ``label`` after the prompt."""
        return self.task.label_words.get(label, label)


def project_folder(config_path: Path) -> Path:
    """Folder that relative paths of ``config_path`` start from."""
    return config_path.resolve().parent
