"""The learning curve: one unit for both losses, what is trained by name, the metric watched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from foreword.recipe import Recipe, parse_recipe
from foreword.runs import curve
from foreword.training import History


def recipe(label: str | None = None, **training: Any) -> Recipe:
    data = {"format": "jsonl", "train": "train.jsonl", "dev": "dev.jsonl"}
    return parse_recipe(
        {
            "version": 1,
            "name": "$run$",
            "backbone": "foreword/mini",
            "task": {"data": {**data, "label": label}},
            "method": "p-tuning-v2" if label else "prefix-tuning",
            "training": {"steps": 40, **training},
        }
        | {"name": "run"}
    )


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are written."""
    found: list[Figure] = []
    monkeypatch.setattr(curve, "write_figure", lambda figure, _: found.append(figure))
    return found


def history(**evaluated: float) -> History:
    steps = [{"step": i, "loss": 3 / i, "sequence_loss": 60 / i} for i in range(1, 41)]
    evaluations = [{"step": step, "loss": 2.5, **evaluated} for step in (20, 40)]
    return History(steps, evaluations, best_step=20)


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_both_losses_are_per_token_and_the_trained_one_is_named(drawn: list[Figure]) -> None:
    curve.draw_curve(Path("curve.png"), recipe(loss="sequence_sum"), history())
    curve.draw_curve(Path("curve.png"), recipe(loss="token_mean"), history())
    for figure in drawn:
        (axes,) = figure.axes
        assert axes.get_ylabel() == "loss (nats per target token)"
        assert max(max(line.get_ydata()) for line in axes.lines) <= 3
        assert axes.get_ylim()[1] < 4
    summed, mean = map(legend, drawn)
    assert any("trained: its sum over each sequence" in line for line in summed)
    assert not any("sum" in line for line in mean)


def test_the_metric_that_chooses_is_drawn(drawn: list[Figure]) -> None:
    curve.draw_curve(
        Path("curve.png"), recipe("category", best_by="accuracy"), history(accuracy=75.0)
    )
    losses, scores = drawn[0].axes
    assert losses.get_ylabel() == "loss (nats per label)"
    assert scores.get_ylabel() == "accuracy %, development set"
    assert list(scores.lines[0].get_ydata()) == [75.0, 75.0]
    assert "development set, accuracy % (right)" in legend(drawn[0])


def test_a_development_loss_above_the_training_loss_is_in_the_picture(drawn: list[Figure]) -> None:
    curve.draw_curve(Path("curve.png"), recipe(), history())
    assert drawn[0].axes[0].get_ylim()[1] > 2.5


@pytest.mark.usefixtures("with_pictures")
def test_the_picture_is_written(tmp_path: Path) -> None:
    curve.draw_curve(tmp_path / "curve.png", recipe(), history())
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    curve.draw_curve(tmp_path / "none.png", recipe(), History())
    assert not (tmp_path / "none.png").exists()
