"""Which tests are run where only some are asked for, and what is known of how long they take."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "tests"))
    return import_module("quick")


NAMES = [
    "a/test_one.py::test_slow",
    "a/test_one.py::test_each[1]",
    "a/test_one.py::test_each[2]",
    "a/test_one.py::test_each[3]",
    "b/test_two.py::test_quick",
]
COSTS = {"a/test_one.py::test_slow": 50.0, "a/test_one.py::test_each": 2.0}


def test_the_cheapest_of_every_file_come_first(quick: ModuleType) -> None:
    one, two, three = "a/test_one.py::test_each[1]", "b/test_two.py::test_quick", NAMES[3]
    assert quick.chosen(NAMES, COSTS, 1.0) == [two]
    assert quick.chosen(NAMES, COSTS, 2.5) == [two, one]
    assert quick.chosen(NAMES, COSTS, 5.0) == [two, one, three]
    assert set(quick.chosen(NAMES, COSTS, 100.0)) == {one, two, three, NAMES[0]}


def test_of_many_parameters_the_first_and_the_last(quick: ModuleType) -> None:
    assert NAMES[2] not in quick.chosen(NAMES, COSTS, 1e9)


def test_the_choice_follows_from_names_and_costs_alone(quick: ModuleType) -> None:
    assert quick.chosen(NAMES, COSTS, 5.0) == quick.chosen(NAMES, dict(COSTS), 5.0)
    assert quick.chosen([], COSTS, 5.0) == []


@pytest.mark.parametrize("of_many", [True, False])
def test_the_longest_files_come_first_and_whole(
    of_many: bool, quick: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of many; one that runs all keeps their order."""
    monkeypatch.setattr(quick, "DURATIONS", tmp_path / "durations.json")
    quick.DURATIONS.write_text(json.dumps({**COSTS, "c/test_long.py::test_long": 80.0}))
    names = ["b/test_two.py::test_quick", *NAMES[:4], "c/test_long.py::test_a"]
    names += ["c/test_long.py::test_long", "d/test_last.py::test_quick"]
    items = [SimpleNamespace(nodeid=name) for name in names]
    config = SimpleNamespace(getoption=lambda _: None, **({"workerinput": {}} if of_many else {}))
    quick.pytest_collection_modifyitems(config, items)
    order = [item.nodeid for item in items]
    assert order == ([*names[5:7], *names[1:5], names[0], names[7]] if of_many else names)


def test_durations_are_read_off_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.delitem(sys.modules, "durations_of_tests", raising=False)
    durations = import_module("durations_of_tests")
    monkeypatch.setattr(durations, "TESTS", tmp_path)
    run = tmp_path / "run.xml"
    run.write_text(
        "<testsuites><testsuite>"
        '<testcase classname="tests.data.test_rows" name="test_one[a]" time="1.0"/>'
        '<testcase classname="tests.data.test_rows" name="test_one[b]" time="2.0"/>'
        '<testcase classname="tests.data.test_rows.TestAll" name="test_two" time="0.5"/>'
        '<testcase classname="tests.test_bank" name="test_three" time="0.001"/>'
        '<testcase classname="" name="tests.test_all_of_it_was_skipped" time="0.0"/>'
        "</testsuite></testsuites>",
        encoding="utf-8",
    )
    assert durations.main(str(run)) == 0
    assert json.loads((tmp_path / "durations.json").read_text(encoding="utf-8")) == {
        "tests/data/test_rows.py::test_one": 1.5,
        "tests/data/test_rows.py::TestAll::test_two": 0.5,
    }
