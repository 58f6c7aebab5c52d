"""A run's learning curve as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from foreword.common.pictures import Lettering, new_figure, write_figure
from foreword.names import METRICS
from foreword.recipe import Recipe
from foreword.training import History

TRAINED = {
    "token_mean": "",
    "sequence_sum": "\n(trained: its sum over each sequence)",
}
"""What the legend says of a loss that is trained in another unit than it is drawn in."""


def draw_curve(file: Path, recipe: Recipe, history: History, window: int = 20) -> None:
    """Draw the losses of training and development set against steps, both in nats per token or
    label, or as squared errors of numbers, and the metric that chooses the best prompt, if it is
    not the loss.

    Args:
        file: where the PNG is written; nothing is where nothing was trained.
        recipe: of the run.
        history: what happened.
        window: steps of the running mean of the training loss.
    """
    if not history.steps:
        return
    steps = [entry["step"] for entry in history.steps]
    losses = [entry["loss"] for entry in history.steps]
    smooth = _running_mean(losses, window)
    title = Lettering.of([recipe.name])
    figure, axes = new_figure(7, 4)
    axes.plot(steps, losses, color="#c8d6e5", linewidth=0.8, label="training, each step")
    axes.plot(
        steps,
        smooth,
        color="#2e5e8c",
        label=f"training, mean of {window} steps{TRAINED[recipe.training.loss]}",
    )
    watched = [entry for entry in history.evaluations if "loss" in entry]
    at, height = [entry["step"] for entry in watched], [entry["loss"] for entry in watched]
    if watched:
        axes.plot(at, height, color="#c0562f", marker="o", markersize=4, label="development set")
    axes.axvline(history.best_step, color="#888888", linestyle=":", linewidth=1, label="kept")
    axes.set_xlabel("step")
    axes.set_ylabel(f"loss ({recipe.task.loss_unit})")
    axes.set_title(title(recipe.name), fontfamily=list(title.families))
    axes.set_ylim(top=max([*smooth[min(len(smooth) - 1, 5) :], *height]) * 1.1)
    axes.grid(alpha=0.25)
    drawn = axes.get_legend_handles_labels()[0]
    metric = recipe.training.best_by
    scores = [entry for entry in history.evaluations if metric in METRICS and metric in entry]
    if metric is not None and scores:
        beside = axes.twinx()
        drawn += beside.plot(
            [entry["step"] for entry in scores],
            [entry[metric] for entry in scores],
            color="#3c8c4a",
            linestyle="--",
            marker="s",
            markersize=4,
            label=f"development set, {METRICS[metric].title} (right)",
        )
        beside.set_ylabel(f"{METRICS[metric].title}, development set")
        beside.margins(y=0.15)
    figure.legend(handles=drawn, loc="outside lower center", ncols=2, fontsize="small")
    write_figure(figure, file)


def _running_mean(values: Sequence[float], window: int) -> list[float]:
    """The mean of each value and of those before it, `window` of them at most."""
    return [
        sum(values[max(0, i - window + 1) : i + 1]) / min(i + 1, window) for i in range(len(values))
    ]
