"""The answers are the assistant's turns of a conversation, rendered by a chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from foreword.backbone import Backbone, Chats
from foreword.data import Example
from foreword.data.conversation import Conversation, spoken_by_user
from foreword.data.messages import conversation_of
from foreword.errors import ArtifactError, BackboneError, DataError
from foreword.recipe import TaskId
from foreword.tasks.rows import Row
from foreword.tasks.text import naming
from foreword.tasks.turn_rows import TurnRows, messages_of
from foreword.tasks.writing import WrittenTask
from foreword.templates.named import CHAT_TEMPLATES
from foreword.tuned import TunedModel


@dataclass(frozen=True)
class Turns(WrittenTask):
    """The assistant's turns of a conversation: all of them are trained, the next one is written.

    Attributes:
        messages: the column with the conversation.
        tools: the column with what the assistant may call, if there is one.
        chat_template: by name, what renders messages instead of the tokenizer's own.
        chat_options: what the chat template is told beside the messages.
        cuts: whether a message that does not fit into a window by itself is cut.
        max_tokens: of a window; what the backbone's context holds if not given.
    """

    messages: str
    tools: str | None = None
    chat_template: str | None = None
    chat_options: Mapping[str, str | bool | int | float] = field(default_factory=dict, hash=False)
    cuts: bool = False
    max_tokens: int | None = None
    text = None
    answer = "turns"

    @classmethod
    def of(cls, stated: TaskId) -> Turns:
        """The task as an artifact states it."""
        if stated.messages is None:
            raise ArtifactError("task.messages: names no column, which holds the conversation")
        return cls(
            stated.messages,
            stated.tools,
            stated.chat_template,
            stated.chat_options,
            stated.truncate is not None,
            stated.max_tokens,
        )

    @property
    def fields(self) -> tuple[str, ...]:
        """The columns that are read."""
        return (self.messages, *([] if self.tools is None else [self.tools]))

    @property
    def longest_input(self) -> int | None:
        """Most tokens of a window."""
        return self.max_tokens

    @property
    def cut_fields(self) -> tuple[str, ...]:
        """The conversation: its earlier exchanges, and where it may be cut a message."""
        return (self.messages,)

    def example(self, given: str | Mapping[str, Any], where: str = "") -> Example:
        """A conversation that is to be answered: what a user says, or a row with messages."""
        if isinstance(given, str):
            if not given.strip():
                raise DataError(f"{where}: is empty; expected what a user says")
            return Example({}, where=where, conversation=spoken_by_user(given))
        conversation = conversation_of(
            where, self.messages, given, tools=self.tools, answered=False
        )
        return Example({}, where=where, conversation=conversation)

    def of_messages(self, messages: Sequence[Any], where: str = "") -> Example:
        """A conversation that is to be answered."""
        return self.example({self.messages: list(messages)}, where)

    def input_line(self, example: Example) -> str:
        """What the user asked last."""
        return _conversation(example).last_question

    def rendered(self, backbone: Backbone, example: Example) -> str:
        """The conversation as the chat template has it."""
        chats = self.chats(backbone)
        return chats.whole(*messages_of(chats, _conversation(example)))

    def rows(
        self, model: TunedModel, example: Example, *, labelled: bool = True, reserve: int = 0
    ) -> list[Row]:
        """Rows that predict each turn of the assistant once; or the one that is answered, with
        `reserve` tokens left for the answer."""
        conversation = _conversation(example)
        chats = self.chats(model.backbone)
        made = TurnRows(model, chats, self.messages, self.max_tokens, self.cuts)
        with naming(example):
            if labelled:
                return made.trained(conversation)
            return [made.asked(conversation.open, reserve)]

    def usage(self, folder: str) -> str:
        """A command that asks an artifact of this task."""
        return f'foreword generate {folder} --text "..."'

    def notes(self, backbone: Backbone) -> list[str]:
        """What the chat template does that a reader of the data would not expect."""
        chats = self.chats(backbone)
        question, reply = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
        try:
            first = chats.spoken([question, reply])
            second = chats.spoken([question, reply, question, reply])
        except BackboneError:  # said of the first conversation, with its place
            return []
        lines, end = [], backbone.tokens.eos
        if end not in first.turn:
            lines.append(
                f"the chat template marks what is trained without the end token {end!r}, so "
                "nothing teaches where an answer ends"
                if first.closed
                else f"the chat template ends no answer with the end token {end!r}; it is put "
                "behind each that is trained"
            )
        if not second.text.startswith(first.text):
            lines.append(
                "the chat template renders earlier turns of the assistant otherwise than the last "
                "one, so each is trained in a row of its own, as it is written"
            )
        return lines

    def chats(self, backbone: Backbone) -> Chats:
        """What renders messages for a backbone."""
        name = self.chat_template
        source = None if name is None else CHAT_TEMPLATES[name].source
        return Chats(backbone.tokens, source, self.chat_options)


def _conversation(example: Example) -> Conversation:
    if example.conversation is None:
        raise DataError(f"{example.where}: has no conversation; read it with `messages`")
    return example.conversation
