"""Killed at random moments and gone on with: the bits of a run that nobody disturbed.

SIGKILL, so nothing of ours runs when it comes. Compared are the artifact's tensors, the last
checkpoint's tensors (parameters, moments, best prompt, random states), the log, the answers and the
figures.
"""

from __future__ import annotations

import itertools
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from killing import VARIANTS, arguments, kill_until_done, moments, outcome

from launching import Launcher

Capture = pytest.CaptureFixture[str]
SEED = 20240531
KILLS = 100
PATIENT = arguments({**VARIANTS["ended by patience"], "training.checkpoint_every": 1000})


def check(
    launcher: Launcher, tmp_path: Path, kills: int, variants: list[str], capsys: Capture
) -> None:
    """Kill runs of every variant in turn until there were `kills` kills; compare each run."""

    def say(text: str) -> None:
        with capsys.disabled():
            print(text, flush=True)

    expected, seconds = {}, {}
    for name in variants:
        folder = tmp_path / f"undisturbed {len(expected)}"
        seconds[name] = launcher.run(folder, arguments(VARIANTS[name]), keep=True)
        expected[name] = outcome(folder)
    done, places, begun = 0, Counter[str](), time.monotonic()
    say(f"seed {SEED}; undisturbed: { ({k: round(v, 1) for k, v in seconds.items()}) } s")
    for number, name in enumerate(itertools.cycle(variants)):
        if done >= kills:
            break
        folder = tmp_path / f"killed {number}"
        done += kill_until_done(
            launcher,
            folder,
            arguments(VARIANTS[name]),
            moments(SEED + number, seconds[name]),
            expected[name]["step"],
            places,
            kills - done,
        )
        found = outcome(folder)
        for part, content in expected[name].items():
            assert found[part] == content, f"{part} of '{name}' differs after {done} kills"
        shutil.rmtree(folder)
        say(f"{done}/{kills} kills, {number + 1} runs, {time.monotonic() - begun:.0f} s")
    say(f"killed {dict(places)}")


@pytest.mark.slow
def test_a_few_kills(launcher: Launcher, tmp_path: Path, capsys: Capture) -> None:
    name = "MLP from real activations, in parts, best by sampled answers"
    check(launcher, tmp_path, 2, [name], capsys)


@pytest.fixture(scope="module")
def undisturbed(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    launcher.run(folder, PATIENT, keep=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)]
)
def test_asked_to_stop(
    launcher: Launcher, undisturbed: Path, tmp_path: Path, asked: signal.Signals
) -> None:
    """A checkpoint is written at once, the command says how to go on, and that command does."""
    folder = tmp_path / "stopped"
    started = launcher.start(folder, PATIENT, keep=True)
    log = folder / "run" / "log.jsonl"
    while not log.exists() or log.read_bytes().count(b"\n") < 7:
        assert not started.wait(0.002)
    assert started.end(asked) == 128 + asked
    said = started.printed().splitlines()[-1]
    head, _, command = said.partition("; go on with: ")
    assert head == f"foreword: stopped by {asked.name}"
    assert command == "foreword train run/recipe.yaml --out run --resume --device cpu"
    names = sorted(place.name for place in (folder / "run" / "checkpoints").iterdir())
    assert names[:2] == ["latest", "step-000000"]
    assert len(names) == 3
    launcher.run(folder, command.split()[1:], keep=True)
    assert outcome(folder) == outcome(undisturbed)


@pytest.mark.soak
def test_a_hundred_kills(launcher: Launcher, tmp_path: Path, capsys: Capture) -> None:
    check(launcher, tmp_path, KILLS, list(VARIANTS), capsys)
