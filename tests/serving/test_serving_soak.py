"""Ten minutes at 80 % of what a server can do: its memory stays, no place in it is lost.

`python tests/serving/test_serving_soak.py [SECONDS]` does the same and prints the figures.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from running import BASE, Client, running

from foreword.backbone import load_backbone
from stored_prompts import prefix, soft, store, writes

SECONDS, LOAD, ROWS = 600, 0.8, 16
PROMPTS = ("deep", "deeper", "soft", "changing")


def resident() -> float:
    """Megabytes of this process: server and clients."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * 4096 / 1e6


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
            answer = self.client.complete(**body, stream=what == "stream")
            what = f"{what} {answer.status}"
            if what.startswith("stream"):
                assert answer.events
        with self.counting:
            self.statuses[what] += 1

    def _leave(self, body: dict[str, Any]) -> None:
        import http.client

        line = http.client.HTTPConnection("127.0.0.1", self.client.port, timeout=60)
        content = json.dumps({**body, "stream": True})
        line.request("POST", "/v1/completions", content, {"Content-Type": "application/json"})
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
    dice, number = random.Random(0), 0
    with (
        running(backbone, prompt=prompts, rows=ROWS) as client,
        ThreadPoolExecutor(4 * ROWS) as pool,
    ):
        clients = Clients(client)
        begun = due = time.monotonic()
        most, measured, replaced, waiting = 0.0, 0.0, 0, []
        while time.monotonic() - begun < seconds:
            if not most or time.monotonic() - measured > seconds / 10:
                for one in waiting:
                    one.result()
                waiting, most = [], clients.most(pool)
                measured = due = time.monotonic()
                memory.append(resident())
                client.served.store.add("changing", others[replaced % 2])
                replaced += 1
            due += dice.expovariate(LOAD * most)
            time.sleep(max(0.0, due - time.monotonic()))
            waiting.append(pool.submit(clients.ask, number))
            number += 1
        for one in waiting:
            one.result()
        engine = client.served.engine
        end = time.monotonic() + 10
        while engine.active and time.monotonic() < end:
            time.sleep(0.01)
        memory.append(resident())
        return {
            "seconds": round(time.monotonic() - begun),
            "requests": sum(clients.statuses.values()),
            "by kind": dict(sorted(clients.statuses.items())),
            "tokens": engine.counts.tokens,
            "replaced prompts": replaced,
            "megabytes": [round(one) for one in memory],
            "later ÷ earlier": statistics.mean(memory[-4:]) / statistics.mean(memory[2:6]),
            "active": engine.active,
            "waiting": engine.waiting,
            "failed steps": engine.counts.failed_steps,
        }


def check(found: dict[str, Any]) -> None:
    assert (found["active"], found["waiting"], found["failed steps"]) == (0, 0, 0)
    assert all(kind == "leaves" or kind.endswith(" 200") for kind in found["by kind"])
    assert found["later ÷ earlier"] < 1.05


@pytest.mark.soak
def test_ten_minutes_at_80_percent(tmp_path: Path) -> None:
    check(soaked(tmp_path, SECONDS))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        figures = soaked(Path(place), float(sys.argv[1]) if sys.argv[1:] else SECONDS)
    print(json.dumps(figures, indent=2, ensure_ascii=False))
    check(figures)
