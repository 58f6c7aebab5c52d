"""Folders that are kept from one run to the next, below the user's cache folder. No torch.

What a folder holds follows from its key alone. It is made under another name and moved into its
place when it is whole, so that an interrupted one is never taken for it, and two processes that
make the same one do each other no harm. All of it can be removed at any time.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import platform
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from foreword.common import opening
from foreword.common.cached import cache_folder
from foreword.common.json_text import parse_json
from foreword.errors import UserError

FOLDER = "data"
MOST_BYTES = 20 * 10**9
"""Most that is kept; what was used longest ago goes first."""
_ABOUT = "about.json"
_ABOUT_BYTES = 2**28
_STALE_SECONDS = 24 * 3600
_PACKAGES = ("tokenizers", "transformers", "jinja2", "datasets", "pyarrow")


@dataclass(frozen=True)
class Entry:
    """One folder.

    Attributes:
        folder: where it lies.
        about: plain data that was kept with its files.
    """

    folder: Path
    about: Mapping[str, Any]


def key_of(*decides: Any) -> str:
    """The key of what some plain data decide, together with foreword's own code and the packages
    that read and tokenise.

    Raises:
        TypeError: they are no plain data.
    """
    return hashlib.sha256(json.dumps([_code(), *decides]).encode("utf-8")).hexdigest()


def kept(key: str | None, make: Callable[[Path], Mapping[str, Any]]) -> Entry:
    """The folder of a key, made where it is not there or is not whole any more.

    Args:
        key: as `key_of` gives it; None: the folder is made, and gone when this process ends.
        make: writes files into a folder and returns plain data to keep with them. Called again in
            another folder where the cache's cannot be written.

    Raises:
        UserError: no folder can be written.
    """
    if key is not None:
        place = cache_folder() / FOLDER / key
        entry = _whole(place)
        if entry is not None:
            with suppress(OSError):
                os.utime(place / _ABOUT)
            return entry
        with suppress(OSError):
            return _made_at(place, make)
    try:
        temporary = Path(tempfile.mkdtemp(prefix="foreword-data-"))
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        return Entry(temporary, dict(make(temporary)))
    except OSError as error:
        raise UserError(
            f"{cache_folder()}: large data are kept in files, which cannot be written there: "
            f"{error.strerror or error}; name a folder with room in FOREWORD_CACHE"
        ) from error


def discard(entry: Entry) -> None:
    """Remove a folder that does not hold what it should."""
    shutil.rmtree(entry.folder, ignore_errors=True)


def _made_at(place: Path, make: Callable[[Path], Mapping[str, Any]]) -> Entry:
    beside = place.with_name(f".{place.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        about = dict(make(beside))
        sizes = {file.name: file.stat().st_size for file in beside.iterdir()}
        text = json.dumps({"files": sizes, "about": about})
        (beside / _ABOUT).write_text(text, encoding="utf-8")
        entry = _moved(beside, place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    _clear(place.parent, besides=place)
    return entry


def _moved(beside: Path, place: Path) -> Entry:
    """A finished folder in its place, unless another process was faster."""
    for _ in range(2):
        with suppress(OSError):
            beside.rename(place)
        entry = _whole(place)
        if entry is not None:
            return entry
        shutil.rmtree(place, ignore_errors=True)
    raise OSError(f"{place}: cannot be replaced")


def _whole(place: Path) -> Entry | None:
    """What lies in a place, where all of its files are there and as long as they were."""
    try:
        stated = parse_json(opening.read_text(place / _ABOUT, most=_ABOUT_BYTES))
        for name, size in stated["files"].items():
            if (place / name).stat().st_size != size:
                return None
        return Entry(place, dict(stated["about"]))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _clear(folder: Path, besides: Path) -> None:
    """Remove what was used longest ago where there is too much, and what was never finished."""
    entries: list[tuple[float, int, Path]] = []
    with suppress(OSError):
        for place in folder.iterdir():
            if place == besides:
                continue
            with suppress(OSError):
                size = sum(file.stat().st_size for file in place.iterdir())
                stands = place / _ABOUT if (place / _ABOUT).exists() else place
                entries.append((stands.stat().st_mtime, size, place))
    left = MOST_BYTES
    with suppress(OSError):
        left -= sum(file.stat().st_size for file in besides.iterdir())
    for used, size, place in sorted(entries, reverse=True):
        unfinished = place.name.startswith(".")
        left -= 0 if unfinished else size
        if time.time() - used > _STALE_SECONDS if unfinished else left < 0:
            shutil.rmtree(place, ignore_errors=True)


@lru_cache(maxsize=1)
def _code() -> str:
    """Hash of foreword's sources, and the versions of what it reads and tokenises with."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256(platform.python_version().encode())
    for file in sorted(root.rglob("*.py")):
        digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            digest.update(f"{package} {version(package)}\n".encode())
    return digest.hexdigest()
