"""What a method's file says: its name, its options with the paper's defaults, its point."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeVar, get_args

from foreword.choices import Data
from foreword.methods.axes import (
    AnyDelta,
    AnyReparameterization,
    DeltaChoice,
    Frozen,
    Init,
    Point,
    Positions,
    RandomInit,
    Table,
)
from foreword.registry import Registry


class MethodOptions(Data):
    """Base of all methods' options: the `method` section of a recipe.

    `training_defaults` are the paper's settings for the `training` section; a recipe overrides
    them.
    """

    point: ClassVar[Point]
    paper: ClassVar[str]
    training_defaults: ClassVar[dict[str, Any]] = {}

    name: str
    length: int
    positions: Literal["auto", "shift", "keep"]
    reparameterization: AnyReparameterization
    init: Init

    @property
    def moves(self) -> AnyDelta:
        """What of the backbone's own weights moves."""
        return Frozen()


class PromptOptions(MethodOptions):
    """Base of the options of methods with a prompt, beside which the backbone may move, too."""

    delta: DeltaChoice = Frozen()

    @property
    def moves(self) -> AnyDelta:
        """What of the backbone's own weights moves."""
        return self.delta


class DeltaOptions(MethodOptions):
    """Base of the options of methods without a prompt, where the backbone alone moves."""

    point: ClassVar[Point] = Point("text")

    length: Literal[0] = 0
    positions: Positions = "auto"
    reparameterization: Table = Table()
    init: RandomInit = RandomInit()


METHODS: Registry[type[MethodOptions]] = Registry("method", "foreword.methods")
"""Name -> options: the only list of methods. Each file puts its own in with `@method`."""

Options = TypeVar("Options", bound=MethodOptions)


def method(options: type[Options]) -> type[Options]:
    """Register a method's options by their `name`, a `Literal` of one text."""
    (name,) = get_args(options.model_fields["name"].annotation)
    METHODS.add(name, options)
    return options
