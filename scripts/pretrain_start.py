"""An encoder-decoder that starts from the layers of a trained decoder (Rothe et al. 2020).

The architecture is Blenderbot's: layer norms before each part, learned positions from 0, no other
norm, which is GPT-2's with a cross-attention in each layer. With its cross-attention away, the
decoder is GPT-2 with the layers that were chosen, to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from pretrain_objectives import POSITIONS, Denoising
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import (
    BlenderbotConfig,
    BlenderbotForConditionalGeneration,
    GPT2LMHeadModel,
    PreTrainedModel,
)

from foreword.errors import UserError

CROSS, QUIET = 0.3, 0.05
"""What the copied outputs of cross-attention and of the encoder's layers are multiplied by."""
LOUD = 0.25
"""Amplitude of the sinusoids among the encoder's positions."""
SHARP, NOTED, BESIDE, SAID = 2.2, 4.0, 0.3, 0.5
"""In `look_up`: queries and keys, the note of the token before, other notes, what is said."""
OFFSETS = (-1, -2, 2, -3, -1, 1, -2, 2)
"""Where the heads of the first encoder layer look."""


class DenoisingFrom(Denoising):
    """Denoising by a model whose layers are those of a decoder.

    Args:
        tokenizer: the decoder's; the sentinels are added behind.
        folder: the decoder's, of GPT-2 architecture.
        encoder: which of its layers the encoder takes.
        decoder: which of its layers the decoder takes.
        positions: how many there are in each stack.
    """

    page = "started"
    embedding_rate = 1.0

    def __init__(
        self,
        tokenizer: Tokenizer,
        folder: Path,
        encoder: Sequence[int],
        decoder: Sequence[int],
        positions: int = POSITIONS,
    ) -> None:
        given = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32)
        if given.config.vocab_size != tokenizer.get_vocab_size():
            raise UserError(f"{folder}: its vocabulary is another than --vocabulary")
        if bad := [i for i in (*encoder, *decoder) if i not in range(given.config.n_layer)]:
            raise UserError(f"{folder} has {given.config.n_layer} layers, none is number {bad[0]}")
        config = given.config
        shape = {"width": config.n_embd, "layers": len(decoder), "heads": config.n_head}
        super().__init__(tokenizer, shape)
        self.given, self.encoder, self.decoder = given, tuple(encoder), tuple(decoder)
        self.start, self.positions = self.end, positions

    def model(self) -> PreTrainedModel:
        """Blenderbot without dropout, with the decoder's layers."""
        theirs = self.given.config
        model = BlenderbotForConditionalGeneration(
            BlenderbotConfig(
                vocab_size=self.vocabulary,
                d_model=theirs.n_embd,
                encoder_layers=len(self.encoder),
                decoder_layers=len(self.decoder),
                encoder_attention_heads=theirs.n_head,
                decoder_attention_heads=theirs.n_head,
                encoder_ffn_dim=theirs.n_inner or 4 * theirs.n_embd,
                decoder_ffn_dim=theirs.n_inner or 4 * theirs.n_embd,
                max_position_embeddings=self.positions,
                activation_function=theirs.activation_function,
                dropout=0.0,
                attention_dropout=0.0,
                activation_dropout=0.0,
                encoder_no_repeat_ngram_size=0,
                tie_word_embeddings=True,
                pad_token_id=self.pad,
                bos_token_id=self.start,
                eos_token_id=self.end,
                decoder_start_token_id=self.start,
                forced_eos_token_id=None,
            )
        )
        copy_decoder(self.given, model, self.encoder, self.decoder)
        look_up(model)
        return model


@torch.no_grad()
def copy_decoder(
    given: GPT2LMHeadModel,
    model: BlenderbotForConditionalGeneration,
    encoder: Sequence[int],
    decoder: Sequence[int],
) -> None:
    """Both stacks from GPT-2's layers; what stands behind its vocabulary as its boundary, varied.

    Cross-attention begins as the self-attention of the same layer, made small. Encoder states come
    out with mean 0 and variance 1, and keys and values take in the layer's own norm.
    """
    body = given.transformer
    words = body.wte.weight
    table = model.model.shared.weight
    spread = (words - words.mean(0)).std()
    table[len(words) :] = words.mean(0) + spread * torch.randn_like(table[len(words) :])
    table[: len(words)] = words
    for token in (model.config.pad_token_id, model.config.eos_token_id):
        table[token] = words[0]
    for stack, chosen in ((model.model.encoder, encoder), (model.model.decoder, decoder)):
        stack.embed_positions.weight.copy_(body.wpe.weight[: len(stack.embed_positions.weight)])
        for layer, index in zip(stack.layers, chosen, strict=True):
            theirs = body.h[index]
            _copy(layer.self_attn_layer_norm, theirs.ln_1.weight, theirs.ln_1.bias)
            _copy(layer.final_layer_norm, theirs.ln_2.weight, theirs.ln_2.bias)
            _copy(layer.fc1, theirs.mlp.c_fc.weight.T, theirs.mlp.c_fc.bias)
            _copy(layer.fc2, theirs.mlp.c_proj.weight.T, theirs.mlp.c_proj.bias)
            query, key, value = _parts(theirs.attn)
            out = theirs.attn.c_proj
            own = layer.self_attn
            for mine, (weight, bias) in (
                (own.q_proj, query),
                (own.k_proj, key),
                (own.v_proj, value),
                (own.out_proj, (out.weight.T, out.bias)),
            ):
                _copy(mine, weight, bias)
            if stack is model.model.encoder:
                continue
            cross, norm = layer.encoder_attn, theirs.ln_1
            _copy(layer.encoder_attn_layer_norm, norm.weight, norm.bias)
            _copy(cross.q_proj, *query)
            for mine, (weight, bias) in ((cross.k_proj, key), (cross.v_proj, value)):
                _copy(mine, weight * norm.weight, bias + weight @ norm.bias)
            _copy(cross.out_proj, CROSS * out.weight.T, torch.zeros_like(out.bias))
    _copy(model.model.decoder.layer_norm, body.ln_f.weight, body.ln_f.bias)


def _parts(attention: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Weight `[out, in]` and bias of queries, keys and values."""
    fused = attention.get_submodule("c_attn")
    weights, biases = fused.weight.T.chunk(3), fused.bias.chunk(3)
    return list(zip(weights, biases, strict=True))


def _copy(module: nn.Module, weight: Tensor, bias: Tensor) -> None:
    module.get_parameter("weight").copy_(weight)
    module.get_parameter("bias").copy_(bias)


@torch.no_grad()
def look_up(model: BlenderbotForConditionalGeneration) -> None:
    """Let the decoder find the token that it has just read, and what follows it.

    Each head of the first encoder layer looks at one offset, by sinusoids in the directions in
    which word embeddings vary least, and the first notes a code of the token before in the next
    such directions. In the first two decoder layers, half of the cross-attention's heads look for
    the place whose note is the current token and say the word that stands there; the others look
    for the current token itself and hand on what the encoder's other heads saw beside it. A code is
    the word embedding in its main directions, each at variance 1 and without their mean. All of it
    is trained on.
    """
    config = model.config
    width, heads = config.d_model, config.encoder_attention_heads
    head = width // heads
    words = model.model.shared.weight[: config.pad_token_id].double()
    mean = words.mean(0)
    variances, basis = torch.linalg.eigh(torch.cov(words.T))
    places, notes, main = basis[:, :head], basis[:, head : 2 * head], basis.flip(1)
    code = (main / variances.flip(0).sqrt()).T[:head]
    code = code - torch.outer(code @ mean, mean) / mean.square().sum()
    size = math.sqrt(float((words - mean).square().sum(1).mean()) / width)
    dice = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(width, width, generator=dice).double())[0]
    encoder, first = model.model.encoder, model.model.encoder.layers[0]
    for layer in encoder.layers:
        for part in (layer.self_attn.out_proj, layer.fc2):
            part.weight.mul_(QUIET)
            part.bias.mul_(QUIET)
    rates = torch.exp(torch.linspace(math.log(2.5), math.log(0.05), head // 2).double())
    turns = torch.arange(len(encoder.embed_positions.weight)).double().unsqueeze(1) * rates
    encoder.embed_positions.weight.add_(LOUD * torch.cat([turns.sin(), turns.cos()], 1) @ places.T)
    own = first.self_attn
    _unbiased(own, first.self_attn_layer_norm)
    for number, offset in enumerate(OFFSETS[:heads]):
        rows = slice(number * head, (number + 1) * head)
        cosine, sine = torch.diag((offset * rates).cos()), torch.diag((offset * rates).sin())
        shift = torch.cat([torch.cat([cosine, sine], 1), torch.cat([-sine, cosine], 1)])
        own.q_proj.weight[rows] = (shift @ places.T).float()
        own.k_proj.weight[rows] = places.T.float()
        own.v_proj.weight[rows] = (size * code).float()
        own.out_proj.weight[:, rows] = BESIDE * size * turn[:, rows].float()
    own.out_proj.weight[:, :head] = NOTED * size * notes.float()
    for layer in model.model.decoder.layers[:2]:
        cross = layer.encoder_attn
        _unbiased(cross, layer.encoder_attn_layer_norm)
        for number in range(heads):
            rows = slice(number * head, (number + 1) * head)
            cross.q_proj.weight[rows] = (SHARP * size * code).float()
            if number < heads // 2:
                cross.k_proj.weight[rows] = SHARP * notes.T.float()
                cross.v_proj.weight[rows] = main.T[rows].float()
                cross.out_proj.weight[:, rows] = SAID * size * main[:, rows].float()
            else:
                cross.k_proj.weight[rows] = (SHARP * size * code).float()
                cross.v_proj.weight[rows] = turn.T[rows].float()
                cross.out_proj.weight[:, rows] = BESIDE * size * turn.T[:, rows].float()


def _unbiased(attention: nn.Module, norm: nn.LayerNorm) -> None:
    """No biases, and a norm that only normalizes."""
    for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
        attention.get_parameter(f"{part}.bias").zero_()
    _copy(norm, torch.ones_like(norm.weight), torch.zeros_like(norm.bias))
