"""The reference: prompts put into transformers' own models by hand, one row without padding.

Written without foreword's attention functions, masks, layout, places or decoding. Keys and values
are concatenated inside the `eager_attention_forward` of the family's own modeling module; which
layer of which site a call is, its module's name says. Embeddings are concatenated outside of the
model and go in as `inputs_embeds`.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel

KeysValues = Mapping[str, Mapping[int, tuple[Tensor, Tensor]]]
"""By site and layer, keys and values `[P, kv_heads, …_dim]`."""


class ExactFloat64(TorchFunctionMode):
    """Families that compute a norm, a softmax or rotations in float32, whatever their weights are,
    do it in float64: a difference of one bit is then not blown up to one of float32."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        args = [torch.float64 if arg is torch.float32 else arg for arg in args]
        kwargs = {
            name: torch.float64 if arg is torch.float32 else arg
            for name, arg in (kwargs or {}).items()
        }
        return func(*args, **kwargs)


def exact(dtype: torch.dtype) -> AbstractContextManager[Any]:
    """While it lasts, what is float64 is so throughout: of other shapes a product may differ by one
    bit, which a norm in float32 blows up."""
    return ExactFloat64() if dtype == torch.float64 else nullcontext()


def prefix_logits(
    model: PreTrainedModel,
    prefix: KeysValues,
    ids: list[int],
    *,
    decoder_ids: list[int] | None = None,
    first_position: int | None = None,
) -> Tensor:
    """Logits `[T, vocabulary]` with keys and values before those of every layer; the last states
    `[T, d]` of a model without a head.

    Args:
        model: a plain one; its attention is set to "eager".
        prefix: what is put in front.
        ids: what is read.
        decoder_ids: what the decoder of an encoder-decoder reads.
        first_position: the position id of the first real token; the model's own if not given.
    """
    given = _given(model, ids, decoder_ids)
    if first_position is not None:
        given["position_ids"] = torch.arange(first_position, first_position + len(ids))[None]
    model.set_attn_implementation("eager")
    with torch.no_grad(), in_front(model, prefix):
        output = model(input_ids=torch.tensor([ids]), **given)
    return output["logits" if "logits" in output else "last_hidden_state"][0]


def keys_values(
    model: PreTrainedModel, ids: list[int], *, decoder_ids: list[int] | None = None
) -> KeysValues:
    """The model's own for a text, as its attention gets them: `[T, kv_heads, …_dim]`."""
    found: dict[str, dict[int, tuple[Tensor, Tensor]]] = {}
    model.set_attn_implementation("eager")
    with torch.no_grad(), in_front(model, {}, kept=found):
        model(input_ids=torch.tensor([ids]), **_given(model, ids, decoder_ids))
    return found


def cached_logits(
    model: PreTrainedModel,
    prefix: KeysValues,
    ids: list[int],
    *,
    first_position: int | None = None,
    decoder_ids: list[int] | None = None,
) -> Tensor:
    """The same by a cache of the decoder that is filled by hand: for decoders that have no function
    of attention, and for encoder-decoders whose answer has positions after the prefix."""
    if decoder_ids is not None:
        return _cached_answer(model, prefix, ids, decoder_ids)
    cache = DynamicCache(config=model.config)
    for layer, (keys, values) in prefix["decoder"].items():
        cache.update(keys.transpose(0, 1)[None], values.transpose(0, 1)[None], layer)
    whole = cache.get_seq_length() + len(ids)
    given: dict[str, Any] = {"attention_mask": torch.ones(1, whole, dtype=torch.long)}
    if first_position is not None:
        given["position_ids"] = torch.arange(first_position, first_position + len(ids))[None]
    with torch.no_grad():
        return model(
            input_ids=torch.tensor([ids]), past_key_values=cache, use_cache=True, **given
        ).logits[0]


def _cached_answer(
    model: PreTrainedModel, prefix: KeysValues, ids: list[int], decoder_ids: list[int]
) -> Tensor:
    cache = DynamicCache()
    for layer, (keys, values) in prefix["decoder"].items():
        cache.update(keys.transpose(0, 1)[None], values.transpose(0, 1)[None], layer)
    whole = cache.get_seq_length() + len(decoder_ids)
    with torch.no_grad():
        return model(
            input_ids=torch.tensor([ids]),
            decoder_input_ids=torch.tensor([decoder_ids]),
            decoder_attention_mask=torch.ones(1, whole, dtype=torch.long),
            past_key_values=EncoderDecoderCache(cache, DynamicCache()),
            use_cache=False,
        ).logits[0]


def embeddings_logits(
    model: PreTrainedModel,
    rows: Mapping[str, Tensor],
    ids: list[int],
    *,
    decoder_ids: list[int] | None = None,
    position_ids: list[int] | None = None,
    seen: int = 0,
) -> Tensor:
    """Logits `[T, vocabulary]` of the real tokens after embeddings `[P, width]`.

    Args:
        model: a plain one.
        rows: by site, what stands in front of its input.
        ids: what is read.
        decoder_ids: what the decoder of an encoder-decoder reads.
        position_ids: of virtual and real tokens, where the model's own are not meant.
        seen: how many columns in front are seen from beyond a sliding window too.
    """
    model.set_attn_implementation("eager")
    table = model.get_input_embeddings()
    text = table(torch.tensor(ids))
    front = rows.get("encoder" if decoder_ids is not None else next(iter(rows)))
    whole = text if front is None else torch.cat([front, text])
    given: dict[str, Any] = {"inputs_embeds": whole[None]}
    given |= by_word(model, [None] * (len(whole) - len(ids)) + ids)
    if position_ids is not None:
        given["position_ids"] = torch.tensor([position_ids])
    own = len(ids)
    if decoder_ids is not None:
        own = len(decoder_ids)
        written = _decoder_table(model)(torch.tensor(decoder_ids))
        if "decoder" in rows:
            written = torch.cat([rows["decoder"], written])
        given["decoder_inputs_embeds"] = written[None]
    with torch.no_grad(), in_front(model, {}, seen) if seen else nullcontext():
        return model(**given).logits[0, -own:]


def by_word(model: PreTrainedModel, words: Sequence[int | None]) -> dict[str, Tensor]:
    """What Gemma's layers add to their states by the word; padding's where there is none."""
    if not getattr(model.config, "hidden_size_per_layer_input", None):
        return {}
    ids = [model.config.pad_token_id if word is None else word for word in words]
    return {"per_layer_inputs": model.base_model.get_per_layer_inputs(torch.tensor([ids]))}


def _given(model: PreTrainedModel, ids: list[int], decoder_ids: list[int] | None) -> dict[str, Any]:
    given: dict[str, Any] = {"attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
    if decoder_ids is not None:
        given |= {"decoder_input_ids": torch.tensor([decoder_ids]), "use_cache": False}
    elif model.can_generate():
        given["use_cache"] = False
    return given


def _decoder_table(model: PreTrainedModel) -> nn.Module:
    table: nn.Module = model.get_decoder().embed_tokens
    return table


@contextmanager
def in_front(
    model: PreTrainedModel,
    prefix: KeysValues,
    seen: int = 0,
    kept: dict[str, dict[int, tuple[Tensor, Tensor]]] | None = None,
) -> Iterator[None]:
    modeling: Any = sys.modules[type(model).__module__]
    own = modeling.eager_attention_forward
    names = {module: name for name, module in model.named_modules()}
    calls: Counter[str] = Counter()
    encodes_and_decodes = model.config.is_encoder_decoder

    def attend(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        **rest: Any,
    ) -> Any:
        name = names[module]
        site = _site(name) if encodes_and_decodes else next(iter(prefix), "")
        # One module is all of ALBERT's layers, in turn.
        shared = "albert_layer_groups" in name
        layer = calls[name] if shared else int(re.findall(r"\.(\d+)\.", f".{name}.")[0])
        # Each of LongCat's layers has two attentions.
        if second := re.search(r"\.self_attn\.(\d)$", name):
            layer = 2 * layer + int(second[1])
        calls[name] += 1
        if kept is not None:
            own_sides = (key[0].transpose(0, 1), value[0].transpose(0, 1))
            kept.setdefault(site, {})[layer] = own_sides
        if layer in prefix.get(site, {}):
            keys, values = (side.transpose(0, 1)[None] for side in prefix[site][layer])
            length = keys.shape[2]
            key, value = torch.cat([keys, key], dim=2), torch.cat([values, value], dim=2)
            if mask is not None:
                mask = torch.cat([mask.new_zeros(*mask.shape[:3], length), mask], dim=3)
            bias = rest.get("position_bias")
            if bias is not None:
                none = bias.new_zeros(*bias.shape[:3], length)
                rest["position_bias"] = torch.cat([none, bias], dim=3)
        if seen and mask is not None:
            mask = mask.clone()
            mask[..., seen:, :seen] = 0.0
        return own(module, query, key, value, mask, **rest)

    modeling.eager_attention_forward = attend
    try:
        yield
    finally:
        modeling.eager_attention_forward = own
    assert calls, "the family does not call its own eager_attention_forward"


def _site(name: str) -> str:
    if re.search("encoder_attn|EncDecAttention|cross_att", name):
        return "cross"
    return "decoder" if re.search(r"(^|\.)decoder\.", name) else "encoder"
