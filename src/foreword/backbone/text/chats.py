"""Messages as text, by a chat template: what the assistant reads, and what it writes after it.

A turn of the assistant is what the template puts after the messages before it, up to the end token;
or what its own `{% generation %}` marks, where it has such marks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from foreword.backbone.text.tokens import Tokens
from foreword.errors import BackboneError

Message = dict[str, Any]
"""`{"role": ..., "content": ...}` and what else a chat template knows."""
_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
Stretch = tuple[int, int]


@dataclass(frozen=True)
class Spoken:
    """A turn of the assistant after the messages before it, as text.

    Attributes:
        text: what comes before, and the turn.
        stretches: the characters of the turn, in one piece where the template marks none.
        closed: whether an end token is among them, or the template says what is trained: nothing
            need be added for the turn to end.
    """

    text: str
    stretches: tuple[Stretch, ...]
    closed: bool

    @property
    def before(self) -> str:
        """What is read before the turn."""
        return self.text[: self.stretches[0][0]]

    @property
    def turn(self) -> str:
        """What is written, from the beginning of the first piece to the end of the last one."""
        return self.text[self.stretches[0][0] :]


@dataclass(frozen=True)
class Chats:
    """A chat template, and the tokens of what it renders.

    Attributes:
        tokens: the backbone's.
        template: a template that stands for the tokenizer's own; the tokenizer then sets special
            tokens around a text as it does around any other, which its own template does itself.
        options: what the template is told beside the messages, such as `enable_thinking`.
    """

    tokens: Tokens
    template: str | None = None
    options: Mapping[str, str | bool | int | float] = field(default_factory=dict, hash=False)

    def source(self, tools: Sequence[Any] = ()) -> str:
        """The template, in Jinja: a tokenizer may have one of its own for messages with tools.

        Raises:
            BackboneError: the tokenizer has none.
        """
        tokenizer = self.tokens.tokenizer
        if self.template is not None:
            return self.template
        if not tokenizer.chat_template:
            raise BackboneError(
                "task.input: messages are read, but the backbone's tokenizer has no chat template; "
                "name one in task.chat_template, or give task.input as one text"
            )
        template: str = tokenizer.get_chat_template(None, list(tools) or None)
        return template

    @property
    def marks(self) -> bool:
        """Whether the template marks what is trained."""
        return _MARK.search(self.source()) is not None

    def begun(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> str:
        """Messages up to where the assistant begins.

        Raises:
            BackboneError: there is no chat template, or it refuses the messages.
        """
        return self._rendered(messages, tools, begin=True)[0]

    def whole(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> str:
        """Messages as they are, and no more.

        Raises:
            BackboneError: as `begun`.
        """
        return self._rendered(messages, tools, begin=False)[0]

    def spoken(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> Spoken:
        """The last message, which is the assistant's, after the others.

        Raises:
            BackboneError: as `begun`; or it cannot be told where the turn begins.
        """
        return self._marked(messages, tools) if self.marks else self.answer(messages, tools)

    def answer(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> Spoken:
        """The same, from where the assistant begins to the end token, whatever the template marks.

        Raises:
            BackboneError: as `spoken`.
        """
        begun, whole = self.begun(messages[:-1], tools), self.whole(messages, tools)
        if not whole.startswith(begun):
            raise BackboneError(
                "task.input: the tokenizer's chat template renders messages otherwise when an "
                "answer follows, so the assistant's turn cannot be told apart; name another one in "
                "task.chat_template, or give the tokenizer one that marks it with {% generation %}"
            )
        end = whole.rfind(self.tokens.eos, len(begun))
        closed = end >= 0
        whole = whole[: end + len(self.tokens.eos)] if closed else whole
        return Spoken(whole, ((len(begun), len(whole)),), closed)

    def read(self, text: str) -> list[int]:
        """Tokens of what is read.

        Raises:
            DataError: one of them has no row in the model's embedding table.
        """
        return self.tokens.plain(text) if self.template is None else self.tokens.source(text)

    def written(self, spoken: Spoken) -> list[int]:
        """Tokens of a turn that follows what was read, ended by an end token.

        Raises:
            DataError: as `read`.
        """
        tokens = self.tokens
        return tokens.written(spoken.turn) if spoken.closed else tokens.target(spoken.turn)

    def aligned(self, text: str) -> tuple[list[int], list[Stretch]]:
        """Tokens of what a decoder reads, and the characters that each covers; a special token
        before the text covers none.

        Raises:
            DataError: as `read`, or it cannot be told.
        """
        own = self.tokens.plain(text)
        ids = own if self.template is None else self.tokens.source(text)
        set_before = len(ids) - len(own)
        return ids, [(0, 0)] * set_before + self.tokens.spans(text, own)

    def _marked(self, messages: Sequence[Message], tools: Sequence[Any]) -> Spoken:
        text, marks = self._rendered(messages, tools, begin=False)
        before = len(self._rendered(messages[:-1], tools, begin=False)[1])
        own = tuple((begin, end) for begin, end in marks[before:] if begin < end)
        if not own:
            raise BackboneError(
                "task.input: the tokenizer's chat template has {% generation %}, but marks nothing "
                "of the assistant's last turn; name another one in task.chat_template"
            )
        return Spoken(text[: own[-1][1]], own, closed=True)

    def _rendered(
        self, messages: Sequence[Message], tools: Sequence[Any], *, begin: bool
    ) -> tuple[str, list[Stretch]]:
        """The text, and what of it the template marks."""
        source = self.source(tools)
        names = {**self.tokens.tokenizer.special_tokens_map, **self.options}
        known = tuple((name, str(value)) for name, value in names.items() if isinstance(value, str))
        if _takes_parts(source, known):
            messages = [_in_parts(message) for message in messages]
        marked = _MARK.search(source) is not None
        try:
            (text,), marks = render_jinja_template(
                conversations=[list(messages)],
                tools=list(tools) or None,
                chat_template=source,
                add_generation_prompt=begin,
                return_assistant_tokens_mask=marked,
                **names,
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise BackboneError(
                f"task.input: the tokenizer's chat template refuses these messages: {error}"
            ) from error
        return text, list(marks[0]) if marked else []


_PROBE = "foreword"


def _in_parts(message: Message) -> Message:
    """A message with its content as a list of parts, as models of pictures and text take it."""
    return {**message, "content": [{"type": "text", "text": message["content"]}]}


@lru_cache(maxsize=64)
def _takes_parts(source: str, variables: tuple[tuple[str, str], ...]) -> bool:
    """Whether a template shows a content of parts and passes over one that is a text."""
    message = {"role": "user", "content": _PROBE}

    def shows(message: Message) -> bool:
        try:
            (text,), _ = render_jinja_template(
                conversations=[[message]], chat_template=source, **dict(variables)
            )
        except (TemplateError, TypeError, ValueError):
            return False
        return _PROBE in text

    return not shows(message) and shows(_in_parts(message))
