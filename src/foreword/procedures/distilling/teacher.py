"""The teacher: the backbone with a text's keys and values in front of every row.

The text is read once; its keys and values are then a deep prompt of as many virtual tokens as the
text has tokens. Rows behind it have the positions that they would have behind the text, so that it
says just what the backbone says with the text in its context.

Before a conversation the text is the system's message, or where the chat template has none the
beginning of the user's first one; before other inputs it stands as it is. The student reads the
same rows without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from foreword.axes.deltas import Frozen
from foreword.axes.injection.keys_values import KeysValues
from foreword.axes.placement.options import BeforeText
from foreword.axes.readout import Generation
from foreword.axes.reparam import ByPart
from foreword.backbone import Backbone, Chats
from foreword.backbone.layout import Pair
from foreword.data import Example
from foreword.data.conversation import Conversation, Turn, spoken_by_user
from foreword.errors import BackboneError, DataError, RecipeError, UserError
from foreword.methods import HardPrompt, PrefixTuning
from foreword.procedures.distilling.texts import beginning
from foreword.tasks import Task
from foreword.templates import Chat, Template
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose

INTRODUCTION = "You are a helpful assistant. You answer questions about this text."
"""What is said before a text that is learned."""
MORE = 8
"""Tokens beyond those that a start needs: a text that is cut may have fewer of them than it had."""
Place = Literal["system", "user", "before"]
"""Where a text stands: as the system's message, in the user's first one, or before all else."""


@dataclass(frozen=True, eq=False)
class Teacher:
    """A backbone that reads a text before every row.

    Attributes:
        backbone: reads and says what comes next.
        task: makes the rows, the text in them.
        front: the tokens with which every row begins: the text, and what stands around it.
        text: what is put before a conversation.
        place: where the text stands.
    """

    backbone: Backbone
    task: Task
    front: tuple[int, ...]
    text: str = ""
    place: Place = "before"

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

    def source(self, example: Example, reserve: int) -> list[int]:
        """The tokens of an example that is answered, as they stand behind the text.

        Args:
            example: its answer is not looked at.
            reserve: tokens that are left for the answer.

        Raises:
            DataError: it does not fit behind the text.
        """
        (pair,) = self._behind(example, labelled=False, reserve=reserve)
        return pair.source

    def continued(self, text: str) -> list[int]:
        """The tokens of a conversation that the user begins with some words and has not ended, as
        they stand behind the text."""
        chats = self.task.chats(self.backbone)
        assert chats is not None, "only in conversations does a user speak"
        conversation = _with_text(spoken_by_user(_PROBE), self.text, self.place)
        begun = chats.begun(_plain(conversation))
        ids = chats.read(begun[: begun.rindex(_PROBE)] + text)
        return self._without_front(ids, "a question")

    def pairs(self, example: Example) -> list[Pair]:
        """The rows of an example with its answers, as they stand behind the text.

        Raises:
            DataError: it does not fit behind the text.
        """
        pairs = self._behind(example, labelled=True)
        room = self.model.room(0)
        longest = max(pair.length for pair in pairs)
        if room is not None and longest > room:
            raise DataError(
                f"{example.where}: has {longest:,} tokens, and {room:,} fit into the backbone's "
                f"context behind the text's {len(self.front):,}; shorten it, or give a smaller "
                "teacher.chunk or a shorter text"
            )
        return pairs

    def _behind(self, example: Example, *, labelled: bool, reserve: int = 0) -> list[Pair]:
        """The rows of an example without the tokens that all have in common."""
        if self.place == "before":
            rows = self.task.rows(self.model, example, labelled=labelled, reserve=reserve)
            # A document begins once.
            drops = len(self.backbone.tokens.source(""))
            return [replace(row.pair, source=row.pair.source[drops:]) for row in rows]
        if example.conversation is not None:
            whole = _with_text(example.conversation, self.text, self.place, example.where)
            example = replace(example, conversation=whole)
        rows = self.task.rows(self._bare, example, labelled=labelled, reserve=reserve)
        return [
            replace(row.pair, source=self._without_front(row.pair.source, example.where))
            for row in rows
        ]

    @cached_property
    def _bare(self) -> TunedModel:
        return compose(self.backbone, HardPrompt(name="hard-prompt"))

    def _without_front(self, ids: list[int], where: str) -> list[int]:
        if tuple(ids[: len(self.front)]) != self.front:
            raise DataError(
                f"{where}: with the teacher's text before it, it is too long for one window, or "
                "its tokens are others than those of the text alone; shorten it"
            )
        return ids[len(self.front) :]


def check_can_teach(backbone: Backbone) -> None:
    """Raise UserError where a text cannot stand as keys and values before what is written."""
    if backbone.geometry.kind != "decoder":
        raise UserError(
            f"teacher: '{backbone.name}' ({backbone.model.config.model_type}) is an "
            f"{backbone.geometry.kind}; a text's keys and values teach a decoder alone"
        )
    compose(backbone, PrefixTuning(name="prefix-tuning", length=1))


@dataclass(frozen=True)
class Fronts:
    """How texts stand before the rows of a task.

    Attributes:
        backbone: reads them.
        task: whose rows follow.
        introduced: whether a line says before a text that what follows is about it.
    """

    backbone: Backbone
    task: Task
    introduced: bool

    def teacher(self, text: str) -> Teacher:
        """The backbone that reads a text.

        Raises:
            RecipeError: the input has a system's message of its own.
        """
        shown = f"{INTRODUCTION}\n\n{text}" if self.introduced else text
        if not self._of_messages:
            front = self.backbone.tokens.source(f"{shown}\n\n")
            return Teacher(self.backbone, self.task, tuple(front), shown)
        place = self.place
        task = _with_text_in_input(self.task, shown, place)
        return Teacher(self.backbone, task, self._front(shown, place), shown, place)

    def words(self, text: str, most: int) -> str:
        """How rows with a text begin, as text: of a few tokens more than so many."""
        shown = f"{INTRODUCTION}\n\n{text}" if self.introduced else text
        if self._of_messages:
            conversation = _with_text(spoken_by_user(_PROBE), shown, self.place)
            begun = self._chats.begun(_plain(conversation))
            shown = begun[: begun.rindex(_PROBE)]
        return beginning(self.backbone.tokens, shown, most + MORE)

    @cached_property
    def place(self) -> Place:
        """Where a text stands in messages."""
        probe = [{"role": "system", "content": _PROBE}, {"role": "user", "content": "a"}]
        try:
            shows = _PROBE in self._chats.begun(probe)
        except BackboneError:
            shows = False
        return "system" if shows else "user"

    @property
    def _of_messages(self) -> bool:
        return self.task.chats(self.backbone) is not None

    @cached_property
    def _chats(self) -> Chats:
        chats = self.task.chats(self.backbone)
        assert chats is not None, "it has messages"
        return chats

    def _front(self, text: str, place: Place) -> tuple[int, ...]:
        """The tokens that rows with this text have in common, however they go on."""
        rows = []
        for question in ("a", "1", "Why"):
            conversation = _with_text(spoken_by_user(question), text, place)
            rows.append(self._chats.read(self._chats.begun(_plain(conversation))))
        first, *others = rows
        same = 0
        while all(row[same : same + 1] == first[same : same + 1] for row in others):
            same += 1
        return tuple(first[:same])


_PROBE = "foreword"


def _plain(conversation: Conversation) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.content} for turn in conversation.turns]


def _with_text(
    conversation: Conversation, text: str, place: Place, where: str = ""
) -> Conversation:
    """A conversation with a text before it."""
    first, *others = conversation.turns
    if first.role == "system":
        raise DataError(
            f"{where}: has a system's message, whose place the teacher's text takes; leave it out, "
            "or put it into the text"
        )
    if place == "system":
        return replace(conversation, turns=(Turn("system", text), first, *others))
    changed = replace(first, content=f"{text}\n\n{first.content}")
    return replace(conversation, turns=(changed, *others))


def _with_text_in_input(task: Task, text: str, place: Place) -> Task:
    """A task whose messages have a text before them; one of conversations is as it was."""
    if task.text is None or not isinstance(task.text.input, Chat):
        return task
    messages: Sequence[tuple[str, Template]] = task.text.input.messages
    role, content = messages[0]
    if role == "system":
        raise RecipeError(
            "recipe",
            [
                "task.input: has a system's message, whose place the teacher's text takes; leave it"
                " out, or put it into the text"
            ],
        )
    if place == "system":
        changed = Chat((("system", Template(text, (text,))), *messages))
    else:
        pieces = content.pieces
        begins = pieces[0] if pieces and isinstance(pieces[0], str) else ""
        rest = pieces[1:] if begins else pieces
        first = Template(f"{text}\n\n{content.source}", (f"{text}\n\n{begins}", *rest))
        changed = Chat(((role, first), *messages[1:]))
    return replace(task, text=replace(task.text, input=changed))  # type: ignore[type-var]
