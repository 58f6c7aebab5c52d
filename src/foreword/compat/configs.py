"""What PEFT's configurations of prompt methods share: its field names, their order and defaults.

As in PEFT, a field that the model decides (`token_dim`, `num_layers`, ...) may be left out here and
is asked for where it is needed. Unlike PEFT, a value that no method can use is refused at once.
Each method's configuration stands in its file in `adapters/`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, ClassVar

from foreword.compat.peft_types import PeftType, TaskType
from foreword.errors import did_you_mean


@dataclass
class PromptLearningConfig:
    """What the configurations of all prompt methods share.

    Attributes:
        task_type: what the model is used for.
        peft_type: the method; each class sets its own.
        auto_mapping: PEFT's note of a base model's class; unused here.
        peft_version: which PEFT wrote it; left as it is given.
        base_model_name_or_path: the base model.
        revision: of a base model on the hub.
        inference_mode: encoders then hold the folded prompt alone, not the network that made it.
        num_virtual_tokens: P.
        token_dim: width of the base model's embeddings; for prefixes of models with grouped heads,
            `num_attention_heads · head_dim`.
        num_transformer_submodules: 1, or 2 for an encoder-decoder; a prompt has that many times P
            rows.
        num_attention_heads: for prefixes the heads of keys and values.
        num_layers: layers of the base model.
        modules_to_save: further modules that are trained and saved.

    Raises:
        ValueError: a value that no method can use.
        TypeError: an unknown field.
    """

    kind: ClassVar[PeftType]

    task_type: TaskType | str | None = None
    peft_type: PeftType | str | None = None
    auto_mapping: dict[str, Any] | None = None
    peft_version: str | None = None
    base_model_name_or_path: str | None = None
    revision: str | None = None
    inference_mode: bool = False
    num_virtual_tokens: int | None = None
    token_dim: int | None = None
    num_transformer_submodules: int | None = None
    num_attention_heads: int | None = None
    num_layers: int | None = None
    modules_to_save: list[str] | None = None

    def __post_init__(self) -> None:
        self._one_of("task_type", TaskType)
        self._one_of("peft_type", [self.kind])
        self.peft_type = self.kind
        for name in (
            "num_virtual_tokens",
            "token_dim",
            "num_transformer_submodules",
            "num_attention_heads",
            "num_layers",
        ):
            self._count(name)

    @property
    def is_prompt_learning(self) -> bool:
        """True: these are prompt methods."""
        return True

    @property
    def size(self) -> str:
        """P, in words."""
        return f"{self.num_virtual_tokens} tokens"

    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)

    def _count(self, name: str, *, needed: bool = False) -> None:
        value = getattr(self, name)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (whole and value >= 1) and (needed or value is not None):
            raise ValueError(
                f"{type(self).__name__}.{name}: expected a whole number of at least 1, "
                f"found {value!r}"
            )

    def _one_of(self, name: str, known: Iterable[Enum], *, needed: bool = False) -> None:
        value, names = getattr(self, name), [str(member.value) for member in known]
        if (value is None and not needed) or value in names:
            return
        raise ValueError(
            f"{type(self).__name__}.{name}: {value!r} is not known{did_you_mean(str(value), names)}"
        )
