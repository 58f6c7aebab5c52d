"""Each saving of a training changes no loss, leaves work out, and can be turned off."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.activations import NewGELUActivation

from backbone.tiny_families import small_backbone
from families.by_hand import exact
from foreword.axes.readout import Generation, Likelihood, Readout, SequenceHead
from foreword.backbone import SAVINGS, Backbone, without
from foreword.backbone.layout import Pair
from foreword.backbone.memory import Alive
from foreword.backbone.prompts import merged
from foreword.methods import InfixTuning, LoRA, MethodOptions, PrefixTuning, PromptTuning, PTuningV2
from foreword.methods.axes import MLP, Table
from foreword.recipe import SavingsSpec, TrainingSpec
from foreword.training import History, LengthBatches, train
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose

TABLE: dict[str, Any] = {"length": 3, "reparameterization": Table(std=0.5)}
PREFIX = PrefixTuning(name="prefix-tuning", **TABLE)
PREFIX_MLP = PrefixTuning(name="prefix-tuning", length=3, reparameterization=MLP(hidden=8))
DECODER_ALONE = PrefixTuning(name="prefix-tuning", sites=("decoder",), **TABLE)
PROMPT = PromptTuning(name="prompt-tuning", **TABLE)
DEEP = PTuningV2(name="p-tuning-v2", **TABLE)
MANY = PrefixTuning(name="prefix-tuning", length=40, reparameterization=Table(std=0.5))
INFIX = InfixTuning(name="infix-tuning", **TABLE)
LORA = LoRA(name="lora", rank=2, dropout=0.0)


@dataclass(frozen=True)
class Case:
    """A training, and the savings that leave something out of it.

    Attributes:
        family: of the backbone.
        method: what is trained.
        saves: names of savings, each of which is tried alone.
        answer: what is asked for; of choices the texts are weighed.
        steps: of the training; long texts take their time.
    """

    family: str
    method: MethodOptions
    saves: tuple[str, ...]
    answer: str = "text"
    steps: int = 50


CASES = {
    "gpt2-mlp": Case("gpt2", PREFIX_MLP, ("activation", "gradients", "head", "optimizer")),
    "gpt2-infix": Case("gpt2", INFIX, ("gradients", "sources")),
    "gpt2-lora": Case("gpt2", LORA, ("activation", "gradients", "optimizer")),
    "llama-prefix": Case("llama", PREFIX, ("gradients", "head", "outputs")),
    "llama-prompt": Case("llama", PROMPT, ("head",)),
    "llama-long": Case("llama", PREFIX, ("head", "last_layer", "masks"), "long text", steps=6),
    "llama-many": Case("llama", MANY, ("copies",)),
    "bert-many": Case("bert", MANY, ("copies",), "label"),
    "llama-choices": Case("llama", PREFIX, ("beginnings",), "choice"),
    "bloom-prefix": Case("bloom", PREFIX, ("head",)),
    "bart-prompt": Case("bart", PROMPT, ("head",)),
    "t5-prefix": Case("t5", PREFIX, ("gradients", "head")),
    "t5-decoder": Case("t5", DECODER_ALONE, ("sources",)),
    "bart-decoder": Case("bart", DECODER_ALONE, ("sources",)),
    "bert-prefix": Case("bert", DEEP, ("gradients", "last_layer"), "label"),
    "bert-lora": Case("bert", LORA, ("gradients", "last_layer"), "label"),
}
TRIALS = [
    pytest.param(case, saving, id=f"{name}-{saving}")
    for name, case in CASES.items()
    for saving in case.saves
]


def tokens(dice: torch.Generator, least: int, most: int) -> list[int]:
    count = int(torch.randint(least, most, (1,), generator=dice))
    return torch.randint(2, 512, (count,), generator=dice).tolist()


def make_pairs(answer: str) -> list[Pair]:
    """Examples of different lengths."""
    dice = torch.Generator().manual_seed(3)
    if answer == "label":
        return [Pair(tokens(dice, 3, 12), marks=(0,), labels=(i % 2,)) for i in range(12)]
    if answer == "text":
        return [Pair(tokens(dice, 3, 12), [*tokens(dice, 2, 7), 1]) for _ in range(12)]
    if answer == "long text":
        return [Pair(tokens(dice, 515, 530), [*tokens(dice, 2, 7), 1]) for _ in range(6)]
    pairs = []
    for i in range(12):
        text = tokens(dice, 20, 24)
        ends = [tokens(dice, 2, 5) for _ in range(2)]
        rows = [
            Pair(text, end, labels=(float(number), float(number == i % 2), 1.0))
            for number, end in enumerate(ends)
        ]
        first = rows[0]
        pairs.append(Pair(first.source, first.target, (), first.labels, beside=tuple(rows[1:])))
    return pairs


@cache
def shared_backbone(family: str, dtype: torch.dtype) -> Backbone:
    return small_backbone(family, dtype)


def make_model(case: Case, dtype: torch.dtype) -> TunedModel:
    backbone = shared_backbone(case.family, dtype)
    torch.manual_seed(0)
    readout: Readout = Generation()
    if case.answer == "label":
        readout = SequenceHead(backbone.hidden_width, 2, dropout=0.0)
    elif case.answer == "choice":
        readout = Likelihood()
    return compose(backbone, case.method, readout).to(dtype)


def trained(case: Case, savings: Any, dtype: torch.dtype, steps: int | None = None) -> History:
    steps = steps or case.steps
    pairs = make_pairs(case.answer)
    spec = TrainingSpec(
        steps=steps,
        batch_size=4,
        learning_rate=3e-3,
        evaluate_every=max(1, steps // 2),
        savings=savings,
    )
    model = make_model(case, dtype)
    with exact(dtype) if case.family == "llama" else nullcontext():
        return train(model, pairs, spec, dev=pairs[:6])


def alone(*savings: str) -> dict[str, bool]:
    """These, and that batches are of similar length: other batches have other losses."""
    return {name: name in (*savings, "lengths") for name in SavingsSpec.model_fields}


def losses(case: Case, savings: Any, dtype: torch.dtype) -> list[float]:
    history = trained(case, savings, dtype)
    assert len(history.steps) == case.steps
    assert len(history.evaluations) == 2
    return [entry["loss"] for entry in (*history.steps, *history.evaluations)]


_plain: dict[tuple[str, torch.dtype], list[float]] = {}


def plain(case: Case, dtype: torch.dtype) -> list[float]:
    """The losses without any saving."""
    key = f"{case.family} {case.method} {case.answer}", dtype
    if key not in _plain:
        _plain[key] = losses(case, alone(), dtype)
    return _plain[key]


@pytest.fixture(autouse=True)
def _forty_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merged, "LEAST", 40)
    monkeypatch.setattr(merged, "QUERIES", 1)


@pytest.mark.parametrize(("case", "saving"), TRIALS)
def test_a_saving_alone_changes_no_loss(case: Case, saving: str) -> None:
    own = losses(case, alone(saving), torch.float64)
    assert own == pytest.approx(plain(case, torch.float64), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_all_together_change_no_loss(case: Case, dtype: torch.dtype) -> None:
    own = losses(case, True, dtype)
    assert own == pytest.approx(plain(case, dtype), rel=1e-9 if dtype == torch.float64 else 1e-4)
    assert own[-1] < own[-2]  # something was learned


class Written(TorchDispatchMode):
    """Counts the numbers that operations write."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        self.numbers += sum(
            one.numel() for one in tree_leaves(output) if isinstance(one, Tensor) and one.numel()
        )
        return output


@pytest.mark.parametrize(("case", "saving"), TRIALS)
def test_a_saving_leaves_work_out(case: Case, saving: str) -> None:
    """Numbers that are written, or bytes that are kept."""
    left = {}
    for savings in ((), (saving,)):
        with Written() as count, Alive(()) as alive:
            tried = saving == "last_layer" and case.answer == "label"  # first, on a few tokens
            steps = 6 if tried or saving == "sources" else 1
            trained(case, alone(*savings), torch.float64, steps=steps)
        left[savings] = alive.peak if saving == "outputs" else count.numbers
    assert left[(saving,)] < left[()]


def test_every_saving_is_tried() -> None:
    tried = {saving for case in CASES.values() for saving in case.saves}
    assert tried | {"lengths"} == set(SavingsSpec.model_fields)
    assert set(SAVINGS) < set(SavingsSpec.model_fields)


def test_without_sorting_batches_are_what_the_shuffle_makes() -> None:
    sizes = list(range(40))
    plain, own = (LengthBatches(sizes, 4, seed=1, pool=pool).epoch(0) for pool in (1, 50))
    assert sorted(i for batch in plain for i in batch) == sizes

    def spread(batches: list[list[int]]) -> float:
        return sum(max(batch) - min(batch) for batch in batches) / len(batches)

    assert spread(own) == 3
    assert spread(plain) > 12


def test_batches_of_similar_length_are_turned_off_by_the_recipe() -> None:
    """Two examples a batch of which one is long: sorted, they never stand together with others."""
    case, dtype = CASES["llama-prompt"], torch.float64
    one, other = (trained(case, {"lengths": on}, dtype).steps for on in (True, False))
    assert [e["loss"] for e in one] != pytest.approx([e["loss"] for e in other], rel=1e-6)


def test_a_backbone_is_as_before_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone: Backbone = small_backbone("gpt2")
    model = backbone.model
    hooks = len(model.get_input_embeddings()._forward_hooks)
    spelt_out: list[int] = []
    monkeypatch.setattr(NewGELUActivation, "forward", lambda _, x: spelt_out.append(1) or x)
    layer, x = model.transformer.h[0].mlp.act, torch.ones(3)
    with without(model, SAVINGS), without(model, SAVINGS):
        layer(x)
        assert spelt_out == [1]
    layer(x)
    assert spelt_out == [1]
    assert len(model.get_input_embeddings()._forward_hooks) == hooks
