"""`foreword compose`: trained prompts put together, and what that costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foreword.cli import options as o
from foreword.cli.loading import loading_options
from foreword.cli.output import complain, emit_json, say
from foreword.data.inputs import read_inputs
from foreword.errors import UserError

if TYPE_CHECKING:
    from foreword.artifacts.lost import Lost


@o.with_flags
def compose(
    artifacts: Annotated[
        list[Path],
        typer.Argument(
            metavar="ARTIFACT ARTIFACT...",
            help="Artifact folders, or run folders, in the order in which they stand.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the artifact into this new folder.")
    ] = None,
    average: Annotated[
        bool, typer.Option("--average", help="The mean of prompts of one shape instead.")
    ] = False,
    weights: Annotated[
        str | None,
        typer.Option("--weights", help="A weighted sum instead, such as 0.7,0.3 or 1,1,-1."),
    ] = None,
    as_stored: Annotated[
        bool,
        typer.Option(
            "--as-stored", help="Leave keys that cannot be moved to other positions as they are."
        ),
    ] = False,
    name: Annotated[str | None, typer.Option("--name", help="What the artifact is called.")] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            "--check", help="Say what each prompt loses on the texts of this file (a text a line)."
        ),
    ] = None,
    *,
    on: o.ArtifactFlags,
    limit: o.LimitOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Put trained prompts of one backbone together: one behind the other, or averaged."""
    if out is None and check is None:
        raise UserError("--out: give a folder for the artifact, or --check FILE, or both")
    texts = [] if check is None else _texts(check)[:limit]
    if out is not None:
        from foreword.common.files import refuse_occupied

        refuse_occupied(out)
    from foreword.artifacts.composing import compose as put_together
    from foreword.backbone import default_device

    loading = loading_options(on)
    if loading.pop("trust_remote_code"):
        raise UserError(
            "--trust-remote-code: is not taken here; load the backbone in Python and give it to "
            "foreword.compose"
        )
    loading["device"] = loading["device"] or default_device()
    whole = put_together(
        artifacts,
        average=average,
        weights=None if weights is None else _numbers(weights),
        as_stored=as_stored,
        backbone_name=on.backbone,
        other_backbone=on.other_backbone,
        **loading,
    )
    losses = whole.check(texts) if texts else []
    if out is not None:
        whole.save(out, name=name)
        length = whole.manifest.method.length
        complain(f"{out}: {len(artifacts)} prompts, {length} virtual tokens")
    if as_json:
        emit_json(
            {"out": None if out is None else str(out), "lost": [one.figures() for one in losses]}
        )
    elif losses:
        _print(losses)
    elif out is not None:
        say(str(out))


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(
            f"--weights: expected numbers with commas between them, such as 0.7,0.3, found '{text}'"
        ) from error


def _texts(file: Path) -> list[str]:
    texts = []
    for row in read_inputs(file):
        value: Any = row.value if isinstance(row.value, str) else row.value.get("text")
        if not isinstance(value, str) or not value:
            raise UserError(f"--check: {row.where}: expected a text, or a row with a field 'text'")
        texts.append(value)
    return texts


def _title(one: Lost) -> str:
    cut = f", {one.truncated:,} of the texts cut to fit" if one.truncated else ""
    return f"what each prompt loses, in nats per token ({one.tokens:,} tokens{cut})"


def _print(rows: list[Lost]) -> None:
    from rich import box
    from rich.table import Table

    from foreword.cli.tables import print_table

    table = Table(box=box.SIMPLE_HEAD, title=_title(rows[0]), title_justify="left")
    table.add_column("prompt", overflow="fold")
    for column in ("KL", "KL of no prompt", "lost", "log p alone", "together", "no prompt"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        share = "–" if row.share is None else f"{row.share:.1%}"
        figures = (row.divergence, row.divergence_bare), (row.alone, row.together, row.bare)
        first, last = ([f"{one:.4f}" for one in some] for some in figures)
        table.add_row(row.prompt, *first, share, *last)
    print_table(table)
