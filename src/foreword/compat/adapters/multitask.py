"""Multitask prompt tuning in PEFT's format."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from foreword.axes.readout import Head
from foreword.backbone import Backbone
from foreword.compat.adapter import CONFIG, Adapter, adapter
from foreword.compat.adapters.named import with_named
from foreword.compat.adapters.prompt import PromptTuningConfig
from foreword.compat.adapters.virtual_tokens import TENSOR, InputTokens
from foreword.compat.peft_types import MultitaskPromptTuningInit, PeftType
from foreword.errors import ArtifactError
from foreword.methods import MethodChoice, MultitaskPromptTuning
from foreword.tuned import TunedModel

COLUMNS, ROWS = "prefix_task_cols", "prefix_task_rows"
TASK = "task"
"""The column that names a row's task where several were imported, as the number that they have in
PEFT."""
Start = Literal["TEXT", "RANDOM", "AVERAGE_SOURCE_TASKS", "EXACT_SOURCE_TASK", "ONLY_SOURCE_SHARED"]


@dataclass
class MultitaskPromptTuningConfig(PromptTuningConfig):
    """Configuration of multitask prompt tuning (Wang et al. 2023).

    Attributes:
        prompt_tuning_init: RANDOM, TEXT, or from the source tasks of a file: the shared prompt with
            the mean of their factors, with those of one task, or alone.
        prompt_tuning_init_state_dict_path: that file.
        prompt_tuning_init_task: which task.
        num_ranks: rank of a task's own matrix.
        num_tasks: K.
    """

    kind: ClassVar[PeftType] = PeftType.MULTITASK_PROMPT_TUNING
    starts: ClassVar[type[Enum]] = MultitaskPromptTuningInit

    prompt_tuning_init: MultitaskPromptTuningInit | str = MultitaskPromptTuningInit.RANDOM
    prompt_tuning_init_state_dict_path: str | None = None
    prompt_tuning_init_task: int | None = 0
    num_ranks: int | None = 1
    num_tasks: int | None = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._count("num_ranks", needed=True)
        self._count("num_tasks", needed=True)


@adapter
class MultitaskAdapter(InputTokens):
    """`prompt_embeddings` is `[P, d]`, `prefix_task_cols` `[K, P, r]` and `prefix_task_rows`
    `[K, r, d]`; on an encoder-decoder the first two have 2 P rows."""

    stored = (TENSOR, COLUMNS, ROWS)
    methods = (MultitaskPromptTuning,)

    peft_type: Literal["MULTITASK_PROMPT_TUNING"]
    prompt_tuning_init: Start = "RANDOM"
    prompt_tuning_init_text: str | None = Field(None, max_length=100_000)
    prompt_tuning_init_state_dict_path: str | None = Field(None, max_length=4096)
    prompt_tuning_init_task: int | None = Field(None, ge=0, strict=True)
    tokenizer_name_or_path: str | None = Field(None, max_length=4096)
    tokenizer_kwargs: dict[str, Any] | None = None
    num_ranks: int = Field(1, ge=1, le=1024, strict=True)
    num_tasks: int = Field(1, ge=1, le=1024, strict=True)

    def check(self, file: Path) -> None:
        """Besides, that PEFT runs it: its question answering gives the prompt no task."""
        super().check(file)
        if self.task_type == "QUESTION_ANS":
            raise ArtifactError(
                f"{file}: task_type: PEFT gives this prompt no task in question answering, without "
                "which it fails; there is no answer that an import could keep"
            )

    def taken(
        self, file: Path, tensors: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The shared rows and the tasks' factors, as far as PEFT reads them."""
        own, head = self.sorted_out(file, tensors)
        rows, tasks, rank = self.stored_rows, self.num_tasks, self.num_ranks
        width = own[TENSOR].shape[-1] if own[TENSOR].ndim else 0
        expected = {TENSOR: [rows, width], COLUMNS: [tasks, rows, rank], ROWS: [tasks, rank, width]}
        for name, want in expected.items():
            if list(own[name].shape) != want:
                raise ArtifactError(
                    f"{file}: {name} has shape {list(own[name].shape)}, but {CONFIG} says "
                    f"num_virtual_tokens {self.num_virtual_tokens}, num_tasks {tasks} and "
                    f"num_ranks {rank}: expected {want if width else '[.., width]'}"
                )
        read = self.num_virtual_tokens
        own[TENSOR], own[COLUMNS] = own[TENSOR][:read], own[COLUMNS][:, :read]
        return {name: tensor.contiguous() for name, tensor in own.items()}, head

    def method(self, backbone: Backbone) -> MethodChoice:  # noqa: ARG002
        """Multitask prompt tuning, its tasks named by their numbers where there are several."""
        several = self.num_tasks > 1
        return MultitaskPromptTuning(
            name="multitask-prompt-tuning",
            length=self.num_virtual_tokens,
            rank=self.num_ranks,
            task_column=TASK if several else None,
            tasks=tuple(map(str, range(self.num_tasks))) if several else (),
            positions="shift",
        )

    def composed(
        self, adapter: Adapter, backbone: Backbone, readout: Head | None
    ) -> tuple[MethodChoice, TunedModel]:
        """The backbone with the tensors."""
        self.check_sizes(adapter, backbone)
        method = self.method(backbone)
        site = "decoder" if backbone.geometry.kind == "decoder" else "encoder"
        names = self.named(method, backbone.geometry.width)
        stored = {
            f"{site}.{name}": adapter.tensors[theirs]
            for name, theirs in zip(names, self.stored, strict=True)
        }
        return method, with_named(adapter, stored, backbone, method, readout)

    @classmethod
    def named(cls, method: MethodChoice, d: int) -> dict[str, tuple[int, ...]]:
        """Those of the shared prompt and of the tasks."""
        assert isinstance(method, MultitaskPromptTuning), "no other method has tasks"
        tasks, rank = max(1, len(method.tasks)), method.rank
        return {
            **super().named(method, d),
            "task_columns": (tasks, method.length, rank),
            "task_rows": (tasks, rank, d),
        }

    @classmethod
    def config_of(
        cls,
        source: Path,  # noqa: ARG003
        method: MethodChoice,
        sizes: dict[str, Any],
    ) -> MultitaskPromptTuningConfig:
        """How many tasks there are, and their rank."""
        assert isinstance(method, MultitaskPromptTuning), "no other method has tasks"
        return MultitaskPromptTuningConfig(
            **sizes, num_tasks=max(1, len(method.tasks)), num_ranks=method.rank
        )
