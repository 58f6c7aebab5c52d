"""Decoding of every family that writes, against a loop without a cache, one row at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from conftest import one_of_each
from families import by_hand, measures
from families.catalogue import DECODERS, ENCODER_DECODERS
from families.measures import LENGTH, SOURCES, START, backbone_of
from foreword.axes.injection import Embeddings, Injection, KeysValues
from foreword.axes.placement import Prefix
from foreword.backbone import Backbone, Call, Decoding, Prompt, generate
from foreword.backbone.layout import PositionRule
from foreword.common.sites import Site
from foreword.errors import UserError
from foreword.methods import PrefixTuning
from foreword.tuned.compose import compose

NEW = 6
BEGIN = (START, 5)
"""A start token, and one that the tokenizer puts before every text."""
Choose = Callable[[Tensor, Sequence[int]], int]


@pytest.fixture(autouse=True)
def _exactly() -> Iterator[None]:
    with by_hand.ExactFloat64():
        yield


class Case:
    """A backbone with a prompt, and where real text stands."""

    def __init__(
        self, backbone: Backbone, injection: Injection, rule: PositionRule | None = None
    ) -> None:
        g = backbone.geometry
        self.backbone = backbone
        self.prompt: Prompt | None = injection.prompt_of(measures.random_rows(injection) * 0.5)
        self.place = Prefix(
            LENGTH,
            rule or measures.rules(backbone, injection)[0],
            injection.columns(LENGTH),
            BEGIN if g.kind == "encoder-decoder" else None,
        )

    def generate(self, how: Decoding, sources: Sequence[list[int]] = SOURCES) -> list[list[int]]:
        layout = self.place.layout(sources, side="left")
        return generate(self.backbone, Call(layout, self.prompt), how)

    def next_logits(self, source: list[int], new: list[int]) -> Tensor:
        """What comes after an answer so far, by a pass over everything: `[vocabulary]`."""
        if self.place.begin is None:
            layout = self.place.layout([source + new])
        else:
            layout = self.place.layout([source], [new])
        with torch.no_grad():
            return self.backbone.logits(Call(layout, self.prompt))[0, -1]

    def without_cache(self, source: list[int], choose: Choose | None = None) -> list[int]:
        new: list[int] = []
        for _ in range(NEW):
            logits = self.next_logits(source, new)
            token = choose(logits, new) if choose else int(logits.argmax())
            if token == self.backbone.tokens.eos_id:
                break
            new.append(token)
        return new


def check_greedy(case: Case) -> None:
    expected = [case.without_cache(source) for source in SOURCES]
    assert case.generate(Decoding(max_new_tokens=NEW)) == expected
    assert case.generate(Decoding(max_new_tokens=NEW), SOURCES[1:2]) == expected[1:2]


WRITERS = [
    (family, method)
    for family in (*DECODERS, *ENCODER_DECODERS)
    for method in ("prefix-tuning", "prompt-tuning")
]


@pytest.mark.parametrize(("family", "method"), one_of_each(WRITERS, 1))
def test_greedy(family, method) -> None:
    backbone = backbone_of(family)
    check_greedy(Case(backbone, measures.injection_of(backbone, method)))


SITES: list[Mapping[Site, Sequence[int]]] = [
    {"encoder": (0, 1)},
    {"decoder": (0, 1, 2)},
    {"cross": (0, 1, 2)},
    {"decoder": (1,), "cross": (0, 2)},
]


@pytest.mark.parametrize("layers", SITES, ids=str)
@pytest.mark.parametrize("family", ["bart", "m2m_100", "t5"])
def test_greedy_with_a_prefix_at_some_sites(family, layers) -> None:
    backbone = backbone_of(family)
    check_greedy(Case(backbone, KeysValues(backbone.geometry, layers)))


@pytest.mark.parametrize("family", ["bart", "m2m_100", "t5"])
def test_greedy_with_positions_after_the_decoders_prefix(family) -> None:
    backbone = backbone_of(family)
    layers = range(backbone.geometry.sites["decoder"].layers)
    check_greedy(Case(backbone, KeysValues(backbone.geometry, {"decoder": layers}), "shift"))


@pytest.mark.parametrize("sites", [("decoder",), ("encoder", "decoder")], ids="-".join)
@pytest.mark.parametrize("family", ["bart", "m2m_100", "t5"])
def test_greedy_with_embeddings_in_the_decoder(family, sites) -> None:
    backbone = backbone_of(family)
    check_greedy(Case(backbone, Embeddings(backbone, sites)))


RULES = [(family, rule) for family in DECODERS for rule in ("shift", "keep")]


@pytest.mark.parametrize(("family", "rule"), one_of_each(RULES, 1))
def test_greedy_with_a_prefix_at_some_layers(family, rule) -> None:
    """It does not lie in the cache, whose layers are all of one length; one that can lie nowhere
    else is refused."""
    backbone = backbone_of(family)
    if backbone.geometry.through == "cache":
        options = PrefixTuning(name="prefix-tuning", layers=(1,))
        with pytest.raises(UserError, match="through its cache alone, at all layers"):
            compose(backbone, options)
        return
    check_greedy(Case(backbone, KeysValues(backbone.geometry, {"decoder": (1,)}), rule))


def beams_without_cache(case: Case, source: list[int], count: int, penalty: float) -> list[int]:
    """The likeliest of `count` beams of NEW tokens each."""
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    for _ in range(NEW):
        grown = []
        for score, new in beams:
            best = case.next_logits(source, new).log_softmax(-1).topk(count)
            for gain, token in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                grown.append((score + gain, [*new, token]))
        beams = sorted(grown, reverse=True)[:count]
        assert all(case.backbone.tokens.eos_id not in new for _, new in beams)
    return max(beams, key=lambda beam: beam[0] / NEW**penalty)[1]


@pytest.mark.parametrize("method", ["prefix-tuning", "prompt-tuning", "decoder prompt"])
@pytest.mark.parametrize("family", ["bart", "t5", "bloom", "mistral"])
def test_beams(family, method) -> None:
    backbone = backbone_of(family)
    if method == "decoder prompt":
        injection: Injection = Embeddings(backbone, ["decoder"])
    else:
        injection = measures.injection_of(backbone, method)
    case = Case(backbone, injection)
    how = Decoding(max_new_tokens=NEW, num_beams=3, length_penalty=0.7)
    expected = [beams_without_cache(case, source, 3, 0.7) for source in SOURCES[:2]]
    assert case.generate(how, SOURCES[:2]) == expected


@pytest.mark.parametrize("sites", [("encoder",), ("decoder",), ("encoder", "decoder")])
@pytest.mark.parametrize("family", ["bart", "t5"])
def test_a_penalty_on_repetition_knows_no_virtual_token(family, sites) -> None:
    """It looks at what the decoder has read and written, and at nothing else."""
    case = Case(backbone_of(family), Embeddings(backbone_of(family), sites))
    penalty = 1.7

    def choose(logits: Tensor, new: Sequence[int]) -> int:
        logits = logits.clone()
        for token in {*BEGIN, *new}:
            logits[token] *= penalty if logits[token] < 0 else 1 / penalty
        return int(logits.argmax())

    expected = [case.without_cache(source, choose) for source in SOURCES]
    how = Decoding(max_new_tokens=NEW, repetition_penalty=penalty)
    assert case.generate(how) == expected
    assert case.generate(replace(how, num_beams=3)) == [
        case.generate(replace(how, num_beams=3), [source])[0] for source in SOURCES
    ]


@pytest.mark.parametrize("sites", [("encoder",), ("decoder",)])
@pytest.mark.parametrize("family", ["bart", "t5"])
def test_a_stop_word_after_virtual_columns(family, sites) -> None:
    case = Case(backbone_of(family), Embeddings(backbone_of(family), sites))
    how = Decoding(max_new_tokens=NEW, no_repeat_ngram_size=1)
    (full,) = case.generate(how, SOURCES[:1])
    stop = case.backbone.tokens.text(full[:3])
    (short,) = case.generate(replace(how, stop=(stop,)), SOURCES[:1])
    assert short == full[:3] != full
