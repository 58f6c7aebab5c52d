"""A comparison as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from foreword.comparing.distances import distance_tables


def write_markdown(content: Mapping[str, Any]) -> str:
    """The report as Markdown: all that the page says but plots and recipes. Outputs are cut
    short."""
    parts = [f"# {content['name']}"]
    parts += [f"> **Warning.** {line}" for line in content["warnings"]]
    parts.append(_table(["method", *_titles(content)], _score_rows(content)))
    if content["sentences"]:
        parts.append("## What is more than chance")
        parts.append("\n".join(f"- {line}" for line in content["sentences"]))
        for metric in content["metrics"]:
            pairs = content["comparisons"][metric["name"]]
            parts.append(f"### All pairs by {metric['title']}")
            parts.append("\n".join(f"- {pair['sentence']}" for pair in pairs))
    parts += _groups(content)
    parts.append("## What it takes")
    parts.append(_table([title for title, _ in COSTS.values()], cost_rows(content), first="method"))
    parts.append(TOKENS_CAPTION)
    for title, columns, rows in distance_tables(content):
        parts += [f"## {title}", _table(columns, rows)]
    parts += _outputs(content)
    if content["words"]:
        parts.append("## Nearest words of the virtual tokens")
        for method, tokens in content["words"].items():
            lines = [f"{i + 1}. {', '.join(map(_code, near))}" for i, near in enumerate(tokens)]
            parts += [f"### {method}", "\n".join(lines)]
    if content["failures"]:
        parts.append("## Runs that failed")
        parts += [f"- {one['run']}: {one['reason']}" for one in content["failures"]]
    parts += _provenance(content)
    if content["command"]:
        parts.append(f"Made by `{content['command']}`, foreword {content['versions']['foreword']}.")
    return "\n\n".join(parts) + "\n"


COSTS: dict[str, tuple[str, str]] = {
    "trained_parameters": ("trained parameters", ",.0f"),
    "trained_share": ("of the backbone", ".3%"),
    "artifact_kb": ("artifact kB", ",.0f"),
    "seconds_a_step_ratio": ("time a step", ".2f"),
    "peak_mb": ("peak memory MB", ",.0f"),
    "tokens_to_95": ("tokens to 95 %", ",.0f"),
}
"""Cost -> its title, and how it is written; time a step is a ratio to the fastest method."""
TOKENS_CAPTION = (
    "Tokens to 95 %: training tokens until 95 % of the way from the first to the best development "
    "score, which is what training.best_by names, or the loss."
)


SHOWN = 80
"""Characters of an input or an answer that Markdown shows."""


def shown_score(score: Mapping[str, Any] | None, decimals: int) -> str:
    """Mean and spread of a score, as a table shows them."""
    if score is None:
        return "–"
    spread = "" if score["spread"] is None else f" ± {score['spread']:.{decimals}f}"
    return f"{score['mean']:.{decimals}f}{spread}"


def shown_rank(score: Mapping[str, Any] | None) -> str:
    """A place and its interval, as a table shows them."""
    if score is None:
        return "–"
    low, high = score["rank_interval"]
    return f"{score['rank']}" if low == high else f"{score['rank']} ({low}–{high})"


def cost_rows(content: Mapping[str, Any]) -> list[list[str]]:
    """A row a method: its name, and each cost as a text."""
    return [
        [
            method["name"],
            *(
                "–" if method["cost"][name] is None else format(method["cost"][name], form)
                for name, (_, form) in COSTS.items()
            ),
        ]
        for method in content["methods"]
    ]


def _titles(content: Mapping[str, Any]) -> list[str]:
    titles = []
    for metric in content["metrics"]:
        low = " (low is good)" if metric["better"] == "low" else ""
        titles.append(f"{metric['title']}{low}")
    return [*titles, "rank", "seeds"]


def _score_rows(content: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for method in content["methods"]:
        scores = method["scores"]
        cells = [shown_score(scores.get(m["name"]), m["decimals"]) for m in content["metrics"]]
        first = content["metrics"][0]["name"] if content["metrics"] else ""
        rows.append(
            [method["name"], *cells, shown_rank(scores.get(first)), str(len(method["seeds"]))]
        )
    return rows


def _groups(content: Mapping[str, Any]) -> list[str]:
    """A table for each metric of the groups of test items, such as seen and unseen."""
    names = list(dict.fromkeys(name for m in content["methods"] for name in m["groups"]))
    parts = []
    for metric in content["metrics"] if names else ():
        rows = [
            [
                method["name"],
                *(
                    shown_score(
                        method["groups"].get(name, {}).get(metric["name"]), metric["decimals"]
                    )
                    for name in names
                ),
            ]
            for method in content["methods"]
        ]
        parts += [f"## {metric['title']} by group of test items", _table(["method", *names], rows)]
    return parts


def _outputs(content: Mapping[str, Any]) -> list[str]:
    rows = content["outputs"]
    if not rows:
        return []
    columns = ["input", "right", *rows[0]["answers"]]
    cells = [[row["input"], row["right"][0], *row["answers"].values()] for row in rows]
    note = f"Of the first seed, {SHOWN} characters of each; the page and `report.json` have all."
    rows = [[_code(_short(cell)) for cell in line] for line in cells]
    table = _table(columns, rows, numbers=False)
    return ["## Outputs side by side", note, table]


def _provenance(content: Mapping[str, Any]) -> list[str]:
    rows = []
    for run in content["provenance"]:
        data = ", ".join(
            f"{k} {v['name']} {_code(v['sha256'][:12])}" for k, v in run["data"].items()
        )
        rows.append(
            [
                run["method"],
                str(run["seed"]),
                _code(run["run"]),
                f"{data} {run['note']}".strip(),
                ", ".join(f"{name} {version}" for name, version in run["versions"].items()),
                _code(run["command"]),
            ]
        )
    columns = ["method", "seed", "run folder", "data (sha256)", "versions", "command"]
    note = "As each run recorded it. The recipes stand in the page and in `report.json`."
    return ["## Where each number comes from", note, _table(columns, rows, numbers=False)]


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def _table(
    titles: Iterable[str],
    rows: Iterable[Iterable[str]],
    first: str | None = None,
    *,
    numbers: bool = True,
) -> str:
    head = [*([first] if first is not None else []), *titles]
    lines = [head, ["---", *["---:" if numbers else "---"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(_escaped(cell) for cell in line)} |" for line in lines)


def _code(text: str) -> str:
    """As code, which no markup inside can end; nothing where there is no text."""
    ticks = re.findall("`+", text)
    if not ticks:
        return f"`{text}`" if text.strip() else text
    fence = "`" * (max(map(len, ticks)) + 1)
    return f"{fence} {text} {fence}"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
