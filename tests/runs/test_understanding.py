"""Whole runs that a head answers: labels, tags, spans; resumed, stored and loaded again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from stopping import Killed, Told
from transformers import BertModel

import foreword
from conftest import one_of_each, saved_bert
from foreword.artifacts.manifest import read_manifest
from foreword.backbone import Backbone
from foreword.errors import DataError, RecipeError, TemplateError
from foreword.recipe import load_recipe
from foreword.runs import Run, train

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A tiny random BERT over the bundled vocabulary, from its folder."""
    folder = tmp_path_factory.mktemp("bert")
    return saved_bert(folder, BertModel, positions=256)


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences whose label is whether they say `good`; a second text says their place."""
    lines = [
        f"{word}-{place}\ta {word} {thing} in the {place}\tthe {place}\t{label}"
        for thing in ("day", "film", "meal")
        for word, label in (("good", "yes"), ("bad", "no"))
        for place in ("north", "south", "east", "west")
    ]
    file = tmp_path_factory.mktemp("rated") / "train.tsv"
    file.write_text("\n".join(["id\tsentence\tplace\tanswer", *lines]) + "\n", encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sentences = [
        [(name, "B-PER"), ("went", "O"), ("to", "O"), (place, "B-LOC"), ("Bay", "I-LOC")]
        for name in ("Ana", "Bo", "Mia")
        for place in ("North", "East")
    ]
    text = "\n\n".join("\n".join(f"{word} {tag}" for word, tag in one) for one in sentences)
    file = tmp_path_factory.mktemp("tagged") / "train.conll"
    file.write_text(f"-DOCSTART- O\n\n{text}\n", encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    paragraphs = []
    for i, (seer, seen) in enumerate([("Ana", "Bo"), ("Bo", "Mia"), ("Zoë", "Ana")]):
        context = f"It was late when {seer} saw {seen} in the park."
        known = {"text": seen, "answer_start": context.index(f"saw {seen}") + 4}
        questions = [
            {"id": f"{i}a", "question": f"Whom did {seer} see?", "answers": [known]},
            {"id": f"{i}b", "question": "What was sold?", "answers": [], "is_impossible": True},
        ]
        paragraphs.append({"context": context, "qas": questions})
    file = tmp_path_factory.mktemp("asked") / "train.json"
    content = {"version": "v2.0", "data": [{"title": "t", "paragraphs": paragraphs}]}
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def recipe(data: dict[str, Any], task: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    training = {"steps": 4, "batch_size": 4, "learning_rate": 0.01, "evaluate_every": 2}
    return {
        "version": 1,
        "name": "heads",
        "backbone": "tiny",
        "method": {"name": "p-tuning-v2", "length": 3},
        **more,
        "task": {"data": data, **(task or {})},
        "training": {**training, **more.get("training", {})},
    }


def start(given: dict[str, Any], backbone: Backbone, out: Path, **options: Any) -> Run:
    given = {**given, "backbone": backbone.name}
    return train(given, out=out, backbone=backbone, device="cpu", **options)


def rows(run: Run) -> list[dict[str, Any]]:
    text = (run.folder / "answers.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def of_labels(rated: Path, **data: Any) -> dict[str, Any]:
    return {"format": "tsv", "train": str(rated), "label": "answer", "hold_out": 8, **data}


LEARNED = [
    (method, kind)
    for method in ("p-tuning-v2", "prompt-tuning", "head-only", "fine-tuning")
    for kind in ("encoder", "decoder")
]


@pytest.mark.parametrize(("method", "kind"), one_of_each(LEARNED, 1))
def test_labels(
    method: str, kind: str, encoder: Backbone, tiny: Backbone, rated: Path, tmp_path: Path
) -> None:
    """The run's answers are those of the artifact it wrote, loaded again."""
    backbone = encoder if kind == "encoder" else tiny
    untouched = {name: weight.clone() for name, weight in backbone.model.state_dict().items()}
    options = {"name": method, **({} if method in ("head-only", "fine-tuning") else {"length": 3})}
    task = {"input": "{sentence}", "second": "{place}", "truncate": "sentence", "max_tokens": 24}
    given = recipe(of_labels(rated), task, method=options, training={"best_by": "accuracy"})
    run = start(given, backbone, tmp_path / "run")
    for name, weight in backbone.model.state_dict().items():
        assert torch.equal(weight, untouched[name])
    manifest = read_manifest(run.artifact)
    assert (manifest.task.answer, manifest.task.labels) == ("label", ("no", "yes"))
    assert set(run.metrics["prompt"]["all"]) == {"accuracy", "macro_f1"}
    watched = run.metrics["training"]["evaluations"]
    assert max(entry["accuracy"] for entry in watched) == run.metrics["prompt"]["all"]["accuracy"]
    assert (run.metrics["training"]["pairs"], run.metrics["examples"]) == (16, 8)
    assert (run.folder / "confusion.png").read_bytes().startswith(b"\x89PNG")
    found = rows(run)
    for row in found:
        assert row["label"] in ("no", "yes")
        assert row["probability"] == row["probabilities"][row["output"]]
        assert sum(row["probabilities"].values()) == pytest.approx(1)
    prompt = foreword.load(run.folder, backbone=backbone, device="cpu")
    fields = [dict(zip(("sentence", "place"), r["input"].split(" | "), strict=True)) for r in found]
    again = prompt.predict(fields)
    assert [answered.answer for answered in again] == [row["output"] for row in found]
    for answered, row in zip(again, found, strict=True):
        assert answered.probability == pytest.approx(row["probability"], abs=1e-6)


def test_a_second_text_is_read(encoder: Backbone, rated: Path, tmp_path: Path) -> None:
    task = {"input": "{sentence}", "second": "{place}"}
    run = start(recipe(of_labels(rated), task), encoder, tmp_path / "run")
    prompt = foreword.load(run.folder, backbone=encoder, device="cpu")
    one, other = prompt.predict([{"sentence": "a day", "place": p} for p in ("x", "the west")])
    assert one.probability != other.probability
    with pytest.raises(DataError, match="has the fields sentence, place"):
        prompt.predict(["a day"])


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_tags(kind: str, encoder: Backbone, tiny: Backbone, tagged: Path, tmp_path: Path) -> None:
    data = {"format": "conll", "train": str(tagged), "hold_out": 2}
    backbone = encoder if kind == "encoder" else tiny
    run = start(recipe(data, training={"best_by": "tag_accuracy"}), backbone, tmp_path / "run")
    assert read_manifest(run.artifact).task.labels == ("B-LOC", "B-PER", "I-LOC", "O")
    assert set(run.metrics["prompt"]["all"]) == {"entity_f1", "entity_precision", "entity_recall"}
    assert not (run.folder / "confusion.png").exists()
    for row in rows(run):
        words = row["input"].split()
        assert len(row["output"]) == len(row["tags"]) == len(row["probability"]) == len(words) == 5
    assert run.samples[0]["reference"] == "B-PER O O B-LOC I-LOC"
    assert len(run.samples[0]["output"].split()) == 5
    prompt = foreword.load(run.folder, backbone=backbone, device="cpu")
    told = prompt.predict([rows(run)[0]["input"], {"words": ["Ana", "went"]}])
    assert list(told[0].answer) == rows(run)[0]["output"]
    assert len(told[1].answer) == 2


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_a_sentence_beyond_the_context_is_learned_and_tagged_to_its_end(
    kind: str, encoder: Backbone, tiny: Backbone, tmp_path: Path
) -> None:
    words = [("Ana", "B-PER"), ("flew", "O"), ("to", "O"), ("Eastwick", "B-LOC"), (".", "O")] * 120
    (tmp_path / "long.conll").write_text("\n".join(f"{w} {t}" for w, t in words) + "\n\nBo B-PER\n")
    file = str(tmp_path / "long.conll")
    backbone = encoder if kind == "encoder" else tiny
    context = backbone.geometry.context
    assert context is not None
    assert len(backbone.tokens.source(" ".join(w for w, _ in words))) > context
    data = {"format": "conll", "train": file, "dev": file}
    run = start(recipe(data, {"stride": 20}), backbone, tmp_path / "run")
    assert run.metrics["training"]["pairs"] > 2, "a row for each window"
    assert (run.metrics["truncated"], run.metrics["training"]["truncated"]) == (0, 0)
    assert read_manifest(run.artifact).task.stride == 20
    (said, _) = rows(run)
    assert len(said["output"]) == len(said["probability"]) == len(words)
    assert set(said["output"]) <= {"B-PER", "B-LOC", "O"}
    assert min(said["probability"]) >= 1 / 3
    (short,) = foreword.load(run.folder, backbone=backbone, device="cpu").predict(
        [{"words": ["Ana", ""]}]
    )
    assert (short.answer[1], short.probability[1]) == (None, None)


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_spans(kind: str, encoder: Backbone, tiny: Backbone, asked: Path, tmp_path: Path) -> None:
    data = {"format": "squad", "train": str(asked), "dev": str(asked), "group": "answerable"}
    task = {"max_tokens": 32, "stride": 4, "longest_answer": 5}
    backbone = encoder if kind == "encoder" else tiny
    run = start(recipe(data, task), backbone, tmp_path / "run")
    assert set(run.metrics["prompt"]) == {"all", "answerable", "not answerable"}
    assert read_manifest(run.artifact).task.may_be_none
    contexts = {
        question["question"]: paragraph["context"]
        for paragraph in json.loads(asked.read_text("utf-8"))["data"][0]["paragraphs"]
        for question in paragraph["qas"][:1]
    }
    found = rows(run)
    assert {row["group"] for row in found} == {"answerable", "not answerable"}
    given = [{"question": r["input"], "context": contexts.get(r["input"], "")} for r in found]
    answerable = [i for i, row in enumerate(found) if row["group"] == "answerable"]
    prompt = foreword.load(run.folder, backbone=backbone, device="cpu")
    for i, answered in zip(answerable, prompt.predict([given[i] for i in answerable]), strict=True):
        assert answered.answer == found[i]["output"]
        assert answered.start == found[i].get("start")
        if answered.start is not None:
            assert isinstance(answered.answer, str)
            assert given[i]["context"][answered.start :].startswith(answered.answer)
    with pytest.raises(DataError, match="give `question` and `context` by name"):
        prompt.predict(["Whom?"])


@pytest.mark.parametrize("method", ["p-tuning-v2", "fine-tuning"])
def test_a_run_with_a_head_that_was_killed_ends_with_the_same_bits(
    method: str, encoder: Backbone, rated: Path, tmp_path: Path
) -> None:
    given = recipe(
        of_labels(rated),
        {"input": "{sentence}"},
        method={"name": method, **({"length": 3} if method == "p-tuning-v2" else {})},
        training={"best_by": "accuracy", "checkpoint_every": 1, "steps": 6},
    )
    whole = start(given, encoder, tmp_path / "whole")
    for at in (2, 3):
        with pytest.raises(Killed):
            start(given, encoder, tmp_path / "run", resume=True, progress=Told(at))
    run = start(given, encoder, tmp_path / "run", resume=True)
    assert len(run.metrics["training"]["resumed_at"]) == 2
    tensors = sorted(p.name for p in whole.artifact.glob("*.safetensors"))
    assert "head.safetensors" in tensors
    assert ("delta.safetensors" in tensors) == (method == "fine-tuning")
    for name in (*(f"artifact/{name}" for name in tensors), "answers.jsonl", "log.jsonl"):
        assert (run.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    assert run.metrics["prompt"] == whole.metrics["prompt"]


def test_files_with_too_few_labels(encoder: Backbone, rated: Path, tmp_path: Path) -> None:
    header, *lines = rated.read_text(encoding="utf-8").splitlines()
    by_label = sorted(lines, key=lambda line: line.rsplit("\t", 1)[1])
    for name, kept in {"sorted": by_label, "one": by_label[:5]}.items():
        text = "\n".join([header, *kept]) + "\n"
        (tmp_path / f"{name}.tsv").write_text(text, encoding="utf-8")

    def said(train: str, **more: Any) -> str:
        data = of_labels(rated, train=str(tmp_path / train), hold_out=None, dev=str(rated))
        with pytest.raises(RecipeError) as caught:
            start(recipe(data, {"input": "{sentence}", **more}), encoder, tmp_path / "run")
        assert not (tmp_path / "run").exists()
        return str(caught.value)

    assert "task.data.train: has the only label 'no'; a head needs" in said("one.tsv")
    assert "has the only label 'no'" in said("one.tsv", labels=["no", "yes"])
    limited = said("sorted.tsv", limits={"train": 4})
    assert "task.limits.train: 4 has the only label 'no', since limits" in limited
    assert "training.steps" in limited
    one = said("sorted.tsv", limits={"per_label": 2, "train": 1})
    assert "task.limits.train: 1 has the only label 'no'; a head needs an example of" in one
    told = Told()
    data = of_labels(rated, hold_out=None, dev=str(tmp_path / "sorted.tsv"))
    task = {"input": "{sentence}", "limits": {"dev": 5}}
    start(recipe(data, task), encoder, tmp_path / "run", progress=told)
    note = "note: all 5 dev examples have the label 'no'; task.limits.dev takes them from the"
    assert sum(note in line for line in told.lines) == 1


def test_a_label_that_training_has_not_seen(encoder: Backbone, rated: Path, tmp_path: Path) -> None:
    text = "id\tsentence\tplace\tanswer\n1\ta day\tthere\tno\n2\ta night\there\tperhaps\n"
    (tmp_path / "dev.tsv").write_text(text, encoding="utf-8")
    data = of_labels(rated, hold_out=None, dev=str(tmp_path / "dev.tsv"))
    line = r"dev\.tsv, line 3: the label 'perhaps' is none of no, yes; name every label in task"
    with pytest.raises(DataError, match=line):
        start(recipe(data, {"input": "{sentence}"}), encoder, tmp_path / "run")
    with pytest.raises(TemplateError, match=r"line 2: .*did you mean 'sentence'"):
        start(recipe(data, {"input": "{sentense}"}), encoder, tmp_path / "run")
    task = {"input": "{sentence}", "labels": ["no", "yes", "perhaps"]}
    run = start(recipe(data, task), encoder, tmp_path / "run")
    assert set(rows(run)[0]["probabilities"]) == {"no", "yes", "perhaps"}
    data["dev"] = str(rated)
    given = recipe(data, task, training={"best_by": "f1"})
    with pytest.raises(RecipeError, match=r"training\.best_by: `f1` has no value on the dev"):
        start(given, encoder, tmp_path / "f1")


@pytest.mark.parametrize(
    ("method", "data", "line"),
    [
        ("head-only", {"format": "jsonl", "references": "answer"}, "head-only trains a head, but"),
        ("hard-prompt", {}, "hard-prompt trains nothing, so no head can answer"),
    ],
)
def test_methods_that_do_not_go_with_the_task(
    method: str, data: dict[str, Any], line: str, encoder: Backbone, rated: Path, tmp_path: Path
) -> None:
    data = data | {"train": "x", "dev": "x"} if data else of_labels(rated)
    with pytest.raises(RecipeError, match=line):
        start(recipe(data, {"input": "{x}"}, method=method), encoder, tmp_path / "run")


def test_the_longest_input_of_a_text(tiny: Backbone, tmp_path: Path) -> None:
    """`max_tokens` holds for texts too: inputs are cut, or refused."""
    lines = [{"text": "one two three four five six " * 5, "references": "a"}] * 3
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    data = {"format": "jsonl", "train": str(tmp_path / "x.jsonl"), "dev": str(tmp_path / "x.jsonl")}
    task = {"input": "{text}", "max_tokens": 9}
    more: dict[str, Any] = {
        "decoding": {"max_new_tokens": 2},
        "evaluation": {"backbone_alone": False},
    }
    with pytest.raises(DataError, match=r"tokens, but task\.max_tokens is 9; shorten it, or name"):
        start(recipe(data, task, **more), tiny, tmp_path / "run")
    task = {**task, "truncate": "text"}
    run = start(recipe(data, task, **more), tiny, tmp_path / "run")
    assert (run.metrics["truncated"], run.metrics["training"]["truncated"]) == (1, 3)
    assert len(tiny.tokens.source(rows(run)[0]["input"])) <= 9


CHINESE = "data/chnsenticorp/ChnSentiCorp_htl_all.csv"
REAL = {
    "understanding/sst2.yaml": {"train": "data/sst2/train.tsv"},
    "understanding/rte.yaml": {"train": "data/rte/train.tsv"},
    "understanding/chnsenticorp.yaml": {"train": CHINESE},
    "understanding/chnsenticorp-mini.yaml": {"train": CHINESE},
    "generation/webnlg.yaml": {
        "train": "data/webnlg2017/train",
        "dev": "data/webnlg2017/dev",
        "test": "data/webnlg2017/dev",
    },
    "generation/dart.yaml": dict.fromkeys(
        ("train", "dev", "test"), "data/dart/dart-v1.1.1-full-dev.json"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_recipes_on_real_files(
    name: str, shared: Callable[[str], Path], encoder: Backbone, tiny: Backbone, tmp_path: Path
) -> None:
    """Two steps each, on few of the examples; the files are read whole."""
    backbone = encoder if name.startswith("understanding") else tiny
    overrides = [f"task.data.{split}={shared(path)}" for split, path in REAL[name].items()]
    overrides += [
        f"backbone={backbone.name}",
        "method.length=2",
        "method.reparameterization=table",
        "training.steps=2",
        "training.batch_size=2",
        "training.evaluate_every=2",
        "evaluation.backbone_alone=false",
    ]
    if name.startswith("understanding"):
        held = load_recipe(RECIPES / name).task.data.hold_out
        assert held
        overrides += [
            "task.data.hold_out=20",
            "task.limits={per_label: 40, dev: 10}",
            "task.max_tokens=96",
        ]
    else:
        overrides += [
            "task.limits={train: 4, dev: 2, test: 3}",
            "task.metrics=[chrf]",
            "task.truncate=triples",
            "decoding={max_new_tokens: 3}",
        ]
    told = Told()
    run = train(
        RECIPES / name,
        overrides=overrides,
        out=tmp_path / "run",
        backbone=backbone,
        device="cpu",
        progress=told,
    )
    assert run.metrics["examples"] == (10 if name.startswith("understanding") else 3)
    assert any(line.startswith("train: ") for line in told.lines)
    if name.endswith("dart.yaml"):
        assert any("2,768" in line or "6,980" in line for line in told.lines)
