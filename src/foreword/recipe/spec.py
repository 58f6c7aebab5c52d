"""The sections of a recipe, typed and frozen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    JsonValue,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from foreword import names
from foreword.bounds import GPU, Beta, Column, Many, Rate, Rows, Seed, Some, Temperature, Tokens
from foreword.choices import Data, NameIn
from foreword.data.lines import check_encoding
from foreword.errors import DataError, TemplateError, did_you_mean
from foreword.methods import METHODS, PET, MethodChoice, MethodOptions
from foreword.methods.axes import LabelWords
from foreword.recipe.writing import write_yaml
from foreword.templates.template import Template

VERSION = 1
DEVICE_RULES = ("auto", "balanced", "balanced_low_0", "sequential")

PLAIN = {
    "backbone": "name",
    "method": "name",
    "method.reparameterization": "kind",
    "method.init": "kind",
    "method.delta": "kind",
}
"""Mappings that may be given as a plain text, and the key that the text stands for."""


EXCLUSIVE = (
    ("training.epochs", "training.steps"),
    ("task.data.dev", "task.data.hold_out"),
    ("task.head", "task.verbalizer"),
)
"""Fields of which a recipe gives one."""


class BackboneSpec(Data):
    """Which backbone, and how it is loaded. A plain string is its name."""

    name: str = Field(min_length=1, description="foreword/... name, folder or hub name")
    revision: str | None = Field(None, description="branch, tag or commit of a hub name")
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "float32"
    bos: Literal["auto", "always", "never"] = Field(
        "auto",
        description="beginning token (its bos_token or cls_token) before what is read: as the"
        " tokenizer does it, always one, or never",
    )
    attention: Literal["auto", "sdpa", "eager", "flex"] = Field(
        "auto", description="how attention is computed; auto: what suits the family"
    )
    quantization: dict[str, JsonValue] | None = Field(
        None,
        description="weights of 4 or 8 bits: `quant_method` and that method's options, as"
        " transformers' own quantisation config has them",
    )
    device_map: str | dict[str, str | GPU] | None = Field(
        None,
        description=f"a model spread over devices: {', '.join(DEVICE_RULES)}, or by module a GPU's"
        " number, cpu or disk",
    )

    @field_validator("name")
    @classmethod
    def _a_path(cls, name: str) -> str:
        return _path(name)

    @field_validator("quantization", mode="before")
    @classmethod
    def _names_its_method(cls, given: Any) -> Any:
        if given is None:
            return given
        if not isinstance(given, Mapping) or not isinstance(given.get("quant_method"), str):
            raise ValueError("expected a mapping with `quant_method` and that method's options")
        return given

    @field_validator("device_map", mode="before")
    @classmethod
    def _devices(cls, given: Any) -> Any:
        if given is None or given in DEVICE_RULES:
            return given
        if not isinstance(given, Mapping) or not given:
            what = did_you_mean(given if isinstance(given, str) else "", DEVICE_RULES)
            raise ValueError(f"expected a rule, or a mapping of modules to devices{what}")
        for module, place in given.items():
            number = isinstance(place, int) and not isinstance(place, bool) and 0 <= place < 1024
            if not isinstance(module, str) or not (number or isinstance(place, str)):
                raise ValueError("expected for each module a GPU's number, or the text of a device")
        return given


class Subset(Data):
    """Which documents of XSUM one split has."""

    sections: tuple[str, ...] = Field((), description="the BBC's, such as world or sport")
    ids: str | None = Field(None, description="file of ids, one a line")

    @field_validator("ids")
    @classmethod
    def _a_path(cls, path: str | None) -> str | None:
        return path if path is None else _path(path)


class Only(Data):
    """Which documents of XSUM each split has."""

    train: Subset = Subset()
    dev: Subset = Subset()
    test: Subset = Subset()


class DataSpec(Data):
    """Where examples come from."""

    format: names.Format = Field(
        description="; ".join(f"{name}: {known.what}" for name, known in names.FORMATS.items())
    )
    train: str | None = Field(
        None, description="training file; foreword/... names are bundled, hub:... the hub's"
    )
    dev: str | None = None
    test: str | None = None
    unlabelled: str | None = Field(
        None,
        description="file of inputs alone, for methods that learn from them; null: the training"
        " examples that `task.limits` leaves out",
    )
    hold_out: float | None = Field(
        None,
        gt=0,
        le=1e9,
        description="instead of `dev`: how many training examples are kept for it, or below 1 the"
        " share of them; chosen by the seed",
    )
    references: str = Field("references", description="column with the answer, or a list of them")
    label: str | None = Field(None, description="column with the class, where rows are classified")
    group: str | None = Field(None, description="column by which results are also reported apart")
    encoding: str = Field(
        "utf-8",
        description="encoding of text files, such as gb18030, big5 or utf-16; data of foreword/ and"
        " of the hub have their own",
    )
    words: Column = Field(1, description="conll: column with the words, from 1")
    tags: Column | None = Field(None, description="conll: column with the tags; default: last")
    only: Only | None = Field(None, description="xsum: which documents each split has")

    @field_validator("train", "dev", "test", "unlabelled")
    @classmethod
    def _a_path(cls, path: str | None) -> str | None:
        return path if path is None else _path(path)

    @field_validator("encoding")
    @classmethod
    def _an_encoding(cls, name: str) -> str:
        try:
            check_encoding(name)
        except DataError as error:
            raise ValueError(str(error).removeprefix("encoding: ")) from error
        return name

    @field_validator("hold_out")
    @classmethod
    def _a_number_or_a_share(cls, amount: float | None) -> float | None:
        if amount is not None and amount >= 1 and amount != int(amount):
            raise ValueError("expected a whole number, or a share below 1")
        return amount

    @model_validator(mode="after")
    def _rules(self) -> DataSpec:
        if self.hold_out is not None and self.dev is not None:
            raise ValueError("give either `dev` or `hold_out`")
        if self.only is not None and self.format != "xsum":
            raise ValueError("`only` is for `format: xsum`")
        if (self.words != 1 or self.tags is not None) and self.format != "conll":
            raise ValueError("`words` and `tags` are for `format: conll`")
        if self.label is not None and not names.FORMATS[self.format].table:
            raise ValueError(f"`label` is for the formats {', '.join(names.tables())}")
        return self

    @property
    def answer(self) -> names.Answer:
        """What the examples ask for."""
        return _asked_for(self.format, self.label)

    def options(self, split: Literal["train", "dev", "test"]) -> dict[str, Any]:
        """What `foreword.data.read_data` is told of a split, beside its path and format."""
        subset = getattr(self.only, split) if self.only is not None else Subset()
        columns = {name: getattr(self, name) for name in names.COLUMNS}
        return {
            **columns,
            "sections": subset.sections,
            "ids": subset.ids,
            "encoding": self.encoding,
        }


def _leaves_room(template: Any) -> bool:
    """Whether an input has a {mask}."""
    try:
        return isinstance(template, str) and Template.parse(template).mask is not None
    except TemplateError:
        return False


def _asked_for(format: Any, label: Any) -> names.Answer:
    known = names.FORMATS.get(format) if isinstance(format, str) else None
    asked = "text" if known is None else known.asks
    return "label" if asked == "text" and label is not None else asked


class Limits(Data):
    """How much of each file is used, from its beginning; `per_label` draws instead."""

    train: Some | None = Field(
        None,
        description="training pairs (references); beside `per_label`, most examples in all",
    )
    per_label: Some | None = Field(
        None,
        description="few-shot: so many training examples of each label, drawn by the seed",
    )
    dev: Some | None = Field(None, description="records")
    test: Some | None = Field(None, description="records")


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


class HeadSpec(Data):
    """The layer that reads a label, tags or a span off the backbone's states."""

    dropout: float = Field(0.1, ge=0, lt=1, description="on the states it reads, in training")
    hidden: int | None = Field(
        None, ge=1, le=65536, description="width of a layer with tanh before it; null: none"
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


class VerbalizerSpec(Data):
    """Which words of the backbone's vocabulary stand for the labels, and how they are read."""

    words: LabelWords = Field(
        min_length=2, description="label -> the word that stands for it, or several"
    )
    order: Literal["joint", "max-first"] = Field(
        "joint",
        description="how a masked model reads a word of several tokens: all masks at once, or the"
        " surest token first and then the others again",
    )
    calibration: Literal["none", "content-free", "examples"] = Field(
        "none",
        description="what tells how probable each label is before anything is read, which is then"
        " taken off: inputs without content (N/A), or the training inputs",
    )


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
    second: str | None = Field(
        None,
        min_length=1,
        description="template of a second text to classify with the first (a hypothesis)",
    )
    truncate: str | None = Field(
        None, description="field that is cut where an example is too long; without it: an error"
    )
    max_tokens: Tokens | None = Field(
        None,
        description="longest input, or of squad and conll the longest window of it, special tokens"
        " included; null: what the context holds",
    )
    labels: tuple[str, ...] | None = Field(
        None,
        min_length=2,
        description="all labels in their order; null: those of the training data",
    )
    head: HeadSpec = HeadSpec()
    verbalizer: VerbalizerSpec | None = Field(
        None, description="label words, read where the input leaves room, instead of a head"
    )
    stride: Tokens = Field(
        128,
        description="squad, conll: tokens that neighbouring windows of a long context, or of a long"
        " sentence, share (of a sentence at most half a window)",
    )
    longest_answer: Tokens = Field(30, description="squad: most tokens of an answer")
    metrics: tuple[names.Metric, ...] | None = Field(
        None, description="what is measured; null: what is usual for the kind of task"
    )

    @property
    def measured(self) -> tuple[str, ...]:
        """The metrics, the usual ones where none are named."""
        if self.metrics is not None:
            return self.metrics
        return names.DEFAULT_METRICS[self.answer]

    @property
    def answer(self) -> names.Answer:
        """What the task asks for: a pattern with a mask and no label asks for the missing word."""
        asked = self.data.answer
        return "word" if asked == "text" and any(t.mask for t in self.templates) else asked

    @property
    def has_head(self) -> bool:
        """Whether a trained layer answers."""
        return self.verbalizer is None and self.answer in ("label", "tags", "span")

    @property
    def templates(self) -> tuple[Template, ...]:
        """The texts of the input; none where they do not parse, or are messages."""
        texts = [text for text in (self.input, self.second) if isinstance(text, str)]
        try:
            return tuple(map(Template.parse, texts))
        except TemplateError:
            return ()

    @property
    def soft(self) -> int:
        """How many virtual tokens the input has slots for."""
        return sum(template.soft for template in self.templates)

    @model_validator(mode="after")
    def _rules(self) -> TaskSpec:
        answer = self.answer
        for metric in self.metrics or ():
            if names.METRICS[metric].of != answer:
                fitting = [name for name, known in names.METRICS.items() if known.of == answer]
                raise ValueError(
                    f"metric `{metric}` measures {names.ASKED[names.METRICS[metric].of]}, but this "
                    f"task asks for {names.ASKED[answer]}; choose among {', '.join(fitting)}"
                )
        if answer not in ("label", "tags") and self.labels is not None:
            raise ValueError("`labels` are for tasks with labels or tags")
        if answer not in ("label", "word") and self.second is not None:
            raise ValueError("`second` is for tasks with labels: give `data.label`")
        if self.limits.per_label is not None and answer != "label":
            raise ValueError("`limits.per_label` is for tasks with labels: give `data.label`")
        if self.head.pooler != "none" and answer != "label":
            raise ValueError("`head.pooler` is for tasks with labels: give `data.label`")
        self._check_verbalizer()
        return self

    def _check_verbalizer(self) -> None:
        masked = any(template.mask for template in self.templates)
        if self.data.answer in ("tags", "span") and (masked or self.soft):
            raise ValueError(
                f"`input` is not read for `format: {self.data.format}`, so it has no place for "
                "{soft} or {mask}; leave it out"
            )
        if self.verbalizer is None:
            if masked and self.answer == "label":
                raise ValueError(
                    "`input` has a {mask}, but nothing says which words stand for the labels; give "
                    "`verbalizer.words`, or leave {mask} out and a head answers"
                )
            return
        if self.answer != "label":
            raise ValueError("`verbalizer` is for tasks with labels: give `data.label`")
        if "head" in self.model_fields_set and self.head != HeadSpec():
            raise ValueError("give either `verbalizer` or `head`")
        if self.labels is not None and set(self.labels) != set(self.verbalizer.words):
            raise ValueError(
                f"`labels` are {', '.join(self.labels)}, but `verbalizer.words` has words for "
                f"{', '.join(self.verbalizer.words)}; name the same, or leave `labels` out"
            )


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


def types_rule(dtype: Any, precision: Any) -> str | None:
    """What is wrong with bfloat16 arithmetic on a backbone of this type, if anything."""
    if precision != "bfloat16" or dtype not in ("float16", "float64"):
        return None
    return (
        f"training.precision: `bfloat16` has no meaning on a backbone in {dtype}, whose arithmetic "
        "is its own; leave `precision` at float32, or give `backbone.dtype` float32 or bfloat16"
    )


def pooling_rule(pooling: Any, method: Any) -> str | None:
    """What is wrong with a head that reads a virtual token of this method, if anything."""
    known = METHODS.get(method) if isinstance(method, str) else None
    if pooling != "prompt" or known is None or known.enters.has_slots:
        return None
    return (
        f"task.head.pooling: `prompt` reads a virtual token in an encoder's input, where {method} "
        "has none; choose first, last or mean"
    )


def section_rules(data: Mapping[str, Any]) -> list[str]:
    """What is wrong between the sections of a recipe, whatever each is by itself."""

    def at(*keys: str) -> Any:
        here: Any = data
        for key in keys:
            here = here.get(key) if isinstance(here, Mapping) else None
        return here

    broken = [
        types_rule(at("backbone", "dtype"), at("training", "precision")),
        pooling_rule(at("task", "head", "pooling"), at("method", "name")),
    ]
    data_section = at("task", "data")
    unwatched = isinstance(data_section, Mapping) and not (
        data_section.get("dev") or data_section.get("hold_out")
    )
    watched = at("training", "best_by")
    if unwatched and watched not in (None, "loss"):
        broken.append(
            f"training.best_by: `{watched}` needs `task.data.dev` or `task.data.hold_out` to "
            "measure on"
        )
    elif isinstance(data_section, Mapping) and isinstance(watched, str):
        answer = _asked_for(data_section.get("format"), data_section.get("label"))
        inputs = at("task", "input"), at("task", "second")
        if answer == "text" and any(map(_leaves_room, inputs)):
            answer = "word"
        if watched in names.METRICS and names.METRICS[watched].of != answer:
            fitting = [name for name, known in names.METRICS.items() if known.of == answer]
            broken.append(
                f"training.best_by: `{watched}` measures {names.ASKED[names.METRICS[watched].of]}, "
                f"but this task asks for {names.ASKED[answer]}; choose among loss, "
                f"{', '.join(fitting)}"
            )
    if unwatched and at("training", "patience") is not None:
        broken.append("training.patience: needs `task.data.dev` or `task.data.hold_out` to watch")
    return [line for line in broken if line]


class TrainingSpec(Data):
    """How the prompt is trained."""

    epochs: float | None = Field(None, gt=0, le=1e6, description="passes over the data; or `steps`")
    steps: Some | None = Field(None, description="optimizer steps; or `epochs`")
    batch_size: Rows = Field(16, description="examples per forward pass, all processes")
    accumulation: Rows = Field(1, description="forward passes per optimizer step")
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
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the arithmetic")
    mlm_weight: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="of a loss on masked words of unlabelled inputs beside that on label words"
        " (PET's)",
    )
    mlm_batch_size: Rows = Field(12, description="unlabelled inputs in each step for it")
    gradient_checkpointing: bool = Field(
        False,
        description="compute each layer twice instead of keeping what it computes: less memory",
    )
    source_cache: float = Field(
        1.0,
        ge=0,
        le=1e6,
        description="an infix on a frozen backbone: most gigabytes for keys and values of sources,"
        " kept over all epochs; 0: none are kept",
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
    seed: Seed = 0

    @field_validator("backbone", mode="before", json_schema_input_type=BackboneSpec | str)
    @classmethod
    def _plain_backbone(cls, value: Any) -> Any:
        return _spell_out("backbone", value)

    @field_validator("method", mode="before", json_schema_input_type=MethodChoice | str)
    @classmethod
    def _plain_method(cls, value: Any, info: ValidationInfo) -> Any:
        value = _spell_out("method", value)
        if not isinstance(value, Mapping):
            return value
        spelt = {key: _spell_out(f"method.{key}", inner) for key, inner in value.items()}
        soft = task.soft if isinstance(task := info.data.get("task"), TaskSpec) else 0
        return {"length": soft, **spelt} if soft and _has_slots(spelt.get("name")) else spelt

    @field_validator("method")
    @classmethod
    def _teaches_labels(cls, method: MethodChoice, info: ValidationInfo) -> MethodChoice:
        task = info.data.get("task")
        if not isinstance(method, PET) or not isinstance(task, TaskSpec):
            return method
        if task.answer != "label" or task.verbalizer is not None:
            raise ValueError(
                "pet ends in a classifier with a head: give `task.data.label`, and the label words "
                "as `method.words` instead of `task.verbalizer`"
            )
        if task.labels is not None and set(task.labels) != set(method.labels):
            raise ValueError(
                f"`words` has words for {', '.join(method.labels)}, but `task.labels` are "
                f"{', '.join(task.labels)}; name the same, or leave `task.labels` out"
            )
        for pattern in method.patterns:
            try:
                parsed = [Template.parse(text) for text in pattern.texts]
            except TemplateError as error:
                raise ValueError(f"`patterns`: {error}") from error
            if sum(one.mask is not None for one in parsed) != 1 or any(one.soft for one in parsed):
                raise ValueError(
                    f"`patterns`: {str(pattern)!r} needs one {{mask}}, and takes no {{soft}} slots"
                )
        return method

    @field_validator("training")
    @classmethod
    def _masks_beside_words(cls, training: TrainingSpec, info: ValidationInfo) -> TrainingSpec:
        task = info.data.get("task")
        if training.mlm_weight and isinstance(task, TaskSpec) and task.verbalizer is None:
            raise ValueError(
                "`mlm_weight` is of a loss beside that on label words: give `task.verbalizer`, or "
                "leave it out"
            )
        return training

    @field_validator("training")
    @classmethod
    def _rates_of_what_moves(cls, training: TrainingSpec, info: ValidationInfo) -> TrainingSpec:
        task, method = info.data.get("task"), info.data.get("method")
        if training.head_learning_rate and isinstance(task, TaskSpec) and not task.has_head:
            raise ValueError(
                "`head_learning_rate` is of a head, but this task asks for "
                f"{names.ASKED[task.answer]} without one; leave it out"
            )
        still = isinstance(method, MethodOptions) and method.moves.kind == "none"
        if training.delta_learning_rate and still:
            raise ValueError(
                "`delta_learning_rate` is of the backbone's own weights, of which "
                f"{info.data['method'].name} moves none; leave it out, or name a method or "
                "`method.delta` that does"
            )
        return training

    @field_validator("method")
    @classmethod
    def _as_many_as_slots(cls, method: MethodChoice, info: ValidationInfo) -> MethodChoice:
        task = info.data.get("task")
        if not isinstance(task, TaskSpec) or not task.soft:
            return method
        if not _has_slots(method.name):
            raise ValueError(
                f"task.input has {{soft}} slots, but {method.name} puts no virtual tokens into the "
                "text; use p-tuning or prompt-tuning, or leave them out"
            )
        if method.length != task.soft:
            raise ValueError(
                f"`length` is {method.length}, but task.input has {task.soft} {{soft}} slots; "
                "leave `length` out"
            )
        if method.positions != "auto":
            raise ValueError(
                "`positions` has no meaning for virtual tokens inside the text; leave it out"
            )
        return method

    def to_yaml(self) -> str:
        """The whole recipe, every default written out."""
        return write_yaml(self.model_dump(mode="json"))


def _has_slots(method: Any) -> bool:
    """Whether a method's virtual tokens can stand in the text."""
    known = METHODS.get(method) if isinstance(method, str) else None
    return known is not None and known.enters.has_slots


def _spell_out(path: str, value: Any) -> Any:
    return {PLAIN[path]: value} if path in PLAIN and isinstance(value, str) else value


def _path(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError(f"expected a name or a path, found {text!r}")
    return text
