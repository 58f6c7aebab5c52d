"""An artifact: a folder that holds one trained prompt and everything needed to use it again.

- `foreword.json`: what it is and where it comes from (`Manifest`);
- `prompt.safetensors`: the folded virtual tokens;
- `README.md`: a model card.

Nothing in it is executed, and nothing in it starts a download.
"""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from foreword import files
from foreword.backbone import Backbone, load_backbone
from foreword.errors import ArtifactError, BackboneError
from foreword.methods import METHODS, MethodChoice
from foreword.recipe import DecodingSpec
from foreword.tuned import TunedModel, compose

FORMAT = "1.0"
MANIFEST, TENSORS, CARD = "foreword.json", "prompt.safetensors", "README.md"


class _Part(BaseModel):
    """Frozen; names that a later minor version added are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class BackboneId(_Part):
    """Which backbone a prompt was trained on."""

    name: str
    revision: str | None = None
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    dtype: Literal["float32", "bfloat16", "float16", "float64"]
    family: str


class TokensId(_Part):
    """By which rule text became tokens."""

    bos: Literal["auto", "always", "never"]
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class TaskId(_Part):
    """How an example becomes input, and how data of this task is read and measured."""

    input: str
    target: str
    truncate: str | None = None
    format: Literal["jsonl", "csv", "tsv", "parquet", "e2e"] = "jsonl"
    references: str = "references"
    group: str | None = None
    metrics: tuple[Literal["bleu", "chrf", "ter", "slot_coverage"], ...] = ()


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
    data: dict[str, Any] = {}
    recipe: dict[str, Any] = {}
    seed: int = 0
    metrics: dict[str, Any] = {}
    versions: dict[str, str] = {}
    prompt_sha256: str = Field(pattern="^[0-9a-f]{64}$")


def axes_of(model: TunedModel, trained_as: str) -> dict[str, Any]:
    """The point on the axes, as an artifact states it."""
    return {
        "reparameterization": {"trained_as": trained_as, "stored": "folded"},
        "injection": type(model.injection).__name__,
        "placement": type(model.placement).__name__,
        "readout": type(model.readout).__name__,
        "delta": type(model.delta).__name__,
        "length": model.placement.length,
        "positions": model.placement.positions,
    }


def save_artifact(
    folder: Path | str,
    model: TunedModel,
    *,
    name: str,
    method: MethodChoice,
    task: TaskId,
    decoding: DecodingSpec | None = None,
    data: dict[str, Any] | None = None,
    recipe: dict[str, Any] | None = None,
    seed: int = 0,
    metrics: dict[str, Any] | None = None,
) -> Manifest:
    """Fold a model's prompt and write it as an artifact, in one move.

    Raises:
        UserError: the folder is there already and is not empty.
    """
    folded = model.fold()
    backbone = model.backbone
    tensors = {
        key: value.detach().cpu().contiguous()
        for key, value in folded.injection.tensors(folded.reparam()).items()
    }
    with files.new_folder(Path(folder)) as temporary:
        save_file(tensors, temporary / TENSORS, metadata={"format": "pt"})
        manifest = Manifest(
            format=FORMAT,
            name=name,
            method=method,
            axes=axes_of(model, method.reparameterization.kind),
            task=task,
            decoding=decoding or DecodingSpec(),
            tokens=TokensId(bos=backbone.tokens.bos, sha256=backbone.tokens.sha256),
            backbone=BackboneId(
                name=backbone.name,
                revision=backbone.revision,
                sha256=backbone.sha256,
                dtype=backbone.dtype,
                family=backbone.model.config.model_type,
            ),
            data=data or {},
            recipe=recipe or {},
            seed=seed,
            metrics=metrics or {},
            versions=versions(),
            prompt_sha256=files.sha256(temporary / TENSORS),
        )
        text = json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False)
        files.write_text(temporary / MANIFEST, text + "\n")
        files.write_text(temporary / CARD, card(manifest))
    return manifest


def read_manifest(folder: Path | str) -> Manifest:
    """Read `foreword.json` alone.

    Raises:
        ArtifactError: it is missing, damaged, or of a later major version.
    """
    file = Path(folder) / MANIFEST
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{folder}: is no artifact, it has no {MANIFEST}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{file}: cannot be read as JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ArtifactError(f"{file}: expected an object, found {type(raw).__name__}")
    stated = raw.get("format")
    if isinstance(stated, str) and stated.split(".")[0] != FORMAT.split(".")[0]:
        raise ArtifactError(
            f"{file}: format {stated!r} is not known, this foreword reads {FORMAT.split('.')[0]}.x;"
            " use the foreword that wrote it"
        )
    try:
        return Manifest.model_validate(raw)
    except ValidationError as error:
        lines = [
            f"  - {'.'.join(map(str, item['loc']))}: {item['msg'][0].lower()}{item['msg'][1:]}"
            for item in error.errors()
        ]
        raise ArtifactError("\n".join([f"{file}: is damaged:", *lines])) from error


def load_model(
    folder: Path | str,
    *,
    backbone: Backbone | None = None,
    backbone_name: str | None = None,
    device: str = "cpu",
    dtype: str | None = None,
    other_backbone: bool = False,
    download: bool = False,
) -> tuple[Manifest, TunedModel]:
    """Read an artifact and put its prompt on its backbone.

    Args:
        folder: the artifact.
        backbone: one that is loaded already.
        backbone_name: where to load it from instead of the name in the artifact.
        device: where to load it to.
        dtype: what to cast the backbone to instead of the type trained with.
        other_backbone: take a backbone with other weights all the same.
        download: let a hub name be downloaded.

    Raises:
        ArtifactError: the artifact is damaged, or the backbone's weights or tokenizer are others.
        BackboneError: the backbone cannot be loaded.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    tensors = _read_tensors(folder / TENSORS, manifest)
    if backbone is None:
        try:
            backbone = load_backbone(
                backbone_name or manifest.backbone.name,
                revision=None if backbone_name else manifest.backbone.revision,
                dtype=dtype or manifest.backbone.dtype,  # type: ignore[arg-type]
                device=device,
                bos=manifest.tokens.bos,
                local_files_only=not download,
            )
        except BackboneError as error:
            raise BackboneError(
                f"{folder}: {error}. If it lies elsewhere, name it with --backbone; an artifact "
                "does not download by itself (--download lets it)"
            ) from error
    if not other_backbone:
        _check_backbone(folder, manifest, backbone)
    model = compose(backbone, manifest.method)
    rows = model.injection.rows(tensors, manifest.method.length)
    return manifest, model.with_rows(rows.to(backbone.device))


def _check_backbone(folder: Path, manifest: Manifest, backbone: Backbone) -> None:
    for what, trained, found in (
        ("weights", manifest.backbone.sha256, backbone.sha256),
        ("tokenizer", manifest.tokens.sha256, backbone.tokens.sha256),
    ):
        if trained != found:
            raise ArtifactError(
                f"{folder}: was trained on '{manifest.backbone.name}' whose {what} have sha256 "
                f"{trained[:12]}…, but those of '{backbone.name}' have {found[:12]}…. Name the "
                "right backbone with --backbone, or take this one all the same with "
                "--other-backbone"
            )


def _read_tensors(file: Path, manifest: Manifest) -> dict[str, Tensor]:
    try:
        found = files.sha256(file)
        if found != manifest.prompt_sha256:
            raise ArtifactError(
                f"{file}: is damaged: its sha256 is {found[:12]}…, {MANIFEST} says "
                f"{manifest.prompt_sha256[:12]}…"
            )
        return load_file(file)
    except (OSError, SafetensorError, ValueError, KeyError, OverflowError) as error:
        raise ArtifactError(f"{file}: cannot be read: {error}") from error


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {"python": platform.python_version()}
    for package in ("foreword", "torch", "transformers", "accelerate", "tokenizers", "safetensors"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def size_in_bytes(folder: Path | str) -> int:
    """What an artifact's files take."""
    return sum(file.stat().st_size for file in Path(folder).iterdir() if file.is_file())


def card(manifest: Manifest) -> str:
    """The model card."""
    scores = manifest.metrics.get("all", {})
    measured = "\n".join(
        f"| {name} | {value:.2f} |" for name, value in scores.items() if value is not None
    )
    table = f"| metric | value |\n|---|---|\n{measured}\n" if measured else "Not measured.\n"
    method = manifest.method
    return f"""# {manifest.name}

A prompt for the frozen backbone `{manifest.backbone.name}` ({manifest.backbone.family}), trained
with {method.name} ({METHODS[method.name].paper}): {method.length} virtual tokens.

- Input: `{manifest.task.input!r}`
- Backbone sha256: `{manifest.backbone.sha256}`
- Seed: {manifest.seed}

```
foreword generate {manifest.name} --text "..."
```

{table}
Made by foreword {manifest.versions.get("foreword", "unknown")}. The backbone's licence applies to
it; the licence of the training data may apply to this prompt.
"""
