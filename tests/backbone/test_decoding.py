"""Decoding from the cache against a loop without one, alone and in company."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig, set_seed

from conftest import FAMILIES, random_ids, random_rows, tiny_model
from foreword.axes.injection import KeysValues
from foreword.axes.readout import Generation
from foreword.backbone import Backbone, Call, Decoding, Prompt, Tokens, generate
from foreword.backbone.layout import Layout, PositionRule

LENGTH, NEW = 4, 8
TIE = 1e-4
"""Two best logits closer than this may change places."""
SOURCES = random_ids([9, 4, 6, 1])
TEXTS = ["The robin is a small", "Once", "name : Silver Piper | type : bird | colour : grey"]


@pytest.fixture(params=[*FAMILIES, "mini"])
def backbone(request, tiny_backbone, mini) -> Backbone:
    return mini if request.param == "mini" else tiny_backbone(request.param)


def prompt_of(backbone: Backbone, *, with_prompt: bool = True) -> Prompt | None:
    if not with_prompt:
        return None
    return KeysValues(backbone.geometry).prompt_of(random_rows(backbone, LENGTH) * 0.5)


def left(
    sources: Sequence[list[int]],
    prompt: Prompt | None,
    positions: PositionRule = "shift",
    pad_id: int = 0,
) -> Layout:
    virtual = 0 if prompt is None else prompt.sites["decoder"].length
    return Layout.of(sources, virtual=virtual, positions=positions, side="left", pad_id=pad_id)


def uncached(
    backbone: Backbone, ids: list[int], prompt: Prompt | None, positions: PositionRule
) -> tuple[list[int], list[float]]:
    """Greedy by a forward pass over everything for each token; with the margins it won by."""
    new: list[int] = []
    margins: list[float] = []
    virtual = 0 if prompt is None else prompt.sites["decoder"].length
    for _ in range(NEW):
        layout = Layout.of([ids + new], virtual=virtual, positions=positions)
        with torch.no_grad():
            best = backbone.logits(Call(layout, prompt))[0, -1].topk(2)
        margins.append((best.values[0] - best.values[1]).item())
        if best.indices[0] == backbone.tokens.eos_id:
            break
        new.append(int(best.indices[0]))
    return new, margins


def excused(found: list[int], expected: list[int], margins: list[float]) -> bool:
    """False where they are equal, True where they part at a tie; anything else fails."""
    if found == expected:
        return False
    length = min(len(found), len(expected))
    first = next((i for i in range(length) if found[i] != expected[i]), length)
    assert margins[first] < TIE, f"{found} is not {expected}, margin {margins[first]:.3g}"
    return True


@pytest.mark.parametrize("with_prompt", [True, False], ids=["prompt", "bare"])
@pytest.mark.parametrize("positions", ["shift", "keep"])
def test_greedy_as_without_a_cache(backbone, positions, with_prompt) -> None:
    """In one batch of mixed lengths, and each row alone."""
    prompt = prompt_of(backbone, with_prompt=with_prompt)
    how = Decoding(max_new_tokens=NEW)
    together = generate(backbone, Call(left(SOURCES, prompt, positions), prompt), how)
    ties = 0
    for ids, found in zip(SOURCES, together, strict=True):
        expected, margins = uncached(backbone, ids, prompt, positions)
        (alone,) = generate(backbone, Call(left([ids], prompt, positions), prompt), how)
        ties += excused(found, expected, margins) + excused(alone, expected, margins)
    assert ties == 0, f"{ties} ties among these fixed inputs: choose others"


def test_prompt_and_rule_decide_the_answer(tiny_backbone) -> None:
    """So that the tests above can fail."""
    backbone = tiny_backbone("gpt2")
    prompt, how = prompt_of(backbone), Decoding(max_new_tokens=NEW)
    bare = generate(backbone, Call(left(SOURCES, None)), how)
    shift = generate(backbone, Call(left(SOURCES, prompt), prompt), how)
    keep = generate(backbone, Call(left(SOURCES, prompt, "keep"), prompt), how)
    assert bare != shift != keep != bare


@settings(max_examples=12, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    seed=st.integers(0, 10**6),
    family=st.sampled_from(FAMILIES),
    positions=st.sampled_from(["shift", "keep"]),
)
def test_company_changes_no_greedy_answer(tiny_backbone, lengths, seed, family, positions) -> None:
    backbone = tiny_backbone(family)
    prompt, how = prompt_of(backbone), Decoding(max_new_tokens=NEW)
    sources = random_ids(lengths, seed=seed)
    together = generate(backbone, Call(left(sources, prompt, positions), prompt), how)
    for ids, found in zip(sources, together, strict=True):
        excused(found, *uncached(backbone, ids, prompt, positions))


@pytest.mark.parametrize(
    "how",
    [
        Decoding(max_new_tokens=NEW),
        Decoding(max_new_tokens=NEW, repetition_penalty=1.5),
        Decoding(max_new_tokens=NEW, no_repeat_ngram_size=1),
        Decoding(max_new_tokens=NEW, no_repeat_ngram_size=2),
        Decoding(max_new_tokens=NEW, num_beams=3, repetition_penalty=1.5),
    ],
    ids=["greedy", "penalty", "unigrams", "bigrams", "beams-penalty"],
)
def test_padding_is_no_token_of_the_text(tiny_backbone, how) -> None:
    """Not even for penalties on repetition, where the padding is what would be answered next."""
    backbone = tiny_backbone("gpt2")
    prompt = prompt_of(backbone)
    long, short = SOURCES[:2]
    (alone,) = generate(backbone, Call(left([short], prompt), prompt), how)
    padded = left([long, short], prompt, pad_id=alone[0])
    assert generate(backbone, Call(padded, prompt), how)[1] == alone


@pytest.mark.parametrize("with_prompt", [True, False], ids=["prompt", "bare"])
@pytest.mark.parametrize("positions", ["shift", "keep"])
def test_beams_as_alone(backbone, positions, with_prompt) -> None:
    prompt = prompt_of(backbone, with_prompt=with_prompt)
    how = Decoding(max_new_tokens=6, num_beams=3, length_penalty=0.8)
    together = generate(backbone, Call(left(SOURCES, prompt, positions), prompt), how)
    for ids, found in zip(SOURCES, together, strict=True):
        assert generate(backbone, Call(left([ids], prompt, positions), prompt), how) == [found]


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_real_text_as_prompt_is_answered_as_by_transformers(tiny_backbone, family, beams) -> None:
    """The text stands in the prompt here, and in front of the input there."""
    backbone = tiny_backbone(family)
    front, ids = random_ids([LENGTH, 6], seed=3)
    injection = KeysValues(backbone.geometry)
    prompt = injection.prompt(injection.real(backbone, front))
    how = Decoding(max_new_tokens=NEW, num_beams=beams)
    (found,) = generate(backbone, Call(left([ids], prompt), prompt), how)

    plain = tiny_model(family)
    given = torch.tensor([front + ids])
    config = GenerationConfig(
        max_new_tokens=NEW, num_beams=beams, do_sample=False, eos_token_id=0, pad_token_id=0
    )
    output = plain.generate(given, attention_mask=torch.ones_like(given), generation_config=config)
    assert found == output[0, given.shape[1] :].tolist()


def test_one_beam_is_greedy_and_three_find_a_likelier_answer(mini) -> None:
    sources = [mini.tokens.source(text) for text in TEXTS]
    greedy = generate(mini, Call(left(sources, None)), Decoding(max_new_tokens=NEW))
    one = generate(mini, Call(left(sources, None)), Decoding(max_new_tokens=NEW, num_beams=1))
    three = generate(mini, Call(left(sources, None)), Decoding(max_new_tokens=NEW, num_beams=3))
    assert greedy == one

    def nats(source: list[int], new: list[int]) -> float:
        layout = Layout.of([source], [new])
        with torch.no_grad():
            return Generation().loss(mini, Call(layout)).sum().item()

    gains = [
        nats(source, first) - nats(source, second)
        for source, first, second in zip(sources, one, three, strict=True)
    ]
    assert max(gains) > 0.1


def test_stop_words_cut(mini) -> None:
    sources = [mini.tokens.source(text) for text in TEXTS]
    layout, readout = left(sources, None), Generation()
    full = readout.answers(mini, Call(layout), Decoding(max_new_tokens=20))
    stops = (full[0].split()[4], full[1].split()[2])
    cut = readout.answers(mini, Call(layout), Decoding(max_new_tokens=20, stop=stops))
    for whole, short in zip(full, cut, strict=True):
        ends = [whole.find(stop) for stop in stops if stop in whole]
        assert short == (whole[: min(ends)].strip() if ends else whole)
    assert cut != full


def test_a_stop_word_spares_tokens(mini) -> None:
    layout = left([mini.tokens.source(TEXTS[0])], None)
    (full,) = generate(mini, Call(layout), Decoding(max_new_tokens=20))
    stop = mini.tokens.text(full).split()[2]
    (short,) = generate(mini, Call(layout), Decoding(max_new_tokens=20, stop=(stop,)))
    assert len(short) < 10
    assert full[: len(short)] == short


@dataclass(frozen=True)
class Filled(Tokens):
    """Tokens whose filler is an ordinary token, as GPT-2's own tokenizer has it."""

    @property
    def pad_id(self) -> int:
        return 500


def test_a_stop_word_counts_in_the_answer_alone(mini) -> None:
    """One that begins in the input and ends with the answer's first token is none.

    And a row that has stopped waits for the others: what fills its columns is no answer.
    """
    backbone = replace(mini, tokens=Filled(mini.tokens.tokenizer))
    sources = [mini.tokens.plain(text) for text in TEXTS[:2]]
    (full,) = generate(mini, Call(left(sources[:1], None)), Decoding(max_new_tokens=12))
    stop = mini.tokens.text([sources[0][-1], full[0]])
    whole = mini.tokens.text(full)
    assert stop not in whole
    how = Decoding(max_new_tokens=12, stop=(stop,))
    for rows in (sources[:1], sources):
        found = Generation().answers(backbone, Call(left(rows, None)), how)
        assert found[0] == whole.strip()


def test_the_end_token_ends(tiny_backbone) -> None:
    """The row that ends first is cut there, whatever the others still write."""
    backbone = tiny_backbone("gpt2")
    full = generate(backbone, Call(left(SOURCES, None)), Decoding(max_new_tokens=NEW))
    tokenizer = copy.deepcopy(backbone.tokens.tokenizer)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(full[0][3])
    ended = replace(backbone, tokens=Tokens(tokenizer))
    found = generate(ended, Call(left(SOURCES, None)), Decoding(max_new_tokens=NEW))
    end = full[0][3]
    expected = [row[: row.index(end)] if end in row else row for row in full]
    assert found == expected
    assert len({len(row) for row in found}) > 1


@pytest.mark.parametrize("beams", [1, 2])
def test_sampling_is_reproducible(tiny_backbone, beams) -> None:
    backbone = tiny_backbone("llama")
    prompt = prompt_of(backbone)
    how = Decoding(
        max_new_tokens=NEW, do_sample=True, temperature=0.9, top_p=0.95, top_k=50, num_beams=beams
    )
    found = []
    for seed in (3, 3, 4):
        set_seed(seed)
        found.append(generate(backbone, Call(left(SOURCES, prompt), prompt), how))
    assert found[0] == found[1] != found[2]


def test_penalties_do_what_they_say(mini) -> None:
    layout = left([mini.tokens.source(TEXTS[2])], None)
    (free,) = generate(mini, Call(layout), Decoding(max_new_tokens=40))
    (once,) = generate(mini, Call(layout), Decoding(max_new_tokens=40, no_repeat_ngram_size=2))
    (other,) = generate(mini, Call(layout), Decoding(max_new_tokens=40, repetition_penalty=2.0))
    assert len(set(pairwise(once))) == len(once) - 1
    assert len({*free}) / len(free) < len({*other}) / len(other)


def test_the_head_never_sees_a_whole_source(tiny_backbone) -> None:
    """A vocabulary of 250,000 at all positions of long sources would be gigabytes."""
    for family in ("bloom", "llama"):
        backbone = tiny_backbone(family)
        seen: list[int] = []
        head = backbone.head.register_forward_hook(
            lambda _, __, output, seen=seen: seen.append(output.numel() // output.shape[-1])
        )
        generate(
            backbone, Call(Layout.of(random_ids([9, 5]), side="left")), Decoding(max_new_tokens=3)
        )
        head.remove()
        assert max(seen) <= 2
