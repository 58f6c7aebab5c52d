"""Options that several verbs share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Device(StrEnum):
    """Where a model runs."""

    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class DType(StrEnum):
    """What a backbone is cast to."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Format(StrEnum):
    """Format of a data file."""

    jsonl = "jsonl"
    csv = "csv"
    tsv = "tsv"
    parquet = "parquet"
    e2e = "e2e"


ArtifactArgument = Annotated[
    Path, typer.Argument(metavar="ARTIFACT", help="An artifact folder, or a run folder.")
]
BackboneOption = Annotated[
    str | None,
    typer.Option("--backbone", help="Where the backbone lies, instead of the recorded name."),
]
DeviceOption = Annotated[
    Device | None, typer.Option("--device", help="Default: cuda, else mps, else cpu.")
]
DTypeOption = Annotated[
    DType | None, typer.Option("--dtype", help="Cast the backbone to this type.")
]
BatchSizeOption = Annotated[
    int | None, typer.Option("--batch-size", min=1, help="Rows processed together.")
]
LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="Use the first N examples only.")
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of everything random.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
OutOption = Annotated[Path | None, typer.Option("--out", help="Write there.")]
OtherBackboneOption = Annotated[
    bool,
    typer.Option("--other-backbone", help="Take a backbone whose weights differ all the same."),
]
DownloadOption = Annotated[
    bool, typer.Option("--download", help="Let the backbone be downloaded from the hub.")
]
TrustOption = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that comes with the backbone.")
]
