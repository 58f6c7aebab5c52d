"""Which labels are taken for which: as counts, as a table, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from foreword.common.characters import printable
from foreword.common.pictures import Lettering, new_figure, write_figure

if TYPE_CHECKING:
    from rich.table import Table

OTHER = "(other)"
"""An answer that is no label."""


@dataclass(frozen=True, eq=False)
class ConfusionMatrix:
    """How often each label was answered for each.

    Attributes:
        labels: of the rows, what is right.
        answers: of the columns, what was answered; the labels, then `OTHER` where that happened.
        counts: `[labels, answers]`.
    """

    labels: tuple[str, ...]
    answers: tuple[str, ...]
    counts: npt.NDArray[np.int64]

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "labels": list(self.labels),
            "answers": list(self.answers),
            "counts": self.counts.tolist(),
        }

    def table(self, title: str = "") -> Table:
        """For people: a row for each label, with its recall; below, each answer's precision."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        above = Text(printable(title)) if title else None
        table = Table(title=above, box=box.SIMPLE_HEAD, title_justify="left")
        for head in ("label", *self.answers, "recall %"):
            table.add_column(Text(printable(head)), justify="left" if head == "label" else "right")
        right = [int(self.counts[i, i]) for i in range(len(self.labels))]
        for i, label in enumerate(self.labels):
            cells = [f"{count:,}" for count in self.counts[i]]
            recall = _share(right[i], int(self.counts[i].sum()))
            table.add_row(Text(printable(label)), *cells, recall)
        table.add_section()
        predicted = self.counts.sum(axis=0)
        precision = [_share(right[i], int(predicted[i])) for i in range(len(self.labels))]
        table.add_row("precision %", *precision, *[""] * (len(self.answers) - len(self.labels)), "")
        return table

    def draw(self, file: Path, title: str = "") -> None:
        """Write a picture (PNG): shade is the share of a row, figures are counts."""
        rows, columns = self.counts.shape
        written = Lettering.of((*self.labels, *self.answers, title))
        figure, axes = new_figure(2 + 0.7 * columns, 1.6 + 0.6 * rows)
        totals = np.maximum(self.counts.sum(axis=1, keepdims=True), 1)
        shares = self.counts / totals
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for i in range(rows):
            for j in range(columns):
                shade = "white" if shares[i, j] > 0.6 else "black"
                axes.text(j, i, f"{self.counts[i, j]:,}", ha="center", va="center", color=shade)
        along = [written(answer) for answer in self.answers]
        turn = 45 if max(map(len, along)) > 4 else 0
        font: dict[str, Any] = {"fontfamily": list(written.families)}
        axes.set_xticks(range(columns), along, rotation=turn, **font)
        axes.set_yticks(range(rows), map(written, self.labels), **font)
        axes.set_xlabel("answered")
        axes.set_ylabel("right")
        if title:
            axes.set_title(written(title), **font)
        if written.key:
            figure.supxlabel(written.key, x=0.02, ha="left", fontsize="small")
        write_figure(figure, file)


def confusion_matrix(
    gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str] = ()
) -> ConfusionMatrix:
    """Count answers by label.

    Args:
        gold: the right labels.
        predicted: the answers.
        labels: in the order to show them; those of `gold` that are missing here follow, sorted.
    """
    rows = tuple(dict.fromkeys((*labels, *sorted(set(gold)))))
    strange = any(answer not in rows for answer in predicted)
    columns = (*rows, *([OTHER] if strange else []))
    row_of = {label: i for i, label in enumerate(rows)}
    counts = np.zeros((len(rows), len(columns)), dtype=np.int64)
    for label, answer in zip(gold, predicted, strict=True):
        counts[row_of[label], row_of.get(answer, len(rows))] += 1
    return ConfusionMatrix(rows, columns, counts)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole else "–"
