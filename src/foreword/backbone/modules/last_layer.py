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
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
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
from foreword.common.memory import ran_out
from foreword.errors import BackboneError

WORTH = 0.6
"""Up to this share of a batch's columns, by the row of which most positions are read: keys and
values alone are a fourth of a layer, and rows are padded to that one."""
_wraps = Shared()
_layers: weakref.WeakKeyDictionary[PreTrainedModel, nn.Module | None] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class _Read:
    """The positions of a batch that are read.

    Attributes:
        size: B and T.
        places: flat positions `[N]`, each once, in their order.
        columns: `[B, R]`, by row; one of them stands several times where a row has fewer.
        slots: where each of the N stands in `columns`, flat.
    """

    size: tuple[int, int]
    places: Tensor
    columns: Tensor
    slots: Tensor

    @staticmethod
    def of(reading: Tensor, size: tuple[int, int]) -> _Read | None:
        """None where so many are read that a layer is entered twice in vain."""
        rows, tokens = size
        places = torch.unique(reading)
        row = places // tokens
        counts = torch.bincount(row, minlength=rows)
        most = int(counts.max())
        if not 0 < most <= WORTH * tokens:
            return None
        nth = torch.arange(len(places), device=places.device) - (counts.cumsum(0) - counts)[row]
        some = places.new_zeros(rows)
        some[row] = places % tokens
        columns = some[:, None].repeat(1, most)
        columns[row, nth] = places % tokens
        return _Read(size, places, columns, row * most + nth)


class _Here(threading.local):
    """What this thread reads of the model that it runs, until its last layer is entered; and
    whether the one before was entered twice."""

    read: _Read | None = None
    twice: bool = False


_here = _Here()


def read_at(
    model: PreTrainedModel, measured: Geometry, reading: Tensor | None, size: tuple[int, int]
) -> AbstractContextManager[None]:
    """While it lasts, the last layer may give 0 at positions that are not read.

    The first call for a model tries that on a few tokens, and so comes before anything else that is
    set up for a forward pass.

    Args:
        model: whatever it is; an encoder-decoder, and others that cannot do it, run as ever.
        measured: its measures.
        reading: flat positions `[N]` of a batch; none: all.
        size: of the batch, B and T.
    """
    if reading is None or not saves("last_layer") or checkpointing.recomputes(model):
        return nullcontext()
    layer = _layer(model, measured)
    if layer is None or _is_apart(model) or _drops(layer):
        return nullcontext()
    read = _Read.of(reading, size)
    return nullcontext() if read is None else _reading(layer, read)


@contextmanager
def _reading(layer: nn.Module, read: _Read) -> Iterator[None]:
    with _wraps.on([layer], _twice):
        before, _here.read = _here.read, read
        try:
            yield
        finally:
            _here.read = before


def _twice(_: nn.Module, forward: Forward) -> Forward:
    """A layer that is entered twice."""

    def run(*args: Any, **kwargs: Any) -> Any:
        read, _here.read, _here.twice = _here.read, None, False
        states = args[0] if args else kwargs.get("hidden_states")
        if read is None or not isinstance(states, Tensor) or states.shape[:-1] != read.size:
            return forward(*args, **kwargs)
        entered = Entered(read.columns.to(states.device), states.shape[1])
        with entering(entered):
            try:
                return forward(*args, **kwargs)  # it has no such attention
            except Kept:
                _here.twice = True
            output = forward(*entered.chosen(args), **entered.chosen(kwargs))
        first = output if isinstance(output, Tensor) else output[0]
        taken = first.flatten(0, 1).index_select(0, read.slots.to(first.device))
        whole = first.new_zeros(states.shape[0] * states.shape[1], first.shape[-1])
        whole = whole.index_copy(0, read.places.to(first.device), taken)
        whole = whole.view(*read.size, first.shape[-1])
        return whole if isinstance(output, Tensor) else (whole, *output[1:])

    return run


def _drops(layer: nn.Module) -> bool:
    """Whether something in a layer drops numbers at random: of fewer positions it drops others."""
    shares = (
        share
        for part in layer.modules()
        if part.training
        for share in (getattr(part, "p", 0), getattr(part, "share", 0))
    )
    return any(isinstance(share, int | float) and share > 0 for share in shares)


def _is_apart(model: PreTrainedModel) -> bool:
    """Whether something beside the model moves what its layers take."""
    return devices.is_spread(model) or sharding.is_sharded(model)


def _layer(model: PreTrainedModel, measured: Geometry) -> nn.Module | None:
    """The last layer, where its outputs at some positions are those among all: this is tried on a
    few tokens, once."""
    if model not in _layers:
        if _is_apart(model):
            return None
        _layers[model] = _tried(model, measured)
    return _layers[model]


def _tried(model: PreTrainedModel, measured: Geometry) -> nn.Module | None:
    routed = getattr(model.config.get_text_config(), "output_router_logits", False)  # of all tokens
    whole = getattr(model, "hf_quantizer", None) is None
    if measured.kind == "encoder-decoder" or measured.through != "interface" or routed or not whole:
        return None
    try:
        layer = sublayers.layers_of(model, measured)[0][-1]
    except BackboneError:
        return None
    few = geometry.example_inputs(model, measured.kind)
    given = {name: one.repeat(2, 3) for name, one in few.items()}
    given["attention_mask"][1, :2] = 0
    rows, tokens = given["input_ids"].shape
    reading = torch.tensor([0, tokens - 1, rows * tokens - 1], device=given["input_ids"].device)
    read = _Read.of(reading, (rows, tokens))
    assert read is not None, "two of six positions or more"
    cache = {} if measured.kind == "encoder" else {"use_cache": False}

    def states() -> Tensor:
        output: Tensor = model.base_model(**given, **cache).last_hidden_state
        return output.flatten(0, 1)[reading]

    with torch.no_grad(), torch.autocast(reading.device.type, enabled=False):
        try:
            expected = states()
            with _reading(layer, read):
                own = states()
        except geometry.FAILURES as error:
            if ran_out(error):
                raise
            return None
    return layer if _here.twice and geometry.gap(own, expected) is None else None
