"""From PEFT's folder to an artifact: `foreword import peft`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Any

from torch import Tensor

from foreword.artifacts.artifact import save_artifact
from foreword.artifacts.manifest import Manifest
from foreword.axes.readout import Head
from foreword.backbone import Backbone, Geometry, load_backbone
from foreword.common import files
from foreword.common.run_files import refuse_unwritable
from foreword.compat.adapter import (
    CONFIG,
    TENSOR,
    WEIGHTS,
    Adapter,
    CPTAdapter,
    LowRankAdapter,
    NamedTensors,
    PrefixAdapter,
    PromptAdapter,
    PTuningAdapter,
    VirtualTokens,
    read_adapter,
)
from foreword.compat.heads import AdapterHead, is_pooler, read_head
from foreword.compat.low_rank import updated
from foreword.errors import (
    ArtifactError,
    BackboneError,
    TemplateError,
    UserError,
    argument,
    refuse_single,
)
from foreword.methods import CPT, MethodChoice, PrefixTuning, PromptTuning, PTuning, axes
from foreword.names import ANSWERS
from foreword.recipe import TaskId
from foreword.tasks import task_of
from foreword.tasks.text import Templates
from foreword.templates import MaskSlot, Template
from foreword.templates.template import SoftSlot, excerpt, shown
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose

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
    device: str = "cpu",
    dtype: str = "float32",
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
        device: where the backbone is loaded to.
        dtype: what its weights are cast to.
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
        backbone = _load(adapter, backbone, device, dtype, download)
    head = read_head(adapter, backbone, labels)
    _check_kind(adapter, backbone)
    stated = {"input": input, "target": target, "second": second}
    task = TaskId(**stated, **_told(head, backbone, may_be_none))
    method, model = _model(adapter, backbone, _readout(backbone, task, head))
    return save_artifact(
        out,
        model,
        name=out.resolve().name,
        method=method,
        task=task,
        data={"peft": _provenance(adapter, _notes(adapter, backbone, head))},
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
    if not isinstance(adapter.config, VirtualTokens):
        return
    prefix = isinstance(adapter.config, PrefixAdapter)
    if backbone.geometry.slides:
        raise ArtifactError(
            f"{adapter.folder}: on '{backbone.name}' PEFT's prompt slides out of the attention "
            "window, here a prompt is always seen: the same numbers would give other answers"
        )
    latent = not backbone.geometry.caches_heads or backbone.geometry.main.head_dim is None
    if prefix and latent:
        raise ArtifactError(
            f"{adapter.folder}: PEFT puts a prefix into the cache, and that of '{backbone.name}' "
            f"({backbone.model.config.model_type}) holds latents from which keys and values are "
            "made; there is no answer that an import could keep"
        )
    if prefix and kind == "encoder" and not backbone.takes_cache:
        raise ArtifactError(
            f"{adapter.folder}: PEFT cannot run a prefix on '{backbone.name}' "
            f"({backbone.model.config.model_type}), which takes no keys and values; there is no "
            "answer that an import could keep"
        )


def _a(kind: str) -> str:
    return f"{'an' if kind[0] == 'e' else 'a'} {kind}"


def _told(head: AdapterHead | None, backbone: Backbone, may_be_none: bool) -> dict[str, Any]:
    if head is None:
        return {"metrics": ("bleu", "chrf", "ter")}
    return stated_of(head, backbone, may_be_none=may_be_none)


def stated_of(
    head: AdapterHead, backbone: Backbone, *, may_be_none: bool = False
) -> dict[str, Any]:
    """What a task of a head has beside its templates, as fields of `TaskId`.

    Args:
        head: what reads the answer.
        backbone: what it stands on.
        may_be_none: whether a question may have no answer.
    """
    context = backbone.geometry.context
    return {
        "answer": head.answer,
        "labels": head.labels,
        "head": head.spec,
        "may_be_none": may_be_none,
        "tells_apart": head.answer != "span",
        "label": "label" if head.answer == "label" else None,
        "stride": 128 if context is None else min(128, context // 4),
        "metrics": ANSWERS[head.answer].metrics,
    }


def _notes(adapter: Adapter, backbone: Backbone, head: AdapterHead | None) -> list[str]:
    """What somebody who trained this should know of it."""
    if isinstance(adapter.config, LowRankAdapter):
        notes = _of_updates(adapter, adapter.config, head)
    elif isinstance(adapter.config, NamedTensors):
        notes = []
    else:
        assert isinstance(adapter.config, VirtualTokens)
        notes = _of_virtual_tokens(adapter.config, backbone, head)
    if head is not None and head.answer == "span" and backbone.tells_texts_apart:
        notes.append(
            "PEFT drops token_type_ids: the model is not told which tokens are the context's, nor "
            "is it here"
        )
    return notes


def _of_virtual_tokens(
    config: VirtualTokens, backbone: Backbone, head: AdapterHead | None
) -> list[str]:
    notes, length = [], config.num_virtual_tokens
    if isinstance(config, PrefixAdapter):
        if config.task_type == "SEQ_2_SEQ_LM":
            notes.append(_shared(backbone.geometry))
    elif config.submodules == 2:
        notes.append(
            f"PEFT stores {config.stored_rows} rows, of which it reads the first {length}; the "
            "others are left out"
        )
    elif head is not None and head.answer == "span":
        notes.append(
            f"PEFT keeps {length} columns of virtual tokens in its logits and does not shift start "
            "and end positions: unless the training script added them, this adapter's answers are "
            f"{length} tokens too early"
        )
    elif head is not None and head.spec.pooling == "prompt":
        notes.append(
            "PEFT's head reads the state of the first virtual token, not of the text's first"
        )
    return notes


def _of_updates(adapter: Adapter, config: LowRankAdapter, head: AdapterHead | None) -> list[str]:
    notes = []
    if config.use_rslora:
        notes.append(
            f"use_rslora: its updates count lora_alpha / sqrt(r) times, so alpha is stated as "
            f"{adapter.alpha:g}, for which alpha / rank is as much"
        )
    if head is not None and any(is_pooler(layer) for layer in adapter.updates):
        notes.append(
            "the update of the pooler is put into the head's first layer, which it is"
            if head.pooled
            else f"the update of the pooler is left out: no {config.task_type} head of this model "
            "reads a pooler, in PEFT as here"
        )
    return notes


def _shared(geometry: Geometry) -> str:
    layers = geometry.main.layers
    encoder = "PEFT gives the encoder and the attention over it no prefix: only the decoder has one"
    if layers % 2:
        return (
            f"{encoder}, its layers in another order than they are stored in (layer i has what "
            f"stands at 2 i modulo {layers})"
        )
    return (
        f"{encoder}, whose layers i and i + {layers // 2} share one; half of the stored numbers "
        "are read by nothing and are left out"
    )


def _load(adapter: Adapter, given: str | None, device: str, dtype: str, download: bool) -> Backbone:
    name, revision = given, None
    if name is None:
        name, revision = _base_model(adapter), adapter.config.revision
    try:
        return load_backbone(
            name,
            revision=revision,
            dtype=dtype,  # type: ignore[arg-type]
            device=device,
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


def _prefix(config: PrefixAdapter, geometry: Geometry) -> MethodChoice:
    alone: tuple[axes.Site, ...] | None = (
        ("decoder",) if geometry.kind == "encoder-decoder" else None
    )
    token_dim = geometry.main.kv_heads * geometry.main.key_dim
    made_by: axes.ReparameterizationSpec = axes.Table()
    if config.prefix_projection:
        made_by = axes.MLP(hidden=config.encoder_hidden_size or token_dim)
    return PrefixTuning(
        name="prefix-tuning",
        length=config.num_virtual_tokens,
        positions="shift",
        sites=alone,
        reparameterization=made_by,
    )


def _prompt(config: PromptAdapter, geometry: Geometry) -> MethodChoice:
    init: axes.VocabularyInit | axes.TextInit = axes.VocabularyInit(most_common=geometry.vocabulary)
    if config.prompt_tuning_init == "TEXT" and config.prompt_tuning_init_text:
        init = axes.TextInit(text=config.prompt_tuning_init_text)
    return PromptTuning(
        name="prompt-tuning", length=config.num_virtual_tokens, positions="shift", init=init
    )


def _p_tuning(config: PTuningAdapter, geometry: Geometry) -> MethodChoice:
    hidden = config.encoder_hidden_size or geometry.width
    made_by: axes.ReparameterizationSpec = axes.ReluMLP(hidden=hidden)
    if config.encoder_reparameterization_type == "LSTM":
        layers = config.encoder_num_layers
        made_by = axes.LSTM(
            hidden=hidden, layers=layers, dropout=config.encoder_dropout if layers > 1 else 0.0
        )
    return PTuning(
        name="p-tuning",
        length=config.num_virtual_tokens,
        positions="shift",
        reparameterization=made_by,
    )


def _cpt(config: CPTAdapter, geometry: Geometry) -> MethodChoice:  # noqa: ARG001
    decays = config.opt_weighted_loss_type == "decay"
    shots = max(1, -(-max(config.cpt_tokens_type_mask) // 4))
    return CPT.model_validate(
        {
            "name": "cpt",
            "length": config.num_virtual_tokens,
            "positions": "shift",
            "reparameterization": {
                "epsilon": config.opt_projection_epsilon,
                "format_epsilon": config.opt_projection_format_epsilon,
                "decay": config.opt_loss_decay_factor if decays else 1.0,
            },
            "init": {
                "shots": min(shots, 1024),
                "tokens": config.cpt_token_ids,
                "types": config.cpt_tokens_type_mask,
            },
        }
    )


_METHODS: dict[type[VirtualTokens], Callable[[Any, Geometry], MethodChoice]] = {
    PrefixAdapter: _prefix,
    PromptAdapter: _prompt,
    PTuningAdapter: _p_tuning,
    CPTAdapter: _cpt,
}


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
        if isinstance(adapter.config, NamedTensors):
            return _by_names(adapter, adapter.config, backbone, readout)
        if not isinstance(adapter.config, VirtualTokens):
            return updated(adapter, backbone, readout)
        method = _METHODS[type(adapter.config)](adapter.config, backbone.geometry)
        _check_sizes(adapter, adapter.config, backbone)
        # The stored tokens are folded: what made them in training is not built again.
        folded = method.model_copy(update={"reparameterization": axes.Table()})
        model = compose(backbone, folded, readout)
    except ArtifactError:
        raise
    except UserError as error:
        raise ArtifactError(f"{adapter.folder}: {error}") from error
    return method, _with_rows(adapter, backbone, model)


def _by_names(
    adapter: Adapter, config: NamedTensors, backbone: Backbone, readout: Head | None
) -> tuple[MethodChoice, TunedModel]:
    """A model around tensors that have the names of its injection's."""
    method = config.method(backbone)
    model = compose(backbone, method, readout)
    parts, facts = model.injection.parts(method.length), model.injection.facts()
    shapes = {name: shape for part in parts for name, shape in part.shapes.items()}
    differ = [
        f"{name} {want}, found {got}"
        for name, want, got in (
            *((n, list(s), list(adapter.named[n].shape)) for n, s in shapes.items()),
            *((n, fact.tolist(), adapter.named[n].tolist()) for n, fact in facts.items()),
        )
        if want != got
    ]
    if differ:
        raise ArtifactError(
            f"{adapter.folder / WEIGHTS}: backbone '{backbone.name}' needs {'; '.join(differ)}; "
            f"name the right one with {argument('--backbone')}"
        )
    named = {name: adapter.named[name].to(backbone.device) for name in shapes}
    return method, model.with_tensors(named)


def _check_sizes(adapter: Adapter, config: VirtualTokens, backbone: Backbone) -> None:
    geometry, prefix = backbone.geometry, isinstance(config, PrefixAdapter)
    # PEFT takes the layers of an encoder-decoder from its encoder.
    site = geometry.main if prefix else next(iter(geometry.sites.values()))
    expected = {"num_layers": site.layers, "token_dim": geometry.width}
    if prefix:
        expected["num_attention_heads"] = site.kv_heads
        expected["token_dim"] = site.kv_heads * site.key_dim
    for name, want in expected.items():
        found = getattr(config, name)
        if found not in (None, want):
            raise ArtifactError(
                f"{adapter.folder / CONFIG}: {name} is {found}, but backbone '{backbone.name}' "
                f"has {want}; name the right one with {argument('--backbone')}"
            )


def _with_rows(adapter: Adapter, backbone: Backbone, model: TunedModel) -> TunedModel:
    want_shape = [model.placement.length, model.injection.width]
    if list(adapter.rows.shape) != want_shape:
        raise ArtifactError(
            f"{adapter.folder / WEIGHTS}: {TENSOR} has shape {list(adapter.rows.shape)}, but "
            f"backbone '{backbone.name}' needs {want_shape}; name the right one with "
            f"{argument('--backbone')}"
        )
    rows, geometry = adapter.rows, backbone.geometry
    if isinstance(adapter.config, PrefixAdapter) and geometry.kind == "encoder-decoder":
        rows = _as_the_decoder_reads(rows, geometry.main.layers)
    return model.with_rows(rows.to(backbone.device))


def _as_the_decoder_reads(rows: Tensor, layers: int) -> Tensor:
    """`[P, width]` in the order of the decoder's layers.

    PEFT puts the stored keys and values of all layers twice, one after the other, and deals them
    out by four to a layer, of which the last two are thrown away.
    """
    stored = rows.view(rows.shape[0], layers, -1)
    return stored[:, [2 * layer % layers for layer in range(layers)]].flatten(1)


def _provenance(adapter: Adapter, notes: list[str]) -> dict[str, Any]:
    return {
        "name": f"{adapter.folder.resolve().name}/{WEIGHTS}",
        "sha256": adapter.sha256,
        "config_sha256": files.sha256(adapter.folder / CONFIG),
        "config": adapter.config.model_dump(mode="json", exclude_none=True),
        **({"notes": notes} if notes else {}),
    }
