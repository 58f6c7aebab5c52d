"""Where everything of a batch lies, against a naive loop."""

from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foreword.backbone.layout import Layout, Taught

TOKENS = st.integers(0, 50)
PAIRS = st.lists(
    st.tuples(st.lists(TOKENS, min_size=1, max_size=6), st.lists(TOKENS, min_size=0, max_size=5)),
    min_size=1,
    max_size=5,
)
SIDES = st.sampled_from(["left", "right"])
RULES = st.sampled_from(["shift", "keep"])


@given(pairs=PAIRS, side=SIDES, rule=RULES, virtual=st.integers(0, 7), pad_id=TOKENS)
def test_against_a_naive_loop(pairs, side, rule, virtual, pad_id) -> None:
    sources, targets = [list(s) for s, _ in pairs], [list(t) for _, t in pairs]
    layout = Layout.of(sources, targets, virtual=virtual, positions=rule, side=side, pad_id=pad_id)
    width = max(len(s) + len(t) for s, t in pairs)
    first = virtual if rule == "shift" else 0
    reading, predicted, rows = [], [], []
    for row, (source, target) in enumerate(pairs):
        text = [*source, *target]
        pads = width - len(text)
        start = pads if side == "left" else 0
        ids = layout.input_ids[row].tolist()
        mask = layout.attention_mask[row].tolist()
        padding = [pad_id] * pads
        assert ids == (padding + text if side == "left" else text + padding)
        assert mask == [start <= column < start + len(text) for column in range(width)]
        real = layout.position_ids[row][layout.attention_mask[row]].tolist()
        assert real == list(range(first, first + len(text)))
        for offset in range(len(source), len(text)):
            reading.append(row * width + start + offset - 1)
            predicted.append(text[offset])
            rows.append(row)
    assert layout.reading_positions().tolist() == reading
    assert layout.target_ids().tolist() == predicted
    assert layout.target_rows().tolist() == rows
    assert (layout.rows, layout.virtual) == (len(pairs), virtual)


@given(pairs=PAIRS, side=SIDES, rule=RULES)
def test_what_is_read_stands_right_before_what_is_predicted(pairs, side, rule) -> None:
    layout = Layout.of([s for s, _ in pairs], [t for _, t in pairs], side=side, positions=rule)
    at = layout.reading_positions()
    assert layout.input_ids.flatten()[at + 1].tolist() == layout.target_ids().tolist()
    assert layout.attention_mask.flatten()[at].all()


@given(pairs=PAIRS, rule=RULES, virtual=st.integers(0, 7))
def test_position_ids_never_leave_the_context(pairs, rule, virtual) -> None:
    """Padding has position ids too, and an embedding table must have them all."""
    for side in ("left", "right"):
        layout = Layout.of(
            [s for s, _ in pairs],
            [t for _, t in pairs],
            virtual=virtual,
            positions=rule,
            side=side,
        )
        longest = max(len(s) + len(t) for s, t in pairs)
        first = virtual if rule == "shift" else 0
        assert layout.position_ids.min() >= first
        assert layout.position_ids.max() == first + longest - 1


def test_sources_alone() -> None:
    layout = Layout.of([[5, 6], [7]], side="left", pad_id=9)
    assert layout.input_ids.tolist() == [[5, 6], [9, 7]]
    assert layout.reading_positions().numel() == 0
    assert layout.target_ids().numel() == 0


def test_another_device() -> None:
    layout = Layout.of([[5, 6]], [[7]], virtual=2).to("meta")
    assert {layout.input_ids.device.type, layout.target_mask.device.type} == {"meta"}
    assert layout.virtual == 2
    assert layout.attention_mask.dtype == torch.bool


def whole() -> Layout:
    """Two rows with something in every field."""
    inner = {"side": "right", "marks": [[0], [1]], "segments": [[0, 1], [1, 1, 1]]}
    before = Layout.of([[1], [2, 3]], side="left", segments=[[1], [1, 1]])
    source = Layout.of([[4, 5], [6, 7, 8]], **inner)
    found = Layout.of([[1, 2], [3, 4, 5]], [[6], []], virtual=2, labels=[[1], [2]], **inner)
    taught = Taught(torch.zeros(1, 2).long(), torch.zeros(1, 2), torch.zeros(1))
    numbers = torch.tensor([2, 1])
    return replace(found, source=source, before=before, prompts=numbers, taught=taught)


def test_no_field_is_forgotten_where_rows_are_taken_or_repeated() -> None:
    layout = whole()
    given = {part.name: getattr(layout, part.name) for part in fields(layout)}
    assert all(value is not None for value in given.values()), "a new field belongs in `whole`"
    everything = layout.to("meta")
    for name in given:
        moved = getattr(everything, name)
        if name != "virtual":
            inside = [moved.segments, moved.input_ids] if isinstance(moved, Layout) else [moved]
            if isinstance(moved, Taught):
                inside = [moved.tokens, moved.logs, moved.rest]
            assert {part.device.type for part in inside} == {"meta"}
    for rows, changed in (
        ([1], layout.taken(torch.tensor([1]))),
        ([0, 0, 0, 1, 1, 1], layout.repeated(3)),
    ):
        for name, value in given.items():
            found = getattr(changed, name)
            if isinstance(value, Layout):
                for inner in ("input_ids", "attention_mask", "position_ids", "segments"):
                    expected = getattr(value, inner)[rows]
                    assert torch.equal(getattr(found, inner), expected), (name, inner)
            elif name in ("labels", "taught"):
                assert found is None
            elif name == "virtual":
                assert found == value
            else:
                assert torch.equal(found, value[rows]), name


def test_a_text_behind_rows_belongs_to_the_text_of_their_last_token() -> None:
    rows, segments = [[1, 2], [3, 4, 5]], [[0, 1], [0, 1, 0]]
    source = Layout.of([[4, 5], [6, 7, 8]])
    layout = replace(Layout.of(rows, segments=segments, marks=[[0], [1]]), source=source)
    found = layout.followed_by([[7], [8, 9]])
    expected = Layout.of(
        [[*row, *text] for row in rows for text in ([7], [8, 9])],
        segments=[[0, 1, 1], [0, 1, 1, 1], [0, 1, 0, 0], [0, 1, 0, 0, 0]],
        marks=[[0], [0], [1], [1]],
    )
    there = expected.attention_mask
    for name in ("input_ids", "segments", "position_ids", "marks", "attention_mask"):
        assert torch.equal(getattr(found, name)[there], getattr(expected, name)[there]), name
    assert found.source is not None
    assert found.source.input_ids.tolist() == [[4, 5, 0], [4, 5, 0], [6, 7, 8], [6, 7, 8]]


def test_as_many_targets_as_sources() -> None:
    with pytest.raises(ValueError, match="shorter"):
        Layout.of([[1], [2]], [[3]])
