"""A comparison's plots, as Vega-Lite specifications that a page draws.

Every plot has a text alternative, which a screen reader reads in its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foreword.comparing.grid import number_of
from foreword.comparing.markdown import shown_score

WIDTH, HEIGHT = 560, 320


@dataclass(frozen=True)
class Plot:
    """One plot.

    Attributes:
        title: above it.
        alternative: what it shows, in words.
        spec: Vega-Lite, as plain data.
    """

    title: str
    alternative: str
    spec: dict[str, Any]


def plots_of(content: Mapping[str, Any]) -> list[Plot]:
    """All plots that the content of a comparison has figures for; the first metric is drawn."""
    if not content["metrics"]:
        return []
    metric = content["metrics"][0]
    made = (
        _by_method(content, metric),
        _by_parameters(content, metric),
        _along(content, metric),
        _by_group(content, metric),
        _curves(content),
    )
    return [plot for plot in made if plot is not None]


def _rows(content: Mapping[str, Any], metric: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for method in content["methods"]:
        score = method["scores"].get(metric["name"])
        if score is None:
            continue
        rows.append(
            {
                "method": method["name"],
                **_range(score),
                "parameters": method["cost"]["trained_parameters"],
                **{f"axis {axis}": choice for axis, choice in method["choices"].items()},
            }
        )
    return rows


def _range(score: Mapping[str, Any]) -> dict[str, Any]:
    """A mean and one deviation to both sides of it; the mean itself where one run has none."""
    deviation = score["spread"] or 0.0
    low, high = score["mean"] - deviation, score["mean"] + deviation
    return {"mean": score["mean"], "spread": score["spread"], "low": low, "high": high}


def _spread(content: Mapping[str, Any]) -> str:
    several = any(len(method["seeds"]) > 1 for method in content["methods"])
    return "; lines are one standard deviation over seeds" if several else ""


def _said(rows: Sequence[Mapping[str, Any]], decimals: int) -> str:
    return "; ".join(f"{row['method']}: {row['mean']:.{decimals}f}" for row in rows)


def _by_method(content: Mapping[str, Any], metric: Mapping[str, Any]) -> Plot | None:
    import altair as alt

    rows = _rows(content, metric)
    if not rows:
        return None
    title = f"{metric['title']} by method"
    base = alt.Chart(alt.Data(values=rows))
    best_first = sorted(rows, key=lambda row: row["mean"], reverse=metric["better"] == "high")
    order = [row["method"] for row in best_first]
    y = alt.Y("method:N", sort=order, title=None, axis=alt.Axis(labelLimit=260))
    x = alt.X("mean:Q", title=metric["title"], scale=alt.Scale(zero=False))
    points = base.mark_point(filled=True, size=90).encode(x=x, y=y, tooltip=["method:N", "mean:Q"])
    lines = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q"), x2="high:Q", y=y)
    chart = (lines + points).properties(width=WIDTH, height=alt.Step(26))
    in_words = _said(rows, max(1, metric["decimals"]))
    return Plot(title, f"{title}{_spread(content)}. {in_words}.", chart.to_dict())


def _by_parameters(content: Mapping[str, Any], metric: Mapping[str, Any]) -> Plot | None:
    import altair as alt

    rows = [row for row in _rows(content, metric) if row["parameters"]]
    if len({row["parameters"] for row in rows}) < 2:
        return None
    title = f"{metric['title']} against trained parameters"
    base = alt.Chart(alt.Data(values=rows))
    x = alt.X("parameters:Q", scale=alt.Scale(type="log"), title="trained parameters")
    y = alt.Y("mean:Q", title=metric["title"], scale=alt.Scale(zero=False))
    points = base.mark_point(filled=True, size=90).encode(
        x=x, y=y, color=alt.Color("method:N", legend=None), tooltip=["method:N", "mean:Q"]
    )
    names = base.mark_text(align="left", dx=8, limit=200).encode(x=x, y=y, text="method:N")
    lines = base.mark_rule().encode(x=x, y="low:Q", y2="high:Q")
    chart = (lines + points + names).properties(width=WIDTH, height=HEIGHT)
    listed = "; ".join(
        f"{row['method']}: {row['parameters']:,} parameters, {row['mean']:.1f}" for row in rows
    )
    return Plot(title, f"{title}{_spread(content)}. {listed}.", chart.to_dict())


def _along(content: Mapping[str, Any], metric: Mapping[str, Any]) -> Plot | None:
    """The metric along the axis of numbers: prompt length, training-set size and the like."""
    import altair as alt

    axis = content["x"]
    rows = [row for row in _rows(content, metric) if f"axis {axis}" in row]
    places = [number_of(row[f"axis {axis}"]) for row in rows]
    if None in places or len(set(places)) < 2:
        return None
    values: list[dict[str, Any]] = [
        {
            "x": place,
            "line": ", ".join(
                choice
                for name, choice in row.items()
                if name.startswith("axis ") and name != f"axis {axis}"
            )
            or "all",
            **{name: row[name] for name in ("method", "mean", "low", "high")},
        }
        for place, row in zip(places, rows, strict=True)
    ]
    called = axis.rpartition(".")[2] if "limits" not in axis else "training examples"
    title = f"{metric['title']} against {called}"
    wide = max(v["x"] for v in values) / max(1e-9, min(v["x"] for v in values)) > 20
    scale = alt.Scale(type="symlog" if wide else "linear", zero=False)
    base = alt.Chart(alt.Data(values=values))
    x, color = alt.X("x:Q", title=called, scale=scale), alt.Color("line:N", title=None)
    y = alt.Y("mean:Q", title=metric["title"], scale=alt.Scale(zero=False))
    line = base.mark_line(point=True).encode(x=x, y=y, color=color, tooltip=["method:N", "mean:Q"])
    area = base.mark_area(opacity=0.18).encode(x=x, y="low:Q", y2="high:Q", color=color)
    chart = (area + line).properties(width=WIDTH, height=HEIGHT)
    in_words = _said(rows, max(1, metric["decimals"]))
    return Plot(title, f"{title}{_spread(content)}. {in_words}.", chart.to_dict())


def _by_group(content: Mapping[str, Any], metric: Mapping[str, Any]) -> Plot | None:
    """Groups of test items beside each other, such as seen and unseen."""
    import altair as alt

    values = [
        {"method": method["name"], "group": group, **_range(scores[metric["name"]])}
        for method in content["methods"]
        for group, scores in method["groups"].items()
        if scores.get(metric["name"]) is not None
    ]
    if len({value["group"] for value in values}) < 2:
        return None
    title = f"{metric['title']} by group of test items"
    base = alt.Chart(alt.Data(values=values)).encode(
        y=alt.Y("method:N", title=None, axis=alt.Axis(labelLimit=260)), yOffset="group:N"
    )
    bars = base.mark_bar().encode(
        x=alt.X("mean:Q", title=metric["title"]),
        color=alt.Color("group:N", title=None),
        tooltip=["method:N", "group:N", "mean:Q", "low:Q", "high:Q"],
    )
    lines = base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q")
    chart = (bars + lines).properties(width=WIDTH)
    decimals = max(1, metric["decimals"])
    listed = "; ".join(f"{v['method']}, {v['group']}: {shown_score(v, decimals)}" for v in values)
    return Plot(title, f"{title}{_spread(content)}. {listed}.", chart.to_dict())


def _curves(content: Mapping[str, Any]) -> Plot | None:
    import altair as alt

    values = [{**point, **_range(point)} for point in content["mean_curves"]]
    if not values:
        return None
    title = "Loss on the development examples during training"
    base = alt.Chart(alt.Data(values=values))
    x, color = alt.X("step:Q", title="step"), alt.Color("method:N", title=None)
    y = alt.Y("mean:Q", title="loss", scale=alt.Scale(zero=False))
    line = base.mark_line(point=True, opacity=0.8).encode(
        x=x, y=y, color=color, tooltip=["method:N", "step:Q", "mean:Q", "low:Q", "high:Q"]
    )
    area = base.mark_area(opacity=0.18).encode(x=x, y="low:Q", y2="high:Q", color=color)
    chart = (area + line).properties(width=WIDTH, height=HEIGHT)
    lowest: dict[str, dict[str, Any]] = {}
    for point in values:
        best = lowest.setdefault(point["method"], point)
        lowest[point["method"]] = min(point, best, key=lambda one: float(one["mean"]))
    listed = "; ".join(f"{name}: lowest {shown_score(one, 3)}" for name, one in lowest.items())
    several = any(point["spread"] is not None for point in values)
    bands = "; bands are one standard deviation over seeds" if several else ""
    return Plot(title, f"{title}{bands}. {listed}.", chart.to_dict())
