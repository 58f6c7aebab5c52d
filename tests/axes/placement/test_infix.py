"""Virtual tokens between source and target: what sees them, and what is kept of what does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import DynamicCache

from conftest import make_backbone, mini_tokens, one_of_each, random_ids
from families import by_hand, catalogue
from families.catalogue import DECODERS
from families.measures import SOURCES, backbone_of, by_layer, largest, plain_of, uncompiled
from foreword.artifacts.artifact import load_model, save_artifact
from foreword.axes.injection import KeysValues
from foreword.axes.placement import Infix, Prefix
from foreword.axes.readout import SequenceHead
from foreword.backbone import Backbone, Call, Decoding, Sources, generate
from foreword.backbone.layout import Layout
from foreword.compat.exporting import export_peft
from foreword.errors import UserError
from foreword.methods import EmbeddingOnly, InfixTuning, axes
from foreword.recipe import TaskId, TrainingSpec
from foreword.training import Pair, Stopped, train
from foreword.training.checkpoints import LOG, Checkpoints, newest
from foreword.training.log import Log
from foreword.training.reuse import KeptSources
from foreword.training.signals import Stop
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose

LENGTH, NEW = 4, 6
TARGETS = [[7, 8, 9, 10], [11], [12, 13]]
TABLE = axes.Table(std=1.0)
EMBEDDINGS = EmbeddingOnly(
    name="embedding-only", placement="infix", length=LENGTH, reparameterization=TABLE
)
KEYS = InfixTuning(name="infix-tuning", length=LENGTH, reparameterization=TABLE)
METHODS = {"keys and values": KEYS, "embeddings": EMBEDDINGS}
KEYED = [family for family in DECODERS if family not in ("gemma3n_text", "gemma4_text")]
"""Not those that slide and have layers without keys and values of their own."""
CASES = [
    (family, what)
    for family in DECODERS
    for what in METHODS
    if what != "keys and values" or family in KEYED
]


@pytest.fixture(autouse=True)
def _exactly(request: pytest.FixtureRequest) -> Iterator[None]:
    if "family" not in request.fixturenames:
        yield
        return
    with by_hand.ExactFloat64():
        yield


def tuned(backbone: Backbone, options: Any) -> TunedModel:
    """With virtual tokens that are far from nothing."""
    model = compose(backbone, options)
    generator = torch.Generator().manual_seed(1)
    shape = (LENGTH, model.injection.width)
    rows = torch.randn(shape, generator=generator, dtype=torch.float64)
    return model.with_rows(rows.to(backbone.model.dtype))


def reference(model: TunedModel, plain: Any, source: list[int], target: list[int]) -> Tensor:
    """Logits that predict each token of the target, and the one after it: in one row by hand.

    Keys and values: transformers' own model reads all of the source but its last token, the cache
    gets the virtual tokens' by hand (where it holds latents, the family's own attention function
    does), and the model reads on. Embeddings: one pass over
    `[source; virtual; target]`.
    """
    rows, g = model.rows(), model.backbone.geometry
    plain.set_attn_implementation("eager")
    with torch.no_grad():
        if isinstance(model.placement, Infix) and model.placement.columns:
            table = plain.get_input_embeddings()
            own = [table(torch.tensor(ids)) for ids in (source, target)]
            embedded = torch.cat([own[0], rows, own[1]])[None]
            words = by_hand.by_word(plain, [*source, *[None] * len(rows), *target])
            return plain(inputs_embeds=embedded, **words).logits[0, -len(target) - 1 :]
        cache, end = DynamicCache(), len(source) - 1
        if end:
            plain.base_model(input_ids=torch.tensor([source[:-1]]), past_key_values=cache)
        ids = [source[-1], *target]
        first = end + (LENGTH if model.placement.positions == "shift" else 0)
        given: dict[str, Any] = {}
        assert isinstance(model.injection, KeysValues)
        prefix = by_layer(model.injection, rows)
        if not g.caches_heads:  # latent attention: they cannot lie in the cache
            at = torch.arange(first, first + len(ids))[None]
            given = {"past_key_values": cache, "position_ids": at}
            with by_hand.in_front(plain, prefix):
                return plain(input_ids=torch.tensor([ids]), **given).logits[0]
        for layer, sides in prefix["decoder"].items():
            cache.update(*(side.transpose(0, 1)[None] for side in sides), layer)
        if g.takes_positions:
            given["position_ids"] = torch.arange(first, first + len(ids))[None]
        return plain(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, end + LENGTH + len(ids), dtype=torch.long),
            past_key_values=cache,
            **given,
        ).logits[0]


def rows_of(model: TunedModel, sources: list[list[int]], targets: list[list[int]]) -> list[Tensor]:
    """Logits that predict each token of a target, and the one after it, row by row."""
    layout = model.arrange(sources, targets)
    with torch.no_grad():
        logits = model.backbone.logits(Call(layout, model.prompt()))
    return [
        row[mask][-len(target) - 1 :]
        for row, mask, target in zip(logits, layout.attention_mask, targets, strict=True)
    ]


@pytest.mark.parametrize(("family", "what"), CASES)
def test_logits_are_those_made_by_hand(family, what) -> None:
    model = tuned(backbone_of(family), METHODS[what])
    assert isinstance(model.placement, Infix)
    found = rows_of(model, SOURCES, TARGETS)
    for row, source, target in zip(found, SOURCES, TARGETS, strict=True):
        expected = reference(model, plain_of(family), source, target)
        assert largest(row - expected) < 1e-9


def own_rows(backbone: Backbone, plain: Any, ids: Tensor) -> Tensor:
    """A model's own keys and values for a text, as virtual tokens `[T, width]`."""
    layers: list[tuple[Tensor, Tensor]] = []
    if backbone.geometry.caches_heads:
        filled = DynamicCache()
        with torch.no_grad():
            plain(input_ids=ids, past_key_values=filled)
        layers = [
            (one.keys[0].transpose(0, 1), one.values[0].transpose(0, 1)) for one in filled.layers
        ]
    else:
        (found,) = by_hand.keys_values(plain, ids[0].tolist()).values()
        layers = [found[layer] for layer in sorted(found)]
    return torch.cat([side.flatten(1) for sides in layers for side in sides], dim=1)


@pytest.mark.parametrize("family", KEYED)
def test_keys_and_values_of_a_text_do_what_the_text_does(family) -> None:
    """One that stands before the source's last token, at the positions of the virtual tokens."""
    backbone, plain = backbone_of(family), plain_of(family)
    plain.set_attn_implementation("eager")
    source, text, target = SOURCES[0], SOURCES[1][:LENGTH], TARGETS[0]
    whole = torch.tensor([[*source[:-1], *text, source[-1], *target]])
    with torch.no_grad():
        expected = plain(input_ids=whole).logits[0, -len(target) - 1 :]
    rows = own_rows(backbone, plain, whole)[len(source) - 1 :][:LENGTH]
    (found,) = rows_of(compose(backbone, KEYS).with_rows(rows), [source], [target])
    assert largest(found - expected) < 1e-9


def test_none_where_a_window_slides_over_what_no_cache_holds() -> None:
    with pytest.raises(UserError, match=r"\(gemma4_text\) see a window of positions alone"):
        compose(backbone_of("gemma4_text"), KEYS)


@pytest.mark.parametrize("family", KEYED)
def test_a_target_whose_positions_follow_the_sources(family) -> None:
    backbone = backbone_of(family)
    if not backbone.geometry.takes_positions:
        with pytest.raises(UserError, match="'keep' is not possible for infix-tuning"):
            compose(backbone, KEYS.model_copy(update={"positions": "keep"}))
        return
    model = tuned(backbone, KEYS.model_copy(update={"positions": "keep"}))
    assert model.room(3) == backbone.geometry.context - 3
    for row, source, target in zip(rows_of(model, SOURCES, TARGETS), SOURCES, TARGETS, strict=True):
        assert largest(row - reference(model, plain_of(family), source, target)) < 1e-9


@pytest.mark.parametrize(("family", "what"), one_of_each(CASES, 1))
def test_decoding_is_the_argmax_of_a_pass_over_everything(family, what) -> None:
    model = tuned(backbone_of(family), METHODS[what])
    how, end = Decoding(max_new_tokens=NEW), model.backbone.tokens.eos_id

    def written(sources: list[list[int]]) -> list[list[int]]:
        layout = model.arrange(sources, side="left")
        return generate(model.backbone, Call(layout, model.prompt()), how)

    expected = []
    for source in SOURCES:
        new: list[int] = []
        while len(new) < NEW:
            (logits,) = rows_of(model, [source], [new])
            token = int(logits[-1].argmax())
            if token == end:
                break
            new.append(token)
        expected.append(new)
    assert written(SOURCES) == expected
    assert written(SOURCES[1:2]) == expected[1:2]


@pytest.mark.parametrize("what", METHODS)
@pytest.mark.parametrize("family", ["gpt2", "mistral", "bloom", "deepseek_v3"])
def test_beams_and_penalties_of_a_batch_are_those_of_its_rows(family, what) -> None:
    """A penalty on repetition knows all of the source, on both sides of the virtual tokens."""
    model = tuned(backbone_of(family), METHODS[what])
    for how in (
        Decoding(max_new_tokens=NEW, num_beams=3),
        Decoding(max_new_tokens=NEW, repetition_penalty=3.0),
        Decoding(max_new_tokens=NEW, num_beams=2, no_repeat_ngram_size=1),
    ):
        together = model.arrange(SOURCES, side="left")
        found = generate(model.backbone, Call(together, model.prompt()), how)
        for row, source in zip(found, SOURCES, strict=True):
            alone = model.arrange([source], side="left")
            assert generate(model.backbone, Call(alone, model.prompt()), how) == [row]
            if how.no_repeat_ngram_size:
                assert len(set(row)) == len(row)
                assert not {*row} & {*source}


@pytest.mark.parametrize("attention", ["eager", "flex"])
@pytest.mark.parametrize("what", METHODS)
def test_every_attention_computes_the_same(what, attention) -> None:
    with uncompiled(), by_hand.ExactFloat64():
        plain = catalogue.plain_model("llama")
        other = Backbone.wrap(plain, mini_tokens(), attention=attention)
        found = rows_of(tuned(other, METHODS[what]), SOURCES, TARGETS)
        expected = rows_of(tuned(backbone_of("llama"), METHODS[what]), SOURCES, TARGETS)
    for one, two in zip(found, expected, strict=True):
        assert largest(one - two) < 1e-9


# Invariants

IDS = st.lists(st.integers(3, 500), min_size=1, max_size=7)


@settings(max_examples=25, deadline=None)
@given(
    pairs=st.lists(st.tuples(IDS, IDS), min_size=1, max_size=4),
    what=st.sampled_from(list(METHODS)),
    side=st.sampled_from(["left", "right"]),
    rule=st.sampled_from(["shift", "keep"]),
)
def test_a_layout(pairs, what, side, rule) -> None:
    """Every token stands once, in its order and at its position."""
    columns = {"decoder": range(600, 600 + LENGTH)} if what == "embeddings" else {}
    rule = "shift" if columns else rule
    place = Infix(LENGTH, rule, columns)
    sources, targets = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    layout = place.layout(sources, targets, side=side)
    for row, (source, target) in enumerate(pairs):
        front: list[int] = []
        at: list[int] = []
        if layout.before is not None:
            there = layout.before.attention_mask[row]
            front = layout.before.input_ids[row][there].tolist()
            at = layout.before.position_ids[row][there].tolist()
        there = layout.attention_mask[row]
        rest = layout.input_ids[row][there].tolist()
        assert front + [i for i in rest if i < 600] == source + target
        assert at == list(range(len(front)))
        gap = LENGTH if rule == "shift" and not columns else 0
        own = layout.position_ids[row][there].tolist()
        assert own == list(range(len(front) + gap, len(front) + gap + len(rest)))
        assert len(rest) - len(target) == (LENGTH if columns else 1)
    assert layout.target_ids().tolist() == [token for target in targets for token in target]
    assert (layout.virtual == 0) == bool(columns)


def test_without_virtual_tokens_it_is_no_infix() -> None:
    bare = replace(Infix(LENGTH), length=0).layout(SOURCES, TARGETS)
    plain = Prefix(0).layout(SOURCES, TARGETS)
    assert bare.before is None
    assert torch.equal(bare.input_ids, plain.input_ids)
    assert torch.equal(bare.position_ids, plain.position_ids)


@settings(max_examples=10, deadline=None)
@example([(1, 4), (2, 1)], "keys and values", "gemma3_text")
@given(
    lengths=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 5)), min_size=1, max_size=4),
    what=st.sampled_from(list(METHODS)),
    name=st.sampled_from(["gpt2", "gemma3_text", "bloom"]),
)
def test_no_row_depends_on_another(lengths, what, name) -> None:
    """A source may be one token long, beside others that are not."""
    with by_hand.ExactFloat64():
        model = tuned(backbone_of(name), METHODS[what])
        sources = [[3 + i % 500 for i in ids] for ids in random_ids([s for s, _ in lengths])]
        targets = [[3 + i % 500 for i in ids] for ids in random_ids([t for _, t in lengths])]
        together = rows_of(model, sources, targets)
        for row, source, target in zip(together, sources, targets, strict=True):
            (alone,) = rows_of(model, [source], [target])
            assert largest(row - alone) < 1e-9


def test_the_source_sees_nothing_of_it_and_the_answer_does() -> None:
    model = tuned(backbone_of("gpt2"), KEYS)
    other = model.with_rows(model.rows() + 1)
    layout = model.arrange(SOURCES, TARGETS)
    assert layout.before is not None
    with torch.no_grad():
        one, two = (m.backbone.logits(Call(layout, m.prompt())) for m in (model, other))
    assert largest((one - two)[layout.attention_mask]) > 1e-3
    read = [m.backbone.read(layout.before)[-1][0] for m in (model, other)]
    assert torch.equal(*read)


# What is kept


@pytest.mark.parametrize("share", [1, 0.6, 0])
@pytest.mark.parametrize("what", METHODS)
@pytest.mark.parametrize("family", ["gpt2", "qwen3", "gemma3_text", "bloom", "deepseek_v3"])
def test_kept_sources_change_nothing(family, what, share) -> None:
    """All of them, some, or none; also in batches they were not read in."""
    model = compose(backbone_of(family), METHODS[what]).double()
    sources, targets = [*SOURCES, [5], SOURCES[0]], [*TARGETS, [6], [9, 9]]

    def measured(order: list[int]) -> tuple[Tensor, Tensor]:
        layout = model.arrange([sources[i] for i in order], [targets[i] for i in order])
        loss = model(layout)
        model.zero_grad()
        loss.sum().backward()
        return loss.detach(), next(model.parameters()).grad.clone()

    orders = [[0, 1, 2, 3, 4], [1], [3], [4, 2]]
    expected = [measured(order) for order in orders]

    def keep(limit: float) -> Sources:
        kept = Sources(model.backbone, limit)
        for part in ([0, 1], [2, 3, 4]):
            before = model.arrange([sources[i] for i in part]).before
            if before is not None:
                kept.keep(before)
        return kept

    limit = share * keep(1e9).size
    kept = keep(limit)
    assert kept.size <= limit
    assert kept.full == (share < 1)
    assert (len(kept) > 0) == (share > 0)
    model.reuses = (KeptSources(kept),)
    for (loss, gradient), order in zip(expected, orders, strict=True):
        again, slope = measured(order)
        assert largest(again - loss) < 1e-9
        assert largest(slope - gradient) < 1e-9
    model.reuses = ()


@pytest.mark.parametrize("what", METHODS)
def test_a_training_with_kept_sources_is_the_one_without(what, monkeypatch) -> None:
    read: list[int] = []
    own = Backbone.read

    def counted(self: Backbone, before: Layout) -> Any:
        read.append(before.rows)
        return own(self, before)

    monkeypatch.setattr(Backbone, "read", counted)
    sources, targets = random_ids([6, 5, 6, 3]), random_ids([3] * 4)
    pairs = [Pair(s, [*t, 0]) for s, t in zip(sources, targets, strict=True)]
    states, rows = [], []
    for limit in (1.0, 0.0):
        read.clear()
        torch.manual_seed(0)
        model = compose(make_backbone("gpt2", torch.float64), METHODS[what]).double()
        spec = TrainingSpec(steps=6, batch_size=2, learning_rate=0.05, source_cache=limit)
        train(model, pairs, spec)
        states.append(model.rows())
        rows.append(sum(read))
        assert model.reuses == ()
    assert largest(states[0] - states[1]) < 1e-9
    assert rows == [4, 12]


def test_nothing_is_kept_where_the_backbone_moves(monkeypatch) -> None:
    monkeypatch.setattr(Sources, "keep", lambda *_: pytest.fail("kept"))
    moving = KEYS.model_copy(update={"delta": axes.Biases()})
    pairs = [Pair(s, [7, 0]) for s in random_ids([6, 5])]
    model = compose(make_backbone("gpt2"), moving)
    before = [p.detach().clone() for p in model.delta.parameters()]
    train(model, pairs, TrainingSpec(steps=4, batch_size=2))
    after = list(model.delta.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize("limit", [1.0, 2e-5])
def test_a_training_that_goes_on_ends_with_the_same_bits(limit, tmp_path) -> None:
    """With room for all sources, and for some."""
    lengths = zip(random_ids([6, 5, 9, 3, 7, 4]), random_ids([3] * 6, seed=1), strict=True)
    pairs = [Pair(source, [*target, 0]) for source, target in lengths]
    spec = TrainingSpec(
        steps=9, batch_size=2, learning_rate=0.05, source_cache=limit, checkpoint_every=1
    )

    def run(folder: Path, stop_at: int | None = None) -> Tensor:
        torch.manual_seed(0)
        model, stop = compose(make_backbone("gpt2"), KEYS), Stop()
        saved = newest(folder)

        def on_step(entry: dict[str, float]) -> None:
            if entry["step"] == stop_at:
                stop.requested = 15

        with Log(folder / LOG, None if saved is None else saved.checkpoint.values["log"]) as log:
            kept = Checkpoints(folder, log, every=1, saved=saved)

            def logged(entry: dict[str, float]) -> None:
                log(entry)
                on_step(entry)

            train(model, pairs, spec, on_step=logged, checkpoints=kept, stop=stop)
        return model.rows()

    for name in ("whole", "again"):
        (tmp_path / name).mkdir()
    expected = run(tmp_path / "whole")
    for stop_at in (2, 5):
        with pytest.raises(Stopped):
            run(tmp_path / "again", stop_at)
    assert torch.equal(run(tmp_path / "again"), expected)


# Training, artifacts, refusals


@pytest.mark.parametrize("kind", ["mlp", "table"])
@pytest.mark.parametrize("what", METHODS)
def test_training_lowers_the_loss(what, kind) -> None:
    made = axes.MLP(hidden=16) if kind == "mlp" else axes.Table()
    options = METHODS[what].model_copy(update={"reparameterization": made})
    model = compose(make_backbone("llama"), options)
    sources = random_ids([6, 5, 4, 7])
    pairs = [Pair(source, [11, 12, 13, 0]) for source in sources]
    rate = 0.3 if (what, kind) == ("keys and values", "table") else 0.02
    spec = TrainingSpec(steps=60, batch_size=4, learning_rate=rate, gradient_checkpointing=True)
    history = train(model, pairs, spec)
    assert history.steps[-1]["loss"] < 0.75 * history.steps[0]["loss"]


@pytest.mark.parametrize("what", METHODS)
def test_an_artifact_answers_as_the_model_did(what, tmp_path) -> None:
    backbone = make_backbone("gpt2")
    model = tuned(backbone, METHODS[what])
    folder = tmp_path / "artifact"
    task = TaskId(input="{text}", target="{reference}")
    manifest = save_artifact(folder, model, name="a", method=METHODS[what], task=task)
    assert manifest.axes["placement"] == "infix"
    _, loaded = load_model(folder, backbone=backbone)
    assert isinstance(loaded.placement, Infix)
    assert loaded.placement == model.placement
    layout = model.arrange(SOURCES, side="left")
    how = Decoding(max_new_tokens=NEW)
    assert loaded.answers(layout, how) == model.answers(layout, how)
    with pytest.raises(UserError, match="its placement is infix"):
        export_peft(folder, tmp_path / "peft")


def test_refusals() -> None:
    for family, named in (("bart", "encoder-decoder"), ("t5", "encoder-decoder")):
        for options in METHODS.values():
            with pytest.raises(UserError, match=rf"method\.placement: .* is an {named}"):
                compose(backbone_of(family), options)
    head = SequenceHead(32, 2)
    for family in ("gpt2", "bert"):
        with pytest.raises(UserError, match="no text is written here"):
            compose(backbone_of(family), KEYS, head)
    with pytest.raises(UserError, match="stand in the slots of task"):
        compose(backbone_of("gpt2"), EMBEDDINGS, inside=True)


def test_the_context_has_room_for_it() -> None:
    backbone = backbone_of("gpt2")
    for options in METHODS.values():
        assert compose(backbone, options).room(10) == backbone.geometry.context - LENGTH - 10
