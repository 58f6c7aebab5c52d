"""`foreword import` and `foreword export`: prompts of other tools, and for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foreword.cli import options as o

import_ = typer.Typer(help="Make an artifact of what another tool trained.", no_args_is_help=True)
export = typer.Typer(help="Write an artifact in another tool's format.", no_args_is_help=True)


@import_.command("peft")
def import_peft(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="What PEFT's save_pretrained wrote.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="The artifact's folder. Default: runs/NAME-OF-DIR.")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option("--backbone", help="The backbone, instead of the name in the adapter."),
    ] = None,
    input: Annotated[
        str, typer.Option("--input", help="Template of the input; PEFT keeps none.")
    ] = "{text}",
    target: Annotated[str, typer.Option("--target", help="Template of the answer.")] = (
        "{reference}"
    ),
    download: o.DownloadOption = False,
    device: o.DeviceOption = None,
    dtype: o.DTypeOption = None,
) -> None:
    """Make an artifact of a prefix, prompt or P-Tuning adapter that PEFT trained on a decoder."""
    from foreword.backbone import default_device
    from foreword.compat import import_peft as run_import

    out = out or Path("runs") / folder.resolve().name
    manifest = run_import(
        folder,
        out,
        backbone=backbone,
        input=input,
        target=target,
        device=device.value if device else default_device(),
        dtype=dtype.value if dtype else "float32",
        download=download,
    )
    typer.echo(
        f"artifact  {out}  ({manifest.method.name}, {manifest.method.length} virtual tokens, for "
        f"{manifest.backbone.name})"
    )


@export.command("peft")
def export_peft(
    artifact: o.ArtifactArgument,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where it goes; a new folder.")],
) -> None:
    """Write an artifact as a folder that PEFT's `PeftModel.from_pretrained` loads."""
    from foreword.compat import export_peft as run_export

    config = run_export(artifact, folder)
    typer.echo(f"adapter   {folder}  ({config.kind.value}, {config.num_virtual_tokens} tokens)")
