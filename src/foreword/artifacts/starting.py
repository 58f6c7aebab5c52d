"""An artifact as the start of a training: what of it fits, what does not, and what differs.

Prompts of one method start another where they enter alike (a prefix starts P-Tuning v2); input
embeddings start keys and values, too, which a decoder computes from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from foreword.artifacts.card import quantised_as
from foreword.artifacts.manifest import (
    DELTA,
    HEAD,
    MANIFEST,
    TENSORS,
    Manifest,
    artifact_folder,
    read_manifest,
)
from foreword.artifacts.stored import read_parts
from foreword.axes.deltas.base import expect_names
from foreword.axes.injection import Injection, KeysValues
from foreword.axes.parts import KeysValuesPart, Named, Part
from foreword.axes.readout import Head
from foreword.backbone import Backbone
from foreword.common import files
from foreword.errors import ArtifactError, UserError, argument
from foreword.methods import MethodOptions
from foreword.methods.axes import ArtifactInit, FirstTokensInit, InitSpec
from foreword.recipe import TaskId
from foreword.tuned import TunedModel
from foreword.tuned.initial import Trained

ENTERS = {
    "adaption": "states with gates at chosen layers",
    "embeddings": "embeddings of the input",
    "keys_values": "keys and values of every layer",
    "multitask_embeddings": "embeddings of several tasks",
    "text": "no virtual tokens",
}
"""What an injection puts into a backbone, by its name."""


def starts_from(method: MethodOptions) -> ArtifactInit | None:
    """The artifact that a method starts from, if it does."""
    return method.init if isinstance(method.init, ArtifactInit) else None


def read_source(init: ArtifactInit) -> tuple[Path, Manifest]:
    """The artifact that training starts from, and what it says of itself.

    Raises:
        ArtifactError: there is none, or it is damaged.
    """
    try:
        folder = artifact_folder(init.path)
        return folder, read_manifest(folder)
    except ArtifactError as error:
        raise ArtifactError(f"method.init.path: {error}") from error


def source_hash(init: InitSpec) -> dict[str, Any] | None:
    """Name and sha256 of the artifact or file that training starts from; an artifact's hash is of
    its manifest, which holds those of its tensors. None where it starts from neither.

    Raises:
        ArtifactError: there is no such artifact, or it is damaged.
        UserError: the file cannot be read.
    """
    if isinstance(init, ArtifactInit):
        folder, manifest = read_source(init)
        return {"name": manifest.name, "sha256": files.sha256(folder / MANIFEST)}
    if isinstance(init, FirstTokensInit) and init.file is not None:
        init.words()
        return {"name": Path(init.file).name, "sha256": files.sha256(Path(init.file))}
    return None


def settled(method: MethodOptions) -> MethodOptions:
    """The options with what they leave to the artifact that training starts from: as many virtual
    tokens as it has, unless they say how many.

    Raises:
        ArtifactError: there is no such artifact, or it is damaged.
    """
    init = starts_from(method)
    if init is None or not method.length or "length" in method.model_fields_set:
        return method
    _, manifest = read_source(init)
    length = manifest.method.length or method.length
    return method.model_copy(update={"length": length})


def going_on(method: MethodOptions, init: ArtifactInit) -> MethodOptions:
    """The options with what the method takes from those of the artifact.

    Raises:
        ArtifactError: there is no such artifact, or the method cannot go on from it.
    """
    folder, manifest = read_source(init)
    try:
        return method.going_on(manifest.method)
    except UserError as error:
        raise ArtifactError(f"method.init: {folder}: {error}") from error


def without_folder(method: MethodOptions) -> MethodOptions:
    """The options as an artifact states them: of what they start from its name, and no folder."""
    return method.model_copy(update={"init": method.init.named_only()})


def read_trained(
    init: ArtifactInit,
    model: TunedModel,
    method: MethodOptions,
    *,
    task: TaskId | None = None,
    backbone: Backbone | None = None,
    check_tokenizer: bool = True,
) -> Trained:
    """What an artifact gives a model to start from.

    Args:
        init: names the artifact.
        model: as `compose` made it of the method's options; it is left as it is.
        method: the options.
        task: what is asked of the model, where a head of ours may go on.
        backbone: the model's, if its own does not say its hash.
        check_tokenizer: whether the tokenizer has to be the artifact's.

    Raises:
        ArtifactError: the artifact is damaged, or does not fit the model.
    """
    folder, manifest = read_source(init)
    source = _Source(folder, manifest, f"method.init: {folder}")
    backbone = backbone or model.backbone
    if not init.other_backbone:
        _check_backbone(source, backbone, check_tokenizer=check_tokenizer)
    parts = read_parts(folder, manifest)
    named = _prompt(source, parts[TENSORS], model, method)
    delta = _delta(source, parts[DELTA], model, method)
    head, of_head = _head(source, parts[HEAD], model, task, init)
    otherwise = type(method).model_fields["init"].default
    length = manifest.method.length
    notes = [
        *_of_length(length, model.placement.length, otherwise),
        *_of_places(manifest, model),
        *_of_backbone(manifest, backbone),
        *of_head,
    ]
    return Trained(
        {name: tensor.to(model.backbone.device) for name, tensor in named.items()},
        length,
        otherwise,
        head,
        delta,
        tuple(f"{source.where}: {note}" for note in notes),
    )


@dataclass(frozen=True)
class _Source:
    """An artifact.

    Attributes:
        folder: where it lies.
        manifest: what it says of itself.
        where: with what messages on it begin.
    """

    folder: Path
    manifest: Manifest
    where: str

    def refuse(self, why: str) -> ArtifactError:
        """The error that says why training cannot start from it."""
        return ArtifactError(f"{self.where}: {why}")


def _check_backbone(source: _Source, backbone: Backbone, *, check_tokenizer: bool) -> None:
    manifest = source.manifest
    pairs = [("weights", manifest.backbone.sha256, backbone.sha256)]
    if check_tokenizer:
        pairs.append(("tokenizer", manifest.tokens.sha256, backbone.tokens.sha256))
    for what, trained, here in pairs:
        if trained != here:
            raise source.refuse(
                f"was trained on '{manifest.backbone.name}' whose {what} have sha256 "
                f"{trained[:12]}…, but those of '{backbone.name}' have {here[:12]}…; name that "
                "backbone, or give method.init.other_backbone: true, which takes it all the same"
            )


def _prompt(
    source: _Source, stored: Named, model: TunedModel, method: MethodOptions
) -> dict[str, Tensor]:
    """The tensors of the prompt, named as the model's."""
    manifest, into = source.manifest, model.injection
    theirs, ours = manifest.method, method.name
    if bool(theirs.length) != bool(model.placement.length):
        holds = f"{theirs.length} virtual tokens" if theirs.length else "no virtual tokens"
        needs = "starts from some" if not theirs.length else "has none"
        raise source.refuse(
            f"holds {holds} ({theirs.name}), but {ours} {needs}; take a method whose prompts enter "
            "as its own, or another artifact"
        )
    try:
        injection = theirs.injection.build(model.backbone)
        named = injection.stored(stored, theirs.length)
    except UserError as error:
        raise source.refuse(str(error)) from error
    shallow = injection.kind == "embeddings" and isinstance(into, KeysValues)
    if shallow and injection.sites == ("decoder",) and manifest.axes.get("placement") == "prefix":
        rows = model.backbone.read_embeddings(named["decoder.embeddings"].to(model.backbone.device))
        injection = KeysValues(model.backbone.geometry)
        named = {
            name: tensor.detach()
            for name, tensor in injection.named_of({"decoder": (rows.keys, rows.values)}).items()
        }
    if injection.kind != into.kind:
        raise source.refuse(
            f"holds {ENTERS.get(injection.kind, injection.kind)} ({theirs.name}), but {ours} "
            f"trains {ENTERS.get(into.kind, into.kind)}; take a method whose prompts enter alike"
        )
    _check_parts(source, injection, into)
    return named


def _check_parts(source: _Source, theirs: Injection, ours: Injection) -> None:
    """Raise ArtifactError unless two injections ask for the same tensors."""
    stored, needed = theirs.parts(1), ours.parts(1)
    if ours.starts_from(theirs):
        return
    if theirs.sites != ours.sites:
        raise source.refuse(
            f"its virtual tokens enter at {', '.join(theirs.sites)}, those of this run at "
            f"{', '.join(ours.sites)}; give method.sites: [{', '.join(theirs.sites)}]"
        )
    for part, other in zip(stored, needed, strict=False):
        layers = getattr(part, "layers", None), getattr(other, "layers", None)
        if layers[0] != layers[1]:
            where = f"{{{part.site}: {list(layers[0] or ())}}}"
            option = (
                f"method.layers: {where}"
                if isinstance(part, KeysValuesPart)
                else f"method.layers: {len(layers[0] or ())}"
            )
            raise source.refuse(
                f"its virtual tokens enter at the layers {list(layers[0] or ())} of the "
                f"{part.site}, those of this run at {list(layers[1] or ())}; give {option}"
            )
    raise source.refuse(
        f"its tensors have the shapes {_shapes(stored)} for one virtual token, those of this run "
        f"{_shapes(needed)}; take the options that it was trained with"
    )


def _shapes(parts: tuple[Part, ...]) -> str:
    named = {name: list(shape) for part in parts for name, shape in part.shapes.items()}
    return ", ".join(f"{name} {shape}" for name, shape in named.items())


def _delta(
    source: _Source, stored: Mapping[str, Tensor], model: TunedModel, method: MethodOptions
) -> dict[str, Tensor]:
    """The tensors of what moves, named as the model's."""
    theirs, ours = source.manifest.method.moves, method.moves
    if theirs.kind == "none":
        if not method.length and ours.kind != "none":
            raise source.refuse(
                f"moves nothing of the backbone ({source.manifest.method.name}), so {method.name} "
                "has nothing to go on with"
            )
        return {}
    if theirs.kind != ours.kind:
        how = argument("`foreword export model`", "`foreword.export_model`")
        instead = f"write the artifact as a model ({how}) and train on that"
        raise source.refuse(
            f"moves the backbone's own weights ({theirs.kind}), where this run moves "
            f"{'none' if ours.kind == 'none' else ours.kind}; give the same method or "
            f"method.delta, or {instead}"
        )
    try:
        taken = ours.going_on(theirs, stored)
        expect_names(taken, model.delta.tensors())
    except UserError as error:
        raise source.refuse(str(error)) from error
    return taken


def _head(
    source: _Source,
    stored: Mapping[str, Tensor],
    model: TunedModel,
    task: TaskId | None,
    init: ArtifactInit,
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of the head, its labels in the order of the model's; and what there is to say."""
    theirs = source.manifest.task
    if task is None or not isinstance(model.readout, Head):
        return {}, []
    why = None
    if init.head == "new":
        why = "method.init.head says so"
    elif not theirs.has_head:
        why = "the artifact has none"
    elif theirs.answer != task.answer or set(theirs.labels) != set(task.labels):
        labels = ", ".join(theirs.labels) or theirs.answer
        why = f"the artifact's tells {labels if len(labels) < 100 else f'{labels[:99]}…'}"
    else:
        order = [theirs.labels.index(label) for label in task.labels]
        head = dict(stored)
        last = f"layers.{len(model.readout.layers) - 1}."
        for name, tensor in stored.items():
            if order and name.startswith(last) and tensor.shape[0] == len(order):
                head[name] = tensor[order]
        own = {name: p.shape for name, p in model.readout.named_parameters()}
        if own == {name: tensor.shape for name, tensor in head.items()}:
            return head, []
        why = "the artifact's has other layers (task.head)"
    if not source.manifest.method.length and source.manifest.method.moves.kind == "none":
        raise source.refuse(f"its head cannot go on: {why}; so nothing of it can")
    return {}, [f"the head starts anew: {why}"]


def _of_length(theirs: int, ours: int, otherwise: InitSpec) -> Iterator[str]:
    if theirs > ours:
        yield f"holds {theirs} virtual tokens, of which the first {ours} are taken"
    elif theirs < ours:
        yield (
            f"holds {theirs} virtual tokens, which come first; the other {ours - theirs} start as "
            f"by `init: {otherwise.kind}`"
        )


def _of_places(manifest: Manifest, model: TunedModel) -> Iterator[str]:
    """What says that virtual tokens stand otherwise, so that the start answers otherwise."""
    if not model.placement.length:
        return
    here = {"placement": model.placement.kind, "positions": model.placement.positions}
    for name, value in here.items():
        stated = manifest.axes.get(name)
        if stated not in (None, value):
            yield (
                f"its {name} was '{stated}' and is '{value}' here, so the start answers otherwise "
                "than the artifact does"
            )


def _of_backbone(manifest: Manifest, backbone: Backbone) -> Iterator[str]:
    """What of the backbone is otherwise, though its weights are the same."""
    there, quantization = manifest.backbone, backbone.quantization or None
    differing = {
        "in {}": (there.dtype, backbone.dtype),
        "{}": (quantised_as(there.quantization), quantised_as(quantization)),
        "with `bos: {}`": (manifest.tokens.bos, backbone.tokens.bos),
    }
    for words, (before, now) in differing.items():
        if before != now:
            yield (
                f"was trained on a backbone {words.format(before)}, here it is "
                f"{words.format(now)}; the start may answer otherwise than the artifact does"
            )
