"""Where the runs of a grid lie: each in a folder named by what decides its figures. No torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from foreword.artifacts.manifest import versions
from foreword.common import files
from foreword.common.run_files import holds_run, is_finished
from foreword.comparing.grid import Cell
from foreword.data import bare_name, source_sha256

RUNS, PLAN = "runs", "plan.json"
DECIDING = ("foreword", "torch", "transformers")
"""Packages of which another version may give other figures."""
State = Literal["waiting", "begun", "finished"]


@dataclass(frozen=True)
class Place:
    """A cell and its run folder.

    Attributes:
        cell: what is run.
        folder: where; it is there once the run has begun.
    """

    cell: Cell
    folder: Path

    @property
    def state(self) -> State:
        """How far the run has come, by its folder."""
        if is_finished(self.folder):
            return "finished"
        return "begun" if holds_run(self.folder) else "waiting"


def places_of(cells: Sequence[Cell], out: Path) -> list[Place]:
    """The run folder of each cell, below `out`.

    Two cells that say the same are one run.

    Raises:
        UserError: a data file is missing.
    """
    return [Place(cell, out / RUNS / f"{_slug(cell)}-{content_hash(cell)[:12]}") for cell in cells]


def content_hash(cell: Cell) -> str:
    """sha256 of what decides a run's figures: its recipe, its data, what its teacher reads, the
    artifact that it starts from, and the code's versions.

    Raises:
        UserError: a data file, a text or that artifact is missing.
    """
    recipe = cell.recipe.model_dump(mode="json", exclude={"name"})
    data = recipe["task"]["data"]
    for split in ("train", "dev", "test", "unlabelled"):
        if (path := data.get(split)) is not None:
            data[split] = [bare_name(path), _sha256(path)]
    if cell.recipe.teacher is not None:
        recipe["teacher"]["texts"] = [_sha256(path) for path in cell.recipe.teacher.texts]
        for name in ("prompt", "conversations"):
            if (path := recipe["teacher"][name]) is not None:
                recipe["teacher"][name] = _sha256(path)
    init = cell.recipe.method.init
    if init.paths:
        from foreword.artifacts.starting import source_hash

        recipe["method"]["init"] |= dict.fromkeys(init.paths, source_hash(init))
    code = {name: version for name, version in versions().items() if name in DECIDING}
    text = json.dumps([recipe, code], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def write_plan(out: Path, name: str, places: Sequence[Place]) -> None:
    """Write which folder holds which run, so that the comparison can be read without the grid."""
    out.mkdir(parents=True, exist_ok=True)
    plan = {
        "version": 1,
        "name": name,
        "runs": [
            {
                "choices": dict(place.cell.choices),
                "seed": place.cell.recipe.seed,
                "drawn": dict(place.cell.drawn),
                "folder": str(place.folder.relative_to(out)),
            }
            for place in places
        ],
    }
    files.write_text(out / PLAN, json.dumps(plan, indent=2, ensure_ascii=False) + "\n")


@lru_cache(maxsize=256)
def _sha256(path: str) -> str:
    return source_sha256(path)


def _slug(cell: Cell) -> str:
    words = re.sub(r"[^A-Za-z0-9.]+", "-", cell.name).strip("-.")
    return words[:80].strip("-.") or "run"
