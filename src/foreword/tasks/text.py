"""A task's templates: an example as text, and as tokens that fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from foreword.backbone import Backbone, Chats, Tokens
from foreword.backbone.text.encoding import with_texts_of
from foreword.data import Example, Field, linearise
from foreword.errors import BackboneError, DataError, TemplateError, did_you_mean
from foreword.templates import Chat, MaskSlot, Template, parse_input
from foreword.templates.named import CHAT_TEMPLATES
from foreword.templates.template import SoftSlot, excerpt

Room = Callable[[int], int | None]
"""How many tokens of source fit beside an answer of so many; None: any number."""
Written = str | Sequence[Mapping[str, str]]
"""A template as a recipe has it: a text with slots, or messages of such texts."""


@dataclass(frozen=True)
class Fitted:
    """An input that fits.

    Attributes:
        text: as rendered.
        tokens: its tokens.
        fields: what it was rendered from, cut to fit.
        cut: how many tokens were left out so that it fits.
    """

    text: str
    tokens: list[int]
    fields: Mapping[str, Field]
    cut: int = 0


@dataclass(frozen=True)
class Templates:
    """The templates of a task, and which field gives way where an example is too long.

    Attributes:
        input: template of the source, or messages that the tokenizer's chat template renders.
        target: template of the answer, with the slot `{reference}`.
        truncate: the field that is cut; None: those of the templates' `cut`, or none.
        second: template of a second text that the tokenizer joins to the input (a premise's
            hypothesis); None where there is one text.
        max_tokens: the longest input; the backbone's context if not given.
        chat_template: by name, what renders messages instead of the tokenizer's own.
        chat_options: what the chat template is told beside the messages.
    """

    input: Template | Chat
    target: Template
    truncate: str | None = None
    second: Template | None = None
    max_tokens: int | None = None
    chat_template: str | None = None
    chat_options: Mapping[str, str | bool | int | float] = field(default_factory=dict, hash=False)

    @classmethod
    def of(
        cls,
        input: Written,
        target: str = "{reference}",
        truncate: str | None = None,
        second: str | None = None,
        max_tokens: int | None = None,
        chat_template: str | None = None,
        chat_options: Mapping[str, str | bool | int | float] | None = None,
    ) -> Templates:
        """Parse the templates.

        Raises:
            TemplateError: they do not parse, or do not go together.
        """
        joined = None if second is None else Template.parse(second)
        task = cls(
            parse_input(input),
            Template.parse(target),
            truncate,
            joined,
            max_tokens,
            chat_template,
            chat_options or {},
        )
        if joined is not None and isinstance(task.input, Chat):
            raise TemplateError(
                "task.second: has no place beside messages; put it into one of them"
            )
        if "reference" not in task.target.slots or not task.target.plain:
            raise TemplateError(
                f"template {excerpt(target)}: the target needs the slot {{reference}}, and takes "
                "neither {soft} nor {mask}"
            )
        if task.target.cuts:
            raise TemplateError(
                f"template {excerpt(target)}: a target is never cut; write `cut` in task.input"
            )
        task._check_cuts()
        return task

    def _check_cuts(self) -> None:
        """Raise TemplateError where it is not clear what gives way first."""
        if self.truncate is not None and self.truncate not in self.slots:
            raise TemplateError(
                f"truncate: '{self.truncate}' is no slot of the input "
                f"{excerpt(str(self.input.source))}"
                f"{did_you_mean(self.truncate, self.slots)}"
            )
        written = [t.cuts for t in self._cut_in if t.cuts]
        if self.truncate is not None and written and written != [(self.truncate,)]:
            raise TemplateError(
                f"truncate: '{self.truncate}', but the template says with `cut` what gives way; "
                "leave task.truncate out"
            )
        by_number: dict[int, str] = {}
        for template in self._cut_in:
            for number, name in template.numbered:
                if by_number.setdefault(number, name) != name:
                    raise TemplateError(
                        f"template {excerpt(template.source)}: '{name}' has cut={number}, as "
                        f"'{by_number[number]}' has before it; give each field that gives way its "
                        "own number"
                    )
        if sum(t.mask is not None for t in self.templates) > 1:
            raise TemplateError("task.second: has a second {mask}; one is read, so leave one out")

    @property
    def templates(self) -> tuple[Template, ...]:
        """Those with slots of any kind."""
        first = () if isinstance(self.input, Chat) else (self.input,)
        return first if self.second is None else (*first, self.second)

    @property
    def _cut_in(self) -> tuple[Template, ...]:
        """Those whose fields may give way."""
        if isinstance(self.input, Chat):
            return tuple(content for _, content in self.input.messages)
        return self.templates

    @property
    def slots(self) -> tuple[str, ...]:
        """The fields that make the input, each once."""
        second = () if self.second is None else self.second.slots
        return tuple(dict.fromkeys((*self.input.slots, *second)))

    @property
    def cuts(self) -> tuple[str, ...]:
        """The fields that give way where all is too long, the first first."""
        if self.truncate is not None:
            return (self.truncate,)
        numbered = sorted(pair for t in self._cut_in for pair in t.numbered)
        return tuple(dict.fromkeys(name for _, name in numbered))

    @property
    def soft(self) -> int:
        """How many virtual tokens stand in the input."""
        return sum(template.soft for template in self.templates)

    @property
    def mask(self) -> MaskSlot | None:
        """Where an answer is read in the input, if it says so."""
        return next((t.mask for t in self.templates if t.mask is not None), None)

    def without_soft(self) -> Templates:
        """The same input without its virtual tokens."""
        first = self.input if isinstance(self.input, Chat) else self.input.without_soft()
        second = None if self.second is None else self.second.without_soft()
        return replace(self, input=first, second=second)

    def as_json(self) -> dict[str, Any]:
        """What an artifact keeps."""
        return {
            "input": self.input.source,
            "target": self.target.source,
            "truncate": self.truncate,
            **({} if self.second is None else {"second": self.second.source}),
        }

    def chats(self, tokens: Tokens) -> Chats:
        """What renders messages."""
        name = self.chat_template
        source = None if name is None else CHAT_TEMPLATES[name].source
        return Chats(tokens, source, self.chat_options)

    def source(self, tokens: Tokens, example: Example) -> tuple[str, list[int]]:
        """The rendered input and its tokens.

        Raises:
            TemplateError: the example lacks a field.
            DataError: there is not one token to read an answer from.
        """
        with naming(example):
            text, ids, _ = self._source(tokens, example.fields)
            if not ids:
                raise DataError("the input is empty; it needs at least one token")
            return text, ids

    def answer(self, tokens: Tokens, example: Example, reference: str) -> list[int]:
        """Tokens of the target, which for messages is the assistant's turn."""
        with naming(example):
            text = self.target.render({**example.fields, "reference": reference})
            if isinstance(self.input, Chat):
                turn = {"role": "assistant", "content": text}
                chats = self.chats(tokens)
                return chats.written(chats.answer([*self.input.render(example.fields), turn]))
            return tokens.target(text)

    def bare_answer(self, decoded: str) -> str:
        """A decoded text without the words that the target template puts around the reference."""
        before, after = self.target.around("reference")
        return decoded.removeprefix(before.strip()).removesuffix(after.strip()).strip()

    def fit(self, tokens: Tokens, example: Example, room: int | None) -> Fitted:
        """The rendered input and its tokens, at most `room` of them where that is not None.

        Raises:
            TemplateError: the example lacks a field.
            DataError: the input is empty, or too long and no field gives way.
        """
        text, ids = self.source(tokens, example)
        most, whole, fields = self._most(room), len(ids), example.fields
        if most is not None and whole > most:
            fields = self._shorter(tokens, example, whole, most)
            text, ids, _ = self._source(tokens, fields)
        return Fitted(text, ids, fields, whole - len(ids))

    def pair(
        self, tokens: Tokens, example: Example, reference: str, room: Room
    ) -> tuple[list[int], list[int], int]:
        """Source tokens, target tokens, and how many source tokens were left out to fit."""
        target = with_texts_of(
            lambda: self.answer(tokens, example, reference), lambda: self.source(tokens, example)
        )
        with naming(example):
            left = room(len(target))
        fitted = self.fit(tokens, example, left)
        return fitted.tokens, target, fitted.cut

    def read(
        self, backbone: Backbone, example: Example, room: Room, hole: Sequence[int] = ()
    ) -> tuple[list[int], tuple[int, ...], int]:
        """An input that a head or label words answer: its tokens, the text that each belongs to
        where the backbone tells two apart, and how many tokens were left out to fit.

        Args:
            hole: the ids that stand for `{mask}`.

        Raises:
            TemplateError: the example lacks a field.
            DataError: it is empty, or too long and `truncate` names no field.
        """
        tokens, fields = backbone.tokens, example.fields
        with naming(example):
            _, ids, segments = self._source(tokens, fields, hole)
            if not ids:
                raise DataError("the input is empty; it needs at least one token")
        most, whole = self._most(room(0)), len(ids)
        if most is not None and whole > most:
            fields = self._shorter(tokens, example, whole, most, hole)
            _, ids, segments = self._source(tokens, fields, hole)
        return ids, tuple(segments) if backbone.tells_texts_apart else (), whole - len(ids)

    def windows(
        self,
        backbone: Backbone,
        example: Example,
        room: Room,
        stride: int,
        hole: Sequence[int] = (),
    ) -> list[Example]:
        """An example as several that fit, each with a window of the first field that gives way;
        the example itself where it fits.

        Args:
            stride: tokens that neighbouring windows share; at most half of a window.
            hole: see `read`.

        Raises:
            TemplateError: the example lacks a field, or the templates do not say what gives way.
            DataError: it is too long even without that field.
        """
        tokens, most = backbone.tokens, self._most(room(0))

        def length(one: Example) -> int:
            return len(self._source(tokens, one.fields, hole)[1])

        with naming(example):
            excess = 0 if most is None else length(example) - most
            if most is None or excess <= 0:
                return [example]
            name = self.cuts[0]
            text = linearise(example.fields[name])
            keep = len(tokens.plain(text))
            while (keep := keep - excess) > 0:
                windows = [
                    replace(example, fields={**example.fields, name: text[begin:end]})
                    for begin, end in tokens.stretches(text, keep, min(stride, keep // 2))
                ]
                excess = max(map(length, windows)) - most
                if excess <= 0:
                    return windows
            raise DataError(
                f"too long even without the field '{name}', of which windows are read: {most} "
                "tokens are left for the input"
            )

    def _source(
        self, tokens: Tokens, fields: Mapping[str, Field], hole: Sequence[int] = ()
    ) -> tuple[str, list[int], list[int]]:
        """The input as text and as tokens, and which of two texts each token belongs to.

        Virtual tokens have the ids from the vocabulary's size on, in their order.
        """
        if not all(template.plain for template in self.templates):
            return self._filled(tokens, fields, hole)
        if isinstance(self.input, Chat):
            chats = self.chats(tokens)
            text = chats.begun(self.input.render(fields))
            return text, chats.read(text), []
        text = self.input.render(fields)
        if self.second is None:
            return text, tokens.source(text), []
        second = self.second.render(fields)
        return f"{text}\n{second}", *tokens.pair(text, second)

    def _filled(
        self, tokens: Tokens, fields: Mapping[str, Field], hole: Sequence[int]
    ) -> tuple[str, list[int], list[int]]:
        virtual = count(tokens.virtual)
        texts: list[list[str | int]] = []
        for template in self.templates:
            texts.append([])
            for part in template.fill(fields):
                match part:
                    case SoftSlot(count=many):
                        texts[-1] += [next(virtual) for _ in range(many)]
                    case MaskSlot():
                        texts[-1] += hole
                    case _:
                        texts[-1].append(part)
        ids, segments = tokens.filled(*texts)
        return "\n".join(t.render(fields) for t in self.templates), ids, segments

    def _most(self, room: int | None) -> int | None:
        """The longest input, where so much is left for it."""
        limits = [limit for limit in (room, self.max_tokens) if limit is not None]
        return min(limits, default=None)

    def _shorter(
        self,
        tokens: Tokens,
        example: Example,
        length: int,
        room: int,
        hole: Sequence[int] = (),
    ) -> Mapping[str, Field]:
        """The fields, those that give way cut in their order until all fit."""
        with naming(example):
            if not self.cuts:
                what = (
                    f"task.max_tokens is {room}"
                    if room == self.max_tokens
                    else f"the backbone's context leaves {room} for it after prompt and answer"
                )
                raise DataError(
                    f"the input has {length} tokens, but {what}; shorten it, or name the field to "
                    "cut in `task.truncate`"
                )
            fields = dict(example.fields)
            for name in self.cuts:
                field = tokens.plain(linearise(fields[name]))
                keep = len(field)
                while keep > 0:
                    keep = max(0, keep - max(1, length - room))
                    fields[name] = tokens.text(field[:keep])
                    length = len(self._source(tokens, fields, hole)[1])
                    if 0 < length <= room:
                        return fields
            named = " and ".join(f"'{name}'" for name in self.cuts)
            raise DataError(
                f"too long even without the field {named}: {length} tokens where {room} are left"
            )


@contextmanager
def naming(example: Example) -> Iterator[None]:
    """Put the place of an example before the message of its mistake."""
    try:
        yield
    except (BackboneError, DataError, TemplateError) as error:
        raise type(error)(f"{example.where}: {error}" if example.where else str(error)) from error
