"""Examples, and the readers of data files that they come from. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foreword.common.lazily import names_of

if TYPE_CHECKING:
    from foreword.data.census import Census as Census
    from foreword.data.census import take_census as take_census
    from foreword.data.example import Example as Example
    from foreword.data.example import Field as Field
    from foreword.data.example import Span as Span
    from foreword.data.example import linearise as linearise
    from foreword.data.holding_out import by_what_was_left_out as by_what_was_left_out
    from foreword.data.holding_out import few_shot as few_shot
    from foreword.data.holding_out import hold_out as hold_out
    from foreword.data.holding_out import leave_out as leave_out
    from foreword.data.holding_out import shuffled as shuffled
    from foreword.data.readers import Reading as Reading
    from foreword.data.readers import merged as merged
    from foreword.data.readers import read_data as read_data
    from foreword.data.readers import read_examples as read_examples
    from foreword.data.sources import bare_name as bare_name
    from foreword.data.sources import source_sha256 as source_sha256

_HOMES = {
    "Census": "census",
    "Example": "example",
    "Field": "example",
    "Reading": "readers",
    "Span": "example",
    "bare_name": "sources",
    "by_what_was_left_out": "holding_out",
    "few_shot": "holding_out",
    "hold_out": "holding_out",
    "leave_out": "holding_out",
    "linearise": "example",
    "merged": "readers",
    "read_data": "readers",
    "read_examples": "readers",
    "shuffled": "holding_out",
    "source_sha256": "sources",
    "take_census": "census",
}
__getattr__ = names_of(__name__, _HOMES)
