"""What asking has cost, and what requests on their way may cost at most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

__all__ = ["Ledger", "Tokens"]

_MILLION = 1_000_000


@dataclass(frozen=True)
class Tokens:
    """Tokens of prompts and of answers."""

    input: int = 0
    output: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.input + other.input, self.output + other.output)

    def __sub__(self, other: Tokens) -> Tokens:
        return Tokens(self.input - other.input, self.output - other.output)

    def times(self, count: int) -> Tokens:
        """``count`` times as many."""
        return Tokens(self.input * count, self.output * count)


@final
class Ledger:
    """Keeps spending within a budget: what may be billed is held before a request is sent.

    Args:
        usd_per_million_input: price of prompts.
        usd_per_million_output: price of answers.
        budget_usd: may not be exceeded by what is spent and held together; None: no limit.
    """

    def __init__(
        self, usd_per_million_input: float, usd_per_million_output: float, budget_usd: float | None
    ) -> None:
        self._prices = (usd_per_million_input, usd_per_million_output)
        self._budget_usd = budget_usd
        self._taken = Tokens()

    def usd(self, tokens: Tokens) -> float:
        """Price of tokens, US dollars."""
        return (tokens.input * self._prices[0] + tokens.output * self._prices[1]) / _MILLION

    def fits(self, tokens: Tokens) -> bool:
        """Whether as much may be held on top of all that is spent and held."""
        return self._budget_usd is None or self.usd(self._taken + tokens) <= self._budget_usd

    def take(self, tokens: Tokens) -> None:
        """Spend tokens, or hold them for a request."""
        self._taken += tokens

    def give_back(self, tokens: Tokens) -> None:
        """Let go of what was held."""
        self._taken -= tokens
