"""Families that take no prefix, by name, where the reason cannot be found out by running them.

Of all others `geometry.py` and `Backbone.wrap` find out what they do.
"""

from __future__ import annotations

from typing import Any

_NO_ATTENTION = "it has no attention, so there are no keys and values to put a prefix before"
_OWN_ATTENTION = (
    "its attention does not go through transformers' attention interface, and it has no cache"
)
UNFIT = {
    "deberta": _OWN_ATTENTION,
    "deberta-v2": _OWN_ATTENTION,
    "gpt_neo": "its local attention takes a prompt through the cache alone, and forgets it there",
    "mamba": _NO_ATTENTION,
    "mamba2": _NO_ATTENTION,
    "mpt": "its alibi biases count the padding between a prompt in the cache and the text",
    "rwkv": _NO_ATTENTION,
}
COUNT_THE_MASK = frozenset({"nllb-moe"})
"""Families whose experts look for padding in the attention's mask, and take its last columns for
the text's: with a prompt in the cache those of several rows are others."""


_INDEXER = (
    "an indexer chooses by keys of its own which tokens its attention reads, and a prompt has none "
    "there"
)


def unfit(config: Any) -> str | None:
    """Why a family is known to take no keys and values of virtual tokens; None: it is not known.

    Args:
        config: transformers' config of the model.
    """
    if getattr(config.get_text_config(), "index_topk", None):  # DeepSeek-V3.2 and its relatives
        return _INDEXER
    return UNFIT.get(config.model_type)
