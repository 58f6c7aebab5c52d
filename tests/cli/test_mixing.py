"""`--prompt NAME=FOLDER`: each row is answered with the prompt that it names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_commands import Command, foreword, refused, stdin

from foreword import prompts
from foreword.backbone import Backbone
from foreword.cli import answering
from foreword.methods import HeadOnly, LoRA
from stored_prompts import labels, prefix, soft, store, writes

pytestmark = pytest.mark.usefixtures("loaded_once")

__all__ = ["foreword"]


@pytest.fixture(scope="module")
def folders(mini: Backbone, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("prompts")
    kinds = {
        "birds": (soft(), writes()),
        "mails": (prefix(), writes("{text} ->")),
        "kinds": (HeadOnly(name="head-only"), labels()),
        "lora": (LoRA(name="lora", rank=2), writes()),
    }
    return {
        name: store(root / name, mini, method, task, max_new_tokens=3)
        for name, (method, task) in kinds.items()
    }


def flags(folders: dict[str, Path], *names: str) -> list[str]:
    given = ["--backbone", "foreword/mini", "--device", "cpu"]
    for name in names:
        given += ["--prompt", f"{name}={folders[name]}"]
    return given


def file_of(folder: Path, rows: list[Any]) -> str:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


ROWS = [
    {"prompt": "birds", "text": "a film", "id": 1},
    {"prompt": "mails", "text": "it rained"},
    {"prompt": None, "text": "so"},
    {"prompt": "birds", "text": "so", "decoding": {"max_new_tokens": 1}},
]


def test_rows_name_their_prompt(
    foreword: Command,
    folders: dict[str, Path],
    mini: Backbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = ["generate", *flags(folders, "birds", "mails"), "--input", file_of(tmp_path, ROWS)]
    done = foreword(*given)
    assert done.status == 0, done.err
    printed = [json.loads(line) for line in done.out.splitlines()]
    bank = prompts(mini)
    for name in ("birds", "mails"):
        bank.add(name, folders[name])
    expected = [
        {**row, "output": text} for row, text in zip(ROWS, bank.generate(ROWS), strict=True)
    ]
    assert printed == expected
    few = ["--out", "out.jsonl", "--max-new-tokens", "2", "--limit", "2"]
    assert foreword(*given, *few).status == 0
    written = [json.loads(line) for line in Path("out.jsonl").read_text("utf-8").splitlines()]
    assert [row["output"] for row in written] == bank.generate(ROWS[:2], max_new_tokens=2)
    monkeypatch.setattr(answering, "GROUPS", 1)
    assert foreword(*given, "--batch-size", "1").out == done.out


def test_a_stream_of_rows_draws_as_a_file_of_them(
    foreword: Command, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt": name, "text": "so"} for name in ["birds", "mails"] * 2]
    given = ["generate", *flags(folders, "birds", "mails"), "--sample", "--temperature", "5"]
    given += ["--seed", "7"]
    file = file_of(tmp_path, rows)
    printed = foreword(*given, "--input", file).out
    assert len(set(printed.splitlines())) == 4
    stdin(monkeypatch, Path(file).read_bytes())
    assert foreword(*given, "--input", "-", "--batch-size", "1").out == printed


def test_a_stream_of_one_prompt_draws_as_a_file(
    foreword: Command, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["generate", folders["birds"], "--device", "cpu", "--sample", "--seed", "7"]
    given += ["--temperature", "5", "--batch-size", "1", "--input"]
    text = "so\n" * 3
    Path("x.txt").write_text(text, encoding="utf-8")
    printed = foreword(*given, "x.txt").out
    assert len(set(printed.splitlines())) == 3
    stdin(monkeypatch, text.encode())
    assert foreword(*given, "-").out == printed


def test_predict_names_prompts_too(
    foreword: Command, folders: dict[str, Path], tmp_path: Path
) -> None:
    rows = [{"prompt": "kinds", "text": "a film"}]
    given = ["predict", *flags(folders, "kinds", "birds")]
    (line,) = foreword(*given, "--input", file_of(tmp_path, rows)).out.splitlines()
    row = json.loads(line)
    assert row["prompt"] == "kinds"
    assert row["output"] in ("yes", "no")
    assert sum(row["probabilities"].values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("verb", "row", "said"),
    [
        ("generate", {"text": "a"}, "has no field 'prompt'; give {\"prompt\": name"),
        (
            "generate",
            {"prompt": "bird", "text": "a"},
            "prompt: there is no 'bird' among 2 (did you",
        ),
        ("generate", {"prompt": "birds"}, "the data has no field 'text'"),
        ("generate", {"prompt": "kinds", "text": "a"}, "'kinds' tells a label and writes no text"),
        ("generate", {"prompt": "birds", "text": "a", "seed": -3}, "seed: "),
        ("generate", {"prompt": "birds", "text": "a", "decoding": {"x": 1}}, "decoding.x"),
        ("predict", {"prompt": "birds", "text": "a"}, "'birds' writes texts and has no head"),
    ],
)
def test_mistakes_of_a_row_name_it(
    verb: str, row: Any, said: str, foreword: Command, folders: dict[str, Path], tmp_path: Path
) -> None:
    good = {"prompt": "birds" if verb == "generate" else "kinds", "text": "a"}
    file = file_of(tmp_path, [good, row])
    given = [verb, *flags(folders, "birds", "kinds"), "--input", file, "--batch-size", "1"]
    refused(foreword(*given), f"{file}, line 2: ", said)
    refused(foreword(*given, "--out", "out.jsonl"), said)
    assert not Path("out.jsonl").exists()


def test_mistakes_of_flags(foreword: Command, folders: dict[str, Path], tmp_path: Path) -> None:
    birds = f"birds={folders['birds']}"
    rows = ["--input", file_of(tmp_path, ROWS)]
    one = ["--backbone", "foreword/mini", "--device", "cpu", "--prompt"]
    for given, said in (
        (rows, "ARTIFACT: give an artifact or run folder, or several with --prompt NAME=FOLDER"),
        ([*one, birds, str(folders["birds"]), *rows], "--prompt: 'birds="),
        ([*one, birds, "--text", "a"], "--text: 'a' names no prompt; give rows with --input"),
        (["--prompt", birds, *rows], "--backbone: is not given; name the backbone that all"),
        ([*one, "birds", *rows], "--prompt: expected NAME=FOLDER, found 'birds'"),
        ([*one, f"={folders['birds']}", *rows], "--prompt: expected NAME=FOLDER, found '="),
        ([*one, birds, "--prompt", "birds=x", *rows], "--prompt: the name 'birds' is given twice"),
        ([*one, "birds=nowhere", *rows], "nowhere: "),
        ([*one, birds], "give inputs with --text, or a file"),
        ([*one, f"l={folders['lora']}", *rows], "has weights of the backbone that were trained"),
    ):
        for verb in ("generate", "predict"):
            refused(foreword(verb, *given), said)
