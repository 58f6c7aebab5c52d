"""Multitask prompts that PEFT makes, each task's so loud that tasks differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import torch

from compat.with_heads import TASKS

LENGTH, RANK, NAMES = 5, 2, ("cola", "rte", "sst2")


def config(task_type: str, **options: Any) -> peft.MultitaskPromptTuningConfig:
    return peft.MultitaskPromptTuningConfig(
        task_type=task_type,
        num_virtual_tokens=LENGTH,
        **{"num_tasks": len(NAMES), "num_ranks": RANK, **options},
    )


def louder(model: Any) -> Any:
    """PEFT's model, its tasks' factors so large that tasks differ."""
    with torch.no_grad():
        for name, parameter in model.prompt_encoder["default"].named_parameters():
            if name.startswith("prefix_task"):
                parameter.normal_()
    return model


def adapted(where: Path, task: str, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    """PEFT's model on a base, its factors and head random and loud."""
    torch.manual_seed(1)
    heads = {} if task == "SEQ_2_SEQ_LM" else {"num_labels": 3}
    model = TASKS[task].from_pretrained(where, dtype=dtype, **heads)
    model = louder(peft.get_peft_model(model, config(task, **options))).to(dtype).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "prompt_encoder" not in name:
                parameter.normal_()
    return model
