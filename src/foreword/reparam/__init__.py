"""How virtual tokens are made while they are trained. Afterwards only the outcome is kept."""

from foreword.reparam.base import Reparameterization
from foreword.reparam.mlp import MLP
from foreword.reparam.table import Table

__all__ = ["MLP", "Reparameterization", "Table"]
