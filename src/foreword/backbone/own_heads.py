"""What transformers' own classes for labels, tags and spans put on a backbone, or fail to."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers.models.auto import modeling_auto as auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from foreword.backbone.loading import bundled_backbones, stored_folder
from foreword.backbone.model import Backbone
from foreword.backbone.silence import quiet
from foreword.backbone.weights.quantization import whole

NAMES = ("pooler.dense", "pooler")


def stored_pooler(backbone: Backbone) -> tuple[Tensor, Tensor] | None:
    """Weight `[d, d]` and bias `[d]` of the pooler, from the model or from its checkpoint.

    A pooler is a layer with tanh on an encoder's first state. BERT was pretrained with one, and
    transformers' sequence classifiers read it; no readout of foreword does, so a backbone may have
    been loaded without it.
    """
    body = backbone.model.base_model
    for name in NAMES:
        layer = _submodule(body, name)
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            return whole(layer), layer.bias.detach()
    where = str(bundled_backbones().get(backbone.name, backbone.name))
    try:
        folder = stored_folder(where, backbone.revision)
        return None if folder is None else _read(folder, backbone.model.base_model_prefix)
    except (OSError, SafetensorError, ValueError):
        return None


def reads_spans_off_it(backbone: Backbone) -> bool:
    """Whether transformers' class for question answering finds the backbone's weights.

    Some families' (Llama's) call the body by another name, and start it at random without a word.
    """
    model = backbone.model
    known = auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING
    if type(model.config) not in known:
        return False
    prefix: str = known[type(model.config)].base_model_prefix
    return prefix == str(model.base_model_prefix)


@lru_cache(maxsize=32)
def head_of_decoders(family: str, *, of_tokens: bool) -> tuple[str, bool] | None:
    """What transformers' class of a family of decoders calls its head, and whether that has a bias;
    None where there is no such class, or its head is no single linear layer.

    Args:
        family: `model_type`.
        of_tokens: whether the class for tokens is meant, and not that for sequences.
    """
    known = (
        auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING
        if of_tokens
        else auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    )
    if family not in CONFIG_MAPPING or CONFIG_MAPPING[family] not in known:
        return None
    config = CONFIG_MAPPING[family]()
    with torch.device("meta"), quiet():
        model = known[type(config)](config)
    beside = [
        (name, child)
        for name, child in model.named_children()
        if child is not model.base_model and any(True for _ in child.parameters())
    ]
    if len(beside) != 1 or not isinstance(beside[0][1], nn.Linear):
        return None
    name, layer = beside[0]
    return name, layer.bias is not None


def name_of_body(family: str) -> str:
    """What transformers' classes with a head call the model below it; "" where there is none."""
    known = auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    if family not in CONFIG_MAPPING or CONFIG_MAPPING[family] not in known:
        return ""
    return str(known[CONFIG_MAPPING[family]].base_model_prefix)


def _submodule(body: nn.Module, name: str) -> nn.Module | None:
    try:
        return body.get_submodule(name)
    except AttributeError:
        return None


def _read(folder: Path, prefix: str) -> tuple[Tensor, Tensor] | None:
    tensors: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as stored:
            for key in stored.keys():  # noqa: SIM118
                name = key.removeprefix(f"{prefix}.")
                if name.rpartition(".")[0] in NAMES:
                    tensors[name] = stored.get_tensor(key)
    for name in NAMES:
        if {f"{name}.weight", f"{name}.bias"} <= set(tensors):
            return tensors[f"{name}.weight"], tensors[f"{name}.bias"]
    return None
