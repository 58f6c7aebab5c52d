"""Examples that lie in a file (`foreword.common.packed`), a JSON object a row; those of small data
are lists, and all that handles examples handles both alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from foreword.common.json_text import parse_json
from foreword.common.kept import key_of
from foreword.common.packed import Packed, packed, write_packed
from foreword.data.conversation import Conversation, Turn
from foreword.data.example import Example, Field, Span, Unusable

LARGE_BYTES = 2**22
"""Bytes of a data file from which its examples are packed."""
LARGE_ROWS = 2**14
"""The same in examples, where the bytes are not known."""
_PLAIN = ("group", "label", "number")
_LISTS = ("references", "labels", "choices", "right", "words", "tags", "paired")


class ExampleCodec:
    """Examples as the texts of JSON objects, in the column `example`."""

    def pack(self, items: Sequence[Example]) -> Any:
        """The rows of some examples."""
        import pyarrow as pa

        rows = [example_as_json(example) for example in items]
        return pa.record_batch({"example": pa.array(rows, pa.large_binary())})

    def unpack(self, batch: Any) -> Callable[[int], Example]:
        """What reads a row of a batch."""
        import numpy as np

        column = batch.column("example")
        _, ends, content = column.buffers()
        ends = np.frombuffer(ends, dtype=np.int64)[column.offset :]
        content = memoryview(content) if content is not None else memoryview(b"")

        def example(at: int) -> Example:
            return example_of_json(bytes(content[ends[at] : ends[at + 1]]))

        return example


def example_as_json(example: Example) -> bytes:
    """An example as JSON, what is not asked left out."""
    fields = {
        name: [value.problem, value.content] if isinstance(value, Unusable) else value
        for name, value in example.fields.items()
    }
    row: dict[str, Any] = {"fields": fields, "where": example.where}
    for name in (*_PLAIN, *_LISTS):
        value = getattr(example, name)
        if value is not None and value != ():
            row[name] = value
        elif value == () and name != "references":
            row[name] = []
    if example.spans is not None:
        row["spans"] = [[span.text, span.start] for span in example.spans]
    if example.conversation is not None:
        talk = example.conversation
        turns = [[turn.role, turn.content, turn.more, turn.trained] for turn in talk.turns]
        row["conversation"] = [turns, talk.tools, talk.measured]
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass")


def example_of_json(text: bytes) -> Example:
    """An example from what `example_as_json` made of it."""
    row = parse_json(text.decode("utf-8", "surrogatepass"))
    fields: dict[str, Field] = row["fields"]
    for name, value in row["fields"].items():
        if isinstance(value, list):
            fields[name] = Unusable(*value)
    own: dict[str, Any] = {name: row[name] for name in _PLAIN if name in row}
    own |= {name: tuple(row[name]) for name in _LISTS if name in row}
    if "spans" in row:
        own["spans"] = tuple(Span(*span) for span in row["spans"])
    if "conversation" in row:
        turns, tools, measured = row["conversation"]
        own["conversation"] = Conversation(tuple(Turn(*turn) for turn in turns), tools, measured)
    return Example(fields, where=row["where"], **own)


def restored(
    examples: Sequence[Example], name: str, options: Any, make: Callable[[], Iterable[Example]]
) -> Sequence[Example]:
    """Examples that are made of others: packed where those are, once for those of a key.

    Args:
        examples: what they are made of.
        name: what makes them.
        options: plain data that decide them, too.
        make: gives them in their order.
    """
    if not isinstance(examples, Packed):
        return list(make())
    key = None if examples.key is None else key_of(name, examples.key, options)

    def write(file: Path) -> dict[str, Any]:
        write_packed(file, ExampleCodec(), make())
        return {}

    return packed(key, ExampleCodec(), write)[0]


def few_or_packed(examples: Iterator[Example]) -> Sequence[Example]:
    """Examples as a list, or packed for this process alone where they are many."""
    few = list(islice(examples, LARGE_ROWS + 1))
    if len(few) <= LARGE_ROWS:
        return few

    def write(file: Path) -> dict[str, Any]:
        write_packed(file, ExampleCodec(), chain(few, examples))
        return {}

    return packed(None, ExampleCodec(), write)[0]
