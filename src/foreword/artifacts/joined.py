"""`TEXT+TASK`: the names of artifacts that stand together before a text. No torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from foreword.artifacts.manifest import MANIFEST, Manifest, artifact_folder, read_manifest
from foreword.errors import ArtifactError

JOIN = "+"


def parts_of(artifact: Path | str, known: Callable[[str], bool] | None = None) -> tuple[Path, ...]:
    """The folders that `TEXT+TASK` names, in the order in which they stand; one folder by itself,
    and one whose own name has a plus. Of several ways to read a name that with the longest names of
    folders that are there is taken.

    Args:
        artifact: the name.
        known: whether a piece of it names something; None: whether there is such a folder, and
            where there is none all that is left is one name.

    Raises:
        ArtifactError: nothing stands on one side of a plus.
    """
    pieces = str(artifact).split(JOIN)
    if len(pieces) == 1:
        return (Path(artifact),)
    is_there = known or (lambda name: Path(name).exists())
    folders: list[Path] = []
    while pieces:
        ends = range(len(pieces), 0, -1)
        names = [(end, JOIN.join(pieces[:end])) for end in ends]
        there = [(end, name) for end, name in names if name and is_there(name)]
        end, name = there[0] if there else names[0 if known is None else -1]
        if not name or name.startswith(JOIN):
            raise ArtifactError(
                f"{artifact}: no artifact stands on one side of a plus; give TEXT{JOIN}TASK, two "
                "folders or more"
            )
        folders.append(Path(name))
        pieces = pieces[end:]
    return tuple(folders)


def has_artifact(folder: Path) -> bool:
    """Whether a folder is an artifact, or a run that has one."""
    return any(os.path.lexists(one / MANIFEST) for one in (folder, folder / "artifact"))


def last_manifest(artifact: Path | str) -> Manifest:
    """What the artifact says that decides what is read and written: the last of `TEXT+TASK`."""
    return read_manifest(artifact_folder(parts_of(artifact)[-1]))
