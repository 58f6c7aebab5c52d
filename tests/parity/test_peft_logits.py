"""The same prefix gives the same logits here, in PEFT, and in the model's own cache."""

import pytest
import torch
from peft import PrefixTuningConfig, get_peft_model
from torch import Tensor

from conftest import (
    FAMILIES,
    assert_close,
    cached_logits,
    random_ids,
    random_rows,
    row_logits,
    tiny_model,
)
from foreword.axes.injection import KeysValues
from foreword.backbone import Backbone, Call
from foreword.backbone.layout import Layout

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)
LENGTH = 5
DTYPES = (torch.float64, torch.float32)
LENGTHS = {"alone": [7], "unpadded": [6, 6], "padded": [9, 4, 6]}


def peft_logits(family: str, rows: Tensor, layout: Layout) -> Tensor:
    """PEFT's own model with `rows` as its `prompt_embeddings`, called as a user calls it."""
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=LENGTH)
    model = get_peft_model(tiny_model(family, rows.dtype), config).eval()
    encoder = model.prompt_encoder["default"].to(rows.dtype)
    assert encoder.embedding.weight.shape == rows.shape
    with torch.no_grad():
        encoder.embedding.weight.copy_(rows)
        return model(input_ids=layout.input_ids, attention_mask=layout.attention_mask.long()).logits


def our_logits(backbone: Backbone, rows: Tensor, layout: Layout) -> Tensor:
    with torch.no_grad():
        return backbone.logits(Call(layout, KeysValues(backbone.geometry).prompt_of(rows)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", LENGTHS)
@pytest.mark.parametrize("family", FAMILIES)
def test_right_padded_as_in_peft(tiny_backbone, family, batch, dtype) -> None:
    backbone = tiny_backbone(family, dtype)
    rows = random_rows(backbone, LENGTH)
    layout = Layout.of(random_ids(LENGTHS[batch]), virtual=LENGTH)
    ours, theirs = our_logits(backbone, rows, layout), peft_logits(family, rows, layout)
    for row in range(layout.rows):
        assert_close(row_logits(ours, layout, row), row_logits(theirs, layout, row))


@pytest.mark.parametrize("dtype", DTYPES)
def test_left_padded_as_in_peft(tiny_backbone, dtype) -> None:
    """OPT alone: it counts positions off the mask, so PEFT is right here too."""
    backbone = tiny_backbone("opt", dtype)
    rows = random_rows(backbone, LENGTH)
    layout = Layout.of(random_ids(LENGTHS["padded"]), virtual=LENGTH, side="left")
    ours, theirs = our_logits(backbone, rows, layout), peft_logits("opt", rows, layout)
    for row in range(layout.rows):
        assert_close(row_logits(ours, layout, row), row_logits(theirs, layout, row))


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_left_padding_in_peft_moves_the_text(tiny_backbone, family) -> None:
    """PEFT 0.21.2 drops position ids: a row's logits depend on how long its batch-mates are.

    Measured here, at a largest logit of 5.4: rows padded by 5 and 3 columns move by up to 5.1
    (gpt2), 3.1 (llama) and 5.0 (qwen3); the row without padding is exact. When this fails, PEFT has
    mended it, and the family belongs into the test above.
    """
    backbone = tiny_backbone(family, torch.float64)
    rows = random_rows(backbone, LENGTH)
    layout = Layout.of(random_ids(LENGTHS["padded"]), virtual=LENGTH, side="left")
    ours, theirs = our_logits(backbone, rows, layout), peft_logits(family, rows, layout)
    gaps = [
        (row_logits(ours, layout, row) - row_logits(theirs, layout, row)).abs().max().item()
        for row in range(layout.rows)
    ]
    assert gaps[0] < 1e-9
    assert min(gaps[1:]) > 0.1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("positions", ["shift", "keep"])
@pytest.mark.parametrize("family", FAMILIES)
def test_as_in_the_models_own_cache(tiny_backbone, family, positions, side, dtype) -> None:
    backbone = tiny_backbone(family, dtype)
    rows = random_rows(backbone, LENGTH)
    prompt = KeysValues(backbone.geometry).prompt_of(rows)
    ids = random_ids(LENGTHS["padded"])
    layout = Layout.of(ids, virtual=LENGTH, side=side, positions=positions)
    ours = our_logits(backbone, rows, layout)
    for row, alone in enumerate(ids):
        reference = cached_logits(backbone, alone, prompt, positions)
        assert_close(row_logits(ours, layout, row), reference)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_rules_differ(tiny_backbone, family) -> None:
    """So that the tests above can fail: where the text stands matters to every family."""
    backbone = tiny_backbone(family, torch.float64)
    prompt = KeysValues(backbone.geometry).prompt_of(random_rows(backbone, LENGTH))
    (ids,) = random_ids([6])
    shift = cached_logits(backbone, ids, prompt, "shift")
    assert (shift - cached_logits(backbone, ids, prompt, "keep")).abs().max() > 0.1
    assert (shift - cached_logits(backbone, ids, None)).abs().max() > 0.1
