"""What of the backbone's own weights moves."""

from foreword.deltas.adapter import Adapter
from foreword.deltas.base import Delta
from foreword.deltas.bitfit import BitFit
from foreword.deltas.frozen import Frozen
from foreword.deltas.full import Full
from foreword.deltas.lora import LoRA
from foreword.deltas.top import Top

__all__ = ["Adapter", "BitFit", "Delta", "Frozen", "Full", "LoRA", "Top"]
