"""Virtual tokens in slots of the text, among real words (Liu et al. 2021, section 3.1)."""

from __future__ import annotations

from typing import ClassVar

from foreword.axes.placement.prefix import Prefix


class InText(Prefix):
    """P virtual tokens wherever the text has their ids: nothing stands before it."""

    kind: ClassVar[str] = "in_text"

    @property
    def outside(self) -> int:
        """None."""
        return 0
