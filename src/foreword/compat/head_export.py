"""A head of ours as PEFT stores those of transformers' classes.

What stands before the linear layer in such a class is the base model's, so a head goes out where it
does exactly that: a linear layer on a decoder's last token, RoBERTa's layer with tanh before one,
or one behind BERT's own pooler.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from foreword.artifacts.manifest import HEAD, Manifest
from foreword.artifacts.stored import read_parts
from foreword.backbone import head_of_decoders
from foreword.compat.head_kinds import PROBLEMS, TOKENS, HeadKind
from foreword.compat.peft_types import TaskType
from foreword.errors import UserError

READOUTS: dict[str, HeadKind] = {
    "sequence_head": PROBLEMS["single_label_classification"],
    "labels_head": PROBLEMS["multi_label_classification"],
    "number_head": PROBLEMS["regression"],
    "token_head": TOKENS,
}
"""Readout -> the kind of head that does the same in PEFT."""
USUAL = "generation"


@dataclass(frozen=True)
class WrittenHead:
    """A head as PEFT stores it.

    Attributes:
        task_type: what PEFT calls its task.
        tensors: by the names of the modules in transformers' class.
    """

    task_type: TaskType
    tensors: dict[str, Tensor]


def written_head(source: Path, manifest: Manifest, *, in_input: bool = False) -> WrittenHead | None:
    """The head of an artifact; None where it writes texts.

    Args:
        source: the artifact.
        manifest: what it says of itself.
        in_input: whether virtual tokens stand in the input, the first of which transformers'
            classes then take for an encoder's first token.

    Raises:
        UserError: transformers' class for the backbone does not read its answer in this way.
    """
    readout = manifest.axes.get("readout", USUAL)
    if readout == USUAL:
        return None
    kind = READOUTS.get(readout)
    if kind is None:
        raise UserError(
            f"{source}: its readout is {str(readout)[:60]}, for which PEFT's format has no place "
            f"here; {USUAL}, {', '.join(READOUTS)} can be exported"
        )
    if manifest.backbone.kind == "encoder-decoder":
        raise UserError(f"{source}: PEFT fails on heads of encoder-decoders")
    tensors = _scaled(manifest, read_parts(source, manifest)[HEAD])
    decodes = manifest.backbone.kind == "decoder"
    named = _of_decoder if decodes else _of_encoder
    stored = named(source, manifest, kind, tensors, in_input)
    return WrittenHead(TaskType.SEQ_CLS if kind.of_one_state else TaskType.TOKEN_CLS, stored)


def _scaled(manifest: Manifest, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The last layer so that it gives numbers as they stand in the data."""
    task = manifest.task
    if task.answer != "number" or (task.mean, task.deviation) == (0.0, 1.0):
        return tensors
    last = max(tensors, key=lambda name: int(name.split(".")[1])).rpartition(".")[0]
    weight = tensors[f"{last}.weight"]
    bias = tensors.get(f"{last}.bias", weight.new_zeros(len(weight)))
    scaled = {
        f"{last}.weight": weight.double() * task.deviation,
        f"{last}.bias": bias.double() * task.deviation + task.mean,
    }
    return {**tensors, **{name: tensor.to(weight.dtype) for name, tensor in scaled.items()}}


def _of_decoder(
    source: Path,
    manifest: Manifest,
    kind: HeadKind,
    tensors: dict[str, Tensor],
    in_input: bool,  # noqa: ARG001
) -> dict[str, Tensor]:
    family, spec = manifest.backbone.family, manifest.task.head
    known = head_of_decoders(family, of_tokens=not kind.of_one_state)
    if known is None:
        raise UserError(
            f"{source}: transformers has no class with a linear head for '{family}' that tells "
            f"{'a text' if kind.of_one_state else 'words'}"
        )
    if spec.hidden is not None or spec.pooling not in ("auto", "last"):
        raise UserError(
            f"{source}: transformers' head for '{family}' is one linear layer on the last token; "
            "train with task.head as it is by default to export it"
        )
    name, has_bias = known
    bias = tensors.get("layers.0.bias")
    stored = {f"{name}.weight": tensors["layers.0.weight"]}
    if has_bias:
        weight = tensors["layers.0.weight"]
        return {**stored, f"{name}.bias": weight.new_zeros(len(weight)) if bias is None else bias}
    if bias is not None and bias.any():
        why = ""
        if manifest.task.answer == "number" and manifest.task.mean:
            why = ", `standardise: false`"
        raise UserError(
            f"{source}: transformers' head for '{family}' has no bias, but this one has; train "
            f"with `head: {{bias: false}}`{why} in `task` to export it"
        )
    return stored


def _of_encoder(
    source: Path, manifest: Manifest, kind: HeadKind, tensors: dict[str, Tensor], in_input: bool
) -> dict[str, Tensor]:
    family, spec = manifest.backbone.family, manifest.task.head
    if family not in kind.encoders:
        raise UserError(
            f"{source}: the head of transformers' class for '{family}' is none that an artifact "
            f"has; those of {', '.join(kind.encoders)} are"
        )
    if not kind.of_one_state:
        if spec.hidden is not None:
            raise UserError(f"{source}: transformers' head for tags is one linear layer")
        return _under("classifier", tensors, 0)
    first = "prompt" if in_input else "first"
    if spec.pooling not in (first, *(() if in_input else ("auto",))):
        raise UserError(
            f"{source}: its head reads {spec.pooling}, but transformers' class for '{family}' "
            f"reads the first column{', where a virtual token stands' if in_input else ''}; train "
            f"with `task.head.pooling: {first}` to export it"
        )
    if kind.is_dense(family):
        width = tensors["layers.0.weight"].shape
        if spec.hidden is None or width[0] != width[1]:
            raise UserError(
                f"{source}: transformers' class for '{family}' has a layer with tanh as wide as "
                f"the states before the last one; train with `task.head.hidden: {width[1]}` to "
                "export it"
            )
        return {
            **_under("classifier.dense", tensors, 0),
            **_under("classifier.out_proj", tensors, 2),
        }
    if spec.pooler != "frozen" and "peft" not in manifest.data:
        raise UserError(
            f"{source}: transformers' class for '{family}' reads the model's own pooler; train "
            "with `task.head.pooler: frozen` to export it"
        )
    return _under("classifier", tensors, 2)


def _under(module: str, tensors: dict[str, Tensor], layer: int) -> dict[str, Tensor]:
    weight = tensors[f"layers.{layer}.weight"]
    bias = tensors.get(f"layers.{layer}.bias", weight.new_zeros(len(weight)))
    return {f"{module}.weight": weight, f"{module}.bias": bias}


def base_of(manifest: Manifest) -> str | None:
    """How transformers' class below an exported head is made, in Python; None where there is no
    head."""
    kind = READOUTS.get(manifest.axes.get("readout", USUAL))
    if kind is None:
        return None
    labels = dict(enumerate(manifest.task.labels))
    outputs = f"id2label={labels}" if labels else "num_labels=1"
    if not kind.of_one_state:
        return f'AutoModelForTokenClassification.from_pretrained("...", {outputs})'
    problem = next(name for name, known in PROBLEMS.items() if known == kind)
    return (
        f'AutoModelForSequenceClassification.from_pretrained("...", {outputs}, '
        f'problem_type="{problem}")'
    )
