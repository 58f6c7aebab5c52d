"""PEFT's adaption prompts come in and go out: the same tensors, logits and answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

import foreword
from compat.exchanging import WARNINGS
from conftest import LLAMA_LIKE, assert_close, make_backbone, random_ids, tiny_model
from foreword.artifacts.artifact import load_model, save_artifact
from foreword.backbone import Backbone
from foreword.backbone.layout import Pair
from foreword.errors import ArtifactError, UserError
from foreword.methods import LLaMAAdapter
from foreword.methods.axes import Biases
from foreword.recipe import TaskId
from foreword.tuned.compose import compose

pytestmark = [pytest.mark.filterwarnings(warning) for warning in WARNINGS]
LENGTH = 4
TASK = TaskId(input="{text}", target="{reference}", metrics=("bleu",))
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def peft_model(family: str = "llama", layers: int = 2, **settings: Any) -> Any:
    settings = LLAMA_LIKE | settings if family != "gpt2" else settings
    config = peft.AdaptionPromptConfig(
        task_type="CAUSAL_LM", adapter_len=LENGTH, adapter_layers=layers
    )
    torch.manual_seed(1)
    model = peft.get_peft_model(tiny_model(family, **settings), config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gate"):
                parameter.normal_(0.0, 2.0)
    return model


def saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(peft_model(), tmp_path_factory.mktemp("adaption") / "theirs")


@pytest.fixture(scope="module")
def llama() -> Backbone:
    return make_backbone("llama")


@torch.no_grad()
def our_logits(folder: Path, backbone: Backbone, ids: list[int]) -> torch.Tensor:
    _, model = load_model(folder, backbone=backbone)
    return backbone.logits(model.call(model.lay_out([Pair(ids[:1], ids[1:])])))[0]


@torch.no_grad()
def their_logits(model: Any, ids: list[int]) -> torch.Tensor:
    return model(input_ids=torch.tensor([ids])).logits[0]


@pytest.mark.parametrize(("family", "layers"), [("llama", 2), ("llama", 1), ("mistral", 1)])
def test_in_and_out_again(family, layers, tmp_path: Path) -> None:
    theirs = peft_model(family, layers)
    backbone = make_backbone(family, **LLAMA_LIKE)
    folder = saved(theirs, tmp_path / "theirs")
    manifest = foreword.import_peft(folder, tmp_path / "ours", backbone=backbone)
    method = manifest.method
    assert isinstance(method, LLaMAAdapter)
    assert (method.length, method.layers, method.gate, method.tanh) == (
        LENGTH,
        layers,
        "layer",
        False,
    )
    (ids,) = random_ids([9])
    assert_close(our_logits(tmp_path / "ours", backbone, ids), their_logits(theirs, ids))

    config = foreword.export_peft(tmp_path / "ours", tmp_path / "again")
    assert config.num_virtual_tokens == LENGTH
    before, after = (load_file(tmp_path / name / WEIGHTS) for name in ("theirs", "again"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    again = peft.PeftModel.from_pretrained(
        tiny_model(family, **LLAMA_LIKE), str(tmp_path / "again")
    ).eval()
    assert torch.equal(their_logits(again, ids), their_logits(theirs, ids))


def test_greedy_answers_are_pefts(sound: Path, llama: Backbone, tmp_path: Path) -> None:
    foreword.import_peft(sound, tmp_path / "ours", backbone=llama, input="{text}")
    text, tokens = "a bird of the river", 8
    read = torch.tensor([llama.tokens.source(text)])
    written = peft_model().generate(input_ids=read, max_new_tokens=tokens, do_sample=False)
    expected = llama.tokens.text(written[0, read.shape[1] :].tolist()).strip()
    prompt = foreword.load(tmp_path / "ours", backbone=llama)
    assert prompt.generate([text], max_new_tokens=tokens) == [expected]


def ours(folder: Path, backbone: Backbone, **options: Any) -> Path:
    chosen = LLaMAAdapter(name="llama-adapter", length=LENGTH, layers=1, **options)
    torch.manual_seed(0)
    model = compose(backbone, chosen)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gates"):
                parameter.normal_(0.0, 1.0)
    save_artifact(folder, model, name="it", method=chosen, task=TASK)
    return folder


def test_our_tanh_is_put_into_pefts_gates(llama: Backbone, tmp_path: Path) -> None:
    folder = ours(tmp_path / "ours", llama, gate="layer")
    foreword.export_peft(folder, tmp_path / "theirs")
    (ids,) = random_ids([8])
    base = tiny_model("llama")
    theirs = peft.PeftModel.from_pretrained(base, str(tmp_path / "theirs")).eval()
    assert_close(our_logits(folder, llama, ids), their_logits(theirs, ids))


def test_what_peft_has_no_place_for(llama: Backbone, tmp_path: Path) -> None:
    heads = ours(tmp_path / "heads", llama)
    with pytest.raises(UserError, match="gate of each head, and PEFT has one for a layer"):
        foreword.export_peft(heads, tmp_path / "out")
    for family, said in (("gpt2", "behind the output projection"), ("opt", "'opt', on which PEFT")):
        folder = ours(tmp_path / family, make_backbone(family), gate="layer")
        with pytest.raises(UserError, match=said):
            foreword.export_peft(folder, tmp_path / "out")
    biased = make_backbone("llama", attention_bias=True)
    moved = ours(tmp_path / "biases", biased, gate="layer", delta=Biases())
    with pytest.raises(UserError, match="its delta is bitfit"):
        foreword.export_peft(moved, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_peft_computes_otherwise_is_not_imported(tmp_path: Path) -> None:
    gpt2 = saved(peft_model("gpt2"), tmp_path / "gpt2")
    with pytest.raises(ArtifactError, match="behind the output projection"):
        foreword.import_peft(gpt2, tmp_path / "out", backbone=make_backbone("gpt2"))
    biased = saved(peft_model(attention_bias=True), tmp_path / "biased")
    with pytest.raises(ArtifactError, match=r"PEFT adds the bias of .*o_proj twice"):
        foreword.import_peft(
            biased, tmp_path / "out", backbone=make_backbone("llama", attention_bias=True)
        )
    assert not (tmp_path / "out").exists()


Damage = Callable[[dict[str, Any], dict[str, torch.Tensor]], Any]
AT = "base_model.model.model.layers.{}.self_attn.adaption_{}"


def _without(name: str) -> Damage:
    return lambda _, tensors: tensors.pop(name)


def _tensor(name: str, tensor: torch.Tensor) -> Damage:
    return lambda _, tensors: tensors.update({name: tensor})


def _field(**fields: Any) -> Damage:
    return lambda config, _: config.update(fields)


DAMAGES: dict[str, tuple[Damage, str]] = {
    "a gate is gone": (_without(AT.format(1, "gate")), "expected base_model"),
    "a prompt is gone": (_without(AT.format(1, "prompt")), "expected base_model"),
    "a gate of each head": (_tensor(AT.format(1, "gate"), torch.ones(4)), r"gate \[4\]"),
    "another tensor": (_tensor("base_model.model.lm_head", torch.ones(1)), "lm_head"),
    "another length": (_field(adapter_len=5), "adaption_prompt"),
    "fewer layers": (_field(adapter_layers=1), "of the last 1 layers"),
    "no layers": (_field(adapter_layers=0), "adapter_layers"),
    "no length": (_field(adapter_len=None), "adapter_len"),
    "widths differ": (_tensor(AT.format(1, "prompt"), torch.ones(1, 4, 8)), "differ in their"),
    "a gap": (
        lambda _, tensors: tensors.update(
            {AT.format(3, part): tensors.pop(AT.format(1, part)) for part in ("prompt", "gate")}
        ),
        "of the last 2 layers",
    ),
    "other layers": (
        lambda _, tensors: tensors.update(
            {
                AT.format(n + 1, part): tensors.pop(AT.format(n, part))
                for n in (1, 0)
                for part in ("prompt", "gate")
            }
        ),
        r"decoder\.layers \[0, 1\], found \[1, 2\]",
    ),
    "not finite": (_tensor(AT.format(1, "gate"), torch.full((1,), torch.nan)), "finite"),
    "whole numbers": (_tensor(AT.format(1, "gate"), torch.ones(1, dtype=torch.int8)), "int8"),
    "a head": (_field(task_type="SEQ_CLS"), "task_type"),
    "other modules": (_field(target_modules="mlp"), "target_modules"),
    "modules beside it": (_field(modules_to_save=["lm_head"]), "modules_to_save"),
    "an unknown field": (_field(bias="all"), "bias"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_folder_is_refused(name, sound: Path, llama: Backbone, tmp_path: Path) -> None:
    damage, said = DAMAGES[name]
    config = json.loads((sound / CONFIG).read_text())
    tensors = load_file(sound / WEIGHTS)
    damage(config, tensors)
    folder = tmp_path / "damaged"
    folder.mkdir()
    (folder / CONFIG).write_text(json.dumps(config))
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(ArtifactError, match=said) as caught:
        foreword.import_peft(folder, tmp_path / "out", backbone=llama)
    assert str(folder) in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_another_backbone_is_refused(sound: Path, tmp_path: Path) -> None:
    wider = make_backbone("llama", hidden_size=64)
    with pytest.raises(ArtifactError, match=r"needs .*64.* found .*32"):
        foreword.import_peft(sound, tmp_path / "out", backbone=wider)
