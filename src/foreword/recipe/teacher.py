"""The `teacher` section of a recipe: a long text that the backbone reads, and a prompt learns."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, field_validator, model_validator

from foreword.common.bounds import Rows, Some, Temperature, Tokens
from foreword.common.choices import Data
from foreword.common.paths import checked_path

Kind = Literal["structuring", "summarization", "question", "use-case", "creative"]
"""What a question that is made is about (Eyuboglu et al. 2025, "Cartridges", self-study)."""
KINDS: tuple[Kind, ...] = get_args(Kind)
MESSAGES = "messages"
"""The column of the conversations that are made."""
FILES = ("texts", "prompt", "conversations")
"""Fields of the section that name a file, or several."""
_BUDGET = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h)")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
PathText = Annotated[str, AfterValidator(checked_path)]


class TeacherSpec(Data):
    """A text that the frozen backbone reads; what it then says is what is learned."""

    texts: tuple[PathText, ...] = Field(
        (), description="files of UTF-8 text that are learned, in their order"
    )
    prompt: PathText | None = Field(
        None,
        description="instead of `texts`: a file with an instruction or examples that are to be"
        " replaced by virtual tokens",
    )
    conversations: PathText | None = Field(
        None,
        description="JSONL file of conversations about the text, such as one that was made and then"
        " edited; null: the backbone makes them",
    )
    made: Some = Field(256, description="most conversations that are made, or inputs answered")
    held_out: Rows = Field(16, description="conversations that are made to be measured on")
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = Field(
        KINDS, description="what the questions are about, drawn at random"
    )
    chunk: Tokens | None = Field(
        None,
        description="most tokens of the part of the text that questions are made about; null: 512,"
        " or as many as fit twice into a shorter context",
    )
    together: Rows = Field(8, description="conversations that are made about a part at a time")
    question_tokens: Tokens = Field(64, description="most tokens of a question")
    answer_tokens: Tokens = Field(128, description="most tokens of an answer")
    asks: Literal["openings", "requests"] = Field(
        "openings",
        description="how questions come about: the backbone goes on with the user's first words, or"
        " it is asked to write a question, which a large model does well",
    )
    temperature: Temperature = Field(0.6, description="at which questions are drawn")
    answer_temperature: float = Field(
        0.0,
        ge=0,
        le=1e3,
        description="at which answers are drawn; 0: the likeliest token is written",
    )
    top_k: Some = Field(
        20,
        description="likeliest tokens that are kept of what the teacher says at each position; all"
        " others count as one",
    )
    budget: str | None = Field(
        None,
        description="most time for making conversations and training, such as 90s, 20m or 2h:"
        " fewer are made, and fewer steps trained; null: no limit",
    )

    @field_validator("texts", mode="before", json_schema_input_type=PathText | tuple[PathText, ...])
    @classmethod
    def _one_text_or_several(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str) else given

    @field_validator("kinds", mode="before", json_schema_input_type=Kind | tuple[Kind, ...])
    @classmethod
    def _one_kind_or_several(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str) else given

    @field_validator("budget", mode="before", json_schema_input_type=str | None)
    @classmethod
    def _a_time(cls, given: Any) -> Any:
        if isinstance(given, str) and (_match(given) is None or not seconds_of(given)):
            raise ValueError(f"expected a time such as 90s, 20m or 2h, found {given[:60]!r}")
        return given

    @model_validator(mode="after")
    def _one_source(self) -> TeacherSpec:
        if bool(self.texts) == (self.prompt is not None):
            raise ValueError("give either `texts` or `prompt`")
        if self.conversations is not None and self.says("made"):
            raise ValueError(
                "`made` is of conversations that are made, and `conversations` are learned as they "
                "are; leave one of them out (task.limits.train learns the first so many)"
            )
        return self

    @property
    def about_questions(self) -> tuple[str, ...]:
        """The options that say otherwise than by default how questions are made."""
        names = ("kinds", "chunk", "question_tokens", "asks", "temperature")
        return tuple(name for name in names if self.says(name))

    def says(self, option: str) -> bool:
        """Whether an option is another than by default."""
        return bool(getattr(self, option) != type(self).model_fields[option].default)

    @property
    def learned(self) -> tuple[str, ...]:
        """The files whose text is learned, in their order."""
        return self.texts if self.prompt is None else (self.prompt,)

    @property
    def files(self) -> dict[str, str]:
        """Key of the section -> the file that it names."""
        texts = {f"texts.{number}": path for number, path in enumerate(self.texts)}
        others = {"prompt": self.prompt, "conversations": self.conversations}
        return texts | {key: path for key, path in others.items() if path is not None}

    def moved(self, change: Callable[[str], str]) -> TeacherSpec:
        """The same section after one change of every path."""
        changed: dict[str, Any] = {
            key: change(path) for key, path in self.files.items() if key in FILES
        }
        if self.texts:
            changed["texts"] = tuple(map(change, self.texts))
        return self.model_copy(update=changed)

    @property
    def seconds(self) -> float | None:
        """The budget in seconds."""
        return None if self.budget is None else seconds_of(self.budget)


def seconds_of(budget: str) -> float:
    """A time such as 20m in seconds."""
    match = _match(budget)
    assert match is not None, "the section checks it"
    return float(match[1]) * _SECONDS[match[2]]


def _match(budget: str) -> re.Match[str] | None:
    return _BUDGET.fullmatch(budget.strip())
