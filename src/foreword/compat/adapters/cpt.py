"""CPT in PEFT's format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from foreword.backbone import Backbone
from foreword.compat.adapter import adapter
from foreword.compat.adapters.virtual_tokens import InputTokens
from foreword.compat.configs import PromptLearningConfig
from foreword.compat.peft_types import PeftType, TaskType
from foreword.errors import UserError
from foreword.methods import CPT, MethodChoice
from foreword.methods.cpt import Bounded

Radius = Annotated[float, Field(ge=0, le=1e6, strict=True)]
TokenId = Annotated[int, Field(ge=0, le=2**31, strict=True)]
TokenType = Annotated[int, Field(ge=0, le=2**20, strict=True)]


@dataclass
class CPTConfig(PromptLearningConfig):
    """Configuration of CPT (Blau et al. 2024): `num_virtual_tokens` are as many as its tokens.

    Attributes:
        cpt_token_ids: the context's tokens; [0] if not given.
        cpt_mask: PEFT keeps it and reads it nowhere; ones if not given.
        cpt_tokens_type_mask: of each token 4k + 1 for the template of example k, 2 for its content,
            3 for the answer's template, 4 for the label; 0 for what neither moves nor is predicted.
            Ones if not given.
        opt_weighted_loss_type: decay: labels weigh the less the farther from the input they are.
        opt_loss_decay_factor: by how much from one example to the one before.
        opt_projection_epsilon: how far a token of an example's content may move, at width 2048.
        opt_projection_format_epsilon: the same of a token of the template.
        tokenizer_name_or_path: whose tokens they are.
    """

    kind: ClassVar[PeftType] = PeftType.CPT

    cpt_token_ids: list[int] | None = None
    cpt_mask: list[int] | None = None
    cpt_tokens_type_mask: list[int] | None = None
    opt_weighted_loss_type: Literal["none", "decay"] | None = "none"
    opt_loss_decay_factor: float | None = 1.0
    opt_projection_epsilon: float | None = 0.1
    opt_projection_format_epsilon: float | None = 0.1
    tokenizer_name_or_path: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task_type != TaskType.CAUSAL_LM:
            raise ValueError(
                f"CPTConfig.task_type: expected '{TaskType.CAUSAL_LM}', found {self.task_type!r}"
            )
        self.cpt_token_ids = self.cpt_token_ids or [0]
        count = len(self.cpt_token_ids)
        self.num_virtual_tokens, self.num_transformer_submodules = count, 1
        self.cpt_mask = self.cpt_mask or [1] * count
        self.cpt_tokens_type_mask = self.cpt_tokens_type_mask or [1] * count
        for name in ("cpt_mask", "cpt_tokens_type_mask"):
            if len(getattr(self, name)) != count:
                raise ValueError(
                    f"CPTConfig.{name}: {len(getattr(self, name))} numbers for {count} tokens of "
                    "cpt_token_ids"
                )
        if self.opt_weighted_loss_type not in ("none", "decay"):
            raise ValueError(
                "CPTConfig.opt_weighted_loss_type: expected 'none' or 'decay', found "
                f"{self.opt_weighted_loss_type!r}"
            )


@adapter
class CPTAdapter(InputTokens):
    """`prompt_embeddings` is `[P, d]`, the context's embeddings with what was added to them."""

    methods = (CPT,)

    peft_type: Literal["CPT"]
    cpt_token_ids: tuple[TokenId, ...]
    cpt_mask: tuple[int, ...] = ()
    cpt_tokens_type_mask: tuple[TokenType, ...]
    opt_weighted_loss_type: Literal["none", "decay"] = "none"
    opt_loss_decay_factor: float = Field(1.0, ge=0, le=1, strict=True)
    opt_projection_epsilon: Radius = 0.1
    opt_projection_format_epsilon: Radius = 0.1
    tokenizer_name_or_path: str | None = Field(None, max_length=4096)

    @field_validator("cpt_token_ids", "cpt_tokens_type_mask")
    @classmethod
    def _one_each(cls, value: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        count = info.data.get("num_virtual_tokens")
        if count is not None and len(value) != count:
            raise ValueError(f"{len(value)} numbers, but num_virtual_tokens is {count}")
        return value

    def method(self, backbone: Backbone) -> MethodChoice:  # noqa: ARG002
        """CPT around the same context."""
        decays = self.opt_weighted_loss_type == "decay"
        shots = max(1, -(-max(self.cpt_tokens_type_mask) // 4))
        return CPT.model_validate(
            {
                "name": "cpt",
                "length": self.num_virtual_tokens,
                "positions": "shift",
                "reparameterization": {
                    "epsilon": self.opt_projection_epsilon,
                    "format_epsilon": self.opt_projection_format_epsilon,
                    "decay": self.opt_loss_decay_factor if decays else 1.0,
                },
                "init": {
                    "shots": min(shots, 1024),
                    "tokens": self.cpt_token_ids,
                    "types": self.cpt_tokens_type_mask,
                },
            }
        )

    @classmethod
    def config_of(cls, source: Path, method: MethodChoice, sizes: dict[str, Any]) -> CPTConfig:
        """The context, too, of which PEFT counts the tokens.

        Raises:
            UserError: the artifact does not say which tokens it started from.
        """
        assert isinstance(method, CPT), "no other method has a context"
        if not method.context.tokens:
            raise UserError(
                f"{source}: method.init has no `tokens`, of which PEFT's format of CPT needs one "
                "for each virtual token; train it by a recipe to export it"
            )
        made_by = method.reparameterization
        bounds: dict[str, Any] = {}
        if isinstance(made_by, Bounded):
            bounds = {
                "opt_weighted_loss_type": "decay",
                "opt_loss_decay_factor": made_by.decay,
                "opt_projection_epsilon": made_by.epsilon,
                "opt_projection_format_epsilon": made_by.format_epsilon,
            }
        return CPTConfig(
            **sizes,
            cpt_token_ids=list(method.context.tokens),
            cpt_tokens_type_mask=list(method.context.types),
            **bounds,
        )
