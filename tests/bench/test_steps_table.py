"""The table of training steps: its rows, its floor, and that it goes on where it was left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import Bench
from foreword.methods import PrefixTuning, PTuningV2
from foreword.tuned.compose import compose

FLAGS = ["--rounds", "1", "--steps", "1", "--threads", "1"]


@pytest.mark.parametrize("shape", ["tiny-bert", "tiny-t5"])
def test_a_row_has_every_variant_and_no_time(
    shape: str, bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("peft")
    steps = bench("steps")
    name = "P-Tuning v2" if shape == "tiny-bert" else "prefix, table"
    given = ["--shape", shape, *FLAGS, "--out", str(tmp_path), "--methods"]
    assert steps.main([*given, name]) == 0
    assert f"| {shape} | {name} |" in capsys.readouterr().out
    report = json.loads((tmp_path / f"steps-{shape}-cpu.json").read_text("utf-8"))
    assert set(report["rows"]) == {name}
    row = report["rows"][name]
    variants = {steps.FLOOR, steps.STRICT, steps.OURS, steps.PEFT, steps.PEFT_SORTED}
    assert set(row["time_over_floor"]) == set(row["peak_over_floor"]) == variants
    assert row["time_over_floor"][steps.FLOOR]["median"] == 1.0
    assert "peft_fails" not in row
    assert str(tmp_path) not in json.dumps(report)
    whole = f"python bench/steps.py --shape {shape} {' '.join(FLAGS)}"
    assert report["command"] == whole, "in however many parts it was measured"
    kept = row["time_over_floor"][steps.OURS]
    assert steps.main([*given, name, "prompt"]) == 0
    report = json.loads((tmp_path / f"steps-{shape}-cpu.json").read_text("utf-8"))
    assert list(report["rows"]) == [name, "prompt"]
    assert report["rows"][name]["time_over_floor"][steps.OURS] == kept, "is not measured again"
    with pytest.raises(SystemExit, match="was measured with rounds 1, and now it is 2"):
        steps.main(["--shape", shape, "--rounds", "2", "--threads", "1", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="has no row 'nothing'; it has "):
        steps.main([*given, "nothing"])
    picture = tmp_path / "steps.png"
    assert steps.main(["--table", str(tmp_path), "--plot", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.count(f"| {shape} | prompt |") == 2


def test_what_peft_cannot_do_is_said(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> None:
        raise ValueError("no such thing\nand more")

    steps = bench("steps")
    monkeypatch.setattr(steps.peft_steps, "step_of", fails)
    assert steps.main(["--shape", "tiny-bert", *FLAGS, "--methods", "prompt"]) == 0
    assert "| fails | – | – |" in capsys.readouterr().out


@pytest.mark.parametrize("shape", ["tiny-gpt2", "tiny-bert", "tiny-bart", "tiny-t5"])
def test_the_floor_is_the_bare_backbones_loss(shape: str, bench: Bench) -> None:
    """The floor, which transformers' modules compute, equals foreword's bare backbone."""
    steps = bench("steps")
    own = steps.SHAPES[shape]
    weights = steps.make_model(shape)
    pairs = own.pairs(5, weights.config.vocab_size, 0)
    backbone = steps.training.as_backbone(steps.training.same_weights(weights))
    table = steps.Table()
    method = PrefixTuning(name="prefix-tuning", length=3, reparameterization=table)
    if own.answer == "label":
        method = PTuningV2(name="p-tuning-v2", length=3, reparameterization=table)
    readout = steps.readout_of(own, backbone)
    bare = compose(backbone, method, readout).bare()
    layout = bare.lay_out(pairs)
    head = readout.layers[0] if own.answer == "label" else torch.nn.Linear(1, 1)
    loss, gradients = steps.floor_loss(weights, layout, head)
    assert loss.item() == pytest.approx(bare(layout).mean().item(), abs=1e-5)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    assert len(gradients) == (2 if weights.config.is_encoder_decoder else 1)
