"""Batches whose rows have prompts of different kinds, lengths and position rules: each row answers
as it does alone."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoModelForSeq2SeqLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from conftest import VOCABULARY, make_backbone, mini_tokens
from families import by_hand
from foreword.axes.readout import (
    Generation,
    Head,
    LabelsHead,
    NumberHead,
    SequenceHead,
    SpanHead,
    TokenHead,
    read_together,
)
from foreword.axes.readout.base import Predictor
from foreword.backbone import Backbone, Call, Decoding, way
from foreword.backbone.layout import Pair
from foreword.methods import (
    HardPrompt,
    HeadOnly,
    InfixTuning,
    LLaMAAdapter,
    MultitaskPromptTuning,
    PrefixTuning,
    PromptTuning,
    PTuning,
    PTuningV2,
)
from foreword.methods.axes import Table, UniformInit
from foreword.tasks import Writing, decode_rows
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose

TABLE = Table(std=1.0)
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
DECODERS = ("gpt2", "llama", "bloom", "mistral")
ENCODER_DECODERS = ("bart", "t5")
SETTINGS: dict[str, dict[str, Any]] = {
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "mistral": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "sliding_window": 6,
    },
    "bart": {
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "max_position_embeddings": 256,
        "decoder_start_token_id": 0,
    },
    "t5": {
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 4,
        "decoder_start_token_id": 0,
    },
    "bert": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 256,
    },
}


@pytest.fixture(autouse=True)
def _exactly() -> Iterator[None]:
    with by_hand.ExactFloat64():
        yield


@lru_cache
def backbone_of(family: str) -> Backbone:
    if family in DECODERS:
        return make_backbone(family, torch.float64, **SETTINGS.get(family, {}))
    auto = AutoModelForMaskedLM if family == "bert" else AutoModelForSeq2SeqLM
    model = auto.from_config(CONFIG_MAPPING[family](**SMALL, **SETTINGS[family]))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.2, generator=generator)
    return Backbone.wrap(model.double().eval(), mini_tokens())


def made(backbone: Backbone, options: Any, readout: Any = None, *, inside: bool = False) -> Any:
    model = compose(backbone, options, readout, inside=inside).double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.7)
    return model.requires_grad_(False).eval()


def prefix(**options: Any) -> PrefixTuning:
    return PrefixTuning(name="prefix-tuning", reparameterization=TABLE, **options)


def soft(**options: Any) -> PromptTuning:
    return PromptTuning(
        name="prompt-tuning", reparameterization=TABLE, init=UniformInit(), **options
    )


def adaption(**options: Any) -> LLaMAAdapter:
    return LLaMAAdapter(name="llama-adapter", **options)


def tasks(**options: Any) -> MultitaskPromptTuning:
    """Three prompts, of which a row takes one."""
    several = {"rank": 2, "task_column": "task", "tasks": ("a", "b", "c")}
    return MultitaskPromptTuning(
        name="multitask-prompt-tuning", reparameterization=TABLE, **several, **options
    )


@lru_cache
def writers(family: str) -> tuple[TunedModel, ...]:
    """Models of one backbone that write: prompts of every kind, and none."""
    torch.manual_seed(1)
    backbone = backbone_of(family)
    slots = PTuning(name="p-tuning", length=3)
    found = [
        made(backbone, HardPrompt(name="hard-prompt")),
        made(backbone, prefix(length=5)),
        made(backbone, prefix(length=2)),
        made(backbone, soft(length=4)),
        made(backbone, slots, inside=True),
        made(backbone, tasks(length=4)),
        made(backbone, tasks(length=2), inside=True),
    ]
    if family in DECODERS:
        infix = InfixTuning(name="infix-tuning", length=4, reparameterization=TABLE)
        found.append(made(backbone, infix))
        if backbone.geometry.takes_positions:
            found.append(made(backbone, prefix(length=3, positions="keep")))
        if backbone.geometry.through == "interface":
            found.append(made(backbone, prefix(length=6, layers=(1,))))
            found.append(made(backbone, adaption(length=3, layers=1)))
            found.append(made(backbone, adaption(length=5, layers=2, gate="layer", tanh=False)))
    else:
        found.append(made(backbone, prefix(length=3, sites=("decoder",), positions="shift")))
        found.append(made(backbone, prefix(length=4, sites=("cross",))))
        found.append(made(backbone, soft(length=2, sites=("decoder",))))
        found.append(made(backbone, soft(length=3, sites=("encoder", "decoder"))))
        found.append(made(backbone, tasks(length=3, sites=("encoder", "decoder"))))
        found.append(made(backbone, adaption(length=3, layers=2)))
    return tuple(found)


def head(backbone: Backbone, kind: type[Head], outputs: int) -> Head:
    readout = kind(backbone.hidden_width, outputs, dropout=0.0).double()
    torch.nn.init.normal_(readout.layers[-1].weight)
    return readout


@lru_cache
def tellers(family: str) -> tuple[TunedModel, ...]:
    """Models of one backbone that tell: prompts and heads of every kind."""
    torch.manual_seed(2)
    backbone = backbone_of(family)
    v2 = PTuningV2(name="p-tuning-v2", length=4, reparameterization=TABLE)
    longer = PTuningV2(name="p-tuning-v2", length=7, reparameterization=TABLE)
    return (
        made(backbone, v2, head(backbone, SequenceHead, 3)),
        made(backbone, longer, head(backbone, TokenHead, 5)),
        made(backbone, soft(length=2), head(backbone, LabelsHead, 4)),
        made(backbone, v2, head(backbone, NumberHead, 1)),
        made(backbone, soft(length=3), head(backbone, SequenceHead, 2)),
        made(backbone, tasks(length=3), head(backbone, SequenceHead, 2)),
        made(backbone, adaption(length=3, layers=2), head(backbone, SequenceHead, 3)),
        made(backbone, HeadOnly(name="head-only"), head(backbone, SpanHead, 2)),
    )


def source_of(model: TunedModel, chance: random.Random) -> list[int]:
    """A random input, with the model's virtual tokens where it has slots for them."""
    ids = [chance.randrange(1, VOCABULARY) for _ in range(chance.randint(2, 12))]
    inside = model.placement.length - model.placement.outside
    first = model.backbone.geometry.vocabulary
    for number in range(inside):
        ids.insert(chance.randint(number, len(ids)) if number else 0, first + number)
    if inside:  # in their order
        at = [i for i, token in enumerate(ids) if token >= first]
        for number, place in enumerate(at):
            ids[place] = first + number
    return ids


def check_writing(family: str, seed: int) -> None:
    chance = random.Random(seed)
    models = writers(family)
    rows = []
    for number in range(chance.randint(2, 8)):
        model = chance.choice(models)
        how = Decoding(
            max_new_tokens=chance.randint(1, 7),
            do_sample=chance.random() < 0.2,
            repetition_penalty=chance.choice([1.0, 1.0, 1.5]),
        )
        source, prompt = source_of(model, chance), chance.randrange(model.injection.many)
        rows.append(Writing(model, source, how, seed + number, prompt))
    together = decode_rows(rows, batch_size=chance.randint(1, len(rows)))
    alone = [decode_rows([row], batch_size=1)[0] for row in rows]
    assert together == alone
    targets = [[chance.randrange(1, VOCABULARY) for _ in range(chance.randint(1, 5))] for _ in rows]
    found = log_likelihoods(rows, targets)
    for row, target, own in zip(rows, targets, found, strict=True):
        (expected,) = log_likelihoods([row], [target])
        assert (own - expected).abs().max() < 1e-9


@torch.no_grad()
def log_likelihoods(rows: Sequence[Writing], targets: Sequence[list[int]]) -> list[torch.Tensor]:
    """Of each row's target tokens, as few passes for all rows as their prompts allow."""
    found: dict[int, torch.Tensor] = {}
    calls: dict[Any, list[tuple[int, Call]]] = {}
    for i, (row, target) in enumerate(zip(rows, targets, strict=True)):
        pair = Pair(row.source, target, prompt=row.prompt)
        call = row.model.call(row.model.lay_out([pair]))
        calls.setdefault(way(row.model.backbone.geometry, call), []).append((i, call))
    for members in calls.values():
        backbone = rows[0].model.backbone
        together = Call.joined([call for _, call in members], backbone.geometry.vocabulary)
        losses = Generation().loss(backbone, together)
        shares = torch.split(losses, [len(targets[i]) for i, _ in members])
        found.update(zip([i for i, _ in members], shares, strict=True))
    return [found[i] for i in range(len(rows))]


@torch.no_grad()
def check_reading(family: str, seed: int) -> None:
    chance = random.Random(seed)
    parts: list[tuple[Predictor, Call]] = []
    for _ in range(chance.randint(2, 5)):
        model = chance.choice(tellers(family))
        pairs = []
        for _ in range(chance.randint(1, 3)):
            ids = source_of(model, chance)
            marks = sorted(chance.sample(range(len(ids)), chance.randint(1, len(ids))))
            prompt = chance.randrange(model.injection.many)
            pairs.append(Pair(ids, marks=tuple(marks), prompt=prompt))
        assert isinstance(model.readout, Predictor)
        parts.append((model.readout, model.call(model.lay_out(pairs))))
    backbone = backbone_of(family)
    for (readout, call), found in zip(parts, read_together(backbone, parts), strict=True):
        for row, own in enumerate(found):
            (expected,) = readout.read(backbone, call.taken(torch.tensor([row])))
            assert own.shape == expected.shape
            assert (own - expected).abs().max() < 1e-9


WRITING = [*DECODERS, *ENCODER_DECODERS]


@pytest.mark.parametrize("family", WRITING)
def test_rows_write_as_alone(family) -> None:
    for seed in range(4):
        check_writing(family, seed)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_rows_are_read_as_alone(family) -> None:
    for seed in range(4):
        check_reading(family, seed)


@pytest.mark.soak
@pytest.mark.parametrize("family", WRITING)
def test_very_many_rows_write_as_alone(family) -> None:
    for seed in range(100, 240):
        check_writing(family, seed)


@pytest.mark.soak
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_very_many_rows_are_read_as_alone(family) -> None:
    for seed in range(100, 160):
        check_reading(family, seed)
