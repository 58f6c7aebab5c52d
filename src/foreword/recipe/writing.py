"""Plain data as YAML that `yaml_text.parse_yaml` reads back as the same data."""

from __future__ import annotations

import re
from typing import Any

import yaml

EXPONENT = (
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)
"""`1e-3` is a number: PyYAML's own rule asks for a point and a sign. The reader has this rule, so
the writer needs it to know which texts to put in quotes."""

_LINE_ENDS = frozenset("\r\x85\u2028\u2029")


class _Dumper(yaml.SafeDumper):
    """YAML without anchors, which the reader refuses for lists and mappings."""

    def ignore_aliases(self, _: Any) -> bool:
        """Every list and mapping is written where it stands."""
        return True

    def text(self, data: str) -> yaml.ScalarNode:
        """A text; in double quotes where it has a line end that a reader takes for a blank."""
        style = '"' if _LINE_ENDS.intersection(data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_implicit_resolver(*EXPONENT)
_Dumper.add_representer(str, _Dumper.text)


def write_yaml(data: Any) -> str:
    """Plain data as YAML, keys in their order."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
