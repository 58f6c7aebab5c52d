"""Quantised backbones, by transformers' own configs: weights of 4 or 8 bits that are computed with
as they are.

What is trained (a prompt, low-rank updates, adapters) is no part of the quantised weights, so it
stays as it is; its gradients go through the quantised layers.
"""

from __future__ import annotations

import inspect
import json
import logging
import re
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.quantizers.auto import (
    AUTO_QUANTIZATION_CONFIG_MAPPING,
    AutoHfQuantizer,
    AutoQuantizationConfig,
)
from transformers.utils import logging as transformers_logging

from foreword.common.json_text import check_depth
from foreword.errors import BackboneError, did_you_mean

# It advises a package for faster products on a CPU as soon as it is imported, by PEFT for one.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
FIELD = "backbone.quantization"
_checking = threading.Lock()
"""Warnings are turned off for the whole process while gradients are checked."""
Quantization = Mapping[str, Any]
"""What transformers' quantisation config is made of: `quant_method`, and that method's options."""

_PACKAGES = {
    "bitsandbytes": ("bitsandbytes", "pip install 'foreword[quantize]'"),
    "hqq": ("hqq", "pip install hqq"),
    "quanto": ("optimum.quanto", "pip install optimum-quanto"),
    "torchao": ("torchao", "pip install torchao"),
}
"""What the usual methods need; of the others transformers says it."""

_WHOLE = (torch.int8, torch.uint8, torch.int32)
_WRONG = (
    ImportError,
    RuntimeError,
    ValueError,
    TypeError,
    AssertionError,
    AttributeError,
    NotImplementedError,
)


def plain(quantization: Quantization) -> dict[str, Any]:
    """A mapping as it stands in JSON.

    Raises:
        BackboneError: it has values that JSON has not.
    """
    try:
        check_depth(quantization)
        copied: dict[str, Any] = json.loads(json.dumps(dict(quantization)))
    except (TypeError, ValueError) as error:
        raise BackboneError(
            f"{FIELD}: {error}; give plain values, a type by its name, such as bfloat16"
        ) from error
    return copied


def stored(config: Any) -> dict[str, Any] | None:
    """How a checkpoint says that it is stored, if it is quantised."""
    for one in (config, config.get_text_config(decoder=True)):
        own = getattr(one, "quantization_config", None)
        if own is not None:
            return plain(own if isinstance(own, Mapping) else own.to_dict())
    return None


def of_model(model: PreTrainedModel) -> dict[str, Any] | None:
    """How a model's weights are quantised; None where they are plain numbers, as those are that
    transformers itself unpacked from a GGUF file."""
    own = stored(model.config)
    if own is not None and own.get("quant_method") == "gguf":
        weights = (one.dtype for one in model.parameters())
        return None if all(dtype.is_floating_point for dtype in weights) else own
    return own


def is_stored(model: PreTrainedModel) -> bool:
    """Whether a model was loaded from a checkpoint that is stored quantised."""
    return bool(getattr(getattr(model, "hf_quantizer", None), "pre_quantized", False))


def config_of(quantization: Quantization) -> Any:
    """transformers' config for a mapping.

    Raises:
        BackboneError: the method or one of its options is not known, or its package is missing.
    """
    given = plain(quantization)
    method = given.get("quant_method")
    known = {re.sub("^(bitsandbytes)_.*", r"\1", one) for one in AUTO_QUANTIZATION_CONFIG_MAPPING}
    if method not in known:
        raise BackboneError(
            f"{FIELD}.quant_method: {method!r} is not known to transformers"
            f"{did_you_mean(str(method), known)}"
        )
    package, install = _PACKAGES.get(method, ("", ""))
    if package and not _is_there(package):
        raise BackboneError(
            f"{FIELD}: '{method}' is not installed here; {install}, or leave {FIELD} out"
        )
    if method == "bitsandbytes" and not (given.get("load_in_4bit") or given.get("load_in_8bit")):
        raise BackboneError(f"{FIELD}: give load_in_8bit: true or load_in_4bit: true")
    try:
        config = AutoQuantizationConfig.from_dict(given)
    except KeyError as error:
        raise BackboneError(f"{FIELD}.{error.args[0]}: is missing; '{method}' needs it") from error
    except _WRONG as error:
        raise BackboneError(f"{FIELD}: {_first_line(error)}") from error
    options = {*inspect.signature(type(config)).parameters, *config.to_dict()} - {"kwargs"}
    for name in given:
        if name not in options:  # some methods pass over what they do not know
            known = {option for option in options if not option.startswith("_")}
            raise BackboneError(
                f"{FIELD}.{name}: '{method}' has no such option{did_you_mean(name, known)}"
            )
    return config


def check_environment(config: Any, device_map: Any, *, what: str, is_stored: bool) -> None:
    """Let transformers find out whether this machine can do it.

    Args:
        config: a mapping, or transformers' config.
        device_map: where the model goes.
        what: begins the message.
        is_stored: whether the checkpoint has quantised weights already.

    Raises:
        BackboneError: a package is missing, or the device cannot do it.
    """
    try:
        quantizer = AutoHfQuantizer.from_config(config, pre_quantized=is_stored)
        quantizer.validate_environment(device_map=device_map, weights_only=True)
    except _WRONG as error:
        raise BackboneError(f"{what}: {_first_line(error)}") from error


def check_quantised(name: str, model: PreTrainedModel, quantization: Quantization) -> None:
    """Raise BackboneError where a method found nothing in the model that it can quantise."""
    if not any(map(is_quantised, [*model.parameters(), *model.buffers()])):
        raise BackboneError(
            f"{FIELD}: '{quantization['quant_method']}' quantised no weight of '{name}' "
            f"({model.config.model_type}): it knows none of its layers. bitsandbytes knows more"
        )


@contextmanager
def converting(name: str, dtype: str) -> Iterator[None]:
    """Say why weights could not be converted, which transformers writes into its log alone."""
    heard = _Heard()
    logger = transformers_logging.get_logger("transformers")
    level, handlers = logger.level, list(logger.handlers)
    logger.handlers = [heard]
    logger.setLevel(logging.WARNING)
    try:
        yield
    except RuntimeError as error:
        reasons = re.findall(r"^\w*(?:Error|Exception)\b(?:: (.+))?$", heard.text, re.MULTILINE)
        if not reasons:
            raise
        raise BackboneError(
            f"{FIELD}: the weights of '{name}', loaded as {dtype}, cannot be quantised like this"
            f"{f': {reasons[0].strip()}' if reasons[0] else ''}; take other options, or "
            "backbone.dtype bfloat16"
        ) from error
    finally:
        logger.setLevel(level)
        logger.handlers = handlers
    # It says at each call of each layer that it computes in float16.
    logging.getLogger("bitsandbytes.autograd").setLevel(logging.ERROR)


def keep_gradients(model: PreTrainedModel) -> None:
    """On CPUs with bfloat16 units, bitsandbytes packs weights of 4 bits anew in the first pass
    without gradients, for a kernel that has none; from then on they would be cut off in silence."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def check_gradients(model: PreTrainedModel, quantization: Quantization) -> None:
    """Make sure that gradients go through quantised layers: those of some methods cut them off, or
    round them away, and what is left of the gradient is wrong.

    A linear layer f with the gradient g of |f(x) - f(0)|² / 2 has g·x = |f(x) - f(0)|².

    Raises:
        BackboneError: they do not.
    """
    seen: set[tuple[type, ...]] = set()
    for module in model.modules():
        tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        width = getattr(module, "in_features", None)
        kind = (type(module), *{type(tensor) for tensor in tensors})
        if width is None or kind in seen or not any(map(is_quantised, tensors)):
            continue
        seen.add(kind)
        if not 0.5 < _return(module, width, tensors[0].device, model.dtype) < 1.5:
            raise BackboneError(
                f"{FIELD}: nothing can be trained through layers that "
                f"'{quantization['quant_method']}' quantised like this: their gradient is not that "
                "of what they compute. Take a method that quantises weights alone, not activations"
            )


def whole(layer: nn.Module) -> Tensor:
    """A linear layer's weight as numbers that can be added to: `[out, in]` where it is quantised.

    bitsandbytes' 4 bits come back in the type that was quantised, its 8 bits in float32.

    Raises:
        BackboneError: its method cannot say what its numbers stand for.
    """
    weight: Any = layer.weight
    with torch.no_grad():
        made = weight.detach() if not is_quantised(weight) else _whole(layer, weight)
    assert isinstance(made, Tensor), "a linear layer"
    return made


def _whole(layer: nn.Module, weight: Any) -> Any:
    state = getattr(weight, "quant_state", None)
    if state is not None:
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(weight.data, state)
    scale = getattr(weight, "SCB", None)  # moves to the layer's state in the first pass
    scale = getattr(getattr(layer, "state", None), "SCB", None) if scale is None else scale
    if scale is not None and weight.dtype == torch.int8:
        return weight.data.float() * (scale.float()[:, None] / 127)
    try:
        if type(weight.data) is Tensor:  # its numbers say nothing without a layer's own scales
            raise ValueError(f"of {str(weight.dtype).removeprefix('torch.')}")
        return weight.dequantize().detach()
    except _WRONG as error:
        raise BackboneError(
            f"{FIELD}: weights of {type(layer).__name__} like this cannot be made whole again "
            f"({_first_line(error)}); take bitsandbytes or torchao"
        ) from error


def tensors_of(module: nn.Module) -> list[Tensor]:
    """What a quantised layer keeps beside its parameters and buffers, such as its scales."""
    kept: list[Tensor] = []
    objects = [value for value in vars(module).values() if _is_state(value)]
    seen: set[int] = set()
    while objects:
        value = objects.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        for inner in vars(value).values():
            if isinstance(inner, Tensor):
                kept.append(inner)
            elif _is_state(inner):
                objects.append(inner)
    return kept


def _is_state(value: Any) -> bool:
    return type(value).__module__.startswith("bitsandbytes.") and hasattr(value, "__dict__")


def _return(module: nn.Module, width: int, device: torch.device, dtype: torch.dtype) -> float:
    """g·x over |f(x) - f(0)|²: 1 where the gradient is right."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, width, generator=generator).to(device, dtype).requires_grad_()
    with _checking, torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about what is found out here
        y = module(x)
        with torch.no_grad():
            change = (y - module(torch.zeros_like(x))).double()
        if not y.requires_grad:
            return 0.0
        (gradient,) = torch.autograd.grad((y.double() * change).sum(), x, allow_unused=True)
        if gradient is None:
            return 0.0
    return float((gradient.double() * x.detach()).sum() / change.square().sum())


def is_quantised(tensor: Tensor) -> bool:
    """Whether a tensor holds numbers that stand for others, or is of a class that does."""
    if type(tensor.data) is not Tensor or getattr(tensor, "quant_state", None) is not None:
        return True
    small = tensor.dtype in _WHOLE or (tensor.is_floating_point() and tensor.element_size() < 2)
    return small and tensor.ndim >= 2


def _is_there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # of the package that it is in
        return False


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class _Heard(logging.Handler):
    """What was said."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.text += record.getMessage() + "\n"
