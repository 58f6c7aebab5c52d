"""Where a training runs, through Accelerate: device, precision, processes, trackers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import ProjectConfiguration
from torch import Tensor

from foreword.backbone import has_units
from foreword.errors import UserError
from foreword.training.sharding import Sharding

_TRACKERS: dict[str, tuple[tuple[str, ...], str]] = {
    "none": ((), ""),
    "tensorboard": (("tensorboard", "tensorboardX"), "pip install 'foreword[trackers]'"),
    "wandb": (("wandb",), "pip install wandb"),
    "mlflow": (("mlflow",), "pip install mlflow"),
}
"""The trackers that a recipe may name: packages of which one must be there, and how to get it."""


def settled_precision(precision: str, dtype: str, device: str) -> str:
    """`training.precision`, where "auto" is bfloat16 on a device that has units for it.

    Args:
        precision: as the recipe has it.
        dtype: the type of the backbone's weights, or `backbone.dtype`; where that is not float32,
            "auto" leaves the arithmetic to them, whatever type `backbone.dtype: auto` comes to.
        device: its type.
    """
    if precision != "auto":
        return precision
    return "bfloat16" if dtype == "float32" and has_units("bfloat16", device) else "float32"


@dataclass(frozen=True, eq=False)
class Hardware:
    """An accelerator and the few things that the loop asks of it.

    Attributes:
        accelerator: Accelerate's.
        sharding: how the backbone is dealt out over the processes; None: each has it whole.
    """

    accelerator: Any
    sharding: Sharding | None = None

    @classmethod
    def of(
        cls,
        device: str,
        precision: str = "float32",
        *,
        tracker: str = "none",
    ) -> Hardware:
        """Set up a device ("cpu", "cuda", "mps") and, if wished, a tracker for `track` to start.

        Args:
            device: its type.
            precision: of the arithmetic: `training.precision`, settled (`settled_precision`).
            tracker: its name.

        Raises:
            UserError: the device is not there, the tracker is not installed, or the launch asks
                for something that is not done here.
        """
        sharding = Sharding.asked()
        available = {
            "cpu": True,
            "cuda": torch.cuda.is_available(),
            "mps": torch.backends.mps.is_available(),
        }
        if not available.get(device, False):
            there = ", ".join(name for name, is_there in available.items() if is_there)
            raise UserError(f"device '{device}' is not available here; there is: {there}")
        packages, install = _TRACKERS[tracker]
        if packages and not any(map(find_spec, packages)):
            raise UserError(
                f"training.tracker: '{tracker}' is not installed here; {install}, or set "
                "training.tracker to none"
            )
        # Accelerate keeps its settings for the whole process and refuses other ones later.
        AcceleratorState._reset_state()
        with nullcontext() if sharding is None else sharding.told_of():
            PartialState(cpu=device == "cpu")  # chooses how processes speak
        with nullcontext() if sharding is None else sharding.apart():
            try:
                accelerator = Accelerator(
                    cpu=device == "cpu",
                    mixed_precision="bf16" if precision == "bfloat16" else "no",
                    log_with=None if tracker == "none" else tracker,
                    project_config=ProjectConfiguration(logging_dir="."),  # until `track` knows
                )
            except (ValueError, ImportError) as error:
                raise UserError(
                    f"training.tracker '{tracker}' or precision '{precision}' cannot be used: "
                    f"{error}"
                ) from error
        return cls(accelerator, sharding)

    def track(self, folder: Path, name: str, config: dict[str, str]) -> None:
        """Start the tracker, if there is one.

        TensorBoard and Weights & Biases write below `folder`; MLflow where it is set up to.

        Raises:
            UserError: it cannot be started.
        """
        if not self.accelerator.log_with:
            return
        self.accelerator.project_configuration.logging_dir = str(folder / "tensorboard")
        options = {"wandb": {"dir": str(folder)}}
        try:
            self.accelerator.init_trackers(name, config=config, init_kwargs=options)
        except Exception as error:  # each tracker has exceptions of its own
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"training.tracker: cannot be started: {first}") from error

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Put this accelerator's settings back after other ones were set up in this block."""
        before = dict(AcceleratorState._shared_state)
        try:
            yield
        finally:
            AcceleratorState._reset_state()
            AcceleratorState._shared_state.update(before)

    @property
    def device(self) -> torch.device:
        """This process's device."""
        device: torch.device = self.accelerator.device
        return device

    @property
    def precision(self) -> str:
        """Of the arithmetic."""
        return "bfloat16" if self.accelerator.mixed_precision == "bf16" else "float32"

    @property
    def processes(self) -> int:
        """How many processes train together."""
        return int(self.accelerator.num_processes)

    @property
    def rank(self) -> int:
        """This process's number, from 0."""
        return int(self.accelerator.process_index)

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes."""
        return bool(self.accelerator.is_main_process)

    def sum(self, value: Tensor) -> Tensor:
        """A number summed over all processes."""
        if self.processes == 1:
            return value
        total: Tensor = self.accelerator.reduce(value, reduction="sum")
        return total

    def any(self, value: int | None) -> bool:
        """Whether any process gives a number that is not 0; all get the same answer."""
        if self.processes == 1:
            return bool(value)
        return bool(self.sum(torch.tensor(float(value or 0), device=self.device)).item())

    def log(self, values: dict[str, float], step: int) -> None:
        """Tell the tracker."""
        self.accelerator.log(values, step=step)

    def wait(self) -> None:
        """Until every process is here."""
        self.accelerator.wait_for_everyone()

    def close(self) -> None:
        """Finish the trackers."""
        self.accelerator.end_training()
