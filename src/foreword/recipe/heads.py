"""The `task.head` section of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from foreword.common.choices import Data


class HeadSpec(Data):
    """The layer that reads a label, tags or a span off the backbone's states."""

    dropout: float = Field(0.1, ge=0, lt=1, description="on the states it reads, in training")
    hidden: int | None = Field(
        None, ge=1, le=65536, description="width of a layer with tanh before it; null: none"
    )
    bias: bool = Field(
        True,
        description="whether its last layer has a bias; transformers' heads on decoders, and so"
        " PEFT's, have none",
    )
    pooler: Literal["none", "frozen", "trained"] = Field(
        "none",
        description="the layer with tanh that an encoder such as BERT was pretrained with, before"
        " the head's own: as it is, or trained with the head",
    )
    pooling: Literal["auto", "first", "last", "mean", "prompt"] = Field(
        "auto",
        description="which state answers for a text: the first, the last, the mean of all, or that"
        " of the first virtual token of an encoder's input; auto: an encoder's first, a decoder's"
        " last",
    )

    @model_validator(mode="after")
    def _one_layer_before(self) -> HeadSpec:
        if self.pooler != "none" and self.hidden is not None:
            raise ValueError("give either `pooler` or `hidden`: each is the layer before the last")
        if self.pooler != "none" and self.pooling not in ("auto", "first"):
            raise ValueError(
                f"`pooler` reads an encoder's first state, but `pooling` is {self.pooling}; leave "
                "`pooling` out"
            )
        return self
