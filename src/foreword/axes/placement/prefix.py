"""Virtual tokens before everything else, the beginning token included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from foreword.backbone.layout import Layout, PositionRule, Side
from foreword.common.sites import Site


@dataclass(frozen=True)
class Prefix:
    """P virtual tokens, then source, then target.

    Attributes:
        length: P.
        positions: "shift": real text starts at position P, as the paper and PEFT have it; "keep":
            it starts at the first, and the prefix takes none of the backbone's position slots.
        columns: by site, the ids of virtual tokens that stand in the input.
        begin: what the decoder of an encoder-decoder reads first; None: the source is in the same
            row as the target.
        first_position: the id of the backbone's first position.
    """

    kind: ClassVar[str] = "prefix"

    length: int
    positions: PositionRule = "shift"
    columns: Mapping[Site, Sequence[int]] = field(default_factory=dict)
    begin: tuple[int, ...] | None = None
    first_position: int = 0

    def layout(
        self,
        sources: Sequence[Sequence[int]],
        targets: Sequence[Sequence[int]] | None = None,
        *,
        side: Side = "right",
        pad_id: int = 0,
        **heads: Sequence[Sequence[Any]],
    ) -> Layout:
        """Lay out a batch of token lists; `heads` are `Layout.of`'s marks, labels and segments, and
        what stands `between` predicted parts of targets.

        What an encoder of an encoder-decoder reads is always padded on the right; nothing in it is
        marked, and labels are what its decoder should say.
        """
        virtual = 0 if self.columns else self.outside
        if self.begin is None:
            return Layout.of(
                sources,
                targets,
                virtual=virtual,
                columns=next(iter(self.columns.values()), ()),
                positions=self.positions,
                first_position=self.first_position,
                side=side,
                pad_id=pad_id,
                **heads,  # type: ignore[arg-type]
            )
        read = Layout.of(
            sources,
            virtual=virtual,
            columns=self.columns.get("encoder", ()),
            positions=self.positions,
            pad_id=pad_id,
        )
        return Layout.of(
            [self.begin] * len(sources),
            targets,
            virtual=virtual,
            columns=self.columns.get("decoder", ()),
            positions=self.positions,
            pad_id=pad_id,
            source=read,
            labels=heads.get("labels", ()),
        )

    def room(self, context: int | None) -> int | None:
        """How many real tokens fit a row of a backbone with `context` positions; None: any number.

        In an encoder-decoder this is the encoder's row.
        """
        if context is None:
            return None
        return context - (
            self._taken if self.begin is None else len(self.columns.get("encoder", ()))
        )

    def answer_room(self, context: int | None) -> int | None:
        """The same for the answer, where the decoder of an encoder-decoder has its own row."""
        if context is None or self.begin is None:
            return None
        taken = self._taken if self._decoder_shifts else len(self.columns.get("decoder", ()))
        return context - len(self.begin) - taken

    @property
    def holds_turns(self) -> bool:
        """Whether a row may hold several turns that are predicted, and between them what others
        say: all stand in one row, behind the virtual tokens."""
        return self.begin is None

    @property
    def outside(self) -> int:
        """How many virtual tokens stand outside of the text that is laid out."""
        return self.length

    @property
    def _taken(self) -> int:
        return self.outside if self.positions == "shift" else 0

    @property
    def _decoder_shifts(self) -> bool:
        """Whether it is the decoder of an encoder-decoder whose positions come after a prefix's."""
        return self.begin is not None and not self.columns and self.outside > 0
