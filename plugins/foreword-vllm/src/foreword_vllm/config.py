"""The plug-in's settings, and what of vLLM's it does not go with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from foreword_vllm.prompts import PromptError

_PLACE = "kv_connector_extra_config"
_DRAFTS_WITHOUT_CACHE = ("ngram", "ngram_gpu", "suffix")


@dataclass(frozen=True)
class Config:
    """What `kv_connector_extra_config` says.

    Attributes:
        prompts: the folder of prompts.
        memory_mb: megabytes of prompts that each worker holds.
        other_weights: whether prompts of another base model are served.
    """

    prompts: str
    memory_mb: int = 1024
    other_weights: bool = False

    @classmethod
    def read(cls, stated: Mapping[str, Any]) -> Config:
        """From what is stated.

        Raises:
            PromptError: a setting is missing, not known, or has a value that there is not.
        """
        known = {"prompts": str, "memory_mb": int, "other_weights": bool}
        for name, value in stated.items():
            if name not in known:
                close = get_close_matches(name, known, n=1)
                hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
                raise PromptError(f"{_PLACE}: there is no '{name}' ({hint})")
            kind = known[name]
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                raise PromptError(f"{_PLACE}.{name}: is {value!r}, expected {kind.__name__}")
        if not stated.get("prompts"):
            raise PromptError(
                f"{_PLACE}.prompts: name the folder that `foreword export vllm` wrote"
            )
        if stated.get("memory_mb", 1) < 1:
            raise PromptError(f"{_PLACE}.memory_mb: is {stated['memory_mb']}, expected 1 or more")
        return cls(**stated)


def check_engine(config: Any) -> None:
    """Refuse to start an engine that could not serve prompts rightly.

    Args:
        config: a `vllm.config.VllmConfig`.

    Raises:
        PromptError: one of its settings does not go with prompts; the message names it.
    """
    model, parallel = config.model_config, config.parallel_config
    drafts = config.speculative_config
    refused = {
        "model_config.use_mla: latent attention has no keys and values to which a prompt could be "
        "added": model.use_mla,
        "enable_prompt_embeds: a prompt stands before tokens; leave it out": (
            model.enable_prompt_embeds
        ),
        "decode_context_parallel_size: blocks are shared out otherwise; use tensor parallelism": (
            getattr(parallel, "decode_context_parallel_size", 1) > 1
        ),
        "prefill_context_parallel_size: blocks are shared out otherwise; use tensor parallelism": (
            getattr(parallel, "prefill_context_parallel_size", 1) > 1
        ),
        "speculative_config: a draft model has a cache of its own, where no prompt is written; use "
        "method ngram or suffix": drafts is not None and drafts.method not in _DRAFTS_WITHOUT_CACHE,
        "kv_load_failure_policy: must be 'fail', or refused requests would be answered without "
        "their prompt": config.kv_transfer_config.kv_load_failure_policy != "fail",
    }
    wrong = [reason for reason, is_so in refused.items() if is_so]
    if wrong:
        raise PromptError("\n".join(["foreword: does not go with", *(f"  - {w}" for w in wrong)]))


def check_cache(specs: list[Any]) -> None:
    """Refuse layers out of whose sight a prompt would slide, or that have another state.

    Args:
        specs: the kinds of cache that vLLM has for the model's layers.

    Raises:
        PromptError: one of them is no full attention.
    """
    for spec in specs:
        kind = type(spec).__name__
        window = getattr(spec, "sliding_window", None) or getattr(
            spec, "attention_chunk_size", None
        )
        if kind != "FullAttentionSpec" or window:
            raise PromptError(
                f"the base model has layers with {kind}{f' of {window} tokens' if window else ''}; "
                "prompts are served where all layers see the whole text, by full attention"
            )
    if len(specs) != 1:
        raise PromptError(
            f"the base model has {len(specs)} kinds of layers; prompts are served where all layers "
            "are alike"
        )
