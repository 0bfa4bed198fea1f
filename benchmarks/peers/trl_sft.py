"""One training leg of TRL's SFTTrainer, run by a Python that has TRL (not slant's own).

    FOLDER/bin/python benchmarks/peers/trl_sft.py settings.json

The settings come from bench_train.py: base, data, objective, steps and the same numbers as slant's
side. Prints one line ``RESULT {...}``: for every step the seconds since the start of training and
the tokens (padding left out) that had gone through the model, the losses, and the peak of the
process' resident memory.

What TRL's documentation advises is used where the CPU has it: completion-only loss on
prompt-completion pairs, its chunked loss (the default, so no full logits), best-fit-decreasing
packing, bfloat16, grouping by length for padded batches, fused AdamW, no gradient checkpointing
(slower). Liger's and the hub's kernels need CUDA or Triton, FlashAttention needs CUDA.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer


class Clock(TrainerCallback):
    """Notes when each step ended and how many tokens had been seen by then."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self.seconds: list[float] = []
        self.tokens: list[int] = []
        self.losses: list[float] = []
        self._started = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._started = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.seconds.append(time.monotonic() - self._started)
        self.tokens.append(int(state.num_input_tokens_seen))
        # Slow as a peer may be, a rate needs a step after the two of the warm-up.
        if self.seconds[-1] > self._limit_s and len(self.seconds) >= 3:
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))


def config(settings: dict[str, Any], out: str) -> SFTConfig:
    packing = settings["packing"]
    return SFTConfig(
        output_dir=out,
        use_cpu=True,
        bf16=True,
        model_init_kwargs={"dtype": "bfloat16"},
        gradient_checkpointing=False,
        num_train_epochs=1,
        per_device_train_batch_size=settings["rows_per_batch"],
        gradient_accumulation_steps=settings["batches_per_step"],
        max_length=settings["max_length"],
        packing=packing,
        packing_strategy="bfd",
        train_sampling_strategy="random" if packing else "group_by_length",
        optim="adamw_torch_fused",
        learning_rate=settings["learning_rate"],
        lr_scheduler_type="linear",
        warmup_steps=0.06,
        weight_decay=0.0,
        max_grad_norm=1.0,
        logging_steps=1,
        include_num_input_tokens_seen="non_padding",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=settings["seed"],
        dataloader_pin_memory=False,
    )


def score_answers_only() -> None:
    """Make TRL's loss leave out the prompt's tokens, as it does where there is Triton.

    Elsewhere it projects every token of the prompt onto the whole vocabulary and masks the result.
    """
    from trl.trainer import utils

    utils._use_triton = lambda device: True


def peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    (peak,) = [line.split()[1] for line in lines if line.startswith("VmHWM")]
    return int(peak) * 1024


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    lines = Path(settings["data"]).read_text("utf-8").splitlines()
    if settings["answers_only"]:
        score_answers_only()
    clock = Clock(settings["max_seconds"])
    trainer = SFTTrainer(
        model=settings["base"],
        args=config(settings, settings["out"]),
        train_dataset=Dataset.from_list([json.loads(line) for line in lines]),
        peft_config=LoraConfig(
            r=settings["rank"],
            lora_alpha=settings["alpha"],
            lora_dropout=0.0,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
        callbacks=[clock],
    )
    rows = trainer.train_dataset
    answers = sum(sum(label >= 0 for label in row["labels"]) for row in rows)
    everything = sum(len(row["input_ids"]) for row in rows)
    trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    trainer.train()
    result = {
        "seconds": clock.seconds,
        "tokens": clock.tokens,
        "losses": clock.losses,
        # Completion-only loss: what has a label is the answer, the rest is the prompt.
        "prompt_share": 1 - answers / everything if settings["objective"] == "tune" else 1.0,
        "trainable": trainable,
        "peak_bytes": peak_bytes(),
        "versions": {name: version(name) for name in ("trl", "transformers", "peft", "torch")},
    }
    print("RESULT", json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
