"""Where a backbone reads a word that is missing in a pattern."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from foreword.backbone import Backbone, Tokens
from foreword.backbone.layout import Pair
from foreword.backbone.shapes import Kind
from foreword.data import Example
from foreword.errors import BackboneError, TemplateError
from foreword.tasks.rows import Row
from foreword.tasks.text import Room, Templates
from foreword.templates import Chat
from foreword.templates.template import excerpt
from foreword.tuned import TunedModel

_MASK = -1
"""Stands for the mask token while a row is made: a text may hold a mask token of its own."""


@dataclass(frozen=True)
class Slots:
    """Where a backbone reads a missing word.

    Attributes:
        masked: at mask tokens in what it reads; after it, if not.
        mask: the mask token.
        hole: what stands for `{mask}` where it is not masked.
        before: what the answer begins with.
    """

    masked: bool
    mask: int = 0
    hole: tuple[int, ...] = ()
    before: tuple[int, ...] = ()

    @classmethod
    def of(cls, backbone: Backbone, templates: Templates) -> Slots:
        """Where this backbone reads it.

        Raises:
            UserError: it cannot read a word there.
        """
        kind, tokens = backbone.geometry.kind, backbone.tokens
        if kind == "encoder":
            if templates.mask is None:
                raise TemplateError(
                    f"task.input: {excerpt(str(templates.input.source))} has no {{mask}}, where an "
                    "encoder reads a label word; add one"
                )
            if tokens.mask_id is None or backbone.model.get_output_embeddings() is None:
                missing = "mask token" if tokens.mask_id is None else "head over its vocabulary"
                raise BackboneError(
                    f"backbone: '{backbone.name}' ({backbone.model.config.model_type}) has no "
                    f"{missing}, so it reads no label words; give task.data.label without "
                    "task.verbalizer (a head), or a masked language model"
                )
            return cls(True, tokens.mask_id)
        if kind == "decoder":
            if templates.mask is not None:
                _at_the_end(templates)
            return cls(False)
        if templates.mask is None:
            return cls(False)
        sentinel = tokens.sentinel(0)
        if sentinel is None:
            raise BackboneError(
                f"backbone: '{backbone.name}' ({backbone.model.config.model_type}) has no sentinel "
                "<extra_id_0> to stand for {mask}; leave {mask} out, and the label word is read as "
                "the first of the answer"
            )
        return cls(False, 0, (sentinel,), (sentinel,))

    def row(
        self,
        model: TunedModel,
        templates: Templates,
        example: Example,
        tokens: int,
        labels: tuple[int, ...],
    ) -> Row:
        """An example as a row with room for a word of so many tokens."""
        room, hole = self._room(model, tokens)
        ids, segments, cut = templates.read(model.backbone, example, room, hole)
        marks = tuple(at for at, token in enumerate(ids) if token == _MASK)
        ids = [self.mask if token == _MASK else token for token in ids]
        return Row(Pair(ids, [], marks, labels, segments), cut)

    def windows(
        self, model: TunedModel, templates: Templates, example: Example, tokens: int, stride: int
    ) -> list[Example]:
        """An example as several with room for such a word, each with a window of what is too long;
        see `Templates.windows`."""
        room, hole = self._room(model, tokens)
        return templates.windows(model.backbone, example, room, stride, hole)

    def _room(self, model: TunedModel, tokens: int) -> tuple[Room, Sequence[int]]:
        """How much fits beside a word of so many tokens, and what stands in its place."""
        hole = [_MASK] * tokens if self.masked else self.hole
        behind = 0 if self.masked else len(self.before) + tokens - 1
        return (lambda more: model.room(more + behind)), hole

    def words(self, tokens: Tokens, kind: Kind, templates: Templates, written: str) -> list[int]:
        """A word's tokens where it would stand: after a blank or not."""
        mask = templates.mask
        if kind == "encoder-decoder":  # an answer begins with it
            return tokens.plain(written)
        spaced = not _ends_in_space(templates) if mask is None else mask.spaced
        first = mask is not None and any(
            part.pieces and mask is part.pieces[0] for part in templates.templates
        )
        if first and not spaced:
            return tokens.plain(written)
        return tokens.continued(f" {written}" if spaced else written)


def _ends_in_space(templates: Templates) -> bool:
    if not templates.templates:
        return True  # what a chat template ends with
    pieces = templates.templates[-1].pieces
    return bool(pieces) and isinstance(pieces[-1], str) and pieces[-1][-1:].isspace()


def _at_the_end(templates: Templates) -> None:
    last = templates.second or templates.input
    assert not isinstance(last, Chat)
    after = last.pieces[last.pieces.index(last.mask) + 1 :] if last.mask in last.pieces else (last,)
    if any(not isinstance(piece, str) or piece.strip() for piece in after):
        raise TemplateError(
            f"task.input: {excerpt(last.source)} goes on after {{mask}}, but a decoder reads its "
            "answer at the end; put {mask} last"
        )
