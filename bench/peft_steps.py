"""PEFT's training steps, as it is usually run: `model(**batch).loss`, AdamW."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from foreword.backbone.layout import Layout, Pair
from shapes import LABELS

RATE = 8e-5
HIDDEN = 512
RANK = 8
PREFIXES = (
    "prefix, table",
    "prefix, decoder alone",
    "prefix, decoder alone, sources kept",
    "prefix of 512",
    "P-Tuning v2",
    "P-Tuning v2 of 512",
)
"""Rows of the table that are PEFT's prefix tuning."""


def config_of(method: str, length: int, task: str) -> Any:
    """PEFT's counterpart of a method; None where it has none."""
    from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig

    if method == "LoRA":
        return LoraConfig(task_type=task, r=RANK, lora_alpha=2 * RANK, lora_dropout=0.0)
    if method == "prompt":
        return PromptTuningConfig(task_type=task, num_virtual_tokens=length)
    if method == "prefix, MLP":
        return PrefixTuningConfig(
            task_type=task,
            num_virtual_tokens=length,
            prefix_projection=True,
            encoder_hidden_size=HIDDEN,
        )
    if method in PREFIXES:
        return PrefixTuningConfig(task_type=task, num_virtual_tokens=length)
    return None


def step_of(
    base: PreTrainedModel, pairs: Sequence[Pair], method: str, length: int, answer: str
) -> Callable[[list[int]], Tensor] | None:
    """Forward, backward and optimizer of one batch; None where PEFT has no such method.

    Args:
        base: frozen weights, of a model object that nobody else uses.
        pairs: the examples.
        method: its name in `bench/steps.py`.
        length: virtual tokens.
        answer: "text" or "label".
    """
    from peft import get_peft_model

    encodes = base.config.is_encoder_decoder
    task = "SEQ_CLS" if answer == "label" else "SEQ_2_SEQ_LM" if encodes else "CAUSAL_LM"
    config = config_of(method, length, task)
    if config is None:
        return None
    if answer == "label":
        base = _classifier(base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers, about PEFT's ways
        model = get_peft_model(base, config).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)

    def step(rows: list[int]) -> Tensor:
        batch = collated([pairs[i] for i in rows], answer, encodes=encodes)
        loss = model(**{name: value.to(base.device) for name, value in batch.items()}).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def _classifier(base: PreTrainedModel) -> PreTrainedModel:
    """A model with a head for labels around the very same weights."""
    base.config.num_labels = LABELS
    model = AutoModelForSequenceClassification.from_config(base.config)
    model.base_model.load_state_dict(base.base_model.state_dict(), strict=False, assign=True)
    return model.to(base.device)


def collated(pairs: Sequence[Pair], answer: str, *, encodes: bool) -> dict[str, Tensor]:
    """A padded batch, as a data collator makes it: labels at targets alone, -100 elsewhere."""
    if answer == "label":
        read = Layout.of([pair.source for pair in pairs])
        return _inputs(read) | {"labels": torch.tensor([pair.labels[0] for pair in pairs])}
    if encodes:
        labels = nn.utils.rnn.pad_sequence(
            [torch.tensor(pair.target) for pair in pairs], batch_first=True, padding_value=-100
        )
        return _inputs(Layout.of([pair.source for pair in pairs])) | {"labels": labels}
    laid = Layout.of([pair.source for pair in pairs], [pair.target for pair in pairs])
    return _inputs(laid) | {"labels": laid.input_ids.masked_fill(~laid.target_mask, -100)}


def _inputs(laid: Layout) -> dict[str, Tensor]:
    return {"input_ids": laid.input_ids, "attention_mask": laid.attention_mask.long()}
