"""An example as text and as tokens that fit: what training, evaluation and serving share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foreword.backbone import Tokens
from foreword.errors import DataError, TemplateError, did_you_mean
from foreword.tasks import Example, Field, Template, linearise


@dataclass(frozen=True)
class Fitted:
    """Rendered inputs, and the indices of those that had to be cut."""

    sources: list[str]
    truncated: list[int]


@dataclass(frozen=True)
class TextTask:
    """Templates of a task and what gives way where an example is too long.

    Attributes:
        input: template of the source.
        target: template of the answer, with the slot `{reference}`.
        truncate: the field that is cut; None refuses.
    """

    input: Template
    target: Template
    truncate: str | None = None

    @classmethod
    def of(cls, input: str, target: str = "{reference}", truncate: str | None = None) -> TextTask:
        """Parse the templates.

        Raises:
            TemplateError: they do not parse, or do not go together.
        """
        task = cls(Template.parse(input), Template.parse(target), truncate)
        if "reference" not in task.target.slots:
            raise TemplateError(f"template {target!r}: the target needs the slot {{reference}}")
        if truncate is not None and truncate not in task.input.slots:
            raise TemplateError(
                f"truncate: '{truncate}' is no slot of the input {input!r}"
                f"{did_you_mean(truncate, task.input.slots)}"
            )
        return task

    def source(self, example: Example) -> str:
        """The rendered input."""
        return self._render(self.input, example, example.fields)

    def answer(self, example: Example, reference: str) -> str:
        """The rendered target."""
        return self._render(self.target, example, {**example.fields, "reference": reference})

    @staticmethod
    def _render(template: Template, example: Example, fields: Mapping[str, Field]) -> str:
        try:
            return template.render(fields)
        except TemplateError as error:
            raise TemplateError(
                f"{example.where}: {error}" if example.where else str(error)
            ) from error

    def as_json(self) -> dict[str, Any]:
        """What an artifact keeps."""
        return {
            "input": self.input.source,
            "target": self.target.source,
            "truncate": self.truncate,
        }

    def fit(
        self, tokens: Tokens, examples: Sequence[Example], room: int | None, *, reserve: int
    ) -> Fitted:
        """Render inputs, each with `reserve` tokens left of `room` for its answer.

        Raises:
            DataError: one is empty, or too long and `truncate` names no field.
        """
        sources: list[str] = []
        truncated: list[int] = []
        for example in examples:
            source = self.source(example)
            length = len(self._tokens(tokens, example, source))
            if room is not None and length + reserve > room:
                source = self._cut(tokens, example, room - reserve)
                truncated.append(len(sources))
            sources.append(source)
        return Fitted(sources, truncated)

    def pair(
        self, tokens: Tokens, example: Example, reference: str, room: int | None
    ) -> tuple[list[int], list[int], bool]:
        """Source tokens, target tokens, and whether the source was cut to fit `room`."""
        source = self._tokens(tokens, example, self.source(example))
        target = tokens.target(self.answer(example, reference))
        if room is None or len(source) + len(target) <= room:
            return source, target, False
        return tokens.source(self._cut(tokens, example, room - len(target))), target, True

    @staticmethod
    def _tokens(tokens: Tokens, example: Example, source: str) -> list[int]:
        """Tokens of a rendered input; without any there is nothing to read an answer from."""
        ids = tokens.source(source)
        if not ids:
            where = f"{example.where}: " if example.where else ""
            raise DataError(f"{where}the input is empty; it needs at least one token")
        return ids

    def _cut(self, tokens: Tokens, example: Example, room: int) -> str:
        where = f"{example.where}: " if example.where else ""
        length = len(tokens.source(self.source(example)))
        if self.truncate is None:
            raise DataError(
                f"{where}the input has {length} tokens, but the backbone's context leaves {room} "
                "for it after prompt and answer; shorten it, or name the field to cut in "
                "`task.truncate`"
            )
        ids = tokens.plain(linearise(example.fields[self.truncate]))
        keep = len(ids)
        while keep > 0:
            keep = max(0, keep - max(1, length - room))
            fields: Mapping[str, Field] = {**example.fields, self.truncate: tokens.text(ids[:keep])}
            source = self.input.render(fields)
            length = len(tokens.source(source))
            if 0 < length <= room:
                return source
        raise DataError(
            f"{where}too long even without the field '{self.truncate}': {length} tokens where "
            f"{room} are left"
        )
