"""Small models on disk, and adapters with heads that PEFT makes for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from conftest import LLAMA_LIKE, VOCABULARY, mini_tokens

LENGTH = 4
WARNINGS = (
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
    "ignore:Position ids are not supported for parameter efficient tuning:UserWarning",
)
TASKS = {
    "SEQ_CLS": AutoModelForSequenceClassification,
    "TOKEN_CLS": AutoModelForTokenClassification,
    "QUESTION_ANS": AutoModelForQuestionAnswering,
    "SEQ_2_SEQ_LM": AutoModelForSeq2SeqLM,
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "prefix": ("PrefixTuningConfig", {}),
    "prompt": ("PromptTuningConfig", {}),
    "p-tuning": ("PromptEncoderConfig", {"encoder_hidden_size": 16}),
}
ENCODER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
BART = {
    "d_model": 32,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "forced_eos_token_id": None,
    "decoder_start_token_id": 0,
}
BASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "bert": (AutoModelForPreTraining, ENCODER),
    "bert without pooler": (AutoModelForMaskedLM, ENCODER),
    "roberta": (AutoModelForMaskedLM, {**ENCODER, "pad_token_id": 1, "type_vocab_size": 1}),
    "albert": (AutoModel, {**ENCODER, "embedding_size": 32}),
    "electra": (AutoModel, {**ENCODER, "embedding_size": 32}),
    "distilbert": (
        AutoModel,
        {
            "dim": 32,
            "n_layers": 2,
            "n_heads": 4,
            "hidden_dim": 48,
            "max_position_embeddings": 64,
        },
    ),
    "modernbert": (AutoModel, {**ENCODER, "local_attention": 8}),
    "gpt2": (AutoModelForCausalLM, {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}),
    "llama": (AutoModelForCausalLM, LLAMA_LIKE),
    "opt": (AutoModelForCausalLM, {**ENCODER, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "bloom": (AutoModelForCausalLM, {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "t5": (
        AutoModelForSeq2SeqLM,
        {"d_model": 32, "d_ff": 48, "d_kv": 8, "num_heads": 4, "num_layers": 4},
    ),
    "bart": (AutoModelForSeq2SeqLM, {**BART, "encoder_layers": 4, "decoder_layers": 4}),
    "bart of three": (AutoModelForSeq2SeqLM, {**BART, "encoder_layers": 3, "decoder_layers": 3}),
}


def save_base(name: str, folder: Path, **overrides: Any) -> Path:
    """A random model as a checkpoint, with the bundled tokenizer."""
    auto, options = BASES[name]
    given = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    config = CONFIG_MAPPING[name.split()[0]](**(given | options | overrides))
    model = auto.from_config(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.2, generator=generator)
    model.save_pretrained(folder)
    mini_tokens().tokenizer.save_pretrained(folder)
    return folder


class Bases:
    """Small base models by name, each saved once below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, dict[str, Path]()

    def __call__(self, name: str) -> Path:
        """Where it lies."""
        if name not in self.made:
            self.made[name] = save_base(name, self.folder / name.replace(" ", "-"))
        return self.made[name]


def adapted(base: Path, task: str, kind: str, *, labels: int = 3, **options: Any) -> Any:
    """PEFT's model, its prompt and head random and loud."""
    name, usual = KINDS[kind]
    torch.manual_seed(1)
    heads = {} if task == "SEQ_2_SEQ_LM" else {"num_labels": labels}
    model = TASKS[task].from_pretrained(base, **heads)
    if model.config.model_type == "distilbert":
        options = {"token_dim": 32, "num_layers": 2, "num_attention_heads": 4, **options}
    config = getattr(peft, name)(task_type=task, num_virtual_tokens=LENGTH, **usual, **options)
    model = peft.get_peft_model(model, config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    return model


def save(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder
