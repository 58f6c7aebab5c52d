"""Options as data, and fields whose values are the entries of a registry (`named` has those whose
values are its names). No torch.

Whatever is registered later, by a user's own file or an installed package, is known to every field
at once: the types below look their registry up when they validate.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic.annotated_handlers import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import core_schema

from foreword.common.registry import Registry


class Data(BaseModel):
    """Frozen, and strict about unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class OptionsIn:
    """The type of a mapping that is one entry of a registry, told by one of its keys.

    Args:
        registry: its entries are classes of options.
        key: the field that tells them apart, a `Literal` in each.
        built_in: the classes that may stand here; besides them may what other packages and users
            register. All of the registry if not given.
    """

    def __init__(
        self, registry: Registry[Any], key: str, built_in: tuple[type[Data], ...] | None = None
    ) -> None:
        self.registry, self.key, self.built_in = registry, key, built_in
        self._made: tuple[int, TypeAdapter[Any]] | None = None

    def members(self) -> list[type[Data]]:
        """The classes that may stand here now."""
        if self.built_in is None:
            return list(self.registry.values())
        others = [one for one in self.registry.values() if not one.__module__.startswith(_OWN)]
        return [*self.built_in, *(one for one in others if one not in self.built_in)]

    def adapter(self) -> TypeAdapter[Any]:
        """pydantic's union of them, made anew when something was registered."""
        members = self.members()
        if self._made is None or self._made[0] != self.registry.changes:
            union: Any = members[0]
            if len(members) > 1:
                union = Annotated[reduce(or_, members), Field(discriminator=self.key)]
            self._made = (self.registry.changes, TypeAdapter(union))
        return self._made[1]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Validate against the entries of the moment; write an entry as what it is."""
        return core_schema.no_info_plain_validator_function(
            lambda value: self.adapter().validate_python(value),
            serialization=core_schema.wrap_serializer_function_ser_schema(
                lambda value, as_it_is: as_it_is(value), schema=core_schema.any_schema()
            ),
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """The union of the entries of the moment; a validator before it may say what it takes."""
        inner: Any = schema
        while isinstance(inner, Mapping) and "json_schema_input_schema" not in inner:
            inner = inner.get("schema")
        return handler(self.adapter().core_schema if inner is None else schema)


class OrAuto:
    """Marks a field that may be "auto" instead; what else is wrong with it is the type's to say.

    Args:
        type_: what it is otherwise.
    """

    def __init__(self, type_: Any) -> None:
        self.type_ = type_

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Validate as the type, unless it is "auto"."""
        return core_schema.no_info_wrap_validator_function(
            lambda value, otherwise: value if value == "auto" else otherwise(value),
            handler.generate_schema(self.type_),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value),
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """The type's, or "auto"."""
        inner: Any = schema
        return {"anyOf": [handler(inner["schema"]), {"const": "auto"}]}


_OWN = "foreword."
