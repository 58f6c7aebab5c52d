"""`foreword.attach` that goes on from an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import foreword
from attached.test_own_heads import classifier
from conftest import assert_close, mini_tokens
from foreword.artifacts.manifest import read_manifest
from foreword.backbone import bundled_backbones
from foreword.errors import ArtifactError

NAME = bundled_backbones()["foreword/mini"]
IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


def bare() -> Any:
    return AutoModelForCausalLM.from_pretrained(NAME, dtype=torch.float64)


def loud(model: Any) -> Any:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """A prefix, and what it gives."""
    folder = tmp_path_factory.mktemp("stored") / "first"
    tokenizer = AutoTokenizer.from_pretrained(NAME)
    model = loud(foreword.attach(bare(), "prefix-tuning", tokenizer=tokenizer, length=3).double())
    model.save_pretrained(folder)
    with torch.no_grad():
        return folder, model(IDS).logits


@pytest.mark.parametrize("made_by", ["table", {"kind": "mlp", "hidden": 8, "fit_steps": 3}])
def test_it_answers_as_the_artifact(made_by: Any, stored, tmp_path: Path) -> None:
    folder, expected = stored
    init = {"kind": "artifact", "path": str(folder)}
    base = bare()
    model = foreword.attach(base, "p-tuning-v2", reparameterization=made_by, init=init).double()
    with torch.no_grad():
        gap = (model(IDS).logits - expected).abs().max()
    assert gap < 1e-5 * expected.abs().max()  # the start was set in float32
    assert model.prompt.placement.length == 3
    again = tmp_path / "second"
    model.save_pretrained(again, tokenizer=AutoTokenizer.from_pretrained(NAME))
    assert read_manifest(again).method.init.path == "first"


def test_a_table_starts_exactly_there(stored) -> None:
    folder, expected = stored
    init = {"kind": "artifact", "path": str(folder)}
    model = foreword.attach(bare(), "prefix-tuning", reparameterization="table", init=init)
    stored_rows = foreword.load(folder, dtype="float64").model.rows()
    with torch.no_grad():
        assert torch.equal(model.prompt.rows(), stored_rows.float())
        assert_close(model(IDS).logits.float(), expected.float())


def test_other_lengths_are_said(stored) -> None:
    init = {"kind": "artifact", "path": str(stored[0])}
    with pytest.warns(UserWarning, match="holds 3 virtual tokens, of which the first 2 are taken"):
        foreword.attach(bare(), "prefix-tuning", length=2, init=init)


def test_what_does_not_fit_leaves_the_model_as_it_was(stored) -> None:
    base = bare()
    with torch.no_grad():
        expected = base(IDS).logits
    init = {"kind": "artifact", "path": str(stored[0])}
    with pytest.raises(ArtifactError, match=r"method\.init: .* trains embeddings of the input"):
        foreword.attach(base, "prompt-tuning", init=init)
    with torch.no_grad():
        base.transformer.wte.weight.mul_(2)
    with pytest.raises(Exception, match="not those of"):
        foreword.attach(base, "prefix-tuning", init=init)
    with torch.no_grad():
        base.transformer.wte.weight.div_(2)
        assert torch.equal(base(IDS).logits, expected)


def test_a_head_goes_on(tmp_path: Path) -> None:
    base = classifier("bert")
    tokenizer = mini_tokens().tokenizer
    model = loud(foreword.attach(base, "p-tuning-v2", tokenizer=tokenizer, length=3).double())
    with torch.no_grad():
        expected = model(IDS).logits
    model.save_pretrained(tmp_path / "first")
    foreword.detach(model)
    init = {"kind": "artifact", "path": str(tmp_path / "first")}
    again = foreword.attach(base, "p-tuning-v2", tokenizer=tokenizer, init=init)
    with torch.no_grad():
        assert (again(IDS).logits - expected).abs().max() < 1e-5 * expected.abs().max()
    foreword.detach(again)
    base.config.id2label = {0: "tree", 1: "bird", 2: "river"}
    with pytest.warns(UserWarning, match="the head stays as the model has it: the artifact's tell"):
        foreword.attach(base, "p-tuning-v2", tokenizer=tokenizer, init=init)
