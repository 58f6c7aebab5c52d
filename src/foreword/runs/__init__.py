"""One run of a recipe: train, measure, and a folder with all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foreword.common.lazily import names_of

if TYPE_CHECKING:
    from foreword.runs.folder import Run as Run
    from foreword.runs.record import RunRecord as RunRecord
    from foreword.runs.record import read_record as read_record
    from foreword.runs.run import train as train
    from foreword.training import Stopped as Stopped

__all__ = ["Run", "RunRecord", "Stopped", "read_record", "train"]
__getattr__ = names_of(
    __name__,
    {
        "Run": "folder",
        "RunRecord": "record",
        "Stopped": "run",
        "read_record": "record",
        "train": "run",
    },
)
