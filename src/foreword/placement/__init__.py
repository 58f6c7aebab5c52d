"""Where in the sequence virtual tokens stand."""

from foreword.placement.in_text import InText
from foreword.placement.infix import Infix
from foreword.placement.prefix import Prefix

__all__ = ["InText", "Infix", "Prefix"]
