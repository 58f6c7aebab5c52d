"""The type of fields whose values are names of a registry. pydantic is imported where it validates,
so that names alone cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic.annotated_handlers import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core import core_schema


class NameIn:
    """The type of a text that must be a name of a registry.

    Args:
        names: the registry.
        besides: names that are allowed, too, and come first.
    """

    def __init__(self, names: Mapping[str, Any], *besides: str) -> None:
        self.names, self.besides = names, besides

    def choices(self) -> list[str]:
        """All names that are allowed now."""
        return [*self.besides, *self.names]

    def _check(self, value: Any) -> str:
        if isinstance(value, str) and (value in self.besides or value in self.names):
            return value
        from pydantic_core import PydanticKnownError

        choices = [repr(name) for name in self.choices()]
        listed = ", ".join(choices[:-1]) + f" or {choices[-1]}"
        raise PydanticKnownError("literal_error", {"expected": listed})

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Validate against the names of the moment."""
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            self._check, serialization=core_schema.to_string_ser_schema()
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """List the names of the moment."""
        return {"enum": self.choices(), "type": "string"}
