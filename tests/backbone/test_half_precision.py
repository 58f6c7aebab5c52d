"""A backbone in 16 bits: the prompt, its optimizer and the loss stay in float32."""

from __future__ import annotations

import pytest
import torch
from tiny_families import batch, random_prompt, small_backbone, small_model

from conftest import mini_tokens
from foreword.backbone import Backbone, Call, Decoding
from foreword.backbone.layout import Pair
from foreword.methods import FineTuning, PrefixTuning, PromptTuning
from foreword.methods.axes import MLP, Table
from foreword.recipe import TrainingSpec
from foreword.training import train
from foreword.training.fitting import Fit
from foreword.training.hardware import Hardware
from foreword.training.loop import _Loop
from foreword.training.reuse import Planned
from foreword.training.signals import Stop
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose

HALF = [torch.bfloat16, torch.float16]
PAIRS = [Pair([5, 6, 7, 8], [9, 10]), Pair([11, 12], [13])]
METHODS = {
    "table": PrefixTuning(name="prefix-tuning", length=4, reparameterization=Table(std=0.5)),
    "mlp": PrefixTuning(name="prefix-tuning", length=4, reparameterization=MLP(hidden=16)),
    "embeddings": PromptTuning(name="prompt-tuning", length=4),
}
FAMILIES = ["gpt2", "llama", "bloom", "bart", "t5"]


def gentle(family: str, dtype: torch.dtype) -> Backbone:
    """Of a size at which 16 bits tell logits apart."""
    model = small_model(family)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter *= 0.3
    return Backbone.wrap(model.to(dtype), mini_tokens())


def trained(family: str, dtype: torch.dtype, method: str, steps: int) -> tuple[TunedModel, _Loop]:
    torch.manual_seed(0)
    model = compose(gentle(family, dtype), METHODS[method])
    spec = TrainingSpec(steps=steps, batch_size=2, learning_rate=0.05, best_by=None)
    planned = Planned(model, PAIRS, spec, steps, Hardware.of("cpu"))
    loop = _Loop(planned, Fit(None, gradient_checkpointing=False), 0, None, Stop())
    batches = loop.batches.steps(0)
    for _ in range(steps):
        loop.one(next(batches))
    return model, loop


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", ["llama", "t5"])
def test_prompt_and_optimizer_stay_float32(family, method, dtype) -> None:
    model, loop = trained(family, dtype, method, 2)
    assert model.backbone.dtype == str(dtype).removeprefix("torch.")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    states = [one for state in loop.optimizer.state.values() for one in state.values()]
    assert states
    assert {one.dtype for one in states} == {torch.float32}
    layout = model.lay_out(PAIRS)
    assert model(layout).dtype == torch.float32


def test_own_weights_of_16_bits_lose_most_of_what_a_step_adds() -> None:
    """Why a recipe's `dtype: auto` is float32 where the backbone's own weights move."""
    stood_still = {}
    for dtype in (torch.float32, torch.bfloat16):
        before = dict(gentle("llama", dtype).model.named_parameters())
        model = compose(gentle("llama", dtype), FineTuning(name="fine-tuning"))
        spec = TrainingSpec(steps=1, batch_size=2, learning_rate=1e-4, warmup=0, best_by=None)
        train(model, PAIRS, spec)
        after = dict(model.backbone.model.named_parameters())
        layers = [name for name in before if "layers" in name and before[name].ndim > 1]
        still = [(after[name] == before[name]).float().mean() for name in layers]
        stood_still[dtype] = torch.stack(still).mean().item()
    assert stood_still[torch.float32] < 0.05
    assert stood_still[torch.bfloat16] > 0.5


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("family", FAMILIES)
def test_losses_are_those_of_float32(family, dtype) -> None:
    (_, half), (_, whole) = (trained(family, t, "table", 8) for t in (dtype, torch.float32))
    losses = [[step["loss"] for step in loop.history.steps] for loop in (half, whole)]
    assert losses[0][-1] < losses[0][0]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("family", FAMILIES)
def test_decoding(family, dtype) -> None:
    model, _ = trained(family, dtype, "table", 1)
    layout = model.arrange([[5, 6, 7], [8]], side="left")
    for beams in (1, 2):
        assert len(model.answers(layout, Decoding(max_new_tokens=4, num_beams=beams))) == 2


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("family", [*FAMILIES, "bert"])
def test_gradients_survive_checkpointing(family, dtype) -> None:
    backbone = small_backbone(family, dtype)

    def gradient(on: bool) -> torch.Tensor:
        rows, prompt = random_prompt(backbone, 3)
        with backbone.recomputing(on):
            logits = backbone.logits(Call(batch(backbone, 3), prompt))
        logits.float().log_softmax(-1).square().mean().backward()
        assert rows.grad is not None
        assert rows.grad.dtype == torch.float32
        return rows.grad

    assert torch.equal(gradient(False), gradient(True))
