"""One thing to answer, with everything that is known about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from foreword.data.conversation import Conversation
from foreword.errors import UserError


@dataclass(frozen=True)
class Unusable:
    """A column that holds nothing a template can say. It matters where one names it.

    Attributes:
        problem: where it stands, what was expected and what was found.
        content: a hash that tells other content apart.
    """

    problem: str = field(compare=False)
    content: str


Field = str | dict[str, str] | Unusable
"""A field of an example: a text, or a record (names and values, in order)."""


@dataclass(frozen=True)
class Span:
    """A stretch of an example's context.

    Attributes:
        text: what stands there.
        start: its first character, counted from 0 in code points.
    """

    text: str
    start: int


@dataclass(frozen=True)
class Example:
    """One row of a data file, or several rows that ask the same.

    What is not asked is None: a text to write has `references`, a text to classify a `label` or
    `labels`, a text to rate a `number`, a question with its own answers `choices`, words to tag
    have `words` and `tags`, a question on a context has `spans`, a text to find others by has the
    `paired` ones; a turn of a `conversation` is a text to write, too.

    Attributes:
        fields: what templates may name. Words are there as `text`, joined by blanks; a question
            and its context as `question` and `context`.
        references: the acceptable answers as text; empty where there are none. A label is one, and
            so are the text of a span and the last answer of a conversation.
        group: the group it is reported under, if any.
        where: file and line it was read from, for messages.
        label: the class it belongs to.
        labels: the labels that it has, where it may have any number of them.
        number: what is to be told where that is a number; of a text with a paired one, how alike
            the two are.
        choices: the answers to choose among, where a row brings its own.
        right: which of them are right, by their numbers from 0; None where that is not known.
        words: what is tagged.
        tags: one a word, in IOB2 where they say entities.
        spans: where the acceptable answers stand in `context`; () where the question has none.
        paired: the texts that belong to it, where vectors are compared.
        conversation: the messages that the assistant's turns are learned from, and written after.
    """

    fields: Mapping[str, Field]
    references: tuple[str, ...] = ()
    group: str | None = None
    where: str = ""
    label: str | None = None
    labels: tuple[str, ...] | None = None
    number: float | None = None
    choices: tuple[str, ...] | None = None
    right: tuple[int, ...] | None = None
    words: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None
    spans: tuple[Span, ...] | None = None
    paired: tuple[str, ...] | None = None
    conversation: Conversation | None = None

    @property
    def record(self) -> dict[str, str] | None:
        """The first field that is a record; its values are what slot coverage looks for."""
        return next((value for value in self.fields.values() if isinstance(value, dict)), None)

    @property
    def asks_text(self) -> bool:
        """Whether a text is to be written, rather than a label, tags or a span to be told."""
        others = (self.label, self.labels, self.number, self.choices, self.words, self.spans)
        return all(part is None for part in (*others, self.paired))


def linearise(field: Field) -> str:
    """A field as text: a record becomes `name : X | Type : Y` (Li & Liang 2021, section 5.1).

    Raises:
        UserError: it is neither a text nor a record; the message says where it stands.
    """
    if isinstance(field, str):
        return field
    if isinstance(field, Unusable):
        raise UserError(field.problem)
    return " | ".join(f"{name} : {value}" for name, value in field.items())


def input_of(example: Example, names: Sequence[str] | None = None) -> str:
    """What an example asks, as one text: two that ask the same have the same.

    Args:
        example: of any kind.
        names: the fields that make its input, beside its choices; without them its words, or its
            question and context, or what a conversation says before its last answer, or all of its
            fields.
    """
    if names is None and example.conversation is not None:
        return example.conversation.asked.line
    if names is None and example.words is not None:
        return "\0".join(example.words)
    if names is None:
        names = ("question", "context") if example.spans is not None else tuple(example.fields)
    given = (example.fields.get(name) for name in names)
    fields = (
        field.content if isinstance(field, Unusable) else linearise(field)
        for field in given
        if field is not None
    )
    return "\0".join((*fields, *(example.choices or ())))
