"""Rows of two tasks, and recipes of multitask prompt tuning on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

STORED = {
    "embeddings": "embedding.weight",
    "task_columns": "prefix_task_cols",
    "task_rows": "prefix_task_rows",
}
"""What an artifact calls a tensor within its site -> PEFT's name of the parameter."""


def rows_of_tasks(folder: Path) -> Path:
    """Two tasks that ask the same and want other answers."""
    rows = [
        {"text": text, "task": task, "answer": text.upper() if task == "loud" else text[::-1]}
        for text in ("robin", "otter", "heron", "finch")
        for task in ("loud", "back")
    ]
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def recipe(rows: Path, **more: Any) -> dict[str, Any]:
    data = {
        "format": "jsonl",
        "train": str(rows),
        "dev": str(rows),
        "references": "answer",
        "group": "task",
    }
    method = {"name": "multitask-prompt-tuning", "length": 4, "task_column": "task"}
    return {
        "version": 1,
        "name": "several",
        "backbone": "foreword/mini",
        "task": {"data": data, "input": "{text} ->", "target": " {reference}"},
        "method": {**method, **more.pop("method", {})},
        "training": {"steps": 6, "batch_size": 4, "learning_rate": 0.05, "best_by": None},
        "evaluation": {"backbone_alone": False},
        "decoding": {"max_new_tokens": 8},
        **more,
    }
