"""The divergence from a teacher, beside torch's own, and as a loss that trains."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import make_backbone, random_ids
from foreword.axes.readout.divergence import divergence, likeliest
from foreword.backbone.layout import Layout, Pair, Taught
from foreword.methods import PrefixTuning
from foreword.tuned.compose import compose


def logits(seed: int, rows: int = 5, vocabulary: int = 13, scale: float = 3.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(rows, vocabulary, generator=generator, dtype=torch.float64)


def whole(teacher: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
    """torch's own divergence of all logits."""
    each = torch.nn.functional.kl_div(
        model.log_softmax(-1), teacher.log_softmax(-1), reduction="none", log_target=True
    )
    return each.sum(-1)


@pytest.mark.parametrize("k", [13, 20])
def test_all_tokens_give_the_whole_divergence(k: int) -> None:
    teacher, model = logits(0), logits(1)
    ours = divergence(likeliest(teacher, k), model)
    torch.testing.assert_close(ours, whole(teacher, model), rtol=0, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.integers(1, 12), st.sampled_from([0.1, 3.0, 30.0]))
def test_fewer_tokens_give_the_divergence_of_the_tokens_counted_together(
    seed: int, k: int, scale: float
) -> None:
    teacher, model = logits(seed, scale=scale), logits(seed + 1, scale=scale)
    ours = divergence(likeliest(teacher, k), model)
    shares, own = teacher.softmax(-1), model.softmax(-1)
    best = shares.topk(k, -1).indices
    p, q = shares.gather(-1, best), own.gather(-1, best)
    bucketed = (p * (p / q).log()).sum(-1)
    outside = torch.ones_like(shares).scatter(-1, best, 0.0)
    p, q = (shares * outside).sum(-1), (own * outside).sum(-1)
    expected = bucketed + p * (p / q).log()
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)
    assert (ours >= -1e-9).all()
    assert (ours <= whole(teacher, model) + 1e-9).all()


def test_a_teacher_without_doubt_leaves_finite_numbers_and_gradients() -> None:
    teacher = torch.full((2, 6), -1e4, dtype=torch.float64)
    teacher[:, 2] = 0.0
    model = torch.zeros(2, 6, dtype=torch.float64, requires_grad=True)
    loss = divergence(likeliest(teacher, 3), model)
    loss.sum().backward()
    expected = torch.full((2,), 6.0, dtype=torch.float64).log()
    torch.testing.assert_close(loss.detach(), expected)
    assert model.grad is not None
    assert model.grad.isfinite().all()


def test_the_loss_of_rows_is_the_divergence_at_their_predicted_tokens() -> None:
    backbone = make_backbone("llama", torch.float64)
    model = compose(backbone, PrefixTuning(name="prefix-tuning", length=3))
    sources, targets = random_ids([4, 6]), random_ids([5, 3], seed=1)
    teacher = logits(2, rows=8, vocabulary=backbone.geometry.vocabulary)
    taught = likeliest(teacher, 20)
    shares = [
        Taught(taught.tokens[a:b], taught.logs[a:b], taught.rest[a:b]) for a, b in ((0, 5), (5, 8))
    ]
    pairs = [
        Pair(source, target, taught=share)
        for source, target, share in zip(sources, targets, shares, strict=True)
    ]
    together = model(model.lay_out(pairs))
    plain = [replace(pair, taught=None) for pair in pairs]
    bare = model.lay_out(plain)
    own = backbone.logits(model.call(bare), bare.reading_positions())
    torch.testing.assert_close(together, divergence(taught, own), rtol=0, atol=1e-12)
    alone = torch.cat([model(model.lay_out([pair])) for pair in reversed(pairs)])
    torch.testing.assert_close(together, torch.cat([alone[3:], alone[:3]]), rtol=0, atol=1e-9)


def test_rows_that_are_taken_or_joined_leave_the_teacher_behind() -> None:
    taught = likeliest(logits(3, rows=2), 4)
    layout = replace(Layout.of([[1, 2]], [[3, 4]]), taught=taught)
    assert layout.to("cpu").taught is not None
    assert layout.taken(torch.tensor([0])).taught is None
    assert layout.repeated(2).taught is None
    assert Layout.joined([layout, layout]).taught is None
