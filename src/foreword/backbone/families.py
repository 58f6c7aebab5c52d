"""Families that are refused by name, because the reason cannot be found out by running them.

All others are accepted by what they do: `geometry.py` and `Backbone.wrap` find that out.
"""

from __future__ import annotations

from typing import Any

from foreword.errors import BackboneError

_NO_ATTENTION = "it has no attention, so there are no keys and values to put a prefix before"
_OWN_ATTENTION = (
    "its attention does not go through transformers' attention interface, and it has no cache"
)
REFUSED = {
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


def refuse_known(config: Any) -> None:
    """Raise BackboneError for a family that is known not to work, with the reason.

    Args:
        config: transformers' config of the model.
    """
    reason = REFUSED.get(config.model_type)
    if getattr(config.get_text_config(), "index_topk", None):  # DeepSeek-V3.2 and its relatives
        reason = _INDEXER
    if reason is not None:
        raise BackboneError(
            f"backbone family '{config.model_type}' cannot carry a prompt: {reason}. "
            "Families that work: docs/families.md"
        )
