"""`foreword import peft` and `foreword export peft`."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import peft
import pytest

from compat.exchanging import LENGTH, WARNINGS, base_model, peft_model, save
from compat.with_heads import adapted, save_base
from foreword.artifacts.artifact import save_artifact
from foreword.artifacts.manifest import read_manifest
from foreword.backbone import bundled_backbones, load_backbone
from foreword.cli import main
from foreword.methods import LoRA
from foreword.recipe import TaskId
from foreword.tuned.compose import compose

pytestmark = pytest.mark.filterwarnings(*WARNINGS)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> Path:
    where = str(bundled_backbones()["foreword/mini"])
    return save(peft_model(where, "prefix"), tmp_path_factory.mktemp("adapters") / "birds")


@pytest.fixture
def foreword(monkeypatch, capsys, tmp_path):
    """`foreword("import", "peft", ...)`, in this process in an empty folder: status, out, err."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["foreword", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
        return int(end.value.code or 0), printed.out, printed.err

    return run


def test_import_generate_export(foreword, adapter) -> None:
    status, out, _ = foreword("import", "peft", adapter, "--device", "cpu")
    assert (status, out.split()[:2]) == (0, ["artifact", "runs/birds"])
    assert f"prefix-tuning, {LENGTH} virtual tokens" in out
    generate = ["--text", "The robin", "--max-new-tokens", 3, "--device", "cpu"]
    status, out, _ = foreword("generate", "runs/birds", *generate)
    assert (status, json.loads(out)["input"]) == (0, "The robin")
    status, out, _ = foreword("export", "peft", "runs/birds", "out/birds")
    assert (status, out.split()[:2]) == (0, ["adapter", "out/birds"])
    assert Path("out/birds/adapter_model.safetensors").is_file()
    status, out, _ = foreword("show", "runs/birds")
    assert "adapter_model.safetensors" in out


def test_low_rank_updates(foreword, tmp_path) -> None:
    where = str(bundled_backbones()["foreword/mini"])
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, use_rslora=True, fan_in_fan_out=True)
    save(peft.get_peft_model(base_model(where), config), tmp_path / "low")
    status, out, err = foreword("import", "peft", "low", "--device", "cpu")
    assert (status, out.split()[:2]) == (0, ["artifact", "runs/low"])
    assert "(lora, rank 2, for " in out
    assert "note: use_rslora: its updates count" in err
    generate = ["--text", "The robin", "--max-new-tokens", 3, "--device", "cpu"]
    status, out, _ = foreword("generate", "runs/low", *generate)
    assert (status, json.loads(out)["input"]) == (0, "The robin")
    status, out, _ = foreword("export", "peft", "runs/low", "back")
    assert (status, "(LORA, rank 2)" in out) == (0, True)
    stated = json.loads(Path("low/adapter_config.json").read_text(encoding="utf-8"))
    Path("low/adapter_config.json").write_text(
        json.dumps({**stated, "use_dora": True, "bias": "all"}), encoding="utf-8"
    )
    status, out, err = foreword("import", "peft", "low", "--out", "it")
    assert (status, out) == (2, "")
    assert "use_dora: true scales" in err
    assert "bias: 'all' lets" in err
    assert not Path("it").exists()


def test_options(foreword, adapter) -> None:
    status, _, err = foreword(
        *("import", "peft", adapter, "--out", "it", "--backbone", "foreword/mini"),
        *("--input", "{record} ->", "--target", " {reference}", "--dtype", "bfloat16"),
    )
    assert (status, err) == (0, "")
    manifest = json.loads(Path("it/foreword.json").read_text(encoding="utf-8"))
    assert manifest["task"]["input"] == "{record} ->"
    assert manifest["backbone"]["name"] == "foreword/mini"
    assert manifest["backbone"]["dtype"] == "bfloat16"


def test_a_head_and_its_labels(foreword, tmp_path) -> None:
    base = save_base("bert", tmp_path / "base")
    given = adapted(base, "SEQ_CLS", "prompt").save_pretrained(tmp_path / "moods")
    assert given is None
    arguments = ("import", "peft", "moods", "--device", "cpu")
    status, _, err = foreword(*arguments)
    assert (status, "give all of them in their order with --labels" in err) == (2, True)
    status, out, err = foreword(*arguments, "--labels", "bad, so so ,good")
    assert (status, out.split()[:2]) == (0, ["artifact", "runs/moods"])
    assert "note: PEFT's head reads the state of the first virtual token" in err
    status, out, _ = foreword("predict", "runs/moods", "--text", "An otter", "--device", "cpu")
    assert status == 0
    assert set(json.loads(out)["probabilities"]) == {"bad", "so so", "good"}


@pytest.fixture(scope="module")
def of_all_sorts(tmp_path_factory) -> dict[str, Path]:
    """A prompt, LoRA, and a head, each a folder of PEFT's."""
    root = tmp_path_factory.mktemp("sorts")
    where = str(bundled_backbones()["foreword/mini"])
    low = peft.LoraConfig(task_type="CAUSAL_LM", r=2, fan_in_fan_out=True)
    head = adapted(save_base("bert", root / "base"), "SEQ_CLS", "prompt", labels=2)
    return {
        "prompt": save(peft_model(where, "prompt"), root / "prompt"),
        "lora": save(peft.get_peft_model(base_model(where), low), root / "lora"),
        "head": save(head, root / "head"),
    }


@pytest.mark.parametrize("sort", ["prompt", "lora", "head"])
def test_slots_that_are_not_in_peft(sort, foreword, of_all_sorts, tmp_path) -> None:
    """PEFT's virtual tokens stand in front, and nothing is read at a mask."""
    given = ["import", "peft", of_all_sorts[sort], "--out", "it", "--device", "cpu"]
    for options, said in (
        (["--input", "{text} {soft:3}"], "--input: '{text} {soft:3}' has the slot {soft:3}, but"),
        (["--input", "{soft}{text}"], "--input: '{soft}{text}' has the slot {soft}, but PEFT"),
        (["--input", "{text} {mask}"], "has the slot {mask}, but PEFT stores no template, and its"),
        (["--second", "{b} {mask}"], "--second: '{b} {mask}' has the slot {mask}, but PEFT"),
        (["--second", "{b}{soft:2}"], "virtual tokens, where it has some, stand in front of the"),
    ):
        status, out, err = foreword(*given, *options)
        assert (status, out) == (2, "")
        assert said in err
        assert "leave the slot out" in err
    assert list(tmp_path.iterdir()) == []


def test_the_commands_of_the_method_page(foreword, tmp_path) -> None:
    """docs/methods/lora.md: one after the other, on what a run of the bundled recipe leaves."""
    page = Path(__file__).parents[2] / "docs" / "methods" / "lora.md"
    block, *_ = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    task = TaskId(input="{record} ->", target=" {reference}", metrics=("bleu", "chrf", "ter"))
    method = LoRA(name="lora", rank=2, targets=("c_attn",))
    model = compose(load_backbone("foreword/mini", device="cpu"), method)
    ours = save_artifact(tmp_path / "runs/lora", model, name="lora", method=method, task=task)
    commands = [
        shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines()
    ]
    assert [words[1:3] for words in commands] == [
        ["export", "model"],
        ["export", "peft"],
        ["import", "peft"],
    ]
    for words in commands:
        assert words[0] == "foreword"
        status, _, err = foreword(*words[1:])
        assert status == 0, err
    again = read_manifest("runs/again")
    assert (again.task, again.method) == (ours.task, ours.method)
    assert (again.delta_sha256, again.backbone) == (ours.delta_sha256, ours.backbone)


def test_mistakes_are_status_two(foreword, adapter, tmp_path) -> None:
    for arguments, said in (
        (["import", "peft", "none"], "no such folder"),
        (["import", "peft", adapter, "--out", adapter], "is not empty"),
        (["import", "peft", adapter, "--backbone", "none"], "cannot be loaded"),
        (["import", "pft", adapter], "No such command 'pft'"),
        (["import", "peft"], "DIR"),
        (["export", "peft", "none", "out"], "is no artifact"),
        (["export", "peft", adapter], "DIR"),
    ):
        status, out, err = foreword(*arguments)
        assert (status, out) == (2, "")
        assert said in err
    assert list(tmp_path.iterdir()) == []
