"""Where PEFT is right on a family, its logits are ours; `docs/parity.md` has all families."""

from collections.abc import Iterator

import pytest

from families import by_hand, measures
from families.measures import TOLERANCE, peft_beside

PREFIX = ["gpt2", "llama", "opt", "bloom", "falcon", "gemma2", "bert", "roberta"]
EMBEDDINGS = ["gpt2", "qwen3", "bloom", "bert", "roberta", "electra", "modernbert", "t5", "bart"]


@pytest.fixture(autouse=True)
def _exactly() -> Iterator[None]:
    with by_hand.ExactFloat64():
        yield


@pytest.mark.parametrize("family", PREFIX)
def test_prefix_tuning(family) -> None:
    found = peft_beside(family, "prefix-tuning")
    assert found.seen
    assert found.gap is not None
    assert found.gap < TOLERANCE


@pytest.mark.parametrize("method", ["prompt-tuning", "p-tuning"])
@pytest.mark.parametrize("family", EMBEDDINGS)
def test_embeddings(family, method) -> None:
    found = peft_beside(family, method)
    assert found.seen
    assert found.gap is not None
    assert found.gap < TOLERANCE


@pytest.mark.parametrize("method", measures.METHODS)
def test_a_prompt_is_seen_from_beyond_a_window(method) -> None:
    """Here; in PEFT it slides out of it, and an artifact records which."""
    assert measures.backbone_of("mistral").geometry.slides
    found = peft_beside("mistral", method)
    assert found.gap is not None
    assert found.gap > 0.1
