"""Cartridges (Eyuboglu et al. 2025, "Cartridges: Lightweight and general-purpose long context
representations via self-study").

A prefix that stands for a long text. Its keys and values are a table that starts as what the
backbone computes for the text's first P tokens; the first of them stays as it is, since attention
rests on it. It is trained by distillation, from the same backbone with the whole text before it; on
its own this method trains on a task's examples, as any other does. Defaults: those of the authors'
examples in their code (Adam at 0.02 without decay or warm-up, batches of 32, one epoch, at most
2,048 virtual tokens, one of them frozen).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from foreword.axes.reparam.options import ReparameterizationSpec
from foreword.errors import UserError
from foreword.methods import axes
from foreword.methods.base import PromptOptions, method
from foreword.methods.examples import TrainingExamples

CartridgeInit = Annotated[
    axes.FirstTokensInit | axes.RandomInit | axes.ActivationsInit | axes.ArtifactInit,
    Field(discriminator="kind"),
]


@method
class Cartridge(PromptOptions):
    """Options of cartridge."""

    enters: ClassVar[type[axes.InjectionSpec]] = axes.KeysValues
    paper: ClassVar[str] = "Eyuboglu et al. 2025"
    training_defaults: ClassVar[dict[str, Any]] = {
        "epochs": 1,
        "batch_size": 32,
        "learning_rate": 2e-2,
        "schedule": "constant",
        "warmup": 0,
        "weight_decay": 0.0,
    }

    name: Literal["cartridge"]
    length: int = Field(
        2048,
        ge=1,
        le=2**17,
        description="the most virtual tokens; as many as the text has, where it has fewer",
    )
    frozen: int = Field(
        1, ge=0, le=2**17, description="how many of the first virtual tokens stay as they start"
    )
    positions: axes.Positions = "auto"
    dropout: axes.PromptDropout = 0.0
    sites: axes.AttentionSites = None
    layers: axes.ChosenLayers = None
    reparameterization: axes.TableOnly = axes.Table()
    init: CartridgeInit = axes.FirstTokensInit()

    @model_validator(mode="after")
    def _something_moves(self) -> Cartridge:
        if self.frozen > self.length:
            raise ValueError(
                f"`frozen` is {self.frozen}, but there are {self.length} virtual tokens in all"
            )
        return self

    @property
    def making(self) -> ReparameterizationSpec:
        """A table of which the first rows stay as they start."""
        if self.frozen and isinstance(self.reparameterization, axes.Table):
            return axes.FrozenTable(std=self.reparameterization.std, frozen=self.frozen)
        return self.reparameterization

    def filled(self, examples: TrainingExamples) -> Cartridge:
        """The same options with as many virtual tokens as the text has, where it has fewer.

        Raises:
            UserError: the text is missing, cannot be read, or has no token beyond the frozen ones;
                or all virtual tokens are frozen.
        """
        if self.frozen == self.length:
            raise UserError(
                f"method.frozen: is {self.frozen}, as is method.length, so that no virtual token "
                "could be trained; give a smaller one, or a larger method.length"
            )
        if not isinstance(self.init, axes.FirstTokensInit):
            return self
        held = len(examples.document(self.init.words()))
        if held <= self.frozen:
            raise UserError(
                f"method.init: the text has {held} tokens, of which method.frozen keeps "
                f"{self.frozen} as they are, so that nothing could be trained; give a longer text"
            )
        return self.model_copy(update={"length": min(self.length, held)})
