"""How far a family's logits are from a reference: what the tests check and the tables print.

Every family is measured in the same way; nothing here knows one by name. Gaps are the largest
differences of two models' logits.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import peft
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.integrations.flex_attention import WrappedFlexAttention

from conftest import random_ids, row_logits
from families import by_hand, catalogue
from foreword.axes.injection import Embeddings, Injection, KeysValues
from foreword.axes.placement import Prefix
from foreword.axes.reparam import LSTM
from foreword.backbone import Backbone, Call
from foreword.backbone.layout import Layout, PositionRule
from foreword.backbone.prompts.attention import Attention
from foreword.common.sites import Site

LENGTH, START = 4, 2
TOLERANCE = 1e-9
METHODS = ("prefix-tuning", "prompt-tuning", "p-tuning")
SOURCES = [[3 + token % 500 for token in row] for row in random_ids([14, 5, 9])]
"""Longer than the windows of those families that have one; no special token."""
TARGETS = [source[: 3 + i] for i, source in enumerate(SOURCES)]
TASKS = {
    "decoder": "CAUSAL_LM",
    "encoder": "FEATURE_EXTRACTION",
    "encoder-decoder": "SEQ_2_SEQ_LM",
}


@cache
def backbone_of(family: str, dtype: torch.dtype = torch.float64) -> Backbone:
    """A family's tiny backbone; frozen, so that tests may share it."""
    return catalogue.wrapped(family, dtype)


@cache
def plain_of(family: str, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    """The same weights in transformers' own model."""
    return catalogue.plain_model(family, dtype)


def rules(backbone: Backbone, injection: Injection) -> tuple[PositionRule, ...]:
    """By which rules real text can get its positions; the first is the one of `auto`."""
    g = backbone.geometry
    if g.kind == "decoder":
        free = g.takes_positions and isinstance(injection, KeysValues)
        return ("shift", "keep") if free else ("shift",)
    if g.takes_positions:
        return ("keep", "shift")
    return ("shift",) if injection.columns(1) else ("keep",)


def laid_out(
    backbone: Backbone, injection: Injection, rule: PositionRule, rows: Sequence[int], side: Any
) -> Layout:
    """Some of the sources (and targets) as one batch."""
    g = backbone.geometry
    begin = (START,) if g.kind == "encoder-decoder" else None
    place = Prefix(LENGTH, rule, injection.columns(LENGTH), begin, g.first_position)
    targets = None if begin is None else [TARGETS[row] for row in rows]
    return place.layout([SOURCES[row] for row in rows], targets, side=side)


def gap_to_reference(
    family: str,
    injection: Injection,
    *,
    rows: Tensor | None = None,
    rule: PositionRule | None = None,
    batches: Sequence[Sequence[int]] = ((0, 1, 2), (1,)),
    dtype: torch.dtype = torch.float64,
) -> float:
    """Virtual tokens in batches of mixed lengths here, one row at a time by hand there."""
    backbone, gaps = backbone_of(family, dtype), []
    rule = rule or rules(backbone, injection)[0]
    rows = (random_rows(injection) if rows is None else rows).to(dtype)
    prompt = injection.prompt_of(rows)
    expected = [_reference(family, injection, rows, rule, row) for row in range(len(SOURCES))]
    for side in ("right", "left") if backbone.geometry.keeps_embeddings else ("right",):
        for batch in batches:
            layout = laid_out(backbone, injection, rule, batch, side)
            with torch.no_grad():
                found = backbone.logits(Call(layout, prompt))
            for at, row in enumerate(batch):
                own = row_logits(found, layout, at)[-len(expected[row]) :]
                gaps.append(largest(own - expected[row]))
    return max(gaps)


def gap_of_method(family: str, method: str) -> float:
    """The same for what a method trains: P-Tuning's virtual tokens come from its LSTM."""
    injection = injection_of(backbone_of(family), method)
    rows = None
    if method == "p-tuning":
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(2)
            rows = LSTM(LENGTH, injection.width, injection.width, 8).double()() * 10
    return gap_to_reference(family, injection, rows=rows)


def largest_logit(family: str, dtype: torch.dtype = torch.float64) -> float:
    """Of the bare model."""
    backbone = backbone_of(family, dtype)
    layout = laid_out(backbone, KeysValues(backbone.geometry), "keep", (0,), "right")
    with torch.no_grad():
        return largest(backbone.logits(Call(layout)))


def largest(numbers: Tensor) -> float:
    """The largest absolute value."""
    return numbers.abs().max().item()


def random_rows(injection: Injection) -> Tensor:
    """Virtual tokens `[P, width]` that are far from nothing."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(LENGTH, injection.width, generator=generator, dtype=torch.float64)


def _reference(
    family: str, injection: Injection, rows: Tensor, rule: PositionRule, row: int
) -> Tensor:
    plain = plain_of(family, rows.dtype)
    g, ids = backbone_of(family, rows.dtype).geometry, SOURCES[row]
    decoder_ids = [START, *TARGETS[row]] if g.kind == "encoder-decoder" else None
    if isinstance(injection, KeysValues):
        prefix = by_layer(injection, rows)
        first = g.first_position + LENGTH if rule == "shift" and g.takes_positions else None
        if decoder_ids is not None and rule == "shift":
            return by_hand.cached_logits(plain, prefix, ids, decoder_ids=decoder_ids)
        if g.through == "cache":
            if rule == "keep":
                first = 0
            return by_hand.cached_logits(plain, prefix, ids, first_position=first)
        return by_hand.prefix_logits(
            plain, prefix, ids, decoder_ids=decoder_ids, first_position=first
        )
    named = injection.named(rows)
    shares = {site: named[f"{site}.embeddings"] for site in injection.sites}
    positions = None
    if rule == "keep":
        first = g.first_position
        positions = [first] * LENGTH + list(range(first, first + len(ids)))
    return by_hand.embeddings_logits(
        plain,
        shares,
        ids,
        decoder_ids=decoder_ids,
        position_ids=positions,
        seen=LENGTH if g.kind == "decoder" and g.slides else 0,
    )


def by_layer(injection: KeysValues, rows: Tensor) -> by_hand.KeysValues:
    """Virtual tokens `[P, width]` taken apart by hand: site after site, layer after layer (those
    whose heads have the first layer's shape first), a key and a value for every head."""
    found: dict[str, dict[int, tuple[Tensor, Tensor]]] = {}
    numbers = iter(rows.T)
    for site, layers in injection.layers.items():
        heads = injection.geometry.sites[site].heads
        shapes = list(dict.fromkeys(heads[layer] for layer in layers))
        for layer in sorted(layers, key=lambda layer: (shapes.index(heads[layer]), layer)):
            shape = heads[layer]
            key, value = (
                torch.stack([next(numbers) for _ in range(shape.kv_heads * width)], dim=1).view(
                    -1, shape.kv_heads, width
                )
                for width in (shape.key_dim, shape.value_dim)
            )
            found.setdefault(site, {})[layer] = (key, value)
    assert next(numbers, None) is None
    return found


def injection_of(backbone: Backbone, method: str) -> Injection:
    """What a method's virtual tokens are, at all sites (prefix) or in the encoder's input."""
    if method == "prefix-tuning":
        return KeysValues(backbone.geometry)
    return Embeddings(backbone)


@dataclass(frozen=True)
class Peft:
    """What became of PEFT.

    Attributes:
        gap: of its logits to ours; None where it raises.
        seen: whether its logits are others than without a prompt.
        raised: what it raises.
    """

    gap: float | None
    seen: bool = True
    raised: str = ""


def peft_beside(family: str, method: str) -> Peft:
    """The same virtual tokens here and in PEFT, in one row.

    By the rule for positions that PEFT has on this family; and it is told the sizes where those
    that it takes from the config do not do.
    """
    found = Peft(None)
    for sizes in ({}, _sizes(backbone_of(family), method)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = _peft_beside(family, method, sizes)
            except (IndexError, RuntimeError, ValueError) as error:
                found = found if found.raised else Peft(None, raised=type(error).__name__)
        if found.gap is not None:
            return found
    return found


def _peft_beside(family: str, method: str, sizes: dict[str, int]) -> Peft:
    backbone, ids = backbone_of(family), SOURCES[0]
    g = backbone.geometry
    injection = injection_of(backbone, method)
    if g.kind == "encoder-decoder" and method == "prefix-tuning":
        # PEFT knows no other site.
        injection = KeysValues(g, {"decoder": range(g.sites["decoder"].layers)})
    theirs = peft_model(family, method, **sizes)
    rows = random_rows(injection)
    if method == "p-tuning":
        rows = theirs.get_prompt_embedding_to_save("default")[:LENGTH]
    else:
        with torch.no_grad():
            theirs.prompt_encoder["default"].embedding.weight[:LENGTH].copy_(rows)
    given = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids)).long()}
    own = len(ids)
    if g.kind == "encoder-decoder":
        given["decoder_input_ids"] = torch.tensor([[START, *TARGETS[0]]])
        own = 1 + len(TARGETS[0])
    gaps: list[float] = []
    with torch.no_grad():
        expected = theirs(**given).logits[0, -own:]
        bare = plain_of(family)(**given).logits[0, -own:]
        for rule in rules(backbone, injection):
            layout = laid_out(backbone, injection, rule, (0,), "right")
            found = backbone.logits(Call(layout, injection.prompt_of(rows)))[0, -own:]
            gaps.append(largest(found - expected))
    return Peft(min(gaps), largest(expected - bare) > TOLERANCE)


def peft_model(family: str, method: str, **sizes: int) -> Any:
    """PEFT's own model for a method, in evaluation."""
    task = TASKS[backbone_of(family).geometry.kind]
    config = {
        "prefix-tuning": peft.PrefixTuningConfig,
        "prompt-tuning": peft.PromptTuningConfig,
        "p-tuning": peft.PromptEncoderConfig,
    }[method](task_type=task, num_virtual_tokens=LENGTH, **sizes)
    plain = catalogue.plain_model(family)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = peft.get_peft_model(plain, config)
    return model.to(torch.float64).eval()


def _sizes(backbone: Backbone, method: str) -> dict[str, int]:
    g = backbone.geometry
    site: Site = g.kind if g.kind != "encoder-decoder" else "decoder"
    heads = g.sites[site].heads
    width = heads[0].kv_heads * heads[0].key_dim if method == "prefix-tuning" else g.width
    return {
        "token_dim": width,
        "num_attention_heads": heads[0].kv_heads,
        "num_layers": len(heads),
    }


@contextmanager
def uncompiled() -> Iterator[None]:
    """FlexAttention as torch computes it without a compiler: the same function, at once, and in
    float64 on a CPU."""
    own, torch.compile = torch.compile, lambda function=None, **_: function
    instance, WrappedFlexAttention._instance = WrappedFlexAttention._instance, None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "flex_attention called without torch.compile")
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            yield
        finally:
            torch.compile, WrappedFlexAttention._instance = own, instance


def gap_of_attention(family: str, attention: Attention, *methods: str) -> float:
    """An implementation of attention, and the one that is chosen where none is asked for.

    Raises:
        BackboneError: the family cannot be computed so.
    """
    one = backbone_of(family)
    with uncompiled():
        model = catalogue.plain_model(family)
        other = Backbone.wrap(model, one.tokens, attention=attention)
        assert (other.attention, other.geometry) == (attention, one.geometry)
        gaps = []
        for method in methods or METHODS[:2]:
            injection = injection_of(one, method)
            rows = random_rows(injection)
            layout = laid_out(one, injection, rules(one, injection)[0], (0, 1, 2), "right")
            with torch.no_grad():
                expected = one.logits(Call(layout, injection.prompt_of(rows)))
                found = other.logits(Call(layout, injection_of(other, method).prompt_of(rows)))
            gaps.append(largest((found - expected)[layout.attention_mask]))
    return max(gaps)


def gradient(family: str, injection: Injection, *, again: bool) -> Tensor:
    """Of random virtual tokens, from a batch of mixed lengths; from layers computed again, or not.

    Raises:
        BackboneError: the family cannot compute its layers again.
    """
    backbone = backbone_of(family)
    rows = random_rows(injection).requires_grad_()
    rule = rules(backbone, injection)[0]
    with backbone.recomputing(again):
        logits = backbone.logits(
            Call(laid_out(backbone, injection, rule, (0, 1, 2), "right"), injection.prompt_of(rows))
        )
    logits.log_softmax(-1).square().mean().backward()
    assert rows.grad is not None
    return rows.grad
