"""`foreword generate`, `predict` and `evaluate`: an artifact at work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foreword.cli import options as o
from foreword.cli.answering import Advance, Answering, Asked, answer
from foreword.cli.destination import Destination, destination
from foreword.cli.loading import load_artifact
from foreword.cli.mixing import folders_of, load_bank, predicted_row, tellers, writers, written_row
from foreword.cli.output import emit_json
from foreword.common.characters import to_json
from foreword.common.files import refuse_existing
from foreword.data.lines import UTF8
from foreword.errors import DataError, UserError
from foreword.names import tables

if TYPE_CHECKING:
    from foreword.data import Example
    from foreword.data.inputs import Given
    from foreword.scoring.confusion import ConfusionMatrix

BATCH = 32
"""Rows answered together, where --batch-size is not given."""


@o.with_flags
def generate(
    artifact: o.OneArtifactArgument = None,
    text: o.TextOption = None,
    input: o.InputOption = None,
    format: o.InputFormatOption = None,
    encoding: o.EncodingOption = UTF8,
    prompt: o.PromptOption = None,
    out: o.OutOption = None,
    overwrite: o.OverwriteOption = False,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer, in tokens.")
    ] = None,
    num_beams: Annotated[int | None, typer.Option(min=1, help="Beams; 1 is greedy.")] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Sample instead of the best.")] = False,
    temperature: Annotated[
        float | None, typer.Option(min=0.0, help="With --sample: above 1 is wilder.")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="With --sample: draw from the likeliest so much."),
    ] = None,
    stop: Annotated[
        list[str] | None, typer.Option("--stop", help="Stop word; may be repeated.")
    ] = None,
    *,
    on: o.ArtifactFlags,
    batch_size: o.TogetherOption = None,
    limit: o.LimitOption = None,
    seed: o.SeedOption = None,
) -> None:
    """Answer texts or the rows of a file with a trained prompt, or each row with the one of several
    that it names; JSONL comes out, a row for each."""
    chosen: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "num_beams": num_beams,
        "do_sample": sample or None,
        "temperature": temperature,
        "top_p": top_p,
        "stop": tuple(stop) if stop else None,
    }
    given = {key: value for key, value in chosen.items() if value is not None}
    inputs = Asked(text or (), input, format, encoding, limit, batch_size or BATCH)

    def load_one(artifact: Path) -> Answering:
        loaded = load_artifact(artifact, on)

        def answers(rows: list[Given], done: int, advance: Advance) -> list[dict[str, Any]]:
            written = loaded.answer(
                [loaded.example(row.value, row.where) for row in rows],
                batch_size=inputs.batch_size,
                seed=None if seed is None else seed + done,
                advance=advance,
                **given,
            )
            return [written_row(one) for one in written]

        return Answering(answers)

    def load_many(folders: dict[str, Path]) -> Answering:
        return writers(load_bank(folders, on), inputs.batch_size, seed, given)

    to = destination(out)
    rows = answers_of(artifact, prompt, on, inputs, "generate", to, overwrite, load_one, load_many)
    if not to.streams:
        to.write(rows)


@o.with_flags
def predict(
    artifact: o.OneArtifactArgument = None,
    text: o.TextOption = None,
    input: o.InputOption = None,
    format: o.InputFormatOption = None,
    encoding: o.EncodingOption = UTF8,
    prompt: o.PromptOption = None,
    out: o.OutOption = None,
    overwrite: o.OverwriteOption = False,
    *,
    on: o.ArtifactFlags,
    batch_size: o.TogetherOption = None,
    limit: o.LimitOption = None,
) -> None:
    """Tell labels, tags, spans or missing words, with probabilities, by a trained prompt or by the
    one of several that each row names; JSONL comes out."""
    inputs = Asked(text or (), input, format, encoding, limit, batch_size or BATCH)

    def load_one(artifact: Path) -> Answering:
        loaded = load_artifact(artifact, on)

        def answers(rows: list[Given], _: int, advance: Advance) -> list[dict[str, Any]]:
            examples = [loaded.example(row.value, row.where) for row in rows]
            predictions = loaded.predict(examples, batch_size=inputs.batch_size, advance=advance)
            return [predicted_row(one) for one in predictions]

        return Answering(answers)

    def load_many(folders: dict[str, Path]) -> Answering:
        return tellers(load_bank(folders, on), inputs.batch_size)

    to = destination(out)
    rows = answers_of(artifact, prompt, on, inputs, "predict", to, overwrite, load_one, load_many)
    if not to.streams:
        to.write(rows)


@o.with_flags
def evaluate(
    artifact: o.ArtifactArgument,
    data: Annotated[Path, typer.Option("--data", help="Examples with references.")],
    format: o.FormatOption = None,
    encoding: o.EncodingOption = UTF8,
    references: Annotated[
        str | None, typer.Option("--references", help="Column with the references.")
    ] = None,
    group: Annotated[
        str | None, typer.Option("--group", help="Column to report apart by; '' for none.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write figures and answers there, as JSON.")
    ] = None,
    overwrite: o.OverwriteOption = False,
    *,
    on: o.ArtifactFlags,
    batch_size: o.TogetherOption = None,
    limit: o.LimitOption = None,
    seed: o.SeedOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Measure a trained prompt on a data file."""
    from foreword.artifacts.joined import last_manifest
    from foreword.common.progress import progress_for_terminal
    from foreword.data import read_examples

    to = destination(out)
    manifest = last_manifest(artifact)
    task = manifest.task
    picture = _picture(to, task.answer)
    for file in (to.file, picture):
        if file is not None:
            refuse_existing(file, overwrite=overwrite)
    columns = task.columns() | {"group": task.group if group is None else group or None}
    if references is not None:
        columns["references"] = references
    examples = read_examples(
        data,
        format or _format_of(data, task.format),
        encoding=encoding,
        inputs=manifest.inputs(),
        **columns,
    )[:limit]
    prompt = load_artifact(artifact, on)
    progress = progress_for_terminal()
    try:
        progress.begin("evaluate", len(examples))
        report = prompt.evaluate(
            examples, batch_size=batch_size or BATCH, seed=seed, advance=progress.advance
        )
    finally:
        progress.end()
    figures = {
        "data": str(data),
        "examples": len(examples),
        "truncated": report.truncated,
        **report.figures(),
    }
    if out is not None:
        answers = [
            {"input": source, "output": answer}
            for source, answer in zip(report.sources, report.answers, strict=True)
        ]
        if picture is not None:
            _confusion(examples, report.answers, task.labels).draw(picture, out.stem)
        to.write(to_json({**figures, "answers": answers}, indent=2) + "\n")
        if to.is_standard_output:
            return
    if as_json:
        emit_json(figures)
        return
    from foreword.cli.tables import counted, print_table, score_table

    title = counted(f"{artifact} on {len(examples)} records of {data}", report.truncated)
    print_table(score_table(title, {prompt.manifest.method.name: report.figures()}))
    if task.answer == "label":
        print_table(_confusion(examples, report.answers, task.labels).table("taken for"))


def answers_of(
    artifact: Path | None,
    prompts: list[str] | None,
    on: o.ArtifactFlags,
    inputs: Asked,
    title: str,
    to: Destination,
    overwrite: bool,
    load_one: Callable[[Path], Answering],
    load_many: Callable[[dict[str, Path]], Answering],
) -> str:
    """What is told of all inputs by one artifact, or by the prompts that they name.

    Args:
        artifact: the one artifact.
        prompts: what `--prompt` gives instead.
        on: how they are loaded.
        inputs: what is asked.
        title: of the progress.
        to: gets the rows where it is no file.
        overwrite: whether a file that is there may be replaced.
        load_one: loads the artifact.
        load_many: loads the prompts by their names.

    Returns:
        The rows, where `to` is a file.
    """
    from foreword.artifacts.joined import last_manifest

    folders = folders_of(artifact, prompts, on.backbone, inputs.texts)
    if to.file is not None:
        refuse_existing(to.file, overwrite=overwrite)
    if artifact is None:
        return answer(inputs, load=lambda: load_many(folders), task=None, title=title, to=to)
    return answer(
        inputs,
        load=lambda: load_one(artifact),
        task=lambda: last_manifest(artifact).task,
        title=title,
        to=to,
    )


def _confusion(
    examples: Sequence[Example], answers: Sequence[str], labels: Sequence[str]
) -> ConfusionMatrix:
    from foreword.scoring.confusion import confusion_matrix

    return confusion_matrix([example.label or "" for example in examples], answers, labels)


def _picture(to: Destination, answer: str) -> Path | None:
    """The picture beside a file of figures, where they are of labels.

    Raises:
        UserError: something that is no regular file is there.
    """
    if to.out is None or to.streams or answer != "label":
        return None
    name = to.out.with_suffix(".png")
    beside = destination(name if name != to.out else to.out.with_name(f"{to.out.name}.png"))
    if beside.file is None:
        raise UserError(f"{beside.out}: the picture beside {to.out} goes there, which is no file")
    return beside.file


def _format_of(data: Path, trained_on: str) -> str:
    if str(data).startswith("foreword/"):
        return "jsonl"
    suffix = data.suffix.lower().lstrip(".")
    if trained_on not in tables() and (trained_on != "e2e" or suffix == "csv"):
        return trained_on
    known = {"jsonl": "jsonl", "json": "jsonl", "csv": "csv", "tsv": "tsv", "parquet": "parquet"}
    if suffix not in known:
        raise DataError(f"{data}: its format cannot be told from its name; give it with --format")
    return known[suffix]
