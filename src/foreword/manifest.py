"""What an artifact says of itself: `foreword.json`, its sizes and its model card. No torch."""

from __future__ import annotations

import os
import platform
import re
import stat
from collections.abc import Mapping
from copy import deepcopy
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from foreword import names, opening
from foreword.bounds import Column, Figure, Numbers, Seed, Tokens
from foreword.errors import ArtifactError, argument
from foreword.json_text import parse_json
from foreword.methods import METHODS, MethodChoice
from foreword.recipe import (
    DecodingSpec,
    HeadSpec,
    InputSpec,
    TaskSpec,
    VerbalizerSpec,
    written_input,
)
from foreword.recipe.problems import explain
from foreword.run_files import holds_run, how_to_go_on, is_finished
from foreword.templates import fields_asked

FORMAT = "1.1"
MANIFEST, TENSORS, CARD = "foreword.json", "prompt.safetensors", "README.md"
HEAD, DELTA = "head.safetensors", "delta.safetensors"


CLASSES_OF_1_0 = {
    "KeysValues": "keys_values",
    "Embeddings": "embeddings",
    "Text": "text",
    "Prefix": "prefix",
    "Infix": "infix",
    "InText": "in_text",
    "Generation": "generation",
    "SequenceHead": "sequence_head",
    "TokenHead": "token_head",
    "SpanHead": "span_head",
    "Verbalizer": "verbalizer",
    "AnyWord": "any_word",
    "Frozen": "none",
    "Full": "full",
    "Top": "top",
    "BitFit": "bitfit",
    "Adapter": "adapter",
    "LoRA": "lora",
}
"""What format 1.0 called choices on the axes -> their names since."""


class _Part(BaseModel):
    """Frozen; names that a later minor version added are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class BackboneId(_Part):
    """Which backbone a prompt was trained on.

    `sha256` is of the checkpoint as it is stored; what it was cast to, and how it was quantised,
    stand apart.
    """

    name: str
    revision: str | None = None
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    dtype: Literal["float32", "bfloat16", "float16", "float64"]
    family: str
    kind: Literal["decoder", "encoder", "encoder-decoder"] = "decoder"
    attention: Literal["sdpa", "eager", "flex", "own"] | None = None
    quantization: dict[str, Any] | None = None


class TokensId(_Part):
    """By which rule text became tokens."""

    bos: Literal["auto", "always", "never"]
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class TaskId(_Part):
    """How an example becomes input, and how data of this task is read and measured."""

    input: InputSpec
    target: str
    truncate: str | None = None
    second: str | None = None
    answer: names.Answer = "text"
    labels: tuple[str, ...] = ()
    head: HeadSpec = HeadSpec()
    verbalizer: VerbalizerSpec | None = None
    max_tokens: Tokens | None = None
    stride: Tokens = 128
    longest_answer: Tokens = 30
    may_be_none: bool = False
    tells_apart: bool = True
    format: names.Format = "jsonl"
    references: str = "references"
    label: str | None = None
    words: Column = 1
    tags: Column | None = None
    group: str | None = None
    metrics: tuple[names.Metric, ...] = ()

    @classmethod
    def of(cls, spec: TaskSpec, **settled: Any) -> TaskId:
        """The task of a recipe.

        Args:
            spec: the recipe's section.
            settled: fields that the recipe leaves to its data, by name: the labels, whether a
                question may have no answer, an input with demonstrations.
        """
        stated = {
            name: getattr(section, name)
            for section in (spec, spec.data)
            for name in type(section).model_fields
            if name in cls.model_fields
        }
        return cls(**{**stated, "answer": spec.answer, "metrics": spec.measured, **settled})

    @property
    def has_head(self) -> bool:
        """Whether a trained layer answers."""
        return self.verbalizer is None and self.answer in ("label", "tags", "span")

    def columns(self) -> dict[str, Any]:
        """What `foreword.data.read_data` is told of a file, beside its path and format."""
        return {name: getattr(self, name) for name in names.COLUMNS}

    def inputs(self) -> tuple[str, ...] | None:
        """The fields that the templates name; None where words, or a context, are what is read."""
        if self.answer in ("tags", "span"):
            return None
        return fields_asked(written_input(self.input), self.second, self.target)


class Manifest(_Part):
    """The content of `foreword.json`."""

    format: str = Field(pattern=r"^\d+\.\d+$")
    name: str
    method: MethodChoice
    axes: dict[str, Any]
    task: TaskId
    decoding: DecodingSpec
    tokens: TokensId
    backbone: BackboneId
    data: dict[str, dict[str, Any]] = {}
    recipe: dict[str, Any] = {}
    seed: Seed = 0
    trained_parameters: Numbers | None = None
    trained_share: Annotated[float, Field(ge=0, le=1e9)] | None = None
    metrics: dict[str, dict[str, Figure | None]] = {}
    versions: dict[str, str] = {}
    prompt_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    head_sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    delta_sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")

    @field_validator("axes")
    @classmethod
    def _names_since_1_1(cls, axes: dict[str, Any]) -> dict[str, Any]:
        return {
            axis: CLASSES_OF_1_0.get(name, name) if isinstance(name, str) else name
            for axis, name in axes.items()
        }


def read_manifest(folder: Path | str) -> Manifest:
    """Read `foreword.json` alone.

    Raises:
        ArtifactError: it is missing, damaged, no regular file of its folder, or of a later major
            version.
    """
    file = Path(folder) / MANIFEST
    try:
        raw = parse_json(opening.read_text(file, within=file.parent))
    except FileNotFoundError as error:
        if not Path(folder).exists():
            raise ArtifactError(f"{folder}: is no artifact, there is no such folder") from error
        if holds_run(Path(folder)) and not is_finished(Path(folder)):
            raise ArtifactError(
                f"{folder}: holds a run that has not ended, and so no artifact yet; "
                f"{how_to_go_on(Path(folder))} goes on with the run"
            ) from error
        raise ArtifactError(f"{folder}: is no artifact, it has no {MANIFEST}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ArtifactError(f"{file}: cannot be read as JSON: {reason}") from error
    if not isinstance(raw, dict):
        raise ArtifactError(f"{file}: expected an object, found {type(raw).__name__}")
    stated = raw.get("format")
    if isinstance(stated, str) and stated.split(".")[0] != FORMAT.split(".")[0]:
        raise ArtifactError(
            f"{file}: format {stated!r} is not known, this foreword reads {FORMAT.split('.')[0]}.x;"
            " use the foreword that wrote it"
        )
    try:
        return _validated(raw)
    except ValidationError as error:
        lines = [f"  - {line}" for line in explain(error, Manifest, root=MANIFEST)]
        unknown = {"union_tag_invalid", "literal_error"} >= {one["type"] for one in error.errors()}
        wrong = (
            "names what is not known here; where that is an extension's, install its package, or "
            f"load its file with {argument('--plugin', '`foreword.extensions.load_plugin`')}"
            if unknown
            else "is damaged"
        )
        raise ArtifactError("\n".join([f"{file}: {wrong}:", *lines])) from error


def _validated(raw: dict[str, Any]) -> Manifest:
    """A manifest from plain data; of a later minor version without the names that it added."""
    try:
        return Manifest.model_validate(raw)
    except ValidationError as error:
        added = [one["loc"] for one in error.errors() if one["type"] == "extra_forbidden"]
        if not added or not _is_later(raw.get("format")):
            raise
        known = deepcopy(raw)
        for place in added:
            _drop(known, place)
        return Manifest.model_validate(known)


def _is_later(stated: Any) -> bool:
    """Whether a format is of this major version, and of a later minor one."""
    if not isinstance(stated, str) or not re.fullmatch(r"\d{1,9}\.\d{1,9}", stated):
        return False
    major, minor = map(int, FORMAT.split("."))
    said = [int(number) for number in stated.split(".")]
    return said[0] == major and said[1] > minor


def _drop(node: Any, place: tuple[int | str, ...]) -> bool:
    """Remove what stands at pydantic's place of a mistake; a union's tag there is no key."""
    first, rest = place[0], place[1:]
    here = isinstance(node, dict) and first in node
    here = here or (isinstance(node, list) and isinstance(first, int) and first < len(node))
    if not rest:
        if isinstance(node, dict) and here:
            del node[first]
        return here
    return (here and _drop(node[first], rest)) or _drop(node, rest)


def versions(quantised_by: str | None = None) -> dict[str, str]:
    """Versions of what a result depends on, what quantised its backbone included."""
    found = {"python": platform.python_version()}
    packages = ["foreword", "torch", "transformers", "accelerate", "tokenizers", "safetensors"]
    if quantised_by is not None and find_spec(quantised_by) is not None:
        packages.append(quantised_by)
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def quantised_as(quantization: Mapping[str, Any] | None) -> str:
    """How a backbone is quantised, in words."""
    if not quantization:
        return "not quantised"
    options = [f"{k}={v}" for k, v in quantization.items() if k != "quant_method"]
    return f"quantised by {' '.join([str(quantization.get('quant_method')), *options])}"


def size_in_bytes(folder: Path | str) -> int:
    """What the regular files of an artifact take."""
    found = (file.lstat() for file in Path(folder).iterdir())
    return sum(one.st_size for one in found if stat.S_ISREG(one.st_mode))


def card(manifest: Manifest, usage: str) -> str:
    """The model card.

    Args:
        manifest: what the artifact says of itself.
        usage: a command that asks it.
    """
    scores = manifest.metrics.get("all", {})
    measured = "\n".join(
        f"| {name} | {value:.2f} |" for name, value in scores.items() if value is not None
    )
    table = f"| metric | value |\n|---|---|\n{measured}\n" if measured else "Not measured.\n"
    method, moves = manifest.method, manifest.method.moves.kind
    what = "A prompt for the frozen backbone" if moves == "none" else "A change to the backbone"
    parts = [f"{method.length} virtual tokens"] if method.length else []
    parts += [f"{moves} of its weights"] if moves != "none" else []
    return f"""# {manifest.name}

{what} `{manifest.backbone.name}` ({manifest.backbone.family}), trained with {method.name}
({METHODS[method.name].paper}): {" and ".join(parts) or "nothing but a head"}{_trained(manifest)}.

- Input: `{written_input(manifest.task.input)!r}`
- Backbone sha256: `{manifest.backbone.sha256}`
- Seed: {manifest.seed}

```
{usage}
```

{table}
Made by foreword {manifest.versions.get("foreword", "unknown")}. The backbone's licence applies to
it; the licence of the training data may apply to this prompt.
"""


def _trained(manifest: Manifest) -> str:
    trained = said_of_trained(manifest.trained_parameters, manifest.trained_share)
    return f", {trained}" if trained else ""


def said_of_trained(parameters: int | None, share: float | None) -> str:
    """How much was trained, in words; nothing where that is not known."""
    if parameters is None:
        return ""
    of = "" if share is None else f" ({percent(share)} of the backbone's)"
    return f"{parameters:,} parameters{of}"


def percent(share: float) -> str:
    """A share with as many digits as tell it from nothing."""
    return f"{100 * share:.3g} %" if share < 0.9995 else f"{100 * share:.0f} %"


def artifact_folder(folder: Path | str) -> Path:
    """A run folder stands for the artifact inside it.

    Raises:
        ArtifactError: that is a link out of the run folder.
    """
    folder = Path(folder)
    inside = folder / "artifact"
    if os.path.lexists(folder / MANIFEST) or not inside.is_dir():
        return folder
    try:
        opening.check_inside(inside, folder)
    except OSError as error:
        raise ArtifactError(f"{inside}: {error.strerror}") from error
    return inside
