"""`foreword-vllm-mirror SOURCE FOLDER [--every SECONDS]`: prompts kept as a store has them.

SOURCE is anything that fsspec opens: `s3://bucket/prompts`, `gs://…`, `abfs://…`, a shared folder.
Servers read FOLDER, which lies on their own disk, so that no request waits for a store. Tensors are
copied before the statement that names them, and each file appears whole: whatever is killed on its
way, a server has the old prompt or the new one.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foreword_vllm.prompts import MOST_BYTES, STATED, PromptError, is_hash, is_name
from foreword_vllm.tensors import MOST_BYTES as MOST_TENSORS
from foreword_vllm.tensors import file_of

logger = logging.getLogger("foreword_vllm.mirror")
_MARK = ".mirrored.json"
"""In FOLDER: which state of the source each prompt has."""


@dataclass(frozen=True)
class Changes:
    """What one pass has done.

    Attributes:
        copied: prompts that are new, or others than before.
        removed: prompts that the source has no more.
        failed: prompts that could not be copied; they stay as they were, and are tried again.
    """

    copied: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


def mirror(source: str, folder: Path) -> Changes:
    """Bring a folder to the state of a source, in one pass.

    Prompts in the folder that no mirror has put there are left alone.

    Raises:
        PromptError: the source cannot be listed, or the folder cannot be written.
    """
    store, root = _store(source)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        statements = _statements(store, root)
    except Exception as error:  # each store raises its own
        raise PromptError(f"{source}: cannot be listed: {error!s:.300}") from error
    known = _known(folder)
    copied, failed = [], []
    for name, state in statements.items():
        if known.get(name) == state and (folder / name / STATED).exists():
            continue
        try:
            _copy(store, f"{root}/{name}", folder / name)
        except Exception as error:
            logger.error("%s: %s is not copied: %s", source, name, error)
            failed.append(name)
            continue
        known[name] = state
        copied.append(name)
    removed = [name for name in known if name not in statements]
    for name in removed:
        (folder / name / STATED).unlink(missing_ok=True)
        shutil.rmtree(folder / name, ignore_errors=True)
        del known[name]
    if copied or removed:
        _write(folder / _MARK, json.dumps(known).encode())
    return Changes(tuple(copied), tuple(removed), tuple(failed))


def _store(source: str) -> tuple[Any, str]:
    import fsspec

    try:
        store, root = fsspec.core.url_to_fs(source)
    except (ImportError, ValueError) as error:
        raise PromptError(f"{source}: cannot be opened: {error}") from error
    store.invalidate_cache()
    return store, root.rstrip("/")


def _statements(store: Any, root: str) -> dict[str, str]:
    """Each prompt's name, and what tells one state of its statement from another."""
    statements = {}
    for path, info in store.find(root, detail=True).items():
        *_, name, file = f"/{path}".split("/")
        if file == STATED and is_name(name) and path.removesuffix(f"/{name}/{file}") == root:
            kinds = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created")
            statements[name] = repr([info.get("size"), *(str(info.get(kind)) for kind in kinds)])
    return statements


def _copy(store: Any, place: str, folder: Path) -> None:
    statement = _read(store, f"{place}/{STATED}", MOST_BYTES)
    sha256 = json.loads(statement)["sha256"]
    if not is_hash(sha256):
        raise PromptError(f"its {STATED} names no hash")
    folder.mkdir(exist_ok=True)
    tensors = file_of(folder, sha256)
    if not tensors.exists():
        _write(tensors, _read(store, f"{place}/{tensors.name}", MOST_TENSORS))
    last = _last(folder)
    _write(folder / STATED, statement)
    for old in folder.glob("*.safetensors"):
        if old.name not in (tensors.name, last):
            old.unlink(missing_ok=True)


def _read(store: Any, path: str, most: int) -> bytes:
    if store.size(path) > most:
        raise PromptError(f"{path} has more than {most:,} bytes")
    content: bytes = store.cat_file(path)
    return content


def _last(folder: Path) -> str | None:
    """The tensors' file that is named now, which requests on their way may need."""
    try:
        sha256 = json.loads((folder / STATED).read_bytes())["sha256"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return file_of(folder, str(sha256)).name


def _write(file: Path, content: bytes) -> None:
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(file)


def _known(folder: Path) -> dict[str, str]:
    try:
        states = json.loads((folder / _MARK).read_bytes())
    except (OSError, ValueError):
        return {}
    return {str(name): str(state) for name, state in states.items()}


def main(given: Sequence[str] | None = None) -> None:
    """Mirror once, or again and again."""
    parser = argparse.ArgumentParser(
        prog="foreword-vllm-mirror",
        description="Keep a folder of prompts as an object store, or a shared folder, has it.",
    )
    parser.add_argument("source", help="s3://bucket/prompts, gs://…, or a folder")
    parser.add_argument("folder", type=Path, help="what servers read")
    parser.add_argument(
        "--every", type=float, metavar="SECONDS", help="go on; once, and end, if not given"
    )
    options = parser.parse_args(given)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    while True:
        try:
            changes = mirror(options.source, options.folder)
        except PromptError as problem:
            logger.error("%s", problem)
            if options.every is None:
                raise SystemExit(1) from problem
        else:
            for what in ("copied", "removed"):
                for name in getattr(changes, what):
                    logger.info("%s %s", what, name)
            if options.every is None:
                raise SystemExit(1 if changes.failed else 0)
        time.sleep(options.every)


if __name__ == "__main__":
    main()
