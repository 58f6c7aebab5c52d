"""CPT (Blau et al. 2024, "Context-aware Prompt Tuning: Advancing In-Context Learning with
Adversarial Methods").

Training examples with their labels stand before the input, as in few-shot prompting. Their
embeddings are trained by projected gradient descent: each token stays within a small ball around
its word, the template's in another than the content's, and a label does not move. The loss is that
of the input's label and of the labels in the context, which weigh the less the farther they are
from the input. Defaults: those of the authors' example in PEFT (10 examples, radii 0.2 and 0.1 at
width 2048, decay 0.95, AdamW at 1e-4 with linear decay, batches of 1, 5 epochs).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from foreword.axes.injection.context import ContextInit
from foreword.axes.injection.options import InjectionSpec
from foreword.axes.reparam.options import (
    REPARAMETERIZATIONS,
    ReparameterizationSpec,
    reparameterization,
)
from foreword.common.choices import OptionsIn
from foreword.errors import RecipeError, UserError
from foreword.methods import axes
from foreword.methods.base import MethodOptions, PromptOptions, method
from foreword.methods.examples import FIXED, LABEL, TrainingExamples

if TYPE_CHECKING:
    from foreword.axes.injection.labelled import LabelledEmbeddings
    from foreword.axes.parts import Wanted
    from foreword.axes.reparam.bounded import Bounded as BoundedModule
    from foreword.backbone import Backbone

Radius = Annotated[float, Field(ge=0, le=1e6)]


class Labelled(axes.Embeddings):
    """Embeddings of a text with labels, before a decoder's text."""

    has_slots: ClassVar[bool] = False
    predicted: ClassVar[bool] = True

    def build(
        self, backbone: Backbone, *, stands: Literal["before", "between", "inside"] = "before"
    ) -> LabelledEmbeddings:
        """In the decoder's input.

        Raises:
            UserError: the backbone is no decoder.
        """
        from foreword.axes.injection.labelled import LabelledEmbeddings

        assert stands == "before", "has no slots"
        if backbone.geometry.kind != "decoder":
            raise UserError(
                f"method: cpt puts examples with their answers before a decoder's text, but "
                f"'{backbone.name}' ({backbone.model.config.model_type}) is an "
                f"{backbone.geometry.kind}; use prompt-tuning, or name a decoder"
            )
        backbone.check_takes_keys_values()
        return LabelledEmbeddings(backbone)


@reparameterization
class Bounded(ReparameterizationSpec):
    """A start and a change of bounded length."""

    exact: ClassVar[bool] = True

    kind: Literal["bounded"] = "bounded"
    epsilon: Radius = Field(
        0.2,
        description="how far a token of an example's content may move, at width 2048; it grows with"
        " the root of the width",
    )
    format_epsilon: Radius = Field(0.1, description="the same of a token of the template")
    decay: float = Field(
        0.95,
        ge=0,
        le=1,
        description="what the labels of an example weigh beside those of the example after it",
    )

    def build(self, wanted: Wanted) -> BoundedModule:
        """Around a start that `init` gives."""
        from foreword.axes.parts import EmbeddingsPart
        from foreword.axes.reparam.bounded import Bounded as Module

        (part,) = wanted.parts
        assert isinstance(part, EmbeddingsPart)
        return Module(
            part, epsilon=self.epsilon, format_epsilon=self.format_epsilon, decay=self.decay
        )


BoundedOnly = Annotated[ReparameterizationSpec, OptionsIn(REPARAMETERIZATIONS, "kind", (Bounded,))]


def _context_unless_said(given: Any) -> Any:
    plain = isinstance(given, Mapping) and "kind" not in given
    return {"kind": "context", **given} if plain else given


ContextOrArtifact = Annotated[
    Annotated[ContextInit | axes.ArtifactInit, Field(discriminator="kind")],
    BeforeValidator(_context_unless_said, json_schema_input_type=ContextInit | axes.ArtifactInit),
]
"""Training examples, which a mapping without `kind` means, too; or an artifact of CPT."""


@method
class CPT(PromptOptions):
    """Options of CPT."""

    enters: ClassVar[type[InjectionSpec]] = Labelled
    paper: ClassVar[str] = "Blau et al. 2024"
    training_defaults: ClassVar[dict[str, Any]] = {
        "epochs": 5,
        "batch_size": 1,
        "learning_rate": 1e-4,
        "schedule": "linear",
        "warmup": 0,
        "weight_decay": 0.0,
    }

    name: Literal["cpt"]
    length: int = Field(
        512,
        ge=1,
        le=4096,
        description="the most virtual tokens; there are as many as the context has",
    )
    positions: axes.Positions = "auto"
    reparameterization: BoundedOnly = Bounded()
    init: ContextOrArtifact = ContextInit()

    @model_validator(mode="after")
    def _as_long_as_its_context(self) -> CPT:
        context = len(self.context.tokens)
        if context and context != self.length:
            raise ValueError(f"`length` is {self.length}, but `init` has {context} tokens")
        return self

    @property
    def context(self) -> ContextInit:
        """The context; without tokens where training examples or an artifact are to say them."""
        return self.init if isinstance(self.init, ContextInit) else ContextInit()

    def filled(self, examples: TrainingExamples) -> CPT:
        """The same options with a context, where they have none yet.

        Special tokens before a text stand before the first example alone.

        Raises:
            UserError: there are too few examples, they are too long, or the task has no answer that
                could stand in a text.
        """
        if self.context.tokens:
            return self
        shots = self.context.shots
        shown = examples.demonstrations(shots, "method.init.shots")
        tokens, types = [*shown[0].leading], [FIXED] * len(shown[0].leading)
        for number, example in enumerate(shown):
            tokens += example.tokens
            types += [kind + LABEL * number if kind else FIXED for kind in example.types]
        if len(tokens) > self.length:
            raise RecipeError(
                "recipe",
                [
                    f"method.length: {shots} examples have {len(tokens)} tokens, but it allows "
                    f"{self.length}; give fewer method.init.shots, a smaller task.max_tokens, or a "
                    "larger length"
                ],
            )
        return self._around(tokens, types)

    def going_on(self, before: MethodOptions) -> CPT:
        """The same options with the context of those that go before.

        Raises:
            UserError: they are not CPT's, or have none.
        """
        if not isinstance(before, CPT) or not before.context.tokens:
            raise UserError(
                f"was trained by {before.name}, but cpt goes on from cpt alone, whose context says "
                "how far each token may move"
            )
        return self._around(before.context.tokens, before.context.types)

    def _around(self, tokens: Sequence[int], types: Sequence[int]) -> CPT:
        init = self.context.model_copy(update={"tokens": tuple(tokens), "types": tuple(types)})
        return self.model_copy(update={"length": len(tokens), "init": init})
