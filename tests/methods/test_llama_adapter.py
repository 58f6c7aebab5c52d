"""LLaMA-Adapter against its definition in transformers' own models, and against PEFT's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from conftest import LLAMA_LIKE, assert_close, make_backbone, random_ids, tiny_model
from families import by_hand, catalogue
from foreword.artifacts.artifact import load_model, save_artifact
from foreword.backbone import Backbone, Call, Decoding
from foreword.backbone.layout import Pair
from foreword.errors import BackboneError, UserError
from foreword.methods import LLaMAAdapter
from foreword.methods.axes import ActivationsInit
from foreword.recipe import TaskId, TrainingSpec, parse_recipe
from foreword.tasks import Writing, decode_rows
from foreword.training import LengthBatches, train
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose
from foreword.tuned.initial import initialise

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)
LENGTH, STEPS, SEED = 3, 20, 5
TASK = TaskId(input="{text}", target="{reference}", metrics=("bleu",))
DECODERS = ("llama", "gpt2", "opt")


@pytest.fixture(autouse=True)
def _exactly() -> Iterator[None]:
    with by_hand.ExactFloat64():
        yield


def adapted(backbone: Backbone, *, loud: float = 1.0, **options: Any) -> TunedModel:
    """A model whose gates are open, and differ."""
    chosen = LLaMAAdapter(name="llama-adapter", length=LENGTH, **options)
    torch.manual_seed(1)
    model = compose(backbone, chosen).to(backbone.model.dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gates"):
                parameter.normal_(0.0, loud)
    return model


def keys_and_values(module: nn.Module, prompt: Tensor) -> tuple[Tensor, Tensor]:
    """What a family's own attention makes of states `[P, d]`, before any rotation."""
    if hasattr(module, "c_attn"):
        made = module.c_attn(prompt)
        _, key, value = made.split(made.shape[1] // 3, dim=1)
    else:
        key, value = module.k_proj(prompt), module.v_proj(prompt)
    dim = module.head_dim
    return tuple(side.view(len(prompt), -1, dim).transpose(0, 1) for side in (key, value))


@contextmanager
def added_by_hand(model: Any, prompts: Tensor, gates: Tensor) -> Iterator[None]:
    """In the last layers of transformers' own model: a second softmax, over the prompt alone, whose
    outcome each head adds with its gate (section 3.2)."""
    modeling: Any = sys.modules[type(model).__module__]
    own = modeling.eager_attention_forward
    first = model.config.num_hidden_layers - len(prompts)

    def attend(module: Any, query: Tensor, *given: Any, **rest: Any) -> Any:
        output, weights = own(module, query, *given, **rest)
        layer = module.layer_idx - first
        if layer < 0:
            return output, weights
        keys, values = keys_and_values(module, prompts[layer])
        scale = rest.get("scaling", query.shape[3] ** -0.5)  # OPT scales its queries before
        groups = query.shape[1] // len(keys)
        for head in range(query.shape[1]):
            scores = query[0, head] @ keys[head // groups].T * scale
            share = scores.softmax(-1) @ values[head // groups]
            output[:, :, head] += gates[layer, head] * share
        return output, weights

    modeling.eager_attention_forward = attend
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        modeling.eager_attention_forward = own


def logits_by_hand(family: str, model: TunedModel, ids: list[int], *, tanh: bool = True) -> Tensor:
    plain = tiny_model(family, torch.float64)
    named = model.reparam()
    gates = named["decoder.gates"].detach()
    gates = gates.tanh() if tanh else gates
    gates = gates.expand(-1, plain.config.num_attention_heads)
    with torch.no_grad(), added_by_hand(plain, named["decoder.prompts"].detach(), gates):
        return plain(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


def our_logits(model: TunedModel, ids: list[int]) -> Tensor:
    with torch.no_grad():
        call = model.call(model.lay_out([Pair(ids[:1], ids[1:])]))
        return model.backbone.logits(call)[0]


@pytest.mark.parametrize("gate", ["head", "layer"])
@pytest.mark.parametrize("tanh", [True, False], ids=["tanh", "plain"])
@pytest.mark.parametrize("family", DECODERS)
def test_logits_are_the_definitions(family, tanh, gate) -> None:
    """Grouped heads, projections in one layer, and such with biases."""
    backbone = make_backbone(family, torch.float64)
    model = adapted(backbone, layers=2, gate=gate, tanh=tanh)
    (ids,) = random_ids([9])
    expected = logits_by_hand(family, model, ids, tanh=tanh)
    assert_close(our_logits(model, ids), expected)
    assert (our_logits(model.bare(), ids) - expected).abs().max() > 1e-2
    d = backbone.geometry.width
    gates = backbone.model.config.num_attention_heads if gate == "head" else 1
    assert model.trained_parameters == 2 * (LENGTH * d + gates)


@pytest.mark.parametrize("family", [*DECODERS, "bert", "bart", "t5"])
def test_training_starts_from_the_bare_backbone(family) -> None:
    """Bit for bit; and the gates alone have a gradient then."""
    backbone = catalogue.wrapped(family)
    chosen = LLaMAAdapter(name="llama-adapter", length=LENGTH)
    source, target = random_ids([6, 4])
    pair = [Pair([i % 500 for i in source], [i % 500 for i in target])]
    if family == "bert":
        from foreword.axes.readout import SequenceHead

        head = SequenceHead(backbone.hidden_width, 2, dropout=0.0).double()
        model = compose(backbone, chosen, head).double()
        layout = model.lay_out([Pair(pair[0].source, marks=(0,))])
        call = model.call(layout)
        assert torch.equal(backbone.hidden(call), backbone.hidden(Call(layout)))
        return
    model = compose(backbone, chosen).double()
    found = model(model.lay_out(pair))
    bare = model.bare()
    assert torch.equal(found, bare(bare.lay_out(pair)))
    found.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert bool(parameter.grad.any()) == name.endswith("gates"), name


@pytest.mark.parametrize("family", DECODERS)
def test_decoding_is_the_definitions(family) -> None:
    """Step by step through the cache, greedy, and with beams as alone."""
    backbone = make_backbone(family, torch.float64)
    model = adapted(backbone, layers=2, loud=3.0)
    sources = random_ids([7, 4], seed=3)
    how = Decoding(max_new_tokens=6)
    for source in sources:
        written: list[int] = []
        for _ in range(6):
            read = logits_by_hand(family, model, [*source, *written])
            written.append(int(read[-1].argmax()))
        expected = backbone.tokens.text(written).strip()
        (answer,) = decode_rows([Writing(model, source, how, 0)], batch_size=1)
        assert answer == expected
    (bare,) = decode_rows([Writing(model.bare(), sources[0], how, 0)], batch_size=1)
    assert bare != decode_rows([Writing(model, sources[0], how, 0)], batch_size=1)[0]
    beams = Decoding(max_new_tokens=6, num_beams=3)
    rows = [Writing(model, source, beams, 0) for source in sources]
    assert decode_rows(rows, batch_size=2) == [decode_rows([r], batch_size=1)[0] for r in rows]


def test_only_the_last_layers_carry_a_prompt() -> None:
    backbone = make_backbone("gpt2", torch.float64)
    for layers, expected in ((None, (2,)), (1, (2,)), (3, (0, 1, 2))):
        prompt = adapted(backbone, layers=layers).prompt()
        assert prompt is not None
        assert prompt.sites["decoder"].layers == expected


def test_an_artifact_holds_prompts_and_gates(tmp_path: Path) -> None:
    backbone = make_backbone("llama", torch.float64)
    model = adapted(backbone, layers=1)
    chosen = LLaMAAdapter(name="llama-adapter", length=LENGTH, layers=1)
    save_artifact(tmp_path / "it", model, name="it", method=chosen, task=TASK)
    stored = load_file(tmp_path / "it" / "prompt.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in stored.items()} == {
        "decoder.prompts": (1, LENGTH, 32),
        "decoder.gates": (1, 4),
        "decoder.layers": (1,),
    }
    manifest, loaded = load_model(tmp_path / "it", backbone=backbone)
    assert (manifest.axes["injection"], manifest.axes["positions"]) == ("adaption", "keep")
    (ids,) = random_ids([8])
    assert torch.equal(our_logits(loaded, ids), our_logits(model, ids))


def test_a_start_from_a_text_has_its_values() -> None:
    backbone = make_backbone("llama", torch.float64)
    init = ActivationsInit(text="a bird of the river")
    model = adapted(backbone, layers=2, init=init)
    initialise(model, init, [])
    prompt = model.prompt()
    assert prompt is not None
    tokens = backbone.tokens
    ids = tokens.plain(init.text)
    begin = [] if tokens.bos_id is None else [tokens.bos_id]
    ids = [*begin, *(ids * LENGTH)[len(ids) * LENGTH - LENGTH + len(begin) :]]
    _, values = backbone.keys_values(ids)["decoder"]
    assert_close(prompt.sites["decoder"].values.detach(), values)


# --- beside PEFT ---


def peft_model(family: str, layers: int = 2) -> Any:
    config = peft.AdaptionPromptConfig(
        task_type="CAUSAL_LM", adapter_len=LENGTH, adapter_layers=layers
    )
    torch.manual_seed(2)
    return peft.get_peft_model(tiny_model(family, torch.float64, **LLAMA_LIKE), config).double()


def as_in_peft(family: str, theirs: Any, layers: int = 2) -> TunedModel:
    """Ours, with PEFT's numbers."""
    chosen = LLaMAAdapter(
        name="llama-adapter", length=LENGTH, layers=layers, gate="layer", tanh=False
    )
    model = compose(make_backbone(family, torch.float64, **LLAMA_LIKE), chosen).double()
    state = {name: p.detach() for name, p in theirs.named_parameters() if "adaption_" in name}
    prompts = [p[0] for name, p in state.items() if name.endswith("prompt")]
    gates = [p for name, p in state.items() if name.endswith("gate")]
    model.reparam.fit(
        {"decoder.prompts": torch.stack(prompts), "decoder.gates": torch.stack(gates)}
    )
    return model


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_logits_are_pefts(family) -> None:
    theirs = peft_model(family).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if name.endswith("gate"):
                parameter.normal_(0.0, 1.0)
    ours = as_in_peft(family, theirs)
    for ids in random_ids([4, 9], seed=6):
        with torch.no_grad():
            expected = theirs(input_ids=torch.tensor([ids])).logits[0]
        assert_close(our_logits(ours, ids), expected)
        assert (our_logits(ours.bare(), ids) - expected).abs().max() > 1e-2


def test_training_is_pefts() -> None:
    theirs = peft_model("llama").train()
    ours = as_in_peft("llama", theirs)
    sources = random_ids([5, 3, 8, 4, 6, 7, 3], seed=1)
    targets = random_ids([4, 6, 2, 5, 3, 4, 7], seed=2)
    pairs = [Pair(*pair) for pair in zip(sources, targets, strict=True)]
    spec = TrainingSpec(
        steps=STEPS,
        batch_size=3,
        learning_rate=1e-2,
        schedule="constant",
        weight_decay=0.01,
        clip=None,
        best_by=None,
    )
    found = [step["loss"] for step in train(ours, pairs, spec, seed=SEED).steps]
    trained = [p for p in theirs.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, betas=spec.betas, weight_decay=0.01)
    batches = LengthBatches([p.length for p in pairs], 3, seed=SEED).steps()
    for loss in found:
        (batch,) = next(batches)
        width = max(pairs[i].length for i in batch)
        rows = [pairs[i].source + pairs[i].target for i in batch]
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        labels = torch.full_like(ids, -100)
        for at, i in enumerate(batch):
            start, end = len(pairs[i].source), pairs[i].length
            labels[at, start:end] = ids[at, start:end]
        logits = theirs(input_ids=ids, attention_mask=mask).logits[:, :-1]
        expected = nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
        optimizer.zero_grad()
        expected.backward()
        optimizer.step()
        assert abs(loss - expected.item()) < 1e-9
    assert min(found[-5:]) < found[0]
    again = as_in_peft("llama", theirs)
    for (name, parameter), other in zip(ours.named_parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(parameter, other, rtol=0, atol=1e-8, msg=name)


# --- what is refused ---


@pytest.mark.parametrize(
    ("family", "options", "said"),
    [
        ("llama", {"layers": 3}, r"method\.layers: 3, but the decoder .* has 2 layers"),
        ("llama", {"positions": "shift"}, r"method\.positions: 'shift' .* only 'keep'"),
        ("llama", {"sites": ("cross",)}, r"method\.sites: .* has no 'cross'"),
        ("qwen3", {}, r"\(qwen3\) cannot carry prompts whose keys and values its own projections"),
    ],
)
def test_what_cannot_be_is_refused(family, options, said) -> None:
    with pytest.raises((UserError, BackboneError), match=said):
        compose(make_backbone(family), LLaMAAdapter(name="llama-adapter", **options))
    chosen = LLaMAAdapter(name="llama-adapter", length=2)
    if family == "llama":
        with pytest.raises(UserError, match="adaption prompts stand in no text"):
            compose(make_backbone(family), chosen, inside=True)


def test_defaults_are_the_papers() -> None:
    method = {"name": "llama-adapter"}
    task = {"data": {"format": "jsonl", "train": "train.jsonl"}}
    recipe = {"version": 1, "name": "x", "backbone": "m", "task": task, "method": method}
    read = parse_recipe(recipe)
    assert isinstance(read.method, LLaMAAdapter)
    assert (read.method.length, read.method.gate, read.method.tanh) == (10, "head", True)
    t = read.training
    assert (t.epochs, t.batch_size, t.learning_rate, t.schedule) == (5, 64, 9e-3, "cosine")
    assert (t.warmup, t.weight_decay, t.betas, t.clip) == (0.4, 0.02, (0.9, 0.95), None)
