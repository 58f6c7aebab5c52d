"""Metrics equal the tools they stand for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
from pydantic import BaseModel
from sacrebleu.metrics import CHRF, TER

from foreword import names
from foreword.data import Example, Span
from foreword.data.readers import READERS
from foreword.evaluation import METRICS, metrics
from foreword.recipe import DataSpec, TaskId, TaskSpec
from foreword.scoring import score

ANSWERS = ["The cat sat on the mat.", "A grey bird sings loudly.", "nothing"]
REFERENCES = [
    ["The cat sat on a mat.", "On the mat there sat a cat.", "A cat sat."],
    ["A grey bird is singing."],
    ["Nothing at all.", "There is nothing."],
]


def examples(references: list[list[str]]) -> list[Example]:
    return [Example({}, tuple(texts)) for texts in references]


@pytest.mark.parametrize(
    ("name", "outputs", "references"),
    [
        ("small", "baseline-output.txt", "devel-conc.txt"),
        ("dev-human", "outputs.txt", "refs.txt"),
    ],
)
def test_bleu_is_the_e2e_tools(name: str, outputs: str, references: str, shared: Any) -> None:
    folder: Path = shared("data/e2e-metrics")
    official = json.loads((folder / "scores.json").read_text(encoding="utf-8"))[name]["BLEU"]
    answers = (folder / name / outputs).read_text(encoding="utf-8").splitlines()
    blocks = (folder / name / references).read_text(encoding="utf-8").strip().split("\n\n")
    found = METRICS["bleu"].score(answers, examples([block.splitlines() for block in blocks]))
    assert found is not None
    assert abs(found / 100 - official) <= 5e-5


def streams() -> list[list[str | None]]:
    """What sacrebleu takes: the first reference of each, then the second, ..."""
    return [[refs[i] if i < len(refs) else None for refs in REFERENCES] for i in range(3)]


def test_chrf_and_ter_are_sacrebleus() -> None:
    given = examples(REFERENCES)
    assert METRICS["chrf"].score(ANSWERS, given) == CHRF().corpus_score(ANSWERS, streams()).score
    assert METRICS["ter"].score(ANSWERS, given) == TER().corpus_score(ANSWERS, streams()).score
    equal = [refs[:1] for refs in REFERENCES]
    flat = [[refs[0] for refs in equal]]
    assert METRICS["chrf"].score(ANSWERS, examples(equal)) == pytest.approx(
        sacrebleu.corpus_chrf(ANSWERS, flat).score, abs=0
    )
    assert METRICS["ter"].score(ANSWERS, examples(equal)) == pytest.approx(
        sacrebleu.corpus_ter(ANSWERS, flat).score, abs=0
    )


def test_bleu_with_different_numbers_of_references() -> None:
    """A missing reference is none: neither an empty text nor a copy of another one."""
    found = METRICS["bleu"].score(ANSWERS, examples(REFERENCES))
    repeated = METRICS["bleu"].score(ANSWERS, examples([(r * 3)[:3] for r in REFERENCES]))
    assert found == pytest.approx(repeated)
    lower = [[refs[i].lower() if i < len(refs) else None for refs in REFERENCES] for i in range(3)]
    direct = sacrebleu.BLEU().corpus_score([a.lower() for a in ANSWERS], lower).score
    assert found == pytest.approx(direct)


def test_perfect_and_hopeless_answers() -> None:
    perfect = examples([[answer, "another one entirely"] for answer in ANSWERS])
    assert METRICS["bleu"].score(ANSWERS, perfect) == pytest.approx(100)
    assert METRICS["chrf"].score(ANSWERS, perfect) == pytest.approx(100)
    assert METRICS["ter"].score(ANSWERS, perfect) == 0
    assert METRICS["bleu"].score(["", "", ""], examples(REFERENCES)) == 0
    assert METRICS["ter"].score(["", "", ""], examples([["a b c d"]] * 3)) == 100


@pytest.mark.parametrize("name", ["bleu", "chrf", "ter"])
def test_no_references_no_figure(name: str) -> None:
    assert METRICS[name].score(ANSWERS, examples([["a"], [], ["b"]])) is None
    assert METRICS[name].score([], []) is None


def coverage(answer: str, record: dict[str, str]) -> float | None:
    return METRICS["slot_coverage"].score([answer], [Example({"record": record})])


def test_slot_coverage_by_hand() -> None:
    record = {"name": "Silver Piper", "type": "bird", "edible": "no", "colour": "grey"}
    assert coverage("The SILVER PIPER is a grey bird.", record) == 100
    assert coverage("The silver piper is green.", record) == pytest.approx(100 / 3)
    assert coverage("No.", record) == 0
    assert coverage("STRASSE", {"street": "Straße"}) == 100
    assert coverage("x", {"edible": "Yes"}) is None
    assert METRICS["slot_coverage"].score(["x"], [Example({"text": "x"})]) is None


def test_slot_coverage_counts_values_not_examples() -> None:
    given = [Example({"r": {"a": "x"}}), Example({"r": {"a": "y", "b": "z", "c": "w"}})]
    assert METRICS["slot_coverage"].score(["x", "y z"], given) == 75


def test_one_list_of_metrics() -> None:
    """The names that recipes and artifacts check are those that have a function."""
    assert list(METRICS) == list(names.METRICS)
    assert set(metrics._SCORES) == set(METRICS)
    for name, metric in METRICS.items():
        known = names.METRICS[name]
        assert (metric.title, metric.better, metric.of) == (known.title, known.better, known.of)
    assert [name for name, metric in METRICS.items() if metric.better == "low"] == [
        "ter",
        "mse",
        "mae",
    ]
    for answer, kind in names.ANSWERS.items():
        measured = kind.measured_as or answer
        assert all(measured in names.METRICS[name].kinds for name in kind.metrics)


def test_several_labels() -> None:
    """Those of the task count where they stand nowhere, and those that it does not know, too."""
    given = [Example({}, labels=("a", "b")), Example({}, labels=()), Example({}, labels=("a",))]
    answers = [("a",), (), ("a", "c")]
    scores = {n: METRICS[n].score(answers, given) for n in ("micro_f1", "macro_f1", "samples_f1")}
    assert scores == pytest.approx(
        {"micro_f1": 400 / 6, "macro_f1": 100 / 3, "samples_f1": 400 / 9}
    )
    assert METRICS["macro_f1"].score(answers, given, labels=tuple("abcd")) == pytest.approx(25)
    assert METRICS["micro_f1"].score(answers, given, labels=("a",)) == pytest.approx(400 / 6)
    assert METRICS["subset_accuracy"].score(answers, given, labels=()) == pytest.approx(100 / 3)
    assert METRICS["micro_f1"].score(answers[:1], [Example({})], labels=("a",)) is None
    assert METRICS["macro_f1"].score(["a"], [Example({}, label="a")], labels=("a", "b")) == 100
    wrong = names.mismatch("macro_f1", "text")
    assert wrong is not None
    assert "measures a label or several labels, but this task asks for a text" in wrong


def test_the_e2e_tools_metrics_are_on_its_own_scale() -> None:
    given = examples([["A cat sat."], ["A grey bird sings loudly."], ["nothing", "x y"]])
    references = [example.references for example in given]
    official = score(ANSWERS, references, ["nist", "rouge_l", "cider"], samples=0).values
    assert {name: METRICS[name].score(ANSWERS, given) for name in official} == official
    assert METRICS["nist"].score(ANSWERS, examples([["a"], [], ["b"]])) is None
    assert METRICS["nist"].score([], []) is None


def test_without_java_a_metric_is_none_and_a_note_is_given_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("foreword.scoring.java.find_java", lambda: None)
    metrics._note_absent.cache_clear()
    metrics._same_corpus.cache_clear()
    for _ in range(2):
        for name in ("meteor", "rouge_l", "cider"):
            assert METRICS[name].score(ANSWERS, examples(REFERENCES)) is None
    assert caplog.messages == [
        f"{title} is absent: needs Java: pip install 'foreword[metrics]'"
        for title in ("METEOR", "ROUGE_L", "CIDEr")
    ]


def names_in_schema(model: type[BaseModel], field: str) -> set[str]:
    """The names that a field, or each item of it, may be."""
    node: dict[str, Any] = model.model_json_schema()["properties"][field]
    nodes = [node, *node.get("anyOf", [])]
    return {name for one in nodes for name in one.get("items", one).get("enum", [])}


@pytest.mark.parametrize(("task", "data"), [(TaskSpec, DataSpec), (TaskId, TaskId)])
def test_recipes_and_artifacts_know_every_metric_and_format(
    task: type[BaseModel], data: type[BaseModel]
) -> None:
    assert names_in_schema(task, "metrics") == set(METRICS)
    assert names_in_schema(data, "format") == set(READERS) == set(names.FORMATS)
    assert names.tables() == ("jsonl", "csv", "tsv", "parquet")


def labelled(labels: str) -> list[Example]:
    return [Example({}, label=label) for label in labels]


def test_metrics_of_labels() -> None:
    gold, found = labelled("1110"), list("1101")
    found_scores = {
        name: METRICS[name].score(found, gold) for name in ("accuracy", "f1", "macro_f1")
    }
    assert found_scores == pytest.approx(
        {"accuracy": 50, "f1": 100 * 4 / 6, "macro_f1": 100 * (4 / 6 + 0) / 2}
    )
    assert METRICS["matthews"].score(list("1110"), gold) == pytest.approx(100)
    for name, metric in METRICS.items():
        if metric.of == "label":
            assert metric.score(found, gold, labels=("0", "1")) == metric.score(found, gold), name
            assert metric.score(found, [*gold[:3], Example({})]) is None
            assert metric.score([], []) is None


def test_f1_is_that_of_the_last_of_two_labels() -> None:
    gold, found = labelled("aab"), list("aaa")
    assert METRICS["f1"].score(found, gold) == 0
    assert METRICS["f1"].score(found, gold, labels=("b", "a")) == pytest.approx(80)
    assert METRICS["f1"].score(["a"], labelled("a"), labels=("a", "b")) == 0
    assert METRICS["f1"].score(list("abc"), labelled("abc")) is None


def test_metrics_of_tags() -> None:
    gold = [Example({}, words=("x",) * 3, tags=("B-A", "I-A", "O"))]
    plain = [Example({}, words=("x", "y"), tags=("NN", "O"))]
    assert METRICS["entity_f1"].score([("B-A", "I-A", "O")], gold) == 100
    assert METRICS["entity_recall"].score([("B-A", "O", "B-A")], gold) == 0
    assert METRICS["entity_precision"].score([("B-A", "I-A", "B-B")], gold) == 50
    assert METRICS["tag_accuracy"].score([("B-A", "O", "O")], gold) == pytest.approx(200 / 3)
    assert METRICS["entity_f1"].score([("NN", "O")], plain) is None
    assert METRICS["tag_accuracy"].score([("NN", "NN")], plain) == 50
    for name in ("entity_f1", "tag_accuracy"):
        assert METRICS[name].score([("O",)], [Example({}, words=("x",))]) is None
        assert METRICS[name].score([], []) is None


def test_metrics_of_spans() -> None:
    given = [Example({}, ("the Broncos", "Denver"), spans=(Span("x", 0),)), Example({}, spans=())]
    assert METRICS["exact_match"].score(["broncos", "no"], given) == 50
    assert METRICS["squad_f1"].score(["Denver team", ""], given) == pytest.approx(
        100 * (2 / 3 + 1) / 2
    )
    assert METRICS["squad_f1"].score(["x"], [Example({}, ("x",))]) == 100
    assert METRICS["squad_f1"].score(["x"], [Example({})]) is None
    assert METRICS["exact_match"].score([], []) is None


def test_rouge_of_summaries(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    perfect = examples([[answer, "another one"] for answer in ANSWERS])
    for name in ("rouge1", "rouge2", "rougeL"):
        # "nothing" has no two words that follow each other.
        assert METRICS[name].score(ANSWERS, perfect) == pytest.approx(
            200 / 3 if name == "rouge2" else 100
        )
        assert METRICS[name].score([], []) is None
    monkeypatch.setattr("foreword.scoring.summaries.find_spec", lambda _: None)
    metrics._note_absent.cache_clear()
    assert METRICS["rouge1"].score(ANSWERS, perfect) is None
    assert caplog.messages == [
        "ROUGE-1 is absent: needs rouge-score: pip install 'foreword[metrics]'"
    ]
