"""Whether a run may go on: the same recipe, the same data, the same backbone."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from pathlib import Path
from typing import Any

import torch

from foreword.artifacts.manifest import versions
from foreword.backbone import Backbone
from foreword.common import opening
from foreword.common.differences import differences
from foreword.common.run_files import LOG, RUNS, holds_run, how_to_go_on, is_finished
from foreword.errors import RecipeError, UserError, argument
from foreword.recipe import Recipe, parse_recipe
from foreword.recipe.yaml_text import read_yaml
from foreword.training.checkpoints import Saved
from foreword.training.hardware import Hardware


def newest_unfinished(name: str) -> Path:
    """The run of a recipe's name below `runs/` that was started last and has not ended.

    Raises:
        UserError: there is none.
    """
    pattern = re.compile(rf"{re.escape(name)}(-\d+)?")
    places = [p for p in RUNS.glob(f"{name}*") if pattern.fullmatch(p.name) and holds_run(p)]
    unfinished = [p for p in places if not is_finished(p)]
    if not unfinished:
        others = f"; {len(places)} there are finished" if places else ""
        raise UserError(
            f"{argument('--resume', '`resume=True`')}: no unfinished run of '{name}' below "
            f"{RUNS}/{others}. Name its folder with {argument('--out')}, or leave "
            f"{argument('--resume')} off to start a new run"
        )
    return max(unfinished, key=lambda p: (p / "recipe.yaml").stat().st_mtime_ns)


def refuse_other_recipe(folder: Path, recipe: Recipe) -> None:
    """Make sure that a folder holds a run of this recipe, or nothing.

    Raises:
        UserError: it holds something else; the message names the first differences.
    """
    file = folder / "recipe.yaml"
    if not holds_run(folder):
        if folder.exists() and (not folder.is_dir() or not _only_strays(folder)):
            raise UserError(f"{folder}: is there already, and holds no run to resume")
        return
    _refuse_odd_files(folder)
    try:
        stored = parse_recipe(read_yaml(file, within=folder), where=str(file))
    except RecipeError as error:
        raise UserError(f"{file}: cannot be read, so the run cannot go on: {error}") from error
    if lines := differences(stored.model_dump(mode="json"), recipe.model_dump(mode="json")):
        raise UserError(
            "\n".join(
                [
                    f"{folder}: was started with another recipe, so it cannot go on with this one "
                    f"({how_to_go_on(folder)} goes on with its own):",
                    *lines,
                ]
            )
        )


def _refuse_odd_files(folder: Path) -> None:
    """A run writes into its folder again, so nothing in it may lead elsewhere.

    Raises:
        UserError: it holds a link out of it, a FIFO, a device or a socket, or cannot be read; or
            its log is a folder or a link, which are not written through.
    """
    try:
        opening.check_folder(folder)
    except OSError as error:
        raise UserError(f"{error.filename or folder}: {error.strerror}") from error
    log = folder / LOG
    if log.is_symlink() or log.is_dir():
        kind = "a link" if log.is_symlink() else "a folder"
        raise UserError(f"{log}: is no regular file but {kind}; move the log itself there")


def about(
    recipe: Recipe, backbone: Backbone, data: dict[str, Any], hardware: Hardware
) -> dict[str, Any]:
    """What every checkpoint says of its run."""
    whole = json.dumps(recipe.model_dump(mode="json"), sort_keys=True)
    return {
        "recipe_sha256": hashlib.sha256(whole.encode()).hexdigest(),
        "data": data,
        "backbone": {
            "name": backbone.name,
            "sha256": backbone.sha256,
            "tokenizer_sha256": backbone.tokens.sha256,
        },
        "made_with": {
            **versions(),
            "device": hardware.device.type,
            "processes": hardware.processes,
            "backbone.dtype": backbone.dtype,
            "precision": hardware.precision,
            "threads": torch.get_num_threads(),
            "machine": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        },
    }


def compare(saved: Saved, now: dict[str, Any]) -> list[str]:
    """Make sure that a checkpoint is of this run; returns what may change the last bits.

    Raises:
        UserError: the recipe, a data file or the backbone is another.
    """
    folder, before = saved.checkpoint.folder, saved.checkpoint.values["run"]

    def refuse(what: str, was: str, current: str) -> None:
        if was != current:
            raise UserError(
                f"{folder}: was made with {what} of sha256 {was[:12]}…, and now it is "
                f"{current[:12]}…; put the old one back, or start a new run"
            )

    refuse("a recipe", before["recipe_sha256"], now["recipe_sha256"])
    for split, entry in before["data"].items():
        file = entry.get("name", entry.get("path"))
        refuse(f"{file} ({split})", entry["sha256"], now["data"][split]["sha256"])
    name = f"the backbone '{before['backbone']['name']}'"
    refuse(f"{name}, its weights", before["backbone"]["sha256"], now["backbone"]["sha256"])
    refuse(
        f"{name}, its tokenizer",
        before["backbone"]["tokenizer_sha256"],
        now["backbone"]["tokenizer_sha256"],
    )
    was, current = before["made_with"], now["made_with"]
    return [
        f"{key} was {was.get(key)} and is {current.get(key)}"
        for key in {**was, **current}
        if was.get(key) != current.get(key)
    ]


def _only_strays(folder: Path) -> bool:
    return all(place.name.startswith(".recipe.yaml.") for place in folder.iterdir())
