"""What each test takes, from a whole run, for `pytest --within` (tests/quick.py).

    pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not soak" --junitxml run.xml
    python scripts/durations_of_tests.py run.xml

Writes tests/durations.json: seconds of every test function that takes longer than most do, the mean
over its parameters, what it sets up included.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from xml.etree import ElementTree

TESTS = Path(__file__).resolve().parent.parent / "tests"
LEAST = 0.05
"""Seconds below which a test is not named."""


def main(file: str) -> int:
    """Read a run, and write what is to be known of it."""
    seconds: dict[str, list[float]] = {}
    for case in ElementTree.parse(file).iter("testcase"):
        if not case.get("classname"):  # a whole module that was skipped
            continue
        name = case.get("name", "").partition("[")[0]
        path = function_of(case.get("classname", ""), name)
        seconds.setdefault(path, []).append(float(case.get("time", 0)))
    means = {name: round(statistics.fmean(own), 2) for name, own in sorted(seconds.items())}
    slow = {name: mean for name, mean in means.items() if mean >= LEAST}
    text = json.dumps(slow, indent=0, ensure_ascii=False)
    (TESTS / "durations.json").write_text(text + "\n", encoding="utf-8")
    print(f"{len(slow)} of {len(means)} tests take {LEAST} s or more")
    return 0


def function_of(classname: str, name: str) -> str:
    """A test's name as pytest has it: `tests/data/test_rows.py::test_one`."""
    *folders, module = classname.split(".")
    inside: list[str] = []
    if not module.startswith("test_"):  # a class of tests in a module
        inside = [module]
        *folders, module = folders
    return "::".join(["/".join([*folders, f"{module}.py"]), *inside, name])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give the file of a run: pytest --junitxml FILE")
    sys.exit(main(sys.argv[1]))
