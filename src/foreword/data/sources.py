"""Where data comes from: a file, a folder of files, a bundled name, the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from foreword.common import opening
from foreword.errors import DataError, did_you_mean

BUNDLED = Path(__file__).parent.parent / "bundled"
HUB = "hub:"
_CONVERTED = "refs/convert/parquet"
_HUB_NAME = re.compile(
    r"hub:(?P<repository>[\w.-]+/[\w.-]+)(/(?P<config>[\w.-]+))?(@(?P<revision>[\w./-]+))?"
    r":(?P<split>[\w.-]+)"
)


def is_bundled(path: str | Path) -> bool:
    """Whether this names data that comes with the package."""
    return str(path).startswith("foreword/")


def data_file(path: str | Path) -> Path:
    """Where a data file lies; bundled names resolve into the package.

    Raises:
        DataError: a bundled name that there is not, or a name of the hub.
    """
    name = str(path)
    if name.startswith(HUB):
        raise DataError(f"'{name}': of the hub, tables and xsum are read; give a file's name")
    if not is_bundled(path):
        return Path(path)
    known = {f"foreword/{file.parent.name}/{file.stem}": file for file in BUNDLED.glob("*/*.jsonl")}
    if name not in known:
        raise DataError(f"'{name}': no such bundled data{did_you_mean(name, known)}")
    return known[name]


def folder_files(path: Path, ending: str) -> list[Path]:
    """The file itself, or the files below a folder whose names end so, in a fixed order.

    Raises:
        DataError: there are none, or something below the folder is no regular file, or a link out
            of it.
    """
    if not path.is_dir():
        return [path]
    try:
        files = [file for file in opening.walk(path) if file.name.endswith(ending)]
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if not files:
        raise DataError(f"{path}: no files *{ending} in this folder")
    return files


def bare_name(path: str | Path) -> str:
    """What a data file is called for others: bundled and hub names, and no folder of files."""
    name = str(path)
    return name if name.startswith((HUB, "foreword/")) else Path(name).name


def source_sha256(path: str | Path) -> str:
    """Hash of what is read, in hex: a file's bytes, a folder's names and bytes, a hub's rows.

    Raises:
        DataError: it cannot be read.
    """
    name = str(path)
    if name.startswith(HUB):
        rows = hashlib.sha256()
        for _, row in hub_rows(name):
            rows.update(json.dumps(row, sort_keys=True, default=str).encode() + b"\n")
        return rows.hexdigest()
    file = data_file(path)
    try:
        if not file.is_dir():
            return _file_sha256(file)
        inside = hashlib.sha256()
        for one in opening.walk(file):
            inside.update(f"{one.relative_to(file)}\0{_file_sha256(one)}\n".encode())
        return inside.hexdigest()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error


def hub_rows(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a data set of the Hugging Face hub, downloaded once and kept by `datasets`.

    Args:
        name: `hub:OWNER/NAME[/CONFIG][@REVISION]:SPLIT`. Where the repository holds a loading
            script, which `datasets` no longer runs, its branch of converted files is read instead.

    Raises:
        DataError: the name is none, or the data set cannot be had.
    """
    given = _HUB_NAME.fullmatch(name)
    if given is None:
        raise DataError(
            f"'{name}': expected hub:OWNER/NAME:SPLIT, with /CONFIG after the name and @REVISION "
            "before the split where they are needed"
        )
    data = _load(name, given["repository"], given["config"], given["split"], given["revision"])
    yield from ((f"{name}, row {i + 1}", row) for i, row in enumerate(data))


def _load(name: str, repository: str, config: str | None, split: str, revision: str | None) -> Any:
    from datasets import disable_progress_bars, load_dataset
    from datasets.exceptions import DatasetsError

    disable_progress_bars()
    try:
        return load_dataset(repository, config, split=split, revision=revision)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        if revision is None and "scripts are no longer supported" in str(error):
            return _load(name, repository, config, split, _CONVERTED)
        reason = str(error).strip().split("\n")[0]
        raise DataError(
            f"{name}: cannot be loaded: {reason or type(error).__name__}; give the name of a file "
            "that you have instead, or check name and network"
        ) from error


def _file_sha256(file: Path) -> str:
    with opening.open_regular(file) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
