"""Starts `foreword` again and again without paying for the imports each time.

A process of its own: it imports everything once, then reads requests from stdin, one JSON object a
line: `{"arguments": [...], "folder": "...", "keep": true}`. For each it forks a child that is the
command, says its number on stdout at once, and its exit status (negative: the signal that ended it)
when it is over. What the child prints goes to `<folder>/printed.txt`. With `keep` a finished run
leaves its checkpoints, so that they can be compared.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any


def child(request: dict[str, Any]) -> None:
    """Be the command."""
    from foreword.cli import main
    from foreword.training.storage import Storage

    status = 1
    try:
        os.chdir(request["folder"])
        printed = os.open("printed.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        if request["keep"]:
            Storage.remove = lambda self: None  # type: ignore[method-assign]
        sys.argv = ["foreword", *request["arguments"]]
        main()
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def serve() -> None:
    """Answer requests until stdin ends."""
    for name in (
        "foreword.runs.run",
        "foreword.cli.tables",
        "matplotlib.backends.backend_agg",
        "matplotlib.figure",
        "sacrebleu",
    ):
        importlib.import_module(name)
    from foreword.backbone import load_backbone

    load_backbone("foreword/mini")
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        Path(request["folder"]).mkdir(parents=True, exist_ok=True)
        number = os.fork()
        if number == 0:
            child(request)
        print(number, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
