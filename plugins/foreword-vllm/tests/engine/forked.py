"""vLLM, imported once, and engines that each live and die in a process of their own."""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CASES = os.environ.get("FOREWORD_VLLM_CASES", "")
"""What `cases.py` wrote."""
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
if CASES:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
pytest.importorskip("vllm", reason="vLLM is not here; `make test-vllm` sets up where it is")


def cases() -> dict[str, Any]:
    """The cases, or the test is skipped."""
    if not CASES:
        pytest.skip("FOREWORD_VLLM_CASES is not set; `make test-vllm` makes the cases")
    told: dict[str, Any] = json.loads((Path(CASES) / "cases.json").read_text())
    return told


def run(work: Callable[..., Any], *given: Any, seconds: float = 600) -> Any:
    """What a function returns in a forked process, as JSON.

    Args:
        work: called there; what it raises fails the test.
        given: its arguments.
        seconds: after which the process is ended.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"

        def child() -> None:
            try:
                answer.write_text(json.dumps({"returned": work(*given)}))
            except BaseException:
                answer.write_text(json.dumps({"raised": traceback.format_exc()}))
            os._exit(0)

        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join(seconds)
        if process.is_alive():
            process.kill()
            pytest.fail(f"an engine did not end within {seconds:.0f} seconds")
        assert answer.exists(), f"an engine died with exit status {process.exitcode}"
        told = json.loads(answer.read_text())
    if "raised" in told:
        raise AssertionError(told["raised"])
    return told["returned"]


def engine(model: str, prompts: str, **settings: Any) -> Any:
    """An engine with the connector, found by its entry point."""
    from vllm import LLM

    extra = {"prompts": prompts, **settings.pop("extra", {})}
    usual = {
        "dtype": "float32",
        "enforce_eager": True,
        "max_model_len": 512,
        "max_num_seqs": 32,
        "block_size": 32,
        "enable_prefix_caching": True,
    }
    return LLM(
        model=model,
        kv_transfer_config={
            "kv_connector": "ForewordConnector",
            "kv_role": "kv_consumer",
            "kv_connector_extra_config": extra,
        },
        **{**usual, **settings},
    )
