"""Virtual tokens between source and target (Li & Liang 2021, section 7.3: `[x; INFIX; y]`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from foreword.axes.placement.prefix import Prefix
from foreword.backbone.layout import Layout, Side


@dataclass(frozen=True)
class Infix(Prefix):
    """Source, then P virtual tokens, then target: the source does not see them.

    Virtual tokens with columns are followed by the target, and the last of them predicts its first
    token. Keys and values predict nothing, so the source's last token stands behind them and does.

    The part before the virtual tokens is laid out apart, as `Layout.before`. Padding is at the two
    ends of a row: no column lies idle between its tokens.
    """

    kind: ClassVar[str] = "infix"

    @property
    def holds_turns(self) -> bool:
        """Not with virtual tokens between one source and one target."""
        return not self.length

    def layout(
        self,
        sources: Sequence[Sequence[int]],
        targets: Sequence[Sequence[int]] | None = None,
        *,
        side: Side = "right",
        pad_id: int = 0,
        **heads: Sequence[Sequence[Any]],
    ) -> Layout:
        """Lay out a batch of token lists; `side` decides nothing, and no head reads an infix."""
        if not self.length:
            return super().layout(sources, targets, side=side, pad_id=pad_id, **heads)
        columns = self.columns.get("decoder", ())
        ends = [len(source) - (0 if columns else 1) for source in sources]
        rest = Layout.of(
            [[*columns, *source[end:]] for source, end in zip(sources, ends, strict=True)],
            targets,
            virtual=0 if columns else self.length,
            positions="keep",
            pad_id=pad_id,
        )
        first = torch.tensor(ends)[:, None] + (0 if columns else self._taken)
        fronts = [source[:end] for source, end in zip(sources, ends, strict=True)]
        if any(ends):
            before = Layout.of(fronts, side="left", pad_id=pad_id)
        else:  # one idle column: virtual tokens take the same way, whatever stands in the batch
            before = Layout.of([[pad_id]] * len(fronts))
            before = replace(before, attention_mask=torch.zeros_like(before.attention_mask))
        return replace(rest, position_ids=rest.position_ids + first, before=before)
