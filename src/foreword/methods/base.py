"""What a method's file says: its name, its options with the paper's defaults, its point."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self, TypeVar, get_args

from foreword.common.choices import Data
from foreword.common.registry import Registry
from foreword.methods.axes import (
    BeforeText,
    DeltaChoice,
    DeltaSpec,
    Frozen,
    InitSpec,
    InjectionSpec,
    PlacementSpec,
    PlainInit,
    Positions,
    RandomInit,
    ReparameterizationSpec,
    Table,
    Text,
)
from foreword.methods.choosing import PromptChoice
from foreword.methods.examples import InText, TrainingExamples


class MethodOptions(Data):
    """Base of all methods' options: the `method` section of a recipe.

    The options are the method's point on the axes: each axis is asked for its choice by one of the
    properties below, or by the field of that name. A method that takes more from a run than its
    options says so by `in_text`, `templates`, `choice`, `filled` and `going_on`.

    Attributes:
        enters: the injection; its options are the method's fields of the same names.
        paper: where the method is from.
        training_defaults: the paper's settings for the `training` section; a recipe overrides them.
    """

    enters: ClassVar[type[InjectionSpec]]
    paper: ClassVar[str]
    training_defaults: ClassVar[dict[str, Any]] = {}

    name: str
    length: int
    positions: Literal["auto", "shift", "keep"]
    reparameterization: ReparameterizationSpec
    init: InitSpec

    @property
    def injection(self) -> InjectionSpec:
        """Where virtual tokens enter."""
        return self.enters.model_validate(self.fields_of(self.enters))

    @property
    def making(self) -> ReparameterizationSpec:
        """What makes the virtual tokens while they are trained."""
        return self.reparameterization

    @property
    def stands(self) -> PlacementSpec:
        """Where virtual tokens stand, unless the text has slots for them."""
        return BeforeText()

    @property
    def moves(self) -> DeltaSpec:
        """What of the backbone's own weights moves."""
        return Frozen()

    @property
    def extent(self) -> str:
        """How large what is trained is, in words."""
        return f"{self.length} virtual tokens"

    @property
    def in_text(self) -> InText | None:
        """Training examples that stand before every input, as text."""
        return None

    @property
    def templates(self) -> tuple[str, ...]:
        """Templates beside the task's, whose fields are read of every example, too."""
        return ()

    @property
    def choice(self) -> PromptChoice | None:
        """By what a row chooses its prompt, where there are several."""
        return None

    def filled(self, examples: TrainingExamples) -> Self:  # noqa: ARG002
        """The same options with what the method takes from the training examples.

        A run asks for them once, before it composes the model; an artifact keeps the outcome.

        Raises:
            UserError: the examples do not have it.
        """
        return self

    def going_on(self, before: MethodOptions) -> Self:  # noqa: ARG002
        """The same options with what the method takes from those of the artifact that training
        starts from.

        Raises:
            UserError: the method cannot go on from these.
        """
        return self

    def fields_of(self, options: type[Data]) -> dict[str, Any]:
        """The method's fields that other options have, too."""
        names = options.model_fields.keys() & type(self).model_fields.keys()
        return {name: getattr(self, name) for name in names}


class PromptOptions(MethodOptions):
    """Base of the options of methods with a prompt, beside which the backbone may move, too."""

    delta: DeltaChoice = Frozen()

    @property
    def moves(self) -> DeltaSpec:
        """What of the backbone's own weights moves."""
        return self.delta


class TextOptions(MethodOptions):
    """Base of the options of methods without a prompt."""

    enters: ClassVar[type[InjectionSpec]] = Text

    length: Literal[0] = 0
    positions: Positions = "auto"
    reparameterization: Table = Table()
    init: RandomInit = RandomInit()


class StartedOptions(TextOptions):
    """Base of the options of methods without a prompt that may go on from what was trained."""

    init: PlainInit = RandomInit()  # type: ignore[assignment]


class DeltaOptions(StartedOptions):
    """Base of the options of methods where the backbone alone moves."""


METHODS: Registry[type[MethodOptions]] = Registry("method", "foreword.methods")
"""Name -> options: the only list of methods. Each file puts its own in with `@method`."""

Options = TypeVar("Options", bound=MethodOptions)


def method(options: type[Options]) -> type[Options]:
    """Register a method's options by their `name`, a `Literal` of one text."""
    (name,) = get_args(options.model_fields["name"].annotation)
    METHODS.add(name, options)
    return options
