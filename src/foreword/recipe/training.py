"""The `training`, `decoding` and `evaluation` sections of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from foreword import names
from foreword.common.bounds import Beta, Many, Rate, Rows, Some, Temperature, Tokens
from foreword.common.choices import Data, OrAuto
from foreword.common.named import NameIn


def training_rules(section: Any) -> list[str]:
    """What is wrong between the fields of a `training` section, whatever each is by itself."""
    if not isinstance(section, Mapping):
        return []
    given = {key for key, value in {"best_by": "loss", **section}.items() if value is not None}
    broken = []
    if len(given & {"epochs", "steps"}) != 1:
        broken.append("give either `epochs` or `steps`")
    automatic = "auto" in (section.get("micro_batch_size"), section.get("gradient_checkpointing"))
    if "memory" in given and not automatic:
        broken.append(
            "`memory` is what `micro_batch_size: auto` and `gradient_checkpointing: auto` keep to; "
            "give one of them, or leave it out"
        )
    if "micro_batch_size" in given and section.get("mlm_weight"):
        broken.append(
            "`mlm_weight` draws masked words for each forward pass, so a batch in parts "
            "(`micro_batch_size`) is learned differently; leave one of them out"
        )
    if "patience" in given and not given >= {"evaluate_every", "best_by"}:
        broken.append("`patience` needs `evaluate_every` and `best_by`")
    return broken


def types_rule(dtype: Any, precision: Any) -> str | None:
    """What is wrong with bfloat16 arithmetic on a backbone of this type, if anything."""
    if precision != "bfloat16" or dtype not in ("float16", "float64"):
        return None
    return (
        f"training.precision: `bfloat16` has no meaning on a backbone in {dtype}, whose arithmetic "
        "is its own; leave `precision` at float32, or give `backbone.dtype` float32 or bfloat16"
    )


class SavingsSpec(Data):
    """Work that training leaves out: all of it, or what is true here.

    None changes what is computed but by rounding, save `lengths`, which says what examples stand
    together.
    """

    activation: bool = Field(
        True, description="GELU's tanh approximation as one kernel, where a family spells it out"
    )
    beginnings: bool = Field(
        True, description="what rows that are measured begin with alike is read once"
    )
    copies: bool = Field(
        True, description="keys and values of many virtual tokens, for every row of a batch"
    )
    gradients: bool = Field(True, description="none below the first place that is trained")
    head: bool = Field(
        True, description="the language-model head at the positions that are learned alone"
    )
    last_layer: bool = Field(
        True, description="the last layer at the positions whose output is read alone"
    )
    lengths: bool = Field(True, description="batches of similar length, so that little is padding")
    masks: bool = Field(
        True,
        description="of a decoder's attention, where padding stands behind the text, and beside"
        " virtual tokens before a long one",
    )
    optimizer: bool = Field(True, description="AdamW's step as one kernel")
    outputs: bool = Field(
        True,
        description="of activations, which are computed again and not kept where their inputs are",
    )
    sources: bool = Field(
        True, description="sources that no prompt enters are kept (`source_cache`)"
    )

    @property
    def off(self) -> frozenset[str]:
        """The names of those that are turned off."""
        return frozenset(name for name, on in self if not on)


class TrainingSpec(Data):
    """How the prompt is trained."""

    epochs: float | None = Field(None, gt=0, le=1e6, description="passes over the data; or `steps`")
    steps: Some | None = Field(None, description="optimizer steps; or `epochs`")
    batch_size: Rows = Field(16, description="examples of a batch, all processes")
    accumulation: Rows = Field(1, description="batches per optimizer step")
    micro_batch_size: Annotated[int | Literal["auto"], OrAuto(Rows)] | None = Field(
        None,
        description="examples of a batch that go through the model at once, in a process; auto: as"
        " many as memory has room for; null: all. What is learned is the same",
    )
    learning_rate: Rate = 1e-3
    head_learning_rate: Rate | None = Field(None, description="of the head; null: the same rate")
    delta_learning_rate: Rate | None = Field(
        None, description="of the backbone's own weights that move; null: the same rate"
    )
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: float = Field(0.0, ge=0, le=1e9, description="steps, or below 1 the share of all steps")
    weight_decay: float = Field(0.0, ge=0, le=1e3)
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    clip: float | None = Field(
        1.0, gt=0, le=1e9, description="largest gradient norm; null: no clipping"
    )
    loss: Literal["token_mean", "sequence_sum"] = Field(
        "token_mean",
        description="mean over target tokens, or the paper's sum over each sequence, mean over"
        " sequences",
    )
    precision: Literal["float32", "bfloat16", "auto"] = Field(
        "float32",
        description="of the arithmetic; auto: bfloat16 where the device has units for it and"
        " `backbone.dtype` is float32",
    )
    mlm_weight: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="of a loss on masked words of unlabelled inputs beside that on label words"
        " (PET's)",
    )
    mlm_batch_size: Rows = Field(12, description="unlabelled inputs in each step for it")
    gradient_checkpointing: Annotated[bool | Literal["auto"], OrAuto(bool)] = Field(
        False,
        description="compute each layer twice instead of keeping what it computes: less memory;"
        " auto: where there is no room otherwise",
    )
    memory: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="gigabytes that `auto` may use for the backbone and a training step together;"
        " null: what is free",
    )
    source_cache: float = Field(
        1.0,
        ge=0,
        le=1e6,
        description="of a frozen backbone: most gigabytes for what stands before an infix, or what"
        " an encoder reads that no prompt enters, kept over all epochs; 0: nothing is kept",
    )
    savings: SavingsSpec = Field(
        SavingsSpec(), description="work that is left out; false: none of it"
    )
    evaluate_every: Some | None = Field(None, description="steps between evaluations")
    best_by: Annotated[str, NameIn(names.METRICS, "loss")] | None = Field(
        "loss",
        description="which evaluation keeps the best prompt: by the loss, or by a metric of what"
        " the task asks for; null: keep the last",
    )
    patience: Some | None = Field(
        None, description="stop after so many evaluations without a better one"
    )
    checkpoint_every: Some | None = Field(
        None, description="steps between checkpoints; null: by time, at most 1 % of it"
    )
    tracker: Literal["none", "tensorboard", "wandb", "mlflow"] = "none"

    @field_validator("batch_size", mode="before")
    @classmethod
    def _is_of_an_update(cls, size: Any) -> Any:
        if size == "auto":
            raise ValueError(
                "`auto` would leave open how many examples an optimizer step learns from, which "
                "decides what is learned; give their number, and `micro_batch_size: auto` for how "
                "many go through the model at once"
            )
        return size

    @field_validator("savings", mode="before", json_schema_input_type=SavingsSpec | bool)
    @classmethod
    def _all_or_none(cls, savings: Any) -> Any:
        if not isinstance(savings, bool):
            return savings
        return dict.fromkeys(SavingsSpec.model_fields, savings)

    @model_validator(mode="after")
    def _rules(self) -> TrainingSpec:
        for rule in training_rules(dict(self)):
            raise ValueError(rule)
        return self


class DecodingSpec(Data):
    """How answers are decoded (names as in transformers' GenerationConfig)."""

    max_new_tokens: Tokens = 64
    num_beams: int = Field(1, ge=1, le=1024)
    do_sample: bool = False
    temperature: Temperature = 1.0
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0, le=10**7)
    repetition_penalty: float = Field(1.0, ge=0.01, le=100)
    length_penalty: float = Field(1.0, ge=-20, le=20)
    no_repeat_ngram_size: int = Field(0, ge=0, le=10**6)
    stop: tuple[str, ...] = Field((), description="stop words: the answer ends before the first")

    @model_validator(mode="after")
    def _sampling_options_need_sampling(self) -> DecodingSpec:
        if not self.do_sample and (self.temperature, self.top_p, self.top_k) != (1.0, 1.0, 0):
            raise ValueError(
                "`temperature`, `top_p` and `top_k` do nothing without `do_sample: true`"
            )
        return self

    @field_validator("stop")
    @classmethod
    def _no_empty_stop(cls, stop: tuple[str, ...]) -> tuple[str, ...]:
        if "" in stop:
            raise ValueError("a stop word must not be empty")
        return stop


class EvaluationSpec(Data):
    """What is measured after training, and how."""

    batch_size: Rows = Field(32, description="rows measured together, during training and after it")
    backbone_alone: bool = Field(True, description="measure the backbone without the prompt too")
    samples: Many = Field(3, description="outputs shown at the end")
