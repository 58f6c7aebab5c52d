"""A run's learning curve as a picture."""

from __future__ import annotations

import io
from pathlib import Path

from foreword import files
from foreword.training import History


def draw_curve(file: Path, name: str, history: History, window: int = 20) -> None:
    """Draw training loss (running mean over `window` steps) and dev loss against steps."""
    if not history.steps:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = [int(entry["step"]) for entry in history.steps]
    losses = [entry["loss"] for entry in history.steps]
    smooth = [
        sum(losses[max(0, i - window + 1) : i + 1]) / min(i + 1, window) for i in range(len(losses))
    ]
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(steps, losses, color="#c8d6e5", linewidth=0.8, label="training, each step")
    axes.plot(steps, smooth, color="#2e5e8c", label=f"training, mean of {window} steps")
    watched = [entry for entry in history.evaluations if "loss" in entry]
    if watched:
        axes.plot(
            [entry["step"] for entry in watched],
            [entry["loss"] for entry in watched],
            color="#c0562f",
            marker="o",
            markersize=4,
            label="development set",
        )
    axes.axvline(history.best_step, color="#888888", linestyle=":", linewidth=1, label="kept")
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats)")
    axes.set_title(name)
    axes.set_ylim(top=max(smooth[min(len(smooth) - 1, 5) :]) * 1.1)
    axes.grid(alpha=0.25)
    axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120)
    files.write_bytes(file, picture.getvalue())
