"""What is remembered from one run to the next, below the user's cache folder. No torch.

`FOREWORD_CACHE` names the folder; else it is `foreword` in the user's cache. All of it can be
removed at any time: what is missing is computed again.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

from foreword.common import opening
from foreword.common.json_text import parse_json

MOST_BYTES = 2**24


def cache_folder() -> Path:
    """Where things are remembered; the folder need not be there."""
    named = os.environ.get("FOREWORD_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "foreword")


def recall(name: str) -> Any:
    """What was remembered by a name, such as `baselines/1f….json`; None if nothing readable is."""
    file = cache_folder() / name
    try:
        return parse_json(opening.read_text(file, most=MOST_BYTES))
    except (OSError, ValueError):
        return None


def remember(name: str, value: Any) -> None:
    """Remember plain data by a name, in one move. Where that cannot be written, nothing is: a cache
    costs time, not correctness."""
    file = cache_folder() / name
    temporary = file.with_name(f".{file.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(value, indent=1), encoding="utf-8")
        temporary.replace(file)
    except OSError:
        return
