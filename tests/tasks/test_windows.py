"""Labels of texts that are too long: read in windows that hold all of them, told together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from conftest import SHARED, make_backbone, saved_bert
from families import by_hand
from foreword.backbone import Backbone, load_backbone
from foreword.data import Example, read_examples
from foreword.errors import ArtifactError, DataError, RecipeError
from foreword.methods import HeadOnly, PrefixTuning
from foreword.methods.axes import Table
from foreword.recipe import TaskId, parse_recipe
from foreword.tasks import BoundTask, Prediction, task_of
from foreword.tasks.blanks import Slots
from foreword.tuned.compose import compose

WORDS = [f"{word}{number}" for number in range(40) for word in ("otter", "heron")]
LONG, SHORT = " ".join(WORDS), "a grey otter"
LABELS = ("no", "so", "yes")
WORDS_OF = {"no": ["no", "never at all"], "so": ["so"], "yes": ["yes indeed"]}


@pytest.fixture(autouse=True)
def _exactly() -> Iterator[None]:
    with by_hand.ExactFloat64():
        yield


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Backbone]:
    from transformers import BertForMaskedLM

    folder = tmp_path_factory.mktemp("bert")
    bert = saved_bert(folder, BertForMaskedLM, positions=64, masked=True)
    return {
        "bert": Backbone.wrap(bert.model.double(), bert.tokens),
        "gpt2": make_backbone("gpt2", torch.float64),
    }


def bound(backbone: Backbone, kind: str, **stated: Any) -> BoundTask:
    torch.manual_seed(3)
    usual: dict[str, Any] = {"input": "{first} {text:cut}", "target": "{reference}"}
    usual |= {"labels": LABELS, "answer": "labels" if kind == "several" else "label"}
    if kind == "words":
        usual |= {"input": "{first} {text:cut} it was {mask}", "verbalizer": {"words": WORDS_OF}}
    usual |= {"max_tokens": 40, "stride": 9}
    task = task_of(TaskId(**(usual | stated)))
    method = PrefixTuning(name="prefix-tuning", length=3, reparameterization=Table(std=1.0))
    model = compose(backbone, method, task.readout(backbone)).double()
    with torch.no_grad():
        for parameter in (*model.reparam.parameters(), *model.readout.parameters()):
            parameter.normal_()
    return task.on(model)


def example(text: str) -> Example:
    return Example({"first": "say:", "text": text}, where="row", label="yes", labels=("yes",))


def windows(task: BoundTask, kind: str) -> list[Example]:
    """An example with each window of the long text."""
    asked, model, text = example(LONG), task.model, task.task.text
    assert text is not None
    if kind != "words":
        return text.windows(model.backbone, asked, model.room, task.task.stride)
    return Slots.of(model.backbone, text).windows(model, text, asked, 3, task.task.stride)


def shares(prediction: Prediction) -> torch.Tensor:
    return torch.tensor([prediction.probabilities[label] for label in LABELS], dtype=torch.float64)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@pytest.mark.parametrize("kind", ["head", "several", "words"])
@pytest.mark.parametrize("pool", ["mean", "max"])
def test_windows_are_told_together(
    backbones: dict[str, Backbone], family: str, kind: str, pool: str
) -> None:
    backbone = backbones[family]
    task, alone = bound(backbone, kind, windows=pool), bound(backbone, kind)
    parts = windows(task, kind)
    (row, *_) = alone.rows(example(LONG), labelled=False)
    assert row.cut > 0, "it is cut without windows"
    (found, whole) = task.answers([example(LONG), example(SHORT)])
    assert not found.truncated
    (unwindowed,) = alone.answers([example(SHORT)])
    assert shares(whole).tolist() == pytest.approx(shares(unwindowed).tolist(), abs=1e-9)
    rows = task.rows(example(LONG))
    assert len(rows) == len(parts) > 2
    assert all(len(row.pair.source) <= 40 for row in rows)
    assert all(row.pair.labels == rows[0].pair.labels and row.cut == 0 for row in rows)
    one_by_one = [shares(one) for one in alone.answers(parts)]
    together = torch.stack(one_by_one)
    if kind == "several":
        expected = together.amax(0)
        if pool == "mean":
            odds = (together / (1 - together)).prod(0) ** (1 / len(parts))
            expected = odds / (1 + odds)
    else:
        expected = together.amax(0) if pool == "max" else together.prod(0) ** (1 / len(parts))
        expected = expected / expected.sum()
    torch.testing.assert_close(shares(found), expected, atol=1e-9, rtol=0)
    assert kind == "several" or found.answer == LABELS[int(expected.argmax())]


@pytest.mark.parametrize("stride", [1, 9, 128])
def test_windows_hold_all_of_the_text(backbones: dict[str, Backbone], stride: int) -> None:
    for backbone in backbones.values():
        task = bound(backbone, "head", windows="mean", stride=stride)
        parts = [str(part.fields["text"]) for part in windows(task, "head")]
        places = [LONG.index(part) for part in parts]
        ends = [place + len(part) for place, part in zip(places, parts, strict=True)]
        assert (places[0], ends[-1]) == (0, len(LONG))
        assert len(parts) < 60, "at most half a window is shared, so it comes to an end"
        for end, place in zip(ends[:-1], places[1:], strict=True):
            assert place < end


def test_what_windows_cannot_be_of(backbones: dict[str, Backbone]) -> None:
    bert = backbones["bert"]
    with pytest.raises(ArtifactError, match="nothing says which field is long"):
        bound(bert, "head", windows="mean", input="{text}")
    task = bound(bert, "head", windows="mean", max_tokens=4)
    with pytest.raises(DataError, match="row: too long even without the field 'text'"):
        task.rows(Example({"first": "w " * 9, "text": LONG}, where="row"), labelled=False)


@pytest.mark.parametrize(
    ("data", "method", "wrong"),
    [
        ({"number": "n"}, "p-tuning-v2", "`windows` is for labels"),
        ({}, "p-tuning-v2", "`windows` is for labels"),
        (
            {"label": "n"},
            {"name": "pet", "words": {"a": "x", "b": "y"}, "patterns": ["{text} {mask}"]},
            "leave `task.windows` out",
        ),
    ],
)
def test_what_is_wrong_with_a_recipe(data: Any, method: Any, wrong: str) -> None:
    files = {"format": "jsonl", "train": "a.jsonl", "dev": "a.jsonl"}
    with pytest.raises(RecipeError) as raised:
        parse_recipe(
            {
                "version": 1,
                "name": "long",
                "backbone": "foreword/mini",
                "task": {"data": {**files, **data}, "input": "{text:cut}", "windows": "mean"},
                "method": method,
            }
        )
    assert wrong in str(raised.value)


XQUAD = SHARED / "data" / "xquad" / "xquad.en.json"
MINILM = SHARED / "models" / "minilm-l6"


@pytest.mark.skipif(not XQUAD.exists() or not MINILM.exists(), reason="needs ../shared")
def test_a_span_in_windows_is_that_of_the_whole_where_it_fits() -> None:
    """XQuAD's contexts that fit, against transformers' states of the whole."""
    backbone = load_backbone(str(MINILM), dtype="float64", device="cpu")
    asked = read_examples(XQUAD, "squad")[:60:20]
    task = task_of(TaskId(input="", target="", answer="span", max_tokens=512))
    torch.manual_seed(0)
    readout = task.readout(backbone)
    with torch.no_grad():
        readout.layers[0].weight.normal_()
    model = compose(backbone, HeadOnly(name="head-only"), readout.double())
    bound_task = task.on(model)
    answers = bound_task.answers(asked, batch_size=4)
    tokenizer = backbone.tokens.tokenizer
    for one, found in zip(asked, answers, strict=True):
        assert len(bound_task.rows(one, labelled=False)) == 1
        question, context = str(one.fields["question"]), str(one.fields["context"])
        whole = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
        spans = whole.pop("offset_mapping")[0].tolist()
        with torch.no_grad():
            states = backbone.model(**whole).last_hidden_state[0]
            begins, ends = (states @ readout.layers[0].weight.T + readout.layers[0].bias).T
        inside = [n for n, of in enumerate(whole.sequence_ids(0)) if of == 1]
        best = max(
            ((b, e) for b in inside for e in inside if b <= e < b + 30),
            key=lambda place: float(begins[place[0]] + ends[place[1]]),
        )
        start, end = spans[best[0]][0], spans[best[1]][1]
        assert (found.start, found.answer) == (start, context[start:end])


def test_every_acceptable_answer_counts() -> None:
    from foreword.data.example import Span
    from foreword.evaluation import METRICS

    spans = (Span("the grey otter", 0), Span("otter", 9))
    asked = Example({}, references=("the grey otter", "otter"), spans=spans)
    for said, exact, shared in (
        ("otter", 100, 100),
        ("a grey otter", 100, 100),
        ("grey", 0, 200 / 3),
    ):
        assert METRICS["exact_match"].score([said], [asked]) == exact
        assert METRICS["squad_f1"].score([said], [asked]) == pytest.approx(shared)
