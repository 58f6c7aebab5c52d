"""The bundled sample task: reproducible to the byte, split cleanly, and worded properly."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from foreword.bundled.fieldguide import generate, words

FOLDER = Path(generate.__file__).parent
SPLITS = ("train", "dev", "test")
Row = dict[str, Any]


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Row]]:
    return {
        s: [json.loads(line) for line in (FOLDER / f"{s}.jsonl").read_text("utf-8").splitlines()]
        for s in SPLITS
    }


@pytest.fixture(scope="module")
def rows(splits: dict[str, list[Row]]) -> list[Row]:
    return [row for s in SPLITS for row in splits[s]]


@pytest.fixture(scope="module")
def pairs(rows: list[Row]) -> list[tuple[dict[str, str], str]]:
    return [(row["record"], text) for row in rows for text in row["references"]]


def told(record: dict[str, str]) -> list[tuple[str, str]]:
    """The fields a text has to hold word for word."""
    return [(f, v) for f, v in record.items() if f != "edible"]


def skeleton(record: dict[str, str], text: str) -> str:
    """The text with every value replaced by its field's name."""
    for field, value in sorted(told(record), key=lambda item: -len(item[1])):
        text = re.sub(rf"\b{re.escape(value)}\b", f"<{field}>", text, flags=re.IGNORECASE)
    return re.sub(r"\b([Aa])n(?= <)", r"\1", text)


def test_packaged_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    assert generate.main([str(tmp_path)]) == 0
    for split in SPLITS:
        written = (tmp_path / f"{split}.jsonl").read_bytes()
        assert written == (FOLDER / f"{split}.jsonl").read_bytes(), split
        assert b"\r" not in written


def test_another_seed_gives_other_rows() -> None:
    assert generate.build(1) == generate.build(1)
    assert generate.build(1) != generate.build(2)


def test_sizes_and_shape(splits: dict[str, list[Row]]) -> None:
    assert {s: len(rows) for s, rows in splits.items()} == {"train": 400, "dev": 60, "test": 120}
    for split, rows in splits.items():
        for number, row in enumerate(rows, start=1):
            assert list(row) == ["id", "category", "seen", "record", "references"]
            assert row["id"] == f"{split}-{number:04d}"
            assert next(iter(row["record"])) == "name"
            assert row["record"]["type"] == row["category"]
            assert 4 <= len(row["record"]) <= 8
            assert 2 <= len(row["references"]) <= 4
            assert len(set(row["references"])) == len(row["references"])


def test_unseen_categories_are_in_test_only(splits: dict[str, list[Row]]) -> None:
    for split in ("train", "dev"):
        assert {row["category"] for row in splits[split]} == set(words.SEEN)
        assert all(row["seen"] for row in splits[split])
    unseen = [row for row in splits["test"] if not row["seen"]]
    assert len(unseen) == 40
    assert {row["category"] for row in unseen} == set(words.UNSEEN)


def test_unseen_records_hold_one_or_two_novel_facts(splits: dict[str, list[Row]]) -> None:
    known = {item for row in splits["train"] for item in row["record"].items()}
    for row in splits["test"]:
        facts = {f: v for f, v in row["record"].items() if f not in ("name", "type")}
        novel = {f: v for f, v in facts.items() if (f, v) not in known}
        assert len(novel) in ((0,) if row["seen"] else (1, 2)), row["id"]


def test_splits_share_no_name_and_no_record(rows: list[Row]) -> None:
    names = [row["record"]["name"] for row in rows]
    facts = [json.dumps(row["record"], sort_keys=True) for row in rows]
    assert len(set(names)) == len(names)
    assert len(set(facts)) == len(facts)


def test_values_are_said_word_for_word(pairs: list[tuple[dict[str, str], str]]) -> None:
    assert all(record["name"] in text for record, text in pairs)
    assert all(record["type"] in text.lower() for record, text in pairs)
    said = [value.lower() in text.lower() for record, text in pairs for _, value in told(record)]
    assert sum(said) / len(said) >= 0.95
    silent = [sum(v.lower() not in text.lower() for _, v in told(r)) for r, text in pairs]
    assert max(silent) <= 1
    assert 0.02 < sum(silent) / len(silent) < 0.08


def test_no_value_is_hidden_in_a_name(rows: list[Row]) -> None:
    for row in rows:
        others = [v for f, v in told(row["record"]) if f != "name"]
        assert not [v for v in others if v.lower() in row["record"]["name"].lower()]


def test_yes_and_no_are_said_in_other_words(pairs: list[tuple[dict[str, str], str]]) -> None:
    for record, text in pairs:
        eating = re.search(r"\b(eat|eaten|edible|inedible)\b", text)
        refusal = re.search(r"\b(not (be eaten|safe to eat|fit to eat)|inedible)\b", text)
        assert bool(eating) == ("edible" in record), text
        assert bool(refusal) == (record.get("edible") == "no"), text


def test_grammar_guards(pairs: list[tuple[dict[str, str], str]]) -> None:
    for _, text in pairs:
        assert text.isascii()
        assert text.endswith(".")
        assert not re.search(r"  | [,.]|,,|\.\.|[{}<>]|,\.", text), text
        assert all(sentence[0].isupper() for sentence in text.split(". ")), text
        assert not re.search(r"\b[Aa] [aeiouAEIOU]", text), text
        assert not re.search(r"\b[Aa]n [^aeiouAEIOU]", text), text
        assert not re.search(r"\b(\w+) \1\b", text), text
        assert 8 <= len(text.split()) <= 40, text


def test_wording_is_varied(splits: dict[str, list[Row]]) -> None:
    train = [(row["record"], text) for row in splits["train"] for text in row["references"]]
    skeletons = {skeleton(record, text) for record, text in train}
    assert len(skeletons) > 600
    openings = {" ".join(skeleton(record, text).split()[:4]) for record, text in train}
    assert len(openings) > 100
    orders = {tuple(row["record"]) for row in splits["train"]}
    assert len(orders) > 150
