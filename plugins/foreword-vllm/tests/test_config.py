"""Settings of the plug-in, and engines that could not serve prompts rightly."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from foreword_vllm import PromptError
from foreword_vllm.config import Config, check_cache, check_engine

WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "name the folder"),
    ({"prompts": ""}, "name the folder"),
    ({"prompts": 3}, r"prompts: is 3, expected str"),
    ({"prompt": "x"}, "there is no 'prompt'.*did you mean 'prompts'"),
    ({"prompts": "x", "memory_mb": 0}, "expected 1 or more"),
    ({"prompts": "x", "memory_mb": True}, "expected int"),
    ({"prompts": "x", "other_weights": "yes"}, "expected bool"),
]


@pytest.mark.parametrize(("stated", "why"), WRONG)
def test_wrong_settings(stated, why) -> None:
    with pytest.raises(PromptError, match=why):
        Config.read(stated)


def test_settings() -> None:
    assert Config.read({"prompts": "x"}) == Config("x", 1024, False)


def engine(**changed: Any) -> Any:
    parts = {
        "model_config": {"use_mla": False, "enable_prompt_embeds": False},
        "parallel_config": {},
        "kv_transfer_config": {"kv_load_failure_policy": "fail"},
        "speculative_config": None,
    } | changed
    return SimpleNamespace(
        **{k: SimpleNamespace(**v) if isinstance(v, dict) else v for k, v in parts.items()}
    )


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"model_config": {"use_mla": True, "enable_prompt_embeds": False}}, "latent attention"),
    ({"model_config": {"use_mla": False, "enable_prompt_embeds": True}}, "enable_prompt_embeds"),
    ({"parallel_config": {"decode_context_parallel_size": 2}}, "decode_context_parallel_size"),
    ({"parallel_config": {"prefill_context_parallel_size": 2}}, "prefill_context_parallel_size"),
    ({"kv_transfer_config": {"kv_load_failure_policy": "recompute"}}, "kv_load_failure_policy"),
    ({"speculative_config": {"method": "eagle"}}, "a draft model"),
]


@pytest.mark.parametrize(("changed", "why"), REFUSED)
def test_engines_that_do_not_go_with_prompts(changed, why) -> None:
    with pytest.raises(PromptError, match=why):
        check_engine(engine(**changed))


def test_engines_that_do() -> None:
    check_engine(engine())
    check_engine(engine(speculative_config={"method": "ngram"}))


class FullAttentionSpec(SimpleNamespace):
    """By the name that vLLM has for it."""


class SlidingWindowSpec(SimpleNamespace):
    """Likewise."""


def test_all_layers_see_the_whole_text() -> None:
    full = FullAttentionSpec(sliding_window=None, attention_chunk_size=None)
    check_cache([full])
    for specs, why in (
        ([SlidingWindowSpec(sliding_window=8)], "SlidingWindowSpec of 8 tokens"),
        ([FullAttentionSpec(sliding_window=8)], "of 8 tokens"),
        ([FullAttentionSpec(attention_chunk_size=4)], "of 4 tokens"),
        ([full, full], "2 kinds of layers"),
        ([], "0 kinds"),
    ):
        with pytest.raises(PromptError, match=why):
            check_cache(specs)
