"""Examples, and the readers of data files that they come from. No torch."""

from foreword.data.census import Census, take_census
from foreword.data.example import Example, Field, Span, linearise
from foreword.data.holding_out import (
    by_what_was_left_out,
    few_shot,
    hold_out,
    leave_out,
    shuffled,
)
from foreword.data.readers import Reading, merged, read_data, read_examples
from foreword.data.sources import bare_name, source_sha256

__all__ = [
    "Census",
    "Example",
    "Field",
    "Reading",
    "Span",
    "bare_name",
    "by_what_was_left_out",
    "few_shot",
    "hold_out",
    "leave_out",
    "linearise",
    "merged",
    "read_data",
    "read_examples",
    "shuffled",
    "source_sha256",
    "take_census",
]
