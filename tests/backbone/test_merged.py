"""What surrounds an attention in two parts: checkpointing, autocast, `torch.func`."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from families import measures
from families.measures import backbone_of
from foreword.axes.injection import KeysValues
from foreword.backbone import Call, without
from foreword.backbone.prompts import parts
from merging import however_few


@pytest.fixture(autouse=True)
def times() -> Iterator[list[str]]:
    """Attentions in two parts."""
    with however_few() as calls:
        yield calls


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_first_use_may_be_in_a_layer_that_is_recomputed(checkpointing: bool) -> None:
    """Whether the kernels are right is tried then, out of sight of what counts tensors."""
    backbone = backbone_of("gpt2")
    kv = KeysValues(backbone.geometry)
    layout = measures.laid_out(backbone, kv, "shift", (0, 1, 2), "right")
    rows = measures.random_rows(kv).requires_grad_()
    parts.works.cache_clear()
    with backbone.recomputing(checkpointing):
        logits = backbone.output(Call(layout, kv.prompt_of(rows)))[0]
    (gradient,) = torch.autograd.grad(logits.sum(), rows)
    assert parts.works()
    assert measures.largest(gradient) > 0


def test_functional_gradients_have_one_attention(times: list[str]) -> None:
    backbone = backbone_of("gpt2")
    kv = KeysValues(backbone.geometry)
    layout = measures.laid_out(backbone, kv, "shift", (0, 1, 2), "right")

    def loss(rows: Tensor) -> Tensor:
        return backbone.output(Call(layout, kv.prompt_of(rows)))[0].pow(3).mean()

    rows = measures.random_rows(kv).requires_grad_()
    times.clear()
    own = torch.func.grad(loss)(rows.detach())
    assert not times
    expected = torch.autograd.grad(loss(rows), rows)[0]
    assert times
    torch.testing.assert_close(own, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("family", ["llama", "bert"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_autocast(family: str, dtype: torch.dtype, times: list[str]) -> None:
    """Rotated queries are float32 beside values in bfloat16; float64 is left alone."""
    backbone = backbone_of(family, dtype)
    kv = KeysValues(backbone.geometry)
    layout = measures.laid_out(backbone, kv, measures.rules(backbone, kv)[0], (0, 1, 2), "right")
    prompt = kv.prompt_of(measures.random_rows(kv).to(dtype))
    times.clear()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        own = backbone.output(Call(layout, prompt))[0]
        assert times
        with without(backbone.model, ["copies"]):
            expected = backbone.output(Call(layout, prompt))[0]
    real = layout.attention_mask
    torch.testing.assert_close(own[real], expected[real], rtol=0.05, atol=0.05)
