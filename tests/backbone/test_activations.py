"""The fused GELU is the function that it replaces."""

import pytest
import torch
from torch import nn
from transformers.activations import FastGELUActivation, NewGELUActivation

from foreword.backbone.modules.activations import fuse_activations


@pytest.mark.parametrize("slow", [NewGELUActivation, FastGELUActivation])
def test_values_and_gradients_agree(slow: type[nn.Module]) -> None:
    x = torch.linspace(-6, 6, 1001, dtype=torch.float64, requires_grad=True)
    one, other = slow()(x), nn.GELU(approximate="tanh")(x)
    # FastGELU rounds sqrt(2/pi) to ten digits; the others agree to the last bits.
    torch.testing.assert_close(one, other, atol=1e-9, rtol=0)
    torch.testing.assert_close(
        torch.autograd.grad(one.sum(), x), torch.autograd.grad(other.sum(), x), atol=1e-9, rtol=0
    )


def test_every_layer_is_replaced(mini) -> None:
    kinds = [type(module) for module in mini.model.modules()]
    assert NewGELUActivation not in kinds
    assert kinds.count(nn.GELU) == mini.geometry.main.layers
    assert fuse_activations(mini.model) == 0
