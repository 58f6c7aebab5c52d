"""A start from training examples with their labels, as data (Blau et al. 2024, CPT)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from foreword.axes.injection.starts import InitSpec, Start
from foreword.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


class ContextInit(InitSpec):
    """Start from training examples with their labels.

    A run fills `tokens` and `types` in; given, they are the context, whatever the examples are.
    """

    kind: Literal["context"] = "context"
    shots: int = Field(10, ge=1, le=1024, description="training examples of the context")
    tokens: tuple[Annotated[int, Field(ge=0, le=2**31)], ...] = Field(
        (), description="the context's token ids; left out: those of `shots` examples"
    )
    types: tuple[Annotated[int, Field(ge=0, le=2**20)], ...] = Field(
        (),
        description="of each token 4k + 1 for the template of example k, 2 for its content, 3 for"
        " the answer's template, 4 for the label; 0 for what neither moves nor is predicted",
    )

    @model_validator(mode="after")
    def _a_type_each(self) -> ContextInit:
        if len(self.tokens) != len(self.types):
            raise ValueError(
                f"{len(self.tokens)} `tokens`, but {len(self.types)} `types`; give each token one"
            )
        return self

    def named(self, start: Start) -> dict[str, Tensor]:
        """The context's embeddings, its tokens and their types; and how far an artifact has moved
        from them, where training goes on from one.

        Raises:
            UserError: there is no context, or a token of it is none of the backbone's.
        """
        import torch

        if len(self.tokens) != start.length:
            raise UserError(
                f"method.init: {len(self.tokens)} tokens for {start.length} virtual tokens; give "
                "`tokens` and `types`, or let a run make them of training examples"
            )
        size = start.backbone.geometry.vocabulary
        if max(self.tokens) >= size:
            raise UserError(
                f"method.init.tokens: {max(self.tokens)} is none of the {size} tokens of "
                f"'{start.backbone.name}'"
            )
        named = start.real(list(self.tokens))
        if start.trained is not None:
            words = named["decoder.embeddings"]
            named["decoder.moved"] = start.trained["decoder.embeddings"] - words
        return {
            **named,
            "decoder.tokens": torch.tensor(self.tokens),
            "decoder.types": torch.tensor(self.types),
        }
