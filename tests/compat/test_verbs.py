"""`foreword import peft` and `foreword export peft`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import peft
import pytest

from compat.exchanging import LENGTH, WARNINGS, base_model, peft_model, save
from compat.with_heads import adapted, save_base
from foreword.backbone import bundled_backbones
from foreword.cli import main

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
