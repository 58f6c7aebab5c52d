"""Every verb with odd files, links, encodings, numbers, texts and flags, drawn by a seed.

`command_line.py` says what every end has to keep to, `world.py` what is drawn. Here some fifty
situations; `tests/soak/test_mutations_soak.py` has thousands.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Situation, check, rows
from odd import become
from world import VERBS, cached, copied, make, try_seed

from foreword.errors import UserError
from foreword.session import load

SEEDS = range(5)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("mutations")
    sound = make(folder)
    with cached(folder / "backbone"):
        yield sound


@pytest.mark.slow
@pytest.mark.usefixtures("with_pictures")
@pytest.mark.parametrize("verb", VERBS)
def test_verbs(verb: str, world: Path, tmp_path: Path) -> None:
    for seed in SEEDS:
        try_seed(verb, seed, world, tmp_path / str(seed))


def test_a_sound_world_answers(world: Path, tmp_path: Path) -> None:
    """What the situations start from is right, so that a refusal is one of what was done to it."""
    here = copied(world, tmp_path)
    for arguments in (
        ["generate", "texts", "--input", "rows.jsonl"],
        ["predict", "labels", "--input", "rows.csv"],
        ["predict", "tags", "--input", "rows.conll"],
    ):
        ended = check(Situation(arguments), here)
        assert ended.status == 0, ended.err
        assert all(row["output"] for row in rows(ended.out))
    for arguments in (["show", "lora"], ["ls", "."], ["score", "rows.txt", "refs.txt"]):
        assert check(Situation(arguments), here).status == 0
    made = Situation(["import", "peft", "peft", "--out", "new"], frozenset({"new"}))
    assert check(made, here).status == 0


BEYOND = str(2**63)


@pytest.mark.parametrize("flag", ["--limit", "--batch-size"])
def test_numbers_that_no_machine_counts_to(flag: str, world: Path, tmp_path: Path) -> None:
    """A limit beyond 2^63 - 1 was a ValueError of islice."""
    here = copied(world, tmp_path)
    for arguments in (
        ["generate", "texts", "--input", "rows.jsonl"],
        ["predict", "labels", "--input", "rows.csv"],
        ["evaluate", "texts", "--data", "rows.jsonl"],
        ["train", "texts.yaml", "--dry-run"],
    ):
        ended = check(Situation([*arguments, flag, BEYOND]), here)
        assert ended.status == 2
        assert flag in ended.err


def test_exporting_a_model_shows_no_bar(world: Path, tmp_path: Path) -> None:
    """transformers drew a progress bar, with carriage returns, to no terminal."""
    here = copied(world, tmp_path)
    ended = check(Situation(["export", "model", "lora", "new"], frozenset({"new"})), here)
    assert ended.status == 0
    assert "Writing" not in ended.err


def test_warnings_are_lines(world: Path, tmp_path: Path) -> None:
    """Python showed a line of code with each, and the control characters of a folder's name."""
    here = copied(world, tmp_path)
    odd = "a\x1b[31mb"
    (here / "texts").rename(here / odd)
    ended = check(Situation(["generate", odd, "--text", "a fox", "--dtype", "float64"]), here)
    assert ended.status == 0
    assert ended.err.splitlines()[0].startswith(r"warning: a\x1b[31mb/artifact: was trained on")
    assert "warnings.warn" not in ended.err


def test_an_adapter_of_terabytes(world: Path, tmp_path: Path) -> None:
    """It was hashed to its end before its header was looked at."""
    here = copied(world, tmp_path)
    os.truncate(here / "peft" / "adapter_model.safetensors", 2**42)
    ended = check(Situation(["import", "peft", "peft", "--out", "new"]), here)
    assert ended.status == 2
    assert "adapter_model.safetensors: cannot be read as safetensors" in ended.err


CLAIMS: dict[str, tuple[str, dict[str, Any], str]] = {
    "layers": ("config.json", {"num_hidden_layers": 2**31}, "num_hidden_layers is 2,147,483,648"),
    "a text for a number": ("config.json", {"num_hidden_layers": "x"}, "num_hidden_layers"),
    "a number for a name": ("config.json", {"hidden_act": True}, "hidden_act"),
    "a special token": ("tokenizer_config.json", {"unk_token": {}}, "unk_token"),
    "a length": ("tokenizer_config.json", {"model_max_length": "x"}, "cannot be loaded"),
    "the vocabulary": ("tokenizer.json", {"model": {"type": "BPE", "vocab": 1}}, "cannot be"),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_backbone_whose_files_say_what_is_none(claim: str, world: Path, tmp_path: Path) -> None:
    """These were tracebacks, and a number of layers was built before a weight was read."""
    here = copied(world, tmp_path)
    spare = shutil.copytree(world.parent / "spare", here / "spare")
    name, changes, said = CLAIMS[claim]
    stated = json.loads((spare / name).read_text(encoding="utf-8"))
    (spare / name).write_text(json.dumps({**stated, **changes}), encoding="utf-8")
    ended = check(Situation(["train", "texts.yaml", "--backbone", "./spare", "--dry-run"]), here)
    assert ended.status == 2
    assert "/spare'" in ended.err
    assert said in ended.err


@pytest.mark.parametrize(
    ("kind", "said"), [("fifo", "a FIFO"), ("huge", "more than 1,073,741,824")]
)
def test_a_backbone_with_an_odd_file(kind: str, said: str, world: Path, tmp_path: Path) -> None:
    here = copied(world, tmp_path)
    spare = shutil.copytree(world.parent / "spare", here / "spare")
    become(kind, spare / "tokenizer.json")
    ended = check(Situation(["generate", "texts", "--text", "x", "--backbone", "./spare"]), here)
    assert ended.status == 2
    assert f"tokenizer.json: {'has ' if kind == 'huge' else 'is no regular file but '}{said}" in (
        ended.err
    )


@pytest.mark.parametrize("inputs", [1.5, None, True])
def test_what_is_no_list_of_inputs(inputs: Any, world: Path) -> None:
    """From Python: it was a TypeError."""
    prompt = load(world / "texts")
    with pytest.raises(UserError, match="inputs: expected a list, found"):
        prompt.generate(inputs)
