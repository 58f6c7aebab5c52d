"""How alike trained prompts are (SPoT: Vu et al. 2022, section 3.2, prompts as task embeddings).

A prompt that enters the input has one vector for each virtual token. Keys and values have one at
every layer and side, whose scales differ a lot, so that each layer's keys, and each layer's values,
are compared by themselves, and the similarity is the mean over all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor

from foreword.artifacts.manifest import TENSORS, Manifest, artifact_folder, read_manifest
from foreword.artifacts.stored import read_parts
from foreword.errors import ArtifactError, UserError, refuse_single

VIRTUAL = {".embeddings": 0, ".keys": 1, ".values": 1, ".prompts": 1}
"""How the names end of tensors that have a vector for each virtual token, and which of their sizes
counts the tokens; a layer is the one before."""


@dataclass(frozen=True)
class Similarity:
    """Two prompts side by side; both numbers lie between -1 and 1.

    Attributes:
        first, second: the artifacts' folders.
        average_tokens: cosine of the two means over all virtual tokens.
        per_token: mean of the cosines of every virtual token of one and every one of the other.
    """

    first: str
    second: str
    average_tokens: float
    per_token: float


def similar(artifacts: Sequence[Path | str]) -> list[Similarity]:
    """How alike trained prompts are, each two of them, the most alike first.

    The prompts may differ in length, but not in their backbone, nor in where they enter it. The
    backbone is not loaded.

    Args:
        artifacts: artifacts, or run folders that have one.

    Raises:
        ArtifactError: one is damaged.
        UserError: there are fewer than two, one has no trained prompt, or two cannot be compared.
    """
    refuse_single("artifacts", artifacts)
    if len(artifacts) < 2:
        raise UserError(f"artifacts: {len(artifacts)} given; a comparison takes two or more")
    prompts = [_read(folder) for folder in artifacts]
    for other in prompts[1:]:
        _check_comparable(prompts[0], other)
    pairs = [_compare(first, second) for first, second in combinations(prompts, 2)]
    return sorted(pairs, key=lambda pair: -pair.average_tokens)


@dataclass(frozen=True, eq=False)
class _Prompt:
    """A stored prompt.

    Attributes:
        name: its folder, as it was given.
        manifest: what the artifact says of itself.
        vectors: by tensor, `[layers, P, numbers]` in float64; one layer for what enters the input.
        places: what else the artifact holds of where they enter (`<site>.layers`).
    """

    name: str
    manifest: Manifest
    vectors: dict[str, Tensor]
    places: dict[str, list[int]]


def _read(given: Path | str) -> _Prompt:
    folder = artifact_folder(given)
    manifest = read_manifest(folder)
    tensors = read_parts(folder, manifest)[TENSORS]
    vectors: dict[str, Tensor] = {}
    for name, tensor in sorted(tensors.items()):
        axis = next((axis for end, axis in VIRTUAL.items() if name.endswith(end)), None)
        if axis is not None and tensor.ndim > axis:
            layered = tensor if axis else tensor[None]
            vectors[name] = layered.to(torch.float64).flatten(2)
    if not vectors:
        raise UserError(
            f"{given}: holds no trained virtual tokens ({manifest.method.name}), so there is "
            "nothing to compare"
        )
    if any(not tensor.isfinite().all() for tensor in vectors.values()):
        raise ArtifactError(f"{given}: {TENSORS} must hold finite floating-point numbers")
    places = {n: t.tolist() for n, t in tensors.items() if n.endswith(".layers")}
    return _Prompt(str(given), manifest, vectors, places)


def _check_comparable(one: _Prompt, other: _Prompt) -> None:
    """Raise UserError unless the vectors of two prompts lie in the same spaces."""
    before = f"{one.name} and {other.name} cannot be compared: "
    backbones = one.manifest.backbone, other.manifest.backbone
    if backbones[0].sha256 != backbones[1].sha256:
        raise UserError(
            f"{before}they are of two backbones, '{backbones[0].name}' (sha256 "
            f"{backbones[0].sha256[:12]}…) and '{backbones[1].name}' ({backbones[1].sha256[:12]}…),"
            " whose numbers mean other things"
        )
    names = [", ".join(prompt.vectors) for prompt in (one, other)]
    if names[0] != names[1]:
        raise UserError(
            f"{before}one holds {names[0]} ({one.manifest.method.name}), the other {names[1]} "
            f"({other.manifest.method.name}); compare prompts that enter alike"
        )
    if one.places != other.places:
        raise UserError(
            f"{before}they enter at other layers, {one.places} and {other.places}; compare prompts "
            "of the same layers"
        )
    for name, vectors in one.vectors.items():
        shapes = [(v.shape[0], v.shape[2]) for v in (vectors, other.vectors[name])]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"{before}{name} has {shapes[0][0]} layers of {shapes[0][1]} numbers a token in "
                f"one, {shapes[1][0]} of {shapes[1][1]} in the other"
            )


def _compare(first: _Prompt, second: _Prompt) -> Similarity:
    """SPoT's two measures, each the mean over all layers and sides."""
    averages, tokens = [], []
    for name, one in first.vectors.items():
        other = second.vectors[name]
        averages.append(_cosine(one.mean(1), other.mean(1)))
        # The mean of the cosines of all pairs is a product of means of unit vectors.
        tokens.append((_units(one).mean(1) * _units(other).mean(1)).sum(-1))
    return Similarity(
        first.name,
        second.name,
        torch.cat(averages).mean().item(),
        torch.cat(tokens).mean().item(),
    )


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    return (_units(one) * _units(other)).sum(-1)


def _units(vectors: Tensor) -> Tensor:
    """Vectors of length 1; those of length 0 stay."""
    lengths = vectors.norm(dim=-1, keepdim=True)
    return vectors / torch.where(lengths > 0, lengths, 1.0)
