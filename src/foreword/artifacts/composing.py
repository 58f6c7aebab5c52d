"""Trained prompts put together: one after the other, or averaged (`foreword.compose`).

One after the other (Eyuboglu et al. 2025, Cartridges, section 5: composition without training): the
virtual tokens of the first prompt stand first, and so on, as texts would. Where a model tells
positions by rotating keys, those of each prompt are turned to the places behind the others. The
prompts were never trained together, and none has seen the ones before it: `Composition.check` tells
what that costs.

Averaged, or weighted: prompts of one shape, number by number (Ilharco et al. 2023, task
arithmetic).

The outcome is an ordinary artifact. What it reads and writes is the last prompt's, which stands
nearest to the text.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from foreword.artifacts.artifact import axes_of, load_model, save_artifact
from foreword.artifacts.joined import JOIN
from foreword.artifacts.lost import Lost, lost
from foreword.artifacts.manifest import Manifest, artifact_folder, read_manifest
from foreword.axes.parts import EmbeddingsPart, KeysValuesPart, Named
from foreword.backbone.rotation import turned
from foreword.errors import ArtifactError, BackboneError, UserError, argument, refuse_single
from foreword.methods import Cartridge, MethodChoice, PrefixTuning, PromptTuning
from foreword.methods.axes import FirstTokensInit, RandomInit, Table
from foreword.tasks import task_of
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose as put_on


@dataclass(frozen=True, eq=False)
class Composed:
    """One of the prompts that are put together.

    Attributes:
        where: its folder.
        manifest: what it says of itself.
        model: its backbone with it.
    """

    where: Path
    manifest: Manifest
    model: TunedModel


@dataclass(frozen=True, eq=False)
class Composition:
    """Prompts put together.

    Attributes:
        manifest: what it says of itself; it has no folder before it is saved.
        model: the backbone with all of them.
        parts: the prompts, in the order in which they stand.
    """

    manifest: Manifest
    model: TunedModel
    parts: tuple[Composed, ...]

    def save(self, folder: Path | str, *, name: str | None = None) -> Manifest:
        """Write it as an artifact.

        Args:
            folder: where it goes; there must be nothing yet.
            name: what it is called; the parts' names, joined, if not given.

        Raises:
            UserError: the folder is there already and is not empty.
        """
        own = self.manifest
        return save_artifact(
            folder,
            self.model,
            name=name or own.name,
            method=own.method,
            task=own.task,
            decoding=own.decoding,
            data=own.data,
            recipe=own.recipe,
            seed=own.seed,
        )

    def check(self, texts: Sequence[str]) -> list[Lost]:
        """What each prompt has lost of what it was alone, on texts that stand behind it.

        Args:
            texts: at least one, of two tokens or more.

        Raises:
            UserError: there are none, or the backbone writes nothing.
        """
        refuse_single("texts", texts)
        return [
            lost(part.manifest.name, part.model, self.model, list(texts)) for part in self.parts
        ]


def compose(
    artifacts: Sequence[Path | str],
    *,
    average: bool = False,
    weights: Sequence[float] | None = None,
    as_stored: bool = False,
    **loading: Any,
) -> Composition:
    """Put trained prompts of one backbone together.

    Args:
        artifacts: two folders or more, in the order in which they shall stand before the text.
        average: take the mean of their numbers instead of putting one behind the other.
        weights: of each, for a weighted sum instead; they need not add up to 1.
        as_stored: leave keys as they are where the backbone's cannot be moved to other positions.
        loading: as `foreword.artifacts.artifact.load_model` takes it: `backbone`, `device`, ….

    Raises:
        ArtifactError: one is damaged, or they do not go together.
        UserError: there are fewer than two, or the weights are not one for each.
        BackboneError: the backbone cannot be loaded, or its keys cannot be moved.
    """
    refuse_single("artifacts", artifacts)
    folders = [artifact_folder(one) for one in artifacts]
    if len(folders) < 2:
        raise UserError(f"artifacts: expected two or more to put together, found {len(folders)}")
    shares = _shares(len(folders), average=average, weights=weights)
    manifests = [read_manifest(folder) for folder in folders]
    check_parts(folders, manifests, other_backbone=bool(loading.get("other_backbone")))
    parts: list[Composed] = []
    for folder in folders:
        if parts:
            backbone = parts[0].model.backbone
            given = {"backbone": backbone, "other_backbone": loading.get("other_backbone", False)}
            manifest, model = load_model(folder, **given)
        else:
            manifest, model = load_model(folder, **loading)
        parts.append(Composed(folder, manifest, model))
    return put_together(parts, shares, as_stored=as_stored)


@torch.no_grad()
def put_together(
    parts: Sequence[Composed], shares: Sequence[float] | None, *, as_stored: bool = False
) -> Composition:
    """Prompts that are loaded on one backbone.

    Args:
        parts: in their order.
        shares: by how much each is multiplied before they are added; None: one stands behind the
            other.
        as_stored: see `compose`.

    Raises:
        ArtifactError: they do not go together.
        BackboneError: the backbone's keys cannot be moved.
    """
    _check_shapes(parts, equal=shares is not None)
    own = [part.model.reparam() for part in parts]
    lengths = [part.manifest.method.length for part in parts]
    if shares is None:
        length, named = sum(lengths), _behind(parts, own, lengths, as_stored=as_stored)
    else:
        length = lengths[0]
        named = {
            name: sum(
                (one[name] * share for one, share in zip(own, shares, strict=True)),
                torch.zeros_like(tensor),
            )
            for name, tensor in own[0].items()
        }
    last = parts[-1]
    try:
        method = _method(parts, length)
    except ValidationError as error:
        raise ArtifactError(
            f"{last.where}: the prompts have {length:,} virtual tokens together, more than one "
            "artifact may have; put fewer or shorter ones together"
        ) from error
    bound = task_of(last.manifest.task)
    backbone = last.model.backbone
    model = put_on(backbone, method, bound.readout(backbone)).with_tensors(named)
    model.readout.load_state_dict(last.model.readout.state_dict())
    return Composition(_manifest(parts, shares, method, model, as_stored), model, tuple(parts))


def _behind(
    parts: Sequence[Composed], own: Sequence[Named], lengths: Sequence[int], *, as_stored: bool
) -> dict[str, Tensor]:
    """The named tensors of all virtual tokens, keys turned to where they stand now."""
    moves = _moves(parts) and not as_stored
    named: dict[str, list[Tensor]] = {}
    for number, (part, tensors) in enumerate(zip(parts, own, strict=True)):
        before = sum(lengths[:number])
        for name, tensor in tensors.items():
            moved = moves and before > 0 and name.endswith(".keys")
            named.setdefault(name, []).append(_turned(part, tensor, before) if moved else tensor)
    axis = {"keys": 1, "values": 1, "embeddings": 0}
    return {name: torch.cat(each, axis[name.rpartition(".")[2]]) for name, each in named.items()}


def _moves(parts: Sequence[Composed]) -> bool:
    """Whether keys stand at positions: those before a text that starts behind them."""
    first = parts[0]
    return (
        first.model.injection.kind == "keys_values"
        and first.manifest.axes.get("positions", "shift") == "shift"
    )


def _turned(part: Composed, keys: Tensor, by: int) -> Tensor:
    backbone = part.model.backbone
    layers = backbone.geometry.main.layers
    reason = ""
    if backbone.geometry.kind != "decoder" or keys.shape[0] != layers:
        reason = "they are not those of all layers of a decoder"
    else:
        try:
            return turned(backbone, keys, by)
        except BackboneError as error:
            reason = str(error).rpartition(": ")[2]
    half = "; load it in float32 (`dtype`)" if backbone.dtype not in ("float32", "float64") else ""
    raise BackboneError(
        f"{part.where}: its keys stand at positions 0 to {part.manifest.method.length - 1}, and "
        f"would have to be moved by {by} on '{backbone.name}' "
        f"({backbone.model.config.model_type}), which cannot be done: {reason}{half}. Train the "
        "prompts with `positions: keep`, average them, or leave the keys as they are with "
        f"{argument('`foreword compose --as-stored --out FOLDER`', '`as_stored=True`')} and see "
        f"with its {argument('`--check FILE`', '`check`')} what is lost"
    )


def _shares(
    count: int, *, average: bool, weights: Sequence[float] | None
) -> tuple[float, ...] | None:
    if average and weights is not None:
        both = f"{argument('--average')} and {argument('--weights')}"
        raise UserError(f"{both}: give one of the two; a mean has equal weights")
    if weights is None:
        return (1 / count,) * count if average else None
    if len(weights) != count or not all(math.isfinite(weight) for weight in weights):
        raise UserError(
            f"{argument('--weights')}: expected {count} numbers, one for each prompt, found "
            f"{', '.join(map(str, weights)) or 'none'}"
        )
    return tuple(map(float, weights))


def check_parts(
    folders: Sequence[Path], manifests: Sequence[Manifest], *, other_backbone: bool = False
) -> None:
    """Make sure that artifacts go together, as far as can be told without a backbone.

    Args:
        folders: what messages call each.
        manifests: what each says of itself.
        other_backbone: take those of other weights than the first one's all the same.

    Raises:
        ArtifactError: they do not.
    """
    first = manifests[0]
    for folder, manifest in zip(folders, manifests, strict=True):
        reason = _alone(manifest)
        if reason:
            raise ArtifactError(f"{folder}: {reason}")
        for what, one, other in _must_agree(first, manifest, other_backbone=other_backbone):
            if one != other:
                raise ArtifactError(
                    f"{folder}: its {what} is {other}, that of {folders[0]} is {one}; only prompts "
                    "that agree in it can be put together"
                )


def _alone(manifest: Manifest) -> str:
    """Why a prompt cannot be put together with any other."""
    method, stated = manifest.method, manifest.axes
    if method.moves.kind != "none":
        return (
            f"weights of the backbone moved, too (delta: {method.moves.kind}), and other prompts "
            "were trained without that"
        )
    if manifest.head_sha256 is not None or manifest.task.has_head:
        return "has a head, which reads what this prompt alone makes of a text"
    if stated.get("injection") not in ("keys_values", "embeddings"):
        return (
            f"is {method.name}, whose virtual tokens are no plain keys and values or embeddings of "
            "one prompt"
        )
    if stated.get("placement") != "prefix":
        return f"its virtual tokens stand in the text ({stated.get('placement')}), not before it"
    return ""


def _must_agree(
    first: Manifest, other: Manifest, *, other_backbone: bool
) -> Iterator[tuple[str, Any, Any]]:
    if not other_backbone:
        yield "backbone's sha256", first.backbone.sha256[:12], other.backbone.sha256[:12]
        yield "tokenizer's sha256", first.tokens.sha256[:12], other.tokens.sha256[:12]
    yield "rule for the beginning token", first.tokens.bos, other.tokens.bos
    for axis in ("injection", "sites", "positions", "window", "cache"):
        yield axis, first.axes.get(axis), other.axes.get(axis)


def _check_shapes(parts: Sequence[Composed], *, equal: bool) -> None:
    first = parts[0]
    known = KeysValuesPart | EmbeddingsPart
    for part in parts:
        ours, theirs = first.model.injection.parts(1), part.model.injection.parts(1)
        if ours != theirs or not all(isinstance(one, known) for one in theirs):
            raise ArtifactError(
                f"{part.where}: its virtual tokens enter at other layers than those of "
                f"{first.where}, or have other parts; only prompts that enter alike can be put "
                "together"
            )
        lengths = first.manifest.method.length, part.manifest.method.length
        if equal and lengths[0] != lengths[1]:
            raise ArtifactError(
                f"{part.where}: has {lengths[1]} virtual tokens, {first.where} has {lengths[0]}; "
                "only prompts of one length have a mean"
            )


def _method(parts: Sequence[Composed], length: int) -> MethodChoice:
    """The method whose prompts enter so: what an artifact of them says."""
    methods = [part.manifest.method for part in parts]
    positions = parts[0].manifest.axes.get("positions", "auto")
    common = {"length": length, "positions": positions, "reparameterization": Table()}
    sites = parts[0].model.injection.sites
    if parts[0].model.injection.kind == "embeddings":
        return PromptTuning(name="prompt-tuning", sites=_sites(methods, sites), **common)
    where = {"sites": _sites(methods, sites), "layers": getattr(methods[0], "layers", None)}
    if length > 4096 or any(isinstance(method, Cartridge) for method in methods):
        frozen = getattr(methods[0], "frozen", 0)
        return Cartridge(name="cartridge", frozen=frozen, init=FirstTokensInit(), **where, **common)
    return PrefixTuning(name="prefix-tuning", init=RandomInit(), **where, **common)


def _sites(methods: Sequence[MethodChoice], sites: tuple[Any, ...]) -> tuple[Any, ...] | None:
    return None if getattr(methods[0], "sites", None) is None else sites


def _manifest(
    parts: Sequence[Composed],
    shares: Sequence[float] | None,
    method: MethodChoice,
    model: TunedModel,
    as_stored: bool,
) -> Manifest:
    """What the composition says of itself; its hash is of its parts', in their order, and of how
    they were put together."""
    own = [part.manifest for part in parts]
    hashes = [one.prompt_sha256 for one in own]
    whole = hashlib.sha256(f"{hashes} {shares} {as_stored}".encode()).hexdigest()
    composed: Mapping[str, Any] = {
        "by": "one behind the other" if shares is None else "weighted sum",
        **({} if shares is None else {"weights": list(shares)}),
        **({"keys": "as stored"} if as_stored else {}),
        "parts": [
            {
                "name": one.name,
                "method": one.method.name,
                "length": one.method.length,
                "prompt_sha256": one.prompt_sha256,
            }
            for one in own
        ],
    }
    data = {
        f"part {number}": {"name": one.name, "sha256": one.prompt_sha256}
        for number, one in enumerate(own, 1)
    }
    backbone = model.backbone
    last = own[-1]
    return last.model_copy(
        update={
            "name": JOIN.join(one.name for one in own),
            "method": method,
            "axes": axes_of(model, method.reparameterization.kind),
            "backbone": last.backbone.model_copy(update={"name": backbone.name}),
            "data": data,
            "recipe": {"composed": composed},
            "metrics": {},
            "trained_parameters": None,
            "trained_share": None,
            "prompt_sha256": whole,
        }
    )
