"""An example with its answer as one text, as few-shot prompting shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from foreword.backbone import Tokens
from foreword.data import Example, linearise
from foreword.data.example import Field
from foreword.errors import RecipeError
from foreword.methods.examples import ANSWER, CONTENT, FIXED, LABEL, TEMPLATE, Demonstration
from foreword.tasks.text import Templates
from foreword.templates import Template
from foreword.templates.template import FieldSlot


def demonstration(
    templates: Templates,
    tokens: Tokens,
    example: Example,
    answer: Sequence[int],
    answered: Sequence[int],
) -> Demonstration:
    """An example with the tokens of its answer and what each of them is of.

    A token of the input is content where a character of a field is in it.

    Raises:
        UserError: the input is no single text, lacks a field, or is too long.
    """
    input = _one_text(templates)
    fields = templates.fit(tokens, example, None).fields
    pieces: list[tuple[str, int]] = []
    for piece in input.pieces:
        if isinstance(piece, FieldSlot):
            pieces.append((linearise(fields[piece.name]), CONTENT))
        elif isinstance(piece, str):
            pieces.append((piece, TEMPLATE))
        elif pieces:  # the mask: a blank before it is its word's
            pieces[-1] = pieces[-1][0].rstrip(" "), pieces[-1][1]
    written = "".join(words for words, _ in pieces)
    ids, whole = tokens.plain(written), tokens.source(written)
    types = types_of(tokens, pieces, ids, CONTENT, TEMPLATE)
    return Demonstration(
        tuple(whole[: len(whole) - len(ids)]), (*ids, *answer), (*types, *answered)
    )


def target(
    templates: Templates, tokens: Tokens, example: Example, reference: str
) -> tuple[list[int], list[int]]:
    """The tokens of a written answer, and what each is of: the label where a character of the
    reference is in it.

    Raises:
        UserError: the input is no single text.
    """
    _one_text(templates)
    fields: Mapping[str, Field] = {**example.fields, "reference": reference}
    pieces = [
        (linearise(fields[piece.name]), LABEL if piece.name == "reference" else ANSWER)
        if isinstance(piece, FieldSlot)
        else (str(piece), ANSWER)
        for piece in templates.target.pieces
    ]
    ids = templates.answer(tokens, example, reference)
    return ids, [*types_of(tokens, pieces, ids[:-1], LABEL, ANSWER), FIXED]


def types_of(
    tokens: Tokens, pieces: Sequence[tuple[str, int]], ids: Sequence[int], inside: int, other: int
) -> list[int]:
    """Of each token of some pieces of text the type `found` if a character of such a piece is in
    it, `other` if not."""
    of = [kind for words, kind in pieces for _ in words]
    spans = tokens.spans("".join(words for words, _ in pieces), ids)
    return [inside if inside in of[begin:end] else other for begin, end in spans]


def _one_text(templates: Templates) -> Template:
    """The template of the only text that is read."""
    if not isinstance(templates.input, Template) or templates.second is not None:
        raise RecipeError(
            "recipe",
            [
                "task.input: messages, or two texts, cannot be shown with an answer as one text; "
                "give task.input as one text, without task.second"
            ],
        )
    return templates.input
