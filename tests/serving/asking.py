"""An engine with prompts of every kind, asked at random; what tests of serving share."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from conftest import make_backbone
from families.catalogue import plain_model
from foreword.backbone import Backbone, Decoding, Telling, Tokens, Written, bundled_backbones
from foreword.data import Example
from foreword.errors import BusyError
from foreword.methods import HardPrompt
from foreword.serving import Engine, EngineOptions, Job, PromptStore, Told
from foreword.session import load
from foreword.tasks import (
    BoundTask,
    Prediction,
    Request,
    TextGeneration,
    Writing,
    answer_together,
    write_rows,
)
from foreword.tasks.text import Templates
from foreword.tuned.compose import compose
from stored_prompts import EMBEDDERS, TELLERS, WRITERS, prefix, soft, store, store_all, writes

TEXTS = (
    "a film",
    "it rained all day, and then it rained again",
    "so",
    "The hill behind the house was green. " * 3,
)


@dataclass
class Heard:
    """A listener that keeps what it is told."""

    events: list[Written | Told] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def __call__(self, event: Written | Told) -> None:
        self.events.append(event)
        if isinstance(event, Told) or event.ended is not None:
            self.ended.set()

    def wait(self) -> Heard:
        assert self.ended.wait(60), "nothing ended"
        return self

    @property
    def tokens(self) -> list[int]:
        """Tokens that were written."""
        written = [event for event in self.events if isinstance(event, Written)]
        return [one.token for one in written if one.token is not None]

    @property
    def text(self) -> str:
        """Their text."""
        return "".join(event.text for event in self.events if isinstance(event, Written))

    @property
    def prediction(self) -> Prediction:
        """What was read."""
        (event,) = self.events
        assert isinstance(event, Told)
        assert event.prediction is not None, event.error
        return event.prediction


def decoder_world(
    folder: Path,
    family: str = "gpt2",
    chat: str | None = None,
    dtype: torch.dtype = torch.float64,
) -> tuple[Backbone, dict[str, Path]]:
    """A tiny decoder, with a chat template where one is given, and an artifact of each kind of
    prompt."""
    backbone = make_backbone(family, dtype)
    if chat is not None:
        backbone.tokens.tokenizer.chat_template = chat
    return backbone, store_all(folder, backbone)


def encoder_decoder_world(folder: Path, family: str) -> tuple[Backbone, dict[str, Path]]:
    """A tiny encoder-decoder in float64 with prompts that write."""
    made = AutoTokenizer.from_pretrained(bundled_backbones()["foreword/mini"])
    made.add_tokens(["<extra_id_0>"], special_tokens=True)
    backbone = Backbone.wrap(plain_model(family, vocab_size=len(made)).double(), Tokens(made))
    return backbone, {
        "soft": store(folder / "soft", backbone, soft(), writes()),
        "deep": store(folder / "deep", backbone, prefix(), writes(), seed=1),
        "deeper": store(folder / "deeper", backbone, prefix(5), writes("Q {text}"), seed=2),
    }


def bare(backbone: Backbone) -> BoundTask:
    """The backbone without a prompt."""
    model = compose(backbone, HardPrompt(name="hard-prompt"))
    return TextGeneration(Templates.of("{text}")).on(model)


def writing(
    task: BoundTask, text: str, how: Decoding | None = None, seed: int | None = None
) -> Writing:
    """An answer that is to be written."""
    how = how or Decoding(max_new_tokens=6)
    (row,) = task.rows(Example({"text": text}), labelled=False, reserve=how.max_new_tokens)
    return Writing(task.model, row.pair.source, how, seed)


class Alone:
    """What every request is answered alone, kept.

    Args:
        backbone: of all.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.kept: dict[Any, Any] = {}
        self.tasks: dict[Path | None, BoundTask] = {None: bare(backbone)}

    def task(self, folder: Path | None) -> BoundTask:
        """Of an artifact; None: of the backbone."""
        if folder not in self.tasks:
            assert folder is not None
            self.tasks[folder] = load(folder, backbone=self.backbone).task
        return self.tasks[folder]

    def tokens(self, key: tuple[Path | None, str, Decoding, int]) -> list[int]:
        """The tokens that are written."""
        if key not in self.kept:
            folder, text, how, seed = key
            work = writing(self.task(folder), text, how, seed)
            (self.kept[key],) = write_rows([work], batch_size=1)
        found: list[int] = self.kept[key]
        return found

    def prediction(self, key: tuple[Path, str]) -> Prediction:
        """What is read."""
        if key not in self.kept:
            folder, text = key
            request = Request(self.task(folder), Example({"text": text}))
            (self.kept[key],) = answer_together([request])
        found: Prediction = self.kept[key]
        return found

    def ties(self, key: tuple[Path | None, str, Decoding, int], found: list[int]) -> bool:
        """Whether greedy tokens are others than those that are written alone at a place where the
        two likeliest are alike but for rounding."""
        folder, text, how, _ = key
        if how.do_sample:
            return False
        heard = Heard()
        with Engine(self.backbone, EngineOptions(rows=1)) as engine:
            engine.submit([Job(writing(self.task(folder), text, how), heard, Telling(best=2))])
            heard.wait()
        for own, event in zip(found, heard.events, strict=False):
            assert isinstance(event, Written)
            assert event.likely is not None
            if own != event.token:
                first, second = (log for _, log in event.likely.best[:2])
                return first - second < 1e-3
        return False


def patiently(store: PromptStore, name: str) -> BoundTask:
    """A prompt's task, as soon as there is room for it."""
    for _ in range(5000):
        try:
            return store.get(name).task
        except BusyError:
            time.sleep(0.002)
    raise AssertionError(f"there was never room for '{name}'")


def check_mixed(
    backbone: Backbone, folders: dict[str, Path], seed: int, alone: Alone, requests: int = 12
) -> None:
    """Random requests that arrive at random; some are cancelled, and prompts are replaced, removed
    and put out of memory meanwhile. Each answer is the request's alone."""
    chance = random.Random(seed)
    options = EngineOptions(
        rows=chance.randint(1, 8),
        chunk=chance.choice([1, 5, 16, 64]),
        tokens=chance.choice([None, 600]),
        longest=256,
        queue=1000,
    )
    store = PromptStore(backbone, memory=chance.choice([60_000, 2**30]))
    names = {name.replace(" ", "-"): folder for name, folder in folders.items()}
    content = dict(names)
    for name, folder in names.items():
        store.add(name, folder)
    writers = [name for name in names if name not in {t.replace(" ", "-") for t in TELLERS}]
    embedders = [name for name in names if name in {e.replace(" ", "-") for e in EMBEDDERS}]
    writers = [name for name in writers if name not in embedders]
    tellers = [name for name in names if name not in writers]
    asked: list[tuple[Heard, Any]] = []
    cancelled: set[int] = set()
    with Engine(backbone, options) as engine:
        for number in range(requests):
            heard, text = Heard(), chance.choice(TEXTS)
            if chance.random() < 0.2:  # another artifact under the same name
                name, other = chance.sample(writers, 2)
                content[name] = names[other]
                if chance.random() < 0.5:
                    store.remove(name)
                store.add(name, names[other])
            if tellers and chance.random() < 0.3:
                name = chance.choice(tellers)
                key: Any = (content[name], text)
                job = Job(Request(patiently(store, name), Example({"text": text})), heard)
            else:
                chosen = chance.choice([*writers, None])
                task = bare(backbone) if chosen is None else patiently(store, chosen)
                how = Decoding(
                    max_new_tokens=chance.randint(1, 8),
                    do_sample=chance.random() < 0.4,
                    repetition_penalty=chance.choice([1.0, 1.0, 1.5]),
                    stop=chance.choice([(), (), ("e",), ("t ", "o")]),
                )
                own = chance.randint(0, 3)
                key = (None if chosen is None else content[chosen], text, how, own)
                telling = Telling(text=True, best=chance.choice([None, 1]))
                job = Job(writing(task, text, how, own), heard, telling)
                del task
            (ticket,) = engine.submit([job])
            del job  # which alone has the prompt now
            asked.append((heard, key))
            if chance.random() < 0.15:
                engine.cancel(ticket)
                cancelled.add(number)
            while chance.random() < 0.4 and engine.active:
                asked[chance.randrange(len(asked))][0].ended.wait(0.002)
        engine.close(60)
        assert (engine.active, engine.waiting) == (0, 0)
    assert store.in_memory[1] <= store.memory
    rounded = backbone.dtype != "float64"
    for number, (heard, key) in enumerate(asked):
        which = f"seed {seed}, request {number}: {key}"
        if len(key) == 4:
            expected = alone.tokens(key)
            if number in cancelled:
                found, expected = heard.tokens, expected[: len(heard.tokens)]
            else:
                found = heard.wait().tokens
            if found != expected:
                assert rounded, which
                assert alone.ties(key, found), which
            elif number not in cancelled:
                whole, (_, _, how, _) = alone.backbone.tokens.text(expected), key
                ends = [whole.find(word) for word in how.stop if word in whole]
                assert heard.text == whole[: min(ends, default=len(whole))]
        elif number not in cancelled:
            one, own_ = heard.wait().prediction, alone.prediction(key)
            if isinstance(own_.answer, tuple):
                assert one.answer == pytest.approx(own_.answer, abs=1e-5 if rounded else 1e-9)
                continue
            assert one.answer == own_.answer
            assert one.probabilities is not None
            for label, probability in own_.probabilities.items():
                assert abs(one.probabilities[label] - probability) < 1e-5  # heads are float32


__all__ = ["TELLERS", "TEXTS", "WRITERS", "Alone", "Heard", "bare", "check_mixed", "writing"]
