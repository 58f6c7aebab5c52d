"""What is asked of the backbone: examples, templates, and readers of data files. No torch."""

from foreword.tasks.census import Census, take_census
from foreword.tasks.chat import Chat, fields_asked, parse_input
from foreword.tasks.example import Example, Field, Span, linearise
from foreword.tasks.holding_out import few_shot, hold_out
from foreword.tasks.readers import Reading, merged, read_data, read_examples
from foreword.tasks.sources import bare_name, source_sha256
from foreword.tasks.template import MaskSlot, Template

__all__ = [
    "Census",
    "Chat",
    "Example",
    "Field",
    "MaskSlot",
    "Reading",
    "Span",
    "Template",
    "bare_name",
    "few_shot",
    "fields_asked",
    "hold_out",
    "linearise",
    "merged",
    "parse_input",
    "read_data",
    "read_examples",
    "source_sha256",
    "take_census",
]
