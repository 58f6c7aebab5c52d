"""Runs on a Ray cluster of two workers: the figures of one process, and workers that die."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
import yaml

from foreword.comparing import cluster as module
from foreword.comparing import compare
from foreword.comparing.cells import Place, places_of
from foreword.comparing.cluster import Cluster, Crew, Worker, crew_of, execute_on, fetch, send
from foreword.comparing.executing import Failure
from foreword.comparing.grid import load_grid
from foreword.comparing.searching import search
from foreword.comparing.space import Range, Space
from foreword.errors import UserError

QUICKSTART = Path(__file__).resolve().parents[2] / "recipes" / "quickstart.yaml"
SMALL: dict[str, Any] = {
    "method.length": 2,
    "training.steps": 2,
    "training.evaluate_every": 1,
    "task.limits": {"train": 16, "dev": 4, "test": 4},
    "decoding.max_new_tokens": 4,
    "evaluation.backbone_alone": False,
    "evaluation.samples": 0,
}


class Counted:
    """Which runs began, and which failed."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.failed: list[str] = []

    def planned(self, places: object) -> None: ...

    def began(self, place: Place) -> None:
        self.begun.append(place.cell.name)

    def ended(self, place: Place, failure: Failure | None) -> None:
        self.failed += [] if failure is None else [failure.reason]


@pytest.fixture(scope="module")
def on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for all tests: what is connected already is neither started nor ended."""
    ray = module._ray()
    where = Cluster("ray://local", workers=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # at Ray's own, a busy machine gives it no time
        module._connect(ray, where)
    yield where
    ray.shutdown()


def grid_file(folder: Path, seeds: list[int]) -> Path:
    whole = {
        "version": 1,
        "name": "tried",
        "recipe": str(QUICKSTART),
        "set": SMALL,
        "seeds": seeds,
        "grid": {"training.learning_rate": [0.1]},
    }
    file = folder / "grid.yaml"
    file.write_text(yaml.safe_dump(whole), encoding="utf-8")
    return file


@pytest.mark.parametrize("address", ["local", "ray://", "http://a"])
def test_an_address_of_no_cluster_is_refused(address: str) -> None:
    with pytest.raises(UserError, match="is no cluster; give ray://local, ray://auto or"):
        Cluster(address)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(UserError, match=r"pip install 'foreword\[cluster\]'"),
        crew_of(Cluster("ray://local"), tmp_path, runs=1, device="cpu"),
    ):
        pass


def test_a_folder_travels_whole_or_not_at_all(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "artifact").mkdir(parents=True)
    (run / "metrics.json").write_text("{}", encoding="utf-8")
    (run / "artifact" / "prompt.safetensors").write_bytes(b"\0\1")
    assert not fetch("memory://kept/run", tmp_path / "again")
    assert not (tmp_path / "again").exists()
    send(run, "memory://kept/run")
    assert fetch("memory://kept/run", tmp_path / "again")
    assert (tmp_path / "again" / "artifact" / "prompt.safetensors").read_bytes() == b"\0\1"
    fsspec.filesystem("memory").rm("/kept/run/metrics.json")
    assert not fetch("memory://kept/run", tmp_path / "third"), "no figures, so it has not ended"
    with pytest.raises(UserError, match="'nowhere://x' cannot be used"):
        fetch("nowhere://x", tmp_path / "third")


def test_a_run_of_the_shared_folder_is_taken_whatever_it_is_called(tmp_path: Path) -> None:
    _, (cell,) = load_grid(grid_file(tmp_path, [0]))
    (place,) = places_of([cell], tmp_path / "out")
    digest = place.folder.name.rpartition("-")[2]
    for name, content in {"begun": "recipe.yaml", "other": "metrics.json"}.items():
        folder = tmp_path / "shared" / "runs" / f"{name}-{digest}"
        folder.mkdir(parents=True)
        (folder / content).write_text("{}", encoding="utf-8")
    cluster = Cluster("ray://local", f"file://{tmp_path / 'shared'}")
    watcher = Counted()
    assert not execute_on(cluster, [place], tmp_path / "out", watcher=watcher, device="cpu")
    assert (place.state, watcher.begun) == ("finished", [])


class Here:
    """A Ray of which every task has ended well."""

    class exceptions:
        class RayError(Exception): ...

        class RayTaskError(RayError): ...

    def wait(self, references: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return references, []

    def get(self, reference: Any) -> None:
        return None


def test_a_run_that_cannot_be_copied_has_failed_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, cells = load_grid(grid_file(tmp_path, [0, 1]))
    shared = tmp_path / "shared"
    places = [Place(cell, tmp_path / f"{cell.recipe.seed}") for cell in cells]
    for place in places:
        (shared / place.folder.name).mkdir(parents=True)
        (shared / place.folder.name / "metrics.json").write_text("{}", encoding="utf-8")
    crew = Crew(Here(), None, 2, f"file://{shared}")
    crew.running = {i: (None, place, i, 1) for i, place in enumerate(places)}
    copied = type(fsspec.filesystem("file")).get_file

    def get_file(self: Any, there: str, here: str, **options: Any) -> None:
        copied(self, there, here, **options)
        if "/0/" in there:
            raise OSError(errno.ENOSPC, "No space left on device", here)

    monkeypatch.setattr(type(fsspec.filesystem("file")), "get_file", get_file)
    (_, _, failure, _), (_, _, other, _) = crew.ended()
    assert failure is not None
    assert failure.reason.startswith(f"its folder cannot be copied from file://{shared}: OSError")
    assert other is None
    assert [place.state for place in places] == ["waiting", "finished"]
    assert not list(tmp_path.rglob("*.partial"))


class Dead(Here):
    """A Ray of which every task has lost its worker."""

    def get(self, reference: Any) -> None:
        raise self.exceptions.RayError("The actor died.\nIts node was lost.")


class Actor:
    """An actor to which runs are given; their number is the reference."""

    def __init__(self, begun: list[Place]) -> None:
        self.begun, self.run = begun, self

    def remote(self, place: Place, *_: Any) -> int:
        self.begun.append(place)
        return len(self.begun)


def test_a_run_whose_workers_all_die_has_failed(tmp_path: Path) -> None:
    _, (cell,) = load_grid(grid_file(tmp_path, [0]))
    begun: list[Place] = []
    crew = Crew(Dead(), lambda: Actor(begun), 1, f"file://{tmp_path}")
    crew.begin(Place(cell, tmp_path / "run"))
    ended = []
    while crew.running:
        ended += crew.ended()
    ((place, _, failure, given_up),) = ended
    assert begun == [place] * 3
    assert failure is not None
    assert failure.reason == "its worker died 3 times: The actor died."
    assert not given_up
    assert crew.idle == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_workers_give_the_figures_of_one_process(tmp_path: Path, on: Cluster) -> None:
    file = grid_file(tmp_path, [0, 1])
    on = replace(on, shared=f"file://{tmp_path / 'shared'}")
    there = compare(file, out=tmp_path / "there", on=on, device="cpu")
    assert not there.failures
    here = compare(file, out=tmp_path / "here", workers=1, device="cpu")
    for one in (tmp_path / "here" / "runs").iterdir():
        for name in ("answers.jsonl", "artifact/prompt.safetensors"):
            assert (one / name).read_bytes() == (
                tmp_path / "there" / "runs" / one.name / name
            ).read_bytes()
    assert [m["scores"] for m in there.content["methods"]] == [
        m["scores"] for m in here.content["methods"]
    ]
    watcher = Counted()
    compare(file, out=tmp_path / "third", on=on, watcher=watcher, device="cpu")
    assert watcher.begun == [], "what the shared folder has is not run again"


class Dying(Worker):
    """A worker that dies the first time that a run begins."""

    def run(self, place: Place, target: str, number: int, reports: Any) -> str | None:
        mark = place.folder.with_name(f"{place.folder.name} died")
        if not mark.exists():
            mark.mkdir(parents=True, exist_ok=True)
            os._exit(1)
        return super().run(place, target, number, reports)


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore")
def test_a_run_whose_worker_dies_begins_again(
    tmp_path: Path, on: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr("foreword.comparing.cluster.Worker", Dying)
    _, (cell,) = load_grid(grid_file(tmp_path, [0]))
    place = Place(cell, tmp_path / "out" / "runs" / "0")
    watcher = Counted()
    assert not execute_on(on, [place], tmp_path / "out", watcher=watcher, device="cpu")
    assert place.state == "finished"
    assert place.folder.with_name("0 died").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.soak
@pytest.mark.parametrize("workers", [1, 2])
def test_a_search_on_a_cluster(workers: int, tmp_path: Path, on: Cluster) -> None:
    overrides = [f"{key}={json.dumps(value)}" for key, value in SMALL.items()]
    outcome = search(
        QUICKSTART,
        budget=600,
        trials=3,
        out=tmp_path / "search",
        space=Space({"training.learning_rate": Range(low=1e-3, high=0.5, log=True)}),
        overrides=overrides,
        device="cpu",
        on=replace(on, workers=workers),
    )
    assert len(outcome.trials) == 3
    assert {trial["state"] for trial in outcome.trials} <= {"complete", "pruned"}
    assert outcome.best is not None
    for trial in outcome.trials:
        run = tmp_path / "search" / "runs" / f"{trial['run'] - 1:04d}" / "metrics.json"
        if trial["state"] == "complete":
            figures = json.loads(run.read_text(encoding="utf-8"))
            assert figures["split"] == "dev"
            assert trial["value"] == figures["prompt"]["all"][outcome.metric]
