"""`foreword embed`: a matrix, or JSONL."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from test_commands import Command, foreword, refused, stdin

import foreword as package
from foreword.backbone import Backbone
from foreword.methods import HeadOnly
from foreword.runs import train
from stored_prompts import labels, prefix, store, vectors

__all__ = ["foreword"]


@pytest.fixture(scope="module")
def artifact(masked: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    file = folder / "all.csv"
    file.write_text("text,other\nan otter,a river\na heron,a town\n", encoding="utf-8")
    data = {"format": "csv", "train": str(file), "dev": str(file), "paired": "other"}
    recipe = {
        "version": 1,
        "name": "vectors",
        "backbone": masked.name,
        "task": {"data": data, "input": "{text}", "second": "of: {other}"},
        "method": {"name": "p-tuning-v2", "length": 2},
        "training": {"steps": 1, "batch_size": 2},
    }
    return train(recipe, out=folder / "run", backbone=masked, device="cpu").artifact


def test_a_matrix_and_lines(
    foreword: Command, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("rows.csv").write_text("text,other\nan otter,a river\na heron,x\na,y\n", encoding="utf-8")
    texts = ["an otter", "a heron", "a"]
    expected = package.load(artifact, device="cpu").embed(texts)
    done = foreword("embed", artifact, "--input", "rows.csv", "--out", "vectors.npy")
    assert (done.status, done.out) == (0, "")
    matrix = np.load("vectors.npy")
    assert matrix.dtype == np.float32
    assert matrix == pytest.approx(expected, abs=1e-6)
    refused(foreword("embed", artifact, "--text", "a", "--out", "vectors.npy"), "--overwrite")
    done = foreword("embed", artifact, "--input", "rows.csv", "--limit", 2)
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line["text"] for line in lines] == texts[:2]
    assert np.array([line["vector"] for line in lines], dtype=np.float32).tolist() == (
        pytest.approx(expected[:2], abs=1e-6)
    )
    stdin(monkeypatch, b"a river\n")
    done = foreword("embed", artifact, "--paired", "--input", "-", "--out", "lines.jsonl")
    (line,) = map(json.loads, Path("lines.jsonl").read_text(encoding="utf-8").splitlines())
    other = package.load(artifact, device="cpu").embed(["a river"], paired=True)
    assert line["vector"] == pytest.approx(other[0].tolist(), abs=1e-6)


def test_rows_that_name_their_prompt(
    foreword: Command, artifact: Path, masked: Backbone, tmp_path: Path
) -> None:
    other = store(tmp_path / "other", masked, prefix(), vectors("of {text}", "as {other}"))
    head = store(tmp_path / "head", masked, HeadOnly(name="head-only"), labels())
    bank = package.prompts(masked)
    given: list[object] = ["embed", "--backbone", masked.name, "--device", "cpu"]
    for name, folder in {"own": artifact, "other": other, "head": head}.items():
        bank.add(name, folder)
        given += ["--prompt", f"{name}={folder}"]
    rows = [
        {"prompt": name, "text": text, "other": text}
        for text in ("an otter", "a heron in the river")
        for name in ("own", "other")
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    given += ["--input", file]
    for paired, flags in ((False, []), (True, ["--paired"])):
        expected = bank.embed(rows, paired=paired)
        done = foreword(*given, *flags, "--batch-size", 1)
        lines = [json.loads(line) for line in done.out.splitlines()]
        assert [line["prompt"] for line in lines] == [row["prompt"] for row in rows]
        found = np.array([line["vector"] for line in lines])
        np.testing.assert_allclose(found, expected, atol=1e-5)
        done = foreword(*given, *flags, "--out", "rows.npy", "--overwrite")
        assert (done.status, done.out) == (0, "")
        np.testing.assert_allclose(np.load("rows.npy"), expected, atol=1e-5)
    with file.open("a", encoding="utf-8") as handle:
        handle.write('{"prompt": "head", "text": "a"}\n')
    refused(foreword(*given, "--out", "no.npy"), f"{file}, line 5", "use `predict`")
    assert not Path("no.npy").exists()


def test_what_is_refused(foreword: Command, artifact: Path) -> None:
    refused(foreword("embed", artifact), "give inputs with --text")
    os.mkfifo("pipe.npy")
    refused(foreword("embed", artifact, "--text", "a", "--out", "pipe.npy"), "is no file")
    Path("rows.jsonl").write_text('{"text": "a"}\n{"other": "b"}\n', encoding="utf-8")
    done = foreword("embed", artifact, "--input", "rows.jsonl", "--out", "x.npy")
    refused(done, "rows.jsonl, line 2", "text")
    assert not Path("x.npy").exists()
    refused(foreword("predict", artifact, "--text", "a"), "use `embed`")
    done = foreword("show", artifact)
    assert "a vector of length 1 (mean of the last states)" in done.out


def test_another_artifact(foreword: Command) -> None:
    other = Path(__file__).parents[1] / "artifacts" / "of_1_0" / "prefix"
    refused(foreword("embed", other, "--other-backbone", "--text", "a"), "use `generate`")
