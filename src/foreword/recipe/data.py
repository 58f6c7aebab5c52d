"""The `task.data` and `task.limits` sections of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from foreword import names
from foreword.common.bounds import Column, Seed, Some
from foreword.common.choices import Data
from foreword.common.paths import checked_path
from foreword.data.answers import RIGHT
from foreword.data.lines import check_encoding
from foreword.errors import DataError, TemplateError
from foreword.templates.template import Template

ANSWER_COLUMNS: dict[str, names.Answer] = {
    kind.column: answer for answer, kind in names.ANSWERS.items() if kind.column is not None
}
"""Key of `task.data` that names a column of answers -> what such a column asks for."""

SPLITS: tuple[Literal["train", "dev", "test"], ...] = ("train", "dev", "test")
FILES = (*SPLITS, "unlabelled")
"""Fields of `task.data` that name a file of examples."""
IDS = tuple(f"only.{split}.ids" for split in SPLITS)
"""Keys of `task.data` that name a file of ids."""

ChoiceColumns = Annotated[
    Annotated[str, Tag("<text>")]
    | Annotated[tuple[str, ...], Field(min_length=2), Tag("<columns>")],
    Discriminator(lambda value: "<columns>" if isinstance(value, list | tuple) else "<text>"),
]
"""A column, or several."""


class Subset(Data):
    """Which documents of XSUM one split has."""

    sections: tuple[str, ...] = Field((), description="the BBC's, such as world or sport")
    ids: str | None = Field(None, description="file of ids, one a line")

    @field_validator("ids")
    @classmethod
    def _a_path(cls, path: str | None) -> str | None:
        return path if path is None else checked_path(path)


class Only(Data):
    """Which documents of XSUM each split has."""

    train: Subset = Subset()
    dev: Subset = Subset()
    test: Subset = Subset()

    def moved(self, change: Callable[[str], str]) -> Only:
        """The same after one change of every path."""
        subsets = {split: getattr(self, split) for split in SPLITS}
        return self.model_copy(
            update={
                split: subset.model_copy(update={"ids": change(subset.ids)})
                for split, subset in subsets.items()
                if subset.ids is not None
            }
        )


class DataSpec(Data):
    """Where examples come from."""

    format: names.Format = Field(
        description="; ".join(f"{name}: {known.what}" for name, known in names.FORMATS.items())
    )
    train: str | None = Field(
        None, description="training file; foreword/... names are bundled, hub:... the hub's"
    )
    dev: str | None = None
    test: str | None = None
    unlabelled: str | None = Field(
        None,
        description="file of inputs alone, for methods that learn from them; null: the training"
        " examples that `task.limits` leaves out",
    )
    hold_out: float | None = Field(
        None,
        gt=0,
        le=1e9,
        description="instead of `dev`: how many training examples are kept for it, or below 1 the"
        " share of them; chosen by the seed",
    )
    hold_out_seed: Seed | None = Field(
        None,
        description="chooses what is held out, in place of the run's seed: runs with other seeds"
        " are measured on the same",
    )
    hold_out_whole: bool = Field(
        False,
        description="hold out only inputs that stand inside no other, and train on none that stands"
        " inside one of them",
    )
    without: dict[str, tuple[str, ...]] = Field(
        {},
        description="column -> values: such rows are not trained on, and results are reported apart"
        " for them",
    )
    references: str = Field("references", description="column with the answer, or a list of them")
    label: str | None = Field(None, description="column with the class, where rows are classified")
    messages: str | None = Field(
        None,
        min_length=1,
        description="column with a conversation, a list of messages; every turn of the assistant is"
        " trained",
    )
    tools: str | None = Field(
        None,
        min_length=1,
        description="messages: column with the tools that the assistant may call, as the chat"
        " template takes them",
    )
    measured: Literal["last", "each"] = Field(
        "last", description="messages: which turns of the assistant are measured"
    )
    label_list: str | None = Field(
        None, description="column with any number of labels: a list, or a text with a `separator`"
    )
    separator: str | None = Field(
        None, min_length=1, description="what stands between the labels of a text"
    )
    number: str | None = Field(None, description="column with a number that is to be told")
    choices: ChoiceColumns | None = Field(
        None,
        description="column with a list of answers to choose among, or columns with one each",
    )
    right: str = Field(
        RIGHT,
        description="column that says which of the choices is right: a number from 0, a text, or a"
        " list of such",
    )
    paired: str | None = Field(
        None,
        min_length=1,
        description="column with a text that belongs to the row's own, or a list of such, where"
        " vectors of texts are learned",
    )
    similarity: str | None = Field(
        None,
        min_length=1,
        description="paired: column with a number that says how alike the two texts are",
    )
    group: str | None = Field(None, description="column by which results are also reported apart")
    encoding: str = Field(
        "utf-8",
        description="encoding of text files, such as gb18030, big5 or utf-16; data of foreword/ and"
        " of the hub have their own",
    )
    words: Column = Field(1, description="conll: column with the words, from 1")
    tags: Column | None = Field(None, description="conll: column with the tags; default: last")
    only: Only | None = Field(None, description="xsum: which documents each split has")

    @field_validator(*FILES)
    @classmethod
    def _a_path(cls, path: str | None) -> str | None:
        return path if path is None else checked_path(path)

    @field_validator("encoding")
    @classmethod
    def _an_encoding(cls, name: str) -> str:
        try:
            check_encoding(name)
        except DataError as error:
            raise ValueError(str(error).removeprefix("encoding: ")) from error
        return name

    @field_validator("hold_out")
    @classmethod
    def _a_number_or_a_share(cls, amount: float | None) -> float | None:
        if amount is not None and amount >= 1 and amount != int(amount):
            raise ValueError("expected a whole number, or a share below 1")
        return amount

    @model_validator(mode="after")
    def _rules(self) -> DataSpec:
        if self.hold_out is not None and self.dev is not None:
            raise ValueError("give either `dev` or `hold_out`")
        if self.hold_out is None and (self.hold_out_whole or self.hold_out_seed is not None):
            raise ValueError("`hold_out_seed` and `hold_out_whole` are for `hold_out`: give it")
        if self.without and self.group is not None:
            raise ValueError("give either `group` or `without`, which makes groups of its own")
        if self.only is not None and self.format != "xsum":
            raise ValueError("`only` is for `format: xsum`")
        if (self.words != 1 or self.tags is not None) and self.format != "conll":
            raise ValueError("`words` and `tags` are for `format: conll`")
        if self.messages is None and (self.tools is not None or self.measured != "last"):
            raise ValueError("`tools` and `measured` are for conversations: give `messages`")
        if self.tools is not None and self.tools == self.messages:
            raise ValueError(f"`tools` and `messages` both name the column '{self.tools}'")
        if self.right != RIGHT and self.choices is None:
            raise ValueError("`right` is for choices: give `choices`")
        if self.similarity is not None and self.paired in (None, self.similarity):
            raise ValueError("`similarity` is of a row's text and another: give `paired`")
        given = [column for column in ANSWER_COLUMNS if getattr(self, column) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of {', '.join(f'`{column}`' for column in given)}")
        if self.separator is not None and self.label_list is None:
            raise ValueError("`separator` is for several labels a row: give `label_list`")
        if given and not names.FORMATS[self.format].table:
            raise ValueError(f"`{given[0]}` is for the formats {', '.join(names.tables())}")
        return self

    @property
    def files(self) -> dict[str, str]:
        """Key of the section -> the file of examples or of ids that it names."""
        named = {field: getattr(self, field) for field in FILES}
        if self.only is not None:
            ids = (getattr(self.only, split).ids for split in SPLITS)
            named |= dict(zip(IDS, ids, strict=True))
        return {key: path for key, path in named.items() if path is not None}

    def moved(self, change: Callable[[str], str]) -> DataSpec:
        """The same section after one change of every path."""
        changed: dict[str, Any] = {
            key: change(path) for key, path in self.files.items() if key in FILES
        }
        if self.only is not None:
            changed["only"] = self.only.moved(change)
        return self.model_copy(update=changed)

    @property
    def answer(self) -> names.Answer:
        """What the examples ask for."""
        return answer_of(self.model_dump(include={"format", *ANSWER_COLUMNS}))

    def options(self, split: Literal["train", "dev", "test"]) -> dict[str, Any]:
        """What `foreword.data.read_data` is told of a split, beside its path and format."""
        subset = getattr(self.only, split) if self.only is not None else Subset()
        columns = {name: getattr(self, name) for name in names.COLUMNS}
        return {
            **columns,
            "sections": subset.sections,
            "ids": subset.ids,
            "encoding": self.encoding,
        }


def leaves_room(template: Any) -> bool:
    """Whether an input has a {mask}."""
    try:
        return isinstance(template, str) and Template.parse(template).mask is not None
    except TemplateError:
        return False


def answer_of(data: Mapping[str, Any]) -> names.Answer:
    """What the examples of a `task.data` section ask for: what its format does, or in a table what
    the column that it names does; its values may be of any type."""
    format = data.get("format")
    known = names.FORMATS.get(format) if isinstance(format, str) else None
    if known is not None and known.asks != "text":
        return known.asks
    named = (kind for column, kind in ANSWER_COLUMNS.items() if data.get(column) is not None)
    return next(named, "text")


class Limits(Data):
    """How much of each file is used, from its beginning; `sample` and `per_label` draw instead."""

    train: Some | None = Field(
        None,
        description="training pairs (references); beside `per_label`, most examples in all",
    )
    per_label: Some | None = Field(
        None,
        description="few-shot: so many training examples of each label, drawn by the seed, or by"
        " `sample`",
    )
    sample: Seed | None = Field(
        None,
        description="draw the `train` examples by this seed, instead of taking a file's first",
    )
    dev: Some | None = Field(None, description="records")
    test: Some | None = Field(None, description="records")

    @model_validator(mode="after")
    def _draws_some(self) -> Limits:
        if self.sample is not None and self.train is None and self.per_label is None:
            raise ValueError("`sample` draws as many as `train` says: give `train`, too")
        return self
