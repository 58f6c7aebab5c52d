"""The benchmark runs and reports everything; its floor computes what it says. No timing here."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import Bench
from foreword.backbone.layout import Layout
from foreword.methods import PrefixTuning
from foreword.tuned.compose import compose

VARIANTS = {
    "floor",
    "floor, again",
    "floor, one GELU kernel",
    "foreword, MLP",
    "foreword, MLP, bfloat16",
    "foreword, MLP, shuffled",
    "foreword, table",
    "PEFT, MLP",
    "PEFT, MLP, sorted",
    "PEFT, table",
}


def layout_of(vocabulary: int, *, virtual: int = 0) -> Layout:
    dice = torch.Generator().manual_seed(1)

    def rows(lengths: list[int]) -> list[list[int]]:
        return [torch.randint(vocabulary, (n,), generator=dice).tolist() for n in lengths]

    return Layout.of(rows([5, 9, 7]), rows([4, 2, 6]), virtual=virtual)


def test_all_variants_are_reported_without_any_time(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("peft")
    training = bench("training")
    options = "--shape tiny --rounds 1 --steps 1 --lengths synthetic --threads 1"
    assert training.main([*options.split(), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert "round 1/1" in printed.err
    report = json.loads((tmp_path / "training-cpu.json").read_text("utf-8"))
    assert set(report["variants"]) == VARIANTS
    for found in report["variants"].values():
        assert len(found["ratios"]) == 1
        assert found["min"] == found["median"] == found["max"] > 0
    assert report["variants"]["floor"]["median"] == 1.0
    assert report["command"] == f"python bench/training.py {options}"
    assert str(tmp_path) not in json.dumps(report)
    assert not any("second" in key for key in report)
    table = (tmp_path / "training-cpu.md").read_text("utf-8")
    assert table == printed.out
    assert all(f"| {name} |" in table for name in VARIANTS)


def test_infix_is_reported_without_any_time(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    infix = bench("infix")
    options = "--shape tiny --rounds 2 --steps 1 --lengths synthetic --threads 1"
    assert infix.main([*options.split(), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert "round 2/2" in printed.err
    report = json.loads((tmp_path / "infix-tiny-cpu.json").read_text("utf-8"))
    found = report["time_over_prefix"]
    kept = {"infix, sources kept", "embedding infix, sources kept"}
    assert set(found) == {"prefix", "prefix, again", "infix", "embedding infix"} | kept
    for row in found.values():
        assert len(row["ratios"]) == 2
        assert 0 < row["min"] <= row["median"] <= row["max"]
    assert found["prefix"]["median"] == 1.0
    assert report["command"] == f"python bench/infix.py {options}"
    assert report["kept_bytes_per_source_token"] > 0
    assert str(tmp_path) not in json.dumps(report)
    assert not any("second" in key for key in report)
    assert all(f"| {name} |" in printed.out for name in found)


def test_what_is_kept_changes_no_loss(bench: Bench) -> None:
    """What is timed is the same step: the same losses with sources read anew and kept."""
    infix, training = bench("infix"), bench("training")
    flags = "--shape tiny --rounds 1 --steps 1 --lengths synthetic --threads 1"
    options = training._options(flags.split())
    pairs, _ = training.make_pairs(options)
    rows = list(range(4))
    losses = []
    for kept in ([], [pairs[i].source for i in rows]):
        torch.manual_seed(0)
        backbone = training.as_backbone(infix.random_gpt2("tiny", 0))
        method = infix.InfixTuning(name="infix-tuning", length=3, reparameterization=infix.Table())
        step, size = infix.step_of(backbone, pairs, method, len(rows), kept)
        assert (size > 0) == bool(kept)
        losses.append([step(rows) for _ in range(2)])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_the_floor_computes_the_bare_models_loss(bench: Bench) -> None:
    floor = bench("floor")
    model = floor.random_gpt2("tiny")
    layout = layout_of(floor.SHAPES["tiny"]["vocab_size"])
    loss, gradient = floor.floor_loss(model, layout)
    bare = compose(wrap(model), PrefixTuning(name="prefix-tuning", length=3)).bare()
    assert loss.item() == pytest.approx(bare(layout).mean().item(), abs=1e-5)
    one_kernel, _ = floor.floor_loss(floor.with_one_gelu_kernel(model), layout)
    assert one_kernel.item() == pytest.approx(loss.item(), abs=1e-5)
    assert gradient.shape == (*layout.input_ids.shape, 32)
    assert gradient[layout.attention_mask].abs().sum() > 0
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())


def test_the_floors_gradient_is_that_of_the_whole_model(bench: Bench) -> None:
    """Reading at target positions only changes nothing but what is computed in vain."""
    floor = bench("floor")
    model = floor.random_gpt2("tiny")
    layout = layout_of(floor.SHAPES["tiny"]["vocab_size"])
    _, gradient = floor.floor_loss(model, layout)
    embeddings = model.get_input_embeddings()(layout.input_ids).requires_grad_()
    labels = layout.input_ids.masked_fill(~layout.target_mask, -100)
    logits = model(
        inputs_embeds=embeddings,
        attention_mask=layout.attention_mask,
        position_ids=layout.position_ids,
    ).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    (whole,) = torch.autograd.grad(loss, embeddings)
    torch.testing.assert_close(gradient, whole, atol=1e-6, rtol=1e-4)


def wrap(model: torch.nn.Module) -> object:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    from foreword.backbone import Backbone, Tokens

    words = Tokenizer(WordLevel({"<end>": 0}, unk_token="<end>"))
    tokens = Tokens(PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>"))
    return Backbone.wrap(model, tokens)
