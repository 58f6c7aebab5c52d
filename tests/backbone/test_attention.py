"""The way in: a prompt belongs to one call, also when attention is computed again for gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from conftest import FAMILIES, assert_close, make_backbone, random_ids, random_rows, tiny_model
from foreword.axes.injection import KeysValues
from foreword.backbone import Backbone, Call, Prompt, without
from foreword.backbone.layout import Layout


def gradients(backbone: Backbone, checkpointing: bool) -> list[Tensor]:
    """Two forwards with different prompts of different lengths, then the backwards of both."""
    injection = KeysValues(backbone.geometry)
    prompts = [random_rows(backbone, n, seed=n).requires_grad_() for n in (3, 5)]
    losses = []
    for rows in prompts:
        ids = random_ids([6, 4], seed=len(rows))
        layout = Layout.of(ids, [[1, 2], [3]], virtual=len(rows))
        with backbone.recomputing(checkpointing):
            logits = backbone.logits(
                Call(layout, injection.prompt_of(rows)), layout.reading_positions()
            )
        losses.append(logits.log_softmax(-1).square().mean())
    for loss in losses:
        loss.backward()
    return [rows.grad for rows in prompts if rows.grad is not None]


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_survive_checkpointing(family) -> None:
    backbone = make_backbone(family, torch.float64)
    with without(backbone.model, ["last_layer"]):  # which needs that nothing is computed again
        plain, again = gradients(backbone, False), gradients(backbone, True)
    assert len(plain) == len(again) == 2
    for one, other in zip(plain, again, strict=True):
        assert one.abs().max() > 1e-4
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_checkpointing_does_recompute(monkeypatch) -> None:
    """So that the test above can fail: the attention runs again in the backward pass."""
    from foreword.backbone import PromptKeyValues

    calls = []
    front = PromptKeyValues.front

    def counted(self, layer):
        calls.append(layer)
        return front(self, layer)

    backbone = make_backbone("llama", torch.float64)
    monkeypatch.setattr(PromptKeyValues, "front", counted)
    gradients(backbone, False)
    once = len(calls)
    calls.clear()
    gradients(backbone, True)
    assert (once, len(calls)) == (4, 8)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_prompt_it_is_plain_sdpa(tiny_backbone, family) -> None:
    backbone, plain = tiny_backbone(family), tiny_model(family)
    plain.set_attn_implementation("sdpa")
    for lengths in ([6], [6, 6], [3, 7]):
        layout = Layout.of(random_ids(lengths))
        with torch.no_grad():
            expected = plain(
                input_ids=layout.input_ids,
                attention_mask=layout.attention_mask.long(),
                position_ids=layout.position_ids,
            ).logits
            with without(backbone.model, ["masks"]):  # a mask has another kernel
                found = backbone.logits(Call(layout))
        if family == "gpt2":  # its activation is computed by another kernel
            assert_close(found, expected)
        else:
            assert torch.equal(found, expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_mask_and_a_mask_agree(tiny_backbone, family) -> None:
    """Without padding transformers passes no mask at all, and the causal one has to be made."""
    backbone = tiny_backbone(family, torch.float64)
    prompt = KeysValues(backbone.geometry).prompt_of(random_rows(backbone, 3))
    short, long = random_ids([5, 8])
    with torch.no_grad():
        alone = backbone.logits(Call(Layout.of([short], virtual=3), prompt))[0]
        padded = backbone.logits(Call(Layout.of([short, long], virtual=3), prompt))[0, :5]
    assert_close(padded, alone)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_later_token_changes_no_earlier_logit(tiny_backbone, family) -> None:
    backbone = tiny_backbone(family, torch.float64)
    prompt = KeysValues(backbone.geometry).prompt_of(random_rows(backbone, 3))
    (ids,) = random_ids([6])
    with torch.no_grad():
        one = backbone.logits(Call(Layout.of([ids], virtual=3), prompt))
        other = backbone.logits(Call(Layout.of([[*ids[:-1], ids[-1] - 1]], virtual=3), prompt))
    assert torch.equal(one[:, :-1], other[:, :-1])
    assert not torch.equal(one[:, -1], other[:, -1])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_reading_gives_those_logits_alone(tiny_backbone, family, side) -> None:
    backbone = tiny_backbone(family, torch.float64)
    prompt = KeysValues(backbone.geometry).prompt_of(random_rows(backbone, 3))
    layout = Layout.of(random_ids([4, 6]), random_ids([3, 2], seed=1), virtual=3, side=side)
    at = layout.reading_positions()
    with torch.no_grad():
        full = backbone.logits(Call(layout, prompt))
        read = backbone.logits(Call(layout, prompt), at)
    assert read.shape == (5, full.shape[-1])
    assert_close(read, full.flatten(0, 1)[at])


def test_nothing_is_left_on_the_model(tiny_backbone) -> None:
    """Nor on the thread: the model answers as one that nobody wraps, and its modules have the same
    few hooks after any number of calls."""
    backbone, plain = make_backbone("gpt2"), tiny_model("gpt2")
    layout = Layout.of(random_ids([4]), random_ids([2]))
    virtual = Layout.of([[8192, 3, 8193]], [[5]])
    prompt = Prompt(embeddings=torch.randn(2, backbone.geometry.width))

    def hooks() -> int:
        modules = backbone.model.modules()
        return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in modules)

    counts = []
    for _ in range(3):
        with torch.no_grad():
            backbone.logits(Call(layout), layout.reading_positions())
            backbone.logits(Call(virtual, prompt), virtual.reading_positions())
        with pytest.raises(IndexError):
            backbone.logits(Call(layout), torch.tensor([10**6]))
        with pytest.raises(IndexError):
            backbone.logits(Call(layout, prompt), torch.tensor([10**6]))
        counts.append(hooks())
        with torch.no_grad():
            found = backbone.model(input_ids=layout.input_ids).logits
            assert_close(found, plain(input_ids=layout.input_ids).logits)
            assert backbone.logits(Call(layout)).shape[:2] == (1, 6)
    assert counts == [3, 3, 3]


TOKEN_LISTS = st.lists(
    st.lists(st.integers(0, 8191), min_size=1, max_size=9), min_size=1, max_size=4
)


@settings(max_examples=25, deadline=None)
@given(
    rows=TOKEN_LISTS,
    family=st.sampled_from(FAMILIES),
    side=st.sampled_from(["left", "right"]),
    positions=st.sampled_from(["shift", "keep"]),
    pad_id=st.integers(0, 8191),
    data=st.data(),
)
def test_company_changes_no_logit(
    tiny_backbone, rows, family, side, positions, pad_id, data
) -> None:
    """Neither padding, its side and its token, nor batch-mates, nor the order of rows matter."""
    backbone = tiny_backbone(family, torch.float64)
    prompt = KeysValues(backbone.geometry).prompt_of(random_rows(backbone, 3))
    order = data.draw(st.permutations(range(len(rows))))
    batch = Layout.of(
        [rows[i] for i in order], virtual=3, positions=positions, side=side, pad_id=pad_id
    )
    with torch.no_grad():
        together = backbone.logits(Call(batch, prompt))
        for at, i in enumerate(order):
            alone = backbone.logits(
                Call(Layout.of([rows[i]], virtual=3, positions=positions), prompt)
            )
            assert_close(together[at][batch.attention_mask[at]], alone[0])
