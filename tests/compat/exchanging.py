"""What tests of the exchange share: adapters that PEFT makes, and its greedy answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "prefix": ("PrefixTuningConfig", {}),
    "projected prefix": (
        "PrefixTuningConfig",
        {"prefix_projection": True, "encoder_hidden_size": 24},
    ),
    "cartridge": ("CartridgeConfig", {"num_frozen_tokens": 2}),
    "prompt": ("PromptTuningConfig", {}),
    "p-tuning, mlp": ("PromptEncoderConfig", {"encoder_hidden_size": 24}),
    "p-tuning, lstm": (
        "PromptEncoderConfig",
        {
            "encoder_reparameterization_type": "LSTM",
            "encoder_hidden_size": 12,
            "encoder_dropout": 0.2,
        },
    ),
}
LENGTH = 4
WARNINGS = (
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
    "ignore:Position ids are not supported for parameter efficient tuning:UserWarning",
)
"""PEFT's own, on this transformers."""


def base_model(where: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32)


def peft_model(where: str, kind: str, *, loud: float = 1.0) -> Any:
    """An untrained adapter whose prompt says something: its last layer is `loud` times random."""
    name, options = KINDS[kind]
    torch.manual_seed(3)
    config = getattr(peft, name)(task_type="CAUSAL_LM", num_virtual_tokens=LENGTH, **options)
    model = peft.get_peft_model(base_model(where), config).eval()
    with torch.no_grad():
        for parameter in list(model.prompt_encoder["default"].parameters())[-2:]:
            parameter.mul_(loud)
    return model


def save(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def peft_answers(model: Any, where: str, texts: Sequence[str], tokens: int) -> list[str]:
    """Greedy, one unpadded row at a time: its left padding moves the text."""
    tokenizer = AutoTokenizer.from_pretrained(where)
    answers = []
    for text in texts:
        given = tokenizer(text, return_tensors="pt")
        output = model.generate(
            **given, max_new_tokens=tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
        )
        new = output[0, given["input_ids"].shape[1] :]
        answers.append(tokenizer.decode(new, skip_special_tokens=True).strip())
    return answers
