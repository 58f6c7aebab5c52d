"""PEFT's LoRA on quantised models, in and out: the same answers on the same quantised model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import foreword
from axes.deltas.moving import louder, method
from compat.with_heads import WARNINGS, save
from conftest import tiny_model
from foreword.artifacts.artifact import save_artifact
from foreword.backbone import Backbone, Call, load_backbone
from foreword.backbone.layout import Layout
from foreword.backbone.weights.quantization import config_of
from foreword.cli import main
from foreword.recipe import TaskId
from foreword.tuned.compose import compose
from quantised import EIGHT, FOUR, TWICE, needs, saved, without_packed_kernels

pytestmark = pytest.mark.filterwarnings(*WARNINGS, "ignore:fan_in_fan_out is set to:UserWarning")
WIDE = {"gpt2": {"n_embd": 64}, "llama": {"hidden_size": 64, "intermediate_size": 128}}
WAYS = {"nf4": FOUR, "nf4, scales quantised": TWICE, "8 bits": EIGHT}
CASES = [(family, way) for family in WIDE for way in WAYS]
IDS = [[5, 81, 300, 27, 9]]
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for family, width in WIDE.items():
        folder = tmp_path_factory.mktemp(family)
        made[family] = saved(tiny_model(family, **width), folder, scale=0.5)
    return made


def base(folder: Path, way: str) -> Any:
    needs(WAYS[way])
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, quantization_config=config_of(WAYS[way])
    )
    return without_packed_kernels(model)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(torch.tensor(IDS)).logits[0]
    return found


def ours(folder: Path, **options: Any) -> tuple[torch.Tensor, Backbone]:
    backbone = foreword.load(folder, device="cpu", **options).model.backbone
    with torch.no_grad():
        return backbone.logits(Call(Layout.of(IDS)))[0], backbone


@pytest.mark.parametrize(("family", "way"), CASES)
def test_in_and_out(family, way, folders, tmp_path) -> None:
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=3, lora_alpha=10, target_modules="all-linear")
    theirs = peft.get_peft_model(base(folders[family], way), config)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.normal_(0.0, 0.1)
    adapter = save(theirs, tmp_path / "adapter")
    manifest = foreword.import_peft(adapter, tmp_path / "it", quantization=WAYS[way])
    assert manifest.backbone.quantization == WAYS[way]
    found, _ = ours(tmp_path / "it")
    torch.testing.assert_close(found, logits(theirs), rtol=0, atol=1e-5 * found.abs().max().item())

    foreword.export_peft(tmp_path / "it", tmp_path / "back")
    given, back = (load_file(folder / WEIGHTS) for folder in (adapter, tmp_path / "back"))
    assert set(given) == set(back)
    assert all(torch.equal(given[name], back[name]) for name in given)
    again = peft.PeftModel.from_pretrained(base(folders[family], way), str(tmp_path / "back"))
    assert torch.equal(logits(again), logits(theirs))


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")
@pytest.mark.parametrize("family", WIDE)
def test_trained_here_it_answers_alike_in_peft(family, folders, tmp_path) -> None:
    needs(FOUR)
    backbone = load_backbone(str(folders[family]), quantization=FOUR)
    options = method("lora", rank=3, alpha=5.0)
    model = compose(backbone, options)
    louder(model.delta)
    task = TaskId(input="{text}", target="{reference}")
    save_artifact(tmp_path / "it", model, name="it", method=options, task=task)  # type: ignore[arg-type]
    foreword.export_peft(tmp_path / "it", tmp_path / "peft")
    found, _ = ours(tmp_path / "it")
    quantised = peft.PeftModel.from_pretrained(base(folders[family], "nf4"), tmp_path / "peft")
    torch.testing.assert_close(found, logits(quantised), rtol=0, atol=1e-4)
    # GPT-2's layers are turned over where they are whole, and PEFT's file fits there as well.
    plain = AutoModelForCausalLM.from_pretrained(folders[family], dtype=torch.float32)
    whole = peft.PeftModel.from_pretrained(plain, tmp_path / "peft")
    with pytest.warns(UserWarning, match="here it is not quantised"):
        found, _ = ours(tmp_path / "it", quantization={})
    torch.testing.assert_close(found, logits(whole), rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*here it is not quantised:UserWarning")
def test_on_the_command_line(folders, tmp_path, monkeypatch, capsys) -> None:
    needs(FOUR)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=3)
    adapter = save(peft.get_peft_model(base(folders["llama"], "nf4"), config), tmp_path / "adapter")

    def run(*words: object) -> str:
        monkeypatch.setattr("sys.argv", ["foreword", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        assert end.value.code in (0, None), said.err
        return said.out + said.err

    how = json.dumps(FOUR)
    run("import", "peft", adapter, "--out", tmp_path / "it", "--quantization", how)
    manifest = json.loads((tmp_path / "it" / "foreword.json").read_text(encoding="utf-8"))
    assert manifest["backbone"]["quantization"] == FOUR
    said = run("export", "model", tmp_path / "it", tmp_path / "plain")
    assert "note: the backbone is quantised by bitsandbytes" in said
    said = run("export", "model", tmp_path / "it", tmp_path / "other", "--quantization", "none")
    assert "note: what moved was trained on a backbone quantised by bitsandbytes" in said
