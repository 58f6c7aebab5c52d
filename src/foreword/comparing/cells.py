"""Where the runs of a grid lie: each in a folder named by what decides its figures. Imports no
torch, unless a local backbone's weights are looked at."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from foreword.artifacts.manifest import versions
from foreword.common import files, opening
from foreword.common.paths import is_backbone
from foreword.common.run_files import holds_run, is_finished
from foreword.comparing.grid import Cell
from foreword.data import bare_name, source_sha256
from foreword.data.sources import HUB, is_bundled
from foreword.extensions import loaded_plugins
from foreword.recipe import BackboneSpec

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
    """The run folder of each cell, below `out`: one that is there, whatever the cell is called,
    else a new one that has the cell's name in its own.

    Two cells that say the same are one run.

    Raises:
        UserError: a data file is missing, or a local backbone has no weights.
    """
    there: dict[str, list[Path]] = {}
    for known in sorted((out / RUNS).glob("*-*")):
        there.setdefault(digest_in(known.name), []).append(known)
    new: dict[str, Path] = {}
    places = []
    for cell in cells:
        digest = content_hash(cell)[:12]
        folder = _furthest(there.get(digest, ()))
        own = out / RUNS / f"{_slug(cell)}-{digest}"
        places.append(Place(cell, folder or new.setdefault(digest, own)))
    return places


def distinct(places: Sequence[Place]) -> list[Place]:
    """One place for each folder, the first."""
    first: dict[Path, Place] = {}
    for place in places:
        first.setdefault(place.folder, place)
    return list(first.values())


def digest_in(name: str) -> str:
    """What of a run folder's name follows from the run's content."""
    return name.rpartition("-")[2]


def _furthest(folders: Sequence[Path]) -> Path | None:
    """Of the folders of one run, the one that is furthest; None where none is begun."""
    for reached in (is_finished, holds_run):
        for folder in folders:
            if reached(folder):
                return folder
    return None


def content_hash(cell: Cell) -> str:
    """sha256 of what decides a run's figures: its recipe, all files that it reads, the artifact
    that it starts from, the weights of a local backbone, the code's versions, and loaded plug-ins.

    Raises:
        UserError: a file or that artifact is missing, or a local backbone has no weights.
    """
    recipe = cell.recipe.model_dump(mode="json", exclude={"name"})
    for key, path in cell.recipe.files.items():
        *sections, name = key.split(".")
        within: Any = recipe
        for section in sections:
            within = within[section]
        digest = _sha256(path, _stamp(path))
        in_data = key.startswith("task.data.")
        within[int(name) if isinstance(within, list) else name] = (
            [bare_name(path), digest] if in_data else digest
        )
    weights = _weights(cell.recipe.backbone)
    if weights is not None:
        recipe["backbone"]["sha256"] = weights
    init = cell.recipe.method.init
    if init.paths:
        from foreword.artifacts.starting import source_hash

        recipe["method"]["init"] |= dict.fromkeys(init.paths, source_hash(init))
    code: dict[str, Any] = {
        name: version for name, version in versions().items() if name in DECIDING
    }
    if plugins := sorted(_sha256(file, _stamp(file)) for file in loaded_plugins()):
        code["plugins"] = plugins
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


def _weights(backbone: BackboneSpec) -> str | None:
    """sha256 of a local backbone's stored tensors, of a GGUF file's bytes; None: it has a name."""
    place = Path(backbone.name)
    if is_bundled(backbone.name) or not is_backbone(place):
        return None
    if not place.is_dir():
        return _sha256(backbone.name, _stamp(backbone.name))
    from foreword.backbone.weights.hashing import hash_folder

    return hash_folder(place)


def _stamp(path: str) -> tuple[tuple[int, ...], ...]:
    """Changes where a file, or one of a folder's, is written; of a name there is nothing."""
    if path.startswith(HUB) or is_bundled(path):
        return ()
    place = Path(path)
    try:
        inside = opening.walk(place) if place.is_dir() else (place,)
        stats = [file.stat() for file in inside]
    except OSError:  # said where it is read
        return ()
    return tuple((one.st_ino, one.st_size, one.st_mtime_ns) for one in stats)


@lru_cache(maxsize=256)
def _sha256(path: str, stamp: tuple[tuple[int, ...], ...]) -> str:  # noqa: ARG001
    return source_sha256(path)


def _slug(cell: Cell) -> str:
    words = re.sub(r"[^A-Za-z0-9.]+", "-", cell.name).strip("-.")
    return words[:80].strip("-.") or "run"
