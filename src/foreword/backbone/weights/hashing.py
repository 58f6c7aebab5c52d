"""What a backbone is, as a number: sha256 over the stored checkpoint.

The hash covers each tensor's name, shape, stored type and bytes, in the order of names, before any
cast. It does not depend on how the checkpoint is cut into files. A cache keyed by path, size and
time saves the reading of gigabytes at every start.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from foreword.common.cached import recall, remember
from foreword.common.json_text import parse_json
from foreword.errors import BackboneError

HASHES = "backbone-hashes.json"


def hash_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """sha256 in hex over `(name, tensor)` pairs, which come in the order of names."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        head = f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode()
        digest.update(head)
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def hash_module(module: nn.Module) -> str:
    """The hash of a model that has no folder: its parameters and persistent buffers as they are.

    Raises:
        BackboneError: some of them are not here.
    """
    tensors = dict(_parts(module.state_dict()))
    away = [name for name, tensor in tensors.items() if tensor.is_meta]
    if away:
        raise BackboneError(
            f"the backbone cannot be told by its weights: {len(away)} of them, the first "
            f"{away[0]}, lie elsewhere; load it from its folder, or give its `sha256`"
        )
    return hash_tensors(sorted(tensors.items()))


def _parts(tensors: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Plain tensors by name; one of another class (a quantised weight) is what it is made of."""
    for name, tensor in tensors.items():
        if hasattr(tensor, "__tensor_flatten__"):
            inner, _ = tensor.__tensor_flatten__()
            yield from _parts({f"{name}.{part}": getattr(tensor, part) for part in inner})
        elif isinstance(tensor, Tensor):
            yield name, tensor


def hash_folder(folder: Path) -> str:
    """The hash of a checkpoint folder in safetensors format."""
    files = _checkpoint_files(folder)
    if not files:
        raise BackboneError(
            f"{folder}: no .safetensors file; foreword identifies a backbone by its stored tensors."
            " Save it again with save_pretrained(), which writes safetensors"
        )
    key = hashlib.sha256(
        "\n".join(
            f"{file.resolve()} {(stat := file.stat()).st_size} {stat.st_mtime_ns}" for file in files
        ).encode()
    ).hexdigest()
    known = _known()
    if key not in known:
        try:
            known = {**known, key: hash_tensors(_stored(files))}
        except (SafetensorError, OSError) as error:
            raise BackboneError(f"{folder}: its checkpoint cannot be read: {error}") from error
        remember(HASHES, known)
    return known[key]


def first_difference(
    folder: Path, model: PreTrainedModel, besides: tuple[str, ...] = ()
) -> str | None:
    """The first stored tensor whose values a model does not have any more; None where it has all.

    What the model calls otherwise than its checkpoint does is not compared.

    Args:
        folder: the checkpoint.
        model: loaded from it, in whichever type.
        besides: names of the model's modules that are not compared.
    """
    own, body = model.state_dict(), f"{model.base_model_prefix}."
    for name, stored in _stored(_checkpoint_files(folder)):
        names = (name, f"{body}{name}", name.removeprefix(body))
        mine = next((own[one] for one in names if one in own), None)
        if mine is None or mine.is_meta or name.split(".")[0] in besides:
            continue
        same = mine.shape == stored.shape and torch.equal(mine.cpu(), stored.to(mine.dtype))
        if not same:
            return name
    return None


def _checkpoint_files(folder: Path) -> list[Path]:
    """The files that transformers would load: those of the index, else the single one."""
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if single.exists():
        return [single]
    if not index.exists():
        return sorted(folder.glob("*.safetensors"))
    try:
        names = set(parse_json(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise BackboneError(f"{index}: cannot be read: {error!r}") from error
    return sorted(folder / Path(name).name for name in names)


def _stored(files: list[Path]) -> Iterator[tuple[str, Tensor]]:
    where: dict[str, Path] = {}
    for file in files:
        with safe_open(file, framework="pt") as handle:
            where.update(dict.fromkeys(handle.keys(), file))
    for name in sorted(where):
        with safe_open(where[name], framework="pt") as handle:
            yield name, handle.get_tensor(name)


def _known() -> dict[str, str]:
    loaded = recall(HASHES)
    return loaded if isinstance(loaded, dict) else {}
