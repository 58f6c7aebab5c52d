"""Options that several verbs share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from foreword.common.limits import MOST, MOST_ROWS
from foreword.data.lines import check_encoding
from foreword.errors import DataError, did_you_mean
from foreword.names import FORMATS, TEXT, Together


class Device(StrEnum):
    """Where a model runs."""

    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class DType(StrEnum):
    """What a backbone is cast to; `auto` keeps the type that it is stored in, where the device has
    units for it."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    float64 = "float64"


def _format(name: str) -> str:
    if name not in FORMATS:
        raise typer.BadParameter(f"{name!r} is not known{did_you_mean(name, FORMATS)}")
    return name


FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        parser=_format,
        metavar="|".join(FORMATS),
        help="Default: as the artifact's task, or by name.",
    ),
]


def _input_format(name: str) -> str:
    return name if name == TEXT else _format(name)


def _encoding(name: str) -> str:
    try:
        check_encoding(name)
    except DataError as error:
        raise typer.BadParameter(str(error).removeprefix("encoding: ")) from error
    return name


InputOption = Annotated[
    str | None,
    typer.Option(
        "--input",
        metavar="FILE|-",
        help="Rows with named fields (JSONL, CSV, TSV, Parquet, …) or a text a line; - is standard"
        " input, answered line by line as it arrives.",
    ),
]
InputFormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        parser=_input_format,
        metavar="|".join((TEXT, *FORMATS)),
        help="Of --input. Default: by its name or first line.",
    ),
]
EncodingOption = Annotated[
    str,
    typer.Option(
        "--encoding",
        parser=_encoding,
        metavar="NAME",
        help="Of a text file that is read, such as gb18030.",
    ),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Let --out replace a file that is there.")
]
TextOption = Annotated[
    list[str] | None, typer.Option("--text", help="An input text; may be repeated.")
]
PromptOption = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt",
        metavar="NAME=FOLDER",
        help="Instead of ARTIFACT: one of several artifacts on the --backbone; rows of --input name"
        " theirs in the field 'prompt'. May be repeated.",
    ),
]
OneArtifactArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="ARTIFACT",
        help="An artifact folder, or a run folder; TEXT+TASK puts several one behind the other.",
    ),
]
ArtifactArgument = Annotated[
    Path,
    typer.Argument(
        metavar="ARTIFACT",
        help="An artifact folder, or a run folder; TEXT+TASK puts several one behind the other.",
    ),
]
BatchSizeOption = Annotated[
    int | None, typer.Option("--batch-size", min=1, max=MOST_ROWS, help="Rows processed together.")
]


def _together(text: str) -> Together:
    if text == "auto":
        return "auto"
    if text.isdecimal() and 1 <= int(text) <= MOST_ROWS:
        return int(text)
    raise typer.BadParameter(f"{text!r} is neither a number from 1 to {MOST_ROWS:,} nor auto")


TogetherOption = Annotated[
    Any,
    typer.Option(
        "--batch-size",
        parser=_together,
        metavar="N|auto",
        help="Rows answered together; auto: as many as memory has room for.",
    ),
]
LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, max=MOST, help="Use the first N examples only.")
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of everything random.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="Write there: a file, a device or FIFO, - for standard output."),
]
DownloadOption = Annotated[
    bool, typer.Option("--download", help="Let the backbone be downloaded from the hub.")
]


def _load_plugins(files: list[Path] | None) -> list[Path] | None:
    if files:
        from foreword.extensions import load_plugin

        for file in files:
            load_plugin(file)
    return files


PluginOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE.py",
        callback=_load_plugins,
        is_eager=True,
        help="Run a Python file that registers methods, metrics or formats; may be repeated.",
    ),
]


ClusterOption = Annotated[
    str | None,
    typer.Option("--on", metavar="ray://…", help="A Ray cluster: ray://local, ray://HOST:PORT."),
]
SharedOption = Annotated[
    str | None,
    typer.Option(
        "--shared",
        metavar="URL",
        help="With --on: folder that all machines reach, as fsspec writes it; --out if not given.",
    ),
]
QuantizationOption = Annotated[
    str | None,
    typer.Option(
        "--quantization",
        metavar="none|YAML",
        help="How to quantise the backbone, instead of how it was trained with.",
    ),
]


@dataclass(frozen=True)
class PluginFlags:
    """The flag of every verb that reads a recipe or an artifact."""

    plugin: PluginOption = None


@dataclass(frozen=True)
class BackboneFlags(PluginFlags):
    """The flags of every verb that loads a backbone."""

    backbone: Annotated[
        str | None,
        typer.Option("--backbone", help="Its name or folder, instead of what is written down."),
    ] = None
    device: Annotated[
        Device | None, typer.Option("--device", help="Default: cuda, else mps, else cpu.")
    ] = None
    dtype: Annotated[
        DType | None, typer.Option("--dtype", help="Cast the backbone to this type.")
    ] = None
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the backbone.")
    ] = False


@dataclass(frozen=True)
class ArtifactFlags(BackboneFlags):
    """The flags of every verb that puts an artifact on its backbone."""

    other_backbone: Annotated[
        bool,
        typer.Option("--other-backbone", help="Take a backbone whose weights differ all the same."),
    ] = False
    quantization: QuantizationOption = None
    device_map: Annotated[
        str | None,
        typer.Option(
            "--device-map", metavar="RULE|YAML", help="Spread the backbone over devices, e.g. auto."
        ),
    ] = None
    download: DownloadOption = False


def with_flags(verb: Callable[..., None]) -> Callable[..., None]:
    """Each field of a parameter that is a group of flags becomes an option of the verb."""
    hints = get_type_hints(verb, include_extras=True)
    groups = {
        name: hint
        for name, hint in hints.items()
        if isinstance(hint, type) and issubclass(hint, PluginFlags)
    }

    @wraps(verb)
    def run(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        verb(**given)

    parameters = []
    for name, parameter in inspect.signature(verb).parameters.items():
        group = groups.get(name)
        shown = [parameter] if group is None else inspect.signature(group).parameters.values()
        types = hints if group is None else get_type_hints(group, include_extras=True)
        parameters += [
            one.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=types[one.name])
            for one in shown
        ]
    del run.__dict__["__wrapped__"]
    run.__dict__["__signature__"] = inspect.Signature(parameters)
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run
