"""Runs on packed data: for every kind of task what runs on lists are, and read but once."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from foreword.backbone import Backbone
from foreword.common import kept, shares
from foreword.common import packed as packing
from foreword.common.packed import Packed
from foreword.common.progress import Silent
from foreword.data import once, stored
from foreword.errors import UserError
from foreword.recipe import parse_recipe
from foreword.runs import Run, data, train
from foreword.runs.preparing import Prepared, prepare
from foreword.tasks import bound
from foreword.training.amount import Amount
from foreword.training.batching import LengthBatches
from talks import OPENAI, SHAREGPT

THINGS = ("otter", "heron", "toad", "birch", "hawk", "town", "river", "cold")
ROWS = [
    {
        "text": f"the {word} {thing} near the " + "old " * (number % 5) + "river",
        "other": f"a {thing}",
        "kind": word,
        "told": [label for label in ("grey", "large") if label in word or number % 3 == 0],
        "size": number / 2,
        "alike": (number % 8) / 10,
        "one": f"is {word}",
        "two": "is bad and old",
        "right": number % 2,
        "thing": thing,
        "references": [f"It is {word}.", f"A {word} one."][: 1 + number % 2],
        "group": "even" if number % 2 else "odd",
    }
    for number, (thing, word) in enumerate((t, w) for t in THINGS for w in ("grey", "large"))
]
TABLE = {"format": "jsonl", "train": "rows.jsonl", "dev": "rows.jsonl"}
INPUT = {"input": "{text:cut=1} {thing} ->", "target": " {reference}"}
WORDS = {"words": {"grey": ["dull", "very grey"], "large": "big"}}
KINDS: dict[str, dict[str, Any]] = {
    "text": {"data": TABLE, **INPUT},
    "text cut": {"data": TABLE, **INPUT, "max_tokens": 9},
    "text held out": {
        "data": {**TABLE, "dev": None, "hold_out": 5, "group": "group"},
        **INPUT,
        "limits": {"train": 6, "sample": 3},
    },
    "text without": {"data": {**TABLE, "without": {"thing": ["toad"]}}, **INPUT},
    "messages": {
        "data": TABLE,
        "input": [{"role": "user", "content": "{text}"}],
        "chat_template": "plain",
    },
    "label": {"data": {**TABLE, "label": "kind"}, "input": "{text}", "second": "{other}"},
    "label few": {
        "data": {**TABLE, "label": "kind"},
        "input": "{text}",
        "limits": {"per_label": 2, "dev": 7},
    },
    "label held out": {
        "data": {**TABLE, "dev": None, "hold_out": 0.25, "label": "kind"},
        "input": "{text}",
    },
    "label words": {
        "data": {**TABLE, "label": "kind"},
        "input": "{text} is {mask}",
        "verbalizer": WORDS,
    },
    "windows": {
        "data": {**TABLE, "label": "kind"},
        "input": "{text:cut}",
        "max_tokens": 8,
        "windows": "mean",
        "stride": 2,
    },
    "labels": {"data": {**TABLE, "label_list": "told"}, "input": "{text}"},
    "number": {"data": {**TABLE, "number": "size"}, "input": "{text}"},
    "choice": {
        "data": {**TABLE, "choices": ["one", "two"], "right": "right"},
        "input": "The {thing}",
        "target": " {reference}",
    },
    "choice by head": {
        "data": {**TABLE, "choices": ["one", "two"], "right": "right"},
        "input": "The {thing} {choice}",
        "choice": {"by": "head"},
    },
    "vectors": {
        "data": {**TABLE, "paired": "other", "similarity": "alike"},
        "input": "{text:cut}",
        "second": "{other}",
    },
    "turns": {
        "data": {
            "format": "jsonl",
            "train": "talks.jsonl",
            "dev": "talks.jsonl",
            "messages": "talk",
            "measured": "each",
        },
        "chat_template": "plain",
        "max_tokens": 60,
        "truncate": "talk",
    },
    "tags": {
        "data": {"format": "conll", "train": "rows.conll", "dev": "rows.conll"},
        "max_tokens": 6,
        "stride": 2,
    },
    "spans": {
        "data": {"format": "squad", "train": "rows.json", "dev": "rows.json"},
        "max_tokens": 20,
        "stride": 4,
    },
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")

    def lines(name: str, rows: list[Any]) -> None:
        (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")

    lines("rows.jsonl", ROWS)
    lines("talks.jsonl", [{"talk": talk} for talk in (OPENAI, SHAREGPT) * 3])
    tagged = "\n\n".join(f"{t} O\nof B-LOC\nthe I-LOC\nold O\nriver O" for t in THINGS)
    (folder / "rows.conll").write_text(f"{tagged}\n", "utf-8")
    paragraphs = [
        {
            "context": f"It was late when the {thing} saw a bird in the old park.",
            "qas": [
                {
                    "id": thing,
                    "question": "Who saw?",
                    "answers": [{"text": thing, "answer_start": 21}],
                },
                {"id": f"{thing}2", "question": "Why?", "answers": [], "is_impossible": True},
            ],
        }
        for thing in THINGS
    ]
    content = {"version": "v2.0", "data": [{"title": "t", "paragraphs": paragraphs}]}
    (folder / "rows.json").write_text(json.dumps(content), "utf-8")
    return folder


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """All data are large, in batches of a few rows; the cache is this test's."""
    monkeypatch.setattr(stored, "LARGE_BYTES", 0)
    monkeypatch.setattr(packing, "BLOCK", 5)
    monkeypatch.setenv("FOREWORD_CACHE", str(tmp_path / "cache"))
    return monkeypatch


def recipe(files: Path, kind: str, **more: Any) -> dict[str, Any]:
    task = json.loads(json.dumps(KINDS[kind]))
    for split in ("train", "dev"):
        if task["data"].get(split):
            task["data"][split] = str(files / task["data"][split])
    training = {"steps": 3, "batch_size": 4, "learning_rate": 0.01, **more.pop("training", {})}
    return {
        "version": 1,
        "name": "large",
        "backbone": "foreword/mini",
        "method": {"name": "p-tuning-v2", "length": 3},
        "decoding": {"max_new_tokens": 4},
        "task": task,
        "training": training,
        **more,
    }


def prepared(given: dict[str, Any], backbone: Backbone) -> Prepared:
    parsed = parse_recipe({**given, "backbone": backbone.name})
    return prepare(parsed, "cpu", backbone, Silent())


def in_memory(given: dict[str, Any], backbone: Backbone) -> Prepared:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored, "LARGE_BYTES", 2**60)
        return prepared(given, backbone)


def contents(ready: Prepared) -> dict[str, Any]:
    """All that was read and tokenised, sequences as lists."""
    parts = {
        f"{name}.{field.name}": getattr(part, field.name)
        for name, part in (("examples", ready.examples), ("data", ready.data))
        for field in fields(part)
    }
    told = {
        name: list(map(repr, value)) if isinstance(value, list | Packed) else value
        for name, value in parts.items()
    }
    amount = str(Amount.of(ready.recipe.training, ready.data.pairs))
    return {**told, "stated": ready.stated, "plan": ready.plan(), "amount": amount}


@pytest.mark.parametrize("kind", KINDS)
def test_packed_data_are_those_in_memory(
    kind: str, files: Path, mini: Backbone, large: pytest.MonkeyPatch
) -> None:
    given = recipe(files, kind)
    plain, ready = in_memory(given, mini), prepared(given, mini)
    assert contents(ready) == contents(plain)
    assert isinstance(plain.data.pairs, list)
    for part in (ready.data.pairs, ready.data.train, ready.data.dev, ready.data.dev_pairs):
        assert isinstance(part, Packed)
    # the second start reads, counts and tokenises nothing
    for module, name in (
        (once, "write_in_shares"),
        (bound, "write_in_shares"),
        (data, "take_census"),
    ):
        large.setattr(module, name, None)
    large.setattr(bound.BoundTask, "rows", None)
    assert contents(prepared(given, mini)) == contents(plain)


@pytest.mark.parametrize("kind", ["text", "label words"])
def test_a_masked_model_reads_packed_data(
    kind: str, files: Path, masked: Backbone, large: pytest.MonkeyPatch
) -> None:
    task = {"label words": "label words", "text": "label"}[kind]
    given = recipe(files, task)
    assert contents(prepared(given, masked)) == contents(in_memory(given, masked))


def test_several_processes_make_the_same(
    files: Path, mini: Backbone, large: pytest.MonkeyPatch
) -> None:
    large.setattr(bound, "processes", lambda items: 3)
    large.setattr(once, "processes", lambda items: 3)
    for kind in ("text cut", "label"):
        given = recipe(files, kind)
        assert contents(prepared(given, mini)) == contents(in_memory(given, mini))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("limit", [None, 9])
def test_the_first_row_that_does_not_fit_is_told(
    files: Path, mini: Backbone, large: pytest.MonkeyPatch, count: int, limit: int | None
) -> None:
    large.setattr(bound, "processes", lambda items: count)
    given = recipe(files, "text")
    given["task"] |= {"input": "{text} {thing} ->", "max_tokens": 11, "limits": {"train": limit}}
    with pytest.raises(UserError) as plain:
        in_memory(given, mini)
    with pytest.raises(UserError) as packed:
        prepared(given, mini)
    assert str(packed.value) == str(plain.value)
    assert "rows.jsonl, line 3: the input has 12 tokens" in str(plain.value)


def test_what_decides_the_tokens_decides_what_is_kept(
    files: Path, mini: Backbone, large: pytest.MonkeyPatch
) -> None:
    """Each recipe has pairs of its own; those of one that reads the same tokens are found."""
    given = recipe(files, "label")
    seen = {prepared(given, mini).data.pairs.key}

    def other(**changed: Any) -> Any:
        return prepared({**given, **changed}, mini).data.pairs.key

    assert other(training={"steps": 9, "batch_size": 2, "learning_rate": 0.1}) in seen
    assert other(seed=4) in seen
    task = given["task"]
    for changed in (
        {"input": "{text}."},
        {"second": None},
        {"labels": ["large", "grey"]},
        {"max_tokens": 30},
        {"limits": {"train": 5}},
    ):
        seen.add(other(task={**task, **changed}))
    seen.add(other(method={"name": "p-tuning-v2", "length": 4}))
    large.setattr(kept, "_code", lambda: "another version")
    seen.add(other())
    assert None not in seen
    assert len(seen) == 8


def test_the_tokenizer_and_the_day_decide_the_tokens(
    mini: Backbone, files: Path, large: pytest.MonkeyPatch
) -> None:
    ready = prepared(recipe(files, "messages"), mini)
    before = ready.task.decides()
    assert json.loads(json.dumps(before)) == json.loads(json.dumps(ready.task.decides()))
    assert before[-1] is None
    large.setattr(type(mini.tokens), "sha256", property(lambda self: "another"))
    assert ready.task.decides() != before
    large.setattr("foreword.backbone.Chats.source", lambda self, tools=(): "{{ strftime_now() }}")
    assert ready.task.decides()[-1] is not None


def same_run(one: Run, other: Run) -> bool:
    def figures(run: Run) -> Any:
        left_out = {"seconds", "artifact_bytes"}
        return {name: value for name, value in run.metrics.items() if name not in left_out}

    weights = [(run.artifact / "prompt.safetensors").read_bytes() for run in (one, other)]
    answers = [(run.folder / "answers.jsonl").read_bytes() for run in (one, other)]
    return figures(one) == figures(other) and weights[0] == weights[1] and answers[0] == answers[1]


@pytest.mark.parametrize("kind", ["text", "label"])
def test_a_run_on_packed_data_has_the_same_bits(
    kind: str, files: Path, mini: Backbone, large: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    more: dict[str, Any] = {
        "training": {"steps": 2, "evaluate_every": 2, "accumulation": 2},
        "evaluation": {"backbone_alone": False},
    }
    if kind == "text":
        more["method"] = {
            "name": "prefix-tuning",
            "length": 3,
            "reparameterization": "table",
            "init": {"kind": "activations", "examples": 2},
        }
    given = recipe(files, kind, **more)
    packed = train(given, out=tmp_path / "packed", backbone=mini, device="cpu")
    large.setattr(stored, "LARGE_BYTES", 2**60)
    plain = train(given, out=tmp_path / "plain", backbone=mini, device="cpu")
    assert same_run(packed, plain)


def test_the_order_is_hashed_once(large: pytest.MonkeyPatch) -> None:
    batches = LengthBatches([3, 1, 2], 2)
    first = batches.position(0)
    large.setattr(json, "dumps", None)
    assert batches.position(1)["order_sha256"] == first["order_sha256"]


def test_few_rows_are_made_in_this_process() -> None:
    assert shares.processes(shares.LEAST) == 1
