"""The pages: their links lead somewhere, their Python runs, their recipes are recipes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from foreword.recipe import parse_recipe

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("**/*.md"))]
FOLDERS = "bench|docs|grids|launch|plugins|recipes|scripts|src|tests"
WRITTEN_BEFORE = re.compile(r"at commit [0-9a-f]{7,40}\s+by\s+a\s+script\s+\(`([^`]+)`\)")
"""A file that an older commit has, said to be one."""


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page}: {target}"


def files_of_the_checkout(text: str) -> list[str]:
    """The paths of the checkout that a page names, from its root or, of code, from the package."""
    text = WRITTEN_BEFORE.sub("", text)
    named = re.findall(rf"(?<![\w./-])(?:\.\./)*((?:{FOLDERS})/[\w./*-]*)", text)
    return named + re.findall(rf"`((?!{FOLDERS})\w+/[\w/]+\.py)`", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_are_there(page: Path) -> None:
    for path in files_of_the_checkout(page.read_text(encoding="utf-8")):
        places = (ROOT, ROOT / "src" / "foreword")
        assert any(any(place.glob(path.rstrip("."))) for place in places), f"{page}: {path}"


def test_which_files_a_page_names() -> None:
    text = (
        "See `tests/axes/test_gone.py`, [a recipe](../recipes/gone.yaml) and `backbone/gone.py`, "
        "made at commit 9e5f00b by\na script (`scripts/old.py`); not /home/tests/elsewhere.py."
    )
    assert files_of_the_checkout(text) == [
        "tests/axes/test_gone.py",
        "recipes/gone.yaml",
        "backbone/gone.py",
    ]


@pytest.mark.slow
def test_the_python_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    found = blocks("python.md", "python")
    for block in found:
        exec(compile(block, "docs/python.md", "exec"), {})
    assert len(found) == 5
    assert capsys.readouterr().out.count("\n") >= 10


@pytest.mark.slow
def test_the_page_on_other_loops_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = blocks("attach.md", "python")
    exec(compile(block, "docs/attach.md", "exec"), {})
    *_, before, after = capsys.readouterr().out.splitlines()
    assert after == str([before.strip()])


def test_the_chat_pages_recipes_are_some() -> None:
    talks, fields = (parse_recipe(yaml.safe_load(text)) for text in blocks("chat.md", "yaml"))
    assert (talks.task.answer, talks.task.data.measured) == ("turns", "each")
    assert [message.role for message in fields.task.input] == ["system", "user"]


def test_every_training_field_is_on_its_page() -> None:
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    for name in parse_recipe(yaml.safe_load(blocks("chat.md", "yaml")[0])).training.model_dump():
        assert f"`{name}`" in page, name
