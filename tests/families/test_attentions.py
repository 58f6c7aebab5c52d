"""The same logits and answers from every implementation of attention that a family runs with."""

from collections.abc import Iterator

import pytest
import torch

from conftest import assert_close, mini_tokens
from families import by_hand, measures
from families.catalogue import FAMILIES, plain_model, wrapped
from families.measures import TOLERANCE, backbone_of, gap_of_attention
from foreword.backbone import Backbone, Call, Decoding, generate
from foreword.errors import BackboneError

FLEX = ["albert", "bert", "modernbert", "bart", "t5", "llama", "mistral", "gemma2"]
exactly = pytest.mark.usefixtures("_exactly")


@pytest.fixture
def _exactly() -> Iterator[None]:
    with by_hand.ExactFloat64():
        yield


@exactly
@pytest.mark.parametrize("family", FAMILIES)
def test_eager(family) -> None:
    if backbone_of(family).geometry.through == "cache":
        with pytest.raises(BackboneError, match=r"backbone\.attention: .* cannot use 'eager'"):
            gap_of_attention(family, "eager")
    else:
        assert gap_of_attention(family, "eager") < TOLERANCE


@exactly
@pytest.mark.parametrize("family", FLEX)
def test_flex(family) -> None:
    """Its block masks are widened by the prompt, its position biases stand for every row."""
    assert gap_of_attention(family, "flex") < TOLERANCE


@exactly
@pytest.mark.parametrize("family", ["llama", "mistral", "t5"])
def test_answers_with_flex(family) -> None:
    one = backbone_of(family)
    injection = measures.injection_of(one, "prefix-tuning")
    prompt = injection.prompt_of(measures.random_rows(injection))
    rule = measures.rules(one, injection)[0]
    layout = measures.laid_out(one, injection, rule, (0, 1, 2), "left")
    how = Decoding(max_new_tokens=5)
    with measures.uncompiled():
        other = Backbone.wrap(plain_model(family), mini_tokens(), attention="flex")
        call = Call(layout, prompt)
        assert generate(other, call, how) == generate(one, call, how)


@pytest.mark.parametrize("family", ["gpt2", "switch_transformers"])
def test_what_transformers_does_not_compute_with_flex_is_refused(family) -> None:
    with pytest.raises(BackboneError, match=r"backbone\.attention: .* cannot use 'flex'"):
        Backbone.wrap(plain_model(family), mini_tokens(), attention="flex")


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # flex attention's own
def test_flex_compiled() -> None:
    """Some minutes of compiling on a CPU."""
    one = wrapped("bert", torch.float32)
    other = Backbone.wrap(plain_model("bert", torch.float32), mini_tokens(), attention="flex")
    injection = measures.injection_of(one, "prefix-tuning")
    prompt = injection.prompt_of(measures.random_rows(injection).float())
    layout = measures.laid_out(one, injection, "keep", (0, 1, 2), "right")
    with torch.no_grad():
        expected, found = one.logits(Call(layout, prompt)), other.logits(Call(layout, prompt))
    assert_close(found[layout.attention_mask], expected[layout.attention_mask])
