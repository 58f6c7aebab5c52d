"""The step decoder by itself: parts of sources, rows that come and go, and what is told of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import FAMILIES, make_backbone, random_ids, random_rows
from foreword.axes.injection import KeysValues
from foreword.backbone import Backbone, Call, Decoding, StepDecoder, Telling, Written
from foreword.backbone.layout import Layout
from foreword.backbone.prompts import merged

NEW = 6


@pytest.fixture(scope="module", params=["gpt2", "llama", "bloom"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    small = {"hidden_size": 32, "n_layer": 2, "n_head": 4}
    settings = small if request.param == "bloom" else {}
    return make_backbone(request.param, torch.float64, **settings)


def call_of(backbone: Backbone, ids: list[int], length: int = 3, seed: int = 0) -> Call:
    """A row with a prefix of random numbers."""
    if not length:
        return Call(Layout.of([ids], side="left"))
    injection = KeysValues(backbone.geometry)
    prompt = injection.prompt_of(random_rows(backbone, length, seed=seed) * 0.5)
    return Call(Layout.of([ids], virtual=length, side="left"), prompt)


class Answers:
    """A decoder that is run to its end; what it wrote for each row."""

    def __init__(self, backbone: Backbone, **options: Any) -> None:
        self.decoder = StepDecoder(backbone, **{"rows": 8, "columns": 96, **options})
        self.written: dict[int, list[Written]] = {}

    def admit(
        self,
        call: Call,
        how: Decoding | None = None,
        seed: int | None = None,
        telling: Telling | None = None,
    ) -> int:
        (number,) = self.decoder.admit(
            [call], [how or Decoding(max_new_tokens=NEW)], [seed], [telling or Telling()]
        )
        self.written[number] = []
        return number

    def step(self) -> None:
        for one in self.decoder.step():
            self.written[one.number].append(one)

    def run(self) -> None:
        while self.decoder.active:
            self.step()

    def tokens(self, number: int) -> list[int]:
        return [one.token for one in self.written[number] if one.token is not None]


def alone(
    backbone: Backbone, call: Call, how: Decoding | None = None, seed: int | None = None
) -> list[int]:
    answers = Answers(backbone, rows=1)
    number = answers.admit(call, how, seed)
    answers.run()
    return answers.tokens(number)


@contextmanager
def many_are(count: int) -> Iterator[None]:
    """From so many virtual tokens on rows share them."""
    before, merged.LEAST = merged.LEAST, count
    try:
        yield
    finally:
        merged.LEAST = before


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    chunk=st.integers(1, 40),
    family=st.sampled_from(FAMILIES),
    many=st.sampled_from([256, 5]),
)
def test_company_arrivals_and_parts_change_no_answer(
    tiny_backbone: Any, seed: int, chunk: int, family: str, many: int
) -> None:
    """Rows arrive at any step, some are released, sources are read in parts of any size, and
    prompts of 5 are copied or shared."""
    backbone = tiny_backbone(family, torch.float64)
    with many_are(many):
        _company_arrivals_and_parts(backbone, seed, chunk)


def _company_arrivals_and_parts(backbone: Backbone, seed: int, chunk: int) -> None:
    chance = random.Random(seed)
    answers = Answers(backbone, rows=4, columns=(24, 96), chunk=chunk)
    expected: dict[int, list[int]] = {}
    gone: set[int] = set()
    waiting = [
        call_of(
            backbone,
            random_ids([chance.choice([1, 3, 9, 40, 60])], seed=seed + n)[0],
            chance.choice([0, 3, 5]),
            seed=n % 3,
        )
        for n in range(7)
    ]
    while waiting or answers.decoder.active:
        while waiting and answers.decoder.free and chance.random() < 0.6:
            call = waiting.pop()
            how = Decoding(max_new_tokens=chance.randint(1, NEW), do_sample=chance.random() < 0.4)
            number = answers.admit(call, how, seed)
            with many_are(256):
                expected[number] = alone(backbone, call, how, seed)
        if expected and chance.random() < 0.1:
            number = chance.choice(list(expected))
            answers.decoder.release(number)
            gone.add(number)
        answers.step()
    assert answers.decoder.free == 4
    for number, tokens in expected.items():
        found = answers.tokens(number)
        assert found == (tokens[: len(found)] if number in gone else tokens)


def test_a_long_source_stalls_nobody() -> None:
    """While it is read in parts, a row that is there writes a token at each step, and short sources
    that come later are read beside it."""
    backbone = make_backbone("gpt2")
    answers = Answers(backbone, columns=(32, 128), chunk=8)
    first = answers.admit(call_of(backbone, [5, 6, 7]))
    answers.step()
    long = answers.admit(call_of(backbone, random_ids([80])[0]))
    answers.step()
    short = answers.admit(call_of(backbone, [8, 9, 10]))
    answers.step()
    assert len(answers.written[first]) == 3
    assert len(answers.written[short]) == 1
    assert not answers.written[long]
    answers.run()
    assert answers.tokens(long) == alone(backbone, call_of(backbone, random_ids([80])[0]))


def test_memory_follows_the_rows() -> None:
    """Rows of every length have slots of their width, in no more than what is given."""
    backbone = make_backbone("gpt2")
    decoder = StepDecoder(backbone, rows=16, columns=(16, 64, 256), tokens=320)
    assert decoder.holds(256)
    assert not decoder.holds(257)
    assert decoder.fits(256)
    how = Decoding(max_new_tokens=2)
    decoder.admit([call_of(backbone, random_ids([100])[0])], [how])
    assert decoder.fits(64)
    assert not decoder.fits(65)
    decoder.step()
    for _ in range(4):
        assert decoder.fits(16)
        decoder.admit([call_of(backbone, [1, 2, 3])], [how])
        decoder.step()
    buckets = decoder._running.buckets  # type: ignore[union-attr]
    assert sum(b.slots.rows * b.slots.columns for b in buckets) <= 320
    while decoder.active:
        decoder.step()
    for _ in range(16):
        assert decoder.fits(16)
        decoder.admit([call_of(backbone, [1, 2, 3])], [how])
    decoder.step()
    assert sum(b.slots.rows * b.slots.columns for b in buckets) <= 320


def test_log_probabilities_are_those_of_one_pass(backbone: Backbone) -> None:
    """Of the tokens that were read and written, whatever was drawn and however it was read."""
    ids = random_ids([30])[0]
    call = call_of(backbone, ids)
    gap = 1e-6 if backbone.geometry.through == "cache" else 1e-9  # BLOOM's softmax is float32
    for chunk in (7, 100):
        answers = Answers(backbone, chunk=chunk)
        how = Decoding(max_new_tokens=NEW, do_sample=True, temperature=2.0)
        other = answers.admit(call_of(backbone, [4, 5], 5, seed=3))
        number = answers.admit(call, how, 1, Telling(best=3, source=True))
        answers.run()
        written = answers.written[number]
        new = answers.tokens(number)
        whole = Call(Layout.of([ids + new], virtual=3), call.prompt)
        with torch.no_grad():
            logs = backbone.logits(whole)[0].log_softmax(-1)
        assert answers.written[other][0].likely is None
        told = [*written[0].source, *(one.likely for one in written)]
        assert written[0].source[0] is None
        assert len(told) == len(ids) + len(new)
        for token, before, one in zip((ids + new)[1:], logs, told[1:], strict=False):
            assert one is not None
            assert one.token == token
            assert one.log == pytest.approx(float(before[token]), abs=gap)
            best = before.topk(3)
            assert [token for token, _ in one.best] == best.indices.tolist()
            assert [log for _, log in one.best] == pytest.approx(best.values.tolist(), abs=gap)


def test_sources_alone_are_read_for_their_log_probabilities(backbone: Backbone) -> None:
    answers = Answers(backbone)
    how = Decoding(max_new_tokens=0)
    number = answers.admit(call_of(backbone, [4, 5, 6]), how, None, Telling(best=0, source=True))
    answers.run()
    (one,) = answers.written[number]
    assert (one.token, one.ended, len(one.source)) == (None, "length", 3)


def test_text_is_told_as_it_becomes_certain(mini: Backbone) -> None:
    ids = mini.tokens.source("Once upon a time there was")
    answers = Answers(mini)
    how = Decoding(max_new_tokens=20)
    whole = answers.admit(call_of(mini, ids, 0), how, None, Telling(text=True))
    answers.run()
    text = "".join(one.text for one in answers.written[whole])
    assert text == mini.tokens.text(answers.tokens(whole))
    stop = text[6:10]
    cut = answers.admit(
        call_of(mini, ids, 0), Decoding(max_new_tokens=20, stop=(stop,)), None, Telling(text=True)
    )
    answers.run()
    assert "".join(one.text for one in answers.written[cut]) == text[: text.find(stop)]
    assert answers.written[cut][-1].ended == "stop"


def broken(backbone: Backbone) -> Call:
    """A row whose virtual tokens have the wrong shape, so that its pass fails."""
    call = call_of(backbone, [4, 5, 6])
    assert call.prompt is not None
    (tokens,) = call.prompt.sites.values()
    tokens.keys = tokens.keys[..., :-1]
    return call


def test_a_row_that_fails_fails_alone(backbone: Backbone) -> None:
    good = call_of(backbone, random_ids([9])[0])
    expected = alone(backbone, good)
    answers = Answers(backbone, isolates=True)
    early = answers.admit(good)
    answers.step()
    bad, late = answers.admit(broken(backbone)), answers.admit(good)
    answers.run()
    assert answers.tokens(early) == answers.tokens(late) == expected
    (one,) = answers.written[bad]
    assert (one.token, one.ended) == (None, "failed")
    assert isinstance(one.error, RuntimeError)


def test_without_isolation_a_failure_is_raised(backbone: Backbone) -> None:
    answers = Answers(backbone)
    answers.admit(broken(backbone))
    with pytest.raises(RuntimeError):
        answers.step()


def test_a_step_that_fails_ends_its_rows_and_the_next_ones_go_on(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = call_of(backbone, random_ids([9])[0])
    expected = alone(backbone, good)
    answers = Answers(backbone, isolates=True)
    first = answers.admit(good)
    answers.step()
    with monkeypatch.context() as patch:
        patch.setattr(backbone.model, "forward", _fails)
        answers.step()
    assert answers.written[first][-1].ended == "failed"
    assert answers.decoder.active == 0
    second = answers.admit(good)
    answers.run()
    assert answers.tokens(second) == expected


def _fails(*_: Any, **__: Any) -> Any:
    raise RuntimeError("out of something")


def test_logits_that_are_no_numbers_end_their_row_alone(backbone: Backbone) -> None:
    good = call_of(backbone, random_ids([9])[0])
    expected = alone(backbone, good)
    bad = call_of(backbone, [4, 5, 6])
    assert bad.prompt is not None
    (tokens,) = bad.prompt.sites.values()
    tokens.values = torch.full_like(tokens.values, torch.nan)
    answers = Answers(backbone, isolates=True)
    numbers = [
        answers.admit(bad, Decoding(max_new_tokens=NEW, do_sample=True), 3),
        answers.admit(good),
        answers.admit(bad),
    ]
    answers.run()
    assert answers.tokens(numbers[1]) == expected
    for number in (numbers[0], numbers[2]):
        assert [one.ended for one in answers.written[number]] == ["failed"]
