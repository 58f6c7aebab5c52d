"""How virtual tokens are made while they are trained. Afterwards only the outcome is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foreword.common.lazily import names_of

if TYPE_CHECKING:
    from foreword.axes.reparam.base import Reparameterization as Reparameterization
    from foreword.axes.reparam.base import Rows as Rows
    from foreword.axes.reparam.by_part import ByPart as ByPart
    from foreword.axes.reparam.lstm import LSTM as LSTM
    from foreword.axes.reparam.lstm import ReluMLP as ReluMLP
    from foreword.axes.reparam.mlp import MLP as MLP
    from foreword.axes.reparam.table import Table as Table

_HOMES = {
    "ByPart": "by_part",
    "LSTM": "lstm",
    "MLP": "mlp",
    "ReluMLP": "lstm",
    "Reparameterization": "base",
    "Rows": "base",
    "Table": "table",
}
__getattr__ = names_of(__name__, _HOMES)
