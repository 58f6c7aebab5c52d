"""The last layer at the positions whose output is read, and at no other.

Of the other positions nothing is needed there but their keys and values. So the layer is entered
twice: once with all positions, up to its attention, which keeps keys and values and goes no
further; and once with the positions that are read, whose queries meet the keys and values that were
kept. Whatever a family does between (norms, rotations, projections) it does itself.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from foreword.backbone import devices, geometry
from foreword.backbone.leaving_out import saves
from foreword.backbone.modules import checkpointing, sharding, sublayers
from foreword.backbone.modules.forwards import Forward, Shared
from foreword.backbone.prompts.queries import Entered, Kept, entering
from foreword.backbone.shapes import Geometry
from foreword.errors import BackboneError

WORTH = 0.6
"""Up to this share of all positions; keys and values alone are a fourth of a layer."""
_wraps = Shared()
_layers: weakref.WeakKeyDictionary[PreTrainedModel, nn.Module | None] = weakref.WeakKeyDictionary()


class _Here(threading.local):
    """The flat positions that this thread reads of the model that it runs."""

    reading: Tensor | None = None


_here = _Here()


@contextmanager
def read_at(model: PreTrainedModel, measured: Geometry, reading: Tensor | None) -> Iterator[None]:
    """While it lasts, the last layer may give 0 at positions that are not read.

    Args:
        model: a decoder or an encoder.
        measured: its measures.
        reading: flat positions `[N]` of a batch `[B, T]`; none: all.
    """
    layer = None if reading is None or not saves("last_layer") else _layer(model, measured)
    if layer is None or checkpointing.recomputes(model) or _drops(layer):
        yield
        return
    with _wraps.on(model, [layer], _twice), _reading(reading):
        yield


@contextmanager
def _reading(at: Tensor | None) -> Iterator[None]:
    before, _here.reading = _here.reading, at
    try:
        yield
    finally:
        _here.reading = before


def _twice(forward: Forward) -> Forward:
    """A layer that is entered twice where that is less work."""

    def run(*args: Any, **kwargs: Any) -> Any:
        reading, _here.reading = _here.reading, None
        states = args[0] if args else kwargs.get("hidden_states")
        if reading is None or not isinstance(states, Tensor) or states.ndim != 3:
            return forward(*args, **kwargs)
        rows, tokens, width = states.shape
        places = torch.unique(reading.to(states.device))
        columns, real = _columns(places, rows, tokens)
        if columns.shape[1] > WORTH * tokens:
            return forward(*args, **kwargs)
        entered = Entered(columns, tokens)
        with entering(entered):
            try:
                return forward(*args, **kwargs)  # it has no such attention
            except Kept:
                output = forward(*entered.chosen(args), **entered.chosen(kwargs))
        first = output if isinstance(output, Tensor) else output[0]
        whole = first.new_zeros(rows * tokens, width)
        whole = whole.index_copy(0, places, first[real]).unflatten(0, (rows, tokens))
        return whole if isinstance(output, Tensor) else (whole, *output[1:])

    return run


def _columns(places: Tensor, rows: int, tokens: int) -> tuple[Tensor, Tensor]:
    """Flat positions, in their order, by row: `[B, R]`, and which of them are no repetition."""
    row = places // tokens
    counts = torch.bincount(row, minlength=rows)
    most = int(counts.max())
    nth = torch.arange(len(places), device=places.device) - (counts.cumsum(0) - counts)[row]
    some = places.new_zeros(rows)
    some[row] = places % tokens
    columns = some[:, None].repeat(1, most)
    columns[row, nth] = places % tokens
    return columns, torch.arange(most, device=places.device) < counts[:, None]


def _drops(layer: nn.Module) -> bool:
    """Whether something in a layer drops numbers at random: of fewer positions it drops others."""
    return any(
        part.training and (getattr(part, "p", 0) or getattr(part, "share", 0))
        for part in layer.modules()
    )


def _layer(model: PreTrainedModel, measured: Geometry) -> nn.Module | None:
    """The last layer, where its outputs at some positions are those among all: this is tried on a
    few tokens, once."""
    if model not in _layers:
        _layers[model] = None  # while it is tried, and where it fails
        _layers[model] = _tried(model, measured)
    return _layers[model]


def _tried(model: PreTrainedModel, measured: Geometry) -> nn.Module | None:
    apart = devices.is_spread(model) or sharding.is_sharded(model)
    whole = getattr(model, "hf_quantizer", None) is None
    if measured.kind == "encoder-decoder" or measured.through != "interface" or apart or not whole:
        return None
    try:
        layer = sublayers.layers_of(model, measured)[0][-1]
    except BackboneError:
        return None
    given = {
        name: one.repeat(1, 3)
        for name, one in geometry.example_inputs(model, measured.kind).items()
    }
    last = given["input_ids"].shape[1] - 1

    def states() -> Tensor:
        cache = {} if measured.kind == "encoder" else {"use_cache": False}
        output: Tensor = model.base_model(**given, **cache).last_hidden_state
        return output[0, [0, last]]

    with torch.no_grad():
        expected = states()
        try:
            with _wraps.on(model, [layer], _twice), _reading(torch.tensor([0, last])):
                own = states()
        except geometry.FAILURES:
            return None
    return layer if geometry.gap(own, expected, rounded=False) is None else None
