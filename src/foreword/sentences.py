"""An artifact that gives vectors, as a module of sentence-transformers.

from sentence_transformers import SentenceTransformer

model = SentenceTransformer(modules=[foreword.sentence_module("runs/embeddings")])
model.encode(["a text"])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from foreword.errors import UserError
from foreword.session import LoadedPrompt, load

if TYPE_CHECKING:
    from torch import nn


def sentence_module(prompt: LoadedPrompt | Path | str, **loading: Any) -> nn.Module:
    """A module for `SentenceTransformer(modules=[…])`, whose `encode` gives what
    `LoadedPrompt.embed` gives.

    `encode_query` reads texts by `task.input`, `encode_document` those of the other side by
    `task.second`. Nothing of it is trained by sentence-transformers.

    Args:
        prompt: a loaded artifact, or its folder.
        loading: what `foreword.load` takes beside a folder.

    Raises:
        UserError: the artifact gives no vectors, its input has several fields, or
            sentence-transformers is not installed.
    """
    try:
        from sentence_transformers.base.modules import InputModule
    except ImportError as error:
        raise UserError(
            "sentence-transformers 6 is not installed here: pip install 'foreword[sentences]'"
        ) from error
    loaded = prompt if isinstance(prompt, LoadedPrompt) else load(prompt, **loading)
    loaded.task.task.check_verb("embed", "this artifact")

    class SentenceModule(InputModule):  # type: ignore[misc]
        """An encoder with its prompt; texts come out as vectors."""

        def __init__(self) -> None:
            super().__init__()
            self.tuned = loaded.model

        def preprocess(
            self,
            inputs: Sequence[str | Mapping[str, Any]],
            prompt: str | None = None,
            task: str | None = None,
            **_: Any,
        ) -> dict[str, Any]:
            """The tokens of texts, laid out; what `forward` takes."""
            if prompt:
                inputs = [f"{prompt}{text}" for text in inputs]
            paired = task == "document"
            pairs = [
                loaded.side(paired).rows(loaded.example(one, paired=paired), labelled=False)[0].pair
                for one in inputs
            ]
            return {"layout": loaded.model.lay_out(pairs)}

        def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
            """The vectors, as `sentence_embedding`."""
            vectors = torch.stack(loaded.model.read(features["layout"]))
            return {**features, "sentence_embedding": vectors.to(loaded.model.backbone.device)}

        def get_embedding_dimension(self) -> int:
            """How many numbers a vector has."""
            return loaded.model.backbone.hidden_width

        def save(self, output_path: str, *_: Any, **__: Any) -> None:
            """Raises UserError: the artifact's folder is what is kept."""
            raise UserError(
                f"{output_path}: a prompt's module is not saved by sentence-transformers; keep the "
                "artifact's folder"
            )

    return SentenceModule()
