"""Virtual tokens before everything else, the beginning token included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from foreword.layout import Layout, PositionRule, Side


@dataclass(frozen=True)
class Prefix:
    """P virtual tokens, then source, then target.

    Attributes:
        length: P.
        positions: "shift": real text starts at position P, as the paper and PEFT have it; "keep":
            it starts at 0, and the prefix takes none of the backbone's position slots.
    """

    length: int
    positions: PositionRule = "shift"

    def layout(
        self,
        sources: Sequence[Sequence[int]],
        targets: Sequence[Sequence[int]] | None = None,
        *,
        side: Side = "right",
        pad_id: int = 0,
    ) -> Layout:
        """Lay out a batch of token lists."""
        return Layout.of(
            sources,
            targets,
            virtual=self.length,
            positions=self.positions,
            side=side,
            pad_id=pad_id,
        )

    def room(self, context: int | None) -> int | None:
        """How many real tokens fit a backbone with `context` positions; None: any number."""
        if context is None:
            return None
        return context - (self.length if self.positions == "shift" else 0)
