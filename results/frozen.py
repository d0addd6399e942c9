"""The base of models that are stored: settings and records."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer


class Frozen(BaseModel):
    """A validated, immutable model without unknown fields and with finite numbers.

    Attributes:
        later: fields that are younger than the first stored models. At these values they are left out of what is stored, so that
            older files and identities stay as they are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    later: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = dump(self)
        return {name: value for name, value in fields.items() if self.later.get(name, ...) != value}
