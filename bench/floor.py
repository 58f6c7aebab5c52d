"""The floor: what any training of a prompt on a frozen GPT-2 has to pay for, and nothing else.

One forward pass from the input embeddings, the head at the positions that predict a target (their
hidden states gathered into a contiguous `[N, d]` first), cross entropy, and the backward pass to
the input embeddings. No prompt, no trained parameter, no optimizer. A method that trains anything
below the first layer needs at least this.

Knows nothing about foreword but its `Layout`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from foreword.backbone.layout import Layout

SHAPES: Mapping[str, Mapping[str, int]] = {
    "gpt2": {"n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257, "n_positions": 1024},
    "34m": {"n_layer": 8, "n_embd": 512, "n_head": 8, "vocab_size": 16384, "n_positions": 512},
    "mini": {"n_layer": 6, "n_embd": 256, "n_head": 8, "vocab_size": 8192, "n_positions": 512},
    "tiny": {"n_layer": 2, "n_embd": 32, "n_head": 2, "vocab_size": 101, "n_positions": 256},
}
"""Shapes of the backbone: GPT-2 124M, one of 34 M parameters, foreword/mini, and one for tests of
the benchmark itself."""


def random_gpt2(shape: str, seed: int = 0) -> GPT2LMHeadModel:
    """A GPT-2 of a shape in `SHAPES`: random weights, frozen, no dropout, sdpa attention."""
    torch.manual_seed(seed)
    config = GPT2Config(
        **SHAPES[shape],
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=SHAPES[shape]["vocab_size"] - 1,
        eos_token_id=SHAPES[shape]["vocab_size"] - 1,
        attn_implementation="sdpa",
    )
    return GPT2LMHeadModel(config).eval().requires_grad_(False)


def with_one_gelu_kernel(model: GPT2LMHeadModel) -> GPT2LMHeadModel:
    """The same model with GELU's tanh approximation as torch's one kernel, in place.

    transformers computes GPT-2's `gelu_new` from eight elementwise operations. The numbers are the
    same up to rounding.
    """
    for block in model.transformer.h:
        block.mlp.act = nn.GELU(approximate="tanh")
    return model


class Floor:
    """Runs the floor on batches that are laid out beforehand.

    Args:
        model: frozen; it gets `inputs_embeds` and is not changed.
        layouts: by a batch's rows (indices of examples), without virtual tokens.
    """

    def __init__(self, model: GPT2LMHeadModel, layouts: Mapping[tuple[int, ...], Layout]) -> None:
        self.model = model
        self.layouts = layouts

    def step(self, rows: list[int]) -> float:
        """Forward and backward for one batch: the mean loss in nats per target token."""
        loss, _ = floor_loss(self.model, self.layouts[tuple(rows)])
        return loss.item()


def floor_loss(model: GPT2LMHeadModel, layout: Layout) -> tuple[Tensor, Tensor]:
    """The floor on one batch.

    Returns:
        The mean loss in nats per target token, and its gradient at the input embeddings
        `[B, T, d]`.
    """
    embeddings = model.get_input_embeddings()(layout.input_ids).detach().requires_grad_()
    hidden = model.transformer(
        inputs_embeds=embeddings,
        attention_mask=layout.attention_mask,
        position_ids=layout.position_ids,
        use_cache=False,
    ).last_hidden_state
    read = hidden.flatten(0, 1).index_select(0, layout.reading_positions())
    loss = nn.functional.cross_entropy(model.lm_head(read), layout.target_ids())
    (gradient,) = torch.autograd.grad(loss, embeddings)
    return loss.detach(), gradient
