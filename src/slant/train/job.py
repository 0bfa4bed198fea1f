"""What a training process is told, whether it was started by us, by torchrun or by Ray."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, final

from torch import nn

from slant.artifacts import Artifact, load
from slant.config.settings import ProjectSettings
from slant.config.training_settings import AdaptSettings, TrackSettings, TuneSettings
from slant.errors import TaskError
from slant.model.adapter import attach_adapter, attach_lora, unfreeze_layers
from slant.model.attention import use_product_attention
from slant.model.base import BaseModel, load_causal_lm, load_tokenizer, resolve_dtype
from slant.model.label_head import plain_model
from slant.progress import Progress
from slant.task.spec import TaskSpec
from slant.track.trackers import Trackers, open_trackers
from slant.train.parallel import World

if TYPE_CHECKING:
    import torch

__all__ = ["Job", "decoder_layers", "load_trainable"]


@final
@dataclass(frozen=True)
class Job:
    """One stage's training.

    Attributes:
        stage: ``"adapt"`` or ``"tune"``.
        settings: the project.
        shards: folder of the shard artifact.
        base: what is trained.
        out: folder of the artifact under construction.
        key: of its recipe; a checkpoint with another key is refused.
        start: folder that a relative ``tune.start_from`` starts from.
    """

    stage: str
    settings: ProjectSettings
    shards: Path
    base: BaseModel
    out: Path
    key: str
    start: Path

    @property
    def dtype(self) -> torch.dtype:
        """Of the arithmetic."""
        return resolve_dtype(self.settings.model.dtype)

    def open_trackers(self, world: World, progress: Progress) -> Trackers:
        """The trackers of this training; none in processes other than the first.

        Raises:
            UsageError: a tracker's package or key is missing.
        """
        work = self.out.parent
        return open_trackers(
            self.settings.track if world.is_main else TrackSettings(),
            folder=work / "track" / self.stage,
            work=work,
            name=self.stage,
            config=self.settings.model_dump(mode="json"),
            progress=progress,
            key=self.key,
        )

    def open_shards(self) -> tuple[Artifact, TaskSpec]:
        """The shards and the task they were made for.

        Raises:
            TaskError: they were made with another tokenizer than the base model's.
        """
        artifact = load(self.shards, "shard")
        spec = TaskSpec.load(artifact.path)
        try:
            spec.check_tokenizer(load_tokenizer(self.base.folder))
        except TaskError as error:
            raise TaskError(
                f"{artifact.path}: these shards do not fit {self.base.name}: {error.message}",
                hint="Run `slant shard` again.",
            ) from error
        return artifact, spec

    def to_json(self) -> str:
        """All of it as text, for another process."""
        content = {
            "stage": self.stage,
            "settings": self.settings.model_dump(mode="json"),
            "shards": str(self.shards.resolve()),
            "base": [self.base.name, str(self.base.folder.resolve()), self.base.digest],
            "out": str(self.out.resolve()),
            "key": self.key,
            "start": str(self.start.resolve()),
        }
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """What ``to_json`` wrote."""
        content: dict[str, Any] = json.loads(text)
        name, folder, digest = content["base"]
        return cls(
            content["stage"],
            ProjectSettings.model_validate(content["settings"]),
            Path(content["shards"]),
            BaseModel(name, Path(folder), digest),
            Path(content["out"]),
            content["key"],
            Path(content["start"]),
        )


def load_trainable(job: Job, section: AdaptSettings | TuneSettings, device: str) -> nn.Module:
    """The base model on ``device`` with what ``section`` trains in it: adapters or its layers.

    Raises:
        ModelError: it cannot be loaded, or ``tune.start_from`` does not fit it.
    """
    import torch

    full = section.method == "full"
    causal_lm: Any = load_causal_lm(
        job.base.folder,
        # Small updates to half-precision weights would be rounded away.
        dtype=torch.float32 if full else job.dtype,
        quantize=job.settings.model.quantize,
        device=device,
    )
    use_product_attention(causal_lm)
    if job.settings.train.activation_checkpointing:
        causal_lm.activation_checkpointing_enable({"use_reentrant": False})
    if full:
        trainable = unfreeze_layers(causal_lm)
    elif isinstance(section, TuneSettings) and section.start_from is not None:
        trainable = attach_adapter(causal_lm, job.start / section.start_from)
    else:
        trainable = attach_lora(causal_lm, **section.lora.model_dump(), seed=job.settings.seed)
    if not full:
        from slant.model.lora_linear import use_own_lora  # which imports peft, for seconds

        use_own_lora(trainable)
    return cast("nn.Module", trainable)


def decoder_layers(causal_lm: nn.Module) -> list[nn.Module]:
    """The decoder's layers, in order: the units in which split weights are gathered."""
    return list(plain_model(causal_lm).get_decoder().layers)
