"""Attention over virtual tokens apart from that over the text, merged, is attention over both."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from families import by_hand, measures
from families.catalogue import FAMILIES
from families.measures import TOLERANCE, backbone_of
from foreword.axes.injection import KeysValues
from foreword.backbone import Backbone, Call, without
from foreword.backbone.prompts import merged

WHOLE = {
    "bloom",
    "codegen",
    "deepseek_v2",
    "deepseek_v3",
    "falcon",
    "gemma2",
    "gpt_oss",
    "gptj",
    "longcat_flash",
    "minicpm3",
    "mt5",
    "nllb-moe",
    "stablelm",
    "switch_transformers",
    "t5",
    "t5gemma",
    "umt5",
    "vaultgemma",
}
"""Families whose attention is another one: their own, eager (soft caps, sinks), with a bias of
positions, or with values of another width than keys."""


@pytest.fixture(autouse=True)
def _however_few(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(merged, "LEAST", 1)
    monkeypatch.setattr(merged, "QUERIES", 1)
    with by_hand.ExactFloat64():
        yield


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Attentions that were merged."""
    calls: list[str] = []
    attention = merged.attention

    def counted(*args: object, **kwargs: object) -> Tensor:
        calls.append("merged")
        return attention(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(merged, "attention", counted)
    return calls


def logits_and_gradient(backbone: Backbone, call: Call, rows: Tensor) -> tuple[Tensor, Tensor]:
    logits = backbone.output(call)[0][call.layout.attention_mask]
    return logits.detach(), torch.autograd.grad(logits.pow(3).mean(), rows)[0]


@pytest.mark.parametrize(
    ("side", "most"), [("left", 0), ("right", merged.MOST)], ids=["left-apart", "right-together"]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_and_gradients(
    family: str, side: str, most: int, times: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merged, "MOST", most)
    backbone = backbone_of(family)
    kv = KeysValues(backbone.geometry)
    layout = measures.laid_out(backbone, kv, measures.rules(backbone, kv)[0], (0, 1, 2), side)
    rows = measures.random_rows(kv).requires_grad_()
    times.clear()  # a backbone is tried with a text when it is made
    with without(backbone.model, ["copies"]):
        expected = logits_and_gradient(backbone, Call(layout, kv.prompt_of(rows)), rows)
    assert not times
    own = logits_and_gradient(backbone, Call(layout, kv.prompt_of(rows)), rows)
    assert measures.largest(own[0] - expected[0]) < TOLERANCE
    assert measures.largest(expected[1]) > 1e-9
    torch.testing.assert_close(own[1], expected[1], rtol=1e-9, atol=1e-12)
    assert bool(times) is (family not in WHOLE)
