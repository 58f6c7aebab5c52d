"""P-Tuning's networks: equal to PEFT's with its weights, and dropout in training steps alone."""

import pytest
import torch
from peft import PromptEncoder, PromptEncoderConfig

from conftest import assert_close, random_ids
from foreword.axes.reparam import LSTM, ReluMLP, Rows
from foreword.backbone import Decoding
from foreword.backbone.layout import Layout
from foreword.methods import PTuning, axes
from foreword.recipe import TrainingSpec
from foreword.training import Pair, train
from foreword.tuned.compose import compose

LENGTH, D, HIDDEN = 5, 12, 7


def theirs(kind: str, **options) -> PromptEncoder:
    return PromptEncoder(
        PromptEncoderConfig(
            num_virtual_tokens=LENGTH,
            token_dim=D,
            num_transformer_submodules=1,
            encoder_hidden_size=HIDDEN,
            encoder_reparameterization_type=kind,
            **options,
        )
    )


def ours(kind: str, **options) -> Rows:
    return {"LSTM": LSTM, "MLP": ReluMLP}[kind](LENGTH, D, D, HIDDEN, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("kind", "layers"), [("LSTM", 1), ("LSTM", 2), ("LSTM", 3), ("MLP", 2)], ids=str
)
def test_equal_to_pefts_with_its_weights(kind, layers, dtype) -> None:
    reference = theirs(kind, encoder_num_layers=layers).to(dtype)
    found = ours(kind, **({"layers": layers} if kind == "LSTM" else {})).to(dtype)
    found.load_state_dict(reference.state_dict())
    indices = torch.arange(LENGTH)[None]
    assert_close(found(), reference(indices)[0])
    grads = []
    weights = torch.randn(LENGTH, D, dtype=dtype)
    for module, rows in ((found, found()), (reference, reference(indices)[0])):
        (rows * weights).sum().backward()
        grads.append({name: p.grad for name, p in module.named_parameters()})
    assert grads[0].keys() == grads[1].keys()
    for name, gradient in grads[0].items():
        assert gradient.any(), name
        assert_close(gradient, grads[1][name])


def test_the_authors_code_is_half_the_width() -> None:
    """Liu et al.'s own encoder: d / 2 in each direction, so that the MLP goes d to d to d."""
    lstm = LSTM(LENGTH, D, D, D // 2)
    assert (lstm.lstm_head.hidden_size, lstm.lstm_head.num_layers) == (D // 2, 2)
    assert [list(layer.weight.shape) for layer in (lstm.mlp_head[0], lstm.mlp_head[2])] == [
        [D, D],
        [D, D],
    ]


def test_each_virtual_token_sees_the_others() -> None:
    lstm, mlp = ours("LSTM"), ours("MLP")
    for module, expected in ((lstm, [True] * LENGTH), (mlp, [i == 2 for i in range(LENGTH)])):
        before = module().detach().clone()
        with torch.no_grad():
            module.embedding.weight[2] += 1.0
        assert (module() != before).any(dim=1).tolist() == expected


def test_dropout_acts_in_training_steps_alone() -> None:
    lstm = ours("LSTM", layers=2, dropout=0.5)
    reference = theirs("LSTM", encoder_dropout=0.5).eval()
    lstm.load_state_dict(reference.state_dict())
    expected = reference(torch.arange(LENGTH)[None])[0]
    assert not torch.equal(lstm(), lstm())
    with torch.no_grad():
        assert_close(lstm(), expected)
    assert lstm.training
    assert not torch.equal(lstm(), lstm()), "and the next step has it again"
    assert_close(lstm.eval()(), expected)


def test_folding_happens_without_dropout(tiny_backbone) -> None:
    method = PTuning(name="p-tuning", length=LENGTH, reparameterization=axes.LSTM(dropout=0.5))
    model = compose(tiny_backbone("gpt2"), method)
    assert model.training
    first = model.fold().rows()
    assert torch.equal(first, model.fold().rows())
    with torch.no_grad():
        assert torch.equal(first, model.eval().rows())
    assert_close(model.rows(), first)
    layout = Layout.of(random_ids([4, 2]), virtual=LENGTH, side="left")
    model.train()
    how = Decoding(max_new_tokens=5)
    assert model.answers(layout, how) == model.fold().answers(layout, how)


@pytest.mark.parametrize("kind", ["LSTM", "MLP"])
def test_fit_lowers_the_error(kind) -> None:
    rows = torch.randn(LENGTH, D)
    errors = []
    for steps in (1, 100, 600):
        torch.manual_seed(0)
        module = ours(kind, fit_steps=steps, fit_learning_rate=1e-2)
        with torch.no_grad():
            errors.append(module.fit(rows))
        assert errors[-1] == pytest.approx((module() - rows).square().mean().item(), rel=1e-4)
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 1e-2
    assert all(p.grad is None and p.requires_grad for p in module.parameters())


@pytest.mark.parametrize(
    ("reparameterization", "count"),
    [
        (axes.LSTM(), LENGTH * 32 + 2 * (2 * 4 * 16 * (32 + 16 + 2)) + 2 * (32 * 32 + 32)),
        (axes.ReluMLP(), LENGTH * 32 + 3 * (32 * 32 + 32)),
        (axes.ReluMLP(hidden=8), LENGTH * 32 + 33 * 8 + 9 * 8 + 9 * 32),
    ],
)
def test_trains_as_a_method(tiny_backbone, reparameterization, count) -> None:
    method = PTuning(name="p-tuning", length=LENGTH, reparameterization=reparameterization)
    model = compose(tiny_backbone("gpt2"), method)
    assert model.trained_parameters == count
    pairs = [
        Pair(*pair) for pair in zip(random_ids([5, 3]), random_ids([3, 4], seed=1), strict=True)
    ]
    spec = TrainingSpec(steps=30, batch_size=2, learning_rate=1e-2, schedule="constant")
    losses = [step["loss"] for step in train(model, pairs, spec).steps]
    assert losses[-1] < 0.9 * losses[0]


def test_options_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        axes.LSTM(layers=1, dropout=0.1)
    with pytest.raises(ValueError, match="less than 1"):
        axes.LSTM(dropout=1.0)
