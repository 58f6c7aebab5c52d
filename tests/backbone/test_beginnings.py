"""What rows begin with alike is read once, and changes nothing."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from families import by_hand, measures
from families.catalogue import DECODERS
from families.measures import backbone_of
from foreword.axes.injection import KeysValues
from foreword.backbone import Call, Prompt, RowKeyValues, beginnings, read_once
from foreword.backbone.beginnings import groups_of
from foreword.backbone.layout import Layout

PASSAGE = [(7 * at) % 200 + 20 for at in range(24)]
OTHER = [*PASSAGE[:5], *((11 * at) % 200 + 30 for at in range(20))]
ROWS = [
    [*PASSAGE, 31, 32],
    [*OTHER, 41],
    [*PASSAGE, 33, 34, 35, 36],
    [9, 8, 7],
    [*PASSAGE, 31],
    [*OTHER, 43, 44, 45],
]
"""Two beginnings, and a row alone."""


@pytest.fixture(autouse=True)
def _exactly() -> Iterator[None]:
    with by_hand.ExactFloat64():
        yield


def laid(backbone, virtual: int = 0, rule="shift") -> Layout:
    first = backbone.geometry.first_position
    return Layout.of(ROWS, virtual=virtual, positions=rule, first_position=first)


def last(layout: Layout) -> torch.Tensor:
    """The flat positions of each row's last two tokens."""
    ends = layout.attention_mask.sum(1) - 1
    first = torch.arange(layout.rows) * layout.input_ids.shape[1]
    return torch.stack([first + ends - 1, first + ends], 1).flatten()


def gap(backbone, call: Call, monkeypatch) -> tuple[float, Call]:
    """The largest difference to reading every row whole, and the call that was run."""
    monkeypatch.setattr(beginnings, "WORTH", 0.01)
    at = last(call.layout)
    with torch.no_grad():
        expected = backbone.logits(call, at)
        rest, places = read_once(backbone, call, at)
        return measures.largest(backbone.logits(rest, places) - expected), rest


@pytest.mark.parametrize("family", DECODERS)
def test_logits_are_those_of_whole_rows(family, monkeypatch) -> None:
    """Two prompts, one without, in one batch; families that share nothing read whole rows."""
    backbone = backbone_of(family)
    injection = KeysValues(backbone.geometry)
    rows = measures.random_rows(injection)
    (one,), (two,) = (injection.prompt_of(part).sites.values() for part in (rows, 2 * rows))
    mixed = Prompt({"decoder": RowKeyValues([one, two], torch.tensor([0, 1, 0, -1, 1, 1]))})
    prompts = {"shift": injection.prompt_of(rows), "keep": mixed}
    if not backbone.geometry.takes_positions:
        prompts.pop("keep")
    for rule, prompt in prompts.items():
        layout = laid(backbone, measures.LENGTH, rule)
        difference, rest = gap(backbone, Call(layout, prompt), monkeypatch)
        assert difference < 1e-9
    g = backbone.geometry
    if g.through == "interface" and g.caches_heads and not g.slides and g.takes_positions:
        shorter = rest.layout.input_ids.shape[1] < layout.input_ids.shape[1]
        assert shorter == beginnings._sees_all(backbone)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "opt"])
def test_these_families_share(family, monkeypatch) -> None:
    """Without any prompt, and with one for all."""
    backbone = backbone_of(family)
    injection = KeysValues(backbone.geometry)
    prompt = injection.prompt_of(measures.random_rows(injection))
    for call in (Call(laid(backbone)), Call(laid(backbone, measures.LENGTH), prompt)):
        difference, rest = gap(backbone, call, monkeypatch)
        assert difference < 1e-9
        left = sum(map(len, ROWS)) - 3 * 23 - 2 * 24
        assert rest.layout.attention_mask.sum() == left


def test_nothing_is_shared_where_gradients_are_wanted() -> None:
    backbone = backbone_of("llama")
    call = Call(laid(backbone))
    at = last(call.layout)
    assert read_once(backbone, call, at) == (call, at)
    with torch.no_grad():
        assert read_once(backbone, call, at)[0] is not call


def test_a_row_that_is_read_early_bounds_its_group() -> None:
    """The first token that is read must be run in its own row."""
    backbone = backbone_of("llama")
    call = Call(laid(backbone))
    width = call.layout.input_ids.shape[1]
    early = torch.tensor([18, 2 * width + 25, 4 * width + 24])
    with torch.no_grad():
        expected = backbone.logits(call, early)
        rest, at = read_once(backbone, call, early)
        assert rest is not call
        assert measures.largest(backbone.logits(rest, at) - expected) < 1e-9


def test_too_little_in_common_is_read_whole() -> None:
    backbone = backbone_of("llama")
    layout = Layout.of([[*PASSAGE[:17], 1], [*PASSAGE[:17], 2], *([at] * 60 for at in range(3, 9))])
    at = last(layout)
    with torch.no_grad():
        assert read_once(backbone, Call(layout), at)[0].layout is layout


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(16, 40), st.integers(1, 4)),
        min_size=1,
        max_size=8,
    )
)
def test_groups(drawn) -> None:
    """Every row is in one group; those of a group have one prompt and begin alike."""
    texts = [(kind,) * length + (9,) * end for kind, _, length, end in drawn]
    of = [prompt for _, prompt, _, _ in drawn]
    most = [len(text) - 1 for text in texts]
    groups = groups_of(texts, of, most)
    assert sorted(row for group in groups for row in group.rows) == list(range(len(texts)))
    for group in groups:
        assert len({of[row] for row in group.rows}) == 1
        assert len({texts[row][: group.length] for row in group.rows}) == 1
        assert all(group.length <= most[row] for row in group.rows)
        assert group.length == 0 or (len(group.rows) > 1 and group.length >= beginnings.LEAST)
