"""`resume`: which folder, what is refused, what is said, what is left."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from stopping import Killed, Told
from test_run import QUICKSTART, SMALL

from foreword.backbone import Backbone
from foreword.backbone.weights.hashing import hash_module
from foreword.common import files
from foreword.errors import RunError, UserError
from foreword.runs import Run, Stopped, train
from foreword.training.checkpoints import newest
from foreword.training.storage import Storage
from launching import Launcher

STEPS = 6
TINY = [
    *SMALL,
    f"training.steps={STEPS}",
    "training.checkpoint_every=2",
    "evaluation.backbone_alone=false",
    "task.limits.test=2",
]


def start(tiny: Backbone, out: Path | None, *overrides: str, **options: Any) -> Run:
    options = {"backbone": tiny, "device": "cpu", **options}
    return train(QUICKSTART, overrides=[*TINY, *overrides], out=out, **options)


def killed(tiny: Backbone, out: Path | None, at: int, *overrides: str, **options: Any) -> None:
    with pytest.raises(Killed):
        start(tiny, out, *overrides, progress=Told(at), **options)


def contents(run: Run) -> dict[str, Any]:
    """What must be the same, times left out."""
    metrics = json.loads((run.folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics == run.metrics
    del metrics["seconds"], metrics["training"]["resumed_at"], metrics["artifact_bytes"]
    return {
        "metrics": metrics,
        "samples": run.samples,
        **{
            name: (run.folder / name).read_bytes()
            for name in ("artifact/prompt.safetensors", "log.jsonl", "answers.jsonl", "recipe.yaml")
        },
    }


@pytest.fixture(scope="module")
def alone(mini: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The recipe's own backbone, as commands load it."""
    return start(mini, tmp_path_factory.mktemp("alone") / "run")


@pytest.fixture(scope="module")
def whole(tiny: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return start(tiny, tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def half(tiny: Backbone, tmp_path: Path) -> Path:
    """A run that was killed after its third step."""
    killed(tiny, tmp_path / "run", 3)
    return tmp_path / "run"


def test_killed_anywhere_it_ends_the_same(whole: Run, tiny: Backbone, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for at in (1, 2, 3, 100):  # steps since the last start; the last kill is before measuring
        killed(tiny, out, at, resume=True)
    told = Told()
    run = start(tiny, out, resume=True, progress=told)
    assert contents(run) == contents(whole)
    assert run.metrics["training"]["resumed_at"] == [0, 2, 6]
    assert f"goes on from {out / 'checkpoints' / 'step-000006'}" in told.lines
    assert told.begun["train"] == (6, STEPS)
    assert {p.name for p in out.iterdir()} == {p.name for p in whole.folder.iterdir()}
    assert "checkpoints" not in {p.name for p in out.iterdir()}


@pytest.mark.parametrize(
    "at", ["save_artifact", "write_answers", "draw_curve", "remove_artifact", "files.write_text"]
)
def test_killed_while_the_results_are_written(
    at: str, whole: Run, tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the artifact, the answers, the curve: all of it is made anew."""
    out = tmp_path / "run"

    def after(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if at == "files.write_text":
            real = files.write_text
            patch.setattr(
                files,
                "write_text",
                lambda file, text: after() if file.name == "metrics.json" else real(file, text),
            )
        else:
            patch.setattr(f"foreword.runs.run.{at}", after)
        with pytest.raises(Killed):
            start(tiny, out)
    (out / ".artifact.abc").mkdir()
    (out / ".metrics.json.123.tmp").touch()
    run = start(tiny, out, resume=True)
    assert contents(run) == contents(whole)
    assert {p.name for p in out.iterdir()} == {p.name for p in whole.folder.iterdir()}


def test_a_finished_run_is_told_again(whole: Run, tiny: Backbone) -> None:
    told = Told()
    shutil.copytree(whole.folder, whole.folder.parent / "copy", dirs_exist_ok=True)
    (whole.folder.parent / "copy" / "checkpoints" / "step-000006").mkdir(parents=True)
    again = start(tiny, whole.folder.parent / "copy", resume=True, progress=told)
    assert told.lines == [f"{again.folder}: is finished already; these are its results"]
    assert (again.metrics, again.samples) == (whole.metrics, whole.samples)
    assert again.artifact == again.folder / "artifact"
    assert not (again.folder / "checkpoints").exists()
    (again.folder / "answers.jsonl").unlink()
    with pytest.raises(UserError, match=r"answers\.jsonl: cannot be read: .* is finished"):
        start(tiny, again.folder, resume=True)


def test_nothing_there_yet_is_a_start(whole: Run, tiny: Backbone, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / ".recipe.yaml.123.tmp").touch()
    assert contents(start(tiny, out, resume=True)) == contents(whole)
    assert not list(out.glob(".*"))


def test_killed_before_the_first_checkpoint(whole: Run, tiny: Backbone, half: Path) -> None:
    """The recipe alone, a half-written checkpoint, a log: started afresh."""
    place = half / "checkpoints"
    (place / "latest").unlink()
    for checkpoint in place.iterdir():
        shutil.rmtree(checkpoint)
    (place / ".step-000000.xyz").mkdir()
    run = start(tiny, half, resume=True)
    assert contents(run) == contents(whole)
    assert run.metrics["training"]["resumed_at"] == []


def test_a_damaged_checkpoint_is_passed_over(whole: Run, tiny: Backbone, half: Path) -> None:
    names = sorted(place.name for place in (half / "checkpoints").iterdir())
    assert names == ["latest", "step-000000", "step-000002"]
    (half / "checkpoints" / "step-000002" / "state.safetensors").write_bytes(b"x")
    told = Told()
    run = start(tiny, half, resume=True, progress=told)
    assert any(
        "note: " in line and "step-000002 is damaged: state.safetensors" in line
        for line in told.lines
    )
    assert contents(run) == contents(whole)
    assert run.metrics["training"]["resumed_at"] == [0]


def test_another_recipe_is_refused(tiny: Backbone, half: Path) -> None:
    before = {file: file.read_bytes() for file in half.rglob("*") if file.is_file()}
    with pytest.raises(UserError) as raised:
        start(tiny, half, "training.learning_rate=0.5", "seed=1", resume=True)
    said = str(raised.value)
    assert "was started with another recipe" in said
    assert "training.learning_rate: was 0.2, is 0.5" in said
    assert "seed: was 0, is 1" in said
    with pytest.raises(UserError, match=r"method.length: was 2, is 3\n.*and 2 more"):
        start(
            tiny,
            half,
            "seed=1",
            "task.input='{record}:'",
            "method.length=3",
            "name=x",
            "training.clip=2",
            resume=True,
        )
    (half / "recipe.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(UserError, match=r"recipe\.yaml: cannot be read, so the run cannot go on"):
        start(tiny, half, resume=True)
    (half / "recipe.yaml").write_bytes(before[half / "recipe.yaml"])
    assert {file: file.read_bytes() for file in before} == before


def test_a_recipe_changed_on_both_sides_is_refused(tiny: Backbone, half: Path) -> None:
    raw = yaml.safe_load((half / "recipe.yaml").read_text(encoding="utf-8"))
    raw["training"]["learning_rate"] = 0.5
    (half / "recipe.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    with pytest.raises(UserError, match="was made with a recipe of sha256"):
        start(tiny, half, "training.learning_rate=0.5", resume=True)


def test_other_data_are_refused(tiny: Backbone, tmp_path: Path) -> None:
    from foreword.data.readers import data_file

    data = tmp_path / "train.jsonl"
    shutil.copy(data_file("foreword/fieldguide/train"), data)
    named = f"task.data.train={data}"
    killed(tiny, tmp_path / "run", 3, named)
    with data.open("a", encoding="utf-8") as handle:
        handle.write("\n")
    with pytest.raises(UserError, match=r"was made with .*train\.jsonl \(train\) of sha256"):
        start(tiny, tmp_path / "run", named, resume=True)


def test_another_backbone_is_refused(tiny: Backbone, half: Path) -> None:
    from dataclasses import replace

    other = replace(tiny, sha256="0" * 64)
    with pytest.raises(UserError, match=r"the backbone 'foreword/mini', its weights of sha256"):
        start(tiny, half, backbone=other, resume=True)
    assert hash_module(tiny.model)


def test_other_versions_are_a_warning(
    whole: Run, tiny: Backbone, half: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from foreword.artifacts.manifest import versions

    found = versions()
    monkeypatch.setattr("foreword.runs.resuming.versions", lambda: {**found, "torch": "1.0"})
    told = Told()
    run = start(tiny, half, resume=True, progress=told)
    assert contents(run) == contents(whole)
    notes = [line for line in told.lines if line.startswith("note: ")]
    assert [line for line in notes if "training.learning_rate: " not in line] == [
        f"note: torch was {found['torch']} and is 1.0: the last bits may differ from those of an "
        "uninterrupted run"
    ]


def test_without_out_the_newest_unfinished(
    tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no unfinished run of 'quickstart' below runs/"):
        start(tiny, None, resume=True)
    killed(tiny, None, 3)
    killed(tiny, None, 3)
    (tmp_path / "runs" / "quickstart-x").mkdir()
    shutil.copytree("runs/quickstart", "runs/quickstart-other")
    assert start(tiny, None, resume=True).folder == Path("runs/quickstart-2")
    assert start(tiny, None, resume=True).folder == Path("runs/quickstart")
    with pytest.raises(UserError, match="2 there are finished"):
        start(tiny, None, resume=True)


def test_what_is_in_the_way(tiny: Backbone, half: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"holds an unfinished run; go on with the run by `resume=True`"
    ):
        start(tiny, half)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "file").touch()
    for place in (foreign, foreign / "file"):
        with pytest.raises(UserError, match="holds no run to resume"):
            start(tiny, place, resume=True)


def test_two_at_once_are_refused(tiny: Backbone, half: Path) -> None:
    with files.locked(half), pytest.raises(UserError, match="another process is writing into it"):
        start(tiny, half, resume=True)
    start(tiny, half, resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_a_new_folder_that_another_process_takes_first(
    resume: bool, whole: Run, tiny: Backbone, tmp_path: Path
) -> None:
    """The other one starts while this one loads its backbone and reads its data."""
    out = tmp_path / "run"

    class Other(Told):
        def say(self, text: str) -> None:  # inside, the folder is claimed
            super().say(text)
            if text.startswith("note: "):  # is said before
                return
            with pytest.raises(UserError, match="another process is writing into it now; wait"):
                start(tiny, out, resume=True)

    with claimed_meanwhile(out, tiny, Other()) as other, pytest.raises(UserError) as raised:
        start(tiny, out, resume=resume)
    said = "another process has finished this run meanwhile" if resume else "is not empty"
    assert said in str(raised.value)
    assert contents(other[0]) == contents(whole), "the first one lost nothing"
    assert start(tiny, out, resume=True).metrics == other[0].metrics


def test_a_folder_that_another_recipe_takes_first(tiny: Backbone, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with (
        claimed_meanwhile(out, tiny, Told(), "seed=1") as other,
        pytest.raises(UserError, match=r"was started with another recipe(.|\n)*seed: was 1, is 0"),
    ):
        start(tiny, out, resume=True)
    assert json.loads((out / "metrics.json").read_text("utf-8")) == other[0].metrics
    assert "seed: 1\n" in (out / "recipe.yaml").read_text("utf-8")


@contextmanager
def claimed_meanwhile(
    out: Path, tiny: Backbone, progress: Told, *overrides: str
) -> Iterator[list[Run]]:
    """The next run that has read its data finds that another one has run into `out` by then."""
    from foreword.runs import preparing as module

    runs: list[Run] = []
    read = module.read_data

    def read_data(*arguments: Any) -> Any:
        data = read(*arguments)
        if not runs:
            runs.append(start_other())
        return data

    def start_other() -> Run:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(module, "read_data", read)
            return start(tiny, out, *overrides, progress=progress)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "read_data", read_data)
        yield runs


@pytest.mark.slow
@pytest.mark.parametrize("flags", [pytest.param([], marks=pytest.mark.soak), ["--resume"]], ids=str)
def test_two_commands_at_once(
    flags: list[str], alone: Run, launcher: Launcher, tmp_path: Path
) -> None:
    """Started together on one folder: one runs as if it were alone, the other is refused."""
    both = [launcher.start(tmp_path, command("--out", "run", *flags)) for _ in range(2)]
    said = {started.end(): started.printed() for started in both}
    assert set(said) == {0, 2}, said
    assert "Traceback" not in "".join(said.values())
    assert "run: another process " in said[2] or "run: is there already" in said[2]
    for name in ("artifact/prompt.safetensors", "log.jsonl", "answers.jsonl", "recipe.yaml"):
        assert (tmp_path / "run" / name).read_bytes() == (alone.folder / name).read_bytes(), name


@pytest.mark.parametrize("kind", ["checkpoint", "log", "results"])
def test_a_full_disk(
    kind: str, whole: Run, tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    real = os.write
    small = {"checkpoint": 0, "log": 700, "results": 0}[kind]

    def full(handle: int, data: Any) -> int:
        name = Path(f"/proc/self/fd/{handle}").readlink().name
        wanted = {
            "checkpoint": "state.safetensors",
            "log": "log.jsonl",
            "results": ".answers.jsonl",
        }[kind]
        if name.startswith(wanted):
            nonlocal small
            small -= len(data)
            if small < 0:
                real(handle, bytes(data)[:5])
                raise OSError(errno.ENOSPC, "No space left on device")
        return real(handle, data)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    said = {
        "checkpoint": r"run/checkpoints: the checkpoint of step \d+ cannot be written: No space",
        "log": r"run/log\.jsonl: cannot be written: No space left on device",
        "results": r"run/answers\.jsonl: cannot be written: No space left on device",
    }[kind]
    if kind == "checkpoint":
        killed(tiny, out, 3)
        small = (out / "checkpoints" / "step-000002" / "state.safetensors").stat().st_size - 1
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(RunError, match=said):
            start(tiny, out, resume=kind == "checkpoint")
    assert not list(out.rglob(".*")), "nothing half-written is left"
    assert contents(start(tiny, out, resume=True)) == contents(whole)


def test_a_stop_names_the_folder(tiny: Backbone, tmp_path: Path) -> None:
    out = tmp_path / "run"

    class Terminated(Told):
        def advance(self, count: int = 1, note: str = "") -> None:
            os.kill(os.getpid(), 15)

    with pytest.raises(Stopped) as raised:
        start(tiny, out, progress=Terminated())
    assert raised.value.folder == out
    assert (out / "checkpoints" / "latest").read_text("utf-8") == "step-000001\n"
    with pytest.raises(Stopped) as raised:
        start(tiny, tmp_path / "early", progress=Early())
    assert raised.value.folder == tmp_path / "early"


class Early(Told):
    """Asked to stop before the training."""

    def say(self, text: str) -> None:
        if not text.startswith("note: "):  # is said before the folder is made
            os.kill(os.getpid(), 15)


def command(*more: str, overrides: list[str] = TINY) -> list[str]:
    sets = [part for item in overrides for part in ("--set", item)]
    return ["train", str(QUICKSTART), "--device", "cpu", *sets, *more]


@pytest.mark.slow
def test_a_file_that_cannot_grow(launcher: Launcher, tmp_path: Path) -> None:
    """The system itself cuts the write short (RLIMIT_FSIZE): exit status 1, nothing left."""
    started = launcher.start(tmp_path, command("--out", "run"), largest_file=50_000)
    assert started.end() == 1, started.printed()
    said = started.printed()
    assert "run/checkpoints: the checkpoint of step 0 cannot be written: File too large" in said
    assert "Traceback" not in said
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


@pytest.mark.soak
def test_two_processes_go_on_together(launcher: Launcher, tmp_path: Path) -> None:
    """Both read the checkpoint that the first one wrote; SIGTERM stops both after one step."""
    overrides = [*TINY, "training.steps=20"]
    words = command("--out", "run", overrides=overrides)
    assert [one.end() for one in launcher.together(tmp_path / "whole", words)] == [0, 0]
    stopped = launcher.together(tmp_path / "stopped", words)
    log = tmp_path / "stopped" / "run" / "log.jsonl"
    while not log.exists() or log.read_bytes().count(b"\n") < 5:
        assert not any(one.wait(0.01) for one in stopped), stopped[0].printed()
    for one in stopped:
        one.send(signal.SIGTERM)
    assert 0 not in [one.end() for one in stopped]
    saved = newest(log.parent)
    assert saved is not None
    assert 4 <= saved.checkpoint.step < 20
    assert saved.checkpoint.values["run"]["made_with"]["processes"] == 2
    again = launcher.together(tmp_path / "stopped", [*words, "--resume"])
    assert [one.end() for one in again] == [0, 0], again[0].printed()
    for name in ("artifact/prompt.safetensors", "log.jsonl", "answers.jsonl"):
        found = [(tmp_path / place / "run" / name).read_bytes() for place in ("whole", "stopped")]
        assert found[0] == found[1], name


def test_checkpoints_of_a_finished_run_are_gone(whole: Run) -> None:
    assert Storage(whole.folder / "checkpoints").candidates() == []
    assert not (whole.folder / "checkpoints").exists()
