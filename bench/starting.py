"""How much a command does before its first answer and its first step, beside what it cannot do
without: importing torch, transformers and the class of the model.

    python bench/starting.py --rounds 5 --out bench/results/starting-cpu.json

Each start is a process of its own, and what is measured is its processor time, user's and system's,
from its beginning to its end; a training ends itself after its first step. All starts take turns,
and a figure is a ratio to the imports of the same round. Compiled Python files are kept, as an
installed package's are; one round before the first writes them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes" / "quickstart.yaml"
IMPORTS = "import torch, transformers; from transformers import GPT2LMHeadModel"
FIRST_STEP = """
import os, sys
from foreword.training import loop
one = loop._Loop.one
def first(*given):
    one(*given)
    sys.stdout.flush()
    os._exit(0)
loop._Loop.one = first
from foreword.cli import main
sys.argv = ["foreword", "train", *sys.argv[1:]]
main()
"""
TEXT = "name : Silver Piper | type : bird ->"
PACKAGES = ("torch", "transformers", "peft", "accelerate", "torchao", "pydantic", "typer")
FIRST = "imports"
"""What the others are divided by."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="default %(default)s")
    parser.add_argument("--only", action="append", help="a start of the table; may be repeated")
    parser.add_argument("--out", type=Path, help="write the figures there, as JSON")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        starts = {
            start: command
            for start, command in _starts(folder).items()
            if start == FIRST or not options.only or start in options.only
        }
        environment = {
            **os.environ,
            "PYTHONPYCACHEPREFIX": str(folder / "compiled"),
            "OMP_NUM_THREADS": "1",
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        if any(str(folder / "run") in command for command in starts.values()):
            _run(_trained(folder), environment)
        seconds: dict[str, list[float]] = {start: [] for start in starts}
        for number in range(options.rounds + 1):
            for start, command in starts.items():
                taken = _run([one.replace("ROUND", str(number)) for one in command], environment)
                if number:
                    seconds[start].append(taken)
    rows = {start: _figures(taken, seconds[FIRST]) for start, taken in seconds.items()}
    print("| | of the imports | least | most | seconds |")
    print("|---|--:|--:|--:|--:|")
    for start, row in rows.items():
        ratios = f"{row['median']:.2f} | {row['least']:.2f} | {row['most']:.2f}"
        print(f"| {start} | {ratios} | {row['seconds']:.2f} |")
    if options.out is not None:
        made = {
            "python": platform.python_version(),
            "packages": {one: version(one) for one in PACKAGES if _installed(one)},
            "rounds": options.rounds,
            "command": "python bench/starting.py " + " ".join(arguments or sys.argv[1:]),
            "divided_by": IMPORTS,
            "starts": rows,
        }
        options.out.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")


def _starts(folder: Path) -> dict[str, list[str]]:
    python, own = [sys.executable, "-c"], [sys.executable, "-m", "foreword"]
    run, out, cpu = str(folder / "run"), str(folder / "run-ROUND"), ["--device", "cpu"]
    return {
        FIRST: [*python, IMPORTS],
        "imports, again": [*python, IMPORTS],
        "foreword --help": [*own, "--help"],
        "foreword show": [*own, "show", run],
        "import foreword.session": [*python, "import foreword.session"],
        "foreword generate, one text": [*own, "generate", run, "--text", TEXT, *cpu],
        "foreword train, first step": [*python, FIRST_STEP, str(RECIPE), "--out", out, *cpu],
    }


def _trained(folder: Path) -> list[str]:
    """A run that `generate` has an artifact of."""
    settings = ["training.steps=1", "evaluation.backbone_alone=false", "task.limits.test=2"]
    words = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-m", "foreword", "train", str(RECIPE), "--device", "cpu"]
    return [*command, "--out", str(folder / "run"), *words]


def _run(command: Sequence[str], environment: dict[str, str]) -> float:
    """Seconds of a processor that a process takes.

    Raises:
        RuntimeError: it fails.
    """
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{' '.join(command)}: {said.read().decode()[-2000:]}")
    return used.ru_utime + used.ru_stime


def _figures(taken: Sequence[float], imports: Sequence[float]) -> dict[str, Any]:
    ratios = [own / other for own, other in zip(taken, imports, strict=True)]
    return {
        "median": round(statistics.median(ratios), 3),
        "least": round(min(ratios), 3),
        "most": round(max(ratios), 3),
        "seconds": round(statistics.median(taken), 3),
    }


def _installed(package: str) -> bool:
    try:
        version(package)
    except ModuleNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
