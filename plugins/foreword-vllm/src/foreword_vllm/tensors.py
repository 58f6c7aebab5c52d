"""A prompt's keys and values, read and checked before anything else sees them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from foreword_vllm import files
from foreword_vllm.prompts import PromptError

MOST_BYTES = 4 * 2**30
"""Of a prompt's keys and values."""
_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Shape:
    """What the base model needs of a prompt.

    Attributes:
        layers: of its decoder.
        kv_heads: heads of keys and values, of all ranks together.
        head_dim: width of a head.
        dtype: what keys and values are cast to.
    """

    layers: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class KeysValues:
    """The keys and values of P virtual tokens.

    Attributes:
        content: the file's bytes, which a worker reads again.
        length: P.
        backbone_sha256: the hash of the weights that they were trained on.
    """

    content: bytes
    length: int
    backbone_sha256: str


def file_of(folder: Path, sha256: str) -> Path:
    """Where the tensors with a hash lie in a prompt's folder."""
    return folder / f"{sha256[:16]}.safetensors"


def read_keys_values(folder: Path, sha256: str, shape: Shape) -> KeysValues:
    """Read the tensors of a prompt.

    Args:
        folder: the prompt's.
        sha256: of the file.
        shape: what the base model needs.

    Raises:
        FileNotFoundError: they are not there.
        PromptError: they are damaged, or do not fit the base model.
    """
    file = file_of(folder, sha256)
    try:
        content = files.read_bytes(file, within=folder.parent, most=MOST_BYTES)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise PromptError(f"{file}: cannot be read: {error.strerror}") from error
    own_hash = hashlib.sha256(content).hexdigest()
    if own_hash != sha256:
        raise PromptError(f"{file}: is damaged: its sha256 is {own_hash[:12]}…, not {sha256[:12]}…")
    try:
        keys, values = unpacked(content)
        trained_on = _metadata(content)["backbone"]
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise PromptError(f"{file}: is damaged: {str(error)[:300]}") from error
    _check(file, keys, values, shape)
    return KeysValues(content, keys.shape[1], trained_on)


def unpacked(content: bytes) -> tuple[Tensor, Tensor]:
    """Keys and values `[layers, P, kv_heads, head_dim]` of a file's bytes."""
    tensors = load(content)
    return tensors["decoder.keys"], tensors["decoder.values"]


def _metadata(content: bytes) -> dict[str, str]:
    size = int.from_bytes(content[:8], "little")
    metadata: dict[str, str] = json.loads(content[8 : 8 + size])["__metadata__"]
    return metadata


def _check(file: Path, keys: Tensor, values: Tensor, shape: Shape) -> None:
    wanted = (shape.layers, shape.kv_heads, shape.head_dim)
    for name, tensor in (("keys", keys), ("values", values)):
        size = tuple(tensor.shape)
        if len(size) != 4 or (size[0], *size[2:]) != wanted or size[1] != keys.shape[1]:
            raise PromptError(
                f"{file}: decoder.{name} has the shape {list(size)}, but the base model needs "
                f"[{shape.layers}, P, {shape.kv_heads}, {shape.head_dim}]; it was trained for "
                "another one"
            )
        if not size[1] or tensor.dtype not in _TYPES:
            raise PromptError(f"{file}: decoder.{name} holds no floating-point numbers")
        # What is not finite would reach other requests through blocks that are used again.
        if not bool(tensor.to(shape.dtype).isfinite().all()):
            raise PromptError(
                f"{file}: decoder.{name} holds numbers that are not finite in {shape.dtype}"
            )
