"""The text that is taught, in parts, and how many of them a backbone can read at a time."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from foreword.backbone import Backbone
from foreword.errors import UserError
from foreword.procedures.distilling.texts import chunks_of, known
from foreword.recipe.teacher import TeacherSpec

AROUND = 128
"""Tokens that are kept free for what a chat template puts around messages, and for a request."""


@dataclass(frozen=True)
class Source:
    """The text that is taught.

    Attributes:
        chunks: its parts, in their order.
        fits: how many of them fit before a question and its answer.
    """

    chunks: tuple[str, ...]
    fits: int

    @property
    def whole(self) -> bool:
        """Whether all of it fits."""
        return self.fits >= len(self.chunks)

    def text(self, numbers: Sequence[int]) -> str:
        """Some parts as one text."""
        return "\n\n".join(self.chunks[number] for number in numbers)

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
    chunks = chunks_of(tokens, text, spec.chunk)
    if context is None:
        return Source(tuple(chunks), len(chunks))
    # Inputs of a data file are as long as they are; whether a row fits is looked at by itself.
    taken = spec.answer_tokens + (spec.question_tokens + AROUND if makes else 0)
    lengths = sorted((len(tokens.plain(chunk)) + 2 for chunk in chunks), reverse=True)
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
        raise UserError(
            f"teacher.chunk: a part of the text of {lengths[0]:,} tokens does not fit into "
            f"{beside}; give a smaller one"
        )
    if fits < len(chunks):
        say(
            f"note: the text has {counted.tokens:,} tokens, more than fit into the {context:,} "
            f"positions of '{backbone.name}': it is read in {len(chunks)} parts, at most {fits} of "
            "them at a time"
        )
    return Source(tuple(chunks), fits)
