"""What an artifact says of itself: `foreword.json`, and its size. No torch."""

from __future__ import annotations

import os
import platform
import re
import stat
from copy import deepcopy
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from foreword.common import opening
from foreword.common.bounds import Figure, Numbers, Seed
from foreword.common.json_text import parse_json
from foreword.common.run_files import holds_run, how_to_go_on, is_finished
from foreword.errors import ArtifactError, argument
from foreword.methods import MethodChoice
from foreword.recipe import DecodingSpec, TaskId
from foreword.recipe.problems import explain
from foreword.recipe.settled import Part

FORMAT = "1.1"
MANIFEST, TENSORS, CARD = "foreword.json", "prompt.safetensors", "README.md"
HEAD, DELTA = "head.safetensors", "delta.safetensors"
TEACHER = "teacher"
"""Among the metrics of a prompt that learned a text: the KL divergence from the backbone with the
text, in nats per token, of what was put before the same rows; the names are those of a run's
figures."""


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


class BackboneId(Part):
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


class TokensId(Part):
    """By which rule text became tokens."""

    bos: Literal["auto", "always", "never"]
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(Part):
    """The content of `foreword.json`."""

    format: str = Field(pattern=r"^\d+\.\d+$")
    name: str
    method: MethodChoice
    axes: dict[str, Any]
    task: TaskId
    decoding: DecodingSpec
    tokens: TokensId
    backbone: BackboneId
    data: dict[str, dict[str, Any]] = Field(default_factory=dict)
    recipe: dict[str, Any] = Field(default_factory=dict)
    seed: Seed = 0
    trained_parameters: Numbers | None = None
    trained_share: Annotated[float, Field(ge=0, le=1e9)] | None = None
    metrics: dict[str, dict[str, Figure | None]] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    prompt_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    head_sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    delta_sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")

    @property
    def fields_beside(self) -> tuple[str, ...]:
        """Fields of a row that are read beside the task's: what chooses among several prompts."""
        choice = self.method.choice
        return () if choice is None else (choice.field,)

    def inputs(self) -> tuple[str, ...] | None:
        """All fields of a row that are read; None where words, or a context, are."""
        inputs = self.task.inputs()
        return None if inputs is None else tuple(dict.fromkeys((*inputs, *self.fields_beside)))

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
            plus = "+" in str(folder)
            mend = "; `foreword compose` writes a folder of prompts put together" if plus else ""
            raise ArtifactError(
                f"{folder}: is no artifact, there is no such folder{mend}"
            ) from error
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
    numbers = [int(number) for number in stated.split(".")]
    return numbers[0] == major and numbers[1] > minor


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
    by_package = {"python": platform.python_version()}
    packages = ["foreword", "torch", "transformers", "accelerate", "tokenizers", "safetensors"]
    if quantised_by is not None and find_spec(quantised_by) is not None:
        packages.append(quantised_by)
    for package in packages:
        try:
            by_package[package] = version(package)
        except PackageNotFoundError:
            by_package[package] = "unknown"
    return by_package


def size_in_bytes(folder: Path | str) -> int:
    """What the regular files of an artifact take."""
    states = (file.lstat() for file in Path(folder).iterdir())
    return sum(one.st_size for one in states if stat.S_ISREG(one.st_mode))


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
