"""How much a training is, and how long it will take."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest
import torch

from foreword.backbone import Backbone
from foreword.backbone.layout import Pair
from foreword.common.progress import Silent
from foreword.methods import PrefixTuning
from foreword.methods.axes import Table
from foreword.recipe import TrainingSpec
from foreword.training import train
from foreword.training.amount import Amount, Estimate
from foreword.tuned.compose import compose

PAIRS = [Pair([1] * n, [2, 3]) for n in range(1, 11)]


def test_amount_by_hand() -> None:
    found = Amount.of(TrainingSpec(epochs=3, batch_size=2, accumulation=2), PAIRS)
    assert found.as_json() == {
        "steps": 9,
        "rows_per_step": 4,
        "rows": 10,
        "epochs": 3.0,
        "tokens": 75,
        "predicted": 20,
        "longest_row": 12,
        "tokens_trained_on": 225,
    }
    assert str(found) == (
        "training: 9 steps of 4 rows, 3.0 epochs of 10 rows; an epoch has 75 tokens, of which 20 "
        "are predicted (longest row 12, virtual tokens not counted); about 225 tokens in all"
    )


def test_amount_counts_the_steps_that_a_training_makes(
    tiny_backbone: Callable[..., Backbone],
) -> None:
    spec = TrainingSpec(epochs=1.5, batch_size=3, accumulation=2)
    method = PrefixTuning(name="prefix-tuning", length=2, reparameterization=Table())
    model = compose(tiny_backbone("gpt2", torch.float32), method)
    assert len(train(model, PAIRS, spec).steps) == Amount.of(spec, PAIRS).steps


@pytest.mark.parametrize(
    ("each", "steps", "said"),
    [
        (0.5, 100, "100 training steps take about 50 seconds (0.5 s each)"),
        (2, 1000, "1,000 training steps take about 33 minutes (2 s each)"),
        (60, 100, "100 training steps take about 1 h 40 min (60 s each)"),
        (0.01, 100, None),
    ],
)
def test_estimate(each: float, steps: int, said: str | None) -> None:
    """From steps 2 to 6: the first is slower, and what happens between steps does not count."""
    others = (t for i in range(9) for t in (1000 + 7 * i, 1000 + 7 * i + each))
    moments = iter([0.0, 100.0, *others])
    said = None if said is None else f"{said}, evaluations not counted"
    estimate, lines = Estimate(steps, lambda: next(moments)), []
    for _ in range(10):
        with estimate.step():
            pass
        lines.append(estimate.line)
    assert lines == [None] * 5 + [said] + [None] * 4


def test_a_training_tells_its_time(
    tiny_backbone: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    class Saying(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    clock = count()
    monkeypatch.setattr(Estimate.__init__, "__defaults__", (lambda: float(next(clock)),))
    method = PrefixTuning(name="prefix-tuning", length=2, reparameterization=Table())
    model = compose(tiny_backbone("gpt2", torch.float32), method)
    train(model, PAIRS, TrainingSpec(steps=12, batch_size=2), progress=Saying())
    assert said == ["12 training steps take about 12 seconds (1 s each), evaluations not counted"]
