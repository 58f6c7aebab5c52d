"""LoRA trains as PEFT's does: the same losses, step by step, and the same updates at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from test_peft_training import SEED, STEPS, TOLERANCE, Training, train_with_peft

from axes.deltas.moving import method
from conftest import make_backbone, tiny_model
from families.by_hand import exact
from foreword.training import train
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)


def peft_model(family: str, dtype: torch.dtype, targets: list[str] | None) -> Any:
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=3,
        lora_alpha=12,
        target_modules=targets,
        fan_in_fan_out=family == "gpt2",
    )
    return get_peft_model(tiny_model(family, dtype), config)


def updates(model: Any) -> dict[str, torch.Tensor]:
    """PEFT's tensors under the names of the base model."""
    return {
        name.removeprefix("base_model.model.").replace(".default.", "."): p
        for name, p in model.named_parameters()
        if p.requires_grad
    }


def our_model(
    family: str, dtype: torch.dtype, targets: list[str] | None, theirs: Any
) -> TunedModel:
    """Ours, from PEFT's numbers; the names are PEFT's own."""
    options = method("lora", rank=3, alpha=12, dropout=0.0, targets=targets)
    ours = compose(make_backbone(family, dtype), options)
    ours.delta.load({name: p.detach().clone() for name, p in updates(theirs).items()})
    return ours


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("family", "targets"),
    [
        ("gpt2", None),
        ("gpt2", ["c_attn", "mlp.c_proj"]),
        ("llama", None),
        ("qwen3", ["q_proj", "down_proj"]),
        ("opt", None),
    ],
)
def test_same_losses_and_updates(
    family: str, targets: list[str] | None, dtype: torch.dtype, tmp_path: Path
) -> None:
    training = Training.of(padded=True, schedule="linear")
    theirs = peft_model(family, dtype, targets)
    ours = our_model(family, dtype, targets, theirs)
    assert ours.trained_parameters == sum(p.numel() for p in updates(theirs).values())
    with exact(dtype):
        history = train(ours, training.pairs, training.spec, seed=SEED)
        expected = train_with_peft(theirs, training)
    losses = [step["loss"] for step in history.steps]
    assert len(losses) == STEPS
    gap = max(abs(a - b) for a, b in zip(losses, expected, strict=True))
    assert gap <= TOLERANCE[dtype], f"losses differ by {gap:.3g}"
    assert min(losses[-5:]) < losses[0], "nothing was learned, so equality says little"
    tolerance = 1e-8 if dtype == torch.float64 else 1e-4
    for name, tensor in ours.delta.tensors().items():
        torch.testing.assert_close(tensor, updates(theirs)[name], rtol=0, atol=tolerance)
    merged = theirs.merge_and_unload()
    named = dict(merged.named_parameters())
    for name, weight in ours.delta.weights().items():
        torch.testing.assert_close(weight, named[name], rtol=0, atol=tolerance)
