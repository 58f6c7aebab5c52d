"""What of the backbone's own weights moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foreword.common.lazily import names_of

if TYPE_CHECKING:
    from foreword.axes.deltas.adapter import Adapter as Adapter
    from foreword.axes.deltas.base import Delta as Delta
    from foreword.axes.deltas.bitfit import BitFit as BitFit
    from foreword.axes.deltas.frozen import Frozen as Frozen
    from foreword.axes.deltas.full import Full as Full
    from foreword.axes.deltas.lora import LoRA as LoRA
    from foreword.axes.deltas.top import Top as Top

_HOMES = {
    "Adapter": "adapter",
    "BitFit": "bitfit",
    "Delta": "base",
    "Frozen": "frozen",
    "Full": "full",
    "LoRA": "lora",
    "Top": "top",
}
__getattr__ = names_of(__name__, _HOMES)
