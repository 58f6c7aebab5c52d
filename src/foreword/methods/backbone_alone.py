"""The backbone alone: nothing is trained, and the input text is all that it gets."""

from __future__ import annotations

from typing import ClassVar, Literal

from foreword.methods.axes import Point, Positions, RandomInit, Table
from foreword.methods.base import MethodOptions


class BackboneAlone(MethodOptions):
    """Options of the bare backbone: there are none."""

    point: ClassVar[Point] = Point("text")
    paper: ClassVar[str] = "(no training)"

    name: Literal["backbone-alone"]
    length: Literal[0] = 0
    positions: Positions = "auto"
    reparameterization: Table = Table()
    init: RandomInit = RandomInit()
