"""What tests take: a part of them of about so many seconds, and an order for several processes.

`pytest --within 60`.

The cheapest tests of every file come first, file after file in turns, and of a test with many
parameters the first and the last, until what they took is as much as is asked for. What tests take
stands in `durations.json`, which `scripts/durations_of_tests.py` makes of a whole run.

`pytest -n 2 --dist loadfile --no-loadscope-reorder` gives files to processes that share what each
sets up for its tests; those that take longest come first, so that no process waits at the end.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

DURATIONS = Path(__file__).parent / "durations.json"
USUAL = 0.03
"""Seconds of a test that the file does not name."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The flag."""
    parser.addoption(
        "--within", type=float, metavar="SECONDS", help="run only the cheapest tests of every file"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what would take longer than is asked for; order the files of a process of many."""
    costs = json.loads(DURATIONS.read_text(encoding="utf-8")) if DURATIONS.is_file() else {}
    most = config.getoption("--within")
    if most is not None:
        kept = set(chosen([item.nodeid for item in items], costs, most))
        left_out = [item for item in items if item.nodeid not in kept]
        items[:] = [item for item in items if item.nodeid in kept]
        config.hook.pytest_deselected(items=left_out)
    if hasattr(config, "workerinput"):
        totals = by_file([item.nodeid for item in items], costs)
        items.sort(key=lambda item: -totals[file_of(item.nodeid)])


def file_of(name: str) -> str:
    """The file of a test, by its name or that of its function."""
    return name.partition("::")[0]


def by_file(names: Sequence[str], costs: dict[str, float]) -> dict[str, float]:
    """The seconds of the tests of each file; see `chosen`."""
    totals: dict[str, float] = {}
    for name in names:
        cost = costs.get(name.partition("[")[0], USUAL)
        totals[file_of(name)] = totals.get(file_of(name), 0.0) + cost
    return totals


def chosen(names: Sequence[str], costs: dict[str, float], most: float) -> list[str]:
    """The tests that are run.

    Args:
        names: of all, as pytest has them, in their order.
        costs: seconds of a test by its name without parameters.
        most: seconds in all.
    """
    by_function: dict[str, list[str]] = {}
    for name in names:
        by_function.setdefault(name.partition("[")[0], []).append(name)
    of_file: dict[str, list[tuple[float, str]]] = {}
    for function, own in by_function.items():
        cost = costs.get(function, USUAL)
        ends = dict.fromkeys((own[0], own[-1]))
        of_file.setdefault(file_of(function), []).extend((cost, name) for name in ends)
    order = sorted(
        (turn, cost, name)
        for own in of_file.values()
        for turn, (cost, name) in enumerate(sorted(own, key=lambda one: one[0]))
    )
    taken: list[str] = []
    spent = 0.0
    for _, cost, name in order:
        if spent + cost > most:
            continue
        spent += cost
        taken.append(name)
    return taken
