"""What a run folder says of its run, while it is unfinished and afterwards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import foreword
from foreword.backbone import Backbone
from foreword.cli.app import app
from foreword.common import files
from foreword.errors import UserError
from foreword.runs import RunRecord, read_record, stages

RECIPE: dict[str, Any] = {
    "version": 1,
    "name": "short",
    "backbone": "foreword/mini",
    "task": {
        "data": {
            "format": "jsonl",
            "train": "foreword/fieldguide/train",
            "dev": "foreword/fieldguide/dev",
        },
        "input": "{record} ->",
        "target": " {reference}",
        "limits": {"train": 8, "dev": 2},
    },
    "method": {"name": "prefix-tuning", "length": 2, "reparameterization": "table"},
    "training": {"steps": 3, "batch_size": 2, "learning_rate": 1e-2, "evaluate_every": 2},
    "decoding": {"max_new_tokens": 3},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny: Backbone) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "short"
    foreword.train(RECIPE, out=folder, backbone=tiny)
    return folder


@pytest.fixture
def stopped(finished: Path, tmp_path: Path) -> Path:
    """The same run as it stood before it was finished."""
    folder = tmp_path / "stopped"
    shutil.copytree(finished, folder)
    (folder / "metrics.json").unlink()
    shutil.rmtree(folder / "artifact")
    return folder


def test_a_finished_run(finished: Path) -> None:
    record = read_record(finished)
    assert (record.state, record.step, record.steps) == ("finished", 3, 3)
    assert (record.name, record.method, record.backbone) == (
        "short",
        "prefix-tuning",
        "foreword/mini",
    )
    assert [one.step for one in record.evaluations][-2:] == [2, 3]
    assert record.last is not None
    assert record.last.loss > 0
    assert record.metrics == json.loads((finished / "metrics.json").read_text("utf-8"))
    assert RunRecord.model_validate_json(record.model_dump_json()) == record


def test_an_unfinished_run_is_running_or_stopped(stopped: Path) -> None:
    assert read_record(stopped).state == "stopped"
    with files.locked(stopped):
        record = read_record(stopped)
    assert (record.state, record.step, record.metrics) == ("running", 3, None)


def test_a_line_that_is_being_written_is_left_out(stopped: Path) -> None:
    log = stopped / "log.jsonl"
    log.write_text(log.read_text("utf-8") + '{"step": 4, "lo', encoding="utf-8")
    assert read_record(stopped).step == 3


def test_a_damaged_log_names_line_and_field(stopped: Path) -> None:
    log = stopped / "log.jsonl"
    log.write_text('{"step": "many", "loss": 1.0, "learning_rate": 0.1}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"log\.jsonl, line 1: is damaged: .*step"):
        read_record(stopped)
    log.write_text("{\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"log\.jsonl, line 1: cannot be read as JSON"):
        read_record(stopped)


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        read_record(tmp_path)


def test_ls_shows_unfinished_runs(stopped: Path) -> None:
    shown = CliRunner().invoke(app, ["ls", str(stopped.parent)])
    assert f"unfinished {stopped}: stopped at step 3 of 3 (prefix-tuning)" in shown.output
    listed = CliRunner().invoke(app, ["ls", str(stopped.parent), "--json"])
    (run,) = json.loads(listed.stdout)["unfinished"]
    assert (run["folder"], run["state"]) == (str(stopped), "stopped")


def test_the_bare_backbone_is_measured_once(
    tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whatever decides its figures: the method is none of it, the examples are."""
    monkeypatch.setenv("FOREWORD_CACHE", str(tmp_path / "cache"))
    subjects: list[int] = []
    real = stages.evaluate

    def counted(task: Any, *given: Any, **options: Any) -> Any:
        subjects.append(task.model.placement.length)
        return real(task, *given, **options)

    monkeypatch.setattr(stages, "evaluate", counted)

    def alone(number: int, **changes: Any) -> dict[str, Any]:
        subjects.clear()
        recipe = {**RECIPE, **changes, "training": {**RECIPE["training"], "evaluate_every": None}}
        run = foreword.train(recipe, out=tmp_path / str(number), backbone=tiny)
        return dict(run.metrics["backbone"])

    first = alone(1)
    assert subjects == [0, 2]
    longer = {**RECIPE["method"], "length": 3}
    assert alone(2, method=longer) == first
    assert subjects == [3]
    fewer = {**RECIPE["task"], "limits": {"train": 8, "dev": 1}}
    assert alone(3, task=fewer) != first
    assert subjects == [0, 2]
    alone(4, decoding={"max_new_tokens": 4})
    assert subjects == [0, 2]
    alone(5, decoding={"max_new_tokens": 3, "do_sample": True})
    assert subjects == [0, 2]
    (tmp_path / "cache/baselines").joinpath("x.json").write_text("{", encoding="utf-8")
    for file in (tmp_path / "cache/baselines").glob("*.json"):
        file.write_text('{"format": "9.0"}', encoding="utf-8")
    assert alone(6) == first
    assert subjects == [0, 2]
