"""A run as data: one YAML file, typed and frozen, all of its mistakes reported at once. No torch.

Precedence: the method's defaults < the recipe < `--set key.path=value`. Paths are relative to the
recipe's folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from foreword.errors import RecipeError, did_you_mean
from foreword.methods import METHODS, MethodChoice
from foreword.methods.axes import Data

VERSION = 1


class BackboneSpec(Data):
    """Which backbone, and how it is loaded. A plain string is its name."""

    name: str = Field(min_length=1, description="foreword/... name, folder or hub name")
    revision: str | None = Field(None, description="branch, tag or commit of a hub name")
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "float32"
    bos: Literal["auto", "always", "never"] = Field(
        "auto", description="beginning token before the source: as the tokenizer does, or not"
    )


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


class Limits(Data):
    """How much of each file is used, from its beginning."""

    train: int | None = Field(None, ge=1, description="training pairs (references)")
    dev: int | None = Field(None, ge=1, description="records")
    test: int | None = Field(None, ge=1, description="records")


class TaskSpec(Data):
    """What goes in, what comes out, how it is measured."""

    data: DataSpec
    input: str = Field("{record}\n", description="template of the source, with {field} slots")
    target: str = Field("{reference}", description="template of the target")
    limits: Limits = Limits()
    truncate: str | None = Field(
        None, description="field that is cut where an example is too long; without it: an error"
    )
    metrics: tuple[Literal["bleu", "chrf", "ter", "slot_coverage"], ...] = (
        "bleu",
        "chrf",
        "ter",
        "slot_coverage",
    )


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
    tracker: Literal["none", "tensorboard", "wandb", "mlflow"] = "none"

    @field_validator("betas")
    @classmethod
    def _betas_below_one(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError("both must be at least 0 and below 1")
        return betas

    @model_validator(mode="after")
    def _one_length(self) -> TrainingSpec:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either `epochs` or `steps`")
        if self.patience is not None and (self.evaluate_every is None or self.best_by is None):
            raise ValueError("`patience` needs `evaluate_every` and `best_by`")
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
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    backbone: BackboneSpec
    task: TaskSpec
    method: MethodChoice
    training: TrainingSpec = TrainingSpec(steps=1000)
    decoding: DecodingSpec = DecodingSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    seed: int = Field(0, ge=0, lt=2**32)

    @field_validator("backbone", mode="before")
    @classmethod
    def _plain_backbone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("method", mode="before")
    @classmethod
    def _plain_method(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    def to_yaml(self) -> str:
        """The whole recipe, every default written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def load_recipe(file: Path | str, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe from YAML.

    Args:
        file: the YAML file.
        overrides: `key.path=value` strings, whose values are read as YAML.

    Raises:
        RecipeError: everything that is wrong with it.
    """
    file = Path(file)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RecipeError(str(file), ["no such file; give the path of a YAML recipe"]) from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(str(file), [f"cannot be read as UTF-8 text: {error}"]) from error
    try:
        raw = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        what = " ".join(str(error).split())
        raise RecipeError(str(file), [f"is not valid YAML: {what}"]) from error
    return parse_recipe(raw, overrides, where=str(file), folder=file.parent)


def parse_recipe(
    raw: Any, overrides: Iterable[str] = (), *, where: str = "recipe", folder: Path | None = None
) -> Recipe:
    """Check a recipe given as plain data; the arguments are those of `load_recipe`."""
    if not isinstance(raw, Mapping):
        raise RecipeError(where, [f"must be a mapping of sections, found {_kind(raw)}"])
    data = _copy(raw)
    problems = [line for item in overrides if (line := _override(data, item))]
    if problems:
        raise RecipeError(where, problems)
    given = data.get("version")
    if isinstance(given, int) and given != VERSION:
        raise RecipeError(
            where, [f"version: {given} is not known here, this foreword reads version {VERSION}"]
        )
    _apply_defaults(data)
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError(where, [_explain(item) for item in error.errors()]) from error
    return recipe if folder is None else _resolve(recipe, folder)


def recipe_schema() -> dict[str, Any]:
    """JSON Schema of a recipe."""
    return Recipe.model_json_schema()


class _Loader(yaml.SafeLoader):
    """YAML without duplicate keys, and with 1e-3 as the number that it is."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is not a text", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{key}' stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _scientific() -> None:
    import re

    _Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
        list("-+0123456789."),
    )


_scientific()


def _override(data: dict[str, Any], item: str) -> str | None:
    path, equals, text = item.partition("=")
    keys = path.split(".")
    if not equals or not all(keys):
        return f"--set {item}: expected key.path=value, such as training.steps=100"
    try:
        value = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return f"--set {item}: the value is not valid YAML"
    here = data
    for key in keys[:-1]:
        inner = here.get(key)
        if isinstance(inner, str) and key in ("backbone", "method"):
            inner = {"name": inner}
        if inner is None:
            inner = {}
        if not isinstance(inner, dict):
            return f"--set {item}: '{key}' is {_kind(inner)}, so it has nothing named below it"
        here[key] = inner
        here = inner
    here[keys[-1]] = value
    if path in ("training.steps", "training.epochs"):
        here.pop("epochs" if keys[-1] == "steps" else "steps", None)
    return None


def _apply_defaults(data: dict[str, Any]) -> None:
    method = data.get("method")
    name = method.get("name") if isinstance(method, dict) else method
    options = METHODS.get(name) if isinstance(name, str) else None
    training = data.get("training", {})
    if options is None or not isinstance(training, dict):
        return
    defaults = dict(options.training_defaults)
    if training.get("steps") is not None:
        defaults.pop("epochs", None)
    data["training"] = {**defaults, **training}
    if not data["training"]:
        del data["training"]


def _explain(error: Any) -> str:
    location = [str(part) for part in error["loc"]]
    path = ".".join(_without_tags(location)) or "recipe"
    kind, value = error["type"], error.get("input")
    if kind == "extra_forbidden":
        known = _known_names(location[:-1])
        return f"{path}: no such name{did_you_mean(location[-1], known)}"
    if kind == "missing":
        return f"{path}: is missing"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        expected = error["ctx"].get("expected_tags", "")
        tag = error["ctx"].get("tag")
        names = [name.strip(" '") for name in expected.split(",") if name.strip(" '")]
        key = error["ctx"]["discriminator"].strip("'")
        if tag is None:
            what = f", found {_show(value)}" if not isinstance(value, Mapping) else ""
            return f"{path}: needs a mapping with `{key}`{what}{did_you_mean('', names)}"
        return f"{path}.{key}: '{tag}' is not known{did_you_mean(str(tag), names)}"
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if kind == "literal_error" and isinstance(value, str):
        names = [
            name.strip(" '") for name in error["ctx"]["expected"].replace(" or ", ",").split(",")
        ]
        return f"{path}: '{value}' is not known{did_you_mean(value, names)}"
    shown = "" if isinstance(value, (Mapping, BaseModel)) else f"{_show(value)}: "
    return f"{path}: {shown}{message}"


_TAGS = {"table", "mlp", "random", "activations", *METHODS}


def _without_tags(location: list[str]) -> list[str]:
    """pydantic puts the tag of a union's member into the path; a user's file has none."""
    return [part for i, part in enumerate(location) if i == 0 or part not in _TAGS]


def _known_names(location: list[str]) -> list[str]:
    schema = recipe_schema()
    node = schema
    for part in location:
        node = _follow(schema, node, part)
    return list(_expand(schema, node).get("properties", {}))


def _follow(schema: dict[str, Any], node: dict[str, Any], part: str) -> dict[str, Any]:
    node = _expand(schema, node)
    if part in node.get("properties", {}):
        found: dict[str, Any] = node["properties"][part]
        return found
    mapping = node.get("discriminator", {}).get("mapping", {})
    return {"$ref": mapping[part]} if part in mapping else {}


def _expand(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
    return node


def _resolve(recipe: Recipe, folder: Path) -> Recipe:
    data = recipe.task.data
    paths = {
        split: _resolve_path(path, folder)
        for split in ("train", "dev", "test")
        if (path := getattr(data, split)) is not None
    }
    name = recipe.backbone.name
    if name.startswith((".", "~")) and not name.startswith("foreword/"):
        backbone = recipe.backbone.model_copy(update={"name": _resolve_path(name, folder)})
        recipe = recipe.model_copy(update={"backbone": backbone})
    task = recipe.task.model_copy(update={"data": data.model_copy(update=paths)})
    return recipe.model_copy(update={"task": task})


def _resolve_path(path: str, folder: Path) -> str:
    if path.startswith("foreword/"):
        return path
    return str((folder / Path(path).expanduser()).resolve())


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value


def _kind(value: Any) -> str:
    names = {type(None): "nothing", str: "a text", bool: "yes/no", list: "a list"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else "a value")


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
