"""The files of texts that are distilled. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from foreword.common import files, opening
from foreword.common.json_text import parse_json
from foreword.data.lines import text_lines
from foreword.errors import DataError, UserError


def read_text(file: str) -> str:
    """A file's text, without blanks around it.

    Raises:
        DataError: it is not there, is not UTF-8, or holds nothing but blanks.
    """
    text = "".join(line for _, line in text_lines(Path(file))).strip()
    if not text:
        raise DataError(f"{file}: is empty; a teacher needs a text to read")
    return text


def read_whole(names: Sequence[str]) -> str:
    """Several files as one text, in their order; errors as `read_text`."""
    return "\n\n".join(read_text(file) for file in names)


def refuse_other_text(file: Path, text: str) -> None:
    """Make sure that what was made so far is of this text; its hash is written down once.

    Args:
        file: JSON, where the hash is kept.
        text: what is read now.

    Raises:
        UserError: another text was read before.
        RunError: the file cannot be written.
    """
    now = hashlib.sha256(text.encode()).hexdigest()
    try:
        before = parse_json(opening.read_text(file, within=file.parent))["text_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        files.write_text(file, json.dumps({"text_sha256": now}) + "\n")
        return
    if before != now:
        raise UserError(
            f"{file.parent}: was begun with another text (sha256 {str(before)[:12]}…, and now it "
            f"is {now[:12]}…); put the old one back, or start a new run"
        )
