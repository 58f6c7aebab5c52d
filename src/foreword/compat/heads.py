"""The head of PEFT's adapter as one of ours: what stands between a model's states and its answer.

PEFT stores the modules it trained beside a prompt or LoRA. What else stands before them in
transformers' classes is the base model's, and differs by family: only what is known here to be a
linear layer, or a layer with tanh before it, is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from foreword.backbone import Backbone, reads_spans_off_it, stored_pooler
from foreword.compat.adapter import WEIGHTS, Adapter
from foreword.compat.adapter_head import AdapterHead, Layer
from foreword.compat.head_kinds import HEADS, PROBLEMS, HeadKind, of_problem
from foreword.errors import ArtifactError, argument, did_you_mean
from foreword.names import ANSWERS
from foreword.recipe import HeadSpec

OTHERWISE = {
    "distilbert": "a layer with ReLU",
    "electra": "a layer with GELU",
    "modernbert": "a layer with GELU and a norm",
}
DENSE_NAMES = {
    f"classifier.{layer}.{part}" for layer in ("dense", "out_proj") for part in ("weight", "bias")
}


def read_head(
    adapter: Adapter,
    backbone: Backbone,
    labels: Sequence[str] | None = None,
    problem: str | None = None,
) -> AdapterHead | None:
    """The head that goes with an adapter; None where its answer is a text.

    Args:
        adapter: what PEFT saved.
        backbone: what it was trained on.
        labels: what its outputs are called; the base model's config says it otherwise.
        problem: what transformers calls the problem of a sequence classifier; the base model's
            config, or the number of outputs, says it otherwise.

    Raises:
        ArtifactError: it is not there, does not fit the backbone, or cannot be held exactly.
    """
    kind = HEADS.get(adapter.config.task_type)
    if problem is not None and (kind is None or not kind.of_one_state):
        raise ArtifactError(
            f"{adapter.folder}: {adapter.config.task_type} is no sequence classifier; leave "
            f"{argument('--problem-type')} out"
        )
    if kind is None:
        if labels:
            raise ArtifactError(
                f"{adapter.folder}: {adapter.config.task_type} writes texts and has no labels; "
                f"leave {argument('--labels')} out"
            )
        return None
    if backbone.geometry.kind == "encoder-decoder":
        raise ArtifactError(
            f"{adapter.folder}: {adapter.config.task_type} is answered by a head, which has no "
            f"place on an encoder-decoder here ('{backbone.name}') and fails on one in PEFT; train "
            "it to write the label as text"
        )
    layers = _layers(adapter, backbone, kind)
    if kind.of_one_state:
        kind = _of_problem(adapter, backbone, problem, len(layers[-1][0]))
    _check_shapes(adapter, backbone, layers, kind)
    hidden = layers[0][0].shape[0] if len(layers) > 1 else None
    pooling = _pooling(adapter, backbone) if kind.of_one_state else "auto"
    return AdapterHead(
        kind,
        HeadSpec(hidden=hidden, pooling=pooling),
        layers,
        _labels(adapter, backbone, layers[-1][0].shape[0], labels, kind),
        _reads_pooler(backbone, kind),
    )


def _of_problem(adapter: Adapter, backbone: Backbone, given: str | None, outputs: int) -> HeadKind:
    """A sequence classifier's head."""
    stated = given or getattr(backbone.model.config, "problem_type", None)
    if stated is not None and stated not in PROBLEMS:
        raise ArtifactError(
            f"{adapter.folder}: the problem type {str(stated)[:60]!r} is not known"
            f"{did_you_mean(str(stated), PROBLEMS)}"
        )
    try:
        return of_problem(stated, outputs)
    except ValueError as error:
        raise ArtifactError(
            f"{adapter.folder}: {error}; give the right one with {argument('--problem-type')}"
        ) from error


def _pooling(adapter: Adapter, backbone: Backbone) -> Literal["first", "last", "prompt"]:
    """PEFT leaves it to transformers' class, which takes an encoder's first column for the text's
    first token, whatever stands there."""
    if backbone.geometry.kind == "decoder":
        return "last"
    return "prompt" if adapter.config.in_input else "first"


def _layers(adapter: Adapter, backbone: Backbone, kind: HeadKind) -> tuple[Layer, ...]:
    family, where = backbone.model.config.model_type, adapter.folder / WEIGHTS
    if not adapter.head:
        raise ArtifactError(
            f"{where}: holds no head ({' or '.join(kind.modules)}), without which there is no "
            "answer"
        )
    if backbone.geometry.kind == "encoder":
        if family not in kind.encoders:
            why = OTHERWISE.get(family)
            reason = f"has {why} before its linear one" if why else "is not known"
            raise ArtifactError(
                f"{where}: the {adapter.config.task_type} head of '{family}' {reason}, and what is "
                "taken over exactly is a linear layer, or one after a layer with tanh "
                f"({', '.join(kind.encoders)}); train a head here instead"
            )
        if kind.is_dense(family):
            return _dense(adapter, family)
    if kind.of_places and not reads_spans_off_it(backbone):
        raise ArtifactError(
            f"{adapter.folder}: transformers' question answering class for '{family}' does not "
            f"load the weights of '{backbone.name}' but starts at random, and PEFT saves none of "
            "them: this adapter goes with a model that is not there any more"
        )
    last = _linear(adapter, kind.modules)
    if _reads_pooler(backbone, kind):
        return (_pooler(adapter, backbone), last)
    return (last,)


def _reads_pooler(backbone: Backbone, kind: HeadKind) -> bool:
    family = backbone.model.config.model_type
    return backbone.geometry.kind == "encoder" and kind.reads_pooler(family)


def _linear(adapter: Adapter, modules: Sequence[str]) -> Layer:
    for module in modules:
        weight, bias = (adapter.head.get(f"{module}.{part}") for part in ("weight", "bias"))
        if weight is not None and weight.ndim == 2 and len(adapter.head) == 1 + (bias is not None):
            return weight, weight.new_zeros(weight.shape[0]) if bias is None else bias
    raise ArtifactError(
        f"{adapter.folder / WEIGHTS}: expected the weight [outputs, width] and at most a bias of "
        f"{' or '.join(modules)}, found {_shapes(adapter)}"
    )


def _dense(adapter: Adapter, family: str) -> tuple[Layer, ...]:
    if set(adapter.head) != DENSE_NAMES:
        raise ArtifactError(
            f"{adapter.folder / WEIGHTS}: the sequence head of '{family}' has "
            f"{', '.join(sorted(DENSE_NAMES))}; found {_shapes(adapter)}"
        )
    first, last = (
        (adapter.head[f"classifier.{name}.weight"], adapter.head[f"classifier.{name}.bias"])
        for name in ("dense", "out_proj")
    )
    return first, last


def _pooler(adapter: Adapter, backbone: Backbone) -> Layer:
    pooler = stored_pooler(backbone)
    if pooler is None:
        raise ArtifactError(
            f"{adapter.folder}: its head reads the pooler of '{backbone.name}', but that "
            "checkpoint holds none: transformers made one up at random where it was trained, and "
            f"PEFT did not save it. With {argument('--backbone')} name the "
            "backbone whose pooler it was trained on"
        )
    weight, bias = pooler
    for a, b, scale in adapter.config.updates_of(adapter, is_pooler):
        found_shape = [b.shape[0], a.shape[1]]
        if found_shape != list(weight.shape):
            raise ArtifactError(
                f"{adapter.folder / WEIGHTS}: its update of the pooler is {found_shape}, but the "
                f"pooler of '{backbone.name}' {list(weight.shape)}; name the right one with "
                f"{argument('--backbone')}"
            )
        update = scale * (b.double() @ a.double())
        weight = (weight.double() + update.to(weight.device)).to(weight.dtype)
    return weight, bias


def is_pooler(layer: str) -> bool:
    """Whether a layer's name is a pooler's, which only a head reads."""
    return layer.endswith((".pooler", ".pooler.dense"))


def _check_shapes(
    adapter: Adapter, backbone: Backbone, layers: Sequence[Layer], kind: HeadKind
) -> None:
    width = backbone.hidden_width
    for weight, bias in layers:
        if weight.ndim != 2 or weight.shape[1] != width or bias.shape != weight.shape[:1]:
            raise ArtifactError(
                f"{adapter.folder / WEIGHTS}: its head has {_shapes(adapter)}, but the states of "
                f"'{backbone.name}' are {backbone.hidden_width} wide; name the right one with "
                f"{argument('--backbone')}"
            )
        width = weight.shape[0]
    if kind.of_places and width != 2:
        raise ArtifactError(
            f"{adapter.folder / WEIGHTS}: a span's head has 2 outputs, begin and end, found {width}"
        )
    if width < 2 and kind.answer != "number":
        raise ArtifactError(
            f"{adapter.folder / WEIGHTS}: its head has one output, which tells no tags apart"
        )


def _labels(
    adapter: Adapter, backbone: Backbone, count: int, given: Sequence[str] | None, kind: HeadKind
) -> tuple[str, ...]:
    if not ANSWERS[kind.answer].labelled:
        if given:
            raise ArtifactError(
                f"{adapter.folder}: {adapter.config.task_type} tells "
                f"{ANSWERS[kind.answer].title} and has no labels; leave {argument('--labels')} out"
            )
        return ()
    stated = getattr(backbone.model.config, "id2label", None) or {}
    labels = tuple(given or (str(stated[i]) for i in sorted(stated)))
    if len(labels) != count:
        where = f"{argument('--labels')} has" if given else f"the config of '{backbone.name}' names"
        raise ArtifactError(
            f"{adapter.folder}: its head has {count} outputs, but {where} {len(labels)} labels "
            f"({', '.join(labels)[:200]}); give all of them in their order with "
            f"{argument('--labels')}"
        )
    if len(set(labels)) < count:
        raise ArtifactError(
            f"{adapter.folder}: the labels {', '.join(labels)[:200]} are not all different; give "
            f"them with {argument('--labels')}"
        )
    return labels


def _shapes(adapter: Adapter) -> str:
    return str({name: list(t.shape) for name, t in sorted(adapter.head.items())})[:300]
