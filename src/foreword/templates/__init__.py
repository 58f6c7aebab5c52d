"""Templates: how a recipe writes an input, as a text with slots or as messages. No torch."""

from foreword.templates.chat import Chat, fields_asked, parse_input
from foreword.templates.template import MaskSlot, Template

__all__ = ["Chat", "MaskSlot", "Template", "fields_asked", "parse_input"]
