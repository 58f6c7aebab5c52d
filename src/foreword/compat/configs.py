"""PEFT's configurations of prompt methods: its field names, their order and their defaults.

As in PEFT, a field that the model decides (`token_dim`, `num_layers`, ...) may be left out here and
is asked for where it is needed. Unlike PEFT, a value that no method can use is refused at once.
Knows nothing about models.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, ClassVar, Literal

from foreword.compat.peft_types import (
    PeftType,
    PromptEncoderReparameterizationType,
    PromptTuningInit,
    TaskType,
)
from foreword.errors import did_you_mean


@dataclass
class PromptLearningConfig:
    """What the configurations of all prompt methods share.

    Attributes:
        task_type: what the model is used for.
        peft_type: the method; each class sets its own.
        auto_mapping: PEFT's note of a base model's class; unused here.
        peft_version: which PEFT wrote it; left as it is given.
        base_model_name_or_path: the base model.
        revision: of a base model on the hub.
        inference_mode: encoders then hold the folded prompt alone, not the network that made it.
        num_virtual_tokens: P.
        token_dim: width of the base model's embeddings; for prefixes of models with grouped heads,
            `num_attention_heads · head_dim`.
        num_transformer_submodules: 1, or 2 for an encoder-decoder; a prompt has that many times P
            rows.
        num_attention_heads: for prefixes the heads of keys and values.
        num_layers: layers of the base model.
        modules_to_save: further modules that are trained and saved.

    Raises:
        ValueError: a value that no method can use.
        TypeError: an unknown field.
    """

    kind: ClassVar[PeftType]

    task_type: TaskType | str | None = None
    peft_type: PeftType | str | None = None
    auto_mapping: dict[str, Any] | None = None
    peft_version: str | None = None
    base_model_name_or_path: str | None = None
    revision: str | None = None
    inference_mode: bool = False
    num_virtual_tokens: int | None = None
    token_dim: int | None = None
    num_transformer_submodules: int | None = None
    num_attention_heads: int | None = None
    num_layers: int | None = None
    modules_to_save: list[str] | None = None

    def __post_init__(self) -> None:
        self._one_of("task_type", TaskType)
        self._one_of("peft_type", [self.kind])
        self.peft_type = self.kind
        for name in (
            "num_virtual_tokens",
            "token_dim",
            "num_transformer_submodules",
            "num_attention_heads",
            "num_layers",
        ):
            self._count(name)

    @property
    def is_prompt_learning(self) -> bool:
        """True: these are prompt methods."""
        return True

    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)

    def _count(self, name: str, *, needed: bool = False) -> None:
        value = getattr(self, name)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (whole and value >= 1) and (needed or value is not None):
            raise ValueError(
                f"{type(self).__name__}.{name}: expected a whole number of at least 1, "
                f"found {value!r}"
            )

    def _one_of(self, name: str, known: Iterable[Enum], *, needed: bool = False) -> None:
        value, names = getattr(self, name), [str(member.value) for member in known]
        if (value is None and not needed) or value in names:
            return
        raise ValueError(
            f"{type(self).__name__}.{name}: {value!r} is not known{did_you_mean(str(value), names)}"
        )


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

    prompt_tuning_init: PromptTuningInit | str = PromptTuningInit.RANDOM
    prompt_tuning_init_text: str | None = None
    tokenizer_name_or_path: str | None = None
    tokenizer_kwargs: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._one_of("prompt_tuning_init", PromptTuningInit, needed=True)
        from_text = self.prompt_tuning_init == PromptTuningInit.TEXT
        if from_text and not self.tokenizer_name_or_path:
            raise ValueError(
                "PromptTuningConfig: prompt_tuning_init='TEXT' needs tokenizer_name_or_path, "
                f"found {self.tokenizer_name_or_path!r}"
            )
        if from_text and self.prompt_tuning_init_text is None:
            raise ValueError(
                "PromptTuningConfig: prompt_tuning_init='TEXT' needs prompt_tuning_init_text"
            )
        if self.tokenizer_kwargs and not from_text:
            raise ValueError(
                "PromptTuningConfig: tokenizer_kwargs has a use with prompt_tuning_init='TEXT' "
                "alone"
            )


@dataclass
class PromptEncoderConfig(PromptLearningConfig):
    """Configuration of a `PromptEncoder` (P-Tuning, Liu et al. 2021).

    Attributes:
        encoder_reparameterization_type: LSTM, or MLP.
        encoder_hidden_size: width of the network; PEFT's models take `token_dim`.
        encoder_num_layers: layers of the LSTM; the MLP has three linear ones whatever it says.
        encoder_dropout: between the LSTM's layers.
    """

    kind: ClassVar[PeftType] = PeftType.P_TUNING

    encoder_reparameterization_type: PromptEncoderReparameterizationType | str = (
        PromptEncoderReparameterizationType.MLP
    )
    encoder_hidden_size: int | None = None
    encoder_num_layers: int = 2
    encoder_dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._one_of(
            "encoder_reparameterization_type", PromptEncoderReparameterizationType, needed=True
        )
        self._count("encoder_hidden_size")
        self._count("encoder_num_layers", needed=True)
        dropout = self.encoder_dropout
        if not isinstance(dropout, (int, float)) or not 0 <= dropout <= 1:
            raise ValueError(
                "PromptEncoderConfig.encoder_dropout: expected a number from 0 to 1, found "
                f"{dropout!r}"
            )


@dataclass
class CPTConfig(PromptLearningConfig):
    """Configuration of CPT (Blau et al. 2024): `num_virtual_tokens` are as many as its tokens.

    Attributes:
        cpt_token_ids: the context's tokens; [0] if not given.
        cpt_mask: PEFT keeps it and reads it nowhere; ones if not given.
        cpt_tokens_type_mask: of each token 4k + 1 for the template of example k, 2 for its content,
            3 for the answer's template, 4 for the label; 0 for what neither moves nor is predicted.
            Ones if not given.
        opt_weighted_loss_type: decay: labels weigh the less the farther from the input they are.
        opt_loss_decay_factor: by how much from one example to the one before.
        opt_projection_epsilon: how far a token of an example's content may move, at width 2048.
        opt_projection_format_epsilon: the same of a token of the template.
        tokenizer_name_or_path: whose tokens they are.
    """

    kind: ClassVar[PeftType] = PeftType.CPT

    cpt_token_ids: list[int] | None = None
    cpt_mask: list[int] | None = None
    cpt_tokens_type_mask: list[int] | None = None
    opt_weighted_loss_type: Literal["none", "decay"] | None = "none"
    opt_loss_decay_factor: float | None = 1.0
    opt_projection_epsilon: float | None = 0.1
    opt_projection_format_epsilon: float | None = 0.1
    tokenizer_name_or_path: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task_type != TaskType.CAUSAL_LM:
            raise ValueError(
                f"CPTConfig.task_type: expected '{TaskType.CAUSAL_LM}', found {self.task_type!r}"
            )
        self.cpt_token_ids = self.cpt_token_ids or [0]
        count = len(self.cpt_token_ids)
        self.num_virtual_tokens, self.num_transformer_submodules = count, 1
        self.cpt_mask = self.cpt_mask or [1] * count
        self.cpt_tokens_type_mask = self.cpt_tokens_type_mask or [1] * count
        for name in ("cpt_mask", "cpt_tokens_type_mask"):
            if len(getattr(self, name)) != count:
                raise ValueError(
                    f"CPTConfig.{name}: {len(getattr(self, name))} numbers for {count} tokens of "
                    "cpt_token_ids"
                )
        if self.opt_weighted_loss_type not in ("none", "decay"):
            raise ValueError(
                "CPTConfig.opt_weighted_loss_type: expected 'none' or 'decay', found "
                f"{self.opt_weighted_loss_type!r}"
            )


@dataclass
class PrefixTuningConfig(PromptLearningConfig):
    """Configuration of a `PrefixEncoder` (Li & Liang 2021).

    Attributes:
        init_weights: "zero": keys and values start at zero; None: at random.
        encoder_hidden_size: width of the projection's hidden layer; PEFT's models take `token_dim`.
        prefix_projection: make the prefix of a smaller table by an MLP.
    """

    kind: ClassVar[PeftType] = PeftType.PREFIX_TUNING

    init_weights: Literal["zero"] | None = None
    encoder_hidden_size: int | None = None
    prefix_projection: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._count("encoder_hidden_size")
        if self.init_weights not in (None, "zero"):
            raise ValueError(
                "PrefixTuningConfig.init_weights: expected 'zero' or None, found "
                f"{self.init_weights!r}"
            )
