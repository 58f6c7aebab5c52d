"""A prompt attached to a transformers model: what it answers, what it holds, what is left after."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    DynamicCache,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

import foreword
from conftest import VOCABULARY, assert_close, cached_logits, mini_tokens, random_ids, tiny_model
from foreword.attached import AttachedModel
from foreword.backbone import Decoding
from foreword.errors import UserError
from foreword.methods import METHODS

LENGTH = 4
ROWS = random_ids([9, 6, 4])
SMALL = {"d_model": 32, "vocab_size": VOCABULARY, "pad_token_id": 0, "eos_token_id": 0}


def attach(model: PreTrainedModel, method: str = "prefix-tuning", **options: Any) -> AttachedModel:
    tokenizer = mini_tokens().tokenizer
    made = foreword.attach(model, method, tokenizer=tokenizer, length=LENGTH, **options)
    return made.to(model.dtype)


def padded(rows: list[list[int]], side: str) -> tuple[Tensor, Tensor]:
    """Ids and mask; padding is a real token, so that only the mask tells it."""
    width = max(map(len, rows))
    idle = [[7] * (width - len(row)) for row in rows]
    left = side == "left"
    ids = [[*pad, *row] if left else [*row, *pad] for pad, row in zip(idle, rows, strict=True)]
    masks = [[0] * len(pad) + [1] * len(row) for pad, row in zip(idle, rows, strict=True)]
    return torch.tensor(ids), torch.tensor(masks if left else [mask[::-1] for mask in masks])


def writer(kind: str) -> PreTrainedModel:
    """A tiny random encoder-decoder."""
    torch.manual_seed(1)
    if kind == "t5":
        sizes = {"d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
        model = T5ForConditionalGeneration(T5Config(**SMALL, **sizes, decoder_start_token_id=0))
    else:
        parts = {
            f"{part}_{name}": value
            for part in ("encoder", "decoder")
            for name, value in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 48))
        }
        ends = {"decoder_start_token_id": 0, "bos_token_id": 0, "forced_eos_token_id": None}
        model = BartForConditionalGeneration(
            BartConfig(**SMALL, **parts, **ends, max_position_embeddings=64, dropout=0.0)
        )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.2)
    return model.double().eval()


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("method", ["prefix-tuning", "prompt-tuning"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_logits_of_real_tokens_are_those_of_a_row_alone(
    family: str, method: str, side: str
) -> None:
    model = attach(tiny_model(family, torch.float64), method)
    ids, mask = padded(ROWS, side)
    labels = ids.masked_fill(mask == 0, -100)
    labels[0, :3] = -100
    output = model(ids, mask, labels)
    assert output.logits.shape == (3, 9, VOCABULARY)
    prompt = model.prompt.prompt()
    assert prompt is not None
    for number, row in enumerate(ROWS):
        alone = cached_logits(model.prompt.backbone, row, prompt)
        assert_close(output.logits[number][mask[number] == 1], alone)
    expected = nn.functional.cross_entropy(
        output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    )
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    in_a_tuple = model(ids, mask, labels, return_dict=False)
    assert torch.equal(in_a_tuple[0], output.loss)


WITH_PROMPT = sorted(
    name for name, known in METHODS.items() if known.model_fields["length"].default
)


@pytest.mark.parametrize(
    "method", [name for name in WITH_PROMPT if name not in ("cpt", "infix-tuning")]
)
def test_every_method_with_a_prompt(method: str) -> None:
    reads = (
        {"init": {"kind": "text", "text": "A few words of a text."}}
        if method == "cartridge"
        else {}
    )
    model = attach(tiny_model("llama", torch.float64), method, **reads)
    ids, mask = padded(ROWS, "left")
    output = model(ids, mask, ids.masked_fill(mask == 0, -100))
    own = model.prompt
    expected = own.backbone.logits(own.call(own.arrange(ROWS[1:2])))[0]
    assert_close(output.logits[1][mask[1] == 1], expected)
    output.loss.backward()
    assert any(parameter.grad is not None for parameter in model.parameters())
    written = model.generate(ids, attention_mask=mask, max_new_tokens=3, do_sample=False)
    answers = own.answers(own.arrange(ROWS, side="left"), Decoding(max_new_tokens=3, num_beams=1))
    assert [own.backbone.tokens.text(row).strip() for row in written[:, 9:].tolist()] == answers


SEQ2SEQ: list[tuple[str, dict[str, Any]]] = [
    ("prefix-tuning", {}),
    ("prefix-tuning", {"sites": ["decoder"], "positions": "shift"}),
    ("prompt-tuning", {}),
    ("prompt-tuning", {"sites": ["encoder", "decoder"]}),
]


@pytest.mark.parametrize(("method", "options"), SEQ2SEQ)
@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_encoder_decoder_is_that_of_our_own_layout(
    kind: str, method: str, options: dict[str, Any]
) -> None:
    model = attach(writer(kind), method, **options)
    # BART tells positions by columns, so padding on the left is its own affair
    ids, mask = padded(ROWS, "left" if kind == "t5" else "right")
    targets = random_ids([5, 3, 4], seed=2)
    labels = torch.full((3, 5), -100)
    for number, target in enumerate(targets):
        labels[number, : len(target)] = torch.tensor(target)
    output = model(ids, mask, labels)
    assert output.logits.shape == (3, 5, VOCABULARY)
    own = model.prompt
    layout = own.arrange(ROWS, targets)
    expected = own.backbone.logits(own.call(layout), layout.reading_positions())
    assert_close(output.logits[labels != -100], expected)
    answers = own.answers(own.arrange(ROWS), Decoding(max_new_tokens=4, num_beams=1))
    written = model.generate(ids, attention_mask=mask, max_new_tokens=4, do_sample=False)
    assert [own.backbone.tokens.text(row).strip() for row in written[:, 1:].tolist()] == answers


@pytest.mark.parametrize("options", [{"num_beams": 1}, {"num_beams": 3}, {"use_cache": False}])
@pytest.mark.parametrize("method", ["prefix-tuning", "prompt-tuning"])
@pytest.mark.parametrize("family", ["llama", "bloom"])
def test_generate_is_transformers_own_after_a_filled_cache(
    family: str, method: str, options: dict[str, Any]
) -> None:
    model = attach(tiny_model(family), method)
    ids, mask = padded(ROWS, "left")
    given = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 7, **options}
    if family == "bloom" and "use_cache" in options:
        with pytest.raises(UserError, match="use_cache: the prompt of 'bloom'"):
            model.generate(ids, attention_mask=mask, **given)
        return
    found = model.generate(ids, attention_mask=mask, **given)
    assert torch.equal(found[:, :9], ids)
    prompt = model.prompt.prompt()
    assert prompt is not None
    front = prompt.sites["decoder"]
    for number, row in enumerate(ROWS):
        beams = given.get("num_beams", 1)
        cache = DynamicCache(config=model.config)
        for layer in front.layers:
            part = front.front(layer)
            assert part is not None
            cache.update(*(side.detach() for side in part.of_rows(beams, torch.float32)), layer)
        alone = model.prompt.backbone.model.generate(
            torch.tensor([row]),
            attention_mask=torch.ones(1, LENGTH + len(row), dtype=torch.long),
            past_key_values=cache,
            **{**given, "use_cache": True},
        )
        ends = alone.shape[1] - len(row)
        assert found[number, 9 : 9 + ends].tolist() == alone[0, len(row) :].tolist()


def left_behind(model: PreTrainedModel) -> dict[str, Any]:
    """All that a model holds beside its weights."""
    modules = {
        f"{name}.{key}": repr(value) if isinstance(value, dict) else value
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if key not in ("_parameters", "_buffers", "_modules", "config", "generation_config")
    }
    return {
        **modules,
        "children": [(name, module) for name, module in model.named_modules()],
        "config": dict(vars(model.config)),
        "generation": model.generation_config.to_dict(),
        "moving": [parameter.requires_grad for parameter in model.parameters()],
    }


@pytest.mark.parametrize("family", ["gpt2", "bloom"])
def test_detach_leaves_nothing(family: str) -> None:
    model = tiny_model(family).train()
    model.generation_config.top_k = 3
    ids = torch.tensor(random_ids([6, 6]))
    model.eval()
    with torch.no_grad():
        answers = model(ids).logits
    model.train()
    before = left_behind(model)
    attached = attach(model)
    assert attached.generation_config.top_k == 3
    attached(ids, labels=ids).loss.backward()
    attached.generate(ids, max_new_tokens=2)
    attached.generation_config.top_k = 5
    attached.config.use_cache = False
    assert foreword.detach(attached) is model
    assert left_behind(model) == before
    model.eval()
    with torch.no_grad():
        assert torch.equal(model(ids).logits, answers)
    for ask in (lambda: attached(ids), lambda: foreword.detach(attached)):
        with pytest.raises(UserError, match="was detached"):
            ask()
    attach(model)


def test_a_refused_model_is_as_it_was() -> None:
    model = tiny_model("gpt2").train()
    before = left_behind(model)
    with pytest.raises(UserError, match="leave no room"):
        foreword.attach(model, "prefix-tuning", length=300)
    assert left_behind(model) == before


def test_holds_the_prompt_alone() -> None:
    base = tiny_model("llama")
    model = attach(base, reparameterization="table")
    width = 2 * 2 * 2 * 8  # layers, keys and values, heads, their width
    assert [tuple(p.shape) for p in model.parameters()] == [(LENGTH, width)]
    assert [tuple(t.shape) for t in model.state_dict().values()] == [(LENGTH, width)]
    assert model.num_parameters(only_trainable=True) == LENGTH * width
    assert model.num_parameters() == LENGTH * width + base.num_parameters()
    model.train()
    assert not any(module.training for module in base.modules())
    model.double()
    assert {p.dtype for p in [*base.parameters(), *model.parameters()]} == {torch.float64}


def test_moves_of_the_backbone_are_trained_and_saved_with_the_prompt() -> None:
    base = tiny_model("llama")
    ids = torch.tensor(random_ids([6, 6]))
    model = attach(base, delta="lora")
    names = list(model.state_dict())
    assert any("lora" in name for name in names)
    model(ids, labels=ids).loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert not any(p.requires_grad for p in base.parameters())
    foreword.detach(model)


def test_two_prompts_on_one_model_are_refused() -> None:
    model = tiny_model("gpt2")
    attached = attach(model)
    for given in (model, attached):
        with pytest.raises(UserError, match="carries a prompt already"):
            attach(given)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("prefix-tunin", {}, "there is no 'prefix-tunin' .did you mean 'prefix-tuning'"),
        ("prefix-tuning", {"lenght": 3}, "method.lenght: .*did you mean 'length'"),
        ("prefix-tuning", {"length": 0}, "method.length: must be at least 1"),
        ("prefix-tuning", {"init": "words"}, "method.init"),
        ("lora", {}, "'lora' trains no prompt"),
        ("pet", {}, "'pet' trains no prompt"),
        ("infix-tuning", {}, "know where the source ends"),
        ("cpt", {}, "'cpt' learns from the labels among its virtual tokens, too"),
        ("cpt", {"length": 2, "init": {"tokens": [1, 2], "types": [1, 4]}}, "by a recipe"),
        (
            "prefix-tuning",
            {"init": {"kind": "activations", "examples": 2}},
            "method.init.examples: there are no training examples here",
        ),
        (
            "prompt-tuning",
            {"init": {"kind": "text", "text": "a bird"}},
            "tokenizer: is needed here",
        ),
    ],
)
def test_options_that_say_no_prompt_are_refused(
    method: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        foreword.attach(tiny_model("gpt2"), method, **options)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(UserError, match="expected a transformers model"):
        foreword.attach(nn.Linear(2, 2), "prefix-tuning")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"inputs_embeds": torch.zeros(1, 3, 32)}, "inputs_embeds: is not taken beside a prompt"),
        ({"past_key_values": DynamicCache()}, "past_key_values: is not taken"),
        ({"use_cache": True}, "use_cache: is not taken"),
        ({"position_ids": torch.tensor([[0, 1, 0, 1]])}, "position_ids: begin anew within a row"),
        ({"attention_mask": torch.ones(1, 1, 4, 4)}, "attention_mask: has the shape"),
        ({"cu_seq_lens_q": torch.tensor([0, 2, 4])}, "rows that hold several texts"),
    ],
)
def test_inputs_without_a_meaning_are_refused(given: dict[str, Any], message: str) -> None:
    model = attach(tiny_model("gpt2"))
    with pytest.raises(UserError, match=message):
        model(**{"input_ids": torch.tensor(random_ids([4])), **given})


def test_given_positions_count_from_the_text() -> None:
    model = attach(tiny_model("llama"))
    ids = torch.tensor(random_ids([5]))
    counted = model(ids).logits
    assert torch.equal(model(ids, position_ids=torch.arange(5)[None]).logits, counted)
    assert not torch.allclose(model(ids, position_ids=2 * torch.arange(5)[None]).logits, counted)


def test_other_checkpointing_and_noise_are_refused() -> None:
    model = attach(tiny_model("gpt2"))
    for asked in ({"use_reentrant": True}, {"preserve_rng_state": False}):
        with pytest.raises(UserError, match="leave all but `use_reentrant: false` out"):
            model.gradient_checkpointing_enable(asked)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing
    model.get_input_embeddings().neftune_noise_alpha = 5.0
    with pytest.raises(UserError, match="neftune_noise_alpha"):
        model.train()(torch.tensor([[1, 2]]))
    with pytest.raises(UserError, match=r"nn\.DataParallel"):
        model._replicate_for_data_parallel()


def test_a_type_that_the_processor_has_no_units_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """`from_pretrained` takes the type in which weights are stored, and says nothing of it."""
    monkeypatch.setattr("foreword.backbone.arithmetic._processor", dict)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.warns(UserWarning, match='no units for float16 .* load it with dtype="float32"'):
        foreword.attach(tiny_model("gpt2", torch.float16), "prefix-tuning", length=2)
