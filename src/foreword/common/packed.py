"""Long sequences that lie in a file: rows of an Arrow file, mapped into memory, each made when it
is asked for. A part of one is a list of row numbers. No torch, and no pyarrow until one is opened.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast, overload

from foreword.common.kept import discard, kept, key_of
from foreword.common.shares import Told, in_shares

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.integer[Any]]

T = TypeVar("T")
R = TypeVar("R")
_ROWS = "rows.arrow"
BLOCK = 8192
"""Most rows of each batch of a file."""


class Codec(Protocol[T]):
    """How items become rows of an Arrow file."""

    def pack(self, items: Sequence[T]) -> Any:
        """Items as a `pyarrow.RecordBatch`, without pickling anything."""

    def unpack(self, batch: Any) -> Callable[[int], T]:
        """What makes the item of a row of such a batch."""


class Packed(Sequence[T], Generic[T]):
    """Items of a file, or some of them.

    Args:
        file: as `write_packed` wrote it.
        codec: how its items were written.
        key: what decides its content; None where that is not known.
        rows: the numbers of the rows that stand here, in their order; None: all.
    """

    def __init__(
        self,
        file: Path,
        codec: Codec[T],
        key: str | None = None,
        rows: range | Numbers | None = None,
    ) -> None:
        self._open(_Mapped(file, codec), key, None, rows)

    def _open(
        self,
        mapped: _Mapped[T],
        key: str | None,
        whole: str | None,
        rows: range | Numbers | None,
    ) -> None:
        self._mapped, self._whole = mapped, key if whole is None else whole
        self._rows = range(mapped.count) if rows is None else rows

    @property
    def key(self) -> str | None:
        """What decides the content: that of the file, and which rows stand here."""
        rows = self._rows
        everything = isinstance(rows, range) and rows == range(self._mapped.count)
        if self._whole is None or everything:
            return self._whole
        which = repr(rows).encode() if isinstance(rows, range) else rows.astype("<i8").tobytes()
        return hashlib.sha256(f"{self._whole} ".encode() + which).hexdigest()

    def picked(self, numbers: Sequence[int] | Numbers) -> Packed[T]:
        """Some of these items, by their places in this sequence."""
        import numpy as np

        return self._part(self._own[np.asarray(numbers, dtype=np.int64)])

    def numbers(self, column: str) -> Numbers:
        """A column of whole numbers, one for each item."""
        rows, numbers = self._rows, self._mapped.numbers[column]
        if isinstance(rows, range) and rows.step > 0:
            return numbers[rows.start : rows.stop : rows.step]
        return numbers[self._own]

    @property
    def _own(self) -> Numbers:
        import numpy as np

        rows = self._rows
        return np.arange(rows.start, rows.stop, rows.step) if isinstance(rows, range) else rows

    def _part(self, rows: range | Numbers) -> Packed[T]:
        part = Packed.__new__(Packed)
        part._open(self._mapped, None, self._whole, rows)
        return part

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> Packed[T]: ...
    def __getitem__(self, at: int | slice) -> T | Packed[T]:
        if isinstance(at, slice):
            return self._part(self._rows[at])
        return self._mapped.row(int(self._rows[at]))

    def __iter__(self) -> Iterator[T]:
        return (self._mapped.row(int(number)) for number in self._rows)


class Each(Sequence[R], Generic[T, R]):
    """What is made of each item of a sequence, when it is asked for."""

    def __init__(self, items: Sequence[T], make: Callable[[T], R]) -> None:
        self.items, self.make = items, make

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, at: int) -> R: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[R]: ...
    def __getitem__(self, at: int | slice) -> R | Sequence[R]:
        return (
            Each(self.items[at], self.make) if isinstance(at, slice) else self.make(self.items[at])
        )


class _Mapped(Generic[T]):
    """The batches of a file."""

    def __init__(self, file: Path, codec: Codec[T]) -> None:
        import pyarrow as pa

        self.codec = codec
        self.reader = pa.ipc.open_file(pa.memory_map(str(file)))
        self.made: list[Callable[[int], T] | None] = [None] * self.reader.num_record_batches
        self.begins, self.count = [], 0
        for block in range(len(self.made)):
            self.begins.append(self.count)
            self.count += self.reader.get_batch(block).num_rows

    def row(self, number: int) -> T:
        block = bisect_right(self.begins, number) - 1
        make = self.made[block]
        if make is None:
            make = self.made[block] = self.codec.unpack(self.reader.get_batch(block))
        return make(number - self.begins[block])

    @cached_property
    def numbers(self) -> dict[str, Numbers]:
        """All columns of whole numbers, not to be written to: opening a batch is what takes time,
        and they are asked for several times."""
        import numpy as np
        import pyarrow as pa

        names = [field.name for field in self.reader.schema if pa.types.is_integer(field.type)]
        columns: dict[str, Numbers] = {name: np.empty(self.count, dtype=np.int64) for name in names}
        for block, begin in enumerate(self.begins):
            batch = self.reader.get_batch(block)
            for name, column in columns.items():
                column[begin : begin + batch.num_rows] = as_numbers(batch.column(name))
        for column in columns.values():
            column.flags.writeable = False
        return columns


def as_numbers(column: Any) -> Numbers:
    """A column of numbers as it lies there, without what pyarrow's `to_numpy` imports (pandas)."""
    import numpy as np

    return cast("Numbers", np.from_dlpack(column))


def write_packed(
    file: Path, codec: Codec[T], items: Iterable[T], advance: Told = lambda _: None
) -> int:
    """Write items to a file, a batch at a time; how many there were.

    Args:
        file: is overwritten.
        codec: how they are written.
        items: taken once, in their order.
        advance: called with the number of items that were written.

    Raises:
        OSError: it cannot be written.
    """
    import pyarrow as pa

    items, count = iter(items), 0
    with pa.OSFile(str(file), "wb") as sink:
        writer = None
        try:
            while block := list(islice(items, BLOCK)):
                batch = codec.pack(block)
                writer = writer or pa.ipc.new_file(sink, batch.schema)
                writer.write_batch(batch)
                count += len(block)
                advance(len(block))
            writer = writer or pa.ipc.new_file(sink, codec.pack([]).schema)
        finally:
            if writer is not None:
                writer.close()
    return count


def write_in_shares(
    file: Path, count: int, write: Callable[[Path, int, Told], R], advance: Told = lambda _: None
) -> list[R]:
    """Write a file in several shares at once; what was returned of each.

    Args:
        file: is overwritten with the items of all shares, in their order.
        count: how many there are (see `foreword.common.shares`).
        write: writes the items of a share to a file by `write_packed`, and tells how many they are.
        advance: called with the number of items that were written.
    """
    import pyarrow as pa

    if count == 1:
        return [write(file, 0, advance)]
    shares = [file.with_name(f"{file.name}.{number}") for number in range(count)]
    returned = in_shares(count, lambda number, own: write(shares[number], number, own), advance)
    with pa.OSFile(str(file), "wb") as sink:
        readers = [pa.ipc.open_file(pa.memory_map(str(share))) for share in shares]
        with pa.ipc.new_file(sink, readers[0].schema) as writer:
            for share, reader in zip(shares, readers, strict=True):
                for block in range(reader.num_record_batches):
                    writer.write_batch(reader.get_batch(block))
                share.unlink()
    return returned


def pick(items: Sequence[T], numbers: Sequence[int] | Numbers) -> Sequence[T]:
    """Some items by their places: of a packed sequence its rows, else a list."""
    if isinstance(items, Packed):
        return items.picked(numbers)
    return [items[number] for number in numbers]


def packed(
    key: str | None, codec: Codec[T], make: Callable[[Path], Mapping[str, Any]]
) -> tuple[Packed[T], Mapping[str, Any]]:
    """The items of a key, and plain data that is kept with them; made where they are not kept.

    Args:
        key: see `foreword.common.kept.kept`.
        codec: how they are written.
        make: writes them to a file by `write_packed`, and returns the plain data.

    Raises:
        UserError: they can be written nowhere.
    """
    for again in (True, False):
        entry = kept(key, lambda folder: make(folder / _ROWS))
        try:
            return Packed(entry.folder / _ROWS, codec, key), entry.about
        except (OSError, ValueError):  # what lies there is no Arrow file any more
            if not again:
                raise
            discard(entry)
    raise AssertionError("the second time returns or raises")


def fact(items: Sequence[Any], name: str, options: Any, count: Callable[[], Any]) -> Any:
    """Plain data that follow from items, counted once for those of a key.

    Args:
        items: what they follow from.
        name: what they are.
        options: plain data that decide them, too.
        count: counts them; what it raises is not kept.
    """
    key = _derived(items, name, options)
    return count() if key is None else kept(key, lambda _: {"fact": count()}).about["fact"]


def picked(
    items: Sequence[T],
    name: str,
    options: Any,
    choose: Callable[[], Sequence[Sequence[int] | Numbers]],
) -> list[Sequence[T]]:
    """Parts of items, chosen once for those of a key; the arguments are those of `fact`.

    Args:
        choose: gives the places of each part's items.
    """
    key = _derived(items, name, options)
    if key is None:
        return [pick(items, numbers) for numbers in choose()]
    import numpy as np

    def make(folder: Path) -> Mapping[str, Any]:
        parts = choose()
        for number, part in enumerate(parts):
            np.save(folder / f"{number}.npy", np.asarray(part, dtype=np.int64), allow_pickle=False)
        return {"parts": len(parts)}

    entry = kept(key, make)
    files = (entry.folder / f"{number}.npy" for number in range(entry.about["parts"]))
    return [pick(items, np.load(file, allow_pickle=False)) for file in files]


def _derived(items: Sequence[Any], name: str, options: Any) -> str | None:
    own = items.key if isinstance(items, Packed) else None
    return None if own is None else key_of(name, own, options)
