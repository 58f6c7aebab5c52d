"""What is wrong with some data, in the words of who wrote it: one line for each mistake.

pydantic finds the mistakes; here its findings become `field.path: what is wrong, what was found`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ValidationError

from foreword.common.registry import registered
from foreword.errors import did_you_mean

_EXPECTED = {
    "model_type": "expected a mapping",
    "model_attributes_type": "expected a mapping",
    "dict_type": "expected a mapping",
    "list_type": "expected a list",
    "tuple_type": "expected a list",
    "string_type": "expected a text",
    "string_unicode": "expected text in valid Unicode",
    "string_too_long": "expected at most {max_length} characters",
    "string_too_short": "expected at least {min_length} character",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_parsing_size": "expected a smaller number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "finite_number": "expected a finite number",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "too_long": "expected at most {max_length} items",
    "too_short": "expected at least {min_length} items",
}


def explain(error: ValidationError, model: type[BaseModel], root: str = "recipe") -> list[str]:
    """The lines of a failed validation.

    Args:
        error: what pydantic raised.
        model: what was validated; its schema knows the names there are.
        root: stands for the path of a mistake of the whole.
    """
    schema = _schema(model, registered())
    items = error.errors()
    places = [item["loc"] for item in items]

    def counts(item: Any) -> bool:
        """Whether pydantic did not merely miss, in a list, what is wrong by itself below."""
        here = item["loc"]
        below = (place for place in places if len(place) > len(here))
        return item["type"] != "too_short" or all(place[: len(here)] != here for place in below)

    return [_line(item, schema, root) for item in items if counts(item)]


def found(value: Any) -> str:
    """A value as a message shows it: short, whatever it is."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value.bit_length() > 128:
        return "a number of more than 38 digits"
    if isinstance(value, (str, int, float)):
        text = repr(value)
        return text if len(text) <= 60 else text[:57] + "..."
    return kind(value)


def kind(value: Any) -> str:
    """What sort of thing a value is, in YAML's terms."""
    if isinstance(value, Mapping):
        return "a mapping"
    names = {type(None): "nothing", str: "a text", bool: "true or false"}
    if isinstance(value, (list, tuple)):
        return "a list"
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else "a value")


@lru_cache(maxsize=32)
def _schema(model: type[BaseModel], _registered: tuple[tuple[int, int], ...]) -> dict[str, Any]:
    """A model's JSON Schema, made once: that of a recipe takes longer than to read one."""
    return model.model_json_schema()


def _line(error: Any, schema: dict[str, Any], root: str) -> str:
    path, parent, node = _walk(schema, error["loc"])
    where = ".".join(path) or root
    type_, value, context = error["type"], error.get("input"), error.get("ctx", {})
    if type_ == "extra_forbidden":
        known = list(parent.get("properties", {}))
        return f"{where}: no such name{did_you_mean(path[-1], known)}"
    if type_ == "missing":
        return f"{where}: is missing"
    if type_ in ("union_tag_not_found", "union_tag_invalid"):
        names = list(node.get("discriminator", {}).get("mapping", {}))
        key = context["discriminator"].strip("'")
        if "tag" in context:
            tag = str(context["tag"])
            return f"{where}.{key}: {found(tag)} is not known{did_you_mean(tag, names)}"
        what = "" if isinstance(value, Mapping) else f", found {found(value)}"
        return f"{where}: expected a mapping with `{key}`{what}{did_you_mean('', names)}"
    if type_ == "literal_error":
        names = _choices(context["expected"].replace(" or ", ", "))
        given = value if isinstance(value, str) else ""
        return f"{where}: {found(value)} is not known{did_you_mean(given, names)}"
    if type_ == "value_error":
        return f"{where}: {context['error']}"
    if type_ == "string_pattern_mismatch":
        expected = node.get("description", f"a text that matches {context['pattern']}")
        return f"{where}: expected {expected}, found {found(value)}"
    if type_ in _EXPECTED:
        bounds = {k: f"{v:.15g}" if isinstance(v, float) else v for k, v in context.items()}
        return f"{where}: {_EXPECTED[type_].format(**bounds)}, found {found(value)}"
    return f"{where}: {error['msg'][0].lower()}{error['msg'][1:]}, found {found(value)}"


def _choices(listed: str) -> list[str]:
    """The names in pydantic's `'a', 'b'`."""
    return [name.strip(" '") for name in listed.split(",") if name.strip(" '")]


def _walk(schema: dict[str, Any], location: tuple[str | int, ...]) -> tuple[list[str], Any, Any]:
    """A location as a path in the user's file, the schema of what holds its last part, and its own.

    pydantic puts the tag of a union's member into a location; a user's file has none.
    """
    path: list[str] = []
    node = parent = _resolve(schema, schema)
    for part in map(str, location):
        if part.startswith("<"):  # a tag of a choice between types, such as `InputSpec`
            continue
        mapping = node.get("discriminator", {}).get("mapping", {})
        if part in mapping:
            node = _resolve(schema, {"$ref": mapping[part]})
            continue
        path.append(part if re.fullmatch(r"[\w-]{1,60}", part) else found(part))
        parent = node
        lists = (one["items"] for one in (node, *node.get("anyOf", ())) if "items" in one)
        inner = next(lists, {}) if part.isdecimal() else node.get("properties", {}).get(part, {})
        node = _resolve(schema, inner)
    return path, parent, node


def _resolve(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """A schema behind its reference; of alternatives, the one that has names below it."""
    if "$ref" in node:
        return _resolve(schema, schema["$defs"][node["$ref"].rsplit("/", 1)[1]])
    inner = [_resolve(schema, one) for one in node.get("anyOf", ())]
    return next((one for one in inner if "properties" in one or "discriminator" in one), node)
