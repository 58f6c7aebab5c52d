"""Whether a frozen backbone is dealt out over the processes that train together: as the config
says that `accelerate launch` was given (`distributed_type: FSDP`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from torch import distributed

from foreword.backbone import Backbone, Held
from foreword.errors import UserError
from foreword.methods import MethodOptions

ASKED = "ACCELERATE_USE_FSDP"
"""The variable by which `accelerate launch` says it."""
OTHERS = {
    "ACCELERATE_USE_DEEPSPEED": "DEEPSPEED",
    "ACCELERATE_USE_MEGATRON_LM": "MEGATRON_LM",
}


@dataclass(frozen=True, eq=False)
class Sharding:
    """How weights are dealt out.

    Attributes:
        plugin: Accelerate's options.
    """

    plugin: Any

    @classmethod
    def asked(cls) -> Sharding | None:
        """What the launch asks for; None: every process holds the whole backbone.

        Raises:
            UserError: it asks for something that is not done here.
        """
        for variable, name in OTHERS.items():
            if _on(variable):
                raise UserError(
                    f"accelerate's config: distributed_type: {name} takes over model, optimizer "
                    "and loop, and a frozen backbone with a prompt has no use for that; "
                    "give distributed_type: FSDP with fsdp_version: 2, which deals the backbone out"
                )
        if not _on(ASKED):
            return None
        version = os.environ.get("FSDP_VERSION", "1")
        if version != "2":
            raise UserError(
                f"accelerate's config: fsdp_config.fsdp_version: {version}: a frozen backbone is "
                "dealt out by the second one; set it to 2"
            )
        for field, instead in (
            (
                "cpu_ram_efficient_loading",
                "every process reads the weights, and keeps its share; set it to false",
            ),
            ("activation_checkpointing", "set training.gradient_checkpointing in the recipe"),
        ):
            if _on(f"FSDP_{field.upper()}"):
                raise UserError(f"accelerate's config: fsdp_config.fsdp_{field}: true: {instead}")
        return cls(FullyShardedDataParallelPlugin())

    @contextmanager
    def apart(self) -> Iterator[None]:
        """While it lasts, Accelerate does not know of it: the prompt is every process's own, its
        gradients averaged."""
        before = os.environ.pop(ASKED)
        try:
            yield
        finally:
            os.environ[ASKED] = before

    def check(self, method: MethodOptions) -> None:
        """Raise UserError for a method that a backbone which is dealt out does not serve."""
        if method.moves.kind != "none":
            raise UserError(
                f"method: {method.name} moves weights of the backbone, and the backbone that FSDP "
                "deals out here is frozen; take a prompt or a head, or start without FSDP"
            )
        if method.injection.runs_parts:
            raise UserError(
                f"method: {method.name} runs projections of the backbone apart from their layers, "
                "whose weights FSDP has here only while a layer runs; take prefix-tuning, or start "
                "without FSDP"
            )
        if method.choice is not None:
            raise UserError(
                f"method: {method.name} has several prompts, and processes whose rows take "
                "different ones do not run a backbone that is dealt out in step; start without FSDP"
            )

    def deal_out(self, backbone: Backbone, device: torch.device) -> Held:
        """Give each process its share of a backbone's weights, in place.

        Args:
            backbone: nothing of it moves.
            device: where this process computes.

        Raises:
            BackboneError: it is quantised, lies in several places, or has no list of layers.
        """
        if not distributed.is_initialized():  # one process that nobody else waits for
            backend = "nccl" if device.type == "cuda" else "gloo"
            store = distributed.HashStore()  # type: ignore[attr-defined]
            distributed.init_process_group(backend, store=store, rank=0, world_size=1)
        options: dict[str, Any] = {
            "reshard_after_forward": self.plugin.reshard_after_forward,
            "offload_policy": self.plugin.cpu_offload,
        }
        if self.plugin.mixed_precision_policy is not None:
            options["mp_policy"] = self.plugin.mixed_precision_policy
        return backbone.shard(device, distributed.get_world_size(), options)


def _on(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() in ("true", "1", "yes")
