"""Ten minutes at 80 % of what a server can do: its memory stays, no place in it is lost.

What it can do is measured anew every half minute, so that a machine which does other work meanwhile
changes the load and not its share.

`python tests/serving/test_serving_soak.py [SECONDS]` does the same and prints the figures.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from running import Client

from foreword.backbone import load_backbone
from foreword.cli.serving import KEY
from stored_prompts import prefix, soft, store, writes

SECONDS, LOAD, ROWS, MEASURED = 600, 0.8, 16, 20
ADMIN, BASE = "key-of-the-soak", "foreword/mini"
PROMPTS = ("deep", "deeper", "soft", "changing")


@contextmanager
def served(folder: Path, prompts: dict[str, Path]) -> Iterator[tuple[Client, int]]:
    """`foreword serve` as a process of its own: a client, and its number."""
    named = [argument for name, at in prompts.items() for argument in ("--prompt", f"{name}={at}")]
    command = [sys.executable, "-m", "foreword", "serve", "foreword/mini", *named, "--port", "0"]
    command += ["--device", "cpu", "--rows", str(ROWS), "--roots", str(folder)]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, KEY: ADMIN}
    )
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        while "serving 'foreword/mini'" not in line:
            assert line, "the server did not start"
            line = process.stderr.readline()
        port = int(line.split("127.0.0.1:")[1].split()[0])
        yield Client(None, port, None), process.pid  # type: ignore[arg-type]
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def resident(pid: int) -> float:
    """Megabytes of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def gauges(client: Client) -> dict[str, float]:
    """What `/metrics` says, by name; those of several models together."""
    found: dict[str, float] = defaultdict(float)
    for line in client.ask("GET", "/metrics", key=ADMIN).content.decode().splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name.partition("{")[0]] += float(value)
    return found


class Clients:
    """Many clients, of which some read a stream and some leave in the middle of it."""

    def __init__(self, client: Client) -> None:
        self.client, self.statuses = client, Counter[str]()
        self.counting = threading.Lock()

    def ask(self, number: int, *, plainly: bool = False) -> None:
        dice = random.Random(number)
        body = {
            "model": dice.choice((*PROMPTS, BASE)),
            "prompt": f"name : {dice.choice('ABCDEF') * dice.randint(1, 30)} | type : bird",
            "max_tokens": dice.randint(4, 40),
            "temperature": dice.choice((0, 1)),
            "seed": number,
        }
        what = "whole" if plainly else dice.choice(("whole", "whole", "stream", "leaves"))
        if what == "leaves":
            self._leave(body)
        else:
            answer = self.client.complete(**body, key=ADMIN, stream=what == "stream")
            what = f"{what} {answer.status}"
            if what.startswith("stream"):
                assert answer.events
        with self.counting:
            self.statuses[what] += 1

    def _leave(self, body: dict[str, Any]) -> None:
        import http.client

        line = http.client.HTTPConnection("127.0.0.1", self.client.port, timeout=60)
        content = json.dumps({**body, "stream": True})
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {ADMIN}"}
        line.request("POST", "/v1/completions", content, headers)
        line.getresponse().readline()
        line.close()

    def most(self, pool: ThreadPoolExecutor) -> float:
        """Requests a second that are answered where there are always enough."""
        begun, many = time.monotonic(), 3 * ROWS
        for one in [pool.submit(self.ask, n, plainly=True) for n in range(many)]:
            one.result()
        return many / (time.monotonic() - begun)


def soaked(folder: Path, seconds: float) -> dict[str, Any]:
    """Run it; the figures."""
    backbone = load_backbone("foreword/mini", device="cpu")
    kinds = (prefix(10), prefix(20), soft(8), prefix(5))
    prompts = {
        name: store(folder / name, backbone, method, writes(), seed=n)
        for n, (name, method) in enumerate(zip(PROMPTS, kinds, strict=True))
    }
    others = [store(folder / f"new{n}", backbone, prefix(5), writes(), seed=9 + n) for n in (0, 1)]
    memory: list[float] = []
    dice, number, replaced, measured = random.Random(0), 0, 0, 0.0
    waiting: list[Future[None]] = []
    with served(folder, prompts) as (client, pid), ThreadPoolExecutor(4 * ROWS) as pool:
        clients = Clients(client)
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            if not measured or time.monotonic() - measured > seconds / MEASURED:
                for one in waiting:
                    one.result()
                waiting, most = [], clients.most(pool)
                measured = due = time.monotonic()
                memory.append(resident(pid))
                body = {"name": "changing", "folder": str(others[replaced % 2])}
                assert client.ask("POST", "/v1/prompts", body, key=ADMIN).status in (200, 201)
                replaced += 1
            due += dice.expovariate(LOAD * most)
            time.sleep(max(0.0, due - time.monotonic()))
            waiting.append(pool.submit(clients.ask, number))
            number += 1
        for one in waiting:
            one.result()
        end = time.monotonic() + 10
        while gauges(client)["foreword_active"] and time.monotonic() < end:
            time.sleep(0.1)
        memory.append(resident(pid))
        numbers = gauges(client)
    half = len(memory) // 2
    return {
        "seconds": round(time.monotonic() - begun),
        "requests": sum(clients.statuses.values()),
        "by kind": dict(sorted(clients.statuses.items())),
        "tokens": int(numbers["foreword_tokens_total"]),
        "replaced prompts": replaced,
        "megabytes": [round(one) for one in memory],
        "last ÷ half time": memory[-1] / memory[half],
        "active": int(numbers["foreword_active"]),
        "waiting": int(numbers["foreword_waiting"]),
        "failed steps": int(numbers["foreword_failed_steps_total"]),
    }


def check(found: dict[str, Any]) -> None:
    assert (found["active"], found["waiting"], found["failed steps"]) == (0, 0, 0)
    assert all(kind == "leaves" or kind.endswith(" 200") for kind in found["by kind"])
    assert found["tokens"] > found["requests"]
    assert found["last ÷ half time"] < 1.03


@pytest.mark.soak
def test_ten_minutes_at_80_percent(tmp_path: Path) -> None:
    check(soaked(tmp_path, SECONDS))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        figures = soaked(Path(place), float(sys.argv[1]) if sys.argv[1:] else SECONDS)
    print(json.dumps(figures, indent=2, ensure_ascii=False))
    check(figures)
