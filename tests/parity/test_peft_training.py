"""The same prefix trained here and with PEFT: equal losses at every step, equal prefixes."""

from dataclasses import dataclass
from itertools import islice
from typing import Any

import pytest
import torch
from peft import PrefixTuningConfig, get_peft_model
from torch import nn

from conftest import FAMILIES, make_backbone, random_ids, tiny_model
from families.by_hand import exact
from foreword.axes.deltas import Frozen
from foreword.axes.injection import KeysValues
from foreword.axes.placement import Prefix
from foreword.axes.readout import Generation
from foreword.axes.reparam import MLP, ByPart, Table
from foreword.recipe import TrainingSpec
from foreword.training import LengthBatches, Pair, train
from foreword.tuned import TunedModel

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)
LENGTH, HIDDEN, STEPS, SEED = 4, 24, 20, 7
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


@dataclass(frozen=True)
class Training:
    """One training, told to both sides."""

    pairs: list[Pair]
    spec: TrainingSpec

    @classmethod
    def of(cls, padded: bool, schedule: str = "constant", **options: Any) -> "Training":
        sources = random_ids([5, 3, 8, 4, 6, 7, 3, 9, 5] if padded else [5] * 9, seed=1)
        targets = random_ids([4, 6, 2, 5, 3, 4, 7, 2, 3] if padded else [4] * 9, seed=2)
        spec = TrainingSpec(
            steps=STEPS,
            batch_size=3,
            learning_rate=1e-2,
            schedule=schedule,
            weight_decay=0.01,
            clip=None,
            best_by=None,
            **options,
        )
        return cls([Pair(*pair) for pair in zip(sources, targets, strict=True)], spec)


def peft_model(family: str, dtype: torch.dtype, projection: bool) -> Any:
    config = PrefixTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=LENGTH,
        prefix_projection=projection,
        encoder_hidden_size=HIDDEN if projection else None,
    )
    return get_peft_model(tiny_model(family, dtype), config).to(dtype)


def our_model(family: str, dtype: torch.dtype, encoder: nn.Module) -> TunedModel:
    """Ours, starting from PEFT's numbers; built over a backbone of its own."""
    backbone = make_backbone(family, dtype)
    injection = KeysValues(backbone.geometry)
    small = encoder.embedding.weight
    reparam: MLP | Table
    if hasattr(encoder, "transform"):
        reparam = MLP(LENGTH, injection.width, small.shape[1], HIDDEN)
        reparam.table.load_state_dict(encoder.embedding.state_dict())
        reparam.transform.load_state_dict(encoder.transform.state_dict())
    else:
        reparam = Table(LENGTH, injection.width)
        reparam.fit(small)
    return TunedModel(
        backbone,
        reparam=ByPart(injection.parts(LENGTH), lambda _: reparam.to(dtype)),
        injection=injection,
        placement=Prefix(LENGTH, "shift"),
        readout=Generation(),
        delta=Frozen(),
    )


def train_with_peft(model: Any, training: Training) -> list[float]:
    """PEFT as its users train it: ids, mask and labels, padded on the right."""
    spec, pairs = training.spec, training.pairs
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=spec.learning_rate,
        betas=spec.betas,
        weight_decay=spec.weight_decay,
    )
    batches = LengthBatches([p.length for p in pairs], spec.batch_size, seed=SEED)
    losses = []
    model.train()
    for number, (batch,) in enumerate(islice(batches.steps(), STEPS)):
        share = 1.0 if spec.schedule == "constant" else (STEPS - number) / STEPS
        for group in optimizer.param_groups:
            group["lr"] = spec.learning_rate * share
        width = max(pairs[i].length for i in batch)
        ids, mask, labels = [], [], []
        for i in batch:
            row, pad = pairs[i].source + pairs[i].target, [0] * (width - pairs[i].length)
            ids.append(row + pad)
            mask.append([1] * len(row) + pad)
            labels.append([-100] * len(pairs[i].source) + pairs[i].target + [-100] * len(pad))
        output = model(
            input_ids=torch.tensor(ids),
            attention_mask=torch.tensor(mask),
            labels=torch.tensor(labels),
        )
        # transformers casts logits to float32 for its own loss, which is too coarse in float64.
        loss = nn.functional.cross_entropy(
            output.logits[:, -width:-1].flatten(0, 1), torch.tensor(labels)[:, 1:].flatten()
        )
        assert abs(output.loss.item() - loss.item()) < 1e-5
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def check_same(family: str, dtype: torch.dtype, projection: bool, training: Training) -> None:
    theirs = peft_model(family, dtype, projection)
    encoder = theirs.prompt_encoder["default"]
    ours = our_model(family, dtype, encoder)
    before = {name: p.detach().clone() for name, p in ours.named_parameters()}

    history = train(ours, training.pairs, training.spec, seed=SEED)
    expected = train_with_peft(theirs, training)

    losses = [step["loss"] for step in history.steps]
    assert len(losses) == STEPS
    gap = max(abs(a - b) for a, b in zip(losses, expected, strict=True))
    assert gap <= TOLERANCE[dtype], f"losses differ by {gap:.3g}"
    assert min(losses[-5:]) < losses[0], "nothing was learned, so equality says little"

    made_by = "makers.decoder/keys_values."
    state = {name.removeprefix(made_by): p for name, p in ours.reparam.named_parameters()}
    trained = {
        name.replace("embedding.weight", "table.weight" if projection else "rows"): p
        for name, p in encoder.named_parameters()
    }
    assert state.keys() == trained.keys()
    tolerance = 1e-8 if dtype == torch.float64 else 1e-4
    for name, parameter in state.items():
        assert not torch.equal(parameter, before[f"reparam.{made_by}{name}"])
        torch.testing.assert_close(parameter, trained[name], rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("projection", [False, True], ids=["table", "mlp"])
@pytest.mark.parametrize("family", FAMILIES)
def test_padded(family, projection, dtype) -> None:
    with exact(dtype):
        check_same(family, dtype, projection, Training.of(padded=True, schedule="linear"))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("projection", [False, True], ids=["table", "mlp"])
def test_unpadded(projection, dtype) -> None:
    check_same("gpt2", dtype, projection, Training.of(padded=False))
