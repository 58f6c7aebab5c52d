"""The ways to make virtual tokens, as data. No torch: each names its module when it builds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar, get_args

from pydantic import Field, model_validator

from foreword.common.bounds import Rate, Scale, Some
from foreword.common.choices import Data, OptionsIn
from foreword.common.registry import Registry

if TYPE_CHECKING:
    from foreword.axes.parts import VirtualTokens, Wanted
    from foreword.axes.reparam.base import Reparameterization, Rows


class ReparameterizationSpec(Data):
    """Base of the options of all reparameterizations.

    One that makes each part of the prompt by itself overrides `rows`; one that makes them together
    overrides `build`.

    Attributes:
        exact: whether it can give any virtual tokens, as a table can.
    """

    exact: ClassVar[bool] = False

    kind: str

    def build(self, wanted: Wanted) -> Reparameterization:
        """What makes the tensors of all parts."""
        from foreword.axes.reparam.by_part import ByPart

        return ByPart(wanted.parts, lambda part: self.rows(part, wanted))

    def rows(self, part: VirtualTokens, wanted: Wanted) -> Rows:
        """What makes the virtual tokens `[P, part.width]` of one part."""
        raise NotImplementedError


REPARAMETERIZATIONS: Registry[type[ReparameterizationSpec]] = Registry(
    "reparameterization", "foreword.reparameterizations"
)
"""Name -> options."""

Options = TypeVar("Options", bound=ReparameterizationSpec)


def reparameterization(options: type[Options]) -> type[Options]:
    """Register a reparameterization's options by their `kind`, a `Literal` of one text."""
    (name,) = get_args(options.model_fields["kind"].annotation)
    REPARAMETERIZATIONS.add(name, options)
    return options


@reparameterization
class Table(ReparameterizationSpec):
    """The virtual tokens are themselves the parameters."""

    exact: ClassVar[bool] = True

    kind: Literal["table"] = "table"
    std: Scale = Field(0.02, description="standard deviation of a random start")

    def rows(self, part: VirtualTokens, wanted: Wanted) -> Rows:  # noqa: ARG002
        """A plain table."""
        from foreword.axes.reparam.table import Table as Module

        return Module(part.length, part.width, self.std)


class FrozenTable(Table):
    """A table of which the first rows stay as they start."""

    frozen: int = Field(1, ge=0, description="how many")

    def rows(self, part: VirtualTokens, wanted: Wanted) -> Rows:  # noqa: ARG002
        """A table, and what of it is no parameter."""
        from foreword.axes.reparam.frozen import FrozenFirst

        return FrozenFirst(part.length, part.width, min(self.frozen, part.length), self.std)


@reparameterization
class MLP(ReparameterizationSpec):
    """A smaller table through d -> hidden -> width with tanh (Li & Liang 2021, 4.3)."""

    kind: Literal["mlp"] = "mlp"
    hidden: int = Field(512, ge=1, le=65536, description="width of the hidden layer")
    fit_steps: Some = Field(500, description="Adam steps that fit it to real activations")
    fit_learning_rate: Rate = Field(1e-4, description="rate of those steps")

    def rows(self, part: VirtualTokens, wanted: Wanted) -> Rows:
        """A table as wide as the backbone, and the MLP."""
        from foreword.axes.reparam.mlp import MLP as Module

        return Module(part.length, part.width, wanted.d, self.hidden, **_fitting(self))


@reparameterization
class LSTM(ReparameterizationSpec):
    """A table through a bidirectional LSTM, then an MLP with ReLU (Liu et al. 2021, 3.2)."""

    kind: Literal["lstm"] = "lstm"
    hidden: int | None = Field(
        None,
        ge=1,
        le=65536,
        description="state of each direction; default: half the backbone's width",
    )
    layers: int = Field(2, ge=1, le=64, description="layers of the LSTM")
    dropout: float = Field(0.0, ge=0, lt=1, description="between the LSTM's layers")
    fit_steps: Some = Field(500, description="Adam steps that fit it to a chosen start")
    fit_learning_rate: Rate = Field(1e-3, description="rate of those steps")

    @model_validator(mode="after")
    def _dropout_has_a_place(self) -> LSTM:
        if self.dropout and self.layers == 1:
            raise ValueError("`dropout` acts between layers: give `layers` of at least 2")
        return self

    def rows(self, part: VirtualTokens, wanted: Wanted) -> Rows:
        """A table as wide as the backbone, the LSTM and the MLP."""
        from foreword.axes.reparam.lstm import LSTM as Module

        return Module(
            part.length,
            part.width,
            wanted.d,
            self.hidden or max(1, wanted.d // 2),
            layers=self.layers,
            dropout=self.dropout,
            **_fitting(self),
        )


class ReluMLP(ReparameterizationSpec):
    """A table through three linear layers with ReLU: P-Tuning's MLP, as PEFT has it."""

    kind: Literal["mlp"] = "mlp"
    hidden: int | None = Field(
        None, ge=1, le=65536, description="width of the hidden layers; default: the backbone's"
    )
    fit_steps: Some = Field(500, description="Adam steps that fit it to a chosen start")
    fit_learning_rate: Rate = Field(1e-3, description="rate of those steps")

    def rows(self, part: VirtualTokens, wanted: Wanted) -> Rows:
        """A table as wide as the backbone, and the MLP."""
        from foreword.axes.reparam.lstm import ReluMLP as Module

        return Module(part.length, part.width, wanted.d, self.hidden or wanted.d, **_fitting(self))


REPARAMETERIZATIONS.add("relu-mlp", ReluMLP)  # in P-Tuning's recipes the kind is `mlp`, too


def _fitting(options: MLP | LSTM | ReluMLP) -> dict[str, Any]:
    return {"fit_steps": options.fit_steps, "fit_learning_rate": options.fit_learning_rate}


RowsChoice = Annotated[ReparameterizationSpec, OptionsIn(REPARAMETERIZATIONS, "kind", (Table, MLP))]
"""A table, an MLP, or what other packages and users register."""
PTuningEncoder = Annotated[
    ReparameterizationSpec, OptionsIn(REPARAMETERIZATIONS, "kind", (LSTM, ReluMLP))
]
"""P-Tuning's LSTM or MLP, or what other packages and users register."""
TableOnly = Annotated[ReparameterizationSpec, OptionsIn(REPARAMETERIZATIONS, "kind", (Table,))]
"""A table, or what other packages and users register."""
