"""YAML text as plain data: nothing is run, and no short text takes long to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from foreword.common import opening
from foreword.common.json_text import DEEPEST, TOO_DEEP, check_depth
from foreword.errors import RecipeError
from foreword.recipe.writing import EXPONENT

YAML_BYTES = 2**19
"""Most bytes of a YAML text, and of what its aliases repeat."""


def read_yaml(file: Path, *, within: Path | None = None) -> Any:
    """Plain data from a YAML file of at most `YAML_BYTES`.

    Args:
        file: a regular file.
        within: the folder that a link must not lead out of.

    Raises:
        RecipeError: it cannot be read, or is not valid YAML.
    """
    try:
        text = opening.read_text(file, within=within, most=YAML_BYTES)
    except FileNotFoundError as error:
        raise RecipeError(str(file), ["no such file; give the path of a YAML recipe"]) from error
    except UnicodeError as error:
        raise RecipeError(
            str(file), [f"is not UTF-8 text ({error}); save the recipe as UTF-8"]
        ) from error
    except OSError as error:
        raise RecipeError(str(file), [f"cannot be read: {error.strerror}"]) from error
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise RecipeError(str(file), [f"is not valid YAML: {error}"]) from error


class _Loader(yaml.SafeLoader):
    """YAML without duplicate keys, with 1e-3 as the number and 2020-01-01 as the text that it is
    in YAML 1.2.

    An alias may stand for a text or a number alone: a few lines of nested ones would otherwise say
    more than a memory holds. What aliases repeat is counted, for the same reason. The scanner looks
    at every open bracket again for each token, so too many are refused where they open.
    """

    repeated = 0

    def fetch_flow_collection_start(self, TokenClass: type[yaml.Token]) -> None:
        if self.flow_level >= DEEPEST:
            mark = self.get_mark()
            raise yaml.scanner.ScannerError(None, None, TOO_DEEP, mark)
        super().fetch_flow_collection_start(TokenClass)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        aliased = self.check_event(yaml.AliasEvent)
        node: yaml.Node | None = super().compose_node(parent, index)
        if aliased and not isinstance(node, yaml.ScalarNode):
            raise yaml.composer.ComposerError(
                None, None, "an alias (*name) may stand for a text or a number alone", mark
            )
        if aliased and node is not None:
            self.repeated += len(node.value)
            if self.repeated > YAML_BYTES:
                raise yaml.composer.ComposerError(
                    None, None, f"aliases (*name) repeat more than {YAML_BYTES:,} characters", mark
                )
        return node

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        """A number; 1:30 is the text that it is in YAML 1.2, and not 90."""
        value = str(self.construct_scalar(node))
        if ":" in value:
            return value
        make = self.construct_yaml_int if node.tag.endswith(":int") else self.construct_yaml_float
        return make(node)

    def construct_text(self, node: yaml.ScalarNode) -> str:
        """The text that stands there."""
        return str(self.construct_scalar(node))

    def construct_no_json(self, node: yaml.Node) -> None:
        """Refuse a value that JSON has not."""
        raise yaml.constructor.ConstructorError(
            None, None, f"{node.tag.rpartition(':')[2]!r} is no kind of value here", node.start_mark
        )

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, "merging with << is not supported", key_node.start_mark
                )
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is not a text", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{key}' stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.construct_number)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.construct_text)
for _tag in ("binary", "omap", "pairs", "set"):  # nothing that JSON could write
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.construct_no_json)
_Loader.add_implicit_resolver(*EXPONENT)


def parse_yaml(text: str) -> Any:
    """Plain data from YAML; ValueError with the line and column where it is wrong.

    This is the only reader of YAML: it runs nothing, and no short text takes long.
    """
    if len(text) > YAML_BYTES:
        raise ValueError(f"it has more than {YAML_BYTES:,} characters")
    try:
        value = yaml.load(text, Loader=_Loader)
    except RecursionError as error:
        raise ValueError(TOO_DEEP) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{where}{error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError) as error:
        # What PyYAML's own constructors let through for values such as `!!int ""` or 2020-99-99.
        raise ValueError(f"a value does not fit its type ({error})") from error
    check_depth(value)
    return value
