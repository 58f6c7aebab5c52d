"""How much of a budget of time is spent, over all parts of a run that was stopped and went on."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from foreword.common import files, opening
from foreword.common.json_text import parse_json


class Clock:
    """Counts the seconds of a run, and keeps what was settled by them.

    Args:
        file: JSON, where both are kept.
        budget: in seconds; None: any time.
    """

    def __init__(self, file: Path, budget: float | None) -> None:
        self.file, self.budget = file, budget
        self.began = time.monotonic()
        self.kept: dict[str, Any] = _read(file)
        self.before = float(self.kept.get("seconds", 0.0))

    @property
    def spent(self) -> float:
        """Seconds so far."""
        return self.before + time.monotonic() - self.began

    def left(self, share: float = 1.0) -> float | None:
        """Seconds that are left of a share of the budget; None: any number."""
        return None if self.budget is None else max(0.0, share * self.budget - self.spent)

    def keep(self, **settled: Any) -> None:
        """Write down how much is spent, and what was settled."""
        if self.budget is not None:
            self.kept |= {"seconds": round(self.spent, 2), **settled}
            files.write_text(self.file, json.dumps(self.kept) + "\n")


def _read(file: Path) -> dict[str, Any]:
    try:
        kept = parse_json(opening.read_text(file, within=file.parent))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}
