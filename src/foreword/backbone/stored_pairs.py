"""Rows of tokens that lie in a file (`foreword.common.packed`), and counts of such rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foreword.backbone.layout import Pair
from foreword.common.json_text import parse_json
from foreword.common.packed import Packed, as_numbers

Counts = NDArray[np.integer[Any]]
_TOKENS = ("source", "target", "segments")
_TUPLES = ("marks", "labels")


class PairCodec:
    """Tokens as lists of whole numbers, all else as JSON; beside them what is counted of a row."""

    def pack(self, items: Sequence[Pair]) -> Any:
        """The rows of some pairs; what a teacher says is in none of them."""
        import pyarrow as pa

        ids = pa.large_list(pa.int32())
        columns = {name: pa.array([getattr(p, name) for p in items], ids) for name in _TOKENS}
        more = [_rest(pair) for pair in items]
        columns["more"] = pa.array(more, pa.large_binary())
        for name, of in _COUNTS.items():
            columns[name] = pa.array([of(pair) for pair in items], pa.int32())
        return pa.record_batch(columns)

    def unpack(self, batch: Any) -> Callable[[int], Pair]:
        """What reads a row of a batch."""
        lists = {name: _lists(batch.column(name)) for name in _TOKENS}
        more = batch.column("more")

        def pair(at: int) -> Pair:
            source, target, segments = (lists[name](at) for name in _TOKENS)
            rest = more[at].as_py()
            own = _of_json(parse_json(rest.decode())) if rest else {}
            return Pair(source, target, segments=tuple(segments), **own)

        return pair


def lengths(pairs: Sequence[Pair]) -> Counts:
    """The tokens of each row and what stands beside it."""
    return _counted(pairs, "length")


def answers(pairs: Sequence[Pair]) -> Counts:
    """How many things are predicted of each."""
    return _counted(pairs, "answers")


def longest(pairs: Sequence[Pair]) -> int:
    """Tokens of the longest row, alone."""
    return int(_counted(pairs, "longest").max())


_COUNTS: dict[str, Callable[[Pair], int]] = {
    "length": lambda pair: pair.length,
    "answers": lambda pair: pair.answers,
    "longest": lambda pair: max(len(row.source) + len(row.target) for row in pair.rows),
}


def _counted(pairs: Sequence[Pair], name: str) -> Counts:
    if isinstance(pairs, Packed):
        return pairs.numbers(name)
    return np.fromiter(map(_COUNTS[name], pairs), dtype=np.int64, count=len(pairs))


def _lists(column: Any) -> Callable[[int], list[int]]:
    ends, values = as_numbers(column.offsets), as_numbers(column.values)

    def of(at: int) -> list[int]:
        ids: list[int] = values[ends[at] : ends[at + 1]].tolist()
        return ids

    return of


def _rest(pair: Pair) -> bytes:
    """What is not the usual of a pair, as JSON; nothing where all is."""
    more = _more(pair)
    return json.dumps(more).encode() if more else b""


def _more(pair: Pair) -> dict[str, Any]:
    assert pair.taught is None, "what a teacher says is not kept with the data"
    rest: dict[str, Any] = {name: of for name in _TUPLES if (of := getattr(pair, name))}
    if pair.between:
        rest["between"] = pair.between
    if pair.prompt:
        rest["prompt"] = pair.prompt
    if pair.asks is not None:
        rest["asks"] = pair.asks
    if pair.beside:
        rest["beside"] = [
            {"source": one.source, "target": one.target, "segments": one.segments} | _more(one)
            for one in pair.beside
        ]
    return rest


def _of_json(rest: dict[str, Any]) -> dict[str, Any]:
    for name in ("segments", *_TUPLES):
        if name in rest:
            rest[name] = tuple(rest[name])
    if "between" in rest:
        rest["between"] = tuple((begin, end) for begin, end in rest["between"])
    if "beside" in rest:
        rest["beside"] = tuple(Pair(**_of_json(one)) for one in rest["beside"])
    return rest
