"""What a checkpoint's folder claims, held against bounds before anything of it is built or read."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from foreword.common import opening
from foreword.errors import BackboneError

MOST_BYTES = 2**30
"""Most bytes of a file beside the weights; the largest vocabularies take 40 MB."""
MOST_PARTS = 10_000
"""Most layers, or experts of a layer: modules are made for them before a weight is read."""
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".gguf", ".onnx")


def check_files(name: str, where: str) -> None:
    """Make sure that the files beside the weights are regular ones of bounded size.

    Links may lead anywhere: the hub's cache is made of them.

    Args:
        name: the backbone's, for messages.
        where: a folder; anything else is passed over.

    Raises:
        BackboneError: a file is a FIFO, a device, or too large.
        OSError: the folder cannot be read.
    """
    folder = Path(where)
    for place in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            status = place.stat()
        except OSError:
            continue  # a link to nothing, which nothing can be read from
        if stat.S_ISDIR(status.st_mode):
            continue
        reason = ""
        if not stat.S_ISREG(status.st_mode):
            reason = f"is no regular file but {opening.kind_of(status.st_mode)}"
        elif status.st_size > MOST_BYTES and place.suffix not in _WEIGHTS:
            reason = f"has more than {MOST_BYTES:,} bytes"
        if reason:
            raise BackboneError(f"backbone '{name}': {place}: {reason}")


def check_config(name: str, config: Any) -> None:
    """Make sure that no number of layers or experts is beyond what any model has.

    Args:
        name: the backbone's, for messages.
        config: transformers' config of it.

    Raises:
        BackboneError: one is.
    """
    for field, value in _numbers(config.to_dict()):
        counts = field.endswith(("layers", "n_layer", "experts"))
        if counts and value > MOST_PARTS:
            raise BackboneError(
                f"backbone '{name}': config.json: {field} is {value:,}; expected at most "
                f"{MOST_PARTS:,}"
            )


def _numbers(section: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of a config by their fields, those of the configs inside it too."""
    for field, value in section.items():
        if isinstance(value, dict):
            yield from _numbers(value)
        elif isinstance(value, int | float):
            yield str(field), value
