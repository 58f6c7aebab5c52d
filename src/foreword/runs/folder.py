"""The run folder: claiming it, and what is written into it along the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list

from foreword import files
from foreword.errors import RunError, UserError
from foreword.evaluation import Report
from foreword.recipe import Recipe
from foreword.tasks import Example
from foreword.training.hardware import Hardware


def choose_folder(name: str, out: Path | None, hardware: Hardware) -> Path:
    """The run folder: `out`, or `runs/<name>` with a number if that is taken; nothing is made yet.

    Every process gets the same answer, or the same refusal.

    Raises:
        UserError: `out` is there already and is not empty.
    """
    answer: list[Any] = [None, None]
    if hardware.main:
        try:
            answer[0] = str(_free(name) if out is None else out)
            if out is not None:
                files.refuse_occupied(out)
        except UserError as error:
            answer[1] = str(error)
    if hardware.processes > 1:
        broadcast_object_list(answer)
    if answer[1] is not None:
        raise UserError(answer[1])
    return Path(answer[0])


def make_folder(folder: Path, recipe: Recipe, hardware: Hardware) -> None:
    """Make the run folder and write the whole recipe into it."""
    if hardware.main:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot be made a folder: {error.strerror}") from error
        files.write_text(folder / "recipe.yaml", recipe.to_yaml())
    hardware.wait()


def _free(name: str) -> Path:
    base = out = Path("runs") / name
    number = 1
    while out.exists() and (not out.is_dir() or any(out.iterdir())):
        number += 1
        out = base.with_name(f"{name}-{number}")
    return out


def write_answers(
    folder: Path, examples: Sequence[Example], report: Report, count: int
) -> list[dict[str, str]]:
    """Write `answers.jsonl`; returns `count` samples, spread over the examples."""
    rows = [
        {
            "input": source,
            "output": answer,
            "references": list(example.references),
            **({"group": example.group} if example.group else {}),
        }
        for source, answer, example in zip(report.sources, report.answers, examples, strict=True)
    ]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    files.write_text(folder / "answers.jsonl", text)
    spread = [i * len(rows) // max(1, count) for i in range(min(count, len(rows)))]
    return [
        {
            "input": str(rows[i]["input"]).strip(),
            "output": str(rows[i]["output"]),
            "reference": examples[i].references[0],
        }
        for i in spread
    ]


class Log:
    """Appends entries to `log.jsonl` as they come."""

    def __init__(self, file: Path, writes: bool) -> None:
        self.file, self.writes = file, writes

    def __enter__(self) -> Callable[[dict[str, Any]], None]:
        if not self.writes:
            return lambda _: None
        try:
            self.handle = self.file.open("w", encoding="utf-8", newline="\n")
        except OSError as error:
            raise RunError(f"{self.file}: cannot be written: {error.strerror}") from error
        return self._write

    def _write(self, entry: dict[str, Any]) -> None:
        self.handle.write(json.dumps(entry) + "\n")
        self.handle.flush()

    def __exit__(self, *_: object) -> None:
        if self.writes:
            self.handle.close()
