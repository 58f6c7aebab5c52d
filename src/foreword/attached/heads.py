"""transformers' own heads on encoders: trained beside a prompt, and kept as a head of an artifact.

A head is taken where an artifact can hold it exactly: a linear layer, or one after a layer with
tanh.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.auto import modeling_auto as auto

from foreword.axes.readout import Readout
from foreword.backbone import Backbone, Call, stored_pooler
from foreword.compat.adapter_head import AdapterHead, Layer
from foreword.compat.head_kinds import SEQUENCES, TOKENS, HeadKind, of_problem
from foreword.compat.heads import OTHERWISE
from foreword.errors import UserError
from foreword.recipe import HeadSpec, TaskId

KINDS = {"ForSequenceClassification": SEQUENCES, "ForTokenClassification": TOKENS}
"""How the names of transformers' classes end -> their heads."""


class ByTheModel(Readout):
    """The answer is what a transformers model's own head gives; it has no loss here."""

    kind: ClassVar[str] = "transformers"

    def loss(self, backbone: Backbone, call: Call) -> Tensor:
        """There is none: the model's own forward pass has it."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class OwnHead:
    """A transformers model's own head.

    Attributes:
        kind: what it tells, and how it reads.
        modules: what stands beside the model's body, by name.
        labels: in the order of its outputs; none where it tells a number.
    """

    kind: HeadKind
    modules: dict[str, nn.Module]
    labels: tuple[str, ...]

    def kept(self, backbone: Backbone, *, in_its_input: bool) -> AdapterHead:
        """The head as an artifact has it.

        Args:
            backbone: the model below.
            in_its_input: whether virtual tokens have columns, the first of which transformers'
                heads then take for the first token of a text.
        """
        config, classifier = backbone.model.config, self.modules["classifier"]
        family, kind = config.model_type, self.kind
        if kind.of_one_state:  # transformers notes in the config what the first batch shows
            kind = of_problem(config.problem_type, config.num_labels)
        layers: tuple[Layer, ...]
        if self.kind.is_dense(family):
            layers = (_layer(classifier.dense), _layer(classifier.out_proj))
        elif self.kind.reads_pooler(family):
            pooler = stored_pooler(backbone)
            assert pooler is not None, "the model's class makes one"
            layers = (pooler, _layer(classifier))
        else:
            layers = (_layer(classifier),)
        hidden = layers[0][0].shape[0] if len(layers) > 1 else None
        spec = HeadSpec(hidden=hidden)
        if self.kind.of_one_state:
            spec = HeadSpec(hidden=hidden, pooling="prompt" if in_its_input else "first")
        return AdapterHead(kind, spec, layers, self.labels, self.kind.reads_pooler(family))

    def go_on(self, backbone: Backbone, stored: Mapping[str, Tensor], task: TaskId) -> str:
        """Take the head of an artifact, where it is the same one; returns why it is not.

        Args:
            backbone: the model below.
            stored: the tensors of the artifact's head, by name.
            task: what the artifact is asked.
        """
        if not task.has_head:
            return "the artifact has none"
        if task.answer != self.kind.answer or set(task.labels) != set(self.labels):
            return f"the artifact's tells {', '.join(task.labels)[:100] or task.answer}"
        names = sorted(name for name in stored if name.endswith(".weight"))
        layers = [(stored[name], stored[f"{name.removesuffix('weight')}bias"]) for name in names]
        own = self.kept(backbone, in_its_input=False).layers
        if [weight.shape for weight, _ in layers] != [weight.shape for weight, _ in own]:
            return "the artifact's has other layers"
        order = [task.labels.index(label) for label in self.labels]
        weight, bias = layers.pop()
        layers.append((weight[order], bias[order]))
        linear = [
            module
            for child in self.modules.values()
            for module in child.modules()
            if isinstance(module, nn.Linear)
        ]
        below = len(own) - len(linear)
        for (weight, _), (frozen, _) in zip(layers[:below], own[:below], strict=True):
            if not torch.equal(weight.to(frozen), frozen):
                return "the pooler below it is another"
        with torch.no_grad():
            for layer, (weight, bias) in zip(linear, layers[below:], strict=True):
                layer.weight.copy_(weight)
                if layer.bias is not None:
                    layer.bias.copy_(bias)
        return ""


def own_head(model: PreTrainedModel) -> OwnHead | None:
    """The head of a model that is no language model; None where the model writes.

    The model gets copies of the head's modules, which are then trained in their place.

    Raises:
        UserError: the model has a head that an artifact cannot hold, or reads nothing off.
    """
    name, config = type(model).__name__, model.config
    if config.is_encoder_decoder or model.can_generate():
        return None
    kind = next((known for ending, known in KINDS.items() if name.endswith(ending)), None)
    if kind is None:
        raise UserError(
            f"model: {name} neither writes text nor tells labels or tags; give a decoder or an "
            f"encoder-decoder that writes, or an encoder of a class {' or '.join(KINDS)}"
        )
    family = config.model_type
    if family not in kind.encoders:
        decoder = type(config) in auto.MODEL_FOR_CAUSAL_LM_MAPPING
        why = OTHERWISE.get(family, "its family is not known")
        why = f"has {why} before its linear layer" if family in OTHERWISE else why
        if decoder and type(config) not in auto.MODEL_FOR_MASKED_LM_MAPPING:
            why = "a decoder's head stands on the last token, which it tells by the padding token"
        raise UserError(
            f"model: the head of {name} has no place in an artifact ({why}); those of "
            f"{', '.join(kind.encoders)} have, and a recipe trains a head of foreword's own on "
            "others (task.data.label)"
        )
    if kind.of_one_state:
        try:
            kind = of_problem(config.problem_type, config.num_labels)
        except ValueError as error:
            raise UserError(f"model: {name}: {error}") from error
    if kind.answer != "number" and config.num_labels < 2:
        raise UserError(
            f"model: {name} has {config.num_labels} outputs; a head here tells at least two "
            "labels or tags apart"
        )
    beside = {key: child for key, child in model.named_children() if child is not model.base_model}
    for key, child in beside.items():
        beside[key] = copy.deepcopy(child)
        setattr(model, key, beside[key])
    outputs = 0 if kind.answer == "number" else config.num_labels
    labels = tuple(str(config.id2label[number]) for number in range(outputs))
    return OwnHead(kind, beside, labels)


def _layer(linear: Tensor | nn.Module) -> Layer:
    assert isinstance(linear, nn.Linear), "the families are known"
    weight = linear.weight.detach()
    bias = torch.zeros_like(weight[:, 0]) if linear.bias is None else linear.bias.detach()
    return weight, bias
