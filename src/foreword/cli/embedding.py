"""`foreword embed`: texts as vectors."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foreword.cli import options as o
from foreword.cli.answering import Advance, Answering, Asked, answer
from foreword.cli.destination import Destination, destination
from foreword.cli.loading import load_artifact
from foreword.cli.using import BATCH
from foreword.common.files import refuse_existing, replace_bytes
from foreword.data.inputs import Given
from foreword.data.lines import UTF8
from foreword.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@o.with_flags
def embed(
    artifact: o.ArtifactArgument,
    text: o.TextOption = None,
    input: o.InputOption = None,
    format: o.InputFormatOption = None,
    encoding: o.EncodingOption = UTF8,
    paired: Annotated[
        bool,
        typer.Option(
            "--paired",
            help="They are texts of the other side (task.data.paired), as documents are.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Write there: a file ending in .npy, a matrix with a row for each input; anything"
            " else, JSONL. Default: JSONL to standard output.",
        ),
    ] = None,
    overwrite: o.OverwriteOption = False,
    *,
    on: o.ArtifactFlags,
    batch_size: o.BatchSizeOption = None,
    limit: o.LimitOption = None,
) -> None:
    """Give the vectors of texts, or of the rows of a file, by an encoder with a trained prompt."""
    from foreword.artifacts.manifest import artifact_folder, read_manifest

    inputs = Asked(text or (), input, format, encoding, limit, batch_size or BATCH)
    to = destination(out)
    if to.file is not None:
        refuse_existing(to.file, overwrite=overwrite)
    as_matrix = out is not None and out.suffix.lower() == ".npy"
    if as_matrix and to.file is None:
        raise UserError(f"--out: {out}: is no file, but a matrix needs one; give another name")
    parts: list[npt.NDArray[np.float64]] = []

    def load() -> Answering:
        loaded = load_artifact(artifact, on)
        loaded.task.task.check_verb("embed", "this artifact")

        def vectors(rows: list[Given], _: int, advance: Advance) -> list[dict[str, Any]]:
            matrix = loaded.embed(
                [loaded.example(row.value, row.where, paired=paired) for row in rows],
                paired=paired,
                batch_size=inputs.batch_size,
                advance=advance,
            )
            if as_matrix:
                parts.append(matrix)
                return [{} for _ in rows]
            return [{"vector": [float(str(number)) for number in row]} for row in matrix]

        return Answering(vectors)

    rows = answer(
        inputs,
        load=load,
        task=lambda: read_manifest(artifact_folder(artifact)).task,
        title="embed",
        to=to,
    )
    if as_matrix:
        _write_matrix(to, parts)
    elif not to.streams:
        to.write(rows)


def _write_matrix(to: Destination, parts: list[npt.NDArray[np.float64]]) -> None:
    import numpy as np

    assert to.file is not None, "embed has seen to it"
    written = BytesIO()
    np.save(written, np.concatenate(parts))
    replace_bytes(to.file, written.getvalue())
