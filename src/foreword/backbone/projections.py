"""The frozen layers that make an attention's keys and values, found out by running a model.

Rows of one token each stand at the first position, where a rotation turns nothing. Of the modules
inside an attention, the one that makes its keys is the one whose output holds the very numbers that
the attention takes; in which columns, the numbers say, so that a layer that makes queries, keys and
values together (GPT-2) is found as one that makes keys alone (Llama). An attention whose keys no
layer makes by itself, such as one that norms them, has no projections.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn

from foreword.backbone.call import Call
from foreword.backbone.layout import Layout
from foreword.backbone.prompts.prompt import PLACES, Place, Recorder
from foreword.common.sites import Site
from foreword.errors import BackboneError

if TYPE_CHECKING:
    from foreword.backbone.model import Backbone

ROWS = 4
"""Rows that are run: by so many numbers each column is told from the others."""


@dataclass(frozen=True, eq=False)
class Projection:
    """What makes keys, or values, of the states that an attention reads.

    Attributes:
        layer: a linear layer.
        columns: `[kv_heads · dim]`, where its output holds them.
        heads: kv_heads.
    """

    layer: nn.Module
    columns: Tensor
    heads: int

    def __call__(self, states: Tensor) -> Tensor:
        """Keys or values `[P, kv_heads, dim]` of states `[P, d]`, with gradient."""
        made: Tensor = self.layer(states[None])[0]
        wanted = made.index_select(1, self.columns.to(made.device))
        return wanted.view(len(wanted), self.heads, -1)


@dataclass(frozen=True, eq=False)
class KeyValueProjections:
    """The projections of one attention.

    Attributes:
        keys, values: its projections.
        width: d of the states.
        heads: of its queries.
        dtype: of the states.
        device: where it lies.
    """

    keys: Projection
    values: Projection
    width: int
    heads: int
    dtype: torch.dtype
    device: torch.device

    def of(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of states `[P, d]`."""
        states = states.to(device=self.device, dtype=self.dtype)
        return self.keys(states), self.values(states)


def find(backbone: Backbone, sites: Sequence[Site]) -> dict[Site, list[KeyValueProjections]]:
    """The projections of all layers of some sites.

    Raises:
        BackboneError: an attention has none, or none that is reached.
    """
    if backbone.geometry.through != "interface":
        _refuse(backbone, "its attention cannot be reached, only its cache")
    with torch.no_grad():
        seen = _run(backbone, [[token] for token in range(2, 2 + ROWS)])
    by_site: dict[Site, list[KeyValueProjections]] = {}
    for site in sites:
        layers = range(backbone.geometry.sites[site].layers)
        by_site[site] = [_of_place(backbone, seen, Place(site, layer)) for layer in layers]
        if len({(one.width, one.heads, len(one.keys.columns)) for one in by_site[site]}) > 1:
            _refuse(backbone, f"the layers of its {site} differ in their widths")
    return by_site


def states(backbone: Backbone, sites: Sequence[Site], ids: list[int]) -> dict[Site, Tensor]:
    """What the projections read of a text: by site, `[layers, T, d]`."""
    by_site = find(backbone, sites)
    with torch.no_grad():
        seen = _run(backbone, [ids])
    read: dict[Site, Tensor] = {}
    for site, projections in by_site.items():
        each = [
            next(
                given
                for module, given, _ in seen.outputs[Place(site, layer)]
                if module is one.keys.layer
            )[0, -len(ids) :]
            for layer, one in enumerate(projections)
        ]
        read[site] = torch.stack([one.to(each[0].device) for one in each])
    return read


class _Seen(Recorder):
    """What went into each attention and came out of the modules inside.

    Attributes:
        heads: by place, of the queries.
        outputs: by place, modules with what each took and gave, both `[B, T, …]`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.heads: dict[Place, int] = {}
        self.calls: dict[nn.Module, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        self.outputs: dict[Place, list[tuple[nn.Module, Tensor, Tensor]]] = {}

    def enter(
        self,
        place: Place,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Any,
        bias: Tensor | None,
        given: Mapping[str, Any],
    ) -> tuple[Tensor, Tensor, Any, Tensor | None]:
        """What came in."""
        self.heads[place] = query.shape[1]
        return super().enter(place, query, key, value, mask, bias, given)


def _run(backbone: Backbone, rows: Sequence[Sequence[int]]) -> _Seen:
    seen, thread = _Seen(), threading.get_ident()

    def look(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        ours = threading.get_ident() == thread
        if ours and given and isinstance(given[0], Tensor) and isinstance(output, Tensor):
            seen.calls[module].append((given[0].detach(), output.detach()))

    attentions = [module for module in backbone.model.modules() if hasattr(module, PLACES)]
    begin = backbone.begin
    source = None if begin is None else Layout.of(rows)
    before = () if begin is None or len(rows) > 1 else begin
    first = backbone.geometry.first_position
    read = Layout.of([[*before, *row] for row in rows], source=source, first_position=first)
    with ExitStack() as stack:
        for attention in attentions:
            for module in attention.modules():
                stack.callback(module.register_forward_hook(look).remove)
        backbone.output(Call(read.to(backbone.device), seen), body=True)
    for attention in attentions:
        places: tuple[Place, ...] = getattr(attention, PLACES)
        for number, place in enumerate(places):
            seen.outputs[place] = [
                (module, *seen.calls[module][number])
                for module in attention.modules()
                if len(seen.calls[module]) == len(places)
            ]
    return seen


def _of_place(backbone: Backbone, seen: _Seen, place: Place) -> KeyValueProjections:
    keys, values = (side.flatten(1) for side in seen.found[place])
    heads = seen.found[place][0].shape[1]
    made: list[tuple[Projection, Tensor]] = []
    for what, wanted in (("values", values), ("keys", keys)):
        for module, given, output in seen.outputs[place]:
            if given.ndim != 3 or output.ndim != 3 or len(output) != len(wanted):
                continue
            if made and not (given.shape == made[0][1].shape and torch.equal(given, made[0][1])):
                continue
            columns = _columns(output[:, -1], wanted)
            if columns is not None:
                made.append((Projection(module, columns, heads), given))
                break
        else:
            _refuse(
                backbone,
                f"no linear layer makes the {what} of layer {place.layer} of its {place.site} by "
                "itself (they are normed or scaled, or made of latents)",
            )
    (values_by, given), (keys_by, _) = made
    return KeyValueProjections(
        keys_by, values_by, given.shape[-1], seen.heads[place], given.dtype, given.device
    )


def _columns(output: Tensor, wanted: Tensor) -> Tensor | None:
    """Which columns of `[B, w]` are those of `[B, n]`; None where they are not all there."""
    if output.shape == wanted.shape and torch.equal(output, wanted):
        return torch.arange(output.shape[1])
    # Equal columns give equal sums; other ones do not, but by an accident that the check finds.
    weights = torch.arange(1, len(output) + 1, dtype=torch.float64).sqrt()[:, None]
    known, sought = (
        (side.double().cpu() * weights).sum(0).contiguous() for side in (output, wanted)
    )
    ordered, order = known.sort()
    at = torch.searchsorted(ordered, sought).clamp(max=len(ordered) - 1)
    columns = order[at]
    there = torch.equal(output[:, columns.to(output.device)], wanted)
    return columns if there else None


def _refuse(backbone: Backbone, reason: str) -> NoReturn:
    raise BackboneError(
        f"backbone '{backbone.name}' ({backbone.model.config.model_type}) cannot carry prompts "
        f"whose keys and values its own projections make: {reason}; use prefix-tuning"
    )
