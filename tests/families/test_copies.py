"""Attention over virtual tokens apart from that over the text, merged, is attention over both."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from families import by_hand, measures
from families.catalogue import DECODERS, FAMILIES
from families.measures import TOLERANCE, backbone_of
from foreword.axes.injection import KeysValues
from foreword.backbone import Backbone, Call, Decoding, StepDecoder, without
from foreword.backbone.prompts import parts
from merging import however_few

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
def times() -> Iterator[list[str]]:
    """Attentions in two parts."""
    with by_hand.ExactFloat64(), however_few() as calls:
        yield calls


def logits_and_gradient(backbone: Backbone, call: Call, rows: Tensor) -> tuple[Tensor, Tensor]:
    logits = backbone.output(call)[0][call.layout.attention_mask]
    return logits.detach(), torch.autograd.grad(logits.pow(3).mean(), rows)[0]


@pytest.mark.parametrize(
    ("side", "most"), [("left", 0), ("right", parts.MOST)], ids=["left-apart", "right-together"]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_and_gradients(
    family: str, side: str, most: int, times: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "MOST", most)
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


@pytest.mark.parametrize("family", DECODERS)
def test_rows_that_are_written_share_a_prompt(family: str, times: list[str]) -> None:
    """Two rows have one, the third another; sources are read in parts and in one go."""
    backbone = backbone_of(family)
    kv = KeysValues(backbone.geometry)
    layout = measures.laid_out(backbone, kv, measures.rules(backbone, kv)[0], (0, 1, 2), "left")
    rows = measures.random_rows(kv)
    prompts = [kv.prompt_of(rows), kv.prompt_of(rows.flip(0))]

    def answers(chunk: int) -> dict[int, list[int | None]]:
        call = Call.choosing(layout, prompts, (0, 1, 0), backbone.geometry.vocabulary)
        decoder = StepDecoder(backbone, rows=3, columns=64, chunk=chunk)
        decoder.admit([call], [Decoding(max_new_tokens=6)] * 3)
        written: dict[int, list[int | None]] = {number: [] for number in range(3)}
        while decoder.active:
            for one in decoder.step():
                written[one.number].append(one.token)
        return written

    with without(backbone.model, ["copies"]):
        expected = answers(256)
    times.clear()
    assert answers(256) == answers(5) == expected
    assert ("written" in times) is (family not in WHOLE)
