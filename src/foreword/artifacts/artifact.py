"""An artifact: a folder that holds one trained prompt and everything needed to use it again.

- `foreword.json`: what it is and where it comes from (`Manifest`);
- `prompt.safetensors`: the folded virtual tokens;
- `head.safetensors`: the head, where one reads the answer;
- `delta.safetensors`: the backbone's own weights that moved, where some did;
- `README.md`: a model card.

Nothing in it is executed, and nothing in it starts a download.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from foreword.artifacts.card import card, quantised_as, usage_of
from foreword.artifacts.manifest import (
    CARD,
    DELTA,
    FORMAT,
    HEAD,
    MANIFEST,
    TENSORS,
    BackboneId,
    Manifest,
    TokensId,
    read_manifest,
    versions,
)
from foreword.artifacts.stored import read_checked, read_parts
from foreword.axes.readout import Readout
from foreword.backbone import Backbone, load_backbone
from foreword.backbone.devices import DeviceMap
from foreword.backbone.weights.quantization import Quantization
from foreword.common import files
from foreword.errors import ArtifactError, BackboneError, RunError, argument
from foreword.methods import MethodChoice
from foreword.methods.axes import Table
from foreword.recipe import DecodingSpec, TaskId
from foreword.tasks import task_of
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose


def axes_of(model: TunedModel, trained_as: str) -> dict[str, Any]:
    """The point on the axes, as an artifact states it.

    `window`: where a backbone attends through a sliding window, its prompt is seen from everywhere
    (PEFT's slides out of it); one that stands in the input or between source and target ("own") is
    as near or far as any token.
    `cache`: "latents" where a backbone's own cache does not hold keys and values (DeepSeek-V2), or
    "shared" where it has none of layers that take those of others (Gemma 3n), so that a prefix
    enters through its attention alone.
    """
    place, geometry = model.placement, model.backbone.geometry
    window = "own" if place.kind == "infix" or place.columns else "seen"
    return {
        "reparameterization": {"trained_as": trained_as, "stored": "folded"},
        "injection": model.injection.kind,
        "placement": place.kind,
        "readout": model.readout.kind,
        "delta": model.delta.kind,
        **model.delta.stated(),
        "sites": list(model.injection.sites),
        "length": place.length,
        "positions": place.positions,
        **({"window": window} if geometry.slides else {}),
        **({} if geometry.caches_heads else {"cache": geometry.cache}),
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
    trained_parameters: int | None = None,
) -> Manifest:
    """Fold a model's prompt and write it as an artifact, in one move.

    Raises:
        UserError: the folder is there already and is not empty.
    """
    folded = model.fold()
    backbone, whole = model.backbone, (model.delta.origin or model.backbone).parameters
    parts: dict[str, dict[str, Tensor]] = {
        TENSORS: folded.injection.tensors(folded.reparam()),
        HEAD: dict(folded.readout.named_parameters()),
        DELTA: folded.delta.tensors(),
    }
    with files.new_folder(Path(folder)) as temporary:
        hashes: dict[str, str] = {}
        for name_of_part, tensors in parts.items():
            if tensors or name_of_part == TENSORS:
                file = temporary / name_of_part
                _write(folder, file, tensors)
                hashes[name_of_part] = files.sha256(file)
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
                kind=backbone.geometry.kind,
                attention=backbone.attention,
                quantization=None if backbone.quantization is None else {**backbone.quantization},
            ),
            data=data or {},
            recipe=recipe or {},
            seed=seed,
            trained_parameters=trained_parameters,
            trained_share=None if trained_parameters is None else trained_parameters / whole,
            metrics=metrics or {},
            versions=versions((backbone.quantization or {}).get("quant_method")),
            prompt_sha256=hashes[TENSORS],
            head_sha256=hashes.get(HEAD),
            delta_sha256=hashes.get(DELTA),
        )
        text = json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False)
        files.write_text(temporary / MANIFEST, text + "\n")
        bound_kind = task_of(task)
        usage = usage_of(bound_kind.verb, (*bound_kind.fields, *manifest.fields_beside))
        files.write_text(temporary / CARD, card(manifest, usage))
    return manifest


def _write(folder: Path | str, file: Path, tensors: dict[str, Tensor]) -> None:
    stored = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    try:
        save_file(stored, file, metadata={"format": "pt"})
    except SafetensorError as error:
        raise RunError(f"{folder}: cannot be written: {error}") from error
    file.chmod(0o644)


def load_model(
    folder: Path | str,
    *,
    backbone: Backbone | None = None,
    backbone_name: str | None = None,
    device: str = "cpu",
    dtype: str | None = None,
    quantization: Quantization | None = None,
    device_map: DeviceMap | None = None,
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
        quantization: how to quantise it instead of how it was trained with; {} for not at all.
        device_map: how to spread it over devices; see `load_backbone`.
        other_backbone: take a backbone with other weights all the same.
        download: let a hub name be downloaded.

    Raises:
        ArtifactError: the artifact is damaged, or the backbone's weights or tokenizer are others.
        BackboneError: the backbone cannot be loaded.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    parts = read_parts(folder, manifest)
    attention, trained_on = manifest.backbone.attention, manifest.backbone.quantization
    if backbone is None:
        try:
            backbone = load_backbone(
                backbone_name or manifest.backbone.name,
                revision=None if backbone_name else manifest.backbone.revision,
                dtype=dtype or manifest.backbone.dtype,  # type: ignore[arg-type]
                device=device,
                bos=manifest.tokens.bos,
                attention=None if attention == "own" else attention,
                quantization=trained_on if quantization is None else quantization,
                device_map=device_map,
                local_files_only=not download,
            )
        except BackboneError as error:
            if str(error).startswith("backbone.quantization"):
                raise BackboneError(
                    f"{folder}: {error}; {argument('--quantization none', '`quantization={}`')} "
                    "loads the backbone unquantised"
                ) from error
            if str(error).startswith(("backbone.", "device:")):
                raise BackboneError(f"{folder}: {error}") from error
            raise BackboneError(
                f"{folder}: {error}. If it lies elsewhere, name it with "
                f"{argument('--backbone')}; an artifact does not download by itself "
                f"({argument('--download', '`download=True`')} lets it)"
            ) from error
    backbone = backbone.with_bos(manifest.tokens.bos)
    if not other_backbone:
        _check_backbone(folder, manifest, backbone)
    if backbone.dtype != manifest.backbone.dtype:
        warnings.warn(
            f"{folder}: was trained on a backbone in {manifest.backbone.dtype}, here it is in "
            f"{backbone.dtype}; answers may differ",
            stacklevel=2,
        )
    if (backbone.quantization or None) != trained_on:
        warnings.warn(
            f"{folder}: was trained on a backbone {quantised_as(trained_on)}, here it is "
            f"{quantised_as(backbone.quantization)}; answers may differ",
            stacklevel=2,
        )
    # The stored tokens are folded: what made them in training is not built again.
    as_stored: dict[str, Any] = {"reparameterization": Table()}
    if manifest.axes.get("positions") in ("shift", "keep"):
        as_stored["positions"] = manifest.axes["positions"]
    task = task_of(manifest.task)
    readout, soft = task.readout(backbone), task.soft
    if soft and soft != manifest.method.length:
        raise ArtifactError(
            f"{folder / MANIFEST}: task.input has {soft} {{soft}} slots, but method.length is "
            f"{manifest.method.length}"
        )
    method = manifest.method.model_copy(update=as_stored)
    model = compose(backbone, method, readout, inside=soft > 0)
    model.delta.load(parts[DELTA])
    _fill(model.readout, parts[HEAD])
    named = model.injection.stored(parts[TENSORS], manifest.method.length)
    return manifest, model.with_tensors({n: t.to(backbone.device) for n, t in named.items()})


def _check_backbone(folder: Path, manifest: Manifest, backbone: Backbone) -> None:
    for what, trained, here in (
        ("weights", manifest.backbone.sha256, backbone.sha256),
        ("tokenizer", manifest.tokens.sha256, backbone.tokens.sha256),
    ):
        if trained != here:
            raise ArtifactError(
                f"{folder}: was trained on '{manifest.backbone.name}' whose {what} have sha256 "
                f"{trained[:12]}…, but those of '{backbone.name}' have {here[:12]}…. Name the "
                f"right backbone with {argument('--backbone')}, or take this one all the same with "
                f"{argument('--other-backbone', '`other_backbone=True`')}"
            )


def _fill(readout: Readout, tensors: dict[str, Tensor]) -> None:
    own = dict(readout.named_parameters())
    shapes = {name: tuple(parameter.shape) for name, parameter in own.items()}
    stored_shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != stored_shapes:
        raise ArtifactError(
            f"{HEAD}: this task and backbone need {shapes or 'no head'}, found "
            f"{str(stored_shapes or 'none')[:200]}"
        )
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            raise ArtifactError(f"{HEAD}: {name} must hold finite floating-point numbers")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])


def read_prior(folder: Path, manifest: Manifest) -> dict[str, float]:
    """How probable each label was before anything was read, where an artifact takes that off.

    Raises:
        ArtifactError: it is damaged.
    """
    if manifest.head_sha256 is None:
        return {}
    logs = read_checked(folder / HEAD, manifest.head_sha256).get("prior")
    shares = [] if logs is None else logs.flatten().exp().tolist()
    return dict(zip(manifest.task.labels, shares, strict=False))
