"""Whole runs in which something of the backbone moves: written, said, resumed, loaded again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from stopping import Killed, Told
from transformers import AutoTokenizer

import foreword
from axes.deltas.moving import MOVING, method
from conftest import one_of_each
from families.catalogue import plain_model
from foreword.artifacts.manifest import read_manifest
from foreword.backbone import Backbone, bundled_backbones, load_backbone
from foreword.cli import main
from foreword.errors import RecipeError
from foreword.methods import METHODS
from foreword.recipe import load_recipe, parse_recipe, recipe_schema
from foreword.runs import Run, train

RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "methods"
MIXED = {"name": "prefix-tuning", "length": 2, "reparameterization": "table", "delta": "bitfit"}


def folder_of(family: str, folder: Path) -> Path:
    plain_model(family, torch.float32, vocab_size=8192).save_pretrained(folder)
    AutoTokenizer.from_pretrained(bundled_backbones()["foreword/mini"]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    folder = folder_of(request.param, tmp_path_factory.mktemp(request.param))
    return load_backbone(str(folder), device="cpu")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(str(folder_of("gpt2", tmp_path_factory.mktemp("one"))), device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        {"text": f"a {word} {thing}", "answer": answer}
        for thing in ("day", "film", "meal")
        for word, answer in (("good", "yes"), ("bad", "no"))
    ]
    file = tmp_path_factory.mktemp("data") / "train.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return file


def recipe(backbone: Backbone, data: Path, options: Any, **training: Any) -> dict[str, Any]:
    """To write the answer, or on an encoder to choose it."""
    column = "label" if backbone.geometry.kind == "encoder" else "references"
    return {
        "version": 1,
        "name": "moved",
        "backbone": backbone.name,
        "method": options,
        "task": {
            "data": {"format": "jsonl", "train": str(data), "dev": str(data), column: "answer"},
            "input": "{text}",
        },
        "training": {"steps": 4, "batch_size": 4, "evaluate_every": 2, "epochs": None, **training},
        "decoding": {"max_new_tokens": 3},
    }


def start(backbone: Backbone, given: dict[str, Any], out: Path, **more: Any) -> Run:
    return train(given, out=out, backbone=backbone, device="cpu", **more)


OPTIONS: dict[str, Any] = {**{name: name for name in MOVING}, "mixed": MIXED}
RUNS = [(name, family) for name in OPTIONS for family in ("gpt2", "bart", "bert")]


@pytest.mark.parametrize(("name", "backbone"), one_of_each(RUNS, 1), indirect=["backbone"])
def test_a_run(name: str, backbone: Backbone, data: Path, tmp_path: Path) -> None:
    before = {name: weight.clone() for name, weight in backbone.model.state_dict().items()}
    told = Told()
    given = recipe(backbone, data, OPTIONS[name])
    run = start(backbone, given, tmp_path / "run", progress=told)
    assert all(torch.equal(w, before[name]) for name, w in backbone.model.state_dict().items())
    trained = run.metrics["training"]["trained_parameters"]
    share = run.metrics["training"]["trained_share"]
    whole = sum(p.numel() for p in backbone.model.parameters())
    assert share == trained / whole
    assert any(f"{trained:,} parameters (" in line for line in told.lines)
    manifest = read_manifest(run.artifact)
    assert (manifest.trained_parameters, manifest.trained_share) == (trained, share)
    assert (run.artifact / "delta.safetensors").exists()
    prompt = foreword.load(run.artifact, backbone=backbone)
    inputs = [json.loads(line)["text"] for line in data.read_text("utf-8").splitlines()]
    answers = (run.folder / "answers.jsonl").read_text("utf-8").splitlines()
    if backbone.geometry.kind == "encoder":
        again = [told.answer for told in prompt.predict(inputs)]
    else:
        again = prompt.generate(inputs)
    assert again == [json.loads(line)["output"] for line in answers]


@pytest.mark.parametrize("options", ["adapter", {"name": "lora", "dropout": 0.3}])
def test_a_run_that_was_killed_ends_with_the_same_bits(
    options: Any, gpt2: Backbone, data: Path, tmp_path: Path
) -> None:
    given = recipe(gpt2, data, options, checkpoint_every=1)
    whole = start(gpt2, given, tmp_path / "whole")
    for at in (1, 2):
        with pytest.raises(Killed):
            start(gpt2, given, tmp_path / "run", resume=True, progress=Told(at))
    run = start(gpt2, given, tmp_path / "run", resume=True)
    assert len(run.metrics["training"]["resumed_at"]) == 2
    for name in ("artifact/delta.safetensors", "answers.jsonl", "log.jsonl"):
        assert (run.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name


def test_from_the_command_line(
    gpt2: Backbone,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["foreword", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        assert end.value.code in (0, None), printed.err
        return printed.out

    (tmp_path / "r.yaml").write_text(json.dumps(recipe(gpt2, data, "lora")), encoding="utf-8")
    out = command("train", tmp_path / "r.yaml", "--out", tmp_path / "run", "--device", "cpu")
    assert "trained   1,536 parameters (0.4" in out
    out = command("show", tmp_path / "run")
    assert "delta      lora (rank=4, alpha=32.0, dropout=0.1)" in out
    assert "trained    1,536 parameters (0.4" in out
    out = command("export", "model", tmp_path / "run", tmp_path / "plain")
    assert out.split() == ["model", str(tmp_path / "plain")]
    out = command("export", "peft", tmp_path / "run", tmp_path / "peft")
    assert "(LORA, rank 4)" in out


@pytest.mark.slow
@pytest.mark.parametrize("name", MOVING)
def test_its_recipe(name: str, mini: Backbone, tmp_path: Path) -> None:
    """Two steps of the recipe in the repository."""
    overrides = [
        "training.steps=2",
        "training.batch_size=2",
        "training.evaluate_every=2",
        "task.limits={train: 4, dev: 2, test: 2}",
        "decoding.max_new_tokens=3",
        "evaluation.backbone_alone=false",
    ]
    file = RECIPES / f"{name}.yaml"
    assert load_recipe(file).method.name == name
    run = train(file, overrides=overrides, out=tmp_path / "run", backbone=mini, device="cpu")
    share = run.metrics["training"]["trained_share"]
    assert 0.002 < share < 0.06 if name in ("bitfit", "adapter", "lora") else share > 0.2


def parsed(**options: Any) -> Any:
    given = {"version": 1, "name": "x", "backbone": "foreword/mini", "method": options}
    task = {"data": {"format": "jsonl", "train": "x"}, "input": "{text}"}
    return parse_recipe({**given, "task": task}).method


def test_in_a_recipe() -> None:
    for name in MOVING:
        assert parsed(name=name) == method(name)
    prompts = ("prefix-tuning", "prompt-tuning", "p-tuning", "p-tuning-v2")
    for name in prompts:
        assert parsed(name=name).moves.kind == "none"
        for kind in ("none", "full", "top", "bitfit", "adapter", "lora"):
            assert parsed(name=name, delta=kind) == parsed(name=name, delta={"kind": kind})
    assert parsed(name="lora", rank=8).moves.rank == 8
    assert parsed(name="prefix-tuning", delta={"kind": "adapter", "size": 3}).moves.size == 3
    for options, line in (
        ({"name": "lora", "delta": "bitfit"}, r"method\.delta: no such name"),
        ({"name": "prefix-tuning", "delta": "bitfi"}, r"method\.delta\.kind: .*did you mean 'bi"),
        ({"name": "prefix-tuning", "delta": {"kind": "lora", "rnk": 2}}, r"delta\.rnk: no such"),
        ({"name": "lora", "rank": 0}, r"method\.rank: must be at least 1"),
        ({"name": "lora", "targets": []}, r"method\.targets: expected at least 1"),
        ({"name": "adapter", "reduction": 0}, r"method\.reduction: must be at least 0\.1"),
        ({"name": "fine-tuning-top", "layers": 0}, r"method\.layers: must be at least 1"),
        ({"name": "bitfit", "length": 3}, r"method\.length"),
    ):
        with pytest.raises(RecipeError, match=line):
            parsed(**options)


def test_the_schema_takes_what_the_reader_takes() -> None:
    validator = jsonschema.Draft202012Validator(recipe_schema())
    task = {"data": {"format": "jsonl", "train": "x"}, "input": "{text}"}
    for name in METHODS:
        taken = 0
        for kind in ("none", "full", "top", "bitfit", "adapter", "lora", "no such thing", 7):
            for given in (kind, {"kind": kind}):
                options = {"name": name, "delta": given}
                raw = {"version": 1, "name": "x", "backbone": "b", "method": options, "task": task}
                try:
                    parse_recipe(raw)
                except RecipeError as error:
                    accepted = "method.delta" not in str(error)
                else:
                    accepted = True
                told = [e for e in validator.iter_errors(raw) if "method" in e.absolute_path]
                assert accepted == (not told), (name, given)
                taken += accepted
        assert taken in (0, 12)
