"""Deltas in artifacts: there and back, damaged, and out to plain models and to PEFT."""

from __future__ import annotations

import json
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

import foreword
from axes.deltas.moving import MOVING, louder, method
from conftest import assert_close
from families.catalogue import plain_model, wrapped
from foreword.artifacts.artifact import load_model, save_artifact
from foreword.axes.deltas.base import expect_names
from foreword.axes.readout.head import SequenceHead
from foreword.backbone import Backbone, Call, bundled_backbones, load_backbone
from foreword.backbone.layout import Layout
from foreword.errors import ArtifactError, UserError
from foreword.methods import MethodOptions
from foreword.recipe import TaskId
from foreword.tasks import task_of
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)
TASK = TaskId(input="{text}", target="{reference}")
LABELS = TASK.model_copy(update={"answer": "label", "labels": ("no", "yes"), "label": "label"})
SOURCES, TARGETS = [[3, 4, 5], [7, 8]], [[5, 6, 7], [8, 9]]


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A tiny GPT-2 in a folder, as float64."""
    folder = tmp_path_factory.mktemp("gpt2")
    plain_model("gpt2", vocab_size=8192).save_pretrained(folder)
    AutoTokenizer.from_pretrained(bundled_backbones()["foreword/mini"]).save_pretrained(folder)
    return load_backbone(str(folder), dtype="float64", device="cpu")


def stored(folder: Path, backbone: Backbone, options: MethodOptions) -> TunedModel:
    """A model whose delta says something, and its artifact in a folder."""
    model = compose(backbone, options)
    louder(model.delta)
    save_artifact(
        folder,
        model,
        name="it",
        method=options,  # type: ignore[arg-type]
        task=TASK,
        trained_parameters=model.trained_parameters,
    )
    return model


def losses(model: TunedModel) -> torch.Tensor:
    with torch.no_grad():
        return model(model.placement.layout(SOURCES, TARGETS))


@pytest.mark.parametrize(
    "options",
    [
        *(method(name) for name in MOVING),
        method("lora", targets=["all"], rank=2),
        method("adapter", size=3, activation="tanh", layer_norms=False),
        method("prefix-tuning", length=3, delta={"kind": "lora", "rank": 2}),
        method("prompt-tuning", length=3, delta={"kind": "adapter", "size": 2}),
    ],
    ids=lambda options: f"{options.name}, {options.moves.kind}",
)
@pytest.mark.parametrize("family", ["gpt2", "bart"])
def test_there_and_back(family: str, options: MethodOptions, tmp_path: Path) -> None:
    backbone = wrapped(family)
    model = stored(tmp_path / "it", backbone, options)
    manifest, again = load_model(tmp_path / "it", backbone=backbone)
    assert manifest.method.moves == options.moves
    assert manifest.trained_parameters == model.trained_parameters
    assert manifest.trained_share == model.trained_share
    for name, tensor in model.delta.tensors().items():
        assert torch.equal(again.delta.tensors()[name], tensor), name
    found, expected = losses(again), losses(model)
    if options.length:  # the prompt is stored as float32
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    else:
        assert torch.equal(found, expected)
    kept = load_file(tmp_path / "it" / "delta.safetensors")
    assert set(kept) == set(model.delta.tensors())


@pytest.mark.parametrize("name", MOVING)
def test_under_a_head(name: str, tmp_path: Path) -> None:
    backbone = wrapped("bert")
    options = method(name)
    task = task_of(LABELS)
    model = compose(backbone, options, task.readout(backbone))
    assert isinstance(model.readout, SequenceHead)
    assert not any("cls.predictions" in tensor for tensor in model.delta.tensors())
    louder(model.delta)
    save_artifact(tmp_path / "it", model, name="it", method=options, task=LABELS)  # type: ignore[arg-type]
    prompt = foreword.load(tmp_path / "it", backbone=backbone)
    layout = Layout.of([[3, 4, 5]]).to("cpu")
    with torch.no_grad():
        expected = model.backbone.hidden(Call(layout))
        assert torch.equal(prompt.model.backbone.hidden(Call(layout)), expected)


def test_damaged(gpt2: Backbone, tmp_path: Path) -> None:
    model = compose(gpt2, method("bitfit"))
    tensors = {name: tensor.detach() for name, tensor in model.delta.tensors().items()}
    first, *_ = sorted(tensors)
    for damaged, line in (
        ({**tensors, "more": torch.zeros(1)}, "1 tensors are missing, superfluous.* of them more"),
        ({n: t for n, t in tensors.items() if n != first}, f"the first of them {first}"),
        ({**tensors, first: torch.zeros(3)}, f"the first of them {first}"),
        ({**tensors, first: tensors[first] * torch.nan}, f"{first} must hold finite"),
    ):
        with pytest.raises(ArtifactError, match=line):
            model.delta.load(damaged)
    expect_names(tensors, tensors)


@pytest.mark.parametrize("name", ["fine-tuning", "fine-tuning-top", "bitfit", "lora"])
def test_a_plain_model_answers_alike(name: str, gpt2: Backbone, tmp_path: Path) -> None:
    model = stored(tmp_path / "it", gpt2, method(name))
    notes = foreword.export_model(tmp_path / "it", tmp_path / "plain", dtype="float64")
    assert notes == []
    plain, said = AutoModelForCausalLM.from_pretrained(
        tmp_path / "plain", dtype=torch.float64, output_loading_info=True
    )
    assert not said["missing_keys"] | said["unexpected_keys"]
    layout = Layout.of([[3, 4, 5, 6, 7]])
    with torch.no_grad():
        expected = model.backbone.logits(Call(layout))[0]
        assert_close(plain.eval()(layout.input_ids).logits[0], expected)
    assert plain.generation_config.eos_token_id == gpt2.model.config.eos_token_id
    assert AutoTokenizer.from_pretrained(tmp_path / "plain")("a")["input_ids"]
    assert load_backbone(str(tmp_path / "plain"), device="cpu").sha256 != gpt2.sha256


def test_a_plain_encoder_has_no_head(tmp_path: Path) -> None:
    backbone, options = wrapped("bert", torch.float32), method("lora")
    model = compose(backbone, options, task_of(LABELS).readout(backbone))
    louder(model.delta)
    save_artifact(tmp_path / "it", model, name="it", method=options, task=LABELS)  # type: ignore[arg-type]
    notes = foreword.export_model(tmp_path / "it", tmp_path / "plain", backbone=backbone)
    assert notes
    assert "head.safetensors" in notes[0]
    plain = AutoModelForMaskedLM.from_pretrained(tmp_path / "plain").eval()
    with torch.no_grad():
        found = plain.bert(torch.tensor([[3, 4, 5]])).last_hidden_state
        assert_close(found, model.backbone.hidden(Call(Layout.of([[3, 4, 5]]))))


def test_what_no_plain_model_can_hold(gpt2: Backbone, tmp_path: Path) -> None:
    for options, line in {
        method("adapter"): "adapters are layers of their own, for which a plain model has no place",
        method("prefix-tuning", length=2, delta={"kind": "lora"}): "has a prompt of 2 virtual",
        method("prefix-tuning", length=2): "has a prompt of 2 virtual tokens",
        method("hard-prompt"): "leaves the backbone as it is",
    }.items():
        folder = tmp_path / f"{options.name}-{options.moves.kind}"
        stored(folder, gpt2, options)
        with pytest.raises(UserError, match=line):
            foreword.export_model(folder, tmp_path / "plain")
        assert not (tmp_path / "plain").exists()
    stored(tmp_path / "it", gpt2, method("bitfit"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    with pytest.raises(UserError, match="full"):
        foreword.export_model(tmp_path / "it", tmp_path / "full")


@pytest.mark.parametrize("targets", [None, ["all"]])
@pytest.mark.parametrize("family", ["gpt2", "llama", "bart", "t5"])
def test_peft_reads_lora(family: str, targets: list[str] | None, tmp_path: Path) -> None:
    backbone = wrapped(family)
    options = method("lora", rank=3, alpha=5.0, targets=targets)
    model = stored(tmp_path / "it", backbone, options)
    config = foreword.export_peft(tmp_path / "it", tmp_path / "peft")
    assert (config.kind.value, config.lora_alpha) == ("LORA", 5.0)
    theirs = peft.PeftModel.from_pretrained(plain_model(family), tmp_path / "peft").eval()
    given = {"input_ids": torch.tensor([[3, 4, 5, 6]])}
    layout = Layout.of([[3, 4, 5, 6]])
    if backbone.geometry.kind == "encoder-decoder":
        begin = list(backbone.begin or ())
        given["decoder_input_ids"] = torch.tensor([[*begin, 5, 6]])
        layout = Layout.of([[*begin, 5, 6]], source=layout)
    with torch.no_grad():
        assert_close(theirs(**given).logits[0], model.backbone.logits(Call(layout))[0])


def test_what_peft_has_no_place_for(gpt2: Backbone, tmp_path: Path) -> None:
    for options, line in {
        method("adapter"): "is adapter, which PEFT's format of prompts and LoRA has no place for$",
        method("bitfit"): "no place for; use `foreword export model`",
        method("prefix-tuning", length=2, delta={"kind": "lora"}): "with LoRA beside it",
        method("prefix-tuning", length=2, delta={"kind": "bitfit"}): "its delta is bitfit",
    }.items():
        folder = tmp_path / f"{options.name}-{options.moves.kind}"
        stored(folder, gpt2, options)
        with pytest.raises(UserError, match=line):
            foreword.export_peft(folder, tmp_path / "peft")


def test_an_artifact_says_what_moved(gpt2: Backbone, tmp_path: Path) -> None:
    model = stored(tmp_path / "it", gpt2, method("lora"))
    manifest = json.loads((tmp_path / "it" / "foreword.json").read_text(encoding="utf-8"))
    assert manifest["axes"]["delta"] == "lora"
    assert manifest["axes"]["targets"] == model.delta.chosen
    card = (tmp_path / "it" / "README.md").read_text(encoding="utf-8")
    assert "lora of its weights, 1,536 parameters" in card
