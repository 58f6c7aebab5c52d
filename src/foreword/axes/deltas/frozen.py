"""Nothing moves: the backbone's bytes after training are those before."""

from __future__ import annotations

from typing import ClassVar

from foreword.axes.deltas.base import Delta


class Frozen(Delta):
    """The delta of all prompt methods proper."""

    kind: ClassVar[str] = "none"
