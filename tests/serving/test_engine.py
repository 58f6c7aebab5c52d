"""The engine: many requests at once, each answered as it is alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from asking import (
    TEXTS,
    Alone,
    Heard,
    bare,
    check_mixed,
    decoder_world,
    encoder_decoder_world,
    writing,
)

from conftest import make_backbone
from foreword.backbone import Backbone, Decoding, Telling, Written
from foreword.backbone.decoding import packing
from foreword.backbone.prompts import merged
from foreword.data import Example
from foreword.errors import BusyError, DataError
from foreword.serving import Engine, EngineOptions, Job, PromptStore, Told, memory
from foreword.tasks import Request
from stored_prompts import TELLERS, WRITERS

World = tuple[Backbone, dict[str, Path]]
LONG = Decoding(max_new_tokens=200)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., World]:
    made: dict[Any, World] = {}

    def find(family: str, dtype: torch.dtype = torch.float64) -> World:
        if (family, dtype) not in made:
            folder = tmp_path_factory.mktemp(family)
            made[family, dtype] = (
                encoder_decoder_world(folder, family)
                if family in ("t5", "bart")
                else decoder_world(folder, family, dtype=dtype)
            )
        return made[family, dtype]

    return find


@pytest.fixture(params=["gpt2", "llama", "t5", "bart", "gpt2 shared", "llama float32"])
def mixed(request: pytest.FixtureRequest, worlds: Any, monkeypatch: pytest.MonkeyPatch) -> World:
    """A backbone and its prompts: in float64; such that rows share virtual tokens; in float32,
    whose weights are laid out for few rows, as on a server."""
    family, *how = request.param.split()
    if how == ["shared"]:
        monkeypatch.setattr(merged, "LEAST", 4)
    if how == ["float32"]:
        monkeypatch.setattr(packing, "SMALLEST", 1)
        return worlds(family, torch.float32)
    return worlds(family)


def test_answers_are_those_of_requests_alone(mixed: World) -> None:
    """Random prompts, lengths, arrivals, cancellations, replaced prompts; greedy and drawn."""
    alone = Alone(mixed[0])
    for seed in range(3 if mixed[0].geometry.kind == "decoder" else 2):
        check_mixed(*mixed, seed, alone)
    texts = [str(answer) for answer in alone.kept.values()]
    assert len(set(texts)) > len(texts) // 2, "the prompts decide the answers"


@pytest.mark.soak
def test_many_answers_are_those_of_requests_alone(mixed: World) -> None:
    alone = Alone(mixed[0])
    for seed in range(1000, 1250):
        check_mixed(*mixed, seed, alone)


@pytest.fixture
def backbone(worlds: Any) -> Backbone:
    return worlds("gpt2")[0]


@pytest.fixture
def tasks(worlds: Any) -> Any:
    backbone, folders = worlds("gpt2")
    store = PromptStore(backbone)
    for name, folder in folders.items():
        store.add(name.replace(" ", "-"), folder)
    return {name: store.get(name.replace(" ", "-")).task for name in folders}


def test_a_cancelled_row_is_free_at_once(backbone: Backbone) -> None:
    with Engine(backbone, EngineOptions(rows=1)) as engine:
        first, second = Heard(), Heard()
        one = writing(bare(backbone), "so", Decoding(max_new_tokens=240))
        (number,) = engine.submit([Job(one, first)])
        engine.submit([Job(writing(bare(backbone), "a film"), second)])
        while not first.events:
            time.sleep(0.001)
        engine.cancel(number)
        second.wait()
        told = len(first.events)
        assert not first.ended.is_set()
        assert told < 240
        assert second.tokens
        assert len(first.events) == told


def test_what_is_read_waits_for_no_row(backbone: Backbone, tasks: Any) -> None:
    with Engine(backbone, EngineOptions(rows=1)) as engine:
        held, waits, read = Heard(), Heard(), Heard()
        engine.submit([Job(writing(bare(backbone), "so", Decoding(max_new_tokens=240)), held)])
        engine.submit([Job(writing(bare(backbone), "a film"), waits)])
        engine.submit([Job(Request(tasks["head"], Example({"text": "so"})), read)])
        assert read.wait().prediction
        assert not held.ended.is_set()
        assert not waits.events
        assert held.wait().tokens
        assert waits.wait().tokens


def test_a_full_queue_refuses_all_of_a_request(backbone: Backbone) -> None:
    with Engine(backbone, EngineOptions(rows=1, queue=2)) as engine:
        held, waiting = Heard(), [Heard(), Heard()]
        engine.submit([Job(writing(bare(backbone), "so", LONG), held)])
        while not held.events:
            time.sleep(0.001)
        job = writing(bare(backbone), "a film")
        engine.submit([Job(job, waiting[0])])
        with pytest.raises(BusyError, match="1 requests wait already and 2 more would be over"):
            engine.submit([Job(job, Heard()), Job(job, Heard())])
        engine.submit([Job(job, waiting[1])])
        with pytest.raises(BusyError) as refused:
            engine.submit([Job(job, Heard())])
        assert refused.value.retry_after >= 1
        assert not refused.value.closing
        engine.close(60)
        assert waiting[0].tokens == waiting[1].tokens


def test_more_than_can_ever_wait_is_no_matter_of_time(backbone: Backbone) -> None:
    with Engine(backbone, EngineOptions(queue=2)) as engine:
        job = writing(bare(backbone), "a film")
        with pytest.raises(
            DataError, match=r"3 answers, more than the 2 that may wait here \(`queue`\)"
        ):
            engine.submit([Job(job, Heard()) for _ in range(3)])


def test_an_answer_longer_than_all_memory_is_refused(backbone: Backbone) -> None:
    with Engine(backbone, EngineOptions(longest=64)) as engine:
        work = writing(bare(backbone), "so", Decoding(max_new_tokens=70))
        with pytest.raises(DataError, match=r"need 71 positions: 1 .* and 70 .* there are 64"):
            engine.submit([Job(work, Heard())])


def test_closing_finishes_what_was_taken_on(backbone: Backbone) -> None:
    engine = Engine(backbone, EngineOptions(rows=2))
    heard = [Heard() for _ in range(5)]
    engine.submit([Job(writing(bare(backbone), "so"), one) for one in heard])
    engine.close(60)
    assert all(len(one.tokens) == 6 for one in heard)
    with pytest.raises(BusyError, match="stopping") as refused:
        engine.submit([Job(writing(bare(backbone), "so"), Heard())])
    assert refused.value.closing


def test_closing_at_once_ends_answers_with_an_error(backbone: Backbone) -> None:
    engine = Engine(backbone, EngineOptions(rows=1))
    heard = [Heard(), Heard()]
    engine.submit([Job(writing(bare(backbone), "so", LONG), one) for one in heard])
    engine.close()
    for one in heard:
        last = one.wait().events[-1]
        assert isinstance(last, Written)
        assert isinstance(last.error, BusyError)


def test_a_crash_in_a_step_ends_its_requests_alone(
    backbone: Backbone, tasks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the step fail, those that wait are answered, and the engine is well again."""
    with Engine(backbone, EngineOptions(rows=2)) as engine:
        expected = Heard()
        engine.submit([Job(writing(tasks["deep"], "so"), expected)])
        expected.wait()
        heard = [Heard() for _ in range(4)]
        forward, broken = backbone.model.forward, threading.Event()

        def crash(*args: Any, **given: Any) -> Any:
            if not broken.is_set() and heard[0].events and heard[1].events:
                broken.set()
                raise RuntimeError("out of memory")
            return forward(*args, **given)

        monkeypatch.setattr(backbone.model, "forward", crash)
        engine.submit([Job(writing(tasks["deep"], "so", LONG), one) for one in heard[:2]])
        engine.submit([Job(writing(tasks["deep"], "so"), one) for one in heard[2:]])
        for one in heard:
            one.wait()
        ends = [one.events[-1] for one in heard]
        assert [one.ended for one in ends if isinstance(one, Written)] == [
            "failed",
            "failed",
            "length",
            "length",
        ]
        assert heard[2].tokens == heard[3].tokens == expected.tokens
        assert engine.healthy
        assert engine.counts.failed_steps == 1


def test_an_engine_that_only_fails_says_so(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*args: Any, **given: Any) -> Any:
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(backbone.model, "forward", crash)
    with Engine(backbone) as engine:
        for _ in range(3):
            assert engine.healthy
            heard = Heard()
            engine.submit([Job(writing(bare(backbone), "so"), heard)])
            heard.wait()
        assert not engine.healthy


def test_an_example_that_fails_fails_alone(backbone: Backbone, tasks: Any) -> None:
    heads = {name: tasks[name] for name in TELLERS}
    with Engine(backbone) as engine:
        heard = {name: Heard() for name in TELLERS}
        bad = Heard()
        broken = tasks["head"].on(tasks["head"].model.with_rows(tasks["head"].model.rows() * 1))
        broken.model.readout.layers[0].weight.data = torch.zeros(2, 3, dtype=torch.float64)
        example = Example({"text": "a film"})
        engine.submit(
            [Job(Request(broken, example), bad)]
            + [Job(Request(heads[name], example), heard[name]) for name in TELLERS]
        )
        for name in TELLERS:
            assert heard[name].wait().prediction.answer in ("yes", "no")
        (event,) = bad.wait().events
        assert isinstance(event, Told)
        assert isinstance(event.error, RuntimeError)


def test_a_listener_that_fails_harms_nobody(backbone: Backbone) -> None:
    def fails(_: object) -> None:
        raise RuntimeError("the client is gone")

    with Engine(backbone) as engine:
        heard = Heard()
        work = writing(bare(backbone), "so", Decoding(max_new_tokens=30))
        engine.submit([Job(work, fails), Job(work, heard)])
        assert len(heard.wait().tokens) == 30


def test_what_was_read_and_written_is_counted(backbone: Backbone, tasks: Any) -> None:
    with Engine(backbone) as engine:
        heard = [Heard() for _ in range(3)]
        engine.submit(
            [
                Job(writing(tasks[name], TEXTS[0]), one)
                for name, one in zip(WRITERS[:2], heard, strict=False)
            ]
        )
        engine.submit([Job(Request(tasks["head"], Example({"text": "so"})), heard[2])])
        engine.close(60)
        counts = engine.counts
        assert counts.tokens == sum(len(one.tokens) for one in heard[:2])
        assert counts.read == 1
        assert counts.rows >= counts.steps > 0


def test_the_source_of_a_long_job_is_read_beside_others(backbone: Backbone) -> None:
    """Another answer's tokens come one a step while a long input is read in parts."""
    with Engine(backbone, EngineOptions(chunk=4)) as engine:
        steady, long = Heard(), Heard()
        engine.submit([Job(writing(bare(backbone), "so", Decoding(max_new_tokens=60)), steady)])
        while not steady.events:
            time.sleep(0.001)
        source = writing(bare(backbone), "The hill was green. " * 12)
        assert len(source.source) > 60
        begun = len(steady.events)
        engine.submit([Job(source, long, Telling(text=True))])
        while not long.events:
            time.sleep(0.001)
        assert len(steady.events) >= begun + len(source.source) // 4
        steady.wait()
        assert isinstance(long.wait().events[-1], Written)


def test_log_probabilities_come_with_the_tokens(backbone: Backbone, tasks: Any) -> None:
    with Engine(backbone) as engine:
        heard = Heard()
        work = writing(tasks["deep"], "so")
        engine.submit([Job(work, heard, Telling(text=True, best=2, source=True))])
        first, *_ = heard.wait().events
        assert isinstance(first, Written)
        assert len(first.source) == len(work.source)
        assert first.likely is not None
        assert first.likely.best[0][0] == first.token


@pytest.mark.skipif(not packing.possible(), reason="this torch has no such products")
def test_weights_are_laid_out_for_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where that is wanted, and there is room; answers stay what they are."""
    monkeypatch.setattr(packing, "SMALLEST", 1)
    backbone = make_backbone("gpt2")
    texts = []
    for options, packs in (({}, True), ({"packed": False}, False)):
        with Engine(backbone, EngineOptions(rows=4, **options)) as engine:
            assert (engine.backbone is not backbone) == packs
            heard = [Heard() for _ in TEXTS]
            works = [writing(bare(backbone), text, Decoding(max_new_tokens=9)) for text in TEXTS]
            engine.submit([Job(*pair) for pair in zip(works, heard, strict=True)])
            texts.append([one.wait().tokens for one in heard])
    assert texts[0] == texts[1]
    monkeypatch.setattr(memory, "SHARE", 0.0)
    assert not memory.packs(backbone)
