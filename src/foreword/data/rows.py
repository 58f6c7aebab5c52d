"""What a reader of a data format is given, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foreword.data.example import Field, Span


@dataclass(frozen=True)
class Row:
    """One row of a file, as a reader finds it.

    Attributes:
        where: file and line, for messages.
        columns: names and values; among them the references, the label and the group.
        fields: what templates may name, where that is not simply the columns.
        words: words to tag; `tags` are theirs.
        spans: where the answers stand in the column `context`.
    """

    where: str
    columns: dict[str, Any]
    fields: dict[str, Field] | None = None
    words: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None
    spans: tuple[Span, ...] | None = None


@dataclass
class Request:
    """What a reader is asked for, and what it says of it.

    Attributes:
        path: a file, a folder, a bundled name or a name of the hub.
        answers: False where the file holds inputs alone.
        words: conll's column of words, from 1.
        tags: conll's column of tags, from 1; None: the last.
        sections: xsum's sections of which one must be the document's; () for any.
        ids: xsum's file of the ids to keep, one a line; None for all.
        encoding: of text files.
        lines: how many of JSONL's lines are passed over, and up to which one is read; None: the
            last.
        empty: filled with where rows that hold nothing to read were left out.
        notes: filled with what else was left out or changed, a sentence each.
    """

    path: str
    answers: bool = True
    words: int = 1
    tags: int | None = None
    sections: tuple[str, ...] = ()
    ids: Path | None = None
    encoding: str = "utf-8"
    lines: tuple[int, int | None] = (0, None)
    empty: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


Reader = Callable[[Request], Iterator[Row]]
"""From a request to rows, in the file's order."""
