"""Beam search by transformers' own `generate`, so that neither padding nor a batch-mate has a say
in an answer.

transformers' own penalties look at whole rows, padding included, and its own stop strings at input
and answer together; both are given here what they are meant to look at.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from foreword.backbone.call import Call, in_the_midst, way, whole_mask
from foreword.backbone.decoding.choosing import penalties, real_tokens
from foreword.backbone.decoding.options import Decoding
from foreword.backbone.layout import Layout
from foreword.backbone.model import Backbone
from foreword.backbone.prompts import cache
from foreword.backbone.prompts.carrying import carrying
from foreword.backbone.prompts.key_values import KeyValues
from foreword.backbone.prompts.prompt import Prompt
from foreword.backbone.seeding import drawing_from
from foreword.backbone.silence import quiet
from foreword.backbone.text.tokens import Tokens
from foreword.errors import UserError


@torch.no_grad()
def search(
    backbone: Backbone, call: Call, how: Decoding, seed: int | None = None
) -> list[list[int]]:
    """The best of several beams for every row; returns the new tokens, end token left off.

    Args:
        backbone: decodes.
        call: a decoder's rows are left-padded; an encoder-decoder's hold the start of the answer,
            and their `source` the question.
        how: decoding.
        seed: of all draws; from torch's random state if not given.
    """
    if backbone.reads_anew and call.rows > 1:  # it may not know padding
        alone = [_unpadded(call, row) for row in range(call.rows)]
        return [ids for one in alone for ids in search(backbone, one, how, seed)]
    layout, model = call.layout, backbone.model
    config = generation_config(backbone.tokens, how)
    given, carried = arguments(backbone, call, how.num_beams)
    given["generation_config"] = config
    given |= watch(backbone.tokens, layout, how, vocabulary=backbone.geometry.vocabulary)
    if layout.source is not None:
        config.decoder_start_token_id = int(layout.input_ids[0, 0])
    drawing = nullcontext() if seed is None or not how.do_sample else drawing_from(seed)
    with (
        quiet(),
        backbone.turn,
        backbone.looking_up(call.prompt),
        carrying(model, carried),
        drawing,
    ):
        output = model.generate(**given)
    new = output[:, layout.input_ids.shape[1] :].tolist()
    return [until_end(row, backbone.tokens.eos_id) for row in new]


def _unpadded(call: Call, row: int) -> Call:
    """A decoder's row alone."""
    one = call.taken(torch.tensor([row]))
    ids = one.layout.input_ids[one.layout.attention_mask].tolist()
    return Call(Layout.of([ids]).to(call.layout.input_ids.device), one.prompt)


@torch.no_grad()
def write_by_transformers(
    backbone: Backbone, call: Call, settings: GenerationConfig, given: Mapping[str, Any]
) -> Any:
    """transformers' own `generate` with its own settings, for rows with their prompts.

    Args:
        backbone: decodes.
        call: as in `search`.
        settings: what holds where `given` says nothing.
        given: arguments of `generate` beside the rows.

    Returns:
        What `generate` returns.

    Raises:
        UserError: the prompt lies in the cache, which is asked for to be another one.
    """

    def number(name: str) -> int:
        return int(given.get(name) or getattr(settings, name, None) or 1)

    other = sorted(OTHER_CACHES & given.keys())
    if given.get("use_cache") is False:
        other.append("use_cache")
    if other and backbone.geometry.through == "cache":
        raise UserError(
            f"generate: {other[0]}: the prompt of '{backbone.name}' "
            f"({backbone.model.config.model_type}) lies in the cache; leave it out"
        )
    times = max(number("num_beams"), number("num_return_sequences"))
    rows, carried = arguments(backbone, call, times, in_cache=not other)
    given = {**rows, **given}
    if call.layout.source is not None:
        given["decoder_start_token_id"] = int(call.layout.input_ids[0, 0])
    with backbone.turn, backbone.looking_up(call.prompt), carrying(backbone.model, carried):
        return backbone.model.generate(**given)


OTHER_CACHES = frozenset({"assistant_model", "cache_implementation", "prompt_lookup_num_tokens"})
"""Arguments of `generate` by which it makes a cache of its own, or cuts one that it has."""


def arguments(
    backbone: Backbone, call: Call, times: int, *, in_cache: bool = True
) -> tuple[dict[str, Any], Prompt | None]:
    """What transformers' `generate` gets for a call, and the prompt that each of its forward passes
    has with it.

    Args:
        backbone: decodes.
        call: as in `search`.
        times: how many rows `generate` makes of each.
        in_cache: whether the prompt may lie in the cache that `generate` goes on with.
    """
    layout, model = call.layout, backbone.model
    given: dict[str, Any] = {}
    if layout.source is not None:
        given |= {
            "input_ids": layout.source.input_ids,  # read already; they say rows and device
            "encoder_outputs": backbone.encode(call),
            "attention_mask": layout.source.attention_mask.long(),
            "decoder_input_ids": layout.input_ids,
            "past_key_values": cache.empty(),
        }
    else:
        mask = layout.attention_mask.long()
        given |= {"input_ids": layout.input_ids, "attention_mask": mask}
        if backbone.geometry.takes_positions:
            given["position_ids"] = layout.position_ids
    if backbone.reads_anew:
        given["use_cache"] = False
    kind, _ = way(backbone.geometry, call)
    front, cached = call.front(), cacheable(backbone, call) if in_cache else None
    carried = None if call.prompt is None else call.prompt.repeated(times)
    rows = layout.rows * times
    if kind == "between":
        past = backbone.past(call)
        own, midst = in_the_midst(backbone.geometry, call)
        own = None if own is None else own.repeated(times)
        given["past_key_values"] = cache.fill(model, own, rows=rows, past=past)
        given["attention_mask"] = whole_mask(call, virtual=midst is None).long()
        carried = None if midst is None else carried
    elif kind == "start":
        assert front is not None
        begun = cache.fill(model, front.repeated(times), rows=rows)
        given["past_key_values"], carried = cache.empty(begun), None
    elif cached is not None:
        given["past_key_values"] = cache.fill(model, cached.repeated(times), rows=rows)
        given["attention_mask"] = whole_mask(call).long()
        carried = None
    if carried is not None and not carried.sites:
        carried = None
    return given, carried


def cacheable(backbone: Backbone, call: Call) -> KeyValues | None:
    """A decoder's virtual tokens, if they can lie in the model's cache from the start, so that no
    step pays for them again: not in a cache that forgets or that holds no keys and
    values (latent attention), nor for some layers alone, nor with a
    softmax of their own."""
    g, tokens = backbone.geometry, call.front()
    if g.kind != "decoder" or tokens is None:
        return None
    whole = all(
        len(member.layers) == g.main.layers and member.gates is None for member in tokens.prompts
    )
    lasting = whole and g.caches_heads and not g.slides
    return tokens if g.through == "cache" or lasting else None


def until_end(ids: list[int], end: int) -> list[int]:
    """Tokens before the first end token."""
    return ids[: ids.index(end)] if end in ids else ids


def generation_config(tokens: Tokens, how: Decoding) -> GenerationConfig:
    """What transformers' `generate` does by itself."""
    options: dict[str, Any] = {
        "max_new_tokens": how.max_new_tokens,
        "num_beams": how.num_beams,
        "do_sample": how.do_sample,
        "eos_token_id": tokens.eos_id,
        "pad_token_id": tokens.pad_id,
        "bos_token_id": tokens.tokenizer.bos_token_id,
    }
    if how.do_sample:
        options |= {"temperature": how.temperature, "top_p": how.top_p, "top_k": how.top_k}
    options["length_penalty"] = how.length_penalty
    return GenerationConfig(**options)


def watch(tokens: Tokens, layout: Layout, how: Decoding, *, vocabulary: int) -> dict[str, Any]:
    """Penalties and stop words, as arguments of `generate`; ids from `vocabulary` on are virtual
    tokens, which no penalty knows."""
    extra: dict[str, Any] = {}
    if how.stop:
        words = _StopWords(tokens, how.stop, layout.input_ids.shape[1])
        extra["stopping_criteria"] = StoppingCriteriaList([words])
    processors = penalties(how)
    if processors:
        read = [row for row in real_tokens(layout, vocabulary) for _ in range(how.num_beams)]
        own = _WithoutPadding(processors, read, layout.input_ids.shape[1])
        extra["logits_processor"] = LogitsProcessorList([own])
    return extra


class _StopWords(StoppingCriteria):  # type: ignore[misc]
    """Ends a row at a stop word in its answer; the input's own text does not count."""

    def __init__(self, tokens: Tokens, stops: tuple[str, ...], start: int) -> None:
        self.tokens, self.stops, self.start = tokens, stops, start

    def __call__(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:  # noqa: ARG002
        texts = [self.tokens.text(row) for row in ids[:, self.start :].tolist()]
        return torch.tensor(
            [any(stop in text for stop in self.stops) for text in texts], device=ids.device
        )


class _WithoutPadding(LogitsProcessor):  # type: ignore[misc]
    """Processors that look at the tokens so far, shown each row's own: what it read, and what it
    wrote after the first `start` columns."""

    def __init__(self, processors: list[LogitsProcessor], read: list[Tensor], start: int) -> None:
        self.processors, self.read, self.start = processors, read, start

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        rows = []
        for row, read in enumerate(self.read):
            one = scores[row : row + 1]
            ids = torch.cat([read, input_ids[row, self.start :]])[None]
            for processor in self.processors:
                one = processor(ids, one)
            rows.append(one)
        return torch.cat(rows)
