"""How virtual tokens are made: shapes, sizes, and how near they come to given ones."""

from collections.abc import Callable

import pytest
import torch

from foreword.axes.reparam import MLP, ReluMLP, Table

LENGTH, WIDTH, D, HIDDEN = 5, 24, 8, 16


def test_table_is_its_own_rows() -> None:
    table = Table(LENGTH, WIDTH)
    assert table().shape == (LENGTH, WIDTH)
    assert table() is table.rows
    assert [name for name, _ in table.named_parameters()] == ["rows"]


def test_table_starts_as_wide_as_told() -> None:
    for std in (0.02, 0.5):
        rows = Table(200, 100, std)().detach()
        assert abs(rows.std().item() / std - 1) < 0.05
        assert abs(rows.mean().item()) < 0.05 * std


def test_table_takes_given_rows_exactly() -> None:
    table, rows = Table(LENGTH, WIDTH), torch.randn(LENGTH, WIDTH)
    assert table.fit(rows) == 0.0
    assert torch.equal(table(), rows)
    rows.zero_()
    assert not torch.equal(table(), rows), "the table must not share its memory"
    assert table().requires_grad


def test_mlp_is_the_papers() -> None:
    mlp = MLP(LENGTH, WIDTH, D, HIDDEN)
    first, _, second = mlp.transform
    expected = torch.tanh(mlp.table.weight @ first.weight.T + first.bias) @ second.weight.T
    torch.testing.assert_close(mlp(), expected + second.bias)
    assert mlp().shape == (LENGTH, WIDTH)
    count = LENGTH * D + (D + 1) * HIDDEN + (HIDDEN + 1) * WIDTH
    assert sum(p.numel() for p in mlp.parameters()) == count


def test_mlp_computes_rows_independently() -> None:
    """P[i] depends on the table's row i alone."""
    mlp = MLP(LENGTH, WIDTH, D, HIDDEN)
    before = mlp().detach().clone()
    with torch.no_grad():
        mlp.table.weight[2] += 1.0
    moved = (mlp() != before).any(dim=1).tolist()
    assert moved == [False, False, True, False, False]


def test_mlp_fit_lowers_the_error() -> None:
    rows = torch.randn(LENGTH, WIDTH)
    errors = []
    for steps in (1, 50, 500):
        torch.manual_seed(0)
        mlp = MLP(LENGTH, WIDTH, D, HIDDEN, fit_steps=steps, fit_learning_rate=1e-2)
        errors.append(mlp.fit(rows))
        assert errors[-1] == pytest.approx((mlp() - rows).square().mean().item())
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 1e-3


@pytest.mark.parametrize(
    ("reparam", "stays"),
    [
        (lambda: MLP(LENGTH, WIDTH, D, HIDDEN, fit_steps=3), {"table.weight"}),
        (lambda: ReluMLP(LENGTH, WIDTH, D, HIDDEN, fit_steps=3), set()),
    ],
)
def test_fit_is_adam_on_the_parameters_that_it_names(
    reparam: Callable[[], MLP | ReluMLP], stays: set[str]
) -> None:
    """The same steps by hand give the same bits; what is not trained keeps its own."""
    rows = torch.randn(LENGTH, WIDTH)
    torch.manual_seed(0)
    fitted = reparam()
    start = {name: value.clone() for name, value in fitted.state_dict().items()}
    left = fitted.fit(rows)
    torch.manual_seed(0)
    by_hand = reparam()
    moving = [value for name, value in by_hand.named_parameters() if name not in stays]
    adam = torch.optim.Adam(moving, lr=by_hand.fit_learning_rate)
    for _ in range(3):
        adam.zero_grad()
        (by_hand() - rows).square().mean().backward()
        adam.step()
    for name, value in by_hand.state_dict().items():
        assert torch.equal(fitted.state_dict()[name], value), name
        assert torch.equal(start[name], value) == (name in stays), name
    assert left == pytest.approx((by_hand() - rows).square().mean().item())
    assert all(parameter.grad is None for parameter in fitted.parameters())


def test_mlp_fit_leaves_it_ready_to_train() -> None:
    mlp = MLP(LENGTH, WIDTH, D, HIDDEN, fit_steps=2)
    with torch.no_grad():
        mlp.fit(torch.zeros(LENGTH, WIDTH, requires_grad=True))
    assert all(p.grad is None and p.requires_grad for p in mlp.parameters())


@pytest.mark.parametrize("reparam", [Table(LENGTH, WIDTH), MLP(LENGTH, WIDTH, D, HIDDEN)])
def test_every_parameter_gets_a_gradient(reparam) -> None:
    (reparam() * torch.randn(LENGTH, WIDTH)).sum().backward()
    for name, parameter in reparam.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
