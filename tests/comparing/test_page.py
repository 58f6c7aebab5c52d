"""The page of a comparison: its markup, and how a real browser shows it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browser import Browser
from finished_runs import a_run, evaluated

from foreword.comparing.page import write_page
from foreword.comparing.summary import summarise
from foreword.data import Example

SCORES = {"70": 70.0, "10": 30.0, "40": 50.0}
"""Three methods in no order, named by a length."""
in_a_browser = pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")


def content_of(folder: Path) -> dict[str, Any]:
    """A comparison that has every part of a page."""
    example = Example(
        {"record": f"name : Aromi | address : {'x' * 90}"}, references=("Aromi is a pub .",)
    )
    runs = []
    for count, (length, score) in enumerate(SCORES.items(), start=1):
        for seed in range(2):
            run = a_run(folder / f"{length}-{seed}", seed, score + seed, length=length)
            run = evaluated(run, [3.0, 2.0 + seed, 1.0], trained_parameters=100 * count)
            groups = {"seen": {"ter": score + seed}, "unseen": {"ter": score + 10}}
            runs.append(
                replace(
                    run,
                    metrics={**run.metrics, "prompt": {**run.metrics["prompt"], **groups}},
                    answers=["Aromi is a <big> pub ."],
                    examples=[example],
                    words=[["<pub>", "bar"], ["inn"]],
                )
            )
    return summarise("lengths", runs, command=f"foreword compare {'l' * 90}.yaml")


def test_words_that_differ_are_marked_and_nearest_words_stand_there(tmp_path: Path) -> None:
    page = write_page(content_of(tmp_path))
    assert "Aromi is a <mark>&lt;big&gt;</mark> pub . " in page
    assert "<ol><li>&lt;pub&gt;, bar</li><li>inn</li></ol>" in page


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """The page on the disk."""
    file = tmp_path / "report.html"
    file.write_text(write_page(content_of(tmp_path)), encoding="utf-8")
    return file


def means(browser: Browser) -> list[str]:
    """The scores, from top to bottom."""
    rows = "[...document.querySelector('table.sorts').tBodies[0].rows]"
    script = f"{rows}.map(row => row.cells[1].dataset.key)"
    return [f"{float(key):.1f}" for key in browser.value(script)]


@in_a_browser
@pytest.mark.slow
def test_a_browser_draws_every_plot_without_a_message(page: Path, tmp_path: Path) -> None:
    with Browser(page, tmp_path / "profile") as browser:
        browser.until(
            "document.querySelectorAll('.plot').length === 5 && "
            "[...document.querySelectorAll('.plot')].every(p => p.querySelector('svg'))"
        )
        assert browser.messages == []


@in_a_browser
@pytest.mark.slow
def test_a_table_sorts_up_and_then_down(page: Path, tmp_path: Path) -> None:
    with Browser(page, tmp_path / "profile") as browser:
        button = "document.querySelector('table.sorts th:nth-child(2) button')"
        state = f"{button}.parentElement.getAttribute('aria-sort')"
        assert means(browser) == ["70.5", "30.5", "50.5"]
        browser.value(f"{button}.click()")
        assert means(browser) == ["30.5", "50.5", "70.5"]
        assert browser.value(state) == "ascending"
        browser.value(f"{button}.click()")
        assert means(browser) == ["70.5", "50.5", "30.5"]
        assert browser.value(state) == "descending"
        assert browser.value("document.querySelectorAll('[aria-sort=descending]').length") == 1


@in_a_browser
@pytest.mark.slow
def test_a_table_sorts_without_a_mouse(page: Path, tmp_path: Path) -> None:
    with Browser(page, tmp_path / "profile") as browser:
        buttons = browser.value("document.querySelectorAll('table.sorts button').length")
        reached = set()
        for _ in range(buttons + 40):
            browser.press("Tab")
            label = (
                "(() => { const all = [...document.querySelectorAll('table.sorts button')];"
                " return all.indexOf(document.activeElement); })()"
            )
            place = browser.value(label)
            reached.add(place)
            if place == 1 and means(browser) == ["70.5", "30.5", "50.5"]:
                browser.press("Enter")
                assert means(browser) == ["30.5", "50.5", "70.5"]
                browser.press("Enter")
                assert means(browser) == ["70.5", "50.5", "30.5"]
        assert reached >= set(range(buttons))


@in_a_browser
@pytest.mark.slow
def test_a_dark_page_has_light_text_in_plots_too(page: Path, tmp_path: Path) -> None:
    shown = {}
    for dark in (False, True):
        with Browser(page, tmp_path / f"profile-{dark}", dark=dark) as browser:
            browser.until("!!document.querySelector('.plot svg text')")
            shown[dark] = json.loads(
                browser.value(
                    "(() => { const s = getComputedStyle(document.body); return JSON.stringify({"
                    "back: s.backgroundColor, text: s.color, plot: "
                    "getComputedStyle(document.querySelector('.plot svg text')).fill }); })()"
                )
            )
            assert browser.messages == []
    assert shown[False]["back"] == "rgb(255, 255, 255)"
    assert shown[True] == {
        "back": "rgb(13, 17, 23)",
        "text": "rgb(230, 237, 243)",
        "plot": "rgb(230, 237, 243)",
    }
    assert shown[False]["plot"] == shown[False]["text"] != shown[True]["text"]


@in_a_browser
@pytest.mark.slow
def test_a_narrow_page_does_not_scroll_sideways(page: Path, tmp_path: Path) -> None:
    with Browser(page, tmp_path / "profile", wide=360) as browser:
        browser.until("[...document.querySelectorAll('.plot')].every(p => p.querySelector('svg'))")
        browser.value("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        assert browser.value("innerWidth") == 360
        assert browser.value("document.documentElement.scrollWidth") <= 360
        assert browser.value("document.body.scrollWidth") <= 360
