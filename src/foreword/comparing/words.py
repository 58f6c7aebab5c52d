"""The nearest words of a run's virtual tokens, kept beside its figures. No torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.common import files, opening
from foreword.common.json_text import parse_json
from foreword.common.run_files import ARTIFACT

if TYPE_CHECKING:
    from foreword.backbone import Backbone

WORDS = "words.json"
_BYTES = 2**24
Words = list[list[str]]
"""For each virtual token its nearest words, the nearest first."""


def write_words(folder: Path, backbone: Backbone) -> None:
    """Keep them in the run folder, where virtual tokens enter the input."""
    from foreword.artifacts.nearest import nearest_words

    if not (folder / ARTIFACT).is_dir():
        return
    sites = nearest_words(folder / ARTIFACT, backbone)
    if sites:
        words = [[word.word for word in token] for tokens in sites.values() for token in tokens]
        files.write_text(folder / WORDS, json.dumps(words, ensure_ascii=False) + "\n")


def read_words(folder: Path) -> Words:
    """Them again; none where there are none, or the file is damaged."""
    try:
        raw: Any = parse_json(opening.read_text(folder / WORDS, within=folder, most=_BYTES))
    except (OSError, ValueError):
        return []
    sound = isinstance(raw, list) and all(isinstance(token, list) for token in raw)
    return [[str(word) for word in token] for token in raw] if sound else []
