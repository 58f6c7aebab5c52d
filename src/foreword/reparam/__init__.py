"""How virtual tokens are made while they are trained. Afterwards only the outcome is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foreword.lazily import names_of

if TYPE_CHECKING:
    from foreword.reparam.base import Reparameterization as Reparameterization
    from foreword.reparam.base import Rows as Rows
    from foreword.reparam.by_part import ByPart as ByPart
    from foreword.reparam.lstm import LSTM as LSTM
    from foreword.reparam.lstm import ReluMLP as ReluMLP
    from foreword.reparam.mlp import MLP as MLP
    from foreword.reparam.table import Table as Table

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
