"""Which base model a server runs, told by its weights.

The hash is foreword's: sha256 over each stored tensor's name, type, shape and bytes, in the order
of names, before any cast. It is kept by the files' paths, sizes and times, so that gigabytes are
read once.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from foreword_vllm.prompts import PromptError


class OtherWeights(PromptError):
    """A prompt was trained on another base model than the one that is served."""


_OTHER = (
    'serve the base model that the prompts were trained on, or set "other_weights": true in '
    "kv_connector_extra_config to serve this one all the same"
)


def sha256_of(model: str, *, revision: str | None = None, cache: str | None = None) -> str:
    """The hash of a base model's checkpoint.

    Args:
        model: its folder, or its name on the hub, from where it was downloaded.
        revision: of a hub name.
        cache: where hub models lie, instead of the usual place.

    Raises:
        PromptError: it has no checkpoint in safetensors format, or that cannot be read.
    """
    folder = Path(model) if Path(model).is_dir() else _downloaded(model, revision, cache)
    files = _checkpoint(folder)
    if not files:
        raise PromptError(
            f"{model}: has no .safetensors file, by which prompts tell whether it is the base "
            f"model that they were trained on; {_OTHER}"
        )
    try:
        stats = [(str(file.resolve()), file.stat()) for file in files]
        key = repr([(name, one.st_size, one.st_mtime_ns) for name, one in stats])
        known = _recalled()
        if key not in known:
            known[key] = _hashed(files)
            _remember(known)
        return known[key]
    except (OSError, SafetensorError) as error:
        raise PromptError(f"{model}: its checkpoint cannot be read: {error}") from error


def check_same(where: Path | str, trained_on: str, sha256: str, served: str, here: str) -> None:
    """Raise OtherWeights where a prompt was trained on other weights.

    Args:
        where: the prompt's place, for the message.
        trained_on: the name of the base model that it was trained on.
        sha256: the hash of that one's weights.
        served: the name of the base model that is served.
        here: the hash of its weights.
    """
    if sha256 != here:
        raise OtherWeights(
            f"{where}: was trained on '{trained_on}' whose weights have sha256 {sha256[:12]}…, but "
            f"those of '{served}' have {here[:12]}…; {_OTHER}"
        )


def _downloaded(model: str, revision: str | None, cache: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder: Any = snapshot_download(
            model, revision=revision, cache_dir=cache, local_files_only=True
        )
    except (OSError, ValueError) as error:
        raise PromptError(f"{model}: its checkpoint is not here: {str(error)[:300]}") from error
    return Path(folder)


def _checkpoint(folder: Path) -> list[Path]:
    """The files that are loaded: the single one, else those of the index."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.exists():
        return [single]
    if not index.exists():
        return sorted(folder.glob("*.safetensors"))
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise PromptError(f"{index}: cannot be read: {error!r:.200}") from error
    return sorted(folder / Path(str(name)).name for name in names)


def _hashed(files: list[Path]) -> str:
    where: dict[str, Path] = {}
    for file in files:
        with safe_open(file, framework="pt") as handle:
            where.update(dict.fromkeys(handle.keys(), file))
    digest = hashlib.sha256()
    for name in sorted(where):
        with safe_open(where[name], framework="pt") as handle:
            tensor = handle.get_tensor(name)
        digest.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        flat = tensor.contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _memory() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "foreword-vllm" / "weights.json"


def _recalled() -> dict[str, str]:
    try:
        hashes = json.loads(_memory().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in hashes.items()} if isinstance(hashes, dict) else {}


def _remember(known: dict[str, str]) -> None:
    file = _memory()
    with suppress(OSError):  # it is computed again at the next start
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(known), encoding="utf-8")
        temporary.replace(file)
