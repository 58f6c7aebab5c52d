"""foreword's trained prompts served by vLLM: one model, many prompts, every batch mixed.

A KV connector is the home of the prompts (`connector.py`): a request that names one starts with as
many tokens as the prompt has virtual ones, and their keys and values are written into the request's
blocks before they are first read. An ASGI middleware (`middleware.py`) makes a prompt's name a
model's name. Prompts lie in a folder that `foreword export vllm` writes.

Imports neither foreword nor transformers, and vLLM only where vLLM has imported it.
"""

from foreword_vllm.prompts import Prompt, PromptError, read_prompt

__all__ = ["CONNECTOR", "Prompt", "PromptError", "read_prompt", "register"]

CONNECTOR = "ForewordConnector"
"""The connector's name in vLLM's `--kv-transfer-config`."""


def register() -> None:
    """Make the connector known by its name: vLLM calls this in each of its processes."""
    from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory

    try:
        KVConnectorFactory.register_connector(CONNECTOR, "foreword_vllm.connector", CONNECTOR)
    except ValueError:  # it is known already
        return
