"""What all sections of slant.yaml share."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from slant.errors import UsageError
from slant.storage import check_url, is_url

__all__ = ["Location", "PositiveInt", "Section", "Share"]

Share = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(gt=0)]


def _without_credentials(value: str) -> str:
    if is_url(value):
        try:
            check_url(value)
        except UsageError as error:
            # Not a ValueError: its message would show the value.
            words = f"{error.message.partition(': ')[2]}. {error.hint}"
            raise PydanticCustomError("secret", "{words}", {"words": words}) from None
    return value


Location = Annotated[str, AfterValidator(_without_credentials)]
"""A path or a URL, in which ``${NAME}`` stands for an environment variable; credentials in it are
refused."""


class Section(BaseModel):
    """A part of slant.yaml: frozen, unknown keys refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
