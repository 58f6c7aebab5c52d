"""Residual prompt tuning against the paper's definition, written out with its own matrices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor

import foreword
from conftest import assert_close, make_backbone, random_ids
from foreword.artifacts.artifact import load_model, save_artifact
from foreword.backbone.layout import Pair
from foreword.errors import RecipeError
from foreword.methods import ResidualPromptTuning
from foreword.methods.axes import TextInit
from foreword.methods.residual_prompt_tuning import Residual
from foreword.recipe import TaskId, TrainingSpec, parse_recipe
from foreword.training import train
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose
from foreword.tuned.initial import initialise

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)
LENGTH, BOTTLENECK = 3, 5
TASK = TaskId(input="{text}", target="{reference}", metrics=("bleu",))


def options(**made_by: Any) -> ResidualPromptTuning:
    return ResidualPromptTuning(
        name="residual-prompt-tuning",
        length=LENGTH,
        reparameterization=Residual(bottleneck=BOTTLENECK, **made_by),
        init=TextInit(text="a bird of the river"),
    )


def composed(chosen: ResidualPromptTuning, dtype: torch.dtype = torch.float64) -> TunedModel:
    torch.manual_seed(0)
    model = compose(make_backbone("llama", dtype), chosen).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.5)
    return model


def by_hand(model: TunedModel, *, norm: bool) -> Tensor:
    """Section 3: each row of the table plus the norm of W_up relu(W_down row)."""
    state = {
        name.removeprefix("makers.decoder/embeddings."): parameter.detach()
        for name, parameter in model.reparam.named_parameters()
    }
    rows = []
    networks = sum(name.endswith(".0.weight") for name in state)
    for i, row in enumerate(state["table"]):
        at = f"networks.{i if networks > 1 else 0}"
        hidden = state[f"{at}.0.weight"] @ row + state[f"{at}.0.bias"]
        made = state[f"{at}.2.weight"] @ hidden.clamp(min=0) + state[f"{at}.2.bias"]
        if norm:
            spread = (made - made.mean()).square().mean() + 1e-5
            made = (made - made.mean()) / spread.sqrt()
            made = made * state[f"{at}.4.weight"] + state[f"{at}.4.bias"]
        rows.append(row + made)
    return torch.stack(rows)


@pytest.mark.parametrize("norm", [True, False], ids=["norm", "plain"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "separate"])
def test_prompt_is_the_papers(shared, norm) -> None:
    model = composed(options(shared=shared, layer_norm=norm))
    expected = by_hand(model, norm=norm)
    assert_close(model.rows().detach(), expected)
    d = model.backbone.geometry.width
    each = BOTTLENECK * (2 * d + 1) + d + (2 * d if norm else 0)
    assert model.trained_parameters == LENGTH * d + each * (1 if shared else LENGTH)
    assert torch.equal(model.fold().rows(), model.rows()), "the outcome alone is kept"
    assert model.fold().stored_parameters == LENGTH * d

    (ids,) = random_ids([6])
    own = model.backbone.embeddings(ids)
    with torch.no_grad():
        read = torch.cat([expected, own])[None]
        logits = model.backbone.model(inputs_embeds=read).logits[0, LENGTH:]
        found = model(model.lay_out([Pair(ids[:2], ids[2:])]))
    nll = -logits.log_softmax(-1)[1:5].gather(1, torch.tensor(ids[2:])[:, None])[:, 0]
    assert_close(found, nll)


def test_separate_networks_are_told_apart() -> None:
    """Each makes its own virtual token, and a shared one makes them all."""
    for shared, expected in ((False, [False, True, False]), (True, [True, True, True])):
        model = composed(options(shared=shared))
        before = model.rows().detach().clone()
        networks = model.reparam.makers["decoder/embeddings"].networks
        with torch.no_grad():
            networks[0 if shared else 1][2].bias[:5] += 1.0
        moved = (model.rows() != before).any(1).tolist()
        assert moved == expected


def test_the_table_starts_from_the_text() -> None:
    model = composed(chosen := options())
    left = initialise(model, chosen.init, [])
    ids = model.backbone.tokens.plain("a bird of the river")
    start = model.backbone.embeddings((ids * LENGTH)[:LENGTH])
    table = model.reparam.makers["decoder/embeddings"].table
    assert torch.equal(table, start)
    assert left == pytest.approx((by_hand(model, norm=True) - start).square().mean().item())


def test_dropout_acts_in_training_steps_alone() -> None:
    model = composed(options(dropout=0.5)).train()
    assert not torch.equal(model.rows(), model.rows())
    with torch.no_grad():
        assert torch.equal(model.rows(), model.rows())
        assert_close(model.rows(), by_hand(model, norm=True))


def test_trained_stored_and_carried_to_peft(tmp_path: Path) -> None:
    """What is learned is in the folded rows alone, which PEFT reads as a plain soft prompt."""
    model = composed(chosen := options(), torch.float32)
    pairs = [Pair(a, b) for a, b in zip(random_ids([4] * 6), random_ids([3] * 6), strict=True)]
    spec = TrainingSpec(steps=8, batch_size=3, learning_rate=1e-2, best_by=None)
    losses = [step["loss"] for step in train(model, pairs, spec, seed=0).steps]
    assert losses[-1] < losses[0]
    save_artifact(tmp_path / "ours", model, name="ours", method=chosen, task=TASK)
    stored = json.loads((tmp_path / "ours" / "foreword.json").read_text())
    assert stored["axes"]["reparameterization"] == {"trained_as": "residual", "stored": "folded"}
    _, loaded = load_model(tmp_path / "ours", backbone=model.backbone)
    assert torch.equal(loaded.rows(), model.rows())
    foreword.export_peft(tmp_path / "ours", tmp_path / "peft")
    config = peft.PeftConfig.from_pretrained(str(tmp_path / "peft"))
    assert isinstance(config, peft.PromptTuningConfig)
    theirs = peft.PeftModel.from_pretrained(model.backbone.model, str(tmp_path / "peft"))
    assert torch.equal(theirs.prompt_encoder["default"].embedding.weight, model.rows())


def test_options_are_those_of_the_authors_code() -> None:
    recipe = {"version": 1, "name": "x", "backbone": "m", "method": "residual-prompt-tuning"}
    task = {"data": {"format": "jsonl", "train": "train.jsonl"}}
    read = parse_recipe({**recipe, "task": task})
    assert read.method.length == 10
    made_by = Residual(bottleneck=800, shared=True, layer_norm=True, dropout=0.0)
    assert read.method.reparameterization == made_by
    t = read.training
    assert (t.epochs, t.batch_size, t.learning_rate, t.schedule) == (20, 8, 0.3, "constant")
    assert (t.weight_decay, t.clip) == (1e-5, None)
    odd = {"name": "residual-prompt-tuning", "reparameterization": {"kind": "mlp"}}
    with pytest.raises(RecipeError, match=r"method\.reparameterization\.kind"):
        parse_recipe({**recipe, "method": odd, "task": task})
