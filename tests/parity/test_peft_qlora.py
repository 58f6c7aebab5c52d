"""QLoRA (Dettmers et al. 2023): low-rank updates beside 4 and 8 bits train as PEFT's do on the very
same quantised model, in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from test_peft_lora import updates
from test_peft_training import SEED, STEPS, Training, train_with_peft
from transformers import AutoModelForCausalLM

from axes.deltas.moving import method
from conftest import tiny_model
from foreword.backbone import load_backbone
from foreword.backbone.weights.quantization import config_of
from foreword.training import train
from foreword.tuned.compose import compose
from quantised import EIGHT, FOUR, TWICE, WEIGHTS, needs, saved, without_packed_kernels

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)
WIDE = {"gpt2": {"n_embd": 64}, "llama": {"hidden_size": 64, "intermediate_size": 128}}
WAYS = {"nf4": FOUR, "nf4, scales quantised": TWICE, "8 bits (torchao)": WEIGHTS, "8 bits": EIGHT}
TOLERANCE = 1e-4
ROUNDED = {"8 bits": 0.05}
"""Of ways that round states, too, to 8 bits: what differs in the last bit may round to another
number on some processors. The first step has no such differences yet."""
CASES = [
    *(("llama", None, way) for way in WAYS),
    ("llama", "all-linear", "nf4, scales quantised"),
    ("gpt2", None, "nf4"),
]


@pytest.mark.parametrize(("family", "targets", "way"), CASES)
def test_same_losses_and_updates(
    family: str, targets: str | None, way: str, tmp_path: Path
) -> None:
    quantization = WAYS[way]
    needs(quantization)
    folder = saved(tiny_model(family, **WIDE[family]), tmp_path / "base", scale=0.5)
    theirs = peft_model(folder, way, targets)
    options = method("lora", rank=3, alpha=12, dropout=0.0, targets=["all"] if targets else None)
    ours = compose(load_backbone(str(folder), quantization=quantization), options)
    ours.delta.load({name: p.detach().clone() for name, p in updates(theirs).items()})
    training = Training.of(padded=True, schedule="linear")
    losses = [step["loss"] for step in train(ours, training.pairs, training.spec, seed=SEED).steps]
    expected = train_with_peft(theirs, training)
    assert len(losses) == STEPS
    tolerance = ROUNDED.get(way, TOLERANCE)
    assert gap(losses[:1], expected[:1]) <= TOLERANCE
    assert gap(losses, expected) <= tolerance
    assert min(losses[-5:]) < losses[0] - 0.1, "nothing was learned, so equality says little"
    for name, tensor in ours.delta.tensors().items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, updates(theirs)[name], rtol=0, atol=tolerance)


def test_peft_trains_eight_bits_on_a_cpu_through_another_kernel(tmp_path: Path) -> None:
    """In training mode, on a CPU, bitsandbytes leaves states whole; the one it answers with rounds
    them to 8 bits. Here a training runs the one that answers, as on a GPU."""
    folder = saved(tiny_model("llama", **WIDE["llama"]), tmp_path, scale=0.5)
    needs(EIGHT)
    model = peft_model(folder, "8 bits", None, answers=False)
    ids = torch.tensor([[5, 81, 300, 27, 9]])
    with torch.no_grad():
        answering, training = (model.train(mode)(ids, labels=ids).loss for mode in (False, True))
    assert (answering - training).abs() > 1e-3


def gap(losses: list[float], expected: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(losses, expected, strict=True))


def peft_model(folder: Path, way: str, targets: str | None, *, answers: bool = True) -> Any:
    """As PEFT's users load it, in float32.

    Args:
        folder: of the base model.
        way: of quantisation.
        targets: of LoRA.
        answers: whether 8 bits compute as they do in evaluation, and on a GPU.
    """
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, quantization_config=config_of(WAYS[way])
    )
    for module in model.modules():
        if type(module).__name__ == "Linear8bitLt" and answers:
            module.train = lambda mode=True, module=module: module
            module.training = False
    config = LoraConfig(task_type="CAUSAL_LM", r=3, lora_alpha=12, target_modules=targets)
    return get_peft_model(without_packed_kernels(model), config)
