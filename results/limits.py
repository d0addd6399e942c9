"""Limits of the values in a record, and the types that several of its parts share."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

MOST = 2**31 - 1  # limit for counts: 32-bit integers
MOST_S = 1e9  # seconds: thirty years
MOST_CHARACTERS = 2_000  # limit per text in a record; longer reasons are shortened before writing
MOST_SETTINGS = 2**18  # limit for `settings` as JSON; the longest chain takes 20,000 characters

Fraction = float | None
Text = Annotated[str, Field(max_length=MOST_CHARACTERS)]


class Part(BaseModel):
    """A part of a record: frozen, without unknown fields, with finite numbers.

    Attributes:
        later: fields that are younger than the first records, and their value there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    later: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave younger fields out where they say nothing, so that older records stay as they are."""
        fields: dict[str, Any] = serialise(self)
        return {name: value for name, value in fields.items() if self.later.get(name, ...) != value}
