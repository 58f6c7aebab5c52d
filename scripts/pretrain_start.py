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

CROSS = 0.3
"""What the output of the cross-attention is multiplied by at the start."""


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
        return model


@torch.no_grad()
def copy_decoder(
    given: GPT2LMHeadModel,
    model: BlenderbotForConditionalGeneration,
    encoder: Sequence[int],
    decoder: Sequence[int],
) -> None:
    """Both stacks from GPT-2's layers; what stands behind its vocabulary as its boundary, varied.

    Cross-attention begins as the self-attention of the same layer, made small: its heads that copy
    what once followed a token do so from the encoder. Encoder states come out with mean 0 and
    variance 1, and keys and values take in the layer's own norm.
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
    look_up(model)


def _parts(attention: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Weight `[out, in]` and bias of queries, keys and values."""
    fused = attention.get_submodule("c_attn")
    weights, biases = fused.weight.T.chunk(3), fused.bias.chunk(3)
    return list(zip(weights, biases, strict=True))


def _copy(module: nn.Module, weight: Tensor, bias: Tensor) -> None:
    module.get_parameter("weight").copy_(weight)
    module.get_parameter("bias").copy_(bias)


WAVES, LOUD, SHARP, CODE, SAID, QUIET = 16, 0.25, 2.2, 4.0, 0.5, 0.05
BESIDE = (-1, -2, 2, -3, -1, 1, -2, 2)


def look_up(model: BlenderbotForConditionalGeneration) -> None:
    """Let the decoder find what follows the token that it has just read.

    The first encoder layer looks beside each token, by sinusoids where the word embeddings vary
    least, and notes a code of the token before. Cross-attention of the first decoder layers finds
    the place whose note is the current token, and says the word that is there.
    """
    config = model.config
    width, heads = config.d_model, config.encoder_attention_heads
    head = width // heads
    table = model.model.shared.weight
    words = table[: config.pad_token_id].double()
    mean = words.mean(0)
    variances, basis = torch.linalg.eigh(torch.cov(words.T))
    quiet, noted, plain = basis[:, : 2 * WAVES], basis[:, 2 * WAVES :][:, :head], basis.flip(1)
    white = (plain / variances.flip(0).sqrt()).T[:head]
    white = white - torch.outer(white @ mean, mean) / mean.square().sum()
    size = math.sqrt(float((words - mean).square().sum(1).mean()) / width)
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(width, width, generator=generator).double())[0]
    encoder, layer = model.model.encoder, model.model.encoder.layers[0]
    for each in encoder.layers:
        each.self_attn.out_proj.weight.mul_(QUIET)
        each.fc2.weight.mul_(QUIET)
        each.fc2.bias.mul_(QUIET)
        each.self_attn.out_proj.bias.mul_(QUIET)
    rates = torch.exp(torch.linspace(math.log(2.5), math.log(0.05), WAVES).double())
    turns = torch.arange(len(encoder.embed_positions.weight)).double().unsqueeze(1) * rates
    encoder.embed_positions.weight.add_(LOUD * torch.cat([turns.sin(), turns.cos()], 1) @ quiet.T)
    own = layer.self_attn
    for part in (own.q_proj, own.k_proj, own.v_proj, own.out_proj):
        part.bias.zero_()
    _plain(layer.self_attn_layer_norm)
    for number, offset in enumerate(BESIDE):
        rows = slice(number * head, number * head + 2 * WAVES)
        cos, sin = (torch.diag(f(offset * rates)) for f in (torch.cos, torch.sin))
        shift = torch.cat([torch.cat([cos, sin], 1), torch.cat([-sin, cos], 1)])
        own.q_proj.weight[rows] = (shift @ quiet.T).float()
        own.k_proj.weight[rows] = quiet.T.float()
        own.v_proj.weight[rows] = (size * white).float()
        own.out_proj.weight[:, rows] = 0.3 * size * turn[:, rows].float()
    own.out_proj.weight[:, :head] = CODE * size * noted.float()
    for layer in model.model.decoder.layers[:2]:
        cross = layer.encoder_attn
        for part in (cross.q_proj, cross.k_proj, cross.v_proj, cross.out_proj):
            part.bias.zero_()
        _plain(layer.encoder_attn_layer_norm)
        for number in range(heads):
            rows = slice(number * head, (number + 1) * head)
            cross.q_proj.weight[rows] = (SHARP * size * white).float()
            if number < heads // 2:
                cross.k_proj.weight[rows] = SHARP * noted.T.float()
                cross.v_proj.weight[rows] = plain.T[rows].float()
                cross.out_proj.weight[:, rows] = SAID * size * plain[:, rows].float()
            else:
                cross.k_proj.weight[rows] = (SHARP * size * white).float()
                cross.v_proj.weight[rows] = turn.T[rows].float()
                cross.out_proj.weight[:, rows] = 0.3 * size * turn.T[:, rows].float()


def _plain(norm: nn.LayerNorm) -> None:
    norm.weight.fill_(1.0)
    norm.bias.zero_()
