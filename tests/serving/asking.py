"""An engine with prompts of every kind, asked at random; what tests of serving share."""

from __future__ import annotations

import random
import threading
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
from foreword.methods import HardPrompt
from foreword.serving import Engine, EngineOptions, Job, PromptStore, Told
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
    folder: Path, family: str = "gpt2", chat: str | None = None
) -> tuple[Backbone, dict[str, Path]]:
    """A tiny decoder in float64, with a chat template where one is given, and an artifact of each
    kind of prompt."""
    backbone = make_backbone(family, torch.float64)
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
    """What every request is answered alone, kept."""

    def __init__(self) -> None:
        self.kept: dict[Any, Any] = {}

    def tokens(self, key: Any, work: Writing) -> list[int]:
        """The tokens that are written."""
        if key not in self.kept:
            (self.kept[key],) = write_rows([work], batch_size=1)
        found: list[int] = self.kept[key]
        return found

    def prediction(self, key: Any, request: Request) -> Prediction:
        """What is read."""
        if key not in self.kept:
            (self.kept[key],) = answer_together([request])
        found: Prediction = self.kept[key]
        return found


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
    asked: list[tuple[Heard, Any, Writing | Request]] = []
    cancelled: set[int] = set()
    with Engine(backbone, options) as engine:
        for number in range(requests):
            heard, text = Heard(), chance.choice(TEXTS)
            if chance.random() < 0.2:  # another artifact under the same name
                name, other = chance.sample(writers, 2)
                content[name] = names[other]
                store.add(name, names[other])
            if tellers and chance.random() < 0.3:
                name = chance.choice(tellers)
                request = Request(store.get(name).task, Example({"text": text}))
                key: Any = (str(content[name]), text)
                job = Job(request, heard)
            else:
                chosen = chance.choice([*writers, None])
                task = bare(backbone) if chosen is None else store.get(chosen).task
                how = Decoding(
                    max_new_tokens=chance.randint(1, 8),
                    do_sample=chance.random() < 0.4,
                    repetition_penalty=chance.choice([1.0, 1.0, 1.5]),
                )
                own = chance.randint(0, 3)
                key = (chosen and str(content[chosen]), text, how, own)
                job = Job(writing(task, text, how, own), heard, Telling(text=True))
            (ticket,) = engine.submit([job])
            asked.append((heard, key, job.work))
            if chance.random() < 0.15:
                engine.cancel(ticket)
                cancelled.add(number)
            while chance.random() < 0.4 and engine.active:
                asked[chance.randrange(len(asked))][0].ended.wait(0.002)
        engine.close(60)
        assert (engine.active, engine.waiting) == (0, 0)
    for number, (heard, key, work) in enumerate(asked):
        if isinstance(work, Writing):
            expected = alone.tokens(key, work)
            if number in cancelled:
                assert heard.tokens == expected[: len(heard.tokens)]
                continue
            assert heard.wait().tokens == expected, f"seed {seed}, request {number}: {key}"
            assert heard.text == backbone.tokens.text(expected)
        elif number not in cancelled:
            one, own_ = heard.wait().prediction, alone.prediction(key, work)
            if isinstance(own_.answer, tuple):
                assert one.answer == pytest.approx(own_.answer, abs=1e-9)
                continue
            assert one.answer == own_.answer
            assert one.probabilities is not None
            for label, probability in own_.probabilities.items():
                assert abs(one.probabilities[label] - probability) < 1e-6  # heads are float32


__all__ = ["TELLERS", "TEXTS", "WRITERS", "Alone", "Heard", "bare", "check_mixed", "writing"]
