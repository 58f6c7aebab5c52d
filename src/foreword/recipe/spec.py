"""The sections of a recipe, typed and frozen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from foreword.methods import MethodChoice
from foreword.methods.axes import Data

VERSION = 1

PLAIN = {
    "backbone": "name",
    "method": "name",
    "method.reparameterization": "kind",
    "method.init": "kind",
}
"""Mappings that may be given as a plain text, and the key that the text stands for."""


class BackboneSpec(Data):
    """Which backbone, and how it is loaded. A plain string is its name."""

    name: str = Field(min_length=1, description="foreword/... name, folder or hub name")
    revision: str | None = Field(None, description="branch, tag or commit of a hub name")
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "float32"
    bos: Literal["auto", "always", "never"] = Field(
        "auto", description="beginning token before the source: as the tokenizer does, or not"
    )

    @field_validator("name")
    @classmethod
    def _a_path(cls, name: str) -> str:
        return _path(name)


class DataSpec(Data):
    """Where examples come from."""

    format: Literal["jsonl", "csv", "tsv", "parquet", "e2e"] = Field(
        description="e2e: the E2E challenge's CSV with columns mr and ref"
    )
    train: str | None = Field(None, description="training file; foreword/... names are bundled")
    dev: str | None = None
    test: str | None = None
    references: str = Field("references", description="column with the answer, or a list of them")
    group: str | None = Field(None, description="column by which results are also reported apart")

    @field_validator("train", "dev", "test")
    @classmethod
    def _a_path(cls, path: str | None) -> str | None:
        return path if path is None else _path(path)


class Limits(Data):
    """How much of each file is used, from its beginning."""

    train: int | None = Field(None, ge=1, description="training pairs (references)")
    dev: int | None = Field(None, ge=1, description="records")
    test: int | None = Field(None, ge=1, description="records")


class MessageSpec(Data):
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str = Field(description="template, with {field} slots")


InputSpec = Annotated[
    Annotated[str, Tag("<text>")]
    | Annotated[tuple[MessageSpec, ...], Field(min_length=1), Tag("<messages>")],
    Discriminator(lambda value: "<messages>" if isinstance(value, list | tuple) else "<text>"),
]


def written_input(spec: InputSpec) -> str | list[dict[str, str]]:
    """An input as it stands in YAML: a text, or messages as plain mappings."""
    return spec if isinstance(spec, str) else [message.model_dump() for message in spec]


class TaskSpec(Data):
    """What goes in, what comes out, how it is measured."""

    data: DataSpec
    input: InputSpec = Field(
        "{record}\n",
        description="template of the source, with {field} slots; or messages for the tokenizer's"
        " chat template",
    )
    target: str = Field("{reference}", description="template of the target")
    limits: Limits = Limits()
    truncate: str | None = Field(
        None, description="field that is cut where an example is too long; without it: an error"
    )
    metrics: tuple[
        Literal["bleu", "chrf", "ter", "slot_coverage", "nist", "meteor", "rouge_l", "cider"], ...
    ] = ("bleu", "chrf", "ter", "slot_coverage")


def training_rules(section: Any) -> list[str]:
    """What is wrong between the fields of a `training` section, whatever each is by itself."""
    if not isinstance(section, Mapping):
        return []
    given = {key for key, value in {"best_by": "loss", **section}.items() if value is not None}
    broken = []
    if len(given & {"epochs", "steps"}) != 1:
        broken.append("give either `epochs` or `steps`")
    if "patience" in given and not given >= {"evaluate_every", "best_by"}:
        broken.append("`patience` needs `evaluate_every` and `best_by`")
    return broken


class TrainingSpec(Data):
    """How the prompt is trained."""

    epochs: float | None = Field(None, gt=0, description="passes over the data; or `steps`")
    steps: int | None = Field(None, ge=1, description="optimizer steps; or `epochs`")
    batch_size: int = Field(16, ge=1, description="examples per forward pass, all processes")
    accumulation: int = Field(1, ge=1, description="forward passes per optimizer step")
    learning_rate: float = Field(1e-3, gt=0)
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: float = Field(0.0, ge=0, description="steps, or below 1 the share of all steps")
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = Field(1.0, gt=0, description="largest gradient norm; null: no clipping")
    loss: Literal["token_mean", "sequence_sum"] = Field(
        "token_mean",
        description="mean over target tokens, or the paper's sum over each sequence, mean over"
        " sequences",
    )
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the arithmetic")
    evaluate_every: int | None = Field(None, ge=1, description="steps between evaluations")
    best_by: Literal["loss", "bleu"] | None = Field(
        "loss", description="which evaluation keeps the best prompt; null: keep the last"
    )
    patience: int | None = Field(
        None, ge=1, description="stop after so many evaluations without a better one"
    )
    checkpoint_every: int | None = Field(
        None, ge=1, description="steps between checkpoints; null: by time, at most 1 % of it"
    )
    tracker: Literal["none", "tensorboard", "wandb", "mlflow"] = "none"

    @field_validator("betas")
    @classmethod
    def _betas_below_one(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError("both must be at least 0 and below 1")
        return betas

    @model_validator(mode="after")
    def _rules(self) -> TrainingSpec:
        for rule in training_rules(dict(self)):
            raise ValueError(rule)
        return self


class DecodingSpec(Data):
    """How answers are decoded (names as in transformers' GenerationConfig)."""

    max_new_tokens: int = Field(64, ge=1)
    num_beams: int = Field(1, ge=1)
    do_sample: bool = False
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    repetition_penalty: float = Field(1.0, gt=0)
    length_penalty: float = 1.0
    no_repeat_ngram_size: int = Field(0, ge=0)
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
    """What is measured after training."""

    batch_size: int = Field(32, ge=1)
    backbone_alone: bool = Field(True, description="measure the backbone without the prompt too")
    samples: int = Field(3, ge=0, description="outputs shown at the end")


class Recipe(Data):
    """One run."""

    version: Literal[1]
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=100,
        description="letters, digits, '.', '_' and '-', beginning with a letter or a digit",
    )
    backbone: BackboneSpec
    task: TaskSpec
    method: MethodChoice
    training: TrainingSpec = TrainingSpec(steps=1000)
    decoding: DecodingSpec = DecodingSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    seed: int = Field(0, ge=0, lt=2**32)

    @field_validator("backbone", mode="before", json_schema_input_type=BackboneSpec | str)
    @classmethod
    def _plain_backbone(cls, value: Any) -> Any:
        return _spell_out("backbone", value)

    @field_validator("method", mode="before", json_schema_input_type=MethodChoice | str)
    @classmethod
    def _plain_method(cls, value: Any) -> Any:
        value = _spell_out("method", value)
        if not isinstance(value, Mapping):
            return value
        return {key: _spell_out(f"method.{key}", inner) for key, inner in value.items()}

    def to_yaml(self) -> str:
        """The whole recipe, every default written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _spell_out(path: str, value: Any) -> Any:
    return {PLAIN[path]: value} if path in PLAIN and isinstance(value, str) else value


def _path(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError(f"expected a name or a path, found {text!r}")
    return text
