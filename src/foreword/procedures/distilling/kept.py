"""Conversations that were made once, for every run that would make the same, and what a teacher
says of them: a prompt's length or method changes neither."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from foreword.artifacts.manifest import versions
from foreword.backbone import Backbone
from foreword.common import cached, files
from foreword.procedures.distilling import study
from foreword.procedures.distilling.distributions import Lesson, parts_of
from foreword.recipe import TeacherSpec


def key_of_study(spec: TeacherSpec, backbone: Backbone, text: str, **others: Any) -> str:
    """Where conversations are kept: differs where others would be made.

    Args:
        spec: the recipe's section.
        backbone: makes them.
        text: they are about it.
        others: what else decides them.
    """
    section = spec.model_dump(exclude={"texts", "prompt", "conversations", "top_k", "budget"})
    decides = {
        "format": study.FORMAT,
        "teacher": {**section, "learns": spec.prompt is None},
        "text": text,
        "backbone": [backbone.sha256, backbone.dtype, backbone.attention, backbone.device.type],
        "quantization": backbone.quantization,
        "tokens": [backbone.tokens.sha256, backbone.tokens.bos],
        "versions": versions(),
        **others,
    }
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode())
    return f"studies/{digest.hexdigest()}.json"


def place_of_lessons(lessons: Sequence[Lesson], k: int, device: str) -> Path:
    """Where what a teacher says of some rows is kept for other runs. The file tells by itself whose
    teacher it was of which row.

    Args:
        lessons: all rows of a set.
        k: how many tokens are kept at each position.
        device: the kind that computes it, which rounds in its own way.
    """
    rows = [(*parts_of(one.behind), one.reads) for one in lessons]
    digest = hashlib.sha256(json.dumps([rows, k, device, versions()], sort_keys=True).encode())
    return cached.cache_folder() / "studies" / f"{digest.hexdigest()}.safetensors"


def made_once(
    key: str, file: Path, make: Callable[[], list[dict[str, Any]]]
) -> tuple[list[dict[str, Any]], bool]:
    """The conversations of a file: those that it has begun, those that are kept, or new ones.

    Args:
        key: of `key_of_study`.
        file: JSONL, where they go.
        make: goes on with the file.

    Returns:
        The conversations, and whether they were kept.
    """
    known = None if file.exists() else cached.recall(key)
    if isinstance(known, str) and known:
        files.write_text(file, known)
        return study.read_rows(file), True
    rows = make()
    cached.remember(key, study.lines_of(rows))
    return rows, False
