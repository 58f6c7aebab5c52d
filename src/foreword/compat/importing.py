"""From PEFT's folder to an artifact: `foreword import peft`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

from foreword.artifacts.artifact import save_artifact
from foreword.artifacts.manifest import Manifest
from foreword.axes.readout import Head
from foreword.backbone import Backbone, load_backbone
from foreword.backbone.weights.quantization import Quantization
from foreword.common import files
from foreword.common.run_files import refuse_unwritable
from foreword.compat.adapter import CONFIG, WEIGHTS, Adapter
from foreword.compat.adapter_head import AdapterHead
from foreword.compat.heads import read_head
from foreword.compat.reading import read_adapter
from foreword.errors import (
    ArtifactError,
    BackboneError,
    TemplateError,
    UserError,
    argument,
    refuse_single,
)
from foreword.methods import MethodChoice
from foreword.recipe import TaskId
from foreword.tasks import task_of
from foreword.tasks.text import Templates
from foreword.templates import MaskSlot, Template
from foreword.templates.template import SoftSlot, excerpt, shown
from foreword.tuned import TunedModel

KINDS = {"CAUSAL_LM": "decoder", "SEQ_2_SEQ_LM": "encoder-decoder"}
"""Task type -> the kind of backbone that writes its texts."""


def import_peft(
    folder: Path | str,
    out: Path | str,
    *,
    backbone: Backbone | str | None = None,
    input: str = "{text}",
    target: str = "{reference}",
    second: str | None = None,
    labels: Sequence[str] | None = None,
    may_be_none: bool = False,
    problem_type: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    quantization: Quantization | None = None,
    download: bool = False,
) -> Manifest:
    """Make an artifact of a prompt or LoRA that PEFT trained, and of the head trained with it.

    What was left out or stands otherwise than its numbers suggest is in the manifest's
    `data["peft"]["notes"]`.

    Args:
        folder: what PEFT's `save_pretrained` wrote.
        out: where the artifact goes; there must be nothing yet.
        backbone: a loaded one, or where to load it from; by default what the adapter names.
        input: template of the source, since PEFT keeps none.
        target: template of the answer.
        second: template of a second text that the tokenizer joins to the input.
        labels: what the outputs of a classifier are called; the base model's config says it
            otherwise.
        may_be_none: whether a question may have no answer.
        problem_type: of a sequence classifier, as transformers' configs say it:
            "single_label_classification", "multi_label_classification" or "regression". The base
            model's config says it otherwise, or the number of outputs: one is a number.
        device: where the backbone is loaded to.
        dtype: what its weights are cast to.
        quantization: how they are quantised (see `load_backbone`); PEFT's folder does not say what
            it was trained on.
        download: let a hub name be downloaded.

    Raises:
        ArtifactError: the folder is damaged, does not fit the backbone, or does what foreword
            cannot do exactly.
        BackboneError: the backbone cannot be loaded.
        TemplateError: a template does not parse, or has a slot for virtual tokens or a mask.
    """
    out = Path(out)
    files.refuse_occupied(out)
    refuse_unwritable(out)
    if labels is not None:
        refuse_single("labels", labels)
    _refuse_slots(Templates.of(input, target, second=second))
    adapter = read_adapter(folder)
    if not isinstance(backbone, Backbone):
        backbone = _load(adapter, backbone, device, dtype, quantization, download)
    head = read_head(adapter, backbone, labels, problem_type)
    _check_kind(adapter, backbone)
    stated: dict[str, Any] = {"input": input, "target": target, "second": second}
    if head is None:
        task = TaskId(**stated, metrics=("bleu", "chrf", "ter"))
        notes = []
    else:
        task = TaskId(**stated, **head.stated(backbone, may_be_none=may_be_none))
        notes = head.notes(backbone)
    notes = [*adapter.config.notes(adapter, backbone, head), *notes]
    method, model = _model(adapter, backbone, _readout(backbone, task, head))
    return save_artifact(
        out,
        model,
        name=out.resolve().name,
        method=method,
        task=task,
        data={"peft": _provenance(adapter, notes)},
    )


def _refuse_slots(templates: Templates) -> None:
    """The virtual tokens stand where PEFT put them, and its heads read no mask."""
    texts = {argument("--input"): templates.input, argument("--second"): templates.second}
    for option, template in texts.items():
        if not isinstance(template, Template):
            continue  # there is none, or messages, which have no such slots
        for piece in template.pieces:
            if isinstance(piece, SoftSlot):
                why = "its virtual tokens, where it has some, stand in front of the whole input"
            elif isinstance(piece, MaskSlot):
                why = "its adapters read no mask"
            else:
                continue
            raise TemplateError(
                f"{option}: {excerpt(template.source)} has the slot "
                f"{shown(piece).strip()}, but PEFT stores no template, and {why}; leave "
                "the slot out"
            )


def _check_kind(adapter: Adapter, backbone: Backbone) -> None:
    task_type, kind = adapter.config.task_type, backbone.geometry.kind
    expected = KINDS.get(task_type)
    if expected is not None and kind != expected:
        raise ArtifactError(
            f"{adapter.folder}: was trained on {_a(expected)} (task type {task_type}), but "
            f"'{backbone.name}' is {_a(kind)}; name the right one with {argument('--backbone')}"
        )
    adapter.config.check_backbone(adapter, backbone)


def _a(kind: str) -> str:
    return f"{'an' if kind[0] == 'e' else 'a'} {kind}"


def _load(
    adapter: Adapter,
    given: str | None,
    device: str,
    dtype: str,
    quantization: Quantization | None,
    download: bool,
) -> Backbone:
    name, revision = given, None
    if name is None:
        name, revision = _base_model(adapter), adapter.config.revision
    try:
        return load_backbone(
            name,
            revision=revision,
            dtype=dtype,  # type: ignore[arg-type]
            device=device,
            quantization=quantization,
            local_files_only=not download,
        )
    except BackboneError as error:
        hint = "" if given else f"; if it lies elsewhere, name it with {argument('--backbone')}"
        raise BackboneError(f"{adapter.folder}: {error}{hint}") from error


def _base_model(adapter: Adapter) -> str:
    """The base model that the adapter names, unless the name goes astray."""
    name = adapter.config.base_model_name_or_path
    where = f"{adapter.folder / CONFIG}: base_model_name_or_path"
    if not name:
        raise ArtifactError(f"{where}: names no base model; name it with {argument('--backbone')}")
    if ".." in PurePath(name.replace("\\", "/")).parts or not name.isprintable():
        raise ArtifactError(
            f"{where}: {name[:100]!r} is no plain name or path; name the backbone with "
            f"{argument('--backbone')}"
        )
    return name


def _readout(backbone: Backbone, stated: TaskId, head: AdapterHead | None) -> Head | None:
    """The adapter's head as one of ours."""
    if head is None:
        return None
    readout = task_of(stated).readout(backbone)
    assert isinstance(readout, Head)
    return head.fill(readout)


def _model(
    adapter: Adapter, backbone: Backbone, readout: Head | None
) -> tuple[MethodChoice, TunedModel]:
    """The backbone with what the adapter holds, and the method that trains such a thing."""
    try:
        return adapter.config.composed(adapter, backbone, readout)
    except ArtifactError:
        raise
    except UserError as error:
        raise ArtifactError(f"{adapter.folder}: {error}") from error


def _provenance(adapter: Adapter, notes: list[str]) -> dict[str, Any]:
    return {
        "name": f"{adapter.folder.resolve().name}/{WEIGHTS}",
        "sha256": adapter.sha256,
        "config_sha256": files.sha256(adapter.folder / CONFIG),
        "config": adapter.config.model_dump(mode="json", exclude_none=True),
        **({"notes": notes} if notes else {}),
    }
