"""The choices on the axes, as data. No torch here: recipes are read without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from foreword.bounds import Layer, Many, Rate, Scale, Some, Tokens
from foreword.choices import Data as Data
from foreword.sites import SITES as SITES
from foreword.sites import Site as Site


class Table(Data):
    """The virtual tokens are themselves the parameters."""

    kind: Literal["table"] = "table"
    std: Scale = Field(0.02, description="standard deviation of a random start")


class MLP(Data):
    """A smaller table through d -> hidden -> width with tanh (Li & Liang 2021, 4.3)."""

    kind: Literal["mlp"] = "mlp"
    hidden: int = Field(512, ge=1, le=65536, description="width of the hidden layer")
    fit_steps: Some = Field(500, description="Adam steps that fit it to real activations")
    fit_learning_rate: Rate = Field(1e-4, description="rate of those steps")


class LSTM(Data):
    """A table through a bidirectional LSTM, then an MLP with ReLU (Liu et al. 2021, 3.2)."""

    kind: Literal["lstm"] = "lstm"
    hidden: int | None = Field(
        None,
        ge=1,
        le=65536,
        description="state of each direction; default: half the backbone's width",
    )
    layers: int = Field(2, ge=1, le=64, description="layers of the LSTM")
    dropout: float = Field(0.0, ge=0, lt=1, description="between the LSTM's layers")
    fit_steps: Some = Field(500, description="Adam steps that fit it to a chosen start")
    fit_learning_rate: Rate = Field(1e-3, description="rate of those steps")

    @model_validator(mode="after")
    def _dropout_has_a_place(self) -> LSTM:
        if self.dropout and self.layers == 1:
            raise ValueError("`dropout` acts between layers: give `layers` of at least 2")
        return self


class ReluMLP(Data):
    """A table through three linear layers with ReLU: P-Tuning's MLP, as PEFT has it."""

    kind: Literal["mlp"] = "mlp"
    hidden: int | None = Field(
        None, ge=1, le=65536, description="width of the hidden layers; default: the backbone's"
    )
    fit_steps: Some = Field(500, description="Adam steps that fit it to a chosen start")
    fit_learning_rate: Rate = Field(1e-3, description="rate of those steps")


Reparameterization = Annotated[Table | MLP, Field(discriminator="kind")]
AnyReparameterization = Table | MLP | LSTM | ReluMLP


class RandomInit(Data):
    """Start from random numbers."""

    kind: Literal["random"] = "random"


class ActivationsInit(Data):
    """Start from the backbone's own keys and values for real words (Li & Liang 2021, 7.4)."""

    kind: Literal["activations"] = "activations"
    text: str | None = Field(None, min_length=1, description="words to start from")
    examples: Many = Field(
        0, description="how many training examples, source and target, follow the text"
    )

    @model_validator(mode="after")
    def _says_something(self) -> ActivationsInit:
        if self.text is None and not self.examples:
            raise ValueError("give `text`, or `examples` of at least 1, or both")
        return self


class UniformInit(Data):
    """Start from uniform numbers (Lester et al. 2021, 3.1: from -0.5 to 0.5)."""

    kind: Literal["uniform"] = "uniform"
    range: Scale = Field(0.5, description="from -range to range")


class VocabularyInit(Data):
    """Start from the embeddings of common words, drawn at random (Lester et al. 2021, 3.1)."""

    kind: Literal["vocabulary"] = "vocabulary"
    most_common: Tokens = Field(
        5000,
        description="how many entries to draw from; a vocabulary is ordered by frequency",
    )


class TextInit(Data):
    """Start from the embeddings of a text, repeated or cut at its end to the prompt's length."""

    kind: Literal["text"] = "text"
    text: str = Field(min_length=1, description="words to start from")


class LabelsInit(Data):
    """Start from the embeddings of class labels, the rest from common words (Lester et al. 2021).

    A label of several tokens gives the mean of their embeddings.
    """

    kind: Literal["labels"] = "labels"
    labels: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="the words of the classes; null: the task's label words or labels, and none"
        " where it asks for something else",
    )
    most_common: Tokens = Field(5000, description="for the positions after the labels")


Init = RandomInit | ActivationsInit | UniformInit | VocabularyInit | TextInit | LabelsInit
KeysValuesInit = Annotated[RandomInit | ActivationsInit, Field(discriminator="kind")]
EmbeddingsInit = Annotated[
    UniformInit | VocabularyInit | TextInit | LabelsInit, Field(discriminator="kind")
]


Positions = Annotated[
    Literal["auto", "shift", "keep"],
    Field(
        description="shift: real text starts at position `length`; keep: at the first; auto: shift"
        " on a decoder, keep on an encoder where that is possible"
    ),
]
Layers = tuple[Layer, ...] | dict[Site, tuple[Layer, ...]] | None


def some(chosen: tuple[Site, ...] | None) -> tuple[Site, ...] | None:
    """Check a list of sites: not empty, and none twice."""
    if chosen is not None and (not chosen or len(set(chosen)) < len(chosen)):
        raise ValueError("name each site at most once, and at least one; or leave it out")
    return chosen


PromptDropout = Annotated[
    float,
    Field(
        ge=0,
        lt=1,
        description="on the virtual tokens' keys and values, in training steps, drawn for each row",
    ),
]


SomeSites = Annotated[tuple[Site, ...] | None, AfterValidator(some)]
AttentionSites = Annotated[
    SomeSites,
    Field(description="which attentions carry a prompt: encoder, decoder, cross; all if left out"),
]
InputSites = Annotated[
    SomeSites,
    Field(
        description="whose input they stand in: encoder, decoder; an encoder's, where there is one,"
        " if left out"
    ),
]
ChosenLayers = Annotated[
    Layers,
    Field(
        description="which layers carry one: numbers from 0, negative from the last; or such a list"
        " for each site; all if left out"
    ),
]


class Frozen(Data):
    """Nothing of the backbone moves."""

    kind: Literal["none"] = "none"


class Full(Data):
    """Every weight moves."""

    kind: Literal["full"] = "full"


class TopOptions(Data):
    """How many layers move."""

    layers: int = Field(2, ge=1, le=10**4, description="how many of the last layers move")


class TopLayers(TopOptions):
    """The last layers move (FT-top2 of Li & Liang 2021, section 5.2)."""

    kind: Literal["top"] = "top"


class Biases(Data):
    """The biases move (Ben Zaken et al. 2022)."""

    kind: Literal["bitfit"] = "bitfit"


class BottleneckOptions(Data):
    """The size of bottleneck adapters, and what moves beside them."""

    reduction: float = Field(
        16.0,
        ge=0.1,
        le=65536,
        description="width of the backbone over that of an adapter's bottleneck",
    )
    size: int | None = Field(
        None,
        ge=1,
        le=65536,
        description="width of the bottleneck; null: the backbone's over `reduction`",
    )
    activation: Literal["gelu", "relu", "silu", "tanh"] = "gelu"
    layer_norms: bool = Field(True, description="whether the backbone's layer norms move too")


class Bottlenecks(BottleneckOptions):
    """Small layers after attention and feed-forward move (Houlsby et al. 2019, section 2)."""

    kind: Literal["adapter"] = "adapter"


class LowRankOptions(Data):
    """The size of low-rank updates, and what they are added to."""

    rank: int = Field(4, ge=1, le=65536, description="of each update")
    alpha: Scale = Field(32.0, description="an update counts alpha / rank times")
    dropout: float = Field(0.1, ge=0, lt=1, description="on an update's input, in training")
    targets: tuple[Annotated[str, Field(min_length=1)], ...] | None = Field(
        None,
        min_length=1,
        description="ends of the names of the linear layers that are updated, or `all` for every"
        " one but the output; null: queries and values, as PEFT knows them for the family",
    )


class LowRank(LowRankOptions):
    """Low-rank updates of chosen weights move (Hu et al. 2021, section 4.1)."""

    kind: Literal["lora"] = "lora"


AnyDelta = Frozen | Full | TopLayers | Biases | Bottlenecks | LowRank
DeltaChoice = Annotated[
    AnyDelta,
    Field(discriminator="kind", description="what of the backbone's own weights moves, too"),
]


@dataclass(frozen=True)
class Point:
    """Where a method stands on the axes that its options do not choose."""

    injection: Literal["keys_values", "embeddings", "text"]


def _one_or_several(given: Any) -> Any:
    if not isinstance(given, Mapping):
        return given
    return {label: (word,) if isinstance(word, str) else word for label, word in given.items()}


def _usable(words: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    for label, chosen in words.items():
        if not chosen or not all(word.strip() == word != "" for word in chosen):
            raise ValueError(
                f"label {label!r}: expected a word, or a list of words, without blanks around "
                f"them, found {list(chosen)}"
            )
        if len(set(chosen)) < len(chosen):
            raise ValueError(f"label {label!r}: names a word twice")
    return words


LabelWords = Annotated[
    dict[str, tuple[str, ...]],
    BeforeValidator(_one_or_several, json_schema_input_type=dict[str, str | tuple[str, ...]]),
    AfterValidator(_usable),
]
"""Label -> the words that stand for it; a plain text is one word."""
