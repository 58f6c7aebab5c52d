"""Every family that is tested, as a tiny random model. A new family is one entry here.

The entry is a name of transformers' and what its config needs to be tiny. All else (what kind of
model it is, how a prompt enters it, which attentions it runs with) is found out by running it: by
the tests, and by `scripts/family_tables.py`, which writes the tables of docs/families.md and
docs/parity.md.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
)
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from conftest import CONFIGS as COMMON
from conftest import LLAMA_LIKE, mini_tokens
from families import by_hand
from foreword.backbone import Backbone

VOCABULARY, POSITIONS = 512, 64
UNGROUPED = {key: value for key, value in LLAMA_LIKE.items() if key != "num_key_value_heads"}
HEAD_16 = {**LLAMA_LIKE, "head_dim": 16}
SMALL_N = {"n_embd": 32, "n_layer": 2, "n_head": 4}
GEMMA_PART = {**HEAD_16, "vocab_size": VOCABULARY, "sliding_window": 8}
TWO_EXPERTS = {"num_local_experts": 2, "experts_implementation": "eager"}
BERT_LIKE = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": POSITIONS,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "pad_token_id": 0,
}
ROBERTA_LIKE = {**BERT_LIKE, "max_position_embeddings": POSITIONS + 2, "pad_token_id": 1}
"""Its first position is 2, after the padding's."""
T5_LIKE = {
    "d_model": 32,
    "d_kv": 12,
    "d_ff": 48,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "dropout_rate": 0.0,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
"""Heads of another width than `d_model / num_heads`, and a deeper decoder than encoder."""
BART_LIKE = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": POSITIONS,
    "dropout": 0.0,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
"""Unequal depths, and fewer and wider heads in the decoder."""

EXPERTS = {
    "experts_implementation": "eager",
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 16,
    "n_group": 1,
    "n_routed_experts": 2,
    "num_experts_per_tok": 1,
    "topk_group": 1,
}
LATENT = {
    **UNGROUPED,
    "kv_lora_rank": 24,
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
}
"""Latent attention: keys of 16 and values of 12, made from 24 and 8 numbers in the cache."""

PER_LAYER_INPUTS = {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCABULARY}

DECODERS: dict[str, dict[str, Any]] = {
    **COMMON,
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "codegen": {**SMALL_N, "rotary_dim": 4},
    "deepseek_v2": {**LATENT, **EXPERTS},
    "deepseek_v3": {**LATENT, **EXPERTS},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": False},
    "gemma": HEAD_16,
    "gemma2": HEAD_16,
    "gemma3_text": {**HEAD_16, "sliding_window": 8},
    "gemma3n_text": {
        **HEAD_16,
        "num_hidden_layers": 5,
        "sliding_window": 8,
        "num_kv_shared_layers": 2,
        **PER_LAYER_INPUTS,
        "activation_sparsity_pattern": None,
        "altup_correct_scale": False,
        "intermediate_size": [48] * 5,
        "layer_types": [*["sliding_attention", "full_attention"] * 2, "sliding_attention"],
        "laurel_rank": 4,
    },
    "gemma4_text": {
        **HEAD_16,
        "num_hidden_layers": 5,
        "sliding_window": 8,
        "num_kv_shared_layers": 2,
        **PER_LAYER_INPUTS,
        "global_head_dim": 24,
        "layer_types": [*["sliding_attention", "full_attention"] * 2, "full_attention"],
    },
    "glm4_moe_lite": {**LATENT, **EXPERTS, "v_head_dim": 16},
    "gpt_bigcode": SMALL_N,
    "gpt_neox": UNGROUPED,
    "gpt_oss": {**HEAD_16, **TWO_EXPERTS, "num_experts_per_tok": 1, "sliding_window": 8},
    "gptj": {**SMALL_N, "rotary_dim": 4},
    "granite": LLAMA_LIKE,
    "longcat_flash": {
        **{name: LATENT[name] for name in LATENT if name != "num_hidden_layers"},
        "expert_ffn_hidden_size": 16,
        "experts_implementation": "eager",
        "ffn_hidden_size": 48,
        "head_dim": 8,
        "moe_topk": 2,
        "n_routed_experts": 2,
        "num_layers": 2,
        "zero_expert_num": 1,
    },
    "minicpm3": LATENT,
    "mistral": {**LLAMA_LIKE, "sliding_window": 8},
    "mixtral": {**LLAMA_LIKE, **TWO_EXPERTS},
    "olmo": LLAMA_LIKE,
    "olmo2": LLAMA_LIKE,
    "phi": UNGROUPED,
    "phi3": LLAMA_LIKE,
    "qwen2": LLAMA_LIKE,
    "stablelm": LLAMA_LIKE,
    "starcoder2": LLAMA_LIKE,
    "vaultgemma": HEAD_16,
}
ENCODERS: dict[str, dict[str, Any]] = {
    "albert": {**BERT_LIKE, "embedding_size": 16},
    "bert": BERT_LIKE,
    "camembert": ROBERTA_LIKE,
    "data2vec-text": ROBERTA_LIKE,
    "distilbert": {
        "dim": 32,
        "n_layers": 3,
        "n_heads": 4,
        "hidden_dim": 48,
        "max_position_embeddings": POSITIONS,
        "dropout": 0.0,
        "attention_dropout": 0.0,
    },
    "electra": {**BERT_LIKE, "embedding_size": 16},
    "ernie": BERT_LIKE,
    "eurobert": {**BERT_LIKE, "num_key_value_heads": 2, "mask_token_id": 2},
    "gte": BERT_LIKE,
    "modernbert": {
        **BERT_LIKE,
        "global_attn_every_n_layers": 2,
        "local_attention": 8,
        "cls_token_id": 1,
        "sep_token_id": 2,
    },
    "nomic_bert": BERT_LIKE,
    "roberta": ROBERTA_LIKE,
    "xlm-roberta": ROBERTA_LIKE,
    "xlm-roberta-xl": ROBERTA_LIKE,
    "xmod": {**ROBERTA_LIKE, "languages": ["en_XX"], "default_language": "en_XX"},
}
ENCODER_DECODERS: dict[str, dict[str, Any]] = {
    "bart": BART_LIKE,
    "blenderbot": BART_LIKE,
    "blenderbot-small": BART_LIKE,
    "m2m_100": BART_LIKE,
    "marian": {**BART_LIKE, "decoder_vocab_size": VOCABULARY},
    "mbart": BART_LIKE,
    "mt5": T5_LIKE,
    "nllb-moe": {**BART_LIKE, "num_experts": 2, "encoder_sparse_step": 2, "decoder_sparse_step": 2},
    "pegasus": BART_LIKE,
    "plbart": BART_LIKE,
    "switch_transformers": {
        **T5_LIKE,
        "num_experts": 2,
        "num_sparse_encoder_layers": 1,
        "num_sparse_decoder_layers": 1,
    },
    "t5": T5_LIKE,
    "t5gemma": {
        "encoder": {**GEMMA_PART, "num_hidden_layers": 2},
        "decoder": {**GEMMA_PART, "num_hidden_layers": 3},
    },
    "umt5": T5_LIKE,
}
FAMILIES = {**DECODERS, **ENCODERS, **ENCODER_DECODERS}

WITHOUT_KEYS_VALUES: dict[str, dict[str, Any]] = {
    "deberta": BERT_LIKE,
    "deberta-v2": BERT_LIKE,
    "deepseek_v32": {**LATENT, **EXPERTS, "head_dim": 8, "index_head_dim": 16, "index_n_heads": 2},
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
    },
    "led": {**BART_LIKE, "attention_window": 8},
    "longt5": T5_LIKE,
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "mpnet": ROBERTA_LIKE,
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4},
    "mvp": BART_LIKE,
    "rembert": BERT_LIKE,
    "roformer": BERT_LIKE,
    "rwkv": {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32},
}
"""Families that take none of a virtual token, and have soft prompts in their input all the same."""


def plain_model(
    family: str, dtype: torch.dtype = torch.float64, *, seed: int = 0, **overrides: Any
) -> PreTrainedModel:
    """Transformers' own model, untouched; its weights are large enough that a mistake shows.

    Rotations are made in float64 here, so that they do not depend on which test builds it first.
    """
    settings = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    chosen = {**FAMILIES, **WITHOUT_KEYS_VALUES}[family]
    config = CONFIG_MAPPING[family](**{**settings, **chosen, **overrides})
    with torch.random.fork_rng(devices=[]), torch.no_grad(), by_hand.ExactFloat64():
        torch.manual_seed(seed)
        model = _auto(family).from_config(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.2)
    return model.to(dtype).eval()


def _auto(family: str) -> Any:
    for auto, names in (
        (AutoModelForSeq2SeqLM, modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES),
        (AutoModelForMaskedLM, modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES),
        (AutoModelForCausalLM, modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
    ):
        if family in names:
            return auto
    return AutoModel


def wrapped(family: str, dtype: torch.dtype = torch.float64, **overrides: Any) -> Backbone:
    """The same model as a backbone."""
    return Backbone.wrap(plain_model(family, dtype, **overrides), mini_tokens())
