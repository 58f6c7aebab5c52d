"""The teacher: the backbone with a text's keys and values in front of every row.

The text is read once; its keys and values are then a deep prompt of as many virtual tokens as the
text has tokens. Rows behind it have the positions that they would have behind the text, so that it
says just what the backbone says with the text in its context.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from foreword.axes.deltas import Frozen
from foreword.axes.injection.keys_values import KeysValues
from foreword.axes.placement.options import BeforeText
from foreword.axes.readout import Generation
from foreword.axes.reparam import ByPart
from foreword.backbone import Backbone, Chats
from foreword.backbone.layout import Pair
from foreword.data import Example
from foreword.errors import BackboneError, DataError, UserError
from foreword.methods import PrefixTuning
from foreword.tasks import Task
from foreword.tasks.turns import Turns
from foreword.templates import Chat
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose


@dataclass(frozen=True, eq=False)
class Teacher:
    """A backbone that reads a text before every row.

    Attributes:
        backbone: reads and says what comes next.
        front: the tokens of the text.
        drops: the beginning token, which rows behind the text do not have again.
    """

    backbone: Backbone
    front: tuple[int, ...]
    drops: int | None = None

    @cached_property
    def model(self) -> TunedModel:
        """The backbone with the text's keys and values as its prompt; the text is read here."""
        injection, length = KeysValues(self.backbone.geometry), len(self.front)
        named = injection.named_of(self.backbone.keys_values(list(self.front)))
        return TunedModel(
            self.backbone,
            reparam=ByPart.fixed(injection.parts(length), named),
            injection=injection,
            placement=BeforeText().build(self.backbone, length, "shift", {}),
            readout=Generation(),
            delta=Frozen(),
        )

    def pair(self, pair: Pair) -> Pair:
        """A student's row as it stands behind the text."""
        if self.drops is not None and pair.source[:1] == [self.drops]:
            return replace(pair, source=pair.source[1:])
        return pair

    def source(self, task: Task, example: Example, reserve: int) -> list[int]:
        """The tokens of an example that is answered, with so many left for the answer.

        Raises:
            DataError: it does not fit behind the text.
        """
        (row,) = task.rows(self.model, example, labelled=False, reserve=reserve)
        return self.pair(row.pair).source

    def check(self, pair: Pair, where: str) -> None:
        """Raise DataError where a row does not fit behind the text."""
        room = self.model.room(0)
        if room is not None and pair.length > room:
            raise DataError(
                f"{where}: has {pair.length:,} tokens, and {room:,} fit into the backbone's "
                f"context behind the text's {len(self.front):,}; shorten it, or give a smaller "
                "teacher.chunk or a shorter text"
            )


def check_can_teach(backbone: Backbone) -> None:
    """Raise UserError where a text cannot stand as keys and values before what is written."""
    if backbone.geometry.kind != "decoder":
        raise UserError(
            f"teacher: '{backbone.name}' ({backbone.model.config.model_type}) is an "
            f"{backbone.geometry.kind}; a text's keys and values teach a decoder alone"
        )
    compose(backbone, PrefixTuning(name="prefix-tuning", length=1))


class Fronts:
    """How a text stands before the rows of a task: as the system's message, where the task is one
    of conversations and the chat template shows such a message by itself; else as plain text.

    Args:
        backbone: reads it.
        task: whose rows follow.
        introduced: whether a line says that what follows is about the text.
    """

    def __init__(self, backbone: Backbone, task: Task, *, introduced: bool) -> None:
        self.backbone, self.introduced = backbone, introduced
        self.chats = chats_of(task, backbone)
        self.drops = self._begins()

    def ids(self, text: str) -> list[int]:
        """The tokens that stand before every row for a text."""
        shown = f"{text}\n\n{INTRODUCTION}" if self.introduced and self.chats else text
        if self.chats is not None:
            with_system = _as_system(self.chats, shown)
            if with_system is not None:
                return self.chats.read(with_system)
        return self.backbone.tokens.source(f"{shown}\n\n")

    def teacher(self, text: str) -> Teacher:
        """The backbone, once it has read a text."""
        return Teacher(self.backbone, tuple(self.ids(text)), self.drops)

    def _begins(self) -> int | None:
        """The token that begins a document once, if rows have one."""
        tokens = self.backbone.tokens
        if self.chats is None or self.chats.template is not None:
            return next(iter(tokens.source("")), None)
        begin = tokens.bos_id
        if begin is None:
            return None
        question, reply = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
        ids = self.chats.read(self.chats.begun([question, reply, question]))
        return begin if ids[:1] == [begin] and ids.count(begin) == 1 else None


def chats_of(task: Task, backbone: Backbone) -> Chats | None:
    """What renders the messages of a task; None where it reads plain text."""
    if isinstance(task, Turns):
        return task.chats(backbone)
    if task.text is not None and isinstance(task.text.input, Chat):
        return task.text.chats(backbone.tokens)
    return None


INTRODUCTION = "Answer questions about this text."
"""What is said behind a text that is learned."""


def _as_system(chats: Chats, text: str) -> str | None:
    """A text as the system's message by itself; None where the template shows none."""
    try:
        whole = chats.whole([{"role": "system", "content": text}])
    except BackboneError:
        return None
    return whole if text.strip() in whole else None
