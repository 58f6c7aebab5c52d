"""Tiny GGUF files, written as llama.cpp's converter writes a Llama."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from conftest import mini_tokens, tiny_model

NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
WORDS = 320
"""A vocabulary that is read quickly."""
TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"


def tiny_llama(**overrides: Any) -> PreTrainedModel:
    """What the files hold: a random Llama whose sizes are multiples of a block of 32."""
    sizes = {"intermediate_size": 64, "vocab_size": WORDS, "tie_word_embeddings": False}
    return tiny_model("llama", **(sizes | overrides))


def small_tokenizer() -> Tokenizer:
    """The bundled one with its first tokens alone."""
    stated = json.loads(mini_tokens().tokenizer.backend_tokenizer.to_str())
    model = stated["model"]
    model["vocab"] = {token: number for token, number in model["vocab"].items() if number < WORDS}
    model["merges"] = [pair for pair in model["merges"] if "".join(pair) in model["vocab"]]
    return Tokenizer.from_str(json.dumps(stated))


def stored_name(name: str) -> str:
    """llama.cpp's name of a tensor."""
    if name.startswith("model.layers."):
        _, _, number, rest = name.split(".", 3)
        module, _, kind = rest.rpartition(".")
        return f"blk.{number}.{NAMES[module]}.{kind}"
    top = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    module, _, kind = name.rpartition(".")
    return f"{top[module]}.{kind}"


def stored_weight(model: PreTrainedModel, name: str, tensor: torch.Tensor) -> np.ndarray:
    """A weight in the order of llama.cpp, which pairs rotary dimensions that are neighbours."""
    config = model.config
    heads = {
        "self_attn.q_proj.weight": config.num_attention_heads,
        "self_attn.k_proj.weight": config.num_key_value_heads,
    }
    for ending, count in heads.items():
        if name.endswith(ending):
            rows, width = tensor.shape
            tensor = tensor.reshape(count, 2, rows // count // 2, width).transpose(1, 2)
            tensor = tensor.reshape(rows, width)
    return np.ascontiguousarray(tensor.float().numpy())


def write_gguf(
    file: Path,
    model: PreTrainedModel,
    *,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    architecture: str = "llama",
    template: str | None = TEMPLATE,
    more: dict[str, Any] | None = None,
    factors: torch.Tensor | None = None,
    without: tuple[str, ...] = (),
) -> Path:
    """Write a Llama with the small tokenizer.

    Args:
        file: where it goes.
        model: what is written.
        kind: how its matrices are stored; vectors are float32.
        architecture: what the file says that it is.
        template: its chat template.
        more: metadata as texts or whole numbers, by name.
        factors: `rope_freqs.weight`.
        without: names of tensors that are left out.
    """
    config = model.config
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(WORDS)
    stated = json.loads(small_tokenizer().to_str())["model"]
    vocabulary = sorted(stated["vocab"].items(), key=lambda pair: pair[1])
    special = set(mini_tokens().tokenizer.all_special_ids)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([3 if number in special else 1 for _, number in vocabulary])
    writer.add_token_merges([" ".join(pair) for pair in stated["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    if template is not None:
        writer.add_chat_template(template)
    for name, value in (more or {}).items():
        (writer.add_string if isinstance(value, str) else writer.add_uint32)(name, value)
    for name, tensor in model.state_dict().items():
        stored = stored_name(name)
        if stored in without:
            continue
        weight = stored_weight(model, name, tensor)
        if tensor.ndim == 1 or kind == gguf.GGMLQuantizationType.F32:
            writer.add_tensor(stored, weight)
        else:
            writer.add_tensor(stored, gguf.quants.quantize(weight, kind), raw_dtype=kind)
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", factors.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
