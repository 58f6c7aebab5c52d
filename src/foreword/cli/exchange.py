"""`foreword import` and `foreword export`: prompts of other tools, and for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foreword.cli import options as o
from foreword.cli.loading import quantization as said_quantization
from foreword.cli.output import complain, say
from foreword.errors import UserError

if TYPE_CHECKING:
    from foreword.backbone import Backbone

import_ = typer.Typer(help="Make an artifact of what another tool trained.", no_args_is_help=True)
export = typer.Typer(help="Write an artifact in another tool's format.", no_args_is_help=True)


@import_.command("peft")
@o.with_flags
def import_peft(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="What PEFT's save_pretrained wrote.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="The artifact's folder. Default: runs/NAME-OF-DIR.")
    ] = None,
    input: Annotated[
        str, typer.Option("--input", help="Template of the input; PEFT keeps none.")
    ] = "{text}",
    target: Annotated[str, typer.Option("--target", help="Template of the answer.")] = (
        "{reference}"
    ),
    second: Annotated[
        str | None, typer.Option("--second", help="Template of a second text joined to the input.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            metavar="A,B,...",
            help="What a classifier's outputs are called, in their order. Default: as the base"
            " model's config says.",
        ),
    ] = None,
    problem_type: Annotated[
        str | None,
        typer.Option(
            "--problem-type",
            metavar="single_label_classification|multi_label_classification|regression",
            help="What a sequence classifier tells. Default: as the base model's config says, or a"
            " number where there is one output.",
        ),
    ] = None,
    may_be_none: Annotated[
        bool, typer.Option("--may-be-none", help="A question may have no answer.")
    ] = False,
    quantization: o.QuantizationOption = None,
    download: o.DownloadOption = False,
    *,
    on: o.BackboneFlags,
) -> None:
    """Make an artifact of a prefix, prompt, P-Tuning or LoRA that PEFT trained, with its head."""
    from foreword.backbone import default_device
    from foreword.compat import import_peft as run_import

    device = on.device.value if on.device else default_device()
    dtype = on.dtype.value if on.dtype else "float32"
    out = out or Path("runs") / folder.resolve().name
    how = said_quantization(quantization)
    manifest = run_import(
        folder,
        out,
        backbone=_with_its_code(on, device, dtype, how, download) or on.backbone,
        input=input,
        target=target,
        second=second,
        labels=None if labels is None else [label.strip() for label in labels.split(",")],
        may_be_none=may_be_none,
        problem_type=problem_type,
        device=device,
        dtype=dtype,
        quantization=how,
        download=download,
    )
    method = manifest.method
    say(f"artifact  {out}  ({method.name}, {method.extent}, for {manifest.backbone.name})")
    for note in manifest.data["peft"].get("notes", ()):
        complain(f"note: {note}")


@export.command("peft")
def export_peft(
    artifact: o.ArtifactArgument,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where it goes; a new folder.")],
    plugin: o.PluginOption = None,  # noqa: ARG001
) -> None:
    """Write a prompt or LoRA as a folder that PEFT's `PeftModel.from_pretrained` loads."""
    from foreword.compat import export_peft as run_export

    config = run_export(artifact, folder)
    say(f"adapter   {folder}  ({config.kind.value}, {config.size})")


@export.command("model")
@o.with_flags
def export_model(
    artifact: o.ArtifactArgument,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where it goes; a new folder.")],
    other_backbone: Annotated[
        bool,
        typer.Option("--other-backbone", help="Take a backbone whose weights differ all the same."),
    ] = False,
    quantization: o.QuantizationOption = None,
    download: o.DownloadOption = False,
    *,
    on: o.BackboneFlags,
) -> None:
    """Write a plain transformers model: the backbone with what moved put into its weights."""
    from foreword.compat import export_model as run_export

    loading = _loading(on, artifact, said_quantization(quantization), download)
    notes = run_export(
        artifact,
        folder,
        **loading,
        other_backbone=other_backbone,
        download=download,
    )
    say(f"model     {folder}")
    for note in notes:
        complain(f"note: {note}")


@export.command("vllm")
@o.with_flags
def export_vllm(
    artifacts: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]ARTIFACT...",
            help="Artifacts or run folders, and what clients call each; its folder's name if not"
            " given.",
        ),
    ],
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="The folder of prompts that the server reads; others in it stay."
        ),
    ],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace prompts that have these names.")
    ] = False,
    other_backbone: Annotated[
        bool,
        typer.Option("--other-backbone", help="Take a backbone whose weights differ all the same."),
    ] = False,
    quantization: o.QuantizationOption = None,
    download: o.DownloadOption = False,
    *,
    on: o.BackboneFlags,
) -> None:
    """Write prompts that vLLM serves, all in one batch, through the plug-in foreword-vllm."""
    from foreword.compat import export_vllm as run_export

    named = _named(artifacts)
    loading = _loading(on, next(iter(named.values())), said_quantization(quantization), download)
    written = run_export(
        named,
        folder,
        **loading,
        other_backbone=other_backbone,
        overwrite=overwrite,
        download=download,
    )
    for prompt in written:
        size = f"{prompt.size / 1000:,.0f} kB"
        say(f"prompt    {folder / prompt.name}  ({prompt.length} virtual tokens, {size})")
        for note in prompt.notes:
            complain(f"note: {prompt.name}: {note}")


def _named(given: list[str]) -> dict[str, Path]:
    """Artifacts by name."""
    from foreword.compat.vllm import name_of

    named: dict[str, Path] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals or Path(text).exists():
            name, path = name_of(text), text
        if name in named:
            raise UserError(
                f"ARTIFACT: '{named[name]}' and '{path}' would both be called '{name}'; name one "
                f"with NAME={path}"
            )
        named[name] = Path(path)
    return named


def _loading(
    on: o.BackboneFlags,
    artifact: Path | str,
    quantization: dict[str, Any] | None,
    download: bool,
) -> dict[str, Any]:
    """How an export loads the backbone of an artifact, as arguments of `foreword.compat`'s."""
    from foreword.artifacts.manifest import artifact_folder, read_manifest

    device = on.device.value if on.device else "cpu"
    dtype = on.dtype.value if on.dtype else None
    backbone: Backbone | str | None = on.backbone
    if on.trust_remote_code:
        trained = read_manifest(artifact_folder(artifact)).backbone
        as_trained = trained.quantization if quantization is None else quantization
        backbone = _with_its_code(on, device, dtype or trained.dtype, as_trained, download)
    return {"backbone": backbone, "device": device, "dtype": dtype, "quantization": quantization}


def _with_its_code(
    on: o.BackboneFlags, device: str, dtype: str, how: dict[str, Any] | None, download: bool
) -> Backbone | None:
    """A backbone that runs code of its own, which the user has to name."""
    if not on.trust_remote_code:
        return None
    from foreword.backbone import load_backbone

    if on.backbone is None:
        raise UserError(
            "--trust-remote-code: name the backbone whose code you trust with --backbone; code of "
            "one that only the artifact or adapter names is never run"
        )
    return load_backbone(
        on.backbone,
        dtype=dtype,  # type: ignore[arg-type]
        device=device,
        quantization=how,
        local_files_only=not download,
        trust_remote_code=True,
    )
