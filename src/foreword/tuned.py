"""One choice on each axis, composed: a backbone with its prompt."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from foreword.backbone import Backbone, Call, Decoding, Prompt, Sources
from foreword.deltas import Adapter, BitFit, Delta, Frozen, Full, LoRA, Top
from foreword.errors import DataError, UserError, did_you_mean
from foreword.injection import Embeddings, Injection, KeysValues, Text
from foreword.layout import Layout, Pair, PositionRule, Side
from foreword.methods import MethodOptions, axes
from foreword.methods.axes import Layers, Site
from foreword.placement import Infix, InText, Prefix
from foreword.readout import Generation, Head, Readout, Told
from foreword.reparam import LSTM, MLP, ReluMLP, Reparameterization, Sites, Table


class TunedModel(nn.Module):
    """A frozen backbone and what conditions it.

    Its parameters are the trained ones alone: the backbone is no submodule, so `state_dict()`, an
    optimizer and distributed training see a few kilobytes.

    Attributes:
        sources: keys and values of sources that were read already, while it is trained.
    """

    sources: Sources | None = None
    _made: tuple[tuple[Any, ...], Prompt | None] | None = None

    def __init__(
        self,
        backbone: Backbone,
        *,
        reparam: Reparameterization,
        injection: Injection,
        placement: Prefix,
        readout: Readout,
        delta: Delta,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.reparam = reparam
        self.injection = injection
        self.placement = placement
        self.readout = readout
        self.delta = delta
        self.to(backbone.device)

    def forward(self, layout: Layout) -> Tensor:
        """Negative log-likelihood in nats of all that a batch should answer: `[N]`."""
        call = self.call(layout)
        if self.sources is not None and call.prompt is not None and layout.before is not None:
            call.prompt.past = self.sources.recall(layout.before)
        return self.readout.loss(self.backbone, call)

    def call(self, layout: Layout) -> Call:
        """Rows that were laid out, with this model's prompt."""
        return Call(layout, self.prompt())

    def prompt(self) -> Prompt | None:
        """What the backbone takes, for one call; the reparameterization runs once for the whole
        batch, and once for all calls while nothing of it is trained."""
        rows = self.reparam()
        if rows.requires_grad:
            return self.injection.prompt(rows)
        made = rows.data_ptr(), rows._version, rows.device, rows.dtype
        if self._made is None or self._made[0] != made:
            with torch.no_grad():
                self._made = made, self.injection.prompt(rows)
        prompt = self._made[1]
        return None if prompt is None else Prompt(prompt.sites, prompt.embeddings)

    def arrange(
        self,
        sources: Sequence[Sequence[int]],
        targets: Sequence[Sequence[int]] | None = None,
        *,
        side: Side = "right",
    ) -> Layout:
        """Lay out token lists on the backbone's device: a decoder's left-padded to decode."""
        pad_id = self.backbone.tokens.pad_id
        layout = self.placement.layout(sources, targets, side=side, pad_id=pad_id)
        return layout.to(self.backbone.device)

    def lay_out(self, pairs: Sequence[Pair]) -> Layout:
        """Lay out examples with their answers, on the backbone's device."""
        laid = self.placement.layout(
            [pair.source for pair in pairs],
            [pair.target for pair in pairs],
            pad_id=self.backbone.tokens.pad_id,
            marks=[pair.marks for pair in pairs] if any(p.marks for p in pairs) else [],
            labels=[pair.labels for pair in pairs] if any(p.labels for p in pairs) else [],
            segments=[pair.segments for pair in pairs],
        )
        return laid.to(self.backbone.device)

    def room(self, answer: int) -> int | None:
        """How many tokens of source fit beside an answer of so many tokens; None: any number.

        Raises:
            DataError: the answer alone is too long.
        """
        context = self.backbone.geometry.context
        room = self.placement.room(context)
        if self.backbone.geometry.kind == "decoder":
            return None if room is None else room - answer
        most = self.placement.answer_room(context)
        if most is not None and answer > most:
            raise DataError(
                f"an answer of {answer} tokens is longer than the {most} that the decoder's "
                "context leaves for it; shorten it, or lower decoding.max_new_tokens"
            )
        return room

    @torch.no_grad()
    def answers(self, layout: Layout, how: Decoding) -> list[str]:
        """Decode every row of a left-padded layout."""
        assert isinstance(self.readout, Generation), "a head writes nothing"
        return self.readout.answers(self.backbone, self.call(layout), how)

    @torch.no_grad()
    def read(self, layout: Layout) -> list[Tensor]:
        """What a head or label words say of every row (`Told.read`)."""
        assert isinstance(self.readout, Told), "a text is decoded"
        return self.readout.read(self.backbone, self.call(layout))

    @torch.no_grad()
    def fold(self) -> TunedModel:
        """The same model with its virtual tokens computed once and kept as a plain table."""
        return self.with_rows(self.reparam())

    def with_rows(self, rows: Tensor) -> TunedModel:
        """The same axes around given virtual tokens `[P, width]`."""
        table = Table(*rows.shape).to(torch.promote_types(rows.dtype, torch.float32))
        table.fit(rows)
        table.requires_grad_(False)
        return TunedModel(
            self.backbone,
            reparam=table,
            injection=self.injection,
            placement=self.placement,
            readout=copy.deepcopy(self.readout).requires_grad_(False),
            delta=self.delta,
        )

    def bare(self) -> TunedModel:
        """The backbone alone under the same token rule: what the prompt is compared with."""
        return TunedModel(
            self.delta.origin or self.backbone,
            reparam=Table(0, 0),
            injection=Text(),
            placement=replace(self.placement, length=0, columns={}),
            readout=self.readout,
            delta=Frozen(),
        )

    @property
    def differs_from_the_backbone(self) -> bool:
        """Whether the backbone alone could answer too, and would answer otherwise."""
        changed = bool(self.placement.length) or self.delta.backbone is not None
        return changed and not isinstance(self.readout, Head)

    @property
    def stored_parameters(self) -> int:
        """How many numbers an artifact keeps: virtual tokens, head, moved weights."""
        kept = [self.reparam(), *self.readout.parameters(), *self.delta.tensors().values()]
        return sum(tensor.numel() for tensor in kept)

    @property
    def trained_parameters(self) -> int:
        """How many numbers are trained now."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    @property
    def trained_share(self) -> float:
        """How many numbers are trained now for each one of the backbone's."""
        return self.trained_parameters / (self.delta.origin or self.backbone).parameters


def compose(
    backbone: Backbone,
    options: MethodOptions,
    readout: Readout | None = None,
    *,
    inside: bool = False,
) -> TunedModel:
    """The model that a method's options name, its virtual tokens at their random start.

    Args:
        backbone: what is tuned.
        options: the method's.
        readout: how the answer is read; by generation if not given.
        inside: whether the text has slots for the virtual tokens, which then stand nowhere else.

    Raises:
        UserError: the options do not go with this backbone.
    """
    readout = readout or Generation()
    delta = _delta(backbone, options.moves, head=isinstance(readout, Head))
    backbone = delta.backbone or backbone
    g = backbone.geometry
    if g.kind == "encoder" and isinstance(readout, Generation):
        raise UserError(
            f"backbone: '{backbone.name}' ({backbone.model.config.model_type}) is an encoder, "
            "which writes no text; name a decoder or an encoder-decoder, or give a task with "
            "labels (task.data.label)"
        )
    if isinstance(readout, Head):
        backbone.check_takes_head()
    between = _between(backbone, options, readout, inside=inside)
    injection = (
        _embeddings(backbone, options, inside=True)
        if inside or (between and options.point.injection == "embeddings")
        else _INJECTIONS[options.point.injection](backbone, options)
    )
    columns = injection.columns(options.length)
    if between and isinstance(injection, Embeddings):
        columns = {"decoder": range(g.vocabulary, g.vocabulary + options.length)}
    positions = "shift" if inside else _positions(backbone, options, columns)
    if g.context is not None and positions == "shift" and options.length >= g.context:
        raise UserError(
            f"method.length: {options.length} virtual tokens leave no room in the {g.context} "
            f"positions of '{backbone.name}'"
        )
    return TunedModel(
        backbone,
        reparam=_reparam(options, injection, g.width),
        injection=injection,
        placement=(InText if inside else Infix if between else Prefix)(
            options.length, positions, columns, backbone.begin, g.first_position
        ),
        readout=readout,
        delta=delta,
    )


def _between(backbone: Backbone, options: MethodOptions, readout: Readout, *, inside: bool) -> bool:
    """Whether virtual tokens are to stand between source and target."""
    if getattr(options, "placement", "prefix") != "infix":
        return False
    if inside:
        raise UserError(
            "method.placement: 'infix', but the virtual tokens stand in the slots of task.input; "
            "leave one of the two out"
        )
    if not isinstance(readout, Generation):
        raise UserError(
            "method.placement: 'infix' stands between a source and the text that is written after "
            "it, but no text is written here; use prefix-tuning or p-tuning-v2"
        )
    if backbone.geometry.kind != "decoder":
        raise UserError(
            f"method.placement: '{backbone.name}' ({backbone.model.config.model_type}) is an "
            f"{backbone.geometry.kind}: source and target stand in two rows, with nothing between "
            "them. Before the target stands prefix-tuning with `sites: [decoder]`"
        )
    return True


def _keys_values(backbone: Backbone, options: MethodOptions) -> Injection:
    g = backbone.geometry
    sites = _sites(backbone, options) or tuple(g.sites)
    chosen: Layers = getattr(options, "layers", None)
    by_site = chosen if isinstance(chosen, Mapping) else dict.fromkeys(sites, chosen)
    for site in by_site:
        if site not in sites:
            raise UserError(f"method.layers: '{site}' is none of the sites {', '.join(sites)}")
    layers = {
        site: _layers(backbone, site, by_site.get(site), g.sites[site].layers) for site in sites
    }
    return KeysValues(g, layers, dropout=getattr(options, "dropout", 0.0))


def _layers(
    backbone: Backbone, site: Site, chosen: Sequence[int] | None, count: int
) -> tuple[int, ...]:
    if chosen is None:
        return tuple(range(count))
    found = sorted({layer % count for layer in chosen if -count <= layer < count})
    if not found or len(found) != len(chosen):
        raise UserError(
            f"method.layers: {list(chosen)} must name at least one layer of the {site} of "
            f"'{backbone.name}', each once, from 0 to {count - 1} or from -{count} to -1"
        )
    if len(found) < count and backbone.geometry.through == "cache":
        raise UserError(
            f"method.layers: '{backbone.name}' ({backbone.model.config.model_type}) takes a prompt "
            "through its cache alone, at all layers; leave `layers` out"
        )
    return tuple(found)


def _sites(backbone: Backbone, options: MethodOptions) -> tuple[Site, ...] | None:
    known = backbone.geometry.sites
    chosen: tuple[Site, ...] | None = getattr(options, "sites", None)
    for site in chosen or ():
        if site not in known:
            raise UserError(
                f"method.sites: '{backbone.name}' ({backbone.model.config.model_type}) has no "
                f"'{site}'{did_you_mean(site, known)}; its sites: {', '.join(known)}"
            )
    return chosen


def _embeddings(backbone: Backbone, options: MethodOptions, *, inside: bool = False) -> Injection:
    if "cross" in (getattr(options, "sites", None) or ()):
        raise UserError(
            "method.sites: 'cross' has no input of its own, so no embeddings can stand in it; "
            "choose among encoder and decoder"
        )
    sites = _sites(backbone, options)
    if inside and sites not in (None, ("encoder",), ("decoder",)[: backbone.begin is None]):
        raise UserError(
            f"method.sites: {', '.join(sites or ())}, but the virtual tokens stand in the slots of "
            "task.input; leave `sites` out"
        )
    return Embeddings(backbone, sites, inside=inside)


def _delta(backbone: Backbone, moves: axes.AnyDelta, *, head: bool) -> Delta:
    match moves:
        case axes.Frozen():
            return Frozen()
        case axes.Full():
            return Full(backbone, head=head)
        case axes.TopLayers(layers=layers):
            return Top(backbone, layers)
        case axes.Biases():
            return BitFit(backbone, head=head)
        case axes.Bottlenecks() as chosen:
            return Adapter(
                backbone,
                reduction=chosen.reduction,
                size=chosen.size,
                activation=chosen.activation,
                layer_norms=chosen.layer_norms,
                head=head,
            )
        case axes.LowRank() as chosen:
            return LoRA(
                backbone,
                rank=chosen.rank,
                alpha=chosen.alpha,
                dropout=chosen.dropout,
                targets=chosen.targets,
                head=head,
            )


_INJECTIONS: dict[str, Callable[[Backbone, MethodOptions], Injection]] = {
    "keys_values": _keys_values,
    "embeddings": _embeddings,
    "text": lambda *_: Text(),
}


def _positions(
    backbone: Backbone, options: MethodOptions, columns: Mapping[Site, Sequence[int]]
) -> PositionRule:
    """The rule that a recipe names, or the one that suits: a decoder's positions shift, as the
    papers and PEFT have it; an encoder keeps all of its own."""
    g, asked = backbone.geometry, options.positions
    if g.kind == "decoder":
        only_shift = options.point.injection == "embeddings" or not g.takes_positions
        allowed: tuple[PositionRule, ...] = ("shift",) if only_shift else ("shift", "keep")
    elif g.takes_positions or (not columns and _whole_decoder(backbone, options)):
        allowed = ("keep", "shift")
    else:
        allowed = ("shift",) if columns else ("keep",)
    if asked == "auto":
        return allowed[0]
    if asked not in allowed:
        raise UserError(
            f"method.positions: '{asked}' is not possible for {options.name} on '{backbone.name}' "
            f"({backbone.model.config.model_type}); only '{allowed[0]}' is"
        )
    return asked


def _whole_decoder(backbone: Backbone, options: MethodOptions) -> bool:
    """Whether all of an encoder-decoder's decoder carries a prefix, and nothing else does: such a
    prefix can lie in its cache, from which it counts positions."""
    chosen = getattr(options, "sites", None), getattr(options, "layers", None)
    return backbone.caches_a_prefix and chosen == (("decoder",), None)


def _reparam(options: MethodOptions, injection: Injection, d: int) -> Reparameterization:
    parts = injection.parts
    if len(parts) == 1:
        return _one(options, parts[0].width, d)
    if not parts:
        return Table(options.length, 0).requires_grad_(False)  # processes wait for all that do
    return Sites({part.site: (part.width, _one(options, part.width, d)) for part in parts})


def _one(options: MethodOptions, width: int, d: int) -> Reparameterization:
    length = options.length
    match options.reparameterization:
        case axes.MLP() as mlp:
            return MLP(
                length,
                width,
                d,
                mlp.hidden,
                fit_steps=mlp.fit_steps,
                fit_learning_rate=mlp.fit_learning_rate,
            )
        case axes.LSTM() as lstm:
            return LSTM(
                length,
                width,
                d,
                lstm.hidden or max(1, d // 2),
                layers=lstm.layers,
                dropout=lstm.dropout,
                fit_steps=lstm.fit_steps,
                fit_learning_rate=lstm.fit_learning_rate,
            )
        case axes.ReluMLP() as relu:
            return ReluMLP(
                length,
                width,
                d,
                relu.hidden or d,
                fit_steps=relu.fit_steps,
                fit_learning_rate=relu.fit_learning_rate,
            )
        case axes.Table() as table:
            return Table(length, width, table.std)
