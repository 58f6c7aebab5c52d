"""Rows of numbers as keys and values: the order, the way to a file and back, and real text."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import FAMILIES, assert_close, random_ids, random_rows
from foreword.axes.injection import KeysValues, Text
from foreword.backbone import Call, Geometry, SiteGeometry
from foreword.backbone.layout import Layout
from foreword.errors import ArtifactError

GEOMETRY = Geometry("decoder", {"decoder": SiteGeometry.even(3, 2, 4, 4)}, 16, 64, 10)
LENGTH = 5


def injected() -> tuple[KeysValues, torch.Tensor]:
    injection = KeysValues(GEOMETRY)
    return injection, torch.randn(LENGTH, injection.width)


def test_the_order_is_pefts() -> None:
    """Seen as `[P, 2 · layers, heads, head_dim]`, 2i are the keys of layer i, 2i+1 its values."""
    injection, rows = injected()
    assert injection.width == 2 * 3 * 2 * 4
    seen = rows.view(LENGTH, 6, 2, 4)
    prompt = injection.prompt_of(rows).sites["decoder"]
    assert prompt.length == LENGTH
    for layer in range(3):
        assert torch.equal(prompt.keys[layer], seen[:, 2 * layer])
        assert torch.equal(prompt.values[layer], seen[:, 2 * layer + 1])


@given(
    st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(1, 6)
)
def test_to_tensors_and_back(layers, heads, key_dim, value_dim, length) -> None:
    """Keys and values may be of unequal widths."""
    site = SiteGeometry.even(layers, heads, key_dim, value_dim)
    injection = KeysValues(Geometry("decoder", {"decoder": site}, 8, None, 10))
    rows = torch.randn(length, injection.width)
    tensors = injection.tensors(injection.named(rows))
    assert tensors["decoder.keys"].shape == (layers, length, heads, key_dim)
    assert tensors["decoder.values"].shape == (layers, length, heads, value_dim)
    assert tensors["decoder.layers"].tolist() == list(range(layers))
    assert torch.equal(injection.matrix(injection.stored(tensors, length)), rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("decoder.values"), "expected tensors"),
        (lambda t: t.update(extra=torch.zeros(1)), "expected tensors"),
        (lambda t: t.update({"decoder.keys": torch.zeros(3, 4, 2, 4)}), "has shape [3, 4, 2, 4]"),
        (lambda t: t.update({"decoder.layers": torch.tensor([0, 2, 1])}), "decoder.layers is"),
        (lambda t: t["decoder.keys"].fill_(torch.nan), "decoder.keys must hold finite"),
        (lambda t: t["decoder.values"].fill_(torch.inf), "decoder.values must hold finite"),
        (lambda t: t.update({"decoder.keys": t["decoder.keys"].int()}), "floating-point"),
    ],
)
def test_damaged_tensors_are_refused(change, message) -> None:
    injection, rows = injected()
    tensors = injection.tensors(injection.named(rows))
    change(tensors)
    with pytest.raises(ArtifactError, match=re.escape(message)):
        injection.stored(tensors, LENGTH)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_real_text_as_prefix_is_the_text_in_front(tiny_backbone, family, dtype) -> None:
    """The paper's start from real words (7.4): under "shift" nothing at all changes."""
    backbone = tiny_backbone(family, dtype)
    injection = KeysValues(backbone.geometry)
    front, *texts = random_ids([LENGTH, 7, 4])
    rows = injection.matrix(injection.real(backbone, front))
    assert rows.shape == (LENGTH, injection.width)
    layout = Layout.of(texts, virtual=LENGTH)
    with torch.no_grad():
        found = backbone.logits(Call(layout, injection.prompt_of(rows)))
        for row, text in enumerate(texts):
            expected = backbone.logits(Call(Layout.of([front + text])))[0, LENGTH:]
            assert_close(found[row, : len(text)], expected)


def test_a_real_text_on_the_bundled_backbone(mini) -> None:
    injection = KeysValues(mini.geometry)
    front, text = mini.tokens.plain("The robin is a small bird."), mini.tokens.plain(" It sings")
    rows = injection.matrix(injection.real(mini, front))
    with torch.no_grad():
        layout = Layout.of([text], virtual=len(front))
        found = mini.logits(Call(layout, injection.prompt_of(rows)))[0]
        expected = mini.logits(Call(Layout.of([front + text])))[0, len(front) :]
    assert_close(found, expected)


def test_gradients_reach_every_number(tiny_backbone) -> None:
    backbone = tiny_backbone("qwen3", torch.float64)
    rows = random_rows(backbone, LENGTH).requires_grad_()
    logits = backbone.logits(
        Call(
            Layout.of(random_ids([4]), virtual=LENGTH),
            KeysValues(backbone.geometry).prompt_of(rows),
        )
    )
    logits.square().mean().backward()
    assert rows.grad is not None
    assert (rows.grad != 0).all()


def test_text_trains_nothing(tiny_backbone) -> None:
    text = Text()
    assert (text.width, text.sites, text.parts(3)) == (0, (), ())
    assert text.prompt({}) is None
    assert text.tensors({}) == text.stored({}, 0) == text.real(tiny_backbone("gpt2"), [1]) == {}
    assert text.matrix({}).shape == (0, 0)
    with pytest.raises(ArtifactError, match="stores no tensors"):
        text.stored({"decoder.keys": torch.zeros(0, 0)}, 0)
