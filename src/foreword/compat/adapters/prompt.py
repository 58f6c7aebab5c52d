"""Prompt tuning in PEFT's format."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from foreword.backbone import Backbone
from foreword.compat.adapter import adapter
from foreword.compat.adapters.virtual_tokens import InputTokens
from foreword.compat.configs import PromptLearningConfig
from foreword.compat.peft_types import PeftType, PromptTuningInit
from foreword.methods import MethodChoice, PromptTuning, axes


@dataclass
class PromptTuningConfig(PromptLearningConfig):
    """Configuration of a `PromptEmbedding` (Lester et al. 2021).

    Attributes:
        prompt_tuning_init: RANDOM: normal numbers; SAMPLE_VOCAB: entries drawn from the whole
            vocabulary; TEXT: the embeddings of a text, repeated or cut at its end.
        prompt_tuning_init_text: that text.
        tokenizer_name_or_path: which tokenizer reads it; `foreword/...` names are ours.
        tokenizer_kwargs: for `AutoTokenizer.from_pretrained`; `trust_remote_code` is left out.
    """

    kind: ClassVar[PeftType] = PeftType.PROMPT_TUNING
    starts: ClassVar[type[Enum]] = PromptTuningInit

    prompt_tuning_init: PromptTuningInit | str = PromptTuningInit.RANDOM
    prompt_tuning_init_text: str | None = None
    tokenizer_name_or_path: str | None = None
    tokenizer_kwargs: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._one_of("prompt_tuning_init", self.starts, needed=True)
        from_text = self.prompt_tuning_init == PromptTuningInit.TEXT
        if from_text and not self.tokenizer_name_or_path:
            raise ValueError(
                f"{type(self).__name__}: prompt_tuning_init='TEXT' needs tokenizer_name_or_path, "
                f"found {self.tokenizer_name_or_path!r}"
            )
        if from_text and self.prompt_tuning_init_text is None:
            raise ValueError(
                f"{type(self).__name__}: prompt_tuning_init='TEXT' needs prompt_tuning_init_text"
            )
        if self.tokenizer_kwargs and not from_text:
            raise ValueError(
                f"{type(self).__name__}: tokenizer_kwargs has a use with prompt_tuning_init='TEXT' "
                "alone"
            )


@adapter
class PromptAdapter(InputTokens):
    """`prompt_embeddings` is `[P, d]`, or `[2 P, d]` on an encoder-decoder."""

    enters = axes.Embeddings

    peft_type: Literal["PROMPT_TUNING"]
    prompt_tuning_init: Literal["RANDOM", "SAMPLE_VOCAB", "TEXT"] = "RANDOM"
    prompt_tuning_init_text: str | None = Field(None, max_length=100_000)
    tokenizer_name_or_path: str | None = Field(None, max_length=4096)
    tokenizer_kwargs: dict[str, Any] | None = None

    def method(self, backbone: Backbone) -> MethodChoice:
        """Prompt tuning, from a vocabulary's entries or from the text."""
        init: axes.VocabularyInit | axes.TextInit = axes.VocabularyInit(
            most_common=backbone.geometry.vocabulary
        )
        if self.prompt_tuning_init == "TEXT" and self.prompt_tuning_init_text:
            init = axes.TextInit(text=self.prompt_tuning_init_text)
        return PromptTuning(
            name="prompt-tuning", length=self.num_virtual_tokens, positions="shift", init=init
        )

    @classmethod
    def config_of(
        cls,
        source: Path,  # noqa: ARG003
        method: MethodChoice,  # noqa: ARG003
        sizes: dict[str, Any],
    ) -> PromptTuningConfig:
        """The sizes; where training started from is of no use to PEFT."""
        return PromptTuningConfig(**sizes)
