"""Put a prompt on a transformers model, and take it off again."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, cast

import torch
from pydantic import ValidationError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from foreword.artifacts.manifest import HEAD
from foreword.artifacts.starting import (
    going_on,
    read_source,
    read_trained,
    settled,
    starts_from,
    without_folder,
)
from foreword.artifacts.stored import read_parts
from foreword.attached.heads import ByTheModel, OwnHead, own_head
from foreword.attached.model import AttachedModel
from foreword.attached.saving import UNMEASURED, NoTokenizer, identified
from foreword.axes.injection import starts
from foreword.backbone import Backbone, Tokens, slowness
from foreword.backbone.prompts.attention import Attention
from foreword.backbone.text.tokens import BosRule
from foreword.backbone.weights.restoring import Snapshot
from foreword.common.choices import Data
from foreword.errors import UserError, did_you_mean
from foreword.methods import METHODS, MethodChoice, MethodOptions
from foreword.methods.axes import ArtifactInit
from foreword.recipe.problems import explain
from foreword.recipe.spec import PLAIN
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose
from foreword.tuned.initial import Trained, initialise

MARK = "_foreword_attached"
"""On a model that carries a prompt."""


class _Asked(Data):
    method: MethodChoice


def attach(
    model: PreTrainedModel,
    method: str,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    bos: BosRule = "auto",
    attention: Attention | None = None,
    **options: Any,
) -> AttachedModel:
    """Put a prompt on a transformers model, for a training loop that is not foreword's.

    The model is frozen, and its attention is routed so that virtual tokens can enter; `detach`
    gives it back as it was.

    Args:
        model: a decoder or an encoder-decoder that writes, or an encoder with transformers' own
            head for labels or tags, which is trained, too; as `from_pretrained` loaded it.
        method: the name of a method with a prompt, such as "prefix-tuning".
        tokenizer: the model's; needed where training starts from words, to save, and on an
            encoder-decoder.
        bos: the rule for the beginning token, which an artifact keeps: "auto" is what the tokenizer
            does by itself.
        attention: how attention is computed; what suits the family if not given.
        options: as in the `method` section of a recipe, such as `length=20`, or
            `init={"kind": "artifact", "path": …}` to go on from an artifact; where the start
            answers otherwise than the artifact does, a warning says so.

    Warns:
        UserWarning: there is no GPU, and the processor has no units for the type of the model's
            weights (`from_pretrained` takes the one in which they are stored), so that a step takes
            many times as long.

    Raises:
        UserError: there is no such method or option, it has no prompt, or a prompt is attached
            already.
        BackboneError: the model cannot carry a prompt.
    """
    chosen = _options(method, options)
    _check(model)
    before = Snapshot(model)
    try:
        head = own_head(model)
        tokens = Tokens(cast(PreTrainedTokenizerBase, tokenizer or NoTokenizer()), bos)
        revision = getattr(model.config, "_commit_hash", None)
        backbone = Backbone.wrap(
            model, tokens, revision=revision, sha256=UNMEASURED, attention=attention
        )
        before.restore_generation()
        backbone.check_trainable()
        init = starts_from(chosen)
        chosen = chosen if init is None else going_on(settled(chosen), init)
        tuned = compose(backbone, chosen, None if head is None else ByTheModel())
        trained = None if init is None else _trained(init, tuned, chosen, head, tokenizer)
        initialise(tuned, chosen.init, [], trained=trained)
    except BaseException:
        before.restore()
        raise
    instead = 'load it with dtype="float32", which takes twice the memory'
    stays = not torch.cuda.is_available()  # else it may be moved yet
    slow = slowness(backbone.dtype, backbone.device, "model", instead) if stays else None
    for note in (*(() if slow is None else (slow,)), *(() if trained is None else trained.notes)):
        warnings.warn(note, stacklevel=2)
    setattr(model, MARK, True)
    return AttachedModel(tuned, without_folder(chosen), before, head)


def detach(model: AttachedModel) -> PreTrainedModel:
    """Take a prompt off; returns the model as it was before `attach`.

    Raises:
        UserError: it was detached already.
    """
    return model.release()


def _trained(
    init: ArtifactInit,
    model: TunedModel,
    method: MethodOptions,
    head: OwnHead | None,
    tokenizer: PreTrainedTokenizerBase | None,
) -> Trained:
    """What an artifact gives to start from; the model's own head takes the artifact's."""
    backbone = model.backbone
    if not init.other_backbone:
        backbone = identified(backbone, () if head is None else tuple(head.modules))
    known = tokenizer is not None
    trained = read_trained(init, model, method, backbone=backbone, check_tokenizer=known)
    if head is None:
        return trained
    folder, manifest = read_source(init)
    why = "method.init.head says so"
    if init.head == "auto":
        why = head.go_on(model.backbone, read_parts(folder, manifest)[HEAD], manifest.task)
    notes = trained.notes
    if why:
        notes = (*notes, f"method.init: {folder}: the head stays as the model has it: {why}")
    return replace(trained, notes=notes)


def _options(method: str, options: dict[str, Any]) -> MethodOptions:
    """The method's options.

    Raises:
        UserError: they do not say a method with a prompt.
    """
    if method not in METHODS:
        raise UserError(f"method: there is no '{method}'{did_you_mean(method, METHODS)}")
    with_prompt = [name for name, known in METHODS.items() if known.model_fields["length"].default]
    if method not in with_prompt:
        raise UserError(
            f"method: '{method}' trains no prompt, so there is nothing to attach; choose one of "
            f"{', '.join(with_prompt)}"
        )
    plain = {
        key: {PLAIN[f"method.{key}"]: value}
        for key, value in options.items()
        if isinstance(value, str) and f"method.{key}" in PLAIN
    }
    try:
        section = _Asked.model_validate({"method": {"name": method, **options, **plain}})
    except ValidationError as error:
        raise UserError("\n".join(explain(error, _Asked))) from error
    chosen: MethodOptions = section.method
    if chosen.stands.stands == "between":
        raise UserError(
            "method: virtual tokens between source and target need to know where the source ends, "
            "which a row of input_ids does not say; choose a method that stands before the row "
            "(placement: prefix)"
        )
    if chosen.choice is not None:
        raise UserError(
            f"method: a row of input_ids does not name the prompt that it takes ('{method}' "
            f"chooses by '{chosen.choice.field}'); train it by a recipe (foreword train), or train "
            "one prompt"
        )
    if chosen.enters.predicted:
        raise UserError(
            f"method: '{method}' learns from the labels among its virtual tokens, too, which the "
            "model's own loss leaves out; train it by a recipe (foreword train)"
        )
    if isinstance(chosen.init, starts.ActivationsInit) and chosen.init.examples:
        raise UserError(
            "method.init.examples: there are no training examples here; give init's `text` alone"
        )
    return chosen


def _check(model: PreTrainedModel) -> None:
    """Raise UserError for what no prompt can be attached to."""
    if isinstance(model, AttachedModel) or getattr(model, MARK, False):
        raise UserError(
            "model: carries a prompt already; take it off with foreword.detach(...) first"
        )
    if not isinstance(model, PreTrainedModel):
        raise UserError(
            f"model: expected a transformers model (PreTrainedModel), found {type(model).__name__}"
        )
