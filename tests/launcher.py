"""Commands in processes of their own that do not pay for the imports each time.

    python tests/launcher.py

imports everything once, then reads requests from stdin, one JSON object a line (`launching.Request`
says what is in one). For each it forks a child that is the command and says its number on stdout.
A second child waits for it and writes its exit status (negative: the signal that ended it) into a
file, so that several commands can run at once.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import runpy
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

IMPORTED = (
    "foreword.runs.run",
    "foreword.cli.tables",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "sacrebleu",
    "torch.distributed",
)


def child(request: dict[str, Any]) -> None:
    """Be the command."""
    from foreword.cli import main
    from foreword.training.storage import Storage

    status = 1
    try:
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream, place in ((1, request["out"]), (2, request["err"])):
            os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), stream)
        if request["largest_file"] is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (request["largest_file"],) * 2)
        if request["keep"]:
            Storage.remove = lambda self: None  # type: ignore[method-assign]
        program = request["program"]
        sys.argv = [program, *request["arguments"]]
        if program == "foreword":
            main()
        else:
            sys.path.insert(0, str(Path(program).parent))
            runpy.run_path(program, run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(bool(end.code))
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def start(request: dict[str, Any]) -> None:
    """Be who waits for the command."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    number = os.fork()
    if number == 0:
        child(request)
    print(number, flush=True)
    status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    place = Path(request["status"])
    place.with_suffix(".part").write_text(str(status), encoding="utf-8")
    place.with_suffix(".part").rename(place)
    os._exit(0)


def serve() -> None:
    """Answer requests until stdin ends."""
    for name in IMPORTED:
        importlib.import_module(name)
    from foreword.backbone import load_backbone

    load_backbone("foreword/mini")
    print("ready", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait
    for line in sys.stdin:
        if os.fork() == 0:
            start(json.loads(line))


if __name__ == "__main__":
    serve()
