"""A decoder's attention without a mask gives what it gives with one."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from families import by_hand, measures
from families.catalogue import FAMILIES
from families.measures import TOLERANCE, backbone_of
from foreword.axes.injection import KeysValues
from foreword.backbone import Backbone, Call, Prompt, without
from foreword.backbone.prompts import prompt as entering

WITHOUT_ANY = {"gpt2", "llama", "opt"}
"""Families in whose attention nothing else asks for a mask."""


@pytest.fixture(autouse=True)
def _also_short_ones(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(entering, "LONG", 1)
    monkeypatch.setattr(entering, "SHARE", 0)
    with by_hand.ExactFloat64():
        yield


class Masks:
    """Counts the attentions that got a mask."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given = self.calls = 0
        plain = torch.nn.functional.scaled_dot_product_attention

        def counted(*args: Tensor, **kwargs: Tensor) -> Tensor:
            self.calls += 1
            self.given += kwargs.get("attn_mask") is not None
            return plain(*args, **kwargs)

        monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)


def logits_and_gradient(
    backbone: Backbone, call: Call, rows: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Of all real tokens, and of the virtual tokens."""
    logits = backbone.logits(call)[call.layout.attention_mask]
    return logits.detach(), list(torch.autograd.grad(logits.square().mean(), rows))


def gap(backbone: Backbone, prompts: list[Tensor], masks: Masks, of: tuple[int, ...]) -> int:
    """The attentions that got a mask, of rows that share a prompt or have each their own."""
    kv = KeysValues(backbone.geometry)
    layout = measures.laid_out(backbone, kv, measures.rules(backbone, kv)[0], (0, 1, 2), "right")

    def call() -> Call:
        made = [kv.prompt_of(rows) for rows in prompts]
        if of:
            return Call.choosing(layout, made, of, 0)
        return Call(layout, made[0])

    with without(backbone.model, ["masks"]):
        expected = logits_and_gradient(backbone, call(), prompts)
    masks.given = masks.calls = 0
    own = logits_and_gradient(backbone, call(), prompts)
    assert measures.largest(own[0] - expected[0]) < TOLERANCE
    for one, other in zip(own[1], expected[1], strict=True):
        assert measures.largest(other) > 1e-6
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    return masks.given


@pytest.mark.parametrize("mixed", [False, True], ids=["shared", "mixed"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_before_rows_of_different_lengths(
    family: str, mixed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = backbone_of(family)
    rows = measures.random_rows(KeysValues(backbone.geometry))
    prompts = [rows.clone().requires_grad_(), (rows / 2).requires_grad_()][: 2 if mixed else 1]
    masks = Masks(monkeypatch)
    masked = gap(backbone, prompts, masks, (0, 1, 0) if mixed else ())
    if family in WITHOUT_ANY:
        assert masked == 0 < masks.calls


@pytest.mark.parametrize("family", sorted(WITHOUT_ANY))
def test_rows_that_are_padded_before_their_text_keep_their_mask(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, masks = backbone_of(family), Masks(monkeypatch)
    kv = KeysValues(backbone.geometry)
    layout = measures.laid_out(backbone, kv, "keep", (0, 1, 2), "left")
    with torch.no_grad():
        backbone.logits(Call(layout))
    assert masks.given == masks.calls > 0


def test_no_prompt_needs_no_mask_either(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, masks = backbone_of("llama"), Masks(monkeypatch)
    kv = KeysValues(backbone.geometry)
    layout = measures.laid_out(backbone, kv, "keep", (0, 1, 2), "right")
    with torch.no_grad():
        with without(backbone.model, ["masks"]):
            expected = backbone.logits(Call(layout, Prompt()))
            assert masks.given == masks.calls > 0
        masks.given = 0
        own = backbone.logits(Call(layout, Prompt()))
    assert masks.given == 0
    real = layout.attention_mask
    assert measures.largest(own[real] - expected[real]) < TOLERANCE
