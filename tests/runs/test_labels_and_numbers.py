"""Whole runs that tell several labels a row, or a number: stored, loaded and resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import f1_score
from test_resuming import Killed, Told

import foreword
from foreword.artifacts.manifest import read_manifest
from foreword.backbone import Backbone
from foreword.errors import ArtifactError, DataError
from foreword.recipe import load_recipe
from foreword.runs import Run, train

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
LABELS = ("colour", "place", "size")
PARTS = {"colour": "grey", "place": "near the river", "size": "large"}


def sentences() -> list[tuple[str, list[str], float]]:
    """Texts, what they tell, and how many words they have."""
    found = []
    for thing in ("otter", "heron", "toad", "birch"):
        for number in range(8):
            told = [label for i, label in enumerate(LABELS) if number >> i & 1]
            text = " ".join([thing, *(PARTS[label] for label in told)])
            found.append((text, told, 10.0 * len(text.split())))
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rated")
    rows = [{"text": t, "tells": told, "words": n} for t, told, n in sentences()]
    for name, part in {"train": rows, "dev": rows[::3], "test": rows[1::3]}.items():
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    csv = "".join(f"{t},{'|'.join(told)},{n:g}\n" for t, told, n in sentences())
    (folder / "all.csv").write_text("text,tells,words\n" + csv, encoding="utf-8")
    return folder


def recipe(files: Path, column: str, *, splits: str = "train dev test", **more: Any) -> Any:
    data = {name: str(files / f"{name}.jsonl") for name in splits.split()}
    asked = {"label_list": "tells"} if column == "tells" else {"number": "words"}
    task = {"data": {"format": "jsonl", **data, **asked}, "input": "{text}", **more.pop("task", {})}
    training = {"steps": 12, "batch_size": 8, "learning_rate": 0.05, **more.pop("training", {})}
    return {
        "version": 1,
        "name": "told",
        "backbone": "foreword/mini",
        "task": task,
        "method": {"name": "p-tuning-v2", "length": 3},
        "training": training,
        **more,
    }


def start(given: Any, backbone: Backbone, out: Path, **options: Any) -> Run:
    return train(given, out=out, backbone=backbone, device="cpu", **options)


def rows(run: Run) -> list[dict[str, Any]]:
    text = (run.folder / "answers.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def hot(told: list[list[str]]) -> list[list[int]]:
    return [[int(label in own) for label in LABELS] for own in told]


def test_several_labels(tiny: Backbone, files: Path, tmp_path: Path) -> None:
    told = Told()
    run = start(recipe(files, "tells"), tiny, tmp_path / "run", progress=told)
    manifest = read_manifest(run.artifact)
    assert (manifest.task.answer, manifest.task.labels) == ("labels", LABELS)
    assert (manifest.task.label_list, manifest.axes["readout"]) == ("tells", "labels_head")
    assert not any("tuned on the dev" in line for line in told.lines), "test is another file"
    found = rows(run)
    thresholds = manifest.task.thresholds
    assert set(thresholds) == set(LABELS)
    for row in found:
        assert list(row["probabilities"]) == list(LABELS)
        expected = [label for label in LABELS if row["probabilities"][label] >= thresholds[label]]
        assert row["output"] == expected
        assert row["probability"] == [row["probabilities"][label] for label in expected]
    gold, said = (hot([row[key] for row in found]) for key in ("labels", "output"))
    scores = run.metrics["prompt"]["all"]
    for average in ("micro", "macro", "samples"):
        expected = f1_score(gold, said, average=average, zero_division=0)
        assert scores[f"{average}_f1"] == pytest.approx(100 * expected)
    prompt = foreword.load(run.folder, backbone=tiny, device="cpu")
    again = prompt.predict([row["input"] for row in found])
    assert [list(one.answer) for one in again] == [row["output"] for row in found]
    dev = foreword.read_examples(files / "dev.jsonl", "jsonl", label_list="tells")
    best = prompt.evaluate(dev, metrics=["macro_f1"]).scores["macro_f1"]
    for other in (0.2, 0.35, 0.5, 0.65, 0.8):
        fixed = [
            [label for label, share in one.probabilities.items() if share >= other]
            for one in prompt.predict(dev)
        ]
        gold = hot([list(example.labels or ()) for example in dev])
        assert best >= 100 * f1_score(gold, hot(fixed), average="macro", zero_division=0) - 1e-9


@pytest.mark.parametrize(
    ("threshold", "splits", "note"),
    [("shared", "train dev test", False), (0.3, "train dev", False), ("per_label", "train dev", 1)],
)
def test_thresholds(
    threshold: Any, splits: str, note: int, tiny: Backbone, files: Path, tmp_path: Path
) -> None:
    told = Told()
    given = recipe(
        files, "tells", splits=splits, task={"threshold": threshold}, training={"steps": 2}
    )
    run = start(given, tiny, tmp_path / "run", progress=told)
    thresholds = read_manifest(run.artifact).task.thresholds
    assert len(set(thresholds.values())) == 1 or threshold == "per_label"
    assert threshold != 0.3 or set(thresholds.values()) == {0.3}
    assert sum("thresholds are tuned on the dev examples" in line for line in told.lines) == note
    assert load_recipe(run.folder / "recipe.yaml").task.threshold == threshold


def test_without_development_examples_thresholds_are_a_half(
    tiny: Backbone, files: Path, tmp_path: Path
) -> None:
    given = recipe(files, "tells", splits="train test", training={"steps": 1})
    run = start(given, tiny, tmp_path / "run")
    assert set(read_manifest(run.artifact).task.thresholds.values()) == {0.5}


def test_numbers(tiny: Backbone, files: Path, tmp_path: Path) -> None:
    given = recipe(files, "words", training={"steps": 60, "best_by": "mse", "evaluate_every": 20})
    run = start(given, tiny, tmp_path / "run")
    manifest = read_manifest(run.artifact)
    assert (manifest.task.answer, manifest.task.number) == ("number", "words")
    numbers = [n for *_, n in sentences()]
    assert manifest.task.mean == pytest.approx(sum(numbers) / len(numbers))
    assert manifest.axes["readout"] == "number_head"
    scores = run.metrics["prompt"]["all"]
    assert set(scores) == {"mse", "pearson", "spearman"}
    found = rows(run)
    errors = [(row["output"] - row["number"]) ** 2 for row in found]
    assert scores["mse"] == pytest.approx(sum(errors) / len(errors))
    assert scores["mse"] < manifest.task.deviation**2, "better than always the mean"
    assert scores["pearson"] > 50
    watched = run.metrics["training"]["evaluations"]
    best = min(watched, key=lambda entry: entry["mse"])
    assert run.metrics["training"]["best_step"] == best["step"]
    assert best["mse"] == pytest.approx(best["loss"] * manifest.task.deviation**2, rel=1e-4)
    prompt = foreword.load(run.folder, backbone=tiny, device="cpu")
    for row, one in zip(found, prompt.predict([row["input"] for row in found]), strict=True):
        assert one.answer == pytest.approx(row["output"], rel=1e-4)
    assert float(run.samples[0]["output"]) == pytest.approx(found[0]["output"], rel=1e-3)


def test_numbers_as_they_are(tiny: Backbone, files: Path, tmp_path: Path) -> None:
    given = recipe(files, "words", task={"standardise": False}, training={"steps": 1})
    task = read_manifest(start(given, tiny, tmp_path / "run").artifact).task
    assert (task.mean, task.deviation) == (0.0, 1.0)


def test_numbers_that_are_all_the_same(tiny: Backbone, tmp_path: Path) -> None:
    text = "".join(json.dumps({"text": word, "words": 2}) + "\n" for word in "abc")
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="all 3 numbers are 2, so there is nothing to learn"):
        start(recipe(tmp_path, "words"), tiny, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("column", ["tells", "words"])
def test_a_run_that_was_killed_ends_with_the_same_bits(
    column: str, tiny: Backbone, files: Path, tmp_path: Path
) -> None:
    given = recipe(files, column, training={"steps": 4, "checkpoint_every": 1})
    whole = start(given, tiny, tmp_path / "whole")
    with pytest.raises(Killed):
        start(given, tiny, tmp_path / "run", resume=True, progress=Told(2))
    run = start(given, tiny, tmp_path / "run", resume=True)
    for name in ("artifact/head.safetensors", "answers.jsonl", "log.jsonl"):
        assert (run.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    task, other = (read_manifest(one.artifact).task for one in (run, whole))
    assert task == other


def test_labels_and_numbers_of_one_batch(tiny: Backbone, files: Path, tmp_path: Path) -> None:
    bank = foreword.prompts(tiny)
    for column in ("tells", "words"):
        run = start(recipe(files, column, training={"steps": 2}), tiny, tmp_path / column)
        bank.add(column, run.folder)
    texts = [text for text, *_ in sentences()[:5]]
    asked = [{"prompt": ("tells", "words")[i % 2], "text": text} for i, text in enumerate(texts)]
    for row, one in zip(asked, bank.predict(asked), strict=True):
        (alone,) = bank[str(row["prompt"])].predict([row["text"]])
        assert one.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
        assert one.answer == alone.answer or one.answer == pytest.approx(alone.answer, rel=1e-4)


def test_an_artifact_whose_thresholds_are_of_other_labels(
    tiny: Backbone, files: Path, tmp_path: Path
) -> None:
    run = start(recipe(files, "tells", training={"steps": 1}), tiny, tmp_path / "run")
    file = run.artifact / "foreword.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    manifest["task"]["thresholds"] = {"colour": 0.5}
    file.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"task\.thresholds: are of \['colour'\], but the"):
        foreword.load(run.folder, backbone=tiny, device="cpu")
    manifest["task"]["thresholds"] = {"colour": 1.5}
    file.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"task\.thresholds\.colour: must be at most 1"):
        read_manifest(run.artifact)


@pytest.mark.parametrize("name", ["several-labels", "regression"])
def test_the_recipes_read_what_the_script_writes(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(RECIPES / "tasks" / f"{name}.yaml")
    assert Path(str(recipe.task.data.train)).parent.name == "fieldguide-sets"
    assert recipe.task.answer == {"several-labels": "labels", "regression": "number"}[name]
