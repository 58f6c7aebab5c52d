"""From a prompt on a model to an artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from transformers import PreTrainedTokenizerBase

from foreword.artifacts.artifact import save_artifact
from foreword.artifacts.manifest import Manifest
from foreword.attached.heads import OwnHead
from foreword.axes.readout import Head, Readout
from foreword.backbone import Backbone, bundled_backbones
from foreword.backbone.loading import stored_folder
from foreword.backbone.weights import gguf
from foreword.backbone.weights.gguf import stored_sha256
from foreword.backbone.weights.hashing import first_difference, hash_module
from foreword.common import files
from foreword.errors import UserError
from foreword.methods import MethodChoice
from foreword.recipe import DecodingSpec, TaskId
from foreword.recipe.problems import explain
from foreword.tasks import task_of
from foreword.tuned import TunedModel

UNMEASURED = "0" * 64
"""The hash of a backbone that nobody asked for yet: it reads all weights."""


class NoTokenizer:
    """Stands where a tokenizer would, and says so when one is needed."""

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Nothing becomes tokens."""
        raise self._missing()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name) if name.startswith("__") else self._missing()

    @staticmethod
    def _missing() -> UserError:
        return UserError(
            "tokenizer: is needed here (to start from words, to save, on an encoder-decoder), and "
            "none was given; give attach() the model's `tokenizer`"
        )


def save(
    folder: Path,
    model: TunedModel,
    method: MethodChoice,
    own: OwnHead | None = None,
    *,
    name: str | None = None,
    input: str | Sequence[Mapping[str, str]] = "{text}",
    target: str = "{reference}",
    messages: str | None = None,
    decoding: Mapping[str, Any] | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    state_dict: Mapping[str, Any] | None = None,  # noqa: ARG001
    save_function: Any = None,  # noqa: ARG001
) -> Manifest:
    """Write a prompt as an artifact.

    Args:
        folder: a folder that is empty, or that is not there yet.
        model: the prompt on its model.
        method: the method's options.
        own: the model's own head, where one was trained beside the prompt.
        name: what the artifact is called; as the folder is if not given.
        input: the template of what was read in training, as `task.input` of a recipe.
        target: that of what was written.
        messages: the column with conversations, where those were trained on, by the tokenizer's own
            chat template; instead of `input` and `target`.
        decoding: how it decodes, as that section of a recipe.
        tokenizer: the model's, if `attach` was given none.
        state_dict, save_function: what accelerate gives `save_pretrained`. A prompt is whole in
            every process, and is written as safetensors, so neither has a say.

    Raises:
        UserError: see `AttachedModel.save_pretrained`.
    """
    backbone, stated, head, moved = model.backbone, {}, None, 0
    if own is not None:
        moved = sum(p.numel() for module in own.modules.values() for p in module.parameters())
        head = own.kept(backbone, in_its_input=bool(model.placement.columns))
        stated = head.stated(backbone)
    if messages is not None:
        if own is not None:
            raise UserError(
                f"messages: '{messages}' names conversations, after which a text is written, but "
                "this model has a head that writes none; leave it out"
            )
        stated = {"answer": "turns", "messages": messages}
    try:
        spec = DecodingSpec.model_validate({} if decoding is None else decoding)
        task = TaskId.model_validate({"input": input, "target": target, **stated})
    except ValidationError as error:
        section = DecodingSpec if error.title == "DecodingSpec" else TaskId
        root = "decoding" if section is DecodingSpec else "task"
        lines = [f"{root}.{line}" for line in explain(error, section, root=root)]
        raise UserError("\n".join(lines)) from error
    meant = task_of(task)
    files.refuse_occupied(folder)
    if tokenizer is not None:
        backbone = replace(backbone, tokens=replace(backbone.tokens, tokenizer=tokenizer))
    backbone = identified(backbone, () if own is None else tuple(own.modules))
    readout: Readout = model.readout
    if head is not None:
        filled = meant.readout(backbone)
        assert isinstance(filled, Head), "labels and tags are told by one"
        readout = head.fill(filled)
    saved = TunedModel(
        backbone,
        reparam=model.reparam,
        injection=model.injection,
        placement=model.placement,
        readout=readout,
        delta=model.delta,
    )
    return save_artifact(
        folder,
        saved,
        name=name or folder.resolve().name,
        method=method,
        task=task,
        decoding=spec,
        trained_parameters=model.trained_parameters + moved,
    )


def identified(backbone: Backbone, head: tuple[str, ...] = ()) -> Backbone:
    """The same backbone under the name and the hash by which an artifact finds it again.

    Args:
        backbone: as `attach` wrapped it.
        head: names of the modules that are no part of it.

    Raises:
        UserError: its weights are not those that its name stands for.
    """
    if backbone.sha256 != UNMEASURED:
        return backbone
    config = backbone.model.config
    name = gguf.said_by(config) or str(config.name_or_path or "")
    folder = _stored(name, backbone.revision)
    if folder is None:
        model = backbone.model.base_model if head else backbone.model
        return replace(backbone, sha256=hash_module(model))
    if backbone.quantization is None:
        other = first_difference(folder, backbone.model, besides=head)
        if other is not None:
            raise UserError(
                f"the weights of the model are not those of '{name}' any more (the first that "
                f"differs: {other}), so an artifact could not find them again; save the model with "
                "its own save_pretrained(), load it from there, and attach the prompt to that"
            )
    bundled = {path.resolve(): known for known, path in bundled_backbones().items()}
    known = bundled.get(folder.resolve(), name)
    return replace(backbone, name=known, sha256=stored_sha256(folder))


def _stored(name: str, revision: str | None) -> Path | None:
    """The folder of a model's checkpoint, where it is here."""
    if not name:
        return None
    try:
        return stored_folder(name, revision)
    except (OSError, ValueError):
        return None
