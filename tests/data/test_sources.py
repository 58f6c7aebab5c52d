"""The hub, tried on folders in its place, and hashes of what is read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from foreword.data import read_data, read_examples, source_sha256
from foreword.data.sources import data_file
from foreword.errors import DataError

ROWS = [
    {"document": "A goal.", "summary": "Goal", "id": "1"},
    {"document": "", "summary": "x", "id": "2"},
]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that `datasets.load_dataset` takes for the hub's EdinburghNLP/xsum."""
    folder = tmp_path / "EdinburghNLP" / "xsum"
    folder.mkdir(parents=True)
    for split in ("train", "validation", "test"):
        text = "".join(json.dumps({**row, "split": split}) + "\n" for row in ROWS)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return folder


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_split_of_the_hub(hub: Path, split: str) -> None:
    name = f"hub:EdinburghNLP/xsum:{split}"
    reading = read_data(name, "xsum")
    (only,) = reading.examples
    assert only.fields == {"document": "A goal.", "id": "1", "split": split}
    assert (only.references, only.where) == (("Goal",), f"{name}, row 1")
    assert reading.empty == (f"{name}, row 2",)
    assert len(read_examples(name, "parquet", references="summary")) == 2


def test_a_loading_script_is_passed_over(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """datasets 4 and later refuse scripts; the hub keeps a branch of converted files."""
    asked: list[Any] = []
    real = datasets.load_dataset

    def load(repository: str, config: Any, *, split: str, revision: str | None) -> Any:
        asked.append(revision)
        if revision is None:
            raise RuntimeError("Dataset scripts are no longer supported, but found xsum.py")
        return real(repository, config, split=split)

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert len(read_examples("hub:EdinburghNLP/xsum:train", "xsum")) == 1
    assert asked == [None, "refs/convert/parquet"]
    assert len(read_examples("hub:EdinburghNLP/xsum@main/x:train", "xsum")) == 1
    assert asked[2:] == ["main/x"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hub:EdinburghNLP/xsum", "expected hub:OWNER/NAME:SPLIT"),
        ("hub:xsum:train", "expected hub:OWNER/NAME:SPLIT"),
        ("hub:EdinburghNLP/xsum:dev", "hub:EdinburghNLP/xsum:dev: cannot be loaded: Unknown split"),
    ],
)
def test_names_of_the_hub_that_are_wrong(hub: Path, name: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        read_examples(name, "xsum")
    assert said in str(caught.value)


def test_without_a_network(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> Any:
        raise ConnectionError("Couldn't reach 'EdinburghNLP/nothing' on the Hub\nand more")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError, match=r"reach 'EdinburghNLP/nothing' on the Hub; give the name"):
        read_examples("hub:EdinburghNLP/nothing:train", "xsum")


def test_other_formats_are_no_tables() -> None:
    with pytest.raises(DataError, match="tables and xsum are read"):
        read_examples("hub:rajpurkar/squad:train", "squad")


def test_hashes(hub: Path, tmp_path: Path) -> None:
    file = hub / "train.jsonl"
    assert source_sha256(file) == hashlib.sha256(file.read_bytes()).hexdigest()
    bundled = "foreword/fieldguide/dev"
    assert source_sha256(bundled) == source_sha256(data_file(bundled))
    folder = source_sha256(tmp_path / "EdinburghNLP")
    train = source_sha256("hub:EdinburghNLP/xsum:train")
    file.write_text(file.read_text() + json.dumps({**ROWS[0], "split": "train"}) + "\n")
    assert source_sha256(tmp_path / "EdinburghNLP") != folder
    file.rename(hub / "more.jsonl")
    other = source_sha256(tmp_path / "EdinburghNLP")
    (hub / "more.jsonl").rename(file)
    assert other not in (folder, source_sha256(tmp_path / "EdinburghNLP"))
    assert source_sha256("hub:EdinburghNLP/xsum:train") != train
    with pytest.raises(DataError, match="cannot be read"):
        source_sha256(tmp_path / "nothing")
