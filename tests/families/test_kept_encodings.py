"""An encoder that no prompt enters reads each source once; what its decoder makes of that is the
same."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from families import by_hand, measures
from families.catalogue import ENCODER_DECODERS
from families.measures import TOLERANCE, backbone_of
from foreword.axes.injection import KeysValues
from foreword.backbone import Backbone, Call, Encodings


@pytest.fixture(autouse=True)
def _exact() -> Iterator[None]:
    with by_hand.ExactFloat64():
        yield


def logits_and_gradient(
    backbone: Backbone, call: Call, rows: Tensor, encodings: Encodings | None = None
) -> tuple[Tensor, Tensor]:
    assert call.prompt is not None
    assert call.layout.source is not None
    del call.prompt.sites["encoder"]
    if encodings is not None:
        call.prompt.encoded = encodings.recall(call.layout.source)
    logits = backbone.logits(call, call.layout.reading_positions())
    return logits.detach(), torch.autograd.grad(logits.square().mean(), rows)[0]


@pytest.mark.parametrize("some", [False, True], ids=["all", "some"])
@pytest.mark.parametrize("family", ENCODER_DECODERS)
def test_what_was_kept_is_what_is_read(
    family: str, some: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = backbone_of(family)
    kv = KeysValues(backbone.geometry)
    layout = measures.laid_out(backbone, kv, measures.rules(backbone, kv)[0], (0, 1, 2), "right")
    assert layout.source is not None
    rows = measures.random_rows(kv).requires_grad_()
    expected = logits_and_gradient(backbone, Call(layout, kv.prompt_of(rows)), rows)
    encodings = Encodings(backbone, 1e9)
    encodings.keep(layout.source.taken(torch.tensor([2] if some else [2, 0, 1])))
    if not some:
        monkeypatch.setattr(backbone.model.get_encoder(), "forward", None)  # it is not run again
    own = logits_and_gradient(backbone, Call(layout, kv.prompt_of(rows)), rows, encodings)
    assert measures.largest(own[0] - expected[0]) < TOLERANCE
    assert measures.largest(expected[1]) > 1e-6
    torch.testing.assert_close(own[1], expected[1], rtol=1e-9, atol=1e-12)


def test_rows_that_are_taken_or_repeated_have_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As label words do with rows that go on in several ways."""
    backbone = backbone_of("t5")
    kv = KeysValues(backbone.geometry)
    layout = measures.laid_out(backbone, kv, measures.rules(backbone, kv)[0], (0, 1, 2), "right")
    assert layout.source is not None
    prompt = kv.prompt_of(measures.random_rows(kv))
    del prompt.sites["encoder"]
    encodings = Encodings(backbone, 1e9)
    encodings.keep(layout.source)
    rows = torch.tensor([2, 0])
    with torch.no_grad():
        expected = backbone.logits(Call(layout.taken(rows).repeated(2), prompt))
        prompt.encoded = encodings.recall(layout.source)
        monkeypatch.setattr(backbone.model.get_encoder(), "forward", None)
        own = backbone.logits(Call(layout.taken(rows).repeated(2), prompt.taken(rows).repeated(2)))
    assert measures.largest(own - expected) < TOLERANCE
