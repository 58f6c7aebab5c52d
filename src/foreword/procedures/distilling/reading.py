"""The files of texts that are distilled. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from foreword.data.lines import text_lines
from foreword.errors import DataError


def read_text(file: str) -> str:
    """A file's text, without blanks around it.

    Raises:
        DataError: it is not there, is not UTF-8, or holds nothing but blanks.
    """
    text = "".join(line for _, line in text_lines(Path(file))).strip()
    if not text:
        raise DataError(f"{file}: is empty; a teacher needs a text to read")
    return text


def read_whole(files: Sequence[str]) -> str:
    """Several files as one text, in their order; errors as `read_text`."""
    return "\n\n".join(read_text(file) for file in files)
