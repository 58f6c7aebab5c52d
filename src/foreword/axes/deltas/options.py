"""What of the backbone's own weights may move, as data. No torch until a model is composed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeVar, get_args

from pydantic import Field

from foreword.common.bounds import Scale
from foreword.common.choices import Data, OptionsIn
from foreword.common.registry import Registry
from foreword.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from foreword.axes.deltas.base import Delta
    from foreword.backbone import Backbone


class DeltaSpec(Data):
    """Base of the options of all deltas.

    Attributes:
        changeable: options of which training may go on with others, from stored weights.
        in_place: whether weights of the backbone move in the type that they have.
    """

    changeable: ClassVar[frozenset[str]] = frozenset()
    in_place: ClassVar[bool] = False

    kind: str

    def build(self, backbone: Backbone, *, head: bool) -> Delta:
        """What moves.

        Args:
            backbone: of which it moves.
            head: whether a head of our own answers, so that the backbone's own does nothing.
        """
        raise NotImplementedError

    def going_on(self, before: DeltaSpec, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What training starts from, of what was stored under other options of the same kind.

        Args:
            before: those options.
            stored: what moved, by name.

        Raises:
            UserError: these options make something else of the stored tensors.
        """
        for name in sorted(type(self).model_fields.keys() - self.changeable):
            mine, theirs = getattr(self, name), getattr(before, name)
            if mine != theirs:
                raise UserError(
                    f"its `{name}` is {theirs}, that of this run {mine}; give the artifact's"
                )
        return dict(stored)


DELTAS: Registry[type[DeltaSpec]] = Registry("delta")
"""Name -> options."""

Options = TypeVar("Options", bound=DeltaSpec)


def delta(options: type[Options]) -> type[Options]:
    """Register a delta's options by their `kind`, a `Literal` of one text."""
    (name,) = get_args(options.model_fields["kind"].annotation)
    DELTAS.add(name, options)
    return options


@delta
class Frozen(DeltaSpec):
    """Nothing of the backbone moves."""

    kind: Literal["none"] = "none"

    def build(self, backbone: Backbone, *, head: bool) -> Delta:  # noqa: ARG002
        """Nothing."""
        from foreword.axes.deltas.frozen import Frozen as Module

        return Module()


@delta
class Full(DeltaSpec):
    """Every weight moves."""

    in_place: ClassVar[bool] = True

    kind: Literal["full"] = "full"

    def build(self, backbone: Backbone, *, head: bool) -> Delta:
        """All weights."""
        from foreword.axes.deltas.full import Full as Module

        return Module(backbone, head=head)


class TopOptions(Data):
    """How many layers move."""

    layers: int = Field(2, ge=1, le=10**4, description="how many of the last layers move")


@delta
class TopLayers(TopOptions, DeltaSpec):
    """The last layers move (FT-top2 of Li & Liang 2021, section 5.2)."""

    in_place: ClassVar[bool] = True

    kind: Literal["top"] = "top"

    def build(self, backbone: Backbone, *, head: bool) -> Delta:  # noqa: ARG002
        """The last layers."""
        from foreword.axes.deltas.top import Top as Module

        return Module(backbone, self.layers)


@delta
class Biases(DeltaSpec):
    """The biases move (Ben Zaken et al. 2022)."""

    in_place: ClassVar[bool] = True

    kind: Literal["bitfit"] = "bitfit"

    def build(self, backbone: Backbone, *, head: bool) -> Delta:
        """The biases."""
        from foreword.axes.deltas.bitfit import BitFit as Module

        return Module(backbone, head=head)


class BottleneckOptions(Data):
    """The size of bottleneck adapters, and what moves beside them."""

    reduction: float = Field(
        16.0,
        ge=0.1,
        le=65536,
        description="width of the backbone over that of an adapter's bottleneck",
    )
    size: int | None = Field(
        None,
        ge=1,
        le=65536,
        description="width of the bottleneck; null: the backbone's over `reduction`",
    )
    activation: Literal["gelu", "relu", "silu", "tanh"] = "gelu"
    layer_norms: bool = Field(True, description="whether the backbone's layer norms move too")


@delta
class Bottlenecks(BottleneckOptions, DeltaSpec):
    """Small layers after attention and feed-forward move (Houlsby et al. 2019, section 2)."""

    kind: Literal["adapter"] = "adapter"

    def build(self, backbone: Backbone, *, head: bool) -> Delta:
        """The adapters, and the layer norms."""
        from foreword.axes.deltas.adapter import Adapter as Module

        return Module(
            backbone,
            reduction=self.reduction,
            size=self.size,
            activation=self.activation,
            layer_norms=self.layer_norms,
            head=head,
        )


class LowRankOptions(Data):
    """The size of low-rank updates, and what they are added to."""

    rank: int = Field(4, ge=1, le=65536, description="of each update")
    alpha: Scale = Field(32.0, description="an update counts alpha / rank times")
    dropout: float = Field(0.1, ge=0, lt=1, description="on an update's input, in training")
    targets: tuple[Annotated[str, Field(min_length=1)], ...] | None = Field(
        None,
        min_length=1,
        description="ends of the names of the linear layers that are updated, or `all` for every"
        " one but the output; null: queries and values, as PEFT knows them for the family",
    )


@delta
class LowRank(LowRankOptions, DeltaSpec):
    """Low-rank updates of chosen weights move (Hu et al. 2021, section 4.1)."""

    changeable: ClassVar[frozenset[str]] = frozenset({"alpha", "dropout", "targets"})

    kind: Literal["lora"] = "lora"

    def going_on(self, before: DeltaSpec, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same updates, whatever alpha they count by: B bears the difference."""
        assert isinstance(before, LowRank), "of the same kind"
        taken = super().going_on(before, stored)
        if before.alpha != self.alpha:
            for name, tensor in taken.items():
                if name.endswith(".lora_B.weight"):
                    taken[name] = tensor * (before.alpha / self.alpha)
        return taken

    def build(self, backbone: Backbone, *, head: bool) -> Delta:
        """The updates."""
        from foreword.axes.deltas.lora import LoRA as Module

        return Module(
            backbone,
            rank=self.rank,
            alpha=self.alpha,
            dropout=self.dropout,
            targets=self.targets,
            head=head,
        )


DeltaChoice = Annotated[
    DeltaSpec,
    OptionsIn(DELTAS, "kind"),
    Field(description="what of the backbone's own weights moves, too"),
]
