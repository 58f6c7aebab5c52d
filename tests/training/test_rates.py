"""Rates of their own for the head and for what of the backbone moves."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from conftest import mini_tokens, tiny_model
from foreword.axes.readout import SequenceHead
from foreword.backbone import Backbone
from foreword.backbone.layout import Pair
from foreword.methods import PTuningV2
from foreword.recipe import TrainingSpec
from foreword.training import train
from foreword.training.schedule import schedule
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose

PAIRS = [Pair([3 + i, 7, 9 + i], marks=(2,), labels=(i % 2,)) for i in range(6)]


def trained(**rates: Any) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A model's numbers before and after three steps."""
    torch.manual_seed(0)
    backbone = Backbone.wrap(tiny_model("gpt2"), mini_tokens())
    options: dict[str, Any] = {"name": "p-tuning-v2", "length": 2, "delta": {"kind": "bitfit"}}
    method = PTuningV2.model_validate(options)
    model: TunedModel = compose(backbone, method, SequenceHead(32, 2, dropout=0.0))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    spec = TrainingSpec(steps=3, batch_size=3, best_by=None, learning_rate=0.01, **rates)
    train(model, PAIRS, spec)
    return before, {name: p.detach().clone() for name, p in model.named_parameters()}


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> dict[str, float]:
    """By part, how far the number that moved most went."""
    parts: dict[str, float] = {}
    for name, start in before.items():
        part = name.split(".")[0]
        far = float((after[name] - start).abs().max())
        parts[part] = max(parts.get(part, 0.0), far)
    return parts


@pytest.mark.parametrize("name", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0, 1, 5, 0.3, 40])
def test_schedules_are_those_of_transformers(name: str, warmup: float) -> None:
    """To the last bit, and beyond the last step."""
    from transformers import get_scheduler

    def optimizer() -> torch.optim.Optimizer:
        parameter = torch.nn.Parameter(torch.zeros(1))
        return torch.optim.AdamW([{"params": [parameter], "lr": 0.3}])

    spec = TrainingSpec(steps=17, schedule=name, warmup=warmup)  # type: ignore[arg-type]
    theirs = get_scheduler(
        "constant_with_warmup" if name == "constant" else name,
        optimizer(),
        num_warmup_steps=round(0.3 * 17) if warmup == 0.3 else int(warmup),
        num_training_steps=17,
    )
    ours = schedule(optimizer(), spec, 17)
    for _ in range(20):
        assert ours.get_last_lr() == theirs.get_last_lr()
        for one in (ours, theirs):
            one.optimizer.step()
            one.step()


def test_the_same_rate_where_none_is_named() -> None:
    _, one = trained()
    _, other = trained(head_learning_rate=0.01, delta_learning_rate=0.01)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("rate", "part"), [("head_learning_rate", "readout"), ("delta_learning_rate", "delta")]
)
def test_a_part_moves_at_its_rate(rate: str, part: str) -> None:
    """AdamW's first steps move a number by about the rate."""
    far = moved(*trained(**{rate: 1e-5}))
    assert far.pop(part) < 1e-4
    assert all(distance > 1e-3 for distance in far.values())
    assert set(far) | {part} == {"reparam", "readout", "delta"}
