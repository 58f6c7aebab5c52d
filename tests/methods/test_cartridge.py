"""Cartridges: a text's own keys and values, the first of which never move."""

from __future__ import annotations

import json
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file

import foreword
from compat.exchanging import WARNINGS
from conftest import assert_close, make_backbone, mini_tokens, tiny_model
from foreword.artifacts.artifact import load_model, save_artifact
from foreword.backbone import Backbone, Call, Tokens
from foreword.common.progress import Silent
from foreword.errors import ArtifactError, UserError
from foreword.methods import Cartridge
from foreword.methods.axes import FirstTokensInit
from foreword.recipe import TaskId
from foreword.runs import train
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose
from foreword.tuned.initial import initialise

TEXT = "The Silver Piper is a small grey bird that lives beside slow rivers and sings at dusk."
INPUTS = ["Where does it live?", "A", "It sings at noon, does it not?"]
TASK = TaskId(input="{text}", target="{reference}", metrics=("bleu",))


def method(length: int, frozen: int = 1, text: str = TEXT) -> Cartridge:
    init = FirstTokensInit(text=text)
    return Cartridge(name="cartridge", length=length, frozen=frozen, init=init)


def started(backbone: Backbone, length: int, **options) -> TunedModel:
    chosen = method(length, **options)
    model = compose(backbone, chosen).to(backbone.model.dtype)
    initialise(model, chosen.init, [])
    return model


@pytest.mark.parametrize("bos", ["auto", "always", "never"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_all_of_a_text_answers_as_the_text_itself(family, bos, norms_in_float64) -> None:
    """The model with the real tokens before the input, the input's own beginning token included."""
    backbone = make_backbone(family, torch.float64).with_bos(bos)
    ids = backbone.tokens.document(TEXT)
    assert len(ids) == len(backbone.tokens.plain(TEXT)) + (bos == "always")
    model = started(backbone, len(ids))
    sources = [backbone.tokens.source(text) for text in INPUTS]
    layout = model.arrange(sources)
    found = backbone.logits(model.call(layout))
    for row, source in enumerate(sources):
        with torch.no_grad():
            reference = backbone.model(torch.tensor([[*ids, *source]])).logits[0, len(ids) :]
        assert_close(found[row][layout.attention_mask[row]], reference)


def test_the_first_tokens_of_a_longer_text(tiny_backbone) -> None:
    backbone = tiny_backbone("llama", torch.float64)
    ids = backbone.tokens.document(TEXT)
    named = started(backbone, 7).reparam()
    whole = backbone.keys_values(ids)["decoder"]
    for name, side in zip(("decoder.keys", "decoder.values"), whole, strict=True):
        assert_close(named[name].detach(), side[:, :7])


def test_frozen_tokens_have_no_gradient_and_stay_as_they_are(tiny_backbone) -> None:
    backbone = tiny_backbone("llama")
    model = started(backbone, 6, frozen=2)
    before = {name: tensor.clone() for name, tensor in model.reparam().items()}
    named = model.reparam()
    for tensor in named.values():
        tensor.retain_grad()
    pairs = [(backbone.tokens.source(text), backbone.tokens.target(" yes")) for text in INPUTS]
    layout = model.arrange([source for source, _ in pairs], [target for _, target in pairs])
    prompt = model.injection.prompt(named)
    model.readout.loss(backbone, Call(layout, prompt)).mean().backward()
    assert all(tensor.grad is not None and tensor.grad.any() for tensor in named.values())
    trained = dict(model.named_parameters())
    assert sum(p.numel() for p in trained.values()) == 4 * model.injection.width
    assert model.trained_parameters == 4 * model.injection.width
    optimizer = torch.optim.AdamW(trained.values(), lr=0.1, weight_decay=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        model(layout).mean().backward()
        optimizer.step()
    for name, tensor in model.reparam().items():
        assert torch.equal(tensor[:, :2], before[name][:, :2])
        assert not torch.isclose(tensor[:, 2:], before[name][:, 2:]).any(dim=(0, 2, 3)).all()
        assert (tensor[:, 2:] != before[name][:, 2:]).any()


class Kept(Silent):
    """The lines that a run says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def recipe(folder: Path, **options) -> Path:
    (folder / "manual.txt").write_text(TEXT, encoding="utf-8")
    stated = {
        "version": 1,
        "name": "manual",
        "backbone": "foreword/mini",
        "method": {"name": "cartridge", "init": {"kind": "text", "file": "manual.txt"}, **options},
        "task": {
            "input": "{source} ->",
            "target": " {reference}",
            "data": {"format": "jsonl", "train": "rows.jsonl", "dev": "rows.jsonl"},
        },
        "training": {"steps": 2, "batch_size": 2},
        "decoding": {"max_new_tokens": 3},
        "evaluation": {"backbone_alone": False},
    }
    rows = [{"source": text, "references": ["by a river"]} for text in INPUTS]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.yaml").write_text(json.dumps(stated))
    return folder / "recipe.yaml"


def test_a_run_from_a_file(tmp_path, mini) -> None:
    file = recipe(tmp_path)
    progress = Kept()
    train(file, out=tmp_path / "run", backbone=mini, device="cpu", progress=progress)
    held = len(mini.tokens.document(TEXT))
    manifest, model = load_model(tmp_path / "run" / "artifact", backbone=mini)
    assert manifest.method.length == held == model.placement.length
    assert manifest.method.init == FirstTokensInit(file="manual.txt")
    assert manifest.data["init"]["name"] == "manual.txt"
    assert any(f"{held} virtual tokens, not 2048" in note for note in progress.lines)
    first = mini.keys_values(mini.tokens.document(TEXT))["decoder"][0][:, :1]
    stored = load_file(tmp_path / "run" / "artifact" / "prompt.safetensors")["decoder.keys"]
    assert torch.equal(stored[:, :1], first)
    assert not torch.equal(stored[:, 1:2], first)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init": {"kind": "text"}}, "cartridge starts from a text"),
        ({"init": {"kind": "text", "file": "none.txt"}}, "none.txt: cannot be read"),
        ({"init": {"kind": "text", "file": "latin.txt"}}, "is no UTF-8 text"),
        ({"init": {"kind": "text", "file": "empty.txt"}}, "is empty"),
        ({"frozen": 900}, "method.frozen keeps 900"),
        ({"length": 3, "frozen": 4}, "`frozen` is 4, but there are 3"),
        ({"length": 3, "frozen": 3}, "method.frozen: is 3, as is method.length"),
        ({"length": 1, "init": "random"}, "method.frozen: is 1, as is method.length"),
        ({"init": {"kind": "text", "file": "a", "text": "b"}}, "not both"),
    ],
)
def test_what_is_no_text_to_start_from_is_refused(options, message, tmp_path, mini) -> None:
    file = recipe(tmp_path, **options)
    (tmp_path / "latin.txt").write_bytes("Käfer".encode("latin-1"))
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(UserError, match=message):
        train(file, out=tmp_path / "run", backbone=mini, device="cpu")
    assert not (tmp_path / "run" / "artifact").exists()


def test_attached_to_a_model_its_length_must_fit_the_text() -> None:
    tokenizer = mini_tokens().tokenizer
    init = {"kind": "text", "text": TEXT}
    with pytest.raises(UserError, match=r"100 virtual tokens, but the text has \d+ tokens"):
        foreword.attach(
            tiny_model("llama"), "cartridge", tokenizer=tokenizer, length=100, init=init
        )
    attached = foreword.attach(
        tiny_model("llama"), "cartridge", tokenizer=tokenizer, length=5, init=init
    )
    assert attached.prompt.placement.length == 5


@pytest.fixture
def saved_llama(tmp_path) -> str:
    folder = tmp_path / "llama"
    tiny_model("llama").save_pretrained(folder)
    mini_tokens().tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.filterwarnings(*WARNINGS)
def test_logits_are_pefts_after_import_and_after_export(saved_llama, tmp_path) -> None:
    base = tiny_model("llama")
    config = peft.CartridgeConfig(task_type="CAUSAL_LM", num_virtual_tokens=5, num_frozen_tokens=2)
    theirs = peft.get_peft_model(base, config)
    peft.initialize_kv_prefix_from_text(
        theirs, mini_tokens().tokenizer, text=TEXT, use_chat_template=False
    )
    with torch.no_grad():
        theirs.prompt_encoder["default"].trainable_embedding.add_(0.3)
    theirs.eval().save_pretrained(tmp_path / "adapter")
    manifest = foreword.import_peft(tmp_path / "adapter", tmp_path / "ours", backbone=saved_llama)
    assert manifest.method.name == "cartridge"
    assert (manifest.method.length, manifest.method.frozen) == (5, 2)
    _, ours = load_model(tmp_path / "ours", backbone_name=saved_llama)
    ids = ours.backbone.tokens.source(INPUTS[2])
    found = ours.backbone.logits(ours.call(ours.arrange([ids])))[0]
    with torch.no_grad():
        expected = theirs(input_ids=torch.tensor([ids])).logits[0]
    assert_close(found, expected)
    foreword.export_peft(tmp_path / "ours", tmp_path / "back")
    stated = json.loads((tmp_path / "back" / "adapter_config.json").read_text())
    assert (stated["peft_type"], stated["num_frozen_tokens"]) == ("CARTRIDGE", 2)
    again = peft.PeftModel.from_pretrained(tiny_model("llama"), str(tmp_path / "back")).eval()
    with torch.no_grad():
        assert_close(found, again(input_ids=torch.tensor([ids])).logits[0])
    stated["num_frozen_tokens"] = 6
    (tmp_path / "back" / "adapter_config.json").write_text(json.dumps(stated))
    with pytest.raises(ArtifactError, match="num_frozen_tokens: is 6"):
        foreword.import_peft(tmp_path / "back", tmp_path / "no", backbone=saved_llama)


@pytest.mark.filterwarnings(*WARNINGS)
def test_an_untrained_one_starts_as_pefts_does(saved_llama) -> None:
    base = tiny_model("llama")
    config = peft.CartridgeConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)
    theirs = peft.get_peft_model(base, config)
    rows = peft.initialize_kv_prefix_from_text(
        theirs, mini_tokens().tokenizer, text=TEXT, use_chat_template=False
    )
    backbone = Backbone.wrap(tiny_model("llama"), Tokens(mini_tokens().tokenizer))
    assert_close(started(backbone, 5).rows().detach(), rows)


@pytest.mark.filterwarnings(*WARNINGS)
def test_peft_composes_without_moving_keys_to_their_places(tmp_path) -> None:
    """Two halves of a text that are put together must be the text; PEFT leaves the second half's
    rotary keys at the first half's positions."""
    backbone = Backbone.wrap(tiny_model("llama"), Tokens(mini_tokens().tokenizer))
    ids = backbone.tokens.document(TEXT)[:10]
    halves = []
    for number, part in enumerate((ids[:5], ids[5:])):
        config = peft.CartridgeConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)
        theirs = peft.get_peft_model(tiny_model("llama"), config)
        keys, values = backbone.keys_values(part)["decoder"]
        cache = [
            (key.transpose(0, 1)[None], value.transpose(0, 1)[None])
            for key, value in zip(keys, values, strict=True)
        ]
        peft.initialize_kv_prefix_from_past_key_values(theirs, past_key_values=cache)
        folder = tmp_path / str(number)
        theirs.save_pretrained(folder)
        halves.append(folder)
    from peft.tuners.cartridge.utils import compose_cartridge_adapters

    compose_cartridge_adapters(halves, output_path=tmp_path / "both")
    rows = load_file(tmp_path / "both" / "adapter_model.safetensors")["prompt_embeddings"]
    keys = rows.view(10, 2, 2, 2, 8)[:, 0, 0]  # the first layer's, which no context changes
    right = backbone.keys_values(ids)["decoder"][0][0]
    assert torch.allclose(keys[:5], right[:5], atol=1e-5)
    assert not torch.allclose(keys[5:], right[5:], atol=1e-2)


def test_training_goes_on_from_one(tmp_path, mini) -> None:
    init = {"kind": "text", "text": TEXT}
    train(recipe(tmp_path, length=5, init=init), out=tmp_path / "one", backbone=mini, device="cpu")
    onward = {"kind": "artifact", "path": "one"}
    train(recipe(tmp_path, init=onward), out=tmp_path / "two", backbone=mini, device="cpu")
    one, two = (
        load_file(tmp_path / run / "artifact" / "prompt.safetensors")["decoder.keys"]
        for run in ("one", "two")
    )
    assert two.shape == one.shape
    assert torch.equal(two[:, :1], one[:, :1])
    assert not torch.equal(two[:, 1:], one[:, 1:])


def test_saved_and_loaded_it_is_the_same(tiny_backbone, tmp_path) -> None:
    backbone = tiny_backbone("llama")
    model = started(backbone, 6, frozen=2)
    save_artifact(tmp_path / "a", model, name="a", method=method(6, 2), task=TASK)
    _, loaded = load_model(tmp_path / "a", backbone=backbone)
    for name, tensor in model.reparam().items():
        assert torch.equal(loaded.reparam()[name], tensor)
