"""A training that was stopped anywhere and gone on with ends with the same bits."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_loop import make_pairs, spec

from conftest import one_of_each
from foreword.backbone import Backbone
from foreword.errors import RunError, UserError
from foreword.methods import PrefixTuning
from foreword.methods.axes import MLP, Table
from foreword.recipe import TrainingSpec
from foreword.training import History, Stopped, train
from foreword.training.checkpoints import FOLDER, LOG, SECONDS, Checkpoints, newest
from foreword.training.log import Log
from foreword.training.signals import Stop
from foreword.training.storage import read_checkpoint
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose

SIGTERM = 15
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"steps": 5, "checkpoint_every": 2},
    "in parts, over epochs": {"epochs": 3.5, "batch_size": 3, "accumulation": 2, "clip": 0.1},
    "cosine": {"steps": 6, "schedule": "cosine", "warmup": 2, "weight_decay": 0.5},
    "best by loss": {"steps": 6, "evaluate_every": 2, "learning_rate": 0.5},
    "patience": {"steps": 20, "evaluate_every": 1, "patience": 2, "best_by": "bleu"},
}


class Case:
    """One training, that can be started again and again in one folder."""

    def __init__(
        self, folder: Path, backbone: Backbone, settings: TrainingSpec, reparam: Any
    ) -> None:
        self.folder, self.backbone, self.spec, self.reparam = folder, backbone, settings, reparam
        folder.mkdir()

    def run(self, stop: Stop | None = None, **hooks: Callable[..., Any]) -> TunedModel:
        """Train from the start or from the newest checkpoint."""
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(0)
        method = PrefixTuning(name="prefix-tuning", length=3, reparameterization=self.reparam)
        model = compose(self.backbone, method)
        saved = newest(self.folder)
        mark = None if saved is None else saved.checkpoint.values["log"]
        with Log(self.folder / LOG, mark) as log:

            def on_step(entry: dict[str, float]) -> None:
                log(entry)
                hooks.get("on_step", lambda _: None)(entry)

            def score(_: TunedModel) -> float:
                hooks.get("score", lambda: None)()
                # As decoding by sampling does: it depends on every random state.
                return random.random() + np.random.random() + torch.rand(1).item()

            self.history = train(
                model,
                make_pairs(11),
                self.spec,
                dev=make_pairs(70, seed=9),
                score=score,
                seed=3,
                on_step=on_step,
                on_evaluation=lambda entry: log({"evaluation": entry}),
                checkpoints=Checkpoints(
                    self.folder, log, every=self.spec.checkpoint_every, saved=saved
                ),
                stop=stop,
            )
        return model

    def outcome(self, model: TunedModel) -> dict[str, Any]:
        """All that has to be equal."""
        saved = newest(self.folder)
        assert saved is not None
        return {
            "model": {k: v.numpy().tobytes() for k, v in model.state_dict().items()},
            "state": (saved.checkpoint.folder / "state.safetensors").read_bytes(),
            "log": (self.folder / LOG).read_bytes(),
            "history": without_time(self.history),
            "drawn": (random.random(), np.random.random(), torch.rand(1).item()),
        }


def without_time(history: History) -> dict[str, Any]:
    return {**vars(history), "seconds": 0, "evaluation_seconds": 0}


@pytest.fixture
def case(tiny_backbone: Callable[..., Backbone], tmp_path: Path) -> Callable[..., Case]:
    backbone = tiny_backbone("gpt2")

    def make(name: str, reparam: Any = None, **settings: Any) -> Case:
        return Case(tmp_path / name, backbone, spec(**settings), reparam or Table(std=0.5))

    return make


REPARAMETERIZATIONS = {"table": Table(std=0.5), "mlp": MLP(hidden=8)}
TRAINED = [(name, made) for name in SETTINGS for made in REPARAMETERIZATIONS]


@pytest.mark.parametrize(("name", "made"), one_of_each(TRAINED, 1))
def test_stopped_after_every_step(case: Callable[..., Case], name: str, made: str) -> None:
    reparam = REPARAMETERIZATIONS[made]
    whole = case("whole", reparam, **SETTINGS[name])
    expected = whole.outcome(whole.run())
    again, stops = case("again", reparam, **SETTINGS[name]), 0
    while True:
        stop = Stop()
        try:
            model = again.run(stop, on_step=lambda _: setattr(stop, "requested", SIGTERM))  # noqa: B023
            break
        except Stopped:
            stops += 1
    assert stops == len(whole.history.steps)
    assert again.outcome(model) == expected


def test_stopped_in_the_midst_of_an_evaluation(case: Callable[..., Case]) -> None:
    """The evaluation is done anew, with the random states it had."""
    settings = {"steps": 4, "evaluate_every": 2, "best_by": "bleu"}
    whole = case("whole", **settings)
    expected = whole.outcome(whole.run())
    again, calls = case("again", **settings), []

    def disturb() -> None:
        calls.append(1)
        torch.rand(5), random.random(), np.random.random()
        raise Stopped(SIGTERM)

    for _ in range(2):
        with pytest.raises(Stopped):
            again.run(score=disturb)
    saved = newest(again.folder)
    assert saved is not None
    assert (saved.checkpoint.step, saved.checkpoint.values["best"]["seen"]) == (2, 0)
    assert again.outcome(again.run()) == expected
    assert len(calls) == 2


def test_a_stop_ends_the_loss_on_the_development_set_between_batches(
    case: Callable[..., Case],
) -> None:
    again, stop = case("again", steps=1), Stop()
    stop.check = lambda: (_ for _ in ()).throw(Stopped(SIGTERM))  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        again.run(stop)
    saved = newest(again.folder)
    assert saved is not None
    assert (saved.checkpoint.step, saved.history.evaluations) == (1, [])


class Killed(BaseException):
    """As SIGKILL: nothing is saved any more."""


@pytest.mark.parametrize("every", [1, 2, 3, 100])
def test_killed_between_checkpoints(case: Callable[..., Case], every: int) -> None:
    settings = {"steps": 7, "evaluate_every": 3, "checkpoint_every": every}
    whole = case("whole", **settings)
    expected = whole.outcome(whole.run())
    again = case("again", **settings)
    for step in (1, 2, 5, 6, 7):

        def kill(entry: dict[str, float]) -> None:
            if entry["step"] == step:  # noqa: B023
                raise Killed

        with pytest.raises(Killed):
            again.run(on_step=kill)
    assert again.outcome(again.run()) == expected


def test_a_finished_training_is_not_trained_again(case: Callable[..., Case]) -> None:
    done = case("done", **SETTINGS["patience"])
    expected = done.outcome(done.run())
    took = done.history.evaluation_seconds
    assert took > 0

    def step(_: object) -> None:
        pytest.fail("trained again")

    again = done.outcome(done.run(on_step=step))
    assert again["drawn"] == expected["drawn"]
    assert again == expected
    assert done.history.evaluation_seconds == took
    assert done.history.stopped_early


def test_two_damaged_checkpoints_are_too_many(case: Callable[..., Case]) -> None:
    whole = case("whole", steps=6, checkpoint_every=2)
    expected = whole.outcome(whole.run())
    places = sorted((whole.folder / FOLDER).glob("step-*"))
    assert [place.name for place in places] == ["step-000004", "step-000006"]
    (places[1] / "state.safetensors").write_bytes(b"")
    saved = newest(whole.folder)
    assert saved is not None
    assert saved.checkpoint.step == 4
    assert "step-000006 is damaged" in saved.passed_over[0]
    assert whole.outcome(whole.run()) == expected
    assert len(list((whole.folder / FOLDER).glob("step-*"))) == 2
    for place in (whole.folder / FOLDER).glob("step-*"):
        (place / "checkpoint.json").unlink()
    with pytest.raises(RunError, match=r"no checkpoint can be gone on from; remove (.|\n)*damaged"):
        newest(whole.folder)


def test_a_shorter_log_means_an_older_checkpoint(case: Callable[..., Case]) -> None:
    whole = case("whole", steps=6, checkpoint_every=2)
    expected = whole.outcome(whole.run())
    file = whole.folder / LOG
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:5]))
    saved = newest(whole.folder)
    assert saved is not None
    assert saved.checkpoint.step == 4
    assert whole.outcome(whole.run()) == expected


def test_other_pairs_are_refused(case: Callable[..., Case]) -> None:
    stopped = case("stopped", steps=4)
    stopped.run()
    for settings in ({"batch_size": 4}, {"accumulation": 2}):
        stopped.spec = spec(steps=4, **settings)
        with pytest.raises(UserError, match="the training pairs or their order are not those"):
            stopped.run()


def test_another_method_is_refused(case: Callable[..., Case]) -> None:
    stopped = case("stopped", steps=4)
    stopped.run()
    stopped.reparam = MLP(hidden=8)
    with pytest.raises(RunError, match="parameters of another method or size"):
        stopped.run()


def test_what_is_stored(case: Callable[..., Case]) -> None:
    stored = case("stored", MLP(hidden=8), steps=3, evaluate_every=1)
    model = stored.run()
    saved = newest(stored.folder)
    assert saved is not None
    found = saved.checkpoint
    names = [name for name, _ in model.named_parameters()]
    assert set(found.tensors) == {
        *(f"{part}/{name}" for part in ("model", "best") for name in names),
        *(f"optimizer.{n}/{key}" for n in names for key in ("step", "exp_avg", "exp_avg_sq")),
        *(f"random/{name}" for name in ("python", "numpy", "torch")),
    } | {f"random/{name}" for name in ("cuda", "mps") if f"random/{name}" in found.tensors}
    assert found.values["batches"].keys() == {"epoch", "step_in_epoch", "order_sha256"}
    assert found.values["scheduler"]["last_epoch"] == 3
    assert read_checkpoint(found.folder).values == found.values


def test_by_time_it_costs_at_most_a_hundredth(
    case: Callable[..., Case], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    now = 0.0
    monkeypatch.setattr("foreword.training.checkpoints.time.monotonic", lambda: now)
    with Log(tmp_path / LOG) as log:
        checkpoints = Checkpoints(tmp_path, log)

        def slow(*_: object) -> None:
            nonlocal now
            now += 2.0

        monkeypatch.setattr(checkpoints.storage, "save", slow)
        assert not checkpoints.due(1)
        now = SECONDS
        assert checkpoints.due(2)
        checkpoints.save(2, {}, {})
        now += 199
        assert not checkpoints.due(3)
        now += 1
        assert checkpoints.due(4)
        assert not Checkpoints(tmp_path, log, writes=False).due(4)
        assert [Checkpoints(tmp_path, log, every=3).due(i) for i in (2, 3, 4)] == [0, 1, 0]
