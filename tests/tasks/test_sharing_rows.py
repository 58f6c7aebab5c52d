"""Rows of one long prompt share it: while it is trained, too, and beams never."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from conftest import make_backbone
from foreword.axes.readout import Generation, SequenceHead
from foreword.backbone import Call, Decoding, without
from foreword.backbone.decoding import line
from foreword.backbone.prompts import merged
from foreword.methods import PrefixTuning
from foreword.methods.axes import MLP, Table
from foreword.serving.memory import bytes_of_prompt
from foreword.tasks import Writing, decoding, write_rows
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose
from merging import however_few

LENGTH = 6


@pytest.fixture(autouse=True)
def times() -> Iterator[list[str]]:
    """Attentions in two parts."""
    with however_few() as calls:
        yield calls


def model_of(reparameterization: Any, readout: Any = None) -> TunedModel:
    torch.manual_seed(0)
    backbone = make_backbone("llama", torch.float64)
    method = PrefixTuning(
        name="prefix-tuning", length=LENGTH, reparameterization=reparameterization
    )
    readout = readout or Generation()
    return compose(backbone, method, readout).double().eval()


def rows_of(model: TunedModel, many: int, **how: Any) -> list[Writing]:
    return [
        Writing(model, [5 + n, 6, 7 + n], Decoding(max_new_tokens=3 + n % 4, **how))
        for n in range(many)
    ]


@pytest.mark.parametrize(
    "reparameterization", [Table(std=0.5), MLP(hidden=8)], ids=["table", "mlp"]
)
def test_rows_that_come_one_after_the_other_share_a_prompt_that_is_trained(
    reparameterization: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(reparameterization)
    assert any(one.requires_grad for one in model.parameters())
    rows = rows_of(model, 9)
    with without(model.backbone.model, ["copies"]):
        expected = write_rows(rows, batch_size=3)
    groups: list[int] = []
    by_member = line._by_member

    def counted(shared: Any) -> Any:
        groups.append(len(by_member(shared)))
        return by_member(shared)

    monkeypatch.setattr(line, "_by_member", counted)
    assert write_rows(rows, batch_size=3) == expected
    assert set(groups) == {1}


def test_beams_are_counted_with_their_prompts() -> None:
    model = model_of(Table(std=0.5))
    rows = rows_of(model, 2, num_beams=2)

    def arrange(members: Any) -> list[tuple[Call, list[int]]]:
        layout = model.arrange([rows[i].source for i in members], side="left")
        return [(model.call(layout), list(members))]

    shared, whole = (decoding._columns(rows, [0, 1], arrange, shares=on) for on in (True, False))
    assert whole - shared == LENGTH


def test_a_prompt_that_writes_nothing_has_no_second_layout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writes = model_of(Table(std=0.5)).fold()
    tells = model_of(Table(std=0.5), SequenceHead(writes.backbone.hidden_width, 2)).fold()
    sizes = [bytes_of_prompt(model) for model in (writes, tells)]
    monkeypatch.setattr(merged, "LEAST", 256)
    plain = [bytes_of_prompt(model) for model in (writes, tells)]
    prompt = sum(one.nbytes for one in writes.reparam().values())
    assert sizes[0] - plain[0] == prompt
    assert sizes[1] == plain[1]
