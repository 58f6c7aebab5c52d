"""A loaded artifact, ready to use: `foreword.load(folder).generate(texts)`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ValidationError

from foreword.artifacts.artifact import load_model
from foreword.artifacts.composing import compose
from foreword.artifacts.joined import parts_of
from foreword.artifacts.manifest import Manifest, artifact_folder, read_manifest
from foreword.backbone import Backbone, Decoding, load_backbone
from foreword.backbone.devices import DeviceMap
from foreword.backbone.weights.quantization import Quantization
from foreword.common.bounds import Rows, Seed
from foreword.common.characters import half_character
from foreword.common.choices import Data, OrAuto
from foreword.common.json_text import check_depth
from foreword.data import Example
from foreword.errors import ArtifactError, DataError, UserError, argument, refuse_single
from foreword.evaluation import Report, evaluate
from foreword.names import Together
from foreword.recipe import DecodingSpec
from foreword.recipe.problems import explain
from foreword.tasks import BoundTask, Prediction, task_of
from foreword.tuned import TunedModel

Input = str | Mapping[str, Any] | Sequence[Any] | Example
"""What an artifact is asked: the fields of its template, a text for its only field, the messages of
a conversation, or an example whose references or label are not looked at."""


class _Call(Data):
    """The numbers of a call."""

    batch_size: Annotated[Together, OrAuto(Rows)]
    seed: Seed | None = None


@dataclass(frozen=True)
class Answer:
    """A decoded text, and whether its input had to be cut to fit the backbone's context."""

    text: str
    truncated: bool

    @classmethod
    def of(cls, prediction: Prediction) -> Answer:
        """The part of a prediction that there is of a text."""
        return cls(str(prediction.answer), prediction.truncated)


@dataclass(frozen=True, eq=False)
class LoadedPrompt:
    """One trained prompt on its backbone. Made by `foreword.load`.

    Attributes:
        manifest: what the artifact says of itself.
        task: what the prompt answers, bound to its model.
    """

    manifest: Manifest
    task: BoundTask

    @property
    def model(self) -> TunedModel:
        """The backbone with the prompt."""
        return self.task.model

    def generate(
        self,
        inputs: Sequence[Input],
        *,
        batch_size: Together = 32,
        seed: int | None = None,
        advance: Callable[[int], None] = lambda _: None,
        **decoding: Any,
    ) -> list[str]:
        """Answer each input; the arguments are those of `answer`."""
        answers = self.answer(inputs, batch_size=batch_size, seed=seed, advance=advance, **decoding)
        return [answer.text for answer in answers]

    def answer(
        self,
        inputs: Sequence[Input],
        *,
        batch_size: Together = 32,
        seed: int | None = None,
        advance: Callable[[int], None] = lambda _: None,
        **decoding: Any,
    ) -> list[Answer]:
        """Answer each input.

        Args:
            inputs: a list of texts, fields or examples; a batch may mix lengths.
            batch_size: rows decoded together, or "auto" for as many as memory has room for; it
                never changes a greedy answer beyond ties.
            seed: of the first input's draws, for sampling; the next ones have the next numbers.
            advance: called with the number of rows after each batch.
            decoding: overrides of the artifact's decoding, named as in a recipe.

        Raises:
            UserError: an input lacks a field or is too long, or this artifact tells labels, or
                `inputs` is one text instead of a list of texts.
        """
        self.task.task.check_verb("generate", "this artifact")
        check_call(batch_size, seed)
        how = self.decoding(**decoding)
        predictions = self.task.answers(
            self._examples(inputs), how, batch_size=batch_size, seed=seed, advance=advance
        )
        return [Answer.of(prediction) for prediction in predictions]

    def predict(
        self,
        inputs: Sequence[Input],
        *,
        batch_size: Together = 32,
        advance: Callable[[int], None] = lambda _: None,
    ) -> list[Prediction]:
        """Tell the label of each input, the tags of its words, or the span that answers it.

        Args:
            inputs: a list of texts, fields or examples; `words` (a list, or a text split at blanks)
                are tagged, a `question` is answered from its `context`.
            batch_size: rows read together; it changes no answer beyond rounding.
            advance: called with the number of inputs after each batch.

        Raises:
            UserError: an input lacks a field or is too long, or this artifact writes texts.
        """
        self.task.task.check_verb("predict", "this artifact")
        check_call(batch_size)
        return self.task.answers(self._examples(inputs), batch_size=batch_size, advance=advance)

    def embed(
        self,
        inputs: Sequence[Input],
        *,
        paired: bool = False,
        batch_size: Together = 32,
        advance: Callable[[int], None] = lambda _: None,
    ) -> npt.NDArray[Any]:
        """A vector for each input.

        Args:
            inputs: a list of texts, fields or examples.
            paired: whether they are texts of the other side (`task.data.paired`), which
                `task.second` reads.
            batch_size: rows read together; it changes no vector beyond rounding.
            advance: called with the number of inputs after each batch.

        Returns:
            `[inputs, width]`, in the type of the backbone's numbers, float32 at least.

        Raises:
            UserError: an input lacks a field or is too long, or this artifact gives no vectors.
        """
        self.task.task.check_verb("embed", "this artifact")
        check_call(batch_size)
        refuse_single("inputs", inputs)
        given = (self.example(one, f"input {i + 1}", paired=paired) for i, one in enumerate(inputs))
        examples = [replace(example, paired=None) for example in given]
        task = self.side(paired)
        predictions = task.answers(examples, batch_size=batch_size, advance=advance)
        return matrix_of(predictions, self.model.backbone)

    def evaluate(
        self,
        examples: Sequence[Example],
        *,
        metrics: Sequence[str] | None = None,
        batch_size: Together = 32,
        seed: int | None = None,
        advance: Callable[[int], None] = lambda _: None,
        **decoding: Any,
    ) -> Report:
        """Decode examples and measure the answers, by the task's metrics if none are named."""
        if metrics is not None:
            refuse_single("metrics", metrics)
        check_call(batch_size, seed)
        return evaluate(
            self.task,
            examples,
            self.decoding(**decoding),
            metrics=self.manifest.task.metrics if metrics is None else metrics,
            batch_size=batch_size,
            seed=seed,
            advance=advance,
        )

    def _examples(self, inputs: Sequence[Input]) -> list[Example]:
        refuse_single("inputs", inputs)
        return [self.example(given, f"input {i + 1}") for i, given in enumerate(inputs)]

    def side(self, paired: bool) -> BoundTask:
        """The task of the inputs, or of the texts that are paired with them."""
        return replace(self.task, task=self.task.task.of_paired()) if paired else self.task

    def example(self, given: Input, where: str = "", *, paired: bool = False) -> Example:
        """An input as an example: a plain text stands for the template's only slot.

        Args:
            given: the input.
            where: what messages call it.
            paired: whether it is a text of the other side; see `embed`.

        Raises:
            DataError: it is neither text nor fields, or lacks what the artifact is asked with.
        """
        return example_of(self.side(paired), given, where)

    def decoding(self, **overrides: Any) -> Decoding:
        """The artifact's decoding with overrides.

        Raises:
            UserError: a name or a value that there is not.
        """
        return decoding_of(self.manifest.decoding, **overrides)


def matrix_of(predictions: Sequence[Prediction], backbone: Backbone) -> npt.NDArray[Any]:
    """Vectors that a backbone gave: `[predictions, width]`, in the type of its numbers, float32 at
    least."""
    kind = np.float64 if backbone.model.dtype == torch.float64 else np.float32
    vectors = np.array([one.answer for one in predictions], dtype=kind)
    return vectors.reshape(-1, backbone.hidden_width)


def example_of(task: BoundTask, given: Input, where: str = "") -> Example:
    """An input of a task as an example; see `LoadedPrompt.example`."""
    if isinstance(given, Example):
        return given
    if not isinstance(given, str | Mapping | list | tuple):
        raise DataError(f"{where}: expected a text, or named values, found {type(given).__name__}")
    _refuse_halves(where, given)
    if isinstance(given, list | tuple):
        return task.task.of_messages(given, where)
    assert isinstance(given, str | Mapping), "as was asked above"
    return task.example(given, where)


def decoding_of(stated: DecodingSpec, **overrides: Any) -> Decoding:
    """Settings of decoding with overrides.

    Raises:
        UserError: a name or a value that there is not.
    """
    try:
        spec = DecodingSpec.model_validate({**stated.model_dump(), **overrides})
    except ValidationError as error:
        lines = explain(error, DecodingSpec, root="decoding")
        raise UserError("\n".join(f"decoding.{line}" for line in lines)) from error
    return Decoding(**spec.model_dump())


def check_call(batch_size: Together, seed: int | None = None) -> None:
    """Raise UserError where the numbers of a call are out of bounds."""
    try:
        _Call(batch_size=batch_size, seed=seed)
    except ValidationError as error:
        raise UserError("\n".join(explain(error, _Call))) from error


def _refuse_halves(where: str, given: str | Mapping[str, Any] | Sequence[Any]) -> None:
    """Raise DataError where a text holds what is no character, which no tokenizer takes."""
    texts = given if isinstance(given, Mapping) else {"": given}
    for name, value in texts.items():
        for text in (name, *_inside(where, value)):
            half = half_character(text) if isinstance(text, str) else None
            if half is not None:
                place = f", field '{name}'" if name else ""
                raise DataError(
                    f"{where}{place}: is no text that can be read: it holds half a character "
                    f"({half!r}), which was not UTF-8 where it comes from"
                )


def _inside(where: str, value: Any) -> Iterator[Any]:
    """A value, and all that stands in it."""
    try:
        check_depth(value)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
    waiting = [value]
    while waiting:
        inner = waiting.pop()
        yield inner
        if isinstance(inner, Mapping):
            waiting += [*inner, *inner.values()]
        elif isinstance(inner, list | tuple):
            waiting += inner


def check_mixes(loaded: LoadedPrompt, where: Path | str) -> None:
    """Raise ArtifactError where a prompt cannot answer in one batch with others.

    Args:
        loaded: the prompt.
        where: what the message calls it.
    """
    if loaded.model.delta.backbone is not None:
        moves = loaded.manifest.method.moves.kind
        raise ArtifactError(
            f"{where}: has weights of the backbone that were trained too (delta: {moves}), so it "
            "cannot answer in one batch with other prompts; use foreword.load for it alone"
        )


def refuse_two_places(device: str | None, device_map: DeviceMap | None) -> None:
    """Raise UserError where a backbone is to lie on a device and to be spread over several."""
    if device is not None and device_map is not None:
        raise UserError(
            f"device: '{device}' is asked for, but the device map says where the backbone lies; "
            "leave one of them out"
        )


def load(
    folder: Path | str | Sequence[Path | str],
    *,
    backbone: Backbone | str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    quantization: Quantization | None = None,
    device_map: DeviceMap | None = None,
    other_backbone: bool = False,
    download: bool = False,
    trust_remote_code: bool = False,
) -> LoadedPrompt:
    """Load an artifact onto its backbone.

    Args:
        folder: the artifact, or a run folder that has one; several, or `TEXT+TASK`, are put
            together one behind the other (`foreword.compose`), and the last says what is asked.
        backbone: a loaded one to share, or where to load it from.
        device: "cpu", "cuda" or "mps"; the best there is if not given.
        dtype: what to cast the backbone to instead of the type trained with.
        quantization: how to quantise it instead of how it was trained with; {} for not at all.
        device_map: how to spread it over devices, instead of `device`: "auto", or a device by
            module; see `foreword.backbone.load_backbone`.
        other_backbone: take a backbone with other weights all the same.
        download: let a hub name be downloaded.
        trust_remote_code: run code that comes with `backbone`, which must then be named.

    Raises:
        ArtifactError: it is damaged or does not fit the backbone.
        BackboneError: the backbone cannot be loaded.
        UserError: code is to be trusted that nobody but the artifact names, or a device and a
            device map are given.
    """
    from foreword.backbone import default_device

    refuse_two_places(device, device_map)
    folders = [folder] if isinstance(folder, str | Path) else list(folder)
    parts = [part for one in folders for part in parts_of(one)]
    if not parts:
        raise UserError("folder: expected an artifact, found an empty list")
    folder = artifact_folder(parts[-1])
    if trust_remote_code and not isinstance(backbone, Backbone):
        where = device or default_device()
        backbone = _trusted(folder, backbone, where, dtype, quantization, device_map, download)
    loading: dict[str, Any] = {
        "backbone": backbone if isinstance(backbone, Backbone) else None,
        "backbone_name": backbone if isinstance(backbone, str) else None,
        "device": device or default_device(),
        "dtype": dtype,
        "quantization": quantization,
        "device_map": device_map,
        "other_backbone": other_backbone,
        "download": download,
    }
    if len(parts) > 1:
        whole = compose(parts, **loading)
        manifest, model = whole.manifest, whole.model
    else:
        manifest, model = load_model(folder, **loading)
    return LoadedPrompt(manifest, task_of(manifest.task).on(model))


def _trusted(
    folder: Path,
    name: str | None,
    device: str,
    dtype: str | None,
    quantization: Quantization | None,
    device_map: DeviceMap | None,
    download: bool,
) -> Backbone:
    """A backbone with code of its own: the user names it, never the artifact."""
    if name is None:
        raise UserError(
            f"{argument('--trust-remote-code')}: name the backbone whose code you trust with "
            f"{argument('--backbone')}; code of one that only the artifact names is never run"
        )
    manifest = read_manifest(folder)
    return load_backbone(
        name,
        dtype=dtype or manifest.backbone.dtype,  # type: ignore[arg-type]
        device=device,
        bos=manifest.tokens.bos,
        quantization=manifest.backbone.quantization if quantization is None else quantization,
        device_map=device_map,
        local_files_only=not download,
        trust_remote_code=True,
    )
