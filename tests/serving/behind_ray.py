"""Two replicas of `launch/ray_serve.py` on this machine: asked, given a prompt, one of them killed.

    pip install 'ray[serve]'
    python tests/serving/behind_ray.py ARTIFACT

ARTIFACT is a prompt for foreword/mini that writes. What came of it is printed as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import openai
import psutil

TEXT = "name : Silver Piper | type : bird ->"
PORT = 8123
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120",
}
"""Of Ray: no word to its makers, workers as important as all else, patience with a busy machine."""
Answer = tuple[float, str]


def replicas() -> list[int]:
    """The processes that this one's Ray runs replicas in."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has ended meanwhile
            if "ServeReplica" in " ".join(one.cmdline()):
                found.append(one.pid)
    return found


def until(condition: Callable[[], bool], seconds: float) -> float:
    """Seconds after which something is the case."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() > begun + seconds:
            raise TimeoutError("it did not come to pass")
        time.sleep(0.2)
    return round(time.monotonic() - begun, 1)


def main(artifact: Path) -> dict[str, Any]:
    """Run it all."""
    os.environ.update(QUIET)
    sys.path.insert(0, str(Path(__file__).parents[2] / "launch"))
    import ray
    import ray_serve
    from ray import serve

    folder = Path(tempfile.mkdtemp())
    prompts = folder / "prompts"
    shutil.copytree(artifact, prompts / "birds")
    config = folder / "foreword.yaml"
    config.write_text(
        f"backbone: foreword/mini\nprompts: {prompts}\nrefresh: 2\n", encoding="utf-8"
    )
    api = openai.OpenAI(base_url=f"http://127.0.0.1:{PORT}/v1", api_key="any", max_retries=0)

    def ask(model: str = "birds") -> str:
        answer = api.completions.create(model=model, prompt=TEXT, max_tokens=12, temperature=0)
        return answer.choices[0].text

    def status(model: str) -> int:
        try:
            ask(model)
        except openai.APIStatusError as error:
            return error.status_code
        return 200

    ray.init(num_cpus=2, include_dashboard=False)
    try:
        serve.start(http_options={"port": PORT})
        options = ray_serve.Options(config=config, replicas=2, cpus=0.5)
        serve.run(ray_serve.app(options))
        before = replicas()
        with ThreadPoolExecutor(8) as pool:
            answers = Counter(pool.map(lambda _: ask(), range(50)))
        shutil.copytree(artifact, prompts / "later")
        first = until(lambda: 200 in {status("later") for _ in range(8)}, 60)
        both = until(lambda: {status("later") for _ in range(16)} == {200}, 60)

        told: list[Answer] = []
        stopped = threading.Event()

        def go_on() -> None:
            while not stopped.is_set():
                told.append((time.monotonic(), str(status("birds"))))

        asking = [threading.Thread(target=go_on) for _ in range(4)]
        for thread in asking:
            thread.start()
        time.sleep(3)
        os.kill(before[0], signal.SIGKILL)
        killed = time.monotonic()
        again = until(lambda: len(set(replicas()) - {before[0]}) == 2, 120)
        time.sleep(5)
        stopped.set()
        for thread in asking:
            thread.join()
        late = [at - killed for at, one in told if at > killed and one != "200"]
        return {
            "versions": {"ray": ray.__version__, "openai": openai.__version__},
            "replicas": len(before),
            "answers": list(answers.values()),
            "seconds until a replica has the prompt": first,
            "seconds until both have it": first + both,
            "after the kill": dict(Counter(one for at, one in told if at > killed)),
            "last failure after the kill": round(max(late, default=0.0), 2),
            "seconds until two replicas run again": again,
        }
    finally:
        serve.shutdown()
        ray.shutdown()
        shutil.rmtree(folder)


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
