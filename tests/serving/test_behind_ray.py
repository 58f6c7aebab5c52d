"""`launch/ray_serve.py`, where Ray Serve is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import behind_ray
import pytest

from foreword.backbone import Backbone
from stored_prompts import prefix, store, writes


@pytest.mark.slow
@pytest.mark.skipif(find_spec("grpc_reflection") is None, reason="needs ray[serve]")
def test_two_replicas(mini: Backbone, tmp_path: Path) -> None:
    artifact = store(tmp_path / "artifact", mini, prefix(), writes())
    done = subprocess.run(
        [sys.executable, behind_ray.__file__, str(artifact)],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["replicas"] == 2
    assert told["answers"] == [50], "all of them the same text"
    after = told["after the kill"]
    assert after["200"] > 20
    assert sum(after.values()) - after["200"] <= 4, "what the killed one was answering, and no more"
