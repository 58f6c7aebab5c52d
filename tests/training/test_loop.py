"""The training loop: what a loss is, what a batch in parts is, what is kept, what is refused."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from foreword.backbone import Backbone
from foreword.backbone.weights.hashing import hash_module
from foreword.common.progress import Silent
from foreword.errors import RunError, UserError
from foreword.methods import PrefixTuning
from foreword.methods.axes import MLP, Table
from foreword.recipe import TrainingSpec
from foreword.training import History, Pair, train
from foreword.training.hardware import Hardware
from foreword.training.loop import dev_loss
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose

Build = Callable[..., TunedModel]


def make_pairs(count: int, seed: int = 0) -> list[Pair]:
    generator = torch.Generator().manual_seed(seed)

    def ids(least: int, most: int) -> list[int]:
        length = int(torch.randint(least, most, (1,), generator=generator))
        return torch.randint(1, 8192, (length,), generator=generator).tolist()

    return [Pair(ids(2, 12), [*ids(1, 8), 0]) for _ in range(count)]


@pytest.fixture
def build(tiny_backbone: Callable[..., Backbone]) -> Build:
    """A tiny model in float64, its virtual tokens as the seed makes them."""

    backbone = tiny_backbone("gpt2", torch.float64)

    def build(reparam: Any = None, *, seed: int = 0) -> TunedModel:
        torch.manual_seed(seed)
        reparam = reparam or Table(std=0.5)
        method = PrefixTuning(name="prefix-tuning", length=3, reparameterization=reparam)
        return compose(backbone, method).double()

    return build


def spec(**settings: Any) -> TrainingSpec:
    if "epochs" not in settings:
        settings.setdefault("steps", 4)
    return TrainingSpec(**{"batch_size": 8, "schedule": "constant", **settings})


def losses(history: History) -> list[float]:
    return [entry["loss"] for entry in history.steps]


def nll_by_row(model: TunedModel, pairs: list[Pair]) -> list[Tensor]:
    """The negative log-likelihoods of each pair's target tokens, each row run alone."""
    with torch.no_grad():
        return [model(model.placement.layout([p.source], [p.target])) for p in pairs]


@pytest.mark.parametrize("accumulation", [1, 3])
def test_losses_by_hand(build: Build, accumulation: int) -> None:
    pairs = make_pairs(11)
    settings = {"steps": 1, "batch_size": 4, "accumulation": accumulation}
    if accumulation == 1:
        settings["batch_size"] = 11
    rows = nll_by_row(build(), pairs)
    total = sum(row.sum().item() for row in rows)
    mean = losses(train(build(), pairs, spec(loss="token_mean", **settings)))[0]
    summed = train(build(), pairs, spec(loss="sequence_sum", **settings)).steps[0]
    by_token = total / sum(len(p.target) for p in pairs)
    assert mean == pytest.approx(by_token, rel=1e-6)
    assert summed["sequence_loss"] == pytest.approx(total / len(pairs), rel=1e-6)
    assert summed["loss"] == pytest.approx(by_token, rel=1e-6)  # one unit, whatever is trained


@pytest.mark.parametrize("loss", ["token_mean", "sequence_sum"])
def test_training_and_development_losses_have_one_unit(build: Build, loss: str) -> None:
    """On the same pairs, without a step between the two, both losses are the same number."""
    pairs = make_pairs(8)
    history = train(build(), pairs, spec(steps=1, learning_rate=1e-30, loss=loss), dev=pairs)
    trained, watched = history.steps[0], history.evaluations[0]
    assert trained["loss"] == pytest.approx(watched["loss"], rel=1e-5)
    assert ("sequence_loss" in trained) == (loss == "sequence_sum")


def test_progress_tells_the_metric_that_is_watched(build: Build) -> None:
    notes: list[str] = []

    class Noting(Silent):
        def advance(self, count: int = 1, note: str = "") -> None:
            notes.append(note)

    train(
        build(),
        make_pairs(8),
        spec(steps=2, evaluate_every=1, best_by="accuracy"),
        score=lambda _: 62.5,
        progress=Noting(),
    )
    assert "dev" not in notes[0]
    assert notes[1].endswith(", dev accuracy % 62.5")


@pytest.mark.parametrize("loss", ["token_mean", "sequence_sum"])
def test_a_batch_in_parts_trains_the_same(build: Build, loss: str) -> None:
    pairs, found = make_pairs(8), []
    for batch_size, accumulation in ((8, 1), (4, 2), (3, 3), (1, 8)):
        model = build()
        history = train(
            model,
            pairs,
            spec(loss=loss, batch_size=batch_size, accumulation=accumulation, learning_rate=1e-2),
        )
        found.append((losses(history), model.rows().detach()))
    for other, rows in found[1:]:
        assert other == pytest.approx(found[0][0], rel=1e-6)
        assert (rows - found[0][1]).abs().max() < 1e-6


def test_training_lowers_the_loss_and_moves_the_prompt_alone(build: Build) -> None:
    model = build()
    before, start = hash_module(model.backbone.model), model.rows().detach().clone()
    history = train(model, make_pairs(8), spec(steps=30, learning_rate=3e-2))
    assert losses(history)[-1] < losses(history)[0] - 0.2
    assert not torch.equal(model.rows(), start)
    assert hash_module(model.backbone.model) == before
    assert all(p.grad is None for p in model.backbone.model.parameters())
    assert not any(p.requires_grad for p in model.backbone.model.parameters())


@pytest.mark.parametrize("reparam", [Table(), MLP(hidden=8)], ids=["table", "mlp"])
def test_the_seed_decides(build: Build, reparam: Any) -> None:
    pairs = make_pairs(20)

    def trained(seed: int) -> Tensor:
        model = build(reparam, seed=seed)
        train(model, pairs, spec(), seed=seed)
        return model.rows().detach()

    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))


def test_the_order_depends_on_the_seed(build: Build) -> None:
    pairs = make_pairs(20)
    runs = [losses(train(build(), pairs, spec(), seed=seed)) for seed in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_the_reparameterization_runs_once_per_forward(build: Build) -> None:
    model, calls = build(MLP(hidden=8)), []
    model.reparam.register_forward_hook(lambda *_: calls.append(1))
    train(model, make_pairs(16), spec(steps=3))
    assert len(calls) == 3
    calls.clear()
    train(model, make_pairs(16), spec(steps=3, batch_size=4, accumulation=2))
    assert len(calls) == 6
    calls.clear()
    train(model, make_pairs(16), spec(steps=1), dev=make_pairs(5))
    assert len(calls) == 2


def test_epochs_and_steps(build: Build) -> None:
    pairs = make_pairs(10)
    assert len(train(build(), pairs, spec(epochs=2, batch_size=4)).steps) == 6
    assert len(train(build(), pairs, spec(epochs=2, batch_size=4, accumulation=2)).steps) == 4
    assert len(train(build(), pairs, spec(epochs=0.01, batch_size=4)).steps) == 1
    assert len(train(build(), pairs, spec(steps=5, batch_size=4)).steps) == 5


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        ({"schedule": "constant"}, [1, 1, 1, 1]),
        ({"schedule": "constant", "warmup": 2}, [0, 0.5, 1, 1]),
        ({"schedule": "linear"}, [1, 0.75, 0.5, 0.25]),
        ({"schedule": "linear", "warmup": 0.5}, [0, 0.5, 1, 0.5]),
        ({"schedule": "linear", "warmup": 2}, [0, 0.5, 1, 0.5]),
        ({"schedule": "cosine"}, [(1 + math.cos(math.pi * i / 4)) / 2 for i in range(4)]),
    ],
)
def test_schedules(build: Build, settings: dict[str, Any], rates: list[float]) -> None:
    history = train(build(), make_pairs(4), spec(learning_rate=1e-3, **settings))
    found = [entry["learning_rate"] for entry in history.steps]
    assert found == pytest.approx([1e-3 * rate for rate in rates])


def test_clipping_bounds_the_gradient(build: Build) -> None:
    free = train(build(), make_pairs(8), spec(steps=1, clip=None)).steps[0]["gradient_norm"]
    assert free > 0
    moved = []
    for clip in (None, free * 10, free / 100):
        model = build()
        start = model.rows().detach().clone()
        train(model, make_pairs(8), spec(steps=1, clip=clip, betas=(0.0, 0.0)))
        moved.append(model.rows().detach() - start)
    assert torch.equal(moved[0], moved[1])
    assert not torch.equal(moved[0], moved[2])


def test_weight_decay_shrinks(build: Build) -> None:
    plain, decayed = build(), build()
    train(plain, make_pairs(8), spec(learning_rate=1e-2))
    train(decayed, make_pairs(8), spec(learning_rate=1e-2, weight_decay=5.0))
    assert decayed.rows().norm() < plain.rows().norm()


def test_the_best_by_score_is_kept_and_patience_stops(build: Build) -> None:
    scores, seen = iter([1.0, 3.0, 2.0, 3.0, 9.0]), []

    def score(model: TunedModel) -> float:
        seen.append(model.rows().detach().clone())
        return next(scores)

    model = build()
    history = train(
        model,
        make_pairs(8),
        spec(steps=20, evaluate_every=2, best_by="bleu", patience=2),
        score=score,
    )
    assert history.stopped_early
    assert len(history.steps) == 8
    assert history.best_step == 4
    assert [entry["bleu"] for entry in history.evaluations] == [1.0, 3.0, 2.0, 3.0]
    assert [entry["step"] for entry in history.evaluations] == [2, 4, 6, 8]
    assert torch.equal(model.rows(), seen[1])


def test_what_evaluations_take_is_told_apart(build: Build) -> None:
    def score(_: TunedModel) -> float:
        time.sleep(0.1)
        return 1.0

    settings = spec(steps=4, evaluate_every=2, best_by="bleu")
    history = train(build(), make_pairs(8), settings, score=score)
    assert 0.2 <= history.evaluation_seconds < history.seconds


def test_the_lowest_dev_loss_is_kept(build: Build) -> None:
    model, dev = build(), make_pairs(6, seed=9)
    history = train(
        model, make_pairs(8), spec(steps=12, evaluate_every=3, learning_rate=0.2), dev=dev
    )
    found = {int(entry["step"]): entry["loss"] for entry in history.evaluations}
    assert list(found) == [3, 6, 9, 12]
    assert history.best_step == min(found, key=lambda step: found[step])
    assert dev_loss(model, dev) == pytest.approx(min(found.values()), rel=1e-9)


def test_dev_loss_by_hand(build: Build) -> None:
    model, dev = build(), make_pairs(70)
    tokens = sum(len(pair.target) for pair in dev)
    expected = sum(row.sum().item() for row in nll_by_row(model, dev)) / tokens
    assert dev_loss(model, dev) == pytest.approx(expected, rel=1e-9)
    assert dev_loss(model, dev, batch_size=7) == pytest.approx(expected, rel=1e-9)


def test_the_last_is_kept_where_nothing_is_compared(build: Build) -> None:
    dev = make_pairs(6, seed=9)
    for settings in ({"best_by": None}, {"best_by": "bleu"}):
        model, seen = build(), []
        history = train(
            model,
            make_pairs(8),
            spec(steps=5, evaluate_every=2, learning_rate=0.5, **settings),
            dev=dev,
            on_step=lambda _: seen.append(model.rows().detach().clone()),  # noqa: B023
        )
        assert history.best_step == 5
        assert torch.equal(model.rows(), seen[-1])
        assert [entry["step"] for entry in history.evaluations] == [2, 4, 5]
    assert train(build(), make_pairs(4), spec()).evaluations == []


def test_the_score_is_asked_for_only_where_it_decides(build: Build) -> None:
    def score(_: TunedModel) -> float:
        raise AssertionError("not asked for")

    train(build(), make_pairs(4), spec(steps=1), dev=make_pairs(2), score=score)


def test_a_loss_that_is_not_finite_ends_the_run(build: Build) -> None:
    with pytest.raises(RunError, match=r"the loss became (nan|inf) at step \d+; try a lower"):
        train(build(), make_pairs(8), spec(steps=50, learning_rate=1e3, weight_decay=1e3))


def test_bfloat16(tiny_backbone: Callable[..., Backbone]) -> None:
    found = []
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        method = PrefixTuning(name="prefix-tuning", length=3, reparameterization=MLP(hidden=8))
        model = compose(tiny_backbone("gpt2"), method)
        history = train(model, make_pairs(8), spec(precision=precision), dev=make_pairs(3))
        assert all(p.dtype == torch.float32 for p in model.parameters())
        assert model(model.placement.layout([[1, 2]], [[3, 0]])).isfinite().all()
        found.append(losses(history))
    assert found[0] != found[1]
    assert found[0] == pytest.approx(found[1], rel=0.05)


def test_hardware_refuses_what_is_not_there() -> None:
    for device in ("cuda", "mps", "tpu"):
        if device == "cuda" and torch.cuda.is_available():
            continue
        if device == "mps" and torch.backends.mps.is_available():
            continue
        with pytest.raises(UserError, match=f"device '{device}' is not available here; there is: "):
            Hardware.of(device)
