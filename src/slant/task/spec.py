"""TaskSpec: the one contract between training, evaluation, export, serving and backfill.

Saved as ``slant.json`` in every checkpoint and bundle and checked at every load.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tokenizers import Tokenizer

from slant.artifacts import digest_json
from slant.disk import write_atomically
from slant.errors import ArtifactError, TaskError
from slant.labels import LabelSet
from slant.task.languages import of_language
from slant.task.template import Template
from slant.task.verbalizer import Verbalizer, find_bos

__all__ = ["QUANTIZE", "SPEC_FILE", "SPEC_SCHEMA", "TaskSpec", "tokenizer_digest"]

SPEC_FILE = "slant.json"
SPEC_SCHEMA = "slant.task/2"
_LONG_DOCUMENTS = ("cut", "windows", "passages")
QUANTIZE = ("none", "int8", "nf4")
"""How weights may be rounded when scoring."""


@dataclass(frozen=True)
class TaskSpec:
    """Everything that decides what a probability means.

    Attributes:
        template: wording of the prompt.
        labels: the classes, in column order.
        verbalizer: word and token id of each label.
        bos_token_id: put before the prompt, or None.
        pad_token_id: fills a batch; it never decides anything.
        token_limit: longest prompt in tokens, BOS included.
        marker: stands where the middle of a long document was cut out.
        head_share: share of the kept tokens that come from the document's beginning.
        base: name of the base model.
        base_digest: sha256 of the base model's weights and configuration.
        tokenizer_digest: sha256 of the tokenizer.
        long_documents: what becomes of a document that does not fit: ``cut`` leaves its middle out,
            ``passages`` keeps what is most related to the narrative, ``windows`` asks about
            overlapping parts of it one by one (see ``task.encode``).
        quantize: of the weights when scoring: ``none``, ``int8`` or ``nf4``.
        weights: digest of the tuned weights; empty before tuning.
        temperature: the logits are divided by it; 1 before calibration.
        temperatures: the same by language, where one has its own.
        thresholds: least confidence that is accepted without a person's look, by language; ``*``
            for those that are not named. Empty: nothing is decided.

    Raises:
        TaskError: ``long_documents`` or ``quantize`` is none of these.
    """

    template: Template
    labels: LabelSet
    verbalizer: Verbalizer
    bos_token_id: int | None
    pad_token_id: int
    token_limit: int
    base: str
    base_digest: str
    tokenizer_digest: str
    marker: str = " […] "
    head_share: float = 0.75
    long_documents: str = "cut"
    quantize: str = "none"
    weights: str = ""
    temperature: float = 1.0
    temperatures: tuple[tuple[str, float], ...] = ()
    thresholds: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if self.long_documents not in _LONG_DOCUMENTS:
            raise TaskError(
                f"long_documents is {self.long_documents!r}; must be one of "
                f"{', '.join(_LONG_DOCUMENTS)}"
            )
        if self.quantize not in QUANTIZE:
            raise TaskError(f"quantize is {self.quantize!r}; must be one of {', '.join(QUANTIZE)}")

    @classmethod
    def create(
        cls,
        tokenizer: Tokenizer,
        *,
        template: Template,
        labels: LabelSet,
        label_words: Mapping[str, str],
        token_limit: int,
        pad_token_id: int,
        base: tuple[str, str],
        long_documents: str = "cut",
    ) -> TaskSpec:
        """The contract of a task on a base model (its name and digest).

        Raises:
            TaskError: the label words cannot be told apart by one token (see Verbalizer).
        """
        return cls(
            template=template,
            labels=labels,
            verbalizer=Verbalizer.from_tokenizer(tokenizer, template, labels, label_words),
            bos_token_id=find_bos(tokenizer),
            pad_token_id=pad_token_id,
            token_limit=token_limit,
            base=base[0],
            base_digest=base[1],
            tokenizer_digest=tokenizer_digest(tokenizer),
            long_documents=long_documents,
        )

    @property
    def fingerprint(self) -> str:
        """sha256 of all of it. Equal fingerprints: equal probabilities for equal input."""
        return digest_json(self._fields())

    def with_weights(self, weights: str) -> TaskSpec:
        """The same contract for tuned weights with this digest."""
        return replace(self, weights=weights)

    def with_temperature(
        self, temperature: float, by_language: Mapping[str, float] = MappingProxyType({})
    ) -> TaskSpec:
        """The same contract, calibrated; some languages may have a temperature of their own."""
        temperatures = tuple(sorted(by_language.items()))
        return replace(self, temperature=temperature, temperatures=temperatures)

    def temperature_of(self, lang: str | None) -> float:
        """The temperature of documents in a language (BCP 47; None: not known)."""
        found = of_language(dict(self.temperatures), lang)
        return self.temperature if found is None else found

    def with_quantize(self, quantize: str) -> TaskSpec:
        """The same contract for weights that are rounded otherwise when scoring.

        Thresholds were proven for the weights as they were: other ones have none.
        """
        thresholds = self.thresholds if quantize == self.quantize else ()
        return replace(self, quantize=quantize, thresholds=thresholds)

    def with_thresholds(self, thresholds: Mapping[str, float]) -> TaskSpec:
        """The same contract with bounds of what is accepted."""
        return replace(self, thresholds=tuple(sorted(thresholds.items())))

    def check_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Raises TaskError if ``tokenizer`` is not the one the contract was made with."""
        found = tokenizer_digest(tokenizer)
        if found != self.tokenizer_digest:
            raise TaskError(
                f"the tokenizer's digest is {found[:12]}…, {SPEC_FILE} was made with "
                f"{self.tokenizer_digest[:12]}…",
                hint="Keep the tokenizer files that came with the checkpoint.",
            )

    def _fields(self) -> dict[str, Any]:
        return {
            "schema": SPEC_SCHEMA,
            "template": asdict(self.template),
            "labels": [
                {"label": label, "word": word, "token_id": token_id}
                for label, word, token_id in zip(
                    self.labels, self.verbalizer.words, self.verbalizer.token_ids, strict=True
                )
            ],
            "bos_token_id": self.bos_token_id,
            "pad_token_id": self.pad_token_id,
            "padding_side": "right",
            "token_limit": self.token_limit,
            "truncation": {
                "marker": self.marker,
                "head_share": self.head_share,
                "long_documents": self.long_documents,
            },
            "base": {"name": self.base, "digest": self.base_digest},
            "tokenizer_digest": self.tokenizer_digest,
            "weights": self.weights,
            "quantize": self.quantize,
            "calibration": {
                "temperature": self.temperature,
                # Only where there are some: contracts before calibration stay what they were.
                **({"temperatures": dict(self.temperatures)} if self.temperatures else {}),
                "thresholds": dict(self.thresholds),
            },
        }

    def save(self, folder: Path) -> None:
        """Write ``slant.json`` into ``folder``."""
        content = {**self._fields(), "fingerprint": self.fingerprint}
        text = json.dumps(content, ensure_ascii=False, indent=2)
        write_atomically(folder / SPEC_FILE, text + "\n")

    @classmethod
    def load(cls, folder: Path) -> TaskSpec:
        """Read ``slant.json`` from ``folder``.

        Raises:
            ArtifactError: it is missing, malformed, of another version, or was edited (its
                fingerprint does not fit).
        """
        path = folder / SPEC_FILE
        try:
            content = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise ArtifactError(
                f"{path}: is not there", hint="Name a bundle folder made by `slant export`."
            ) from None
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path}: cannot be read: {error}") from error
        schema = content.get("schema") if isinstance(content, dict) else None
        if schema != SPEC_SCHEMA:
            raise ArtifactError(
                f"{path}: has the schema {schema!r}; this version of slant reads {SPEC_SCHEMA}",
                hint="Another version wrote it: run the stage again, or export the bundle again.",
            )
        try:
            spec = _from_fields(content)
            fingerprint = content["fingerprint"]
        except (KeyError, TypeError, AttributeError, TaskError) as error:
            raise ArtifactError(f"{path}: is no task contract: {error!r}") from error
        if spec.fingerprint != fingerprint:
            raise ArtifactError(
                f"{path}: was changed after it was written (its fingerprint does not fit)",
                hint="Export the bundle again.",
            )
        return spec


def _from_fields(content: Mapping[str, Any]) -> TaskSpec:
    entries = content["labels"]
    return TaskSpec(
        template=Template(**content["template"]),
        labels=LabelSet(entry["label"] for entry in entries),
        verbalizer=Verbalizer(
            tuple(entry["word"] for entry in entries), tuple(entry["token_id"] for entry in entries)
        ),
        bos_token_id=content["bos_token_id"],
        pad_token_id=content["pad_token_id"],
        token_limit=content["token_limit"],
        base=content["base"]["name"],
        base_digest=content["base"]["digest"],
        tokenizer_digest=content["tokenizer_digest"],
        marker=content["truncation"]["marker"],
        head_share=content["truncation"]["head_share"],
        long_documents=content["truncation"]["long_documents"],
        quantize=content["quantize"],
        weights=content["weights"],
        temperature=content["calibration"]["temperature"],
        temperatures=tuple(sorted(content["calibration"].get("temperatures", {}).items())),
        thresholds=tuple(sorted(content["calibration"]["thresholds"].items())),
    )


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """sha256 of the tokenizer's own JSON form, without its padding and truncation settings."""
    content = json.loads(tokenizer.to_str())
    content.pop("padding", None)
    content.pop("truncation", None)
    return digest_json(content)
