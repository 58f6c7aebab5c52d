"""The evaluate loop: answers in order whatever the batches, figures for each group."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest

from foreword.backbone import Backbone, Decoding
from foreword.data import Example
from foreword.errors import DataError, TemplateError, UserError
from foreword.evaluation import evaluate
from foreword.methods import PrefixTuning
from foreword.methods.axes import Table
from foreword.tasks import TextGeneration
from foreword.tasks.text import Templates
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose

TASK = TextGeneration(Templates.of("{text}\n"))
TEXTS = ["a bird", "a very long text about a small grey bird", "x", "two words", "the sea is deep"]
HOW = Decoding(max_new_tokens=5)


@pytest.fixture(scope="module")
def model(tiny_backbone: Callable[..., Backbone]) -> TunedModel:
    method = PrefixTuning(name="prefix-tuning", length=3, reparameterization=Table(std=1.0))
    return compose(tiny_backbone("gpt2"), method)


def examples(texts: list[str], **more: Any) -> list[Example]:
    return [Example({"text": text}, ("a reference",), where="here", **more) for text in texts]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_answers_stay_in_order(model: TunedModel, batch_size: int) -> None:
    alone = [
        evaluate(TASK.on(model), examples([text]), HOW, metrics=[]).answers[0] for text in TEXTS
    ]
    counted: list[int] = []
    report = evaluate(
        TASK.on(model),
        examples(TEXTS),
        HOW,
        metrics=["bleu", "slot_coverage"],
        batch_size=batch_size,
        advance=counted.append,
    )
    assert report.answers == alone
    assert len(set(alone)) > 1
    assert report.sources == [f"{text}\n" for text in TEXTS]
    assert sum(counted) == len(TEXTS)
    assert max(counted) <= batch_size
    assert set(report.scores) == {"bleu", "slot_coverage"}
    assert report.scores["slot_coverage"] is None


def test_groups_are_scored_apart(model: TunedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [
        Example({"text": "x"}, ("The cat sat on the mat.",), "seen"),
        Example({"text": "x"}, ("A dog ran in the park.",), "not seen"),
        Example({"text": "x"}, ("The cat lay on the mat.",), "seen"),
    ]
    said = ["The cat sat on the mat.", "Something else was said.", "The cat lay on the mat."]
    monkeypatch.setattr(
        import_module("foreword.tasks.writing"), "decode_rows", lambda *_, **__: list(said)
    )
    report = evaluate(TASK.on(model), given, HOW, metrics=["bleu", "ter"])
    assert list(report.figures()) == ["all", "seen", "not seen"]
    assert report.groups["seen"] == {"bleu": pytest.approx(100), "ter": 0}
    assert report.groups["not seen"]["bleu"] == pytest.approx(0, abs=15)
    bleu = report.scores["bleu"]
    assert bleu is not None
    assert 0 < bleu < 100


def test_long_inputs_are_refused_or_cut(model: TunedModel) -> None:
    given = examples(["short", "long " * 400])
    with pytest.raises(DataError, match=r"^here: the input has \d+ tokens.*leaves 248.*truncate"):
        evaluate(TASK.on(model), given, HOW, metrics=[])
    task = TextGeneration(Templates.of("{text}\n", truncate="text"))
    report = evaluate(task.on(model), given, HOW, metrics=[])
    assert report.truncated == 1
    assert report.sources[0] == "short\n"
    assert len(model.backbone.tokens.source(report.sources[1])) <= 256 - 3 - 5
    assert report.sources[1].endswith("long\n")
    task = TextGeneration(Templates.of("{text} in other words\n", truncate="text"))
    with pytest.raises(DataError, match=r"too long even without the field 'text'"):
        evaluate(task.on(model), given, Decoding(max_new_tokens=252), metrics=[])
    with pytest.raises(UserError, match=r"decoding\.max_new_tokens: 253 .* leave no room"):
        evaluate(task.on(model), given, Decoding(max_new_tokens=253), metrics=[])


def test_empty_inputs_are_refused(model: TunedModel) -> None:
    templates = Templates.of("{text}")
    task = TextGeneration(templates)
    with pytest.raises(DataError, match=r"^here: the input is empty"):
        evaluate(task.on(model), examples([""]), HOW, metrics=[])
    with pytest.raises(DataError, match=r"^here: the input is empty"):
        templates.pair(model.backbone.tokens, examples([""])[0], "r", lambda _: 100)


def test_templates_must_fit_together_and_the_data(model: TunedModel) -> None:
    tokens = model.backbone.tokens
    with pytest.raises(TemplateError, match=r"needs the slot \{reference\}"):
        Templates.of("{a}", "{b}")
    with pytest.raises(TemplateError, match=r"truncate: 'recor' is no slot.*mean 'record'"):
        Templates.of("{record}", truncate="recor")
    task = Templates.of("{text}", "{reference} {nothing}")
    (example,) = examples(["x"])
    with pytest.raises(TemplateError, match=r"^here: .*has no field 'nothing'"):
        task.answer(tokens, example, "r")
    with pytest.raises(TemplateError, match=r"^here: .*has no field 'txt'.*mean 'text'"):
        Templates.of("{txt}").source(tokens, example)
    answer = Templates.of("{text}", "{text}: {reference}").answer(tokens, example, "r")
    assert answer == tokens.target("x: r")
