"""Large data files are read once: their examples are packed, and kept for the next time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from foreword.common import opening
from foreword.common.kept import MOST_BYTES, key_of
from foreword.common.packed import packed, write_in_shares, write_packed
from foreword.common.progress import Progress, Silent
from foreword.common.shares import Told, parts, processes
from foreword.data import stored
from foreword.data.example import Example
from foreword.data.rows import Request
from foreword.data.sources import HUB, bare_name, data_file, source_sha256
from foreword.errors import DataError
from foreword.names import FORMATS

BY_LINE = "jsonl"
"""The format of which several processes read a share of the lines each."""
Stamp = tuple[tuple[str, int, int], ...]


def read_once(
    request: Request,
    format: str,
    options: Any,
    read: Callable[[Request], Iterator[Example]],
    progress: Progress | None = None,
) -> Sequence[Example]:
    """The examples of a data file: a list, or packed where the file is large.

    Args:
        request: what is read; where it was read before, it is told again what was left out then.
        format: by which reader.
        options: plain data that decide the examples, beside request and format.
        read: reads them.
        progress: told how many rows are read of a large file.

    Raises:
        DataError: the file is missing or malformed, or changed while it was read.
    """
    progress = progress or Silent()
    if request.path.startswith(HUB):
        return stored.few_or_packed(read(request))
    before = _stamp(request.path)
    size = sum(size for _, size, _ in before)
    if not before or size < stored.LARGE_BYTES:
        return list(read(request))
    if size > MOST_BYTES:  # it is not kept, and so not hashed before its first mistake is met
        return stored.few_or_packed(read(request))

    def write(file: Path) -> Mapping[str, Any]:
        most = _rows_at_most(request.path, format)
        shares = parts(most, processes(most) if format == BY_LINE else 1)
        progress.begin(f"read {bare_name(request.path)}", most)

        def write_share(file: Path, number: int, advance: Told) -> tuple[int, list[str], list[str]]:
            begin, end = shares[number]
            lines = (begin, None if number == len(shares) - 1 else end)
            own = replace(request, empty=[], notes=[], lines=lines)
            count = write_packed(file, stored.ExampleCodec(), read(own), advance)
            return count, own.empty, own.notes

        written = write_in_shares(file, len(shares), write_share, progress.advance)
        counts, empty, notes = zip(*written, strict=True)
        progress.advance(max(0, most - sum(counts)))
        if _stamp(request.path) != before:
            raise DataError(f"{request.path}: changed while it was read; start again")
        return {"empty": list(chain(*empty)), "notes": list(chain(*notes))}

    own = FORMATS[format].read is not None
    key = None if own else _key(request, format, options)
    examples, about = packed(key, stored.ExampleCodec(), write)
    request.empty[:], request.notes[:] = about["empty"], about["notes"]
    return examples


def _key(request: Request, format: str, options: Any) -> str | None:
    plain = replace(request, ids=None, empty=[], notes=[])
    try:
        ids = None if request.ids is None else source_sha256(request.ids)
        content = source_sha256(request.path)
    except DataError:  # its reader says so in its own words
        return None
    where = str(data_file(request.path))
    return key_of("examples", format, where, content, ids, vars(plain), options)


def _stamp(path: str) -> Stamp:
    """Name, size and time of each file that is read; nothing where that cannot be told."""
    try:
        file = data_file(path)
        files = sorted(opening.walk(file)) if file.is_dir() else [file]
        states = [(str(one), one.stat()) for one in files if one.is_file()]
    except (OSError, DataError):
        return ()
    return tuple((name, state.st_size, state.st_mtime_ns) for name, state in states)


def _rows_at_most(path: str, format: str) -> int:
    if format == "parquet":
        from pyarrow import ArrowException
        from pyarrow import parquet as arrow_parquet

        try:
            return int(arrow_parquet.read_metadata(data_file(path)).num_rows)
        except (ArrowException, OSError, ValueError):
            return 0
    count = 0
    for name, _, _ in _stamp(path):
        with opening.open_regular(Path(name)) as handle:
            count += sum(chunk.count(b"\n") for chunk in iter(lambda: handle.read(2**20), b""))
    return count
