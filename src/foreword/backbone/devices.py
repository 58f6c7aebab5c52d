"""A model spread over devices by accelerate: `device_map`, as transformers' loading knows it.

Parts may lie on several GPUs, or in the CPU's memory or on the disk, from where they come for each
of their computations. The prompt's tensors follow: each layer takes its own to where it computes.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

from foreword.errors import BackboneError, did_you_mean

FIELD = "backbone.device_map"
DeviceMap = str | Mapping[str, str | int]
"""A rule of transformers' (`auto`, `balanced`, …), or a device by module; "" is the whole model."""


def main_device(device_map: DeviceMap) -> str | None:
    """The type of the device that computes for those parts that only lie in memory or on the disk;
    None where a rule finds it out."""
    if isinstance(device_map, str):
        return None
    places = [torch.device(place) for place in device_map.values() if place not in ("cpu", "disk")]
    return places[0].type if places else "cpu"


def entry(model: PreTrainedModel) -> torch.device:
    """Where a model takes its inputs: where its input embeddings are computed."""
    device: torch.device = model.get_input_embeddings().weight.device
    if device.type != "meta":
        return device
    hook = getattr(model, "_hf_hook", None)  # what is not here comes to the device of this
    for one in getattr(hook, "hooks", (hook,)):
        place = getattr(one, "execution_device", None)
        if place is not None:
            return torch.device(place)
    raise BackboneError(
        f"backbone '{model.config.name_or_path}': its weights are nowhere (device 'meta'); load "
        "them with it"
    )


def is_spread(model: PreTrainedModel) -> bool:
    """Whether accelerate moves what a model's modules take, or their weights."""
    return any(hasattr(module, "_hf_hook") for module in model.modules())


def options(device_map: DeviceMap) -> dict[str, Any]:
    """What `from_pretrained` is told.

    Weights stay on the disk as they are stored; those of which transformers makes others go to a
    folder that is gone when the process ends.

    Raises:
        BackboneError: a device is not here, or it is neither a rule nor such a mapping.
    """
    if not isinstance(device_map, str) and not (isinstance(device_map, Mapping) and device_map):
        raise BackboneError(
            f"{FIELD}: expected a rule such as 'auto', or a mapping of modules to devices, found "
            f"{device_map!r}"
        )
    check_places(device_map)
    if not isinstance(device_map, str):
        device_map = dict(device_map)
    folder = tempfile.mkdtemp(prefix="foreword-offload-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return {"device_map": device_map, "offload_folder": folder}


def check_device(device: str | torch.device) -> None:
    """Raise BackboneError where a device is not here."""
    if device == "disk" or not _there(device):
        raise BackboneError(
            f"device: '{device}' is not here; there is: {', '.join(_devices()[:-1])}"
        )


def check_modules(device_map: DeviceMap, model: PreTrainedModel) -> None:
    """Raise BackboneError where a device map names a module that the model does not have."""
    if isinstance(device_map, str):
        return
    known = {name for name, _ in [*model.named_modules(), *model.named_parameters()]}
    for module in device_map:
        if module not in known:
            near = [name for name in known if name and name.count(".") <= module.count(".")]
            raise BackboneError(
                f"{FIELD}: the model has no module '{module}'{did_you_mean(module, near)}"
            )


def check_places(device_map: DeviceMap) -> None:
    """Raise BackboneError where a device of a device map is not here."""
    if isinstance(device_map, str):
        return
    for module, place in device_map.items():
        if not _there(place):
            raise BackboneError(
                f"{FIELD}: device {place!r}, given for '{module}', is not here; there is: "
                f"{', '.join(_devices())}"
            )


def _there(place: str | int | torch.device) -> bool:
    if place in ("cpu", "disk"):
        return True
    try:
        device = torch.device(place)
    except (RuntimeError, TypeError):
        return False
    if device.type == "cuda":
        return (device.index or 0) < torch.cuda.device_count()
    if device.type == "mps":
        return torch.backends.mps.is_available()
    other = torch.accelerator.current_accelerator()
    here = "cpu" if other is None else other.type
    return device.type in ("cpu", here) and not device.index


def _devices() -> list[str]:
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return [*gpus, *(["mps"] if torch.backends.mps.is_available() else []), "cpu", "disk"]
