"""Whether a frozen backbone is dealt out over the processes that train together: as the config
says that `accelerate launch` was given (`distributed_type: FSDP` or `DEEPSPEED`)."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar

import torch
from accelerate.utils import DeepSpeedPlugin, FullyShardedDataParallelPlugin
from torch import distributed

from foreword.backbone import Backbone, Held
from foreword.backbone.modules.sharding import Fully, Zero
from foreword.errors import UserError
from foreword.methods import MethodOptions

MEGATRON = "ACCELERATE_USE_MEGATRON_LM"
READS_ALL = "every process reads the weights, and keeps its share; set it to false"
TYPES = "set backbone.dtype and training.precision"


@dataclass(frozen=True, eq=False)
class Sharding(ABC):
    """How weights are dealt out.

    Attributes:
        name: by what.
        variable: by which `accelerate launch` asks for it.
    """

    name: ClassVar[str]
    variable: ClassVar[str]

    @classmethod
    @abstractmethod
    def read(cls) -> Sharding:
        """As the launch's config has it.

        Raises:
            UserError: it asks for something that is not done here.
        """

    @staticmethod
    def asked() -> Sharding | None:
        """What the launch asks for; None: every process holds the whole backbone.

        Raises:
            UserError: it asks for something that is not done here.
        """
        if _on(MEGATRON):
            raise UserError(
                "accelerate's config: distributed_type: MEGATRON_LM takes over model, optimizer "
                "and loop, and a frozen backbone with a prompt has no use for that; "
                "give distributed_type: FSDP with fsdp_version: 2, which deals the backbone out"
            )
        for kind in (FSDP, DeepSpeed):
            if _on(kind.variable):
                return kind.read()
        return None

    @contextmanager
    def apart(self) -> Iterator[None]:
        """While it lasts, Accelerate does not know of it: the prompt is every process's own, its
        gradients averaged."""
        before = os.environ.pop(self.variable)
        try:
            yield
        finally:
            os.environ[self.variable] = before

    @contextmanager
    def told_of(self) -> Iterator[None]:
        """While it lasts, Accelerate sets up how processes speak, by the launch's config."""
        yield

    def check(self, method: MethodOptions) -> None:
        """Raise UserError for a method that a backbone which is dealt out does not serve."""
        if method.moves.kind != "none":
            raise UserError(
                f"method: {method.name} moves weights of the backbone, and the backbone that "
                f"{self.name} deals out here is frozen; take a prompt or a head, or start without "
                f"{self.name}"
            )
        if method.injection.runs_parts:
            raise UserError(
                f"method: {method.name} runs projections of the backbone apart from their layers, "
                f"whose weights {self.name} has here only while a layer runs; take prefix-tuning, "
                f"or start without {self.name}"
            )
        if method.choice is not None:
            raise UserError(
                f"method: {method.name} has several prompts, and processes whose rows take "
                "different ones do not run a backbone that is dealt out in step; start without "
                f"{self.name}"
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
        return self._deal_out(backbone, device)

    @abstractmethod
    def _deal_out(self, backbone: Backbone, device: torch.device) -> Held:
        """The same, where processes know of each other."""


@dataclass(frozen=True, eq=False)
class FSDP(Sharding):
    """By torch's `fully_shard`.

    Attributes:
        plugin: Accelerate's options.
    """

    name: ClassVar[str] = "FSDP"
    variable: ClassVar[str] = "ACCELERATE_USE_FSDP"

    plugin: Any

    @classmethod
    def read(cls) -> FSDP:
        """Of version 2."""
        version = os.environ.get("FSDP_VERSION", "1")
        if version != "2":
            raise UserError(
                f"accelerate's config: fsdp_config.fsdp_version: {version}: a frozen backbone is "
                "dealt out by the second one; set it to 2"
            )
        for field, instead in (
            ("cpu_ram_efficient_loading", READS_ALL),
            ("activation_checkpointing", "set training.gradient_checkpointing in the recipe"),
        ):
            if _on(f"FSDP_{field.upper()}"):
                raise UserError(f"accelerate's config: fsdp_config.fsdp_{field}: true: {instead}")
        return cls(FullyShardedDataParallelPlugin())

    def _deal_out(self, backbone: Backbone, device: torch.device) -> Held:
        options: dict[str, Any] = {
            "reshard_after_forward": self.plugin.reshard_after_forward,
            "offload_policy": self.plugin.cpu_offload,
        }
        if self.plugin.mixed_precision_policy is not None:
            options["mp_policy"] = self.plugin.mixed_precision_policy
        return backbone.shard(device, Fully(distributed.get_world_size(), options))


@dataclass(frozen=True, eq=False)
class DeepSpeed(Sharding):
    """By DeepSpeed's ZeRO, stage 3.

    Attributes:
        zero: `zero_optimization` of DeepSpeed's config.
    """

    name: ClassVar[str] = "DeepSpeed"
    variable: ClassVar[str] = "ACCELERATE_USE_DEEPSPEED"

    zero: Mapping[str, Any]

    @classmethod
    def read(cls) -> DeepSpeed:
        """Of stage 3."""
        if find_spec("deepspeed") is None:
            raise UserError(
                "accelerate's config: distributed_type: DEEPSPEED: it is not installed here; "
                "pip install 'foreword[deepspeed]', or give distributed_type: FSDP"
            )
        try:
            plugin = DeepSpeedPlugin()
        except (OSError, ValueError) as error:
            raise UserError(f"accelerate's config: deepspeed_config: {error}") from error
        config = plugin.deepspeed_config
        zero = _stated(config["zero_optimization"])
        if zero.get("stage") != 3:
            raise UserError(
                f"accelerate's config: deepspeed_config.zero_stage: {zero.get('stage')}: deals out "
                "what moves, and of a frozen backbone nothing does; stage 3 deals out its "
                "weights, so set it to 3"
            )
        if plugin.zero3_init_flag:
            raise UserError(f"accelerate's config: deepspeed_config.zero3_init_flag: {READS_ALL}")
        _refuse_what_recipes_say(config, zero)
        zero.pop("offload_optimizer", None)
        return cls(zero)

    def _deal_out(self, backbone: Backbone, device: torch.device) -> Held:
        if device.type == "cpu":  # asked by DeepSpeed once, when it is imported
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        os.environ.setdefault("LOCAL_RANK", "0")  # which it wants of one process, too
        with redirect_stdout(sys.stderr):  # it prints what it compiles
            return backbone.shard(device, Zero(self.zero))

    @contextmanager
    def told_of(self) -> Iterator[None]:
        """Accelerate does not know of it then, either: it would hand the processes over."""
        with self.apart():
            yield


def _refuse_what_recipes_say(config: Mapping[str, Any], zero: Mapping[str, Any]) -> None:
    """Raise UserError where DeepSpeed's config says what is a recipe's to say, or nobody's."""
    for name, without, instead in (
        ("gradient_accumulation_steps", (1, "auto"), "set training.accumulation"),
        ("gradient_clipping", (None, "auto", 0), "set training.clip"),
        ("optimizer", (None,), "set training.learning_rate and what stands beside it"),
        ("scheduler", (None,), "set training.schedule and training.warmup"),
        ("fp16.enabled", (None, False, "auto"), TYPES),
        ("bf16.enabled", (None, False, "auto"), TYPES),
    ):
        given = _inside(config, *name.split("."))
        if given not in without:
            raise UserError(
                f"accelerate's config: deepspeed_config.{name}: {given}: {instead} in the recipe"
            )
    device = _inside(zero, "offload_optimizer", "device")
    if device not in (None, "none"):
        raise UserError(
            f"accelerate's config: deepspeed_config.offload_optimizer_device: {device}: a prompt's "
            "optimizer is small, and every process's own; set it to none"
        )


def _stated(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options without those that are left to others (`auto`), in parts of them, too."""
    return {
        name: _stated(value) if isinstance(value, Mapping) else value
        for name, value in options.items()
        if value != "auto"
    }


def _inside(config: Mapping[str, Any], *names: str) -> Any:
    """What is said of a name in a part that may not be there; None: nothing."""
    for name in names:
        config = (config or {}).get(name)  # type: ignore[assignment]
    return config


def _on(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() in ("true", "1", "yes")
