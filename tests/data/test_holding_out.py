"""Held-out examples: the same ones for the same seed, in proportion, and never seen in training."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.data import (
    Example,
    by_what_was_left_out,
    few_shot,
    hold_out,
    leave_out,
    merged,
    read_examples,
    shuffled,
)
from foreword.data.example import input_of
from foreword.errors import DataError, UserError
from foreword.recipe import Recipe
from foreword.runs import data as runs_data
from foreword.runs.data import RunExamples


def labelled(count: int = 1000, labels: str = "aaab") -> list[Example]:
    return [Example({"t": f"{i}"}, label=labels[i % len(labels)]) for i in range(count)]


def texts(examples: list[Example]) -> list[str]:
    return [input_of(example) for example in examples]


@pytest.mark.parametrize("amount", [100, 0.1])
def test_number_and_share(amount: float) -> None:
    examples = labelled()
    train, held = hold_out(examples, amount)
    assert (len(train), len(held)) == (900, 100)
    assert sorted(texts(train + held)) == sorted(texts(examples))
    assert [int(text) for text in texts(held)] == sorted(int(text) for text in texts(held))
    assert Counter(example.label for example in held) == {"a": 75, "b": 25}


def test_the_choice_follows_from_seed_and_inputs() -> None:
    examples = labelled()
    shuffled = random.Random(0).sample(examples, len(examples))
    held = set(texts(hold_out(examples, 100, seed=1)[1]))
    assert set(texts(hold_out(shuffled, 100, seed=1)[1])) == held
    assert set(texts(hold_out(examples, 100, seed=2)[1])) != held
    grown = set(texts(hold_out([*examples, *labelled(1020)[1000:]], 102, seed=1)[1]))
    assert len(grown & held) > 90
    assert sorted(texts(hold_out(labelled(12), 3)[1])) == ["1", "3", "8"]


def test_equal_inputs_stay_together() -> None:
    examples = [Example({"t": f"{i % 50}", "id": f"{i}"}, (f"r{i}",)) for i in range(200)]
    train, held = hold_out(examples, 5, inputs=["t"])
    assert len(held) == 20
    assert {e.fields["t"] for e in train}.isdisjoint(e.fields["t"] for e in held)
    same = [Example({"t": f"{i % 50}", "id": f"{i}"}, label="a") for i in range(200)]
    train, held = hold_out(same, 20, inputs=["t"])
    assert len(held) == 20
    assert {e.fields["t"] for e in train}.isdisjoint(e.fields["t"] for e in held)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from("abc")), min_size=4, max_size=60),
    st.floats(0.2, 0.8),
    st.integers(0, 3),
)
def test_nothing_is_lost_and_nothing_seen(
    rows: list[tuple[int, str]], share: float, seed: int
) -> None:
    examples = [Example({"t": f"{n}"}, label=label) for n, label in rows]
    train, held = hold_out(examples, share, seed=seed)
    assert Counter(map(id, train + held)) == Counter(map(id, examples))
    assert set(texts(train)).isdisjoint(texts(held))
    assert len(held) <= round(share * len(examples))
    if len(set(texts(examples))) == len(examples):
        assert len(held) == round(share * len(examples))
        counts = Counter(e.label for e in examples)
        for label, count in Counter(e.label for e in held).items():
            assert abs(count - counts[label] * len(held) / len(examples)) < 1


@pytest.mark.parametrize("amount", [0.01, 4, 5, 0.95])
def test_nothing_to_hold_out_or_to_train_on(amount: float) -> None:
    with pytest.raises(UserError, match=f"hold_out: {amount:g} of 4 examples would leave"):
        hold_out(labelled(4), amount)


def test_the_real_sst2(shared: Any) -> None:
    examples = read_examples(shared("data/sst2/train.tsv"), "tsv", label="label")
    train, held = hold_out(examples, 872)
    assert (len(train), len(held)) == (66477, 872)
    assert Counter(e.label for e in held) == {"1": 486, "0": 386}


def test_the_real_e2e(shared: Any) -> None:
    examples = read_examples(shared("data/e2e/trainset.csv"), "e2e", merge=False)
    train, held = hold_out(examples, 500)
    assert len(merged(held)) == 500
    assert {str(e.record) for e in train}.isdisjoint(str(e.record) for e in held)


def test_whole_texts_are_held_out_with_all_that_stands_inside_them() -> None:
    sentences = [f"the {a} {b} film was {c}" for a in "xyz" for b in "uvw" for c in ("good", "bad")]
    phrases = ["the x", "film was good", "was", "film  was bad", "y u film", "lm was", "good film"]
    examples = [Example({"t": text}, label="ab"[len(text) % 2]) for text in sentences + phrases]
    train, held = hold_out(examples, 4, whole=True)
    measured = texts(held)
    assert len(held) == 4
    assert set(measured) <= {*sentences, "lm was", "good film"}, "they stand inside no other"
    for text in texts(train):
        words = text.split()
        for other in (sentence.split() for sentence in measured):
            spans = [other[i : i + len(words)] for i in range(len(other))]
            assert words not in spans, (text, other)
    lost = set(sentences + phrases) - set(texts(train)) - set(measured)
    assert lost
    for text in lost:
        assert any(f" {' '.join(text.split())} " in f" {one} " for one in measured), text


def test_rows_without_a_value_and_the_groups_they_make() -> None:
    rows = [Example({"t": str(i), "category": "abc"[i % 3]}, ("x",)) for i in range(9)]
    kept, left = leave_out(rows, {"category": ["b", "c"]})
    assert [row.fields["category"] for row in kept] == ["a"] * 3
    assert len(left) == 6
    groups = [row.group for row in by_what_was_left_out(rows, {"category": ["b"]})]
    assert groups == ["seen", "not seen", "seen"] * 3
    with pytest.raises(
        DataError, match=r"names the field 'kind', which is not there \(there are t"
    ):
        leave_out(rows, {"kind": ["b"]})


def test_a_run_holds_out_by_a_seed_of_its_own(tmp_path: Path) -> None:
    rows = [{"text": f"word {i}", "label": "ab"[i % 2], "kind": "uvw"[i % 3]} for i in range(60)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")

    def read(seed: int, **data: Any) -> RunExamples:
        return runs_data.read_examples(
            Recipe.model_validate(
                {
                    "version": 1,
                    "name": "tried",
                    "seed": seed,
                    "backbone": "foreword/mini",
                    "task": {
                        "data": {
                            "format": "jsonl",
                            "train": str(tmp_path / "rows.jsonl"),
                            "label": "label",
                            "hold_out": 12,
                            **data,
                        },
                        "input": "{text}",
                    },
                    "method": "head-only",
                }
            )
        )

    assert texts(read(0).dev) != texts(read(1).dev)
    fixed = [read(seed, hold_out_seed=3) for seed in (0, 1)]
    assert texts(fixed[0].dev) == texts(fixed[1].dev) == texts(read(3).dev)
    run = read(0, without={"kind": ["v"]})
    assert {row.fields["kind"] for row in run.train} == {"u", "w"}
    assert {row.group for row in run.dev} == {"seen", "not seen"}
    assert all((row.group == "seen") == (row.fields["kind"] != "v") for row in run.dev)


def test_a_draw_of_each_label_with_a_limit_takes_the_labels_in_turn() -> None:
    examples = labelled(200, labels="aaab")
    whole, _ = few_shot(examples, 8, seed=1)
    for most in (1, 2, 5, 16, 100):
        drawn, rest = few_shot(examples, 8, seed=1, most=most)
        counts = Counter(example.label for example in drawn)
        assert len(drawn) == min(most, 16)
        assert counts["a"] - counts["b"] in (0, 1)
        assert set(texts(drawn)) <= set(texts(whole))
        assert sorted(texts(drawn + rest)) == sorted(texts(examples))


def test_a_sample_grows_with_its_size_and_another_seed_draws_another() -> None:
    examples = labelled(200)
    backwards = shuffled(examples[::-1], 3)
    assert backwards == shuffled(examples, 3)
    assert sorted(texts(backwards)) == sorted(texts(examples))
    first, other = set(texts(shuffled(examples, 3)[:50])), set(texts(shuffled(examples, 4)[:50]))
    assert first != other
    assert 2 <= len(first & other) <= 30  # 12.5 are expected
