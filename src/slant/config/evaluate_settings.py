"""What `slant evaluate` measures, and against what: the section `evaluate` of slant.yaml."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from slant.config.section import Location, PositiveInt, Section

__all__ = ["DecisionSettings", "EndpointSettings", "EvaluateSettings", "GateBound"]

_Price = Annotated[float, Field(ge=0)]


class EndpointSettings(Section):
    """A language model behind an OpenAI-compatible endpoint, asked with a prompt.

    Every answer is kept in `answers.sqlite` in the work folder: asking again costs nothing.
    """

    url: str
    """Address up to the version, e.g. `https://api.openai.com/v1` or `http://localhost:11434/v1`;
    `/chat/completions` is added."""
    model: str
    """Name of the model, as the endpoint knows it."""
    name: str | None = None
    """Name in the report; without it that of the model."""
    key_env: str | None = None
    """Environment variable that holds the key. The key itself is never written anywhere."""
    key_header: Literal["authorization", "api-key"] = "authorization"
    """Header that carries the key: `authorization` (as a bearer token), or `api-key` as Azure has
    it."""
    query: dict[str, str] = {}
    """Added to the address, e.g. `{api-version: 2024-10-21}` for Azure. No place for keys: saved
    copies of the configuration hold it."""
    instructions: Literal["english", "document"] = "english"
    """Language of the instructions: English, or that of each document where there is a
    translation."""
    shots: Annotated[int, Field(ge=0, le=20)] = 0
    """Examples of each label shown before the question, of the document's language where the
    training split has some."""
    answer: Literal["word", "json"] = "word"
    """`word`: the label alone. `json`: an object that a JSON schema holds to the labels, for
    endpoints with structured output."""
    logprobs: bool = False
    """Ask for the probabilities of the answer's first token, for endpoints that tell them."""
    temperature: Annotated[float, Field(ge=0)] | None = 0.0
    """Of the sampling; null leaves it out, for models that refuse it."""
    max_tokens: PositiveInt = 16
    """Longest answer in tokens; a model that reasons needs hundreds."""
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the endpoint calls that limit."""
    concurrency: PositiveInt = 8
    """Requests on their way at the same time."""
    timeout_s: Annotated[float, Field(gt=0)] = 60.0
    """How long one request may take."""
    attempts: PositiveInt = 6
    """Requests for one answer, where the endpoint is busy, fails or does not answer in time."""
    usd_per_million_input: _Price = 0.0
    """Price of a million tokens of prompts, US dollars."""
    usd_per_million_output: _Price = 0.0
    """Price of a million tokens of answers, US dollars."""
    budget_usd: _Price | None = None
    """Asking stops before this is exceeded, answers of earlier runs included; needs the prices."""

    @field_validator("url")
    @classmethod
    def _is_plain(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must begin with http:// or https:// and name a host")
        if parts.username or parts.password or parts.query:
            # Not a ValueError: its message would show the value.
            raise PydanticCustomError(
                "secret", "must hold no password and no query; use key_env, and query"
            )
        return value

    @model_validator(mode="after")
    def _has_prices(self) -> EndpointSettings:
        if self.budget_usd is not None and not (
            self.usd_per_million_input or self.usd_per_million_output
        ):
            raise ValueError(
                "budget_usd needs usd_per_million_input and usd_per_million_output: without prices "
                "nothing is known of the cost"
            )
        return self


class DecisionSettings(Section):
    """Which predictions are accepted as they are, and which go to people."""

    max_error: Annotated[float, Field(ge=0.001, lt=1)] = 0.10
    """Share of wrong answers among the accepted ones that may not be exceeded."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Confidence that it is not, over the draw of the calibration split."""
    by: Literal["language", "all"] = "language"
    """`language`: a threshold for every language with enough calibration examples, and one for the
    rest together. `all`: one threshold, whose promise holds for the mixture of languages as
    tested."""
    counting: Literal["answers", "documents"] = "answers"
    """`answers`: the error is a share of all accepted answers, whatever those about one document
    have to do with each other; the report says so where few documents have so many that not all are
    counted. `documents`: every document counts once, by one of its answers drawn by lot; that is
    the same where all documents are asked about equally many narratives, and takes fewer
    calibration examples."""
    review_usd: _Price = 0.25
    """Price of a person's look at one answer, US dollars."""


class GateBound(Section):
    """Bounds that a metric must meet."""

    min: Annotated[float, Field(ge=-1, le=1)] | None = None
    """The metric must be at least this."""
    max: Annotated[float, Field(ge=0, le=2)] | None = None
    """The metric must be at most this; for `ece` and `brier`."""
    worst_language: Annotated[float, Field(ge=-1, le=2)] | None = None
    """Bound of the same kind in every language that has an interval."""


EvaluatedMetric = Literal["accuracy", "macro_f1", "f1_polar", "mcc", "auroc", "ece", "brier"]
LOWER_IS_BETTER = ("ece", "brier")


class EvaluateSettings(Section):
    """What is measured and against what."""

    baselines: list[Literal["prompted", "tfidf", "embedding", "majority"]] = [
        "prompted",
        "tfidf",
        "majority",
    ]
    """Systems measured on the same items: the untuned base model prompted, TF-IDF with logistic
    regression, logistic regression on the base model's hidden states, the most frequent training
    label."""
    endpoints: list[EndpointSettings] = []
    """Language models behind an OpenAI-compatible endpoint, prompted."""
    bundles: dict[str, str] = {}
    """Other bundles, by the name they have in the report, e.g. `{last month: ../old/bundle}`."""
    predictions: dict[str, Location] = {}
    """Files of predictions by any other system, by its name in the report; columns `document_id`,
    `narrative_id`, `label` and, if it has them, `p_negative`, … for each label."""
    bootstrap: Annotated[int, Field(ge=100)] = 2000
    """Resamples (of documents) behind every interval."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Confidence of the intervals."""
    decisions: DecisionSettings | None = DecisionSettings()
    """Thresholds of what is accepted without a person's look; null: everything is."""
    usd_per_hour: _Price | None = None
    """Price of this machine for an hour, US dollars; tells what a thousand documents cost."""
    latency_documents: PositiveInt = 40
    """Documents timed one by one, for label scoring and for generating the answer."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] | None = None
    """Arithmetic of the evaluation, if not `model.dtype`. In `float32`, whoever computes in float32
    with the exported weights gets the report's labels. Seconds and costs are of it too; latency is
    of `model.dtype`. Served in another arithmetic, labels that are nearly as probable as another
    may change."""
    tokens_per_batch: PositiveInt | None = None
    """Tokens, padding included, that go through the model at once; without it 1,024 on a CPU and
    16,384 on a GPU."""
    gate: dict[EvaluatedMetric, GateBound] = {}
    """Bounds on the test metrics, e.g. `{macro_f1: {min: 0.7, worst_language: 0.6}, ece: {max:
    0.05}}`; `slant evaluate` exits with 3 where one is not met, and nothing is exported."""

    @model_validator(mode="after")
    def _bounds_have_a_direction(self) -> EvaluateSettings:
        for metric, bound in self.gate.items():
            given = bound.max if metric in LOWER_IS_BETTER else bound.min
            other = bound.min if metric in LOWER_IS_BETTER else bound.max
            wanted = "max" if metric in LOWER_IS_BETTER else "min"
            if other is not None or (given is None and bound.worst_language is None):
                raise ValueError(f"gate.{metric} takes {wanted}, worst_language or both")
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> EvaluateSettings:
        names = [e.name or e.model for e in self.endpoints]
        names += [*self.baselines, *self.bundles, *self.predictions]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"two systems are called {twice!r}; name one of them otherwise")
        return self
