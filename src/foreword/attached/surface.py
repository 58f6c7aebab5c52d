"""What loops ask of a model beside a forward pass: settings, sizes, devices, checkpointing."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedModel

from foreword.attached.heads import OwnHead
from foreword.backbone import Backbone, devices
from foreword.backbone.weights.restoring import Snapshot
from foreword.errors import UserError
from foreword.methods import MethodChoice
from foreword.tuned import TunedModel

OF_THE_MODEL = (
    "hf_device_map",
    "loss_type",
    "prepare_decoder_input_ids_from_labels",
    "quantization_method",
)
"""Attributes that loops ask a model for, and that are those of the model below the prompt."""


class Surface(nn.Module):
    """A prompt on a model that is no submodule.

    Args:
        tuned: the prompt on its backbone.
        method: the method's options.
        before: the model as it was before.
        head: the model's own head, where one is trained beside the prompt.
    """

    def __init__(
        self,
        tuned: TunedModel,
        method: MethodChoice,
        before: Snapshot,
        head: OwnHead | None = None,
    ) -> None:
        super().__init__()
        self.prompt = tuned
        self.head = nn.ModuleDict({} if head is None else head.modules).requires_grad_()
        self.told = head
        self.method = method
        self.warnings_issued: dict[str, bool] = {}
        self.model_tags: list[str] = []
        self._before: Snapshot | None = before
        self._recomputing = False

    @property
    def config(self) -> Any:
        """The model's own."""
        return self.prompt.backbone.model.config

    @property
    def generation_config(self) -> Any:
        """The model's own."""
        return self.prompt.backbone.model.generation_config

    @generation_config.setter
    def generation_config(self, settings: GenerationConfig) -> None:
        self.prompt.backbone.model.generation_config = settings

    @property
    def name_or_path(self) -> str:
        """Where the model was loaded from."""
        return str(self.config.name_or_path)

    @property
    def main_input_name(self) -> str:
        """The name of what the model reads."""
        return "input_ids"

    @property
    def device(self) -> torch.device:
        """Where the model takes its inputs."""
        return self.prompt.backbone.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the model's weights; a prompt has float32 at least."""
        own_dtype: torch.dtype = self.prompt.backbone.model.dtype
        return own_dtype

    @property
    def accepts_loss_kwargs(self) -> bool:
        """Whether the model's own loss is told how many tokens all batches of a step have."""
        model = self.prompt.backbone.model
        if hasattr(model, "accepts_loss_kwargs"):
            return bool(model.accepts_loss_kwargs)
        kinds = {p.kind for p in inspect.signature(model.forward).parameters.values()}
        return inspect.Parameter.VAR_KEYWORD in kinds

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether layers are computed again for the backward pass."""
        return self._recomputing

    is_activation_checkpointing = is_gradient_checkpointing

    def gradient_checkpointing_enable(
        self,
        gradient_checkpointing_kwargs: Mapping[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Compute each layer again for the backward pass instead of keeping what it computes.

        Args:
            gradient_checkpointing_kwargs: `use_reentrant` must be false, as it is by default.
            every_n_layers: 1: every layer does it.
            offload: must be false.

        Raises:
            BackboneError: the family cannot do it.
            UserError: another way of doing it is asked for.
        """
        options = dict(gradient_checkpointing_kwargs or {})
        if options.pop("use_reentrant", False) or options or every_n_layers != 1 or offload:
            raise UserError(
                "gradient_checkpointing_kwargs: beside a prompt every layer is computed again, "
                "without re-entering autograd; leave all but `use_reentrant: false` out"
            )
        self._backbone().check_trainable(recomputing=True)
        self._recomputing = True

    def gradient_checkpointing_disable(self) -> None:
        """Keep what layers compute."""
        self._recomputing = False

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: Mapping[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """`gradient_checkpointing_enable` under the name of later versions of transformers."""
        self.gradient_checkpointing_enable(activation_checkpointing_kwargs, every_n_layers, offload)

    activation_checkpointing_disable = gradient_checkpointing_disable

    def can_generate(self) -> bool:
        """Whether the model writes."""
        return bool(self.prompt.backbone.model.can_generate())

    def get_input_embeddings(self) -> nn.Module:
        """The model's own."""
        table: nn.Module = self.prompt.backbone.model.get_input_embeddings()
        return table

    def get_output_embeddings(self) -> nn.Module | None:
        """The model's own."""
        layer: nn.Module | None = self.prompt.backbone.model.get_output_embeddings()
        return layer

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """How many numbers the prompt is made of, and the model, too, unless the trained ones alone
        are asked for."""
        own = sum(p.numel() for p in self.parameters() if p.requires_grad)
        model = self.prompt.backbone.model
        below = 0 if only_trainable else model.num_parameters(exclude_embeddings=exclude_embeddings)
        return own + int(below)

    def add_model_tags(self, tags: list[str] | str) -> None:
        """Keep tags for a model card."""
        new = [tags] if isinstance(tags, str) else tags
        self.model_tags += [tag for tag in new if tag not in self.model_tags]

    def release(self) -> PreTrainedModel:
        """Give the model back as it was; this one answers no more."""
        self._backbone()
        assert self._before is not None, "it is attached"
        model = self._before.model
        self._before.restore()
        self._before = None
        return model

    def _backbone(self) -> Backbone:
        if self._before is None:
            raise UserError("the prompt was detached from its model; attach it anew")
        return self.prompt.backbone

    def _apply(self, fn: Any, recurse: bool = True) -> Surface:
        """What moves or casts the prompt does so with the model below, too."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self._before is None:
            return self
        below = {self._before.model, self.prompt.backbone.model}
        for model in below:
            if not devices.is_spread(model):
                model._apply(fn)
        return self

    def _get_name(self) -> str:
        """The model's class, by which loops tell what labels mean."""
        return type(self.prompt.backbone.model).__name__

    def _replicate_for_data_parallel(self) -> Any:
        raise UserError(
            "nn.DataParallel: copies a model to several GPUs within one process, which is not done "
            "with a prompt; start a process for each GPU (`accelerate launch`, `torchrun`)"
        )

    def __getattr__(self, name: str) -> Any:
        if name in OF_THE_MODEL:
            return getattr(self.prompt.backbone.model, name)
        return super().__getattr__(name)
