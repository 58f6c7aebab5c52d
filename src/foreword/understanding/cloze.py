"""Tasks that a word answers which is missing in a pattern: a label's word, or any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from foreword.backbone import Backbone, Tokens
from foreword.backbone.geometry import Kind
from foreword.errors import BackboneError, DataError, TemplateError
from foreword.layout import Pair
from foreword.readout import AnyWord, Verbalizer
from foreword.readout.verbalizer import Words
from foreword.tasks import Chat, Example
from foreword.tasks.template import excerpt
from foreword.text import Room, TextTask
from foreword.understanding.base import Answered, HeadTask, Window

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
    def of(cls, backbone: Backbone, text: TextTask) -> Slots:
        """Where this backbone reads it.

        Raises:
            UserError: it cannot read a word there.
        """
        kind, tokens = backbone.geometry.kind, backbone.tokens
        if kind == "encoder":
            if text.mask is None:
                raise TemplateError(
                    f"task.input: {excerpt(str(text.input.source))} has no {{mask}}, where an "
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
            if text.mask is not None:
                _at_the_end(text)
            return cls(False)
        if text.mask is None:
            return cls(False)
        sentinel = tokens.sentinel(0)
        if sentinel is None:
            raise BackboneError(
                f"backbone: '{backbone.name}' ({backbone.model.config.model_type}) has no sentinel "
                "<extra_id_0> to stand for {mask}; leave {mask} out, and the label word is read as "
                "the first of the answer"
            )
        return cls(False, 0, (sentinel,), (sentinel,))

    def window(
        self,
        backbone: Backbone,
        text: TextTask,
        example: Example,
        room: Room,
        tokens: int,
        labels: tuple[int, ...],
    ) -> Window:
        """An example as a row with room for a word of so many tokens."""
        hole = [_MASK] * tokens if self.masked else self.hole
        behind = 0 if self.masked else len(self.before) + tokens - 1
        ids, segments, cut = text.read(backbone, example, lambda more: room(more + behind), hole)
        marks = tuple(at for at, token in enumerate(ids) if token == _MASK)
        ids = [self.mask if token == _MASK else token for token in ids]
        return Window(Pair(ids, [], marks, labels, segments), cut)

    def words(self, tokens: Tokens, kind: Kind, text: TextTask, written: str) -> list[int]:
        """A word's tokens where it would stand: after a blank or not."""
        mask = text.mask
        if kind == "encoder-decoder":  # an answer begins with it
            return tokens.plain(written)
        spaced = not _ends_in_space(text) if mask is None else mask.spaced
        first = mask is not None and any(
            part.pieces and mask is part.pieces[0] for part in text.templates
        )
        if first and not spaced:
            return tokens.plain(written)
        return tokens.continued(f" {written}" if spaced else written)


def _ends_in_space(text: TextTask) -> bool:
    if not text.templates:
        return True  # what a chat template ends with
    pieces = text.templates[-1].pieces
    return bool(pieces) and isinstance(pieces[-1], str) and pieces[-1][-1:].isspace()


def _at_the_end(text: TextTask) -> None:
    last = text.second or text.input
    assert not isinstance(last, Chat)
    after = last.pieces[last.pieces.index(last.mask) + 1 :] if last.mask in last.pieces else (last,)
    if any(not isinstance(piece, str) or piece.strip() for piece in after):
        raise TemplateError(
            f"task.input: {excerpt(last.source)} goes on after {{mask}}, but a decoder reads its "
            "answer at the end; put {mask} last"
        )


@dataclass(frozen=True)
class Cloze(HeadTask):
    """A label for a text, told by the word that is missing in a template (PET's patterns).

    Attributes:
        text: the pattern, and what gives way where it is too long.
        labels: in their order.
        words: of each label, as they are written.
        order: how a word of several tokens is read at masks.
        calibrated: whether a prior of the labels is taken off.
    """

    text: TextTask
    labels: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]
    order: Literal["joint", "max-first"] = "joint"
    calibrated: bool = False
    answer: Literal["label"] = "label"

    def readout(self, backbone: Backbone) -> Verbalizer:
        """The label words on this backbone.

        Raises:
            UserError: it cannot read them; two labels have the same word, or a word has no tokens.
        """
        slots = Slots.of(backbone, self.text)
        return Verbalizer(
            self.tokens(backbone),
            masked=slots.masked,
            before=slots.before,
            order=self.order,
            calibrated=self.calibrated,
        )

    def split_words(self, backbone: Backbone) -> list[str]:
        """What there is to say of the words: those of several tokens, and unknown ones."""
        slots = Slots.of(backbone, self.text)
        unknown = backbone.tokens.tokenizer.unk_token_id
        found = []
        for word in (word for label in self.words for word in label):
            ids = slots.words(backbone.tokens, backbone.geometry.kind, self.text, word)
            parts = backbone.tokens.tokenizer.convert_ids_to_tokens(ids)
            if unknown is not None and unknown in ids:
                found.append(f"label word {word!r} is not known to this tokenizer")
            elif len(ids) > 1:
                found.append(f"label word {word!r} is {len(ids)} tokens here: {' '.join(parts)}")
        return found

    def windows(
        self, backbone: Backbone, example: Example, room: Room, *, labelled: bool = True
    ) -> list[Window]:
        """One row; to tell a label at masks, one for each number of tokens that a word has."""
        slots = Slots.of(backbone, self.text)
        lengths = {len(word) for label in self.tokens(backbone) for word in label}
        labels = (self.label(example, example.label),) if labelled else ()
        masks = [max(lengths)] if labelled else sorted(lengths)
        return [
            slots.window(backbone, self.text, example, room, many, labels)
            for many in (masks if slots.masked else [max(lengths)])
        ]

    def told(
        self,
        backbone: Backbone,  # noqa: ARG002
        example: Example,  # noqa: ARG002
        windows: Sequence[Window],  # noqa: ARG002
        read: Sequence[Tensor],
    ) -> Answered:
        """The label whose words are the most probable."""
        words = iter(torch.stack(list(read)).double().nansum(0).tolist())
        scores = [sum(next(words) for _ in label) / len(label) for label in self.words]
        shares = torch.tensor(scores, dtype=torch.float64).softmax(0).tolist()
        probabilities = dict(zip(self.labels, shares, strict=True))
        best = max(probabilities, key=probabilities.__getitem__)
        return Answered(best, probabilities[best], probabilities)

    def label(self, example: Example, label: str | None) -> int:
        """The number of a label.

        Raises:
            DataError: the example has none, or one that has no words.
        """
        if label not in self.labels:
            raise DataError(
                f"{example.where}: the label {label!r} is none of {', '.join(self.labels)}; give "
                "it a word in task.verbalizer.words"
            )
        return self.labels.index(label)

    def tokens(self, backbone: Backbone) -> Words:
        """The words of each label as tokens.

        Raises:
            UserError: two labels have a word in common, or a word has no tokens.
        """
        slots = Slots.of(backbone, self.text)
        return _tokens_of(self, slots, backbone.tokens, backbone.geometry.kind)


@dataclass(frozen=True)
class MissingWord(HeadTask):
    """One word of one token, of all there are: a probe for facts (Petroni et al. 2019).

    Attributes:
        text: the pattern, and what gives way where it is too long.
        shown: how many of the most probable words an answer has probabilities of.
    """

    text: TextTask
    shown: int = 10
    labels: tuple[str, ...] = ()
    answer: Literal["word"] = "word"

    def readout(self, backbone: Backbone) -> AnyWord:
        """The whole vocabulary, where this backbone reads a missing word."""
        slots = Slots.of(backbone, self.text)
        return AnyWord(masked=slots.masked, before=slots.before)

    def windows(
        self, backbone: Backbone, example: Example, room: Room, *, labelled: bool = True
    ) -> list[Window]:
        """One row with one mask."""
        slots = Slots.of(backbone, self.text)
        labels: tuple[int, ...] = ()
        if labelled:
            word = example.references[0] if example.references else ""
            labels = tuple(self._ids(backbone, word))
            if len(labels) != 1:
                raise DataError(
                    f"{example.where}: the answer {word!r} is {len(labels)} tokens here, but a "
                    "missing word is one; leave such rows out"
                )
        return [slots.window(backbone, self.text, example, room, 1, labels)]

    def told(
        self,
        backbone: Backbone,
        example: Example,
        windows: Sequence[Window],  # noqa: ARG002
        read: Sequence[Tensor],
    ) -> Answered:
        """The most probable word, as the example spells it where that is the same token."""
        logs, ids = read[0].double().topk(min(self.shown, read[0].numel()))
        spelt = {tuple(self._ids(backbone, word)): word for word in example.references}
        words = [
            spelt.get((token,)) or backbone.tokens.tokenizer.decode([token]).strip()
            for token in ids.tolist()
        ]
        probabilities: dict[str, float] = {}
        for word, share in zip(words, logs.exp().tolist(), strict=True):
            probabilities[word] = probabilities.get(word, 0.0) + share
        return Answered(words[0], probabilities[words[0]], probabilities)

    def _ids(self, backbone: Backbone, word: str) -> list[int]:
        slots = Slots.of(backbone, self.text)
        return slots.words(backbone.tokens, backbone.geometry.kind, self.text, word)


@lru_cache(maxsize=64)
def _tokens_of(
    task: Cloze, slots: Slots, tokens: Tokens, kind: Kind
) -> tuple[tuple[tuple[int, ...], ...], ...]:
    owner: dict[tuple[int, ...], str] = {}
    found = []
    for label, words in zip(task.labels, task.words, strict=True):
        found.append([tuple(slots.words(tokens, kind, task.text, word)) for word in words])
        for word, ids in zip(words, found[-1], strict=True):
            if not ids:
                raise DataError(
                    f"task.verbalizer.words: {word!r} has no tokens in this vocabulary; name "
                    "another word"
                )
            if (other := owner.setdefault(ids, label)) != label:
                raise DataError(
                    f"task.verbalizer.words: {word!r} says both {other!r} and {label!r} in this "
                    "vocabulary; name another word for one of them"
                )
    return tuple(map(tuple, found))
