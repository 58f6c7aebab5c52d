"""The text that is taught, in parts, and how many of them a backbone can read at a time."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from foreword.backbone import Backbone
from foreword.errors import UserError
from foreword.procedures.distilling.texts import chunks_of, known
from foreword.recipe.teacher import TeacherSpec

AROUND = 128
"""Tokens that are kept free for what a chat template puts around messages, and for a request."""
BETWEEN = 2
"""Tokens that are kept free for the blanks between two parts."""
CHUNK = 512
"""Most tokens of a part of a text, where the recipe does not say."""
LEAST = 16
"""Tokens of a part of a text below which no question could be asked about it."""


@dataclass(frozen=True)
class Source:
    """The text that is taught.

    Attributes:
        whole_text: all of it.
        chunks: its parts, in their order.
        fits: how many of them fit before a question and its answer.
    """

    whole_text: str
    chunks: tuple[str, ...]
    fits: int

    @property
    def whole(self) -> bool:
        """Whether all of it fits."""
        return self.fits >= len(self.chunks)

    def text(self, numbers: Sequence[int]) -> str:
        """Some parts as one text: as they stand where one follows the other, else with an empty
        line between them."""
        runs: list[list[int]] = []
        for number in numbers:
            start, end = self._spans[number]
            if runs and number and runs[-1][1] == self._spans[number - 1][1]:
                runs[-1][1] = end
            else:
                runs.append([start, end])
        return "\n\n".join(self.whole_text[start:end] for start, end in runs)

    @cached_property
    def _spans(self) -> list[tuple[int, int]]:
        """Where each part stands in the text."""
        spans, end = [], 0
        for chunk in self.chunks:
            start = self.whole_text.index(chunk, end)
            spans.append((start, end := start + len(chunk)))
        return spans

    def read(self, focus: int, rng: random.Random) -> tuple[int, ...]:
        """The parts that are read where a question is about one of them: all, or that one among
        others."""
        if self.whole:
            return tuple(range(len(self.chunks)))
        others = [number for number in range(len(self.chunks)) if number != focus]
        return tuple(sorted([focus, *rng.sample(others, self.fits - 1)]))


def source_of(
    text: str,
    spec: TeacherSpec,
    backbone: Backbone,
    *,
    makes: bool,
    say: Callable[[str], None],
) -> Source:
    """The parts of a text for a backbone.

    Args:
        text: all of it.
        spec: the recipe's section.
        backbone: reads it.
        makes: whether conversations about parts are made; else inputs are answered, for which all
            of the text must fit.
        say: told where the text is read in parts, or the backbone hardly knows its script.

    Raises:
        UserError: not one part fits, or not all where all must.
    """
    tokens, context = backbone.tokens, backbone.geometry.context
    counted = known(tokens, text)
    if counted.note is not None:
        say(f"note: {counted.note}")
    # Inputs of a data file are as long as they are; whether a row fits is looked at by itself.
    taken = spec.answer_tokens + (spec.question_tokens + AROUND if makes else 0)
    chunks = chunks_of(tokens, text, spec.chunk or _chunk(context, taken))
    if context is None:
        return Source(text, tuple(chunks), len(chunks))
    lengths = sorted((len(tokens.plain(chunk)) + BETWEEN for chunk in chunks), reverse=True)
    fits = sum(sum(lengths[: n + 1]) <= context - taken for n in range(len(lengths)))
    what = (
        "teacher.question_tokens, teacher.answer_tokens and what stands around messages take"
        if makes
        else "teacher.answer_tokens takes"
    )
    beside = f"the {context:,} positions of '{backbone.name}' beside the {taken:,} that {what}"
    if not makes and fits < len(chunks):
        raise UserError(
            f"teacher: the text has {counted.tokens:,} tokens, which do not fit into {beside}; give"
            " a shorter text, or leave task.data.train out and conversations about its parts are "
            "made"
        )
    if not fits:
        room = context - taken - BETWEEN
        if room < LEAST:
            raise UserError(
                f"teacher.answer_tokens: no part of the text fits into {beside}; give smaller ones"
            )
        raise UserError(
            f"teacher.chunk: a part of the text of {lengths[0] - BETWEEN:,} tokens does not fit "
            f"into {beside}; give at most {room:,}, or smaller answers and questions"
        )
    if fits < len(chunks):
        say(
            f"note: the text has {counted.tokens:,} tokens, more than fit into the {context:,} "
            f"positions of '{backbone.name}': it is read in {len(chunks)} parts, at most {fits} of "
            "them at a time"
        )
    return Source(text, tuple(chunks), fits)


def _chunk(context: int | None, taken: int) -> int:
    """Tokens of a part, so that two fit beside what a question and its answer take."""
    if context is None:
        return CHUNK
    return max(LEAST, min(CHUNK, (context - taken) // 2 - BETWEEN))
