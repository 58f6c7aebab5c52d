"""Where in the sequence virtual tokens stand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foreword.common.lazily import names_of

if TYPE_CHECKING:
    from foreword.axes.placement.in_text import InText as InText
    from foreword.axes.placement.infix import Infix as Infix
    from foreword.axes.placement.prefix import Prefix as Prefix

_HOMES = {"InText": "in_text", "Infix": "infix", "Prefix": "prefix"}
__getattr__ = names_of(__name__, _HOMES)
