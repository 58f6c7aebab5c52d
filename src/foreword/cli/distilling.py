"""`foreword distil`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from foreword.cli import options as o
from foreword.cli.output import complain
from foreword.cli.training import carry_out
from foreword.common.limits import MOST
from foreword.errors import UserError

TRAINING: dict[str, Any] = {
    "steps": 400,
    "batch_size": 8,
    "schedule": "linear",
    "warmup": 0.05,
    "evaluate_every": 100,
    "best_by": None,  # the prompt is measured on the rows that are watched
}
"""How a text is learned on two cores; the rate is the method's."""


@o.with_flags
def distil(
    texts: Annotated[
        list[Path],
        typer.Argument(metavar="TEXT…", help="Files of UTF-8 text, learned together."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="The run folder; runs/TEXT if not given.")
    ] = None,
    length: Annotated[
        int, typer.Option("--length", min=2, max=2**17, help="Virtual tokens of the prompt.")
    ] = 64,
    prompt: Annotated[
        bool,
        typer.Option(
            "--prompt", help="TEXT is an instruction that is compressed, not a text to learn."
        ),
    ] = False,
    made: Annotated[
        int | None,
        typer.Option(
            "--made", min=1, max=MOST, help="Most conversations to make; 256 if not given."
        ),
    ] = None,
    conversations: Annotated[
        Path | None,
        typer.Option(
            "--conversations", metavar="FILE", help="Learn these; such as edited ones of a run."
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", metavar="TIME", help="Most time in all: 90s, 20m, 2h."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="key.path=value", help="Override a value of the recipe."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, or the newest of TEXT.")
    ] = False,
    *,
    on: o.BackboneFlags,
    batch_size: o.BatchSizeOption = None,
    seed: o.SeedOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Make a prompt of a long text: the backbone reads it, asks itself about it, and the prompt
    learns what it says.

    The same as `foreword train` of a recipe with `teacher:`, which is written into the run folder.
    Without --backbone the bundled foreword/mini learns, which is too small to understand a text.
    """
    from foreword.recipe import parse_recipe

    if prompt and len(texts) > 1:
        raise UserError(f"--prompt: takes one file, found {len(texts)}; put them into one")
    raw = _recipe(texts, prompt=prompt, length=length, backbone=on.backbone or "foreword/mini")
    flags = {
        "teacher.made": made,
        "teacher.conversations": None if conversations is None else str(conversations),
        "teacher.budget": budget,
        "backbone.dtype": on.dtype.value if on.dtype else None,
        "training.batch_size": batch_size,
        "seed": seed,
    }
    overrides = [f"{key}={json.dumps(v)}" for key, v in flags.items() if v is not None]
    checked = parse_recipe(
        raw, [*overrides, *(set_ or [])], where="foreword distil", folder=Path.cwd(), say=complain
    )
    carry_out(checked, out, resume, on, as_json)


def _recipe(texts: list[Path], *, prompt: bool, length: int, backbone: str) -> dict[str, Any]:
    """The recipe that the flags stand for."""
    files = [str(text) for text in texts]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", texts[0].stem).strip("-._")[:80] or "text"
    return {
        "version": 1,
        "name": name,
        "backbone": backbone,
        "teacher": {"prompt": files[0]} if prompt else {"texts": files},
        "method": {"name": "cartridge", "length": length},
        "training": TRAINING,
        "decoding": {"max_new_tokens": 96},
    }
