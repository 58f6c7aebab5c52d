"""Runs that start from the artifact of another run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from stopping import Killed, Told

from foreword.artifacts.manifest import read_manifest
from foreword.backbone import Backbone
from foreword.cli import main
from foreword.errors import ArtifactError, UserError
from foreword.recipe import load_recipe
from foreword.runs import Run, train
from foreword.runs.preview import preview

STILL = {"steps": 1, "learning_rate": 1e-300, "schedule": "constant", "weight_decay": 0.0}
"""A step that moves no number."""
PREFIX = {"name": "prefix-tuning", "length": 4, "reparameterization": "table"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        {"text": f"a {word} {thing}", "answer": answer, "mood": word}
        for thing in ("day", "film", "meal")
        for word, answer in (("good", "yes"), ("bad", "no"))
    ]
    file = tmp_path_factory.mktemp("data") / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return file


def recipe(data: Path, method: Any, *, task: Any = None, **training: Any) -> dict[str, Any]:
    columns = {"references": "answer"} if task is None else task["data"]
    return {
        "version": 1,
        "name": "transferred",
        "backbone": "foreword/mini",
        "method": method,
        "task": {
            "input": "{text} ->",
            "target": " {reference}",
            **(task or {}),
            "data": {"format": "jsonl", "train": str(data), "dev": str(data), **columns},
        },
        "training": {"steps": 3, "batch_size": 4, "learning_rate": 0.1, "epochs": None, **training},
        "decoding": {"max_new_tokens": 3},
        "evaluation": {"backbone_alone": False},
    }


def start(tiny: Backbone, given: Any, out: Path, **more: Any) -> Run:
    return train(given, out=out, backbone=tiny, device="cpu", **more)


@pytest.fixture(scope="module")
def source(tiny: Backbone, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return start(tiny, recipe(data, PREFIX), tmp_path_factory.mktemp("source") / "first")


def onwards(source: Run, **options: Any) -> dict[str, Any]:
    init = {"kind": "artifact", "path": str(source.folder)}
    return {"name": "prefix-tuning", "reparameterization": "table", "init": init, **options}


@pytest.mark.parametrize("made_by", ["table", {"kind": "mlp", "hidden": 8, "fit_steps": 3}])
def test_a_run_that_moves_nothing_is_the_artifact(
    made_by: Any, source: Run, tiny: Backbone, data: Path, tmp_path: Path
) -> None:
    given = recipe(data, onwards(source, reparameterization=made_by), **STILL)
    told = Told()
    run = start(tiny, given, tmp_path / "second", progress=told)
    before, after = (load_file(r.artifact / "prompt.safetensors") for r in (source, run))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-6)
    answers = [(r.folder / "answers.jsonl").read_text(encoding="utf-8") for r in (source, run)]
    assert answers[0] == answers[1]
    assert not [line for line in told.lines if "method.init" in line]
    assert run.metrics["training"]["initial_fit_error"] == 0.0
    assert (read_manifest(run.artifact).method.length, run.recipe.method.length) == (4, 4)


def test_what_it_started_from_is_written_down(
    source: Run, tiny: Backbone, data: Path, tmp_path: Path
) -> None:
    run = start(tiny, recipe(data, onwards(source)), tmp_path / "second")
    manifest = read_manifest(run.artifact)
    assert manifest.method.init.path == "first"
    assert manifest.recipe["method"]["init"]["path"] == "first"
    assert manifest.data["init"]["name"] == "transferred"
    assert len(manifest.data["init"]["sha256"]) == 64
    stored = load_recipe(run.folder / "recipe.yaml")
    assert (stored.method.init.path, stored.method.length) == (str(source.folder), 4)
    text = "".join((run.artifact / name).read_text("utf-8") for name in ("foreword.json",))
    assert str(source.folder) not in text
    third = start(tiny, recipe(data, onwards(run)), tmp_path / "third")
    assert read_manifest(third.artifact).method.init.path == "second"


def test_a_run_that_was_killed_ends_with_the_same_bits(
    source: Run, tiny: Backbone, data: Path, tmp_path: Path
) -> None:
    made_by = {"kind": "mlp", "hidden": 8, "fit_steps": 3}
    method = onwards(source, reparameterization=made_by, length=6)
    given = recipe(data, method, steps=4, checkpoint_every=1)
    whole = start(tiny, given, tmp_path / "whole")
    for at in (1, 2):
        with pytest.raises(Killed):
            start(tiny, given, tmp_path / "run", resume=True, progress=Told(at))
    run = start(tiny, given, tmp_path / "run", resume=True)
    for name in ("artifact/prompt.safetensors", "answers.jsonl", "log.jsonl"):
        assert (run.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name


def test_it_does_not_go_on_from_another_artifact(
    source: Run, tiny: Backbone, data: Path, tmp_path: Path
) -> None:
    first = start(tiny, recipe(data, PREFIX), tmp_path / "first")
    given = recipe(data, onwards(first), checkpoint_every=1)
    with pytest.raises(Killed):
        start(tiny, given, tmp_path / "run", progress=Told(2))
    manifest = first.artifact / "foreword.json"
    manifest.write_text(manifest.read_text("utf-8") + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"was made with transferred \(init\) of sha256"):
        start(tiny, given, tmp_path / "run", resume=True)


def test_paths_are_relative_to_the_recipe_and_to_the_command(
    data: Path, source: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "recipes" / "second.yaml"
    file.parent.mkdir()
    init = {"kind": "artifact", "path": "../runs/first"}
    given = recipe(data, {**PREFIX, "init": init})
    file.write_text(yaml.safe_dump(given), encoding="utf-8")
    assert load_recipe(file).method.init.path == str(tmp_path / "runs" / "first")
    monkeypatch.chdir(tmp_path / "recipes")
    here = str(tmp_path / "recipes" / "there")
    for override in (
        "method.init.path=there",
        "method.init={kind: artifact, path: there}",
        "method={name: prefix-tuning, init: {kind: artifact, path: ./there}}",
    ):
        assert load_recipe(file, [override]).method.init.path == here, override


def test_a_dry_run_says_what_a_run_would(
    source: Run, tiny: Backbone, data: Path, tmp_path: Path
) -> None:
    given = recipe(data, onwards(source, length=6))
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(given), encoding="utf-8")
    shown = preview(load_recipe(file), backbone=tiny)
    (note,) = [note for note in shown.notes if "method.init" in note]
    assert note.endswith(
        "holds 4 virtual tokens, which come first; the other 2 start as by `init: random`"
    )
    given["method"]["init"]["path"] = str(tmp_path / "none")
    file.write_text(yaml.safe_dump(given), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"^method\.init\.path: .*there is no such folder"):
        preview(load_recipe(file), backbone=tiny)


def test_another_task_takes_the_prompt_and_a_new_head(
    source: Run, tiny: Backbone, data: Path, tmp_path: Path
) -> None:
    """From writing to labels, and on to the same labels."""
    task = {"data": {"label": "answer"}, "input": "{text}", "metrics": None}
    told = Told()
    second = start(
        tiny, recipe(data, onwards(source), task=task), tmp_path / "second", progress=told
    )
    assert [line for line in told.lines if "the head starts anew: the artifact has none" in line]
    told = Told()
    given = recipe(data, onwards(second), task=task, **STILL)
    third = start(tiny, given, tmp_path / "third", progress=told)
    assert not [line for line in told.lines if "method.init" in line]
    heads = [load_file(run.artifact / "head.safetensors") for run in (second, third)]
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[0])


def test_cpt_goes_on_with_its_own_context(tiny: Backbone, data: Path, tmp_path: Path) -> None:
    words = {"words": {"yes": "good", "no": "bad"}}
    task = {"data": {"label": "answer"}, "input": "{text} is {mask}", "verbalizer": words}
    method = {"name": "cpt", "length": 64, "init": {"kind": "context", "shots": 4}}
    moving = {"learning_rate": 0.01, "steps": 4}
    first = start(tiny, recipe(data, method, task=task, **moving), tmp_path / "first")
    init = {"kind": "artifact", "path": str(first.folder)}
    given = recipe(data, {"name": "cpt", "init": init}, task=task, **STILL)
    second = start(tiny, given, tmp_path / "second")
    before, after = (load_file(r.artifact / "prompt.safetensors") for r in (first, second))
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-6)
    contexts = [read_manifest(run.artifact).method.context for run in (first, second)]
    assert contexts[0].tokens == contexts[1].tokens != ()
    assert contexts[0].types == contexts[1].types


def test_what_does_not_fit_ends_with_status_2(
    mini: Backbone, data: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "recipe.yaml"
    first = start(mini, recipe(data, PREFIX), tmp_path / "first")
    given = recipe(data, {**onwards(first), "name": "prompt-tuning"})
    file.write_text(yaml.safe_dump(given), encoding="utf-8")
    out = tmp_path / "run"
    monkeypatch.setattr(sys, "argv", ["foreword", "train", str(file), "--out", str(out)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "foreword: method.init: " in said
    assert "take a method whose prompts enter alike" in said
    assert not out.exists()


def test_a_comparison_runs_anew_where_the_artifact_is_another(
    source: Run, tiny: Backbone, data: Path, tmp_path: Path
) -> None:
    from foreword.comparing.cells import content_hash
    from foreword.comparing.grid import Cell
    from foreword.recipe import parse_recipe

    first = start(tiny, recipe(data, PREFIX), tmp_path / "first")
    parsed = parse_recipe(recipe(data, onwards(first)))
    cells = [Cell({}, parsed) for _ in range(2)]
    before = content_hash(cells[0])
    assert content_hash(cells[1]) == before
    manifest = first.artifact / "foreword.json"
    manifest.write_text(manifest.read_text("utf-8") + "\n", encoding="utf-8")
    assert content_hash(cells[0]) != before
