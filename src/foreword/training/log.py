"""`log.jsonl`: one line a step and an evaluation; on resume it is cut back to a checkpoint."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from foreword.common import files, opening
from foreword.common.json_text import parse_json
from foreword.errors import RunError


class Log:
    """Appends entries as they come.

    Args:
        file: where; what stands there is cut back to `mark`, or removed without one.
        mark: what `Log.mark` gave at the checkpoint that is gone on with.
        writes: False in processes that do not write.
    """

    def __init__(self, file: Path, mark: dict[str, Any] | None = None, writes: bool = True) -> None:
        self.file, self.writes, self.size = file, writes, 0
        self.digest = hashlib.sha256()
        if not writes:
            return
        try:
            # What a link leads to would be cut, so none is followed.
            self.handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            if mark is not None:
                self.size = mark["bytes"]
                self.digest.update(os.pread(self.handle, self.size, 0))
            os.ftruncate(self.handle, self.size)
            os.lseek(self.handle, self.size, os.SEEK_SET)
        except OSError as error:
            raise RunError(f"{file}: cannot be written: {error.strerror}") from error

    def __call__(self, entry: dict[str, Any]) -> None:
        """Append an entry."""
        if not self.writes:
            return
        line = f"{json.dumps(entry)}\n".encode()
        try:
            files.write_all(self.handle, line)
        except OSError as error:
            raise RunError(f"{self.file}: cannot be written: {error.strerror}") from error
        self.digest.update(line)
        self.size += len(line)

    def mark(self) -> dict[str, Any]:
        """How far the log goes now, and the hash of it; the disk has it when this returns."""
        try:
            os.fsync(self.handle)
        except OSError as error:
            raise RunError(f"{self.file}: cannot be written: {error.strerror}") from error
        return {"bytes": self.size, "sha256": self.digest.hexdigest()}

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self.writes:
            os.close(self.handle)


def read_log(file: Path, mark: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries up to a mark; ValueError if they are not those that were written."""
    with opening.open_regular(file, within=file.parent) as handle:
        head = handle.read(mark["bytes"])
    if hashlib.sha256(head).hexdigest() != mark["sha256"]:
        raise ValueError(f"{file.name} is not what was written up to this checkpoint")
    return [parse_json(line) for line in head.splitlines()]
