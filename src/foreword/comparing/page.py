"""A comparison as one HTML page: opens from a disk, loads nothing, works without a mouse."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files as resources
from importlib.util import find_spec
from typing import Any

from foreword.comparing.distances import distance_tables
from foreword.comparing.markdown import (
    COSTS,
    TOKENS_CAPTION,
    cost_rows,
    shown_rank,
    shown_score,
)
from foreword.comparing.plots import plots_of
from foreword.errors import UserError

NEEDED = ("altair", "jinja2", "psutil", "scipy", "vl_convert")
"""What the extra `compare` brings."""


def check_installed() -> None:
    """Make sure, before anything is run, that what a comparison needs is there.

    Raises:
        UserError: something is not installed.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(
            f"a comparison needs {', '.join(missing)}, not installed here: pip install "
            "'foreword[compare]'"
        )


@lru_cache(maxsize=1)
def _bundle() -> str:
    """The JavaScript that draws, which takes a second to put together."""
    import vl_convert

    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def write_page(content: Mapping[str, Any]) -> str:
    """The page."""
    from jinja2 import Environment
    from markupsafe import Markup

    plots = plots_of(content)
    bundle = _bundle() if plots else ""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    folder = resources("foreword.comparing")
    template = environment.from_string((folder / "report.html.jinja").read_text(encoding="utf-8"))
    return str(
        template.render(
            content=content,
            costs=[title for title, _ in COSTS.values()],
            cost_rows=cost_rows(content),
            tokens_caption=TOKENS_CAPTION,
            distances=distance_tables(content),
            shown_score=shown_score,
            shown_rank=shown_rank,
            sort_keys=_sort_keys(content),
            plots=plots,
            specs=Markup(_as_script([plot.spec for plot in plots])),
            data=Markup(_as_script(content)),
            bundle=Markup(bundle.replace("</script", "<\\/script")),
            marked=_marked,
            style=Markup((folder / "report.css").read_text(encoding="utf-8")),
            script=Markup((folder / "report.js").read_text(encoding="utf-8")),
        )
    )


def _as_script(value: Any) -> str:
    """JSON that no text inside can end the element of."""
    text = json.dumps(value, ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _sort_keys(content: Mapping[str, Any]) -> list[list[float | None]]:
    """For each method the number behind each cost, by which a table sorts."""
    return [[method["cost"][name] for name in COSTS] for method in content["methods"]]


def _marked(answer: str, right: list[str]) -> list[tuple[str, bool]]:
    """An answer in pieces, and whether each differs from the right answer that is nearest to it."""
    words = answer.split()
    best = max(
        right,
        key=lambda one: difflib.SequenceMatcher(a=one.split(), b=words, autojunk=False).ratio(),
        default="",
    )
    matcher = difflib.SequenceMatcher(a=best.split(), b=words, autojunk=False)
    return [
        (" ".join(words[start:end]), kind != "equal")
        for kind, _, _, start, end in matcher.get_opcodes()
        if end > start
    ]
