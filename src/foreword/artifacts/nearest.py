"""The words that virtual tokens lie nearest to (Lester et al. 2021, section 7).

A virtual token that enters the input has a place among the embeddings of the vocabulary. Which
words lie around it is asked by the cosine, as there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from foreword.artifacts.manifest import TENSORS, artifact_folder, read_manifest
from foreword.artifacts.stored import read_parts
from foreword.backbone import Backbone
from foreword.errors import ArtifactError

EMBEDDINGS = ".embeddings"
WORDS = 5
"""Words that are told of each virtual token: as many as the paper looks at."""
_AT_ONCE = 8192


@dataclass(frozen=True)
class NearWord:
    """A word of the vocabulary near a virtual token.

    Attributes:
        word: the token as text; as the tokenizer calls it, where it is no text by itself.
        cosine: of its embedding and the virtual token.
    """

    word: str
    cosine: float


def nearest_words(
    artifact: Path | str, backbone: Backbone, *, words: int = WORDS
) -> Mapping[str, list[list[NearWord]]]:
    """For each virtual token the words whose input embeddings are nearest, the nearest first.

    Args:
        artifact: an artifact, or a run folder that has one.
        backbone: that it was trained on.
        words: how many of each virtual token.

    Returns:
        By site ("encoder", "decoder"); none where no virtual tokens enter the input.

    Raises:
        ArtifactError: the artifact is damaged, or its embeddings are not as wide as the backbone's.
    """
    folder = artifact_folder(artifact)
    tensors = read_parts(folder, read_manifest(folder))[TENSORS]
    near = {}
    for name, rows in sorted(tensors.items()):
        if not name.endswith(EMBEDDINGS) or rows.ndim != 2:
            continue
        width = backbone.geometry.width
        if rows.shape[1] != width:
            raise ArtifactError(
                f"{folder}: {name} is {rows.shape[1]} numbers wide, but the embeddings of "
                f"'{backbone.name}' are {width}"
            )
        near[name.removesuffix(EMBEDDINGS)] = _nearest(rows, backbone, words)
    return near


def _nearest(rows: Tensor, backbone: Backbone, words: int) -> list[list[NearWord]]:
    """The vocabulary is looked at in pieces, so that no second copy of it is made."""
    unit = normalize(rows.to(backbone.device, torch.float32), dim=-1)
    vocabulary = min(backbone.geometry.vocabulary, len(backbone.tokens.tokenizer))
    best = torch.empty(len(rows), 0, device=unit.device)
    ids = torch.empty(len(rows), 0, dtype=torch.long, device=unit.device)
    for first in range(0, vocabulary, _AT_ONCE):
        piece = list(range(first, min(first + _AT_ONCE, vocabulary)))
        table = normalize(backbone.embeddings(piece).to(torch.float32), dim=-1)
        numbers = torch.tensor(piece, device=unit.device).expand(len(rows), -1)
        cosines = torch.cat([best, unit @ table.T], 1)
        best, at = cosines.topk(min(words, cosines.shape[1]), dim=1)
        ids = torch.cat([ids, numbers], 1).gather(1, at)
    return [
        [NearWord(_word(backbone, number), cosine) for number, cosine in zip(*pair, strict=True)]
        for pair in zip(ids.tolist(), best.tolist(), strict=True)
    ]


def _word(backbone: Backbone, number: int) -> str:
    text = backbone.tokens.text([number])
    if text.strip() and "\N{REPLACEMENT CHARACTER}" not in text:
        return text.strip()
    return backbone.tokens.names([number])[0]
