"""Every verb with odd files, links, encodings, numbers, texts and flags, drawn by a seed.

`command_line.py` says what every end has to keep to, `world.py` what is drawn. Here some hundred
situations; `tests/soak/test_mutations_soak.py` has thousands.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Situation, check, rows
from world import VERBS, cached, copied, make, try_seed

pytestmark = pytest.mark.xdist_group("one world")
SEEDS = range(20)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("mutations")
    sound = make(folder)
    with cached(folder / "backbone"):
        yield sound


@pytest.mark.slow
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
