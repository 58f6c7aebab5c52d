"""`--prompt NAME=FOLDER`: rows that name their prompt, answered together on one backbone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.cli import options as o
from foreword.cli.answering import Advance, Answering
from foreword.cli.loading import complain_of_slowness, loading_options
from foreword.errors import UserError
from foreword.names import Together

if TYPE_CHECKING:
    import numpy.typing as npt

    from foreword.bank import PromptBank
    from foreword.data.inputs import Given
    from foreword.session import Answer
    from foreword.tasks import Prediction

    Matrix = npt.NDArray[Any]
    """Vectors, `[rows, width]`."""
Rows = list[dict[str, Any]]
"""What the output says of rows."""
_FLAG = "--prompt"


def folders_of(
    artifact: Path | None, prompts: Sequence[str] | None, backbone: str | None, texts: Sequence[str]
) -> dict[str, Path]:
    """The artifacts of `--prompt`, by name; none where one artifact is given instead.

    Args:
        artifact: the one that is given by itself.
        prompts: what `--prompt` gives.
        backbone: what `--backbone` gives.
        texts: what `--text` gives.

    Raises:
        UserError: neither or both are given, a name is given twice, there is no such artifact, or
            no backbone is named.
    """
    if not prompts:
        if artifact is None:
            raise UserError(
                f"ARTIFACT: give an artifact or run folder, or several with {_FLAG} NAME=FOLDER "
                "and --backbone"
            )
        return {}
    if artifact is not None:
        raise UserError(
            f"{_FLAG}: '{prompts[0]}', but the artifact '{artifact}' is given, too; name it with "
            f"{_FLAG} NAME={artifact}"
        )
    if texts:
        raise UserError(
            f"--text: '{texts[0]:.60}' names no prompt; give rows with --input, such as "
            '{"prompt": "NAME", "text": "…"}'
        )
    if backbone is None:
        raise UserError(f"--backbone: is not given; name the backbone that all {_FLAG} share")
    from foreword.artifacts.joined import last_manifest

    folders: dict[str, Path] = {}
    for given in prompts:
        name, equals, folder = given.partition("=")
        if not (name and equals and folder):
            raise UserError(f"{_FLAG}: expected NAME=FOLDER, found '{given}'")
        if name in folders:
            raise UserError(
                f"{_FLAG}: the name '{name}' is given twice, for '{folders[name]}' and '{folder}'; "
                "give each prompt its own"
            )
        folders[name] = Path(folder)
        last_manifest(folder)
    return folders


def load_bank(folders: Mapping[str, Path], on: o.ArtifactFlags) -> PromptBank:
    """The backbone that flags name, with all prompts."""
    from foreword.bank import prompts

    assert on.backbone is not None, "folders_of has seen to it"
    bank = prompts(on.backbone, **loading_options(on))
    complain_of_slowness(bank.backbone)
    for name, folder in folders.items():
        bank.add(name, folder, other_backbone=on.other_backbone)
    return bank


def writers(
    bank: PromptBank, batch_size: Together, seed: int | None, decoding: Mapping[str, Any]
) -> Answering:
    """Answers rows by texts."""

    def check(rows: list[Given]) -> None:
        values, where = _apart(rows)
        bank.check(values, where=where, **decoding)

    def answers(rows: list[Given], done: int, advance: Advance) -> list[dict[str, Any]]:
        values, where = _apart(rows)
        written = bank.answer(
            values,
            where=where,
            batch_size=batch_size,
            seed=None if seed is None else seed + done,
            advance=advance,
            **decoding,
        )
        return [written_row(one) for one in written]

    return Answering(answers, check)


def tellers(bank: PromptBank, batch_size: Together) -> Answering:
    """Answers rows by heads and label words."""

    def check(rows: list[Given]) -> None:
        values, where = _apart(rows)
        bank.check(values, verb="predict", where=where)

    def answers(rows: list[Given], _: int, advance: Advance) -> list[dict[str, Any]]:
        values, where = _apart(rows)
        predictions = bank.predict(values, where=where, batch_size=batch_size, advance=advance)
        return [predicted_row(one) for one in predictions]

    return Answering(answers, check)


def givers(
    bank: PromptBank, batch_size: Together, *, paired: bool, shown: Callable[[Matrix], Rows]
) -> Answering:
    """Answers rows by vectors.

    Args:
        bank: the prompts.
        batch_size: rows read together.
        paired: whether they are texts of the other side.
        shown: what the output says of some vectors.
    """

    def check(rows: list[Given]) -> None:
        values, where = _apart(rows)
        bank.check(values, verb="embed", where=where, paired=paired)

    def answers(rows: list[Given], _: int, advance: Advance) -> Rows:
        values, where = _apart(rows)
        return shown(
            bank.embed(values, paired=paired, where=where, batch_size=batch_size, advance=advance)
        )

    return Answering(answers, check)


def written_row(one: Answer) -> dict[str, Any]:
    """What the output says of an answer that was written."""
    return {"output": one.text, **({"truncated": True} if one.truncated else {})}


def predicted_row(one: Prediction) -> dict[str, Any]:
    """What the output says of a label, tags, a span or a word."""
    from foreword.evaluation.rows import in_full

    return {"output": one.answer, **in_full(one)}


def _apart(rows: list[Given]) -> tuple[list[Any], list[str]]:
    return [row.value for row in rows], [row.where for row in rows]
