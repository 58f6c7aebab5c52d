"""The choices on the axes, as data, from where each stands beside its module. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from foreword.axes.deltas.options import Biases as Biases
from foreword.axes.deltas.options import BottleneckOptions as BottleneckOptions
from foreword.axes.deltas.options import Bottlenecks as Bottlenecks
from foreword.axes.deltas.options import DeltaChoice as DeltaChoice
from foreword.axes.deltas.options import DeltaSpec as DeltaSpec
from foreword.axes.deltas.options import Frozen as Frozen
from foreword.axes.deltas.options import Full as Full
from foreword.axes.deltas.options import LowRank as LowRank
from foreword.axes.deltas.options import LowRankOptions as LowRankOptions
from foreword.axes.deltas.options import TopLayers as TopLayers
from foreword.axes.deltas.options import TopOptions as TopOptions
from foreword.axes.injection.options import AttentionSites as AttentionSites
from foreword.axes.injection.options import ChosenLayers as ChosenLayers
from foreword.axes.injection.options import Embeddings as Embeddings
from foreword.axes.injection.options import InjectionSpec as InjectionSpec
from foreword.axes.injection.options import InputSites as InputSites
from foreword.axes.injection.options import KeysValues as KeysValues
from foreword.axes.injection.options import PromptDropout as PromptDropout
from foreword.axes.injection.options import Text as Text
from foreword.axes.injection.starts import ActivationsInit as ActivationsInit
from foreword.axes.injection.starts import AnyEmbeddingsInit as AnyEmbeddingsInit
from foreword.axes.injection.starts import ArtifactInit as ArtifactInit
from foreword.axes.injection.starts import EmbeddingsInit as EmbeddingsInit
from foreword.axes.injection.starts import FirstTokensInit as FirstTokensInit
from foreword.axes.injection.starts import Init as Init
from foreword.axes.injection.starts import InitSpec as InitSpec
from foreword.axes.injection.starts import KeysValuesInit as KeysValuesInit
from foreword.axes.injection.starts import LabelsInit as LabelsInit
from foreword.axes.injection.starts import PlainInit as PlainInit
from foreword.axes.injection.starts import RandomInit as RandomInit
from foreword.axes.injection.starts import TextInit as TextInit
from foreword.axes.injection.starts import UniformInit as UniformInit
from foreword.axes.injection.starts import VocabularyInit as VocabularyInit
from foreword.axes.placement.options import BeforeText as BeforeText
from foreword.axes.placement.options import BetweenTexts as BetweenTexts
from foreword.axes.placement.options import InSlots as InSlots
from foreword.axes.placement.options import PlacementSpec as PlacementSpec
from foreword.axes.reparam.options import LSTM as LSTM
from foreword.axes.reparam.options import MLP as MLP
from foreword.axes.reparam.options import FrozenTable as FrozenTable
from foreword.axes.reparam.options import PTuningEncoder as PTuningEncoder
from foreword.axes.reparam.options import ReluMLP as ReluMLP
from foreword.axes.reparam.options import ReparameterizationSpec as ReparameterizationSpec
from foreword.axes.reparam.options import RowsChoice as RowsChoice
from foreword.axes.reparam.options import Table as Table
from foreword.axes.reparam.options import TableOnly as TableOnly
from foreword.axes.reparam.options import reparameterization as reparameterization
from foreword.common.choices import Data as Data
from foreword.common.sites import SITES as SITES
from foreword.common.sites import Site as Site

Positions = Annotated[
    Literal["auto", "shift", "keep"],
    Field(
        description="shift: real text starts at position `length`; keep: at the first; auto: shift"
        " on a decoder, keep on an encoder where that is possible"
    ),
]


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
