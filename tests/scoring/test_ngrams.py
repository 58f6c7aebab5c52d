"""BLEU and NIST against their definitions, written out plainly and worked out by hand."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU

from foreword.scoring import Corpus
from foreword.scoring.characters import chrf, streams, ter
from foreword.scoring.ngrams import bleu, nist

words = st.lists(
    st.sampled_from(["a", "b", "c", "D", ".", ",", "12", "café", "x-y"]), min_size=0, max_size=9
)
texts = words.map(" ".join)
segments = st.lists(
    st.tuples(texts, st.lists(texts, min_size=1, max_size=4)), min_size=1, max_size=6
)


def corpus(pairs: list[tuple[str, list[str]]]) -> Corpus:
    return Corpus(tuple(o for o, _ in pairs), tuple(tuple(r) for _, r in pairs))


def alone(output: str, *references: str) -> Corpus:
    return Corpus((output,), (references,))


def grams(text: str, n: int) -> list[str]:
    """For texts whose tokens stand between blanks already."""
    tokens = text.lower().split(" ")
    return [" ".join(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def plain_bleu(pairs: list[tuple[str, list[str]]]) -> float:
    logs = 0.0
    for n in range(1, 5):
        hits = sum(
            min(grams(o, n).count(g), max(grams(r, n).count(g) for r in rs))
            for o, rs in pairs
            for g in set(grams(o, n))
        )
        total = sum(len(o.split(" ")) - n + 1 for o, _ in pairs)
        logs += math.log(max(hits, 1e-15) / max(total, 1e-9)) / 4
    length = sum(len(o.split(" ")) for o, _ in pairs)
    reference = 0
    for o, rs in pairs:
        size = len(o.split(" "))
        reference += sorted((abs(len(r.split(" ")) - size), len(r.split(" "))) for r in rs)[0][1]
    return math.exp(logs + min(0.0, 1 - reference / length))


def plain_nist(pairs: list[tuple[str, list[str]]]) -> float:
    every = [r for _, rs in pairs for r in rs]
    total = 0.0
    for n in range(1, 6):
        pool = [g for r in every for g in grams(r, n)]
        below = [g for r in every for g in grams(r, n - 1)] if n > 1 else []
        gained = 0.0
        for o, rs in pairs:
            for g in set(grams(o, n)):
                hits = min(grams(o, n).count(g), max(grams(r, n).count(g) for r in rs))
                if hits:
                    first = below.count(g.rpartition(" ")[0]) if n > 1 else len(pool)
                    gained += hits * math.log2(first / pool.count(g))
        possible = sum(len(o.split(" ")) - n + 1 for o, _ in pairs)
        total += gained / possible if possible > 0 else 0.0
    length = sum(len(o.split(" ")) for o, _ in pairs)
    reference = sum(sum(len(r.split(" ")) for r in rs) / len(rs) for _, rs in pairs)
    ratio = min(1.0, length / reference)
    return total * math.exp(math.log(0.5) * (math.log(ratio) / math.log(1.5)) ** 2)


def test_nist_by_hand() -> None:
    """A whole match: three tokens of log2(3) each, nothing new in the pairs."""
    assert nist(alone("a b c", "A b C")).value() == pytest.approx(math.log2(3))
    first = (math.log2(3 / 2) + math.log2(3)) / 2
    second = math.log2(2 / 1)
    assert nist(alone("a b", "a a b")).value() == pytest.approx((first + second) / 2)


def test_bleu_by_hand() -> None:
    assert bleu(alone("the cat sat down", "The cat sat down")).value() == pytest.approx(1)
    assert bleu(alone("a b c d e", "a b c d f")).value() == pytest.approx(
        (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    )
    assert bleu(alone("a b c d", "a b c d e f", "z " * 20)).value() == pytest.approx(
        math.exp(1 - 6 / 4)
    )
    assert bleu(alone("x", "a b c d")).value() < 1e-6


def test_tokens_are_mteval_13as() -> None:
    one = alone("It costs £20.50, (about) 5 out-of 5 &quot;stars&quot;.", "x")
    same = alone('it costs £20.50 , ( about ) 5 out-of 5 " stars " .', "x")
    assert (bleu(one).segments == bleu(same).segments).all()


def test_an_empty_output_counts_as_one_token_as_in_the_official_tool() -> None:
    assert bleu(alone("", "a b")).segments.tolist() == [[0, 0, 0, 0, 1, 2, 1]]
    assert nist(alone("", "a b")).value() == 0
    assert nist(alone("a", "a", "a")).value() == 0


@settings(max_examples=150, deadline=None)
@given(segments)
def test_bleu_and_nist_are_their_definitions(pairs: list[tuple[str, list[str]]]) -> None:
    spaced = [(o.replace("x-y", "x"), [r.replace("x-y", "x") for r in rs]) for o, rs in pairs]
    assert bleu(corpus(spaced)).value() == pytest.approx(plain_bleu(spaced), rel=1e-9)
    assert nist(corpus(spaced)).value() == pytest.approx(plain_nist(spaced), rel=1e-9, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(segments, st.randoms(use_true_random=False))
def test_the_order_of_records_and_references_changes_nothing(
    pairs: list[tuple[str, list[str]]], chance: random.Random
) -> None:
    shuffled = [(o, chance.sample(rs, len(rs))) for o, rs in chance.sample(pairs, len(pairs))]
    for measure in (bleu, nist):
        one, other = measure(corpus(pairs)).value(), measure(corpus(shuffled)).value()
        assert one == pytest.approx(other, rel=1e-12, abs=1e-15)


def test_bleu_is_sacrebleus_where_every_order_has_a_match() -> None:
    chance = random.Random(0)
    pairs = []
    for _ in range(40):
        base = [
            chance.choice(["alpha", "beta", "gamma", "delta", "3.5", ",", "."]) for _ in range(12)
        ]
        references = [" ".join(chance.sample(base, 12)[:4] + base[2:]) for _ in range(3)]
        pairs.append((" ".join(base), references))
    given = corpus(pairs)
    theirs = BLEU(lowercase=True).corpus_score(list(given.outputs), streams(given)).score
    assert bleu(given).value() == pytest.approx(theirs / 100, abs=1e-12)


def test_chrf_and_ter_are_sacrebleus() -> None:
    from sacrebleu.metrics import CHRF, TER

    given = corpus([("The cat sat.", ["A cat sat.", "The cat is sitting."]), ("no", ["yes"])])
    for ours, theirs in ((chrf, CHRF()), (ter, TER())):
        assert ours(given).value() == pytest.approx(
            theirs.corpus_score(list(given.outputs), streams(given)).score
        )
