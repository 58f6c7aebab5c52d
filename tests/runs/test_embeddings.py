"""Whole runs that learn vectors: measured, stored, loaded, and read by sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics.pairwise import cosine_similarity
from test_resuming import Killed, Told

import foreword
from foreword.artifacts.manifest import read_manifest
from foreword.backbone import Backbone
from foreword.errors import UserError
from foreword.runs import Run, train
from foreword.runs.folder import read_run

THINGS = ("otter", "heron", "toad", "birch", "hawk", "town", "river", "cold")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    rows = [
        {"text": f"the grey {thing}", "other": f"a {thing} near us", "alike": number / 10}
        for number, thing in enumerate(THINGS)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "all.jsonl").write_text(text, encoding="utf-8")
    return folder


def start(files: Path, backbone: Backbone, out: Path, **more: Any) -> Run:
    file = str(files / "all.jsonl")
    columns = {"paired": "other", **more.pop("columns", {})}
    method = more.pop("method", {"name": "p-tuning-v2", "length": 3})
    recipe = {
        "version": 1,
        "name": "vectors",
        "backbone": backbone.name,
        "task": {
            "data": {"format": "jsonl", "train": file, "dev": file, **columns},
            "input": "{text:cut}",
            "second": "entry: {other}",
        },
        "method": method,
        "training": {"steps": 12, "batch_size": 4, "learning_rate": 0.05},
    }
    return train(recipe, out=out, backbone=backbone, device="cpu", **more)


def rows(run: Run) -> list[dict[str, Any]]:
    text = (run.folder / "answers.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def run(files: Path, masked: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return start(files, masked, tmp_path_factory.mktemp("vectors") / "run")


def sides(run: Run, masked: Backbone) -> tuple[Any, Any, Any]:
    prompt = foreword.load(run.folder, backbone=masked, device="cpu")
    found = rows(run)
    inputs = prompt.embed([row["input"] for row in found], batch_size=3)
    return prompt, inputs, prompt.embed([row["paired"][0] for row in found], paired=True)


def test_pairs_are_found_and_stored(run: Run, masked: Backbone) -> None:
    manifest = read_manifest(run.artifact)
    assert (manifest.task.answer, manifest.axes["readout"]) == ("vector", "vectors")
    assert (manifest.task.paired, manifest.head_sha256) == ("other", None)
    prompt, inputs, others = sides(run, masked)
    assert (inputs.shape, inputs.dtype) == ((8, 32), np.float32)
    assert np.linalg.norm(inputs, axis=1) == pytest.approx(np.ones(8), abs=1e-6)
    near = cosine_similarity(inputs, others)
    places = [1 + int((row > row[n]).sum()) for n, row in enumerate(near)]
    found = rows(run)
    assert [row["rank"] for row in found] == places
    assert [row["output"] for row in found] == pytest.approx(near.diagonal(), abs=1e-5)
    scores = run.metrics["prompt"]["all"]
    assert scores["recall_at_1"] == 100 * np.mean([place == 1 for place in places])
    assert scores["mrr"] == pytest.approx(100 * np.mean([1 / place for place in places]))
    assert scores["mrr"] > run.metrics["backbone"]["all"]["mrr"], "it learns what it is trained on"
    assert read_run(run.folder, run.recipe).samples[0]["reference"] == "a otter near us"
    card = (run.artifact / "README.md").read_text(encoding="utf-8")
    assert "foreword embed" in card
    for verb in (prompt.predict, prompt.generate):
        with pytest.raises(UserError, match="tells a vector and writes no text; use `embed`"):
            verb(["the grey otter"])


def test_sentence_transformers_gives_the_same_vectors(run: Run, masked: Backbone) -> None:
    package = pytest.importorskip("sentence_transformers")
    prompt, inputs, others = sides(run, masked)
    model = package.SentenceTransformer(
        modules=[foreword.sentence_module(prompt)], device="cpu", similarity_fn_name="cosine"
    )
    found = rows(run)
    asked, kept = [row["input"] for row in found], [row["paired"][0] for row in found]
    assert model.encode(asked, batch_size=3) == pytest.approx(inputs, abs=1e-6)
    assert model.encode_query(asked) == pytest.approx(inputs, abs=1e-6)
    assert model.encode_document(kept) == pytest.approx(others, abs=1e-6)
    assert model.get_embedding_dimension() == 32
    nearest = package.util.semantic_search(inputs, others, top_k=1)
    assert [hits[0]["corpus_id"] == n for n, hits in enumerate(nearest)] == [
        row["rank"] == 1 for row in found
    ]


def test_scored_pairs(files: Path, masked: Backbone, tmp_path: Path) -> None:
    run = start(files, masked, tmp_path / "run", columns={"similarity": "alike"})
    _, inputs, others = sides(run, masked)
    found = rows(run)
    cosines = cosine_similarity(inputs, others).diagonal()
    expected = spearmanr(cosines, [row["number"] for row in found]).statistic
    assert run.metrics["prompt"]["all"]["spearman"] == pytest.approx(100 * expected, abs=1e-6)
    assert "rank" not in found[0]


@pytest.mark.parametrize("name", ["lora", "bitfit", "hard-prompt"])
def test_other_methods(name: str, files: Path, masked: Backbone, tmp_path: Path) -> None:
    run = start(files, masked, tmp_path / "run", method={"name": name})
    prompt, inputs, _ = sides(run, masked)
    again = foreword.load(run.artifact, device="cpu").embed([row["input"] for row in rows(run)])
    assert again == pytest.approx(inputs, abs=1e-6)
    assert prompt.manifest.method.name == name


def test_a_killed_run_goes_on(run: Run, files: Path, masked: Backbone, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        start(files, masked, tmp_path / "run", progress=Told(7))
    again = start(files, masked, tmp_path / "run", resume=True)
    assert rows(again) == rows(run)


def test_other_artifacts_give_no_vectors() -> None:
    artifact = Path(__file__).parents[1] / "artifacts" / "of_1_0" / "prefix"
    with pytest.raises(UserError, match="use `generate`"):
        foreword.load(artifact, other_backbone=True, device="cpu").embed(["a"])
