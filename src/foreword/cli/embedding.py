"""`foreword embed`: texts as vectors."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foreword.cli import options as o
from foreword.cli.answering import Advance, Answering, Asked
from foreword.cli.destination import Destination, destination
from foreword.cli.loading import load_artifact
from foreword.cli.mixing import givers, load_bank
from foreword.cli.using import BATCH, answers_of
from foreword.common.files import replace_bytes
from foreword.data.lines import UTF8
from foreword.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from foreword.data.inputs import Given


@o.with_flags
def embed(
    artifact: o.OneArtifactArgument = None,
    text: o.TextOption = None,
    input: o.InputOption = None,
    format: o.InputFormatOption = None,
    encoding: o.EncodingOption = UTF8,
    prompt: o.PromptOption = None,
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
    batch_size: o.TogetherOption = None,
    limit: o.LimitOption = None,
) -> None:
    """Give the vectors of texts, or of the rows of a file, by a trained prompt, or of each row by
    the one of several that it names."""
    inputs = Asked(text or (), input, format, encoding, limit, batch_size or BATCH)
    to = destination(out)
    as_matrix = out is not None and out.suffix.lower() == ".npy"
    if as_matrix and to.file is None:
        raise UserError(f"--out: {out}: is no file, but a matrix needs one; give another name")
    parts: list[npt.NDArray[np.float64]] = []

    def shown(matrix: npt.NDArray[Any]) -> list[dict[str, Any]]:
        if as_matrix:
            parts.append(matrix)
            return [{} for _ in matrix]
        return [{"vector": [float(str(number)) for number in row]} for row in matrix]

    def load_one(artifact: Path) -> Answering:
        loaded = load_artifact(artifact, on)
        loaded.task.task.check_verb("embed", "this artifact")

        def vectors(rows: list[Given], _: int, advance: Advance) -> list[dict[str, Any]]:
            return shown(
                loaded.embed(
                    [loaded.example(row.value, row.where, paired=paired) for row in rows],
                    paired=paired,
                    batch_size=inputs.batch_size,
                    advance=advance,
                )
            )

        return Answering(vectors)

    def load_many(folders: dict[str, Path]) -> Answering:
        return givers(load_bank(folders, on), inputs.batch_size, paired=paired, shown=shown)

    rows = answers_of(artifact, prompt, on, inputs, "embed", to, overwrite, load_one, load_many)
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
