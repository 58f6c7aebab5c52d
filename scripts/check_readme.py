"""Every `foreword ...` and `make ...` command in README.md and docs/ names real verbs and options.

Commands are read from fenced code blocks; nothing is run.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import typer
import typer.main

from foreword.cli.app import app

MAKE_TARGETS = set(re.findall(r"^([a-z-]+):", Path("Makefile").read_text(encoding="utf-8"), re.M))


def commands(file: Path) -> Iterator[str]:
    """The shell lines of a Markdown file's fenced blocks, continuations joined."""
    text = file.read_text(encoding="utf-8")
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S):
        if language not in ("", "sh", "bash", "console"):
            continue
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            command = line.removeprefix("$ ").strip()
            if re.match(r"(?:\S*/)?(foreword|make)\s", command):
                yield command


def problem(line: str) -> str | None:
    """What is wrong with a command line, if anything."""
    words = shlex.split(line, comments=True)
    words = words[: next((i for i, w in enumerate(words) if w in ("|", ">", "&&", ";")), None)]
    if words[0] == "make":
        unknown = [w for w in words[1:] if "=" not in w and w not in MAKE_TARGETS]
        return f"no such make target: {unknown[0]}" if unknown else None
    command, rest = typer.main.get_command(app), words[1:]
    while (verbs := getattr(command, "commands", None)) is not None:  # `import` has a verb below it
        if rest and rest[0].startswith("-"):
            return None
        if not rest or rest[0] not in verbs:
            given = " ".join([*words[1 : len(words) - len(rest)], *rest[:1]])
            return f"no such verb: {given}" if rest else f"a verb is missing after {given}"
        command, rest = verbs[rest[0]], rest[1:]
    try:
        command.make_context(command.name, rest)
    except (click.exceptions.Exit, typer.Exit):
        return None
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def main() -> int:
    """Print each command that does not parse; 1 if there is one."""
    wrong = count = 0
    for file in [Path("README.md"), *sorted(Path("docs").glob("**/*.md"))]:
        for command in commands(file):
            count += 1
            complaint = problem(command)
            if complaint:
                wrong += 1
                print(f"{file}: {command}: {complaint}", file=sys.stderr)
    print(f"{count - wrong} of {count} documented commands parse")
    return 1 if wrong or not count else 0


if __name__ == "__main__":
    sys.exit(main())
