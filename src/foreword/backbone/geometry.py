"""What a model is made of, found out by running it on two tokens: its sites, layers and shapes.

A family is accepted by what it does, not by its name. A trace tells which attention modules call
the registered function, in which order, and over how many queries and keys; that gives the sites
and layers, and there must be as many as the config says. Then, on a decoder, a check: the model's
own keys and values for a text, put in front as a prompt, must give the logits that the text itself
gives (`Backbone.wrap`).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from foreword.backbone import devices
from foreword.backbone.prompts.carrying import ARGUMENT
from foreword.backbone.prompts.prompt import PLACES, Attend, Place, Prompt, Recorder
from foreword.backbone.shapes import Geometry, Heads, Kind, SiteGeometry, Through
from foreword.common.sites import SITES, Site
from foreword.errors import BackboneError

READ, WRITTEN = 3, 2
"""Tokens of the trace: as many are read as source, or written; different, to tell sites apart."""


@dataclass
class _Tracer(Prompt):
    """Writes down who calls, with what; changes nothing."""

    calls: list[tuple[nn.Module, int, int, Heads]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def attend(
        self,
        inner: Attend,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Any,
        **given: Any,
    ) -> tuple[Tensor, Any]:
        """What comes out without a prompt."""
        if value.shape[:3] != key.shape[:3]:
            raise ValueError("its keys and values differ in their number of heads or positions")
        heads = Heads(key.shape[1], key.shape[3], value.shape[3])
        self.calls.append((module, query.shape[2], key.shape[2], heads))
        return inner(module, query, key, value, mask, **given)


def kind_of(model: PreTrainedModel) -> Kind:
    """What a model is, by its config and head."""
    if model.config.is_encoder_decoder:
        return "encoder-decoder"
    if model.can_generate() or getattr(model.config, "is_decoder", False):
        return "decoder"
    return "encoder"


def example_inputs(model: PreTrainedModel, kind: Kind) -> dict[str, Tensor]:
    """Two or three tokens for every part of a model."""

    def ids(count: int) -> Tensor:
        # Not the padding id, by which some families tell padding.
        pad = getattr(model.config.get_text_config(), "pad_token_id", None)
        first = 2 if pad in (0, 1) else 0
        return torch.arange(first, first + count, device=devices.entry(model))[None]

    read = ids(WRITTEN if kind == "decoder" else READ)
    inputs = {"input_ids": read, "attention_mask": torch.ones_like(read)}
    if kind == "encoder-decoder":
        inputs["decoder_input_ids"] = ids(WRITTEN)
    return inputs


def trace(model: PreTrainedModel, kind: Kind) -> dict[Site, SiteGeometry]:
    """Run a model once; tell its attention modules their places, and return its sites.

    Empty where not every layer called the registered function.
    """
    tracer = _Tracer()
    without_cache = {} if kind == "encoder" else {"use_cache": False}
    try:
        with torch.no_grad():
            model(**example_inputs(model, kind), **without_cache, **{ARGUMENT: tracer})
    except TypeError:
        return {}
    if not tracer.calls:
        return {}
    heads: dict[Site, list[Heads]] = {}
    places: dict[nn.Module, list[Place]] = {}
    for module, queries, keys, own in tracer.calls:
        site = _site(kind, queries, keys)
        known = heads.setdefault(site, [])
        places.setdefault(module, []).append(Place(site, len(known)))
        known.append(own)
    expected = layers_by_config(model, kind)
    if any(len(heads.get(site, ())) != layers for site, layers in expected.items()):
        return {}
    for module, by_place in places.items():
        setattr(module, PLACES, tuple(by_place))
    return {
        site: SiteGeometry(len(heads[site]), tuple(heads[site])) for site in SITES if site in heads
    }


def layers_by_config(model: PreTrainedModel, kind: Kind) -> dict[Site, int]:
    """How many layers the config says each site has."""
    config = model.config
    if kind != "encoder-decoder":
        config = config.get_text_config(decoder=kind == "decoder")
        return {"encoder" if kind == "encoder" else "decoder": config.num_hidden_layers}
    # T5Gemma has a config for each part.
    reads, writes = (getattr(config, part, config) for part in ("encoder", "decoder"))
    decoder = _first(writes, "decoder_layers", "num_decoder_layers", "num_hidden_layers")
    return {
        "encoder": _first(reads, "encoder_layers", "num_hidden_layers"),
        "decoder": decoder,
        "cross": decoder,
    }


def plain_sites(model: PreTrainedModel, kind: Kind) -> dict[Site, SiteGeometry]:
    """The sites of a model into which nothing can be put; its longest list of modules has its
    layers where the config does not say how many there are."""
    try:
        counts = layers_by_config(model, kind)
    except FAILURES:
        lists = [len(one) for one in model.modules() if isinstance(one, nn.ModuleList)]
        sites: tuple[Site, ...] = SITES if kind == "encoder-decoder" else (kind,)
        counts = dict.fromkeys(sites, max(lists, default=1))
    return {site: SiteGeometry(count) for site, count in counts.items()}


def _first(config: Any, *names: str) -> int:
    values: list[int] = [n for name in names if (n := getattr(config, name, None)) is not None]
    return values[0]


def _site(kind: Kind, queries: int, keys: int) -> Site:
    if kind != "encoder-decoder":
        return "encoder" if kind == "encoder" else "decoder"
    if queries == keys:
        return "encoder" if queries == READ else "decoder"
    return "cross"


def cached_sites(model: PreTrainedModel) -> dict[Site, SiteGeometry]:
    """The decoder's site as its cache shows it; empty where there is no such cache."""
    try:
        with torch.no_grad():
            cache = model(**example_inputs(model, "decoder"), use_cache=True).past_key_values
        heads = tuple(
            Heads(one.keys.shape[1], one.keys.shape[3], one.values.shape[3])
            for one in cache.layers
            if one.keys.shape[1] == one.values.shape[1]
        )
    except FAILURES:
        return {}
    if len(heads) != layers_by_config(model, "decoder")["decoder"]:
        return {}
    return {"decoder": SiteGeometry(len(heads), heads)}


def measure(
    model: PreTrainedModel,
    kind: Kind,
    sites: Mapping[Site, SiteGeometry],
    through: Through,
    unfit: str = "",
) -> Geometry:
    """Everything else that a prompt's shape and place depend on.

    Raises:
        ValueError: it is not known which of a decoder's layers see a window alone.
    """
    config = model.config
    if kind == "encoder-decoder":
        config = getattr(config, "encoder", config)
    else:
        config = config.get_text_config(decoder=kind == "decoder")
    table = model.get_input_embeddings()
    vocabulary = table.num_embeddings
    if kind == "encoder-decoder":
        written = model.get_decoder().get_input_embeddings()
        vocabulary = max(vocabulary, written.num_embeddings)
    first = _first_position(model) if kind == "encoder" else 0
    positions = getattr(config, "max_position_embeddings", None)
    if getattr(config, "alibi", False):
        positions = None
    takes = "position_ids" in inspect.signature(model.forward).parameters
    return Geometry(
        kind=kind,
        sites=dict(sites),
        width=table.embedding_dim,
        context=None if positions is None else positions - first,
        vocabulary=vocabulary,
        first_position=first,
        takes_positions=takes and kind != "encoder-decoder",
        through=through,
        slides=through != "nothing" and _slides(model, kind, positions),
        cache=_cache(model) if (kind, through) == ("decoder", "interface") else "heads",
        unfit=unfit,
    )


def _cache(model: PreTrainedModel) -> Literal["heads", "latents", "shared"]:
    """Whether what a decoder's attention gets as keys and values is what its cache keeps."""
    seen = Recorder()
    inputs = {**example_inputs(model, "decoder"), ARGUMENT: seen}
    try:
        with torch.no_grad():
            layers = model(**inputs, use_cache=True).past_key_values.layers
        kept = {
            Place("decoder", layer): (one.keys, one.values)
            for layer, one in enumerate(layers)
            if getattr(one, "keys", None) is not None
        }
        alike = all(
            given.shape == own.shape and torch.equal(given, own.to(given.device))
            for place, sides in kept.items()
            for given, own in zip(seen.found[place], sides, strict=True)
        )
    except FAILURES:  # it has no such cache
        return "latents"
    if not alike or not kept:
        return "latents"
    return "heads" if len(kept) == len(seen.found) else "shared"


def _first_position(model: PreTrainedModel) -> int:
    """The smallest id that an encoder looks up in its table of positions, where it has one."""
    seen: list[int] = []

    def look(module: nn.Module, given: tuple[Any, ...]) -> None:
        del module
        seen.append(int(given[0].min()))

    handles = [
        module.register_forward_pre_hook(look)
        for name, module in model.named_modules()
        if type(module) is nn.Embedding and name.endswith("position_embeddings")
    ]
    try:
        with torch.no_grad():
            model(**example_inputs(model, "encoder"))
    finally:
        for handle in handles:
            handle.remove()
    return min(seen, default=0)


def _slides(model: PreTrainedModel, kind: Kind, positions: int | None) -> bool:
    try:
        seen = [window for window in windows(model) if window is not None]
    except ValueError:
        if kind != "decoder":
            return False
        raise
    return bool(seen) and min(seen) < (positions or 2**62)


def windows(model: PreTrainedModel) -> tuple[int | None, ...]:
    """For each layer how many positions it sees, itself included; None: all.

    Raises:
        ValueError: transformers knows no cache for the model.
    """
    layers = DynamicCache(config=model.config).layers
    kinds = getattr(model.config.get_text_config(decoder=True), "layer_types", None) or layers
    sliding = {
        kind: int(layer.sliding_window)
        for kind, layer in zip(kinds, layers, strict=False)
        if getattr(layer, "is_sliding", False)
    }  # by kind, since a layer that takes the keys of another has no cache of its own
    return tuple(sliding.get(kind) for kind, _ in zip(kinds, layers, strict=False))


def in_chunks(model: PreTrainedModel) -> bool:
    """Whether some layer sees its own chunk of the positions alone, wherever in it a token is."""
    config = model.config.get_text_config(decoder=True)
    return "chunked_attention" in (getattr(config, "layer_types", None) or ())


FAILURES = (
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a forward pass of somebody else's model may raise."""


def first_line(error: Exception) -> str:
    """What kind of error a library raised, and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}{f': {lines[0]}' if lines else ''}"


def check_runs(model: PreTrainedModel, kind: Kind) -> None:
    """Raise BackboneError if a model cannot read a few tokens even without any prompt."""
    try:
        with torch.no_grad():
            model(**example_inputs(model, kind))
    except FAILURES as error:
        raise BackboneError(
            f"backbone family '{model.config.model_type}': transformers {version('transformers')} "
            f"cannot run this model, even without a prompt ({first_line(error)}); check its "
            "config.json, its dtype and the version of transformers that it asks for"
        ) from error


def gap(ours: Tensor, expected: Tensor, *, rounded: bool = False) -> str | None:
    """By how much two ways to the same logits differ; None: as little as the model's floats do.

    Args:
        ours, expected: the logits.
        rounded: what goes through its layers is rounded to 8 bits, by what else is in the batch.
    """
    scale = max(1.0, expected.abs().max().item())
    gap = (ours.float() - expected.float()).abs().max().item()
    tolerance = 1e-4 if ours.dtype in (torch.float32, torch.float64) else 5e-2
    return None if gap <= (0.1 if rounded else tolerance) * scale else f"{gap:.2g}"
