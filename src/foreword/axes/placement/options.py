"""Where in the sequence virtual tokens may stand, as data. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

from foreword.common.choices import Data
from foreword.common.registry import Registry
from foreword.common.sites import Site
from foreword.errors import UserError

if TYPE_CHECKING:
    from foreword.axes.placement.prefix import Prefix
    from foreword.backbone import Backbone
    from foreword.backbone.layout import PositionRule

Stands = Literal["before", "between", "inside"]
"""Before all text, between source and target, or in slots of the text."""


class PlacementSpec(Data):
    """Base of the options of all placements.

    Attributes:
        kind: the name by which artifacts call it, that of its module.
    """

    kind: ClassVar[str]

    @property
    def stands(self) -> Stands:
        """Where virtual tokens stand."""
        return "before"

    def check(self, backbone: Backbone, *, writes: bool) -> None:
        """Refuse what has no such place.

        Args:
            backbone: what is tuned.
            writes: whether it writes its answer.

        Raises:
            UserError: there is no such place.
        """

    def build(
        self,
        backbone: Backbone,
        length: int,
        positions: PositionRule,
        columns: Mapping[Site, Sequence[int]],
    ) -> Prefix:
        """The placement of P virtual tokens."""
        return self._kind()(
            length, positions, columns, backbone.begin, backbone.geometry.first_position
        )

    def _kind(self) -> type[Prefix]:
        from foreword.axes.placement.prefix import Prefix as Module

        return Module


PLACEMENTS: Registry[type[PlacementSpec]] = Registry("placement")
"""Name -> options."""

Options = TypeVar("Options", bound=PlacementSpec)


def placement(options: type[Options]) -> type[Options]:
    """Register a placement's options by their `kind`."""
    PLACEMENTS.add(options.kind, options)
    return options


@placement
class BeforeText(PlacementSpec):
    """Before all text."""

    kind: ClassVar[str] = "prefix"


@placement
class BetweenTexts(PlacementSpec):
    """Between source and target (Li & Liang 2021, section 7.3)."""

    kind: ClassVar[str] = "infix"

    @property
    def stands(self) -> Stands:
        """Between source and target."""
        return "between"

    def check(self, backbone: Backbone, *, writes: bool) -> None:
        """Refuse what has no place between a source and a target in one row."""
        if not writes:
            raise UserError(
                "method.placement: 'infix' stands between a source and the text that is written "
                "after it, but no text is written here; use prefix-tuning or p-tuning-v2"
            )
        if backbone.geometry.kind != "decoder":
            raise UserError(
                f"method.placement: '{backbone.name}' ({backbone.model.config.model_type}) is an "
                f"{backbone.geometry.kind}: source and target stand in two rows, with nothing "
                "between them. Before the target stands prefix-tuning with `sites: [decoder]`"
            )
        backbone.check_takes_keys_values()

    def _kind(self) -> type[Prefix]:
        from foreword.axes.placement.infix import Infix as Module

        return Module


@placement
class InSlots(PlacementSpec):
    """In slots of the text (Liu et al. 2021, section 3.1)."""

    kind: ClassVar[str] = "in_text"

    @property
    def stands(self) -> Stands:
        """In slots."""
        return "inside"

    def _kind(self) -> type[Prefix]:
        from foreword.axes.placement.in_text import InText as Module

        return Module
