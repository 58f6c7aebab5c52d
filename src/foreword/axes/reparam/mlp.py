"""Prefix-Tuning's reparameterization (Li & Liang 2021, section 4.3).

`P[i] = MLP(P'[i])` with a smaller table P': width d -> hidden -> width, tanh between.
"""

from __future__ import annotations

from torch import Tensor, nn

from foreword.axes.reparam.base import Rows, fit_by_adam


class MLP(Rows):
    """A table `[P, d]` through `Linear(d, hidden)`, tanh, `Linear(hidden, width)`.

    Args:
        length: P.
        width: numbers per virtual token, as the injection says.
        d: width of the small table; the paper takes the backbone's.
        hidden: the paper's 512 for table-to-text (800 for summarization).
        fit_steps, fit_learning_rate: how `fit` trains; the defaults are the authors' code's.
    """

    def __init__(
        self,
        length: int,
        width: int,
        d: int,
        hidden: int = 512,
        *,
        fit_steps: int = 500,
        fit_learning_rate: float = 1e-4,
    ) -> None:
        super().__init__()
        self.table = nn.Embedding(length, d)
        self.transform = nn.Sequential(nn.Linear(d, hidden), nn.Tanh(), nn.Linear(hidden, width))
        self.fit_steps = fit_steps
        self.fit_learning_rate = fit_learning_rate

    def forward(self) -> Tensor:
        """The virtual tokens: `[P, width]`."""
        rows: Tensor = self.transform(self.table.weight)
        return rows

    def fit(self, rows: Tensor) -> float:
        """Train the MLP towards `rows` by Adam on the squared error; the table stays as it is."""
        return fit_by_adam(
            self,
            rows,
            self.transform.parameters(),
            steps=self.fit_steps,
            learning_rate=self.fit_learning_rate,
        )
