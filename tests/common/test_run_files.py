"""Whether a run may have a folder, and what is said of one that holds no artifact yet."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from foreword.artifacts.manifest import read_manifest
from foreword.common.run_files import METRICS, RECIPE, refuse_for_new_run, refuse_unwritable
from foreword.errors import ArtifactError, UserError, named_as_flags


def test_folders_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for folder in (tmp_path / "file", tmp_path / "file" / "below" / "it"):
        with pytest.raises(UserError, match=r"file: cannot be made a folder|file is a file"):
            refuse_unwritable(folder)
    with pytest.raises(UserError, match="cannot be made a folder: File name too long"):
        refuse_unwritable(tmp_path / ("x" * 300))
    for folder in (tmp_path / "new", tmp_path / "new" / "below"):
        refuse_for_new_run(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_nobody_may_write_into(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match=r"writing into .* is not permitted"):
        refuse_unwritable(tmp_path / "new")
    tmp_path.chmod(0o700)


def test_a_folder_with_something_in_it(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match="is not empty; name another folder"):
        refuse_for_new_run(tmp_path)
    (tmp_path / RECIPE).write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match=r"an unfinished run; go on with the run by `resume=True`"):
        refuse_for_new_run(tmp_path)
    with named_as_flags(), pytest.raises(UserError, match=r"--resume, or name another .* --out"):
        refuse_for_new_run(tmp_path)
    (tmp_path / METRICS).write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="is not empty; name another folder"):
        refuse_for_new_run(tmp_path)


def test_a_run_that_has_not_ended_is_told_from_what_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"is no artifact, it has no foreword\.json"):
        read_manifest(tmp_path)
    folder = tmp_path / "a run"
    folder.mkdir()
    (folder / RECIPE).write_text("x", encoding="utf-8")
    said = "a run: holds a run that has not ended, and so no artifact yet; "
    with pytest.raises(ArtifactError, match=said + r"`foreword.train\('.*', resume=True\)`"):
        read_manifest(folder)
    with named_as_flags(), pytest.raises(ArtifactError) as caught:
        read_manifest(folder)
    command = f"`foreword train '{folder / RECIPE}' --out '{folder}' --resume` goes on with the run"
    assert str(caught.value).endswith(command)
