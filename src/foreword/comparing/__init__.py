"""Many runs: a grid of recipes, honest statistics of what came of them, a report.

The order of the files is that of a comparison: `grid` says what runs, `cells` names each run by
what decides it, `executing` runs what is not there yet, `measured` reads the figures and answers,
`statistics` says what is more than chance, `costs` what each run took, `report` shows all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from foreword.common.lazily import names_of

if TYPE_CHECKING:
    from foreword.comparing.comparison import Comparison as Comparison
    from foreword.comparing.comparison import compare as compare
    from foreword.comparing.comparison import compare_runs as compare_runs
    from foreword.comparing.grid import Grid as Grid
    from foreword.comparing.grid import load_grid as load_grid

__all__ = ["Comparison", "Grid", "compare", "compare_runs", "load_grid"]
__getattr__ = names_of(
    __name__,
    {
        "Comparison": "comparison",
        "Grid": "grid",
        "compare": "comparison",
        "compare_runs": "comparison",
        "load_grid": "grid",
    },
)
