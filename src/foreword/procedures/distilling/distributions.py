"""What a teacher says at each token of the answers, computed once and kept beside them.

The file is safetensors: `tokens` `[N, k]` int32, `logs` `[N, k]` and `rest` `[N]` (see
`foreword.backbone.layout.Taught`) of all rows one after the other, `counts` `[rows]` the predicted
tokens of each; its metadata has for each row a hash of all that decides what the teacher says. Rows
that are there under their hash are not computed again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from foreword.axes.readout.divergence import likeliest
from foreword.backbone.layout import Pair, Taught
from foreword.common import files, opening
from foreword.common.json_text import parse_json
from foreword.errors import RunError
from foreword.procedures.distilling.teacher import Teacher

FORMAT = "1.0"
TOGETHER = 8
"""Rows of one forward pass of the teacher."""
SAVED_EVERY = 8
"""Fewest forward passes from one writing of the file to the next."""
GROWTH = 4
"""The file is written whole, and so once there is this part of it to add: what is written in all
grows as the rows do, and a run that is killed loses a fifth of its passes at most."""


@dataclass(frozen=True)
class Lesson:
    """A row that is learned.

    Attributes:
        pair: as the student reads it.
        behind: as it stands behind the teacher's text; what is predicted is the same.
        reads: the parts of the text that the teacher reads.
    """

    pair: Pair
    behind: Pair
    reads: tuple[int, ...]


def key_of(backbone: str, front: Sequence[int], pair: Pair, k: int) -> str:
    """A hash of all that decides what a teacher says of a row.

    Args:
        backbone: what tells the backbone and its arithmetic apart.
        front: the tokens of what the teacher reads first.
        pair: the row behind it.
        k: how many tokens are kept.
    """
    decides = [FORMAT, backbone, list(front), *parts_of(pair), k]
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()


def parts_of(pair: Pair) -> tuple[Any, ...]:
    """What of a row decides what a teacher says of it."""
    return pair.source, pair.target, pair.between


def taught(
    lessons: Sequence[Lesson],
    teacher: Callable[[tuple[int, ...]], Teacher],
    k: int,
    file: Path,
    advance: Callable[[int], None] = lambda _: None,
    *,
    remembered: Path | None = None,
) -> list[Pair]:
    """The rows with what their teachers say of them.

    Rows of one teacher are read together, in an order and in batches that depend on all rows and on
    nothing that is known already: what is computed after an interruption has the same bits.

    Args:
        lessons: the rows.
        teacher: from parts of the text to the backbone that has read them.
        k: how many tokens are kept at each position.
        file: where what is computed is kept.
        advance: called with the number of rows that are done.
        remembered: a file of what other runs have computed of the same rows, and where this one
            leaves it for others; where that cannot be written, nothing is.

    Raises:
        RunError: the file cannot be written.
    """
    known = read(file)
    stored = list(known)
    shared = {} if remembered is None else read(remembered)
    known |= {key: part for key, part in shared.items() if key not in known}
    kept: dict[int, tuple[str, Taught]] = {}
    by_teacher: dict[tuple[int, ...], list[int]] = {}
    for number, lesson in enumerate(lessons):
        by_teacher.setdefault(lesson.reads, []).append(number)
    passes, written = 0, len(known) // TOGETHER
    for reads, members in by_teacher.items():
        one = teacher(reads)
        backbone = one.backbone
        about = json.dumps([backbone.sha256, backbone.dtype, backbone.attention])
        order = sorted(members, key=lambda number: (lessons[number].behind.length, number))
        for start in range(0, len(order), TOGETHER):
            numbers = order[start : start + TOGETHER]
            rows = [lessons[number].behind for number in numbers]
            keys = [key_of(about, one.front, row, k) for row in rows]
            if any(key not in known for key in keys):
                parts = _said(one, rows, k)
                passes += 1
                for key, part in zip(keys, parts, strict=True):
                    known.setdefault(key, part)
            for number, key in zip(numbers, keys, strict=True):
                kept[number] = key, known[key]
            if passes >= max(SAVED_EVERY, written // GROWTH):
                write(file, list(known.items()))
                stored, written, passes = list(known), written + passes, 0
            advance(len(numbers))
    rows_kept = [kept[number] for number in range(len(lessons))]
    if stored != [key for key, _ in rows_kept]:
        write(file, rows_kept)
    if remembered is not None and any(key not in shared for key, _ in rows_kept):
        with suppress(OSError, RunError):
            remembered.parent.mkdir(parents=True, exist_ok=True)
            write(remembered, rows_kept)
    return [
        replace(lesson.pair, taught=part)
        for lesson, (_, part) in zip(lessons, rows_kept, strict=True)
    ]


@torch.no_grad()
def _said(teacher: Teacher, rows: Sequence[Pair], k: int) -> list[Taught]:
    """What a teacher says of some rows, in one forward pass."""
    model = teacher.model
    layout = model.lay_out(rows)
    logits = model.backbone.logits(model.call(layout), layout.reading_positions())
    whole = likeliest(logits, k).to("cpu")
    counts = [len(row.predicted) for row in rows]
    parts = zip(*(torch.split(side, counts) for side in _sides(whole)), strict=True)
    return [Taught(tokens.int(), logs, rest) for tokens, logs, rest in parts]


def write(file: Path, rows: Sequence[tuple[str, Taught]]) -> None:
    """Write rows with their hashes, in one move."""
    whole = Taught.joined([part for _, part in rows])
    tensors = dict(zip(("tokens", "logs", "rest"), _sides(whole), strict=True))
    counts = torch.tensor([len(part.rest) for _, part in rows], dtype=torch.int32)
    metadata = {"format": FORMAT, "rows": json.dumps([key for key, _ in rows])}
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    files.write_bytes(file, save({**tensors, "counts": counts}, metadata))


def read(file: Path) -> dict[str, Taught]:
    """What a file knows, by hash; nothing where there is no file, or one that is damaged: what is
    missing is computed again."""
    try:
        opening.check_regular(file, within=file.parent)
        with safe_open(file, framework="pt") as stored:
            metadata = stored.metadata() or {}
            if metadata.get("format") != FORMAT:
                return {}
            sides = [stored.get_tensor(name) for name in ("tokens", "logs", "rest", "counts")]
        keys = parse_json(metadata["rows"])
    except (OSError, SafetensorError, ValueError, KeyError):
        return {}
    *whole, counts = sides
    if len(keys) != len(counts) or any(len(side) != int(counts.sum()) for side in whole):
        return {}
    parts = zip(*(torch.split(side, counts.tolist()) for side in whole), strict=True)
    return {key: Taught(*part) for key, part in zip(keys, parts, strict=True)}


def _sides(part: Taught) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return part.tokens, part.logs, part.rest
