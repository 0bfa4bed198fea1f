"""The sections of slant.yaml that training reads: adapt, tune, train, track and plan."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from slant.config.section import PositiveInt, Section, Share

__all__ = [
    "AdaptSettings",
    "LoraSettings",
    "MlflowSettings",
    "PlanSettings",
    "TrackSettings",
    "TrainSettings",
    "TuneSettings",
    "WandbSettings",
]


class LoraSettings(Section):
    """Low-rank adapters on all linear layers (Hu et al. 2021)."""

    rank: PositiveInt = 16
    """Rank of the update."""
    alpha: PositiveInt = 32
    """Scale of the update: it is multiplied by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the adapters' input; on a CPU it costs a third of the speed."""
    rank_stabilized: bool = False
    """Scale by alpha / √rank instead (rsLoRA, Kalajdzievski 2023): for ranks of 64 and more."""
    dora: bool = False
    """Train magnitude and direction apart (DoRA, Liu et al. 2024); slower."""


class _TrainingSettings(Section):
    method: Literal["lora", "full"] = "lora"
    """`lora` trains adapters; with `model.quantize: nf4` that is QLoRA. `full` trains every weight
    of the layers, in float32, and takes several times the memory."""
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
    keep_checkpoints: PositiveInt = 2
    """Checkpoints that are kept: the last ones. An older one serves where the last is damaged."""
    language_temperature: Annotated[float, Field(ge=1)] = 1.0
    """1 visits every sample once an epoch. Above 1, an epoch of the same size draws languages by
    their share to the power of 1 / temperature: small languages are seen more often, large ones
    less."""

    @model_validator(mode="after")
    def _has_adapters(self) -> _TrainingSettings:
        if self.method == "full" and self.lora != LoraSettings():
            raise ValueError("lora has no effect with method: full; leave one of them out")
        return self


class AdaptSettings(_TrainingSettings):
    """Domain adaptation: next-token loss on the unlabelled documents."""

    tokens: PositiveInt = 50_000_000
    """Tokens to train on, at most; never more than `epochs` passes over the shards."""
    epochs: Annotated[float, Field(gt=0)] = 1.0
    """Passes over the shards, at most."""
    tokens_per_step: PositiveInt = 4096
    """Tokens in one update of the weights."""
    tokens_per_batch: PositiveInt = 512
    """Tokens that go through the model at once on each device: as many packed rows as fit, and
    at least one. It is halved, and stays so, where memory runs out."""
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
    several passes with the same result. It is halved, and stays so, where memory runs out."""
    learning_rate: Annotated[float, Field(gt=0)] = 4e-4
    """Highest learning rate; it warms up linearly and then falls linearly to zero."""
    start_from: str | None = None
    """A PEFT adapter folder to go on training, relative to slant.yaml; its rank and layers are
    kept."""
    document_once: bool = True
    """Narratives of one document that meet in a step share one pass over its text."""
    label_head: Literal["frozen", "trained"] = "frozen"
    """`trained` also trains the rows of the LM head that stand for the labels."""
    class_weights: Literal["none", "balanced"] | dict[str, Annotated[float, Field(gt=0)]] = "none"
    """Weight of each label in the loss, e.g. `{neutral: 0.5}` (others 1); `balanced` weighs labels
    by the inverse of their frequency."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target that is spread evenly over the labels."""
    soft_labels: bool = False
    """Train on the shares of the annotators' judgements where an example has several, not on the
    label that won."""
    validations_per_epoch: PositiveInt = 1
    """How often the validation split is measured. The best weights by its macro-F1 are kept."""
    average: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of a running average of the weights, e.g. 0.99; where it is above 0, the average is
    what is measured and kept, which varies less than the weights of any one step."""
    patience: PositiveInt | None = None
    """Stop after so many validations without a better macro-F1; without it all epochs are run."""


class TrainSettings(Section):
    """Where adapt and tune run."""

    devices: PositiveInt = 1
    """GPUs of this machine (processes, where there is none). More than one starts torchrun."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """`ddp`: every device holds the whole model. `fsdp`: each holds a part of every weight, for
    models that one device cannot hold."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: a third slower, a
    fraction of the memory."""
    compile: bool | None = None
    """Compile the model's layers (`torch.compile`): some 20 seconds at the start, then a third
    faster on a CPU. Without it, that is done on a CPU where there is a C++ compiler and enough to
    train on; never with `fsdp`, `quantize` or `activation_checkpointing`."""

    @property
    def splits_weights(self) -> bool:
        """Whether each device holds a part of every weight."""
        return self.strategy == "fsdp" and self.devices > 1


class WandbSettings(Section):
    """Weights & Biases (extra `wandb`). The key comes from WANDB_API_KEY."""

    project: str
    """Project that runs are filed under."""
    entity: str | None = None
    """Team or user; your default one without it."""
    mode: Literal["online", "offline"] = "online"
    """`offline` writes to the work folder, for `wandb sync` later."""


class MlflowSettings(Section):
    """MLflow (extra `mlflow`). Credentials come from MLflow's own variables."""

    uri: str
    """Tracking server, e.g. `http://host:5000`."""
    experiment: str = "slant"
    """Experiment that runs are filed under."""


class TrackSettings(Section):
    """Where curves and results are sent while a run goes on; `events.jsonl` is always written.

    A tracker that does not answer never stops a run.
    """

    wandb: WandbSettings | None = None
    """Weights & Biases."""
    mlflow: MlflowSettings | None = None
    """MLflow."""
    tensorboard: bool = False
    """Write TensorBoard files to `tensorboard/` in the work folder (extra `tensorboard`)."""


class PlanSettings(Section):
    """What `slant plan` reckons with."""

    card: str = "auto"
    """Card to plan for: `a10`, `a10g`, `l4`, `a100-40`, `a100-80`, `h100`, `h200`, `cpu`; `auto` is
    this machine's."""
    price_per_hour: dict[str, Annotated[float, Field(ge=0)]] = {}
    """Price of one card for an hour, by its name, in your currency, e.g. `{a10: 0.75}`."""
    power_w: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Power that one card draws while it trains, in watts, by its name, e.g. `{a10: 150}`. The
    model card then has an estimate of the energy that training took."""
