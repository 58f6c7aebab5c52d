"""Many prompts on one backbone, answered together: `foreword.prompts(backbone)`.

A batch may mix prompts of all kinds and lengths. The backbone is loaded once and a prompt is
kilobytes, so thousands may be kept, and they may be added and removed while others answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy.typing as npt

from foreword.backbone import Backbone, Decoding, default_device, load_backbone
from foreword.backbone.devices import DeviceMap
from foreword.backbone.weights.quantization import Quantization
from foreword.errors import ArtifactError, DataError, UserError, did_you_mean, refuse_single
from foreword.methods import HardPrompt
from foreword.names import Together
from foreword.recipe import DecodingSpec
from foreword.session import (
    Answer,
    LoadedPrompt,
    check_call,
    check_mixes,
    decoding_of,
    example_of,
    load,
    matrix_of,
    refuse_two_places,
)
from foreword.tasks import BoundTask, Prediction, Request, TextGeneration, answer_together
from foreword.tasks.base import Verb
from foreword.tasks.text import Templates
from foreword.tuned.compose import compose

PROMPT = "prompt"
"""The field of a row that names its prompt."""
DECODING = "decoding"
"""The field of a row that holds settings of its own."""
SEED = "seed"
"""The field of a row that holds the seed of its draws."""
RESERVED = (PROMPT, DECODING, SEED)
_ROW = 'give {"prompt": name, field: value, …}, where the name is null for the backbone alone'
Row = Mapping[str, Any]
"""`{"prompt": name or None, field: value, …}`, with `decoding` and `seed` where a row has its
own."""


class PromptBank:
    """Prompts by name, all of one backbone. Made by `foreword.prompts`.

    Every method may be called from several threads at the same time.

    Args:
        backbone: the one that all prompts were trained on.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self._prompts: dict[str, LoadedPrompt] = {}
        self._changing = threading.Lock()
        self._alone: BoundTask | None = None

    def __len__(self) -> int:
        return len(self._prompts)

    def __contains__(self, name: object) -> bool:
        return name in self._prompts

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._prompts))

    def __getitem__(self, name: str) -> LoadedPrompt:
        """The prompt of a name.

        Raises:
            UserError: there is none.
        """
        try:
            return self._prompts[name]
        except KeyError as error:
            known = tuple(self._prompts)
            few = (*get_close_matches(name, known, n=1), *known[:20])
            raise UserError(
                f"{PROMPT}: there is no '{name}' among {len(known):,}{did_you_mean(name, few)}"
            ) from error

    def add(
        self, name: str, artifact: Path | str | LoadedPrompt, *, other_backbone: bool = False
    ) -> LoadedPrompt:
        """Load an artifact under a name; one that has the name already is replaced, and calls that
        run finish with the old one.

        Args:
            name: by which rows name it.
            artifact: its folder, or a run folder; or a prompt that is loaded on this backbone.
            other_backbone: take one that was trained on other weights all the same.

        Raises:
            ArtifactError: it is damaged, does not fit the backbone, changes the backbone's weights,
                or its template has a field with a reserved name.
            UserError: the name is empty.
        """
        if not isinstance(name, str) or not name:
            raise UserError(f"{PROMPT}: expected a name, found {name!r:.60}")
        loaded = (
            artifact
            if isinstance(artifact, LoadedPrompt)
            else load(artifact, backbone=self.backbone, other_backbone=other_backbone)
        )
        where = artifact if isinstance(artifact, str | Path) else name
        check_mixes(loaded, where)
        if loaded.model.backbone.model is not self.backbone.model:
            raise ArtifactError(
                f"{where}: is loaded on another backbone; load it with "
                "foreword.load(folder, backbone=bank.backbone), or give its folder"
            )
        taken = [field for field in loaded.task.fields if field in RESERVED]
        if taken:
            raise ArtifactError(
                f"{where}: its template has the field '{taken[0]}', which names a row's "
                f"{taken[0]} here; rename the field in task.input and train again, or use "
                "foreword.load for it alone"
            )
        with self._changing:
            self._prompts[name] = loaded
        return loaded

    def remove(self, name: str) -> None:
        """Forget a prompt; calls that run finish with it.

        Raises:
            UserError: there is none of this name.
        """
        with self._changing:
            self[name]
            del self._prompts[name]

    def generate(
        self,
        rows: Sequence[Row],
        *,
        where: Sequence[str] | None = None,
        batch_size: Together = 32,
        seed: int | None = None,
        advance: Callable[[int], None] = lambda _: None,
        **decoding: Any,
    ) -> list[str]:
        """Answer each row; the arguments are those of `answer`."""
        answers = self.answer(
            rows, where=where, batch_size=batch_size, seed=seed, advance=advance, **decoding
        )
        return [answer.text for answer in answers]

    def answer(
        self,
        rows: Sequence[Row],
        *,
        where: Sequence[str] | None = None,
        batch_size: Together = 32,
        seed: int | None = None,
        advance: Callable[[int], None] = lambda _: None,
        **decoding: Any,
    ) -> list[Answer]:
        """Answer each row with its own prompt, all in one batch.

        Args:
            rows: `{"prompt": name, field: value, …}`; the backbone alone goes on with the field
                `text` where the name is None. A row may have `decoding`, settings of its own, and a
                `seed`.
            where: what messages call each row; `row 1`, `row 2` and so on if not given.
            batch_size: rows written together; it changes no greedy answer beyond ties.
            seed: of the first row's draws, for sampling; the next ones have the next numbers.
            advance: called with the number of rows that are done.
            decoding: overrides of the prompts' decoding, named as in a recipe.

        Raises:
            UserError: a row names no prompt of this bank, or one that writes no text.
            DataError: a row lacks a field, or is too long.
        """
        check_call(batch_size, seed)
        requests = self._requests("generate", rows, where, seed, decoding)
        predictions = answer_together(requests, batch_size=batch_size, advance=advance)
        return [Answer.of(prediction) for prediction in predictions]

    def predict(
        self,
        rows: Sequence[Row],
        *,
        where: Sequence[str] | None = None,
        batch_size: Together = 32,
        advance: Callable[[int], None] = lambda _: None,
    ) -> list[Prediction]:
        """Tell each row's label, tags or span with its own prompt and head, all in one batch.

        Args:
            rows: `{"prompt": name, field: value, …}`.
            where: what messages call each row; `row 1`, `row 2` and so on if not given.
            batch_size: rows read together; it changes no answer beyond rounding.
            advance: called with the number of rows that are done.

        Raises:
            UserError: a row names no prompt of this bank, or one that writes texts.
            DataError: a row lacks a field, or is too long.
        """
        check_call(batch_size)
        requests = self._requests("predict", rows, where)
        return answer_together(requests, batch_size=batch_size, advance=advance)

    def embed(
        self,
        rows: Sequence[Row],
        *,
        paired: bool = False,
        where: Sequence[str] | None = None,
        batch_size: Together = 32,
        advance: Callable[[int], None] = lambda _: None,
    ) -> npt.NDArray[Any]:
        """A vector for each row, by its own prompt, all in one batch.

        Args:
            rows: `{"prompt": name, field: value, …}`.
            paired: whether they are texts of the other side; see `LoadedPrompt.embed`.
            where: what messages call each row; `row 1`, `row 2` and so on if not given.
            batch_size: rows read together; it changes no vector beyond rounding.
            advance: called with the number of rows that are done.

        Returns:
            `[rows, width]`, in the type of the backbone's numbers, float32 at least.

        Raises:
            UserError: a row names no prompt of this bank, or one that gives no vectors.
            DataError: a row lacks a field, or is too long.
        """
        check_call(batch_size)
        requests = self._requests("embed", rows, where, paired=paired)
        predictions = answer_together(requests, batch_size=batch_size, advance=advance)
        return matrix_of(predictions, self.backbone)

    def check(
        self,
        rows: Sequence[Row],
        *,
        verb: Verb = "generate",
        where: Sequence[str] | None = None,
        paired: bool = False,
        **decoding: Any,
    ) -> None:
        """Raise what `answer`, `predict` or `embed` would raise for rows; the backbone does not
        run.

        Args:
            rows: see `answer`.
            verb: "generate" for `generate` and `answer`, "predict" or "embed".
            where: see `answer`.
            paired: see `embed`.
            decoding: see `answer`.
        """
        for request in self._requests(verb, rows, where, None, decoding, paired=paired):
            try:
                request.task.check([request.example], request.how)
            except UserError as error:
                place = request.example.where
                text = str(error)
                raise type(error)(text if text.startswith(place) else f"{place}: {text}") from error

    def _requests(
        self,
        verb: Verb,
        rows: Sequence[Row],
        where: Sequence[str] | None,
        seed: int | None = None,
        decoding: Mapping[str, Any] = MappingProxyType({}),
        *,
        paired: bool = False,
    ) -> list[Request]:
        refuse_single("rows", rows)
        requests = []
        places = where or [f"row {number}" for number in range(1, len(rows) + 1)]
        for number, (place, row) in enumerate(zip(places, rows, strict=True)):
            name, loaded, fields = self._row(row, place)
            task = self._backbone_alone(place) if loaded is None else loaded.task
            who = "null, the backbone alone," if name is None else f"'{name}'"
            task.task.check_verb(verb, f"{place}: {PROMPT}: {who}")
            if verb != "generate":
                _check_draws_nothing(row, place, who)
                how, own = Decoding(), None
            else:
                how = _decoding(loaded, row, place, decoding)
                own = _seed(row, place, None if seed is None else seed + number)
            if paired and loaded is not None:
                task = loaded.side(paired)
            requests.append(Request(task, example_of(task, fields, place), how, own))
        return requests

    def _backbone_alone(self, where: str) -> BoundTask:
        """The backbone without any prompt, which goes on with a text."""
        if self._alone is None:
            try:
                model = compose(self.backbone, HardPrompt(name="hard-prompt"))
            except UserError as error:
                raise UserError(f"{where}: {PROMPT}: null, the backbone alone: {error}") from error
            self._alone = TextGeneration(Templates.of("{text}")).on(model)
        return self._alone

    def _row(self, row: Row, where: str) -> tuple[str | None, LoadedPrompt | None, dict[str, Any]]:
        """A row's prompt and fields."""
        if not isinstance(row, Mapping):
            raise DataError(f"{where}: expected named values, found {row!r:.60}; {_ROW}")
        if PROMPT not in row:
            raise DataError(f"{where}: has no field '{PROMPT}'; {_ROW}")
        name = row[PROMPT]
        if name is not None and not isinstance(name, str):
            raise DataError(f"{where}: {PROMPT}: expected a name or null, found {name!r:.60}")
        fields = {key: value for key, value in row.items() if key not in RESERVED}
        try:
            return name, None if name is None else self[name], fields
        except UserError as error:
            raise UserError(f"{where}: {error}") from error


def prompts(
    backbone: Backbone | str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    quantization: Quantization | None = None,
    device_map: DeviceMap | None = None,
    download: bool = False,
    trust_remote_code: bool = False,
) -> PromptBank:
    """An empty bank of prompts on a backbone.

    Args:
        backbone: a loaded one, or where to load it from: a folder, a hub name, or foreword/….
        device: "cpu", "cuda" or "mps"; the best there is if not given.
        dtype: what to cast the backbone to; float32 if not given.
        quantization: how to quantise it; see `foreword.backbone.load_backbone`.
        device_map: how to spread it over devices, instead of `device`.
        download: let a hub name be downloaded.
        trust_remote_code: run code that comes with the backbone.

    Raises:
        BackboneError: the backbone cannot be loaded.
    """
    if not isinstance(backbone, Backbone):
        refuse_two_places(device, device_map)
        backbone = load_backbone(
            backbone,
            dtype=dtype or "float32",  # type: ignore[arg-type]
            device=device or default_device(),
            quantization=quantization,
            device_map=device_map,
            local_files_only=not download,
            trust_remote_code=trust_remote_code,
        )
    return PromptBank(backbone)


def _decoding(
    loaded: LoadedPrompt | None, row: Row, where: str, overrides: Mapping[str, Any]
) -> Decoding:
    """A row's settings: its prompt's, those of the call, its own; the later word wins."""
    own = row.get(DECODING)
    own = {} if own is None else own
    if not isinstance(own, Mapping) or not all(isinstance(key, str) for key in own):
        raise DataError(f"{where}: {DECODING}: expected settings by name, found {own!r:.60}")
    try:
        stated = DecodingSpec() if loaded is None else loaded.manifest.decoding
        return decoding_of(stated, **{**overrides, **own})
    except UserError as error:
        raise UserError(f"{where}: {error}" if own else str(error)) from error


def _check_draws_nothing(row: Row, where: str, who: str) -> None:
    """Raise UserError where a row that is not written has settings for that."""
    for field in (DECODING, SEED):
        if row.get(field) is not None:
            raise UserError(
                f"{where}: {field}: {row[field]!r:.60}, but {who} writes no text; leave the field "
                "out"
            )


def _seed(row: Row, where: str, otherwise: int | None) -> int | None:
    own = row.get(SEED)
    if own is None:
        return otherwise
    if isinstance(own, bool) or not isinstance(own, int):
        raise DataError(f"{where}: {SEED}: expected a whole number from 0, found {own!r:.60}")
    try:
        check_call(1, own)
    except UserError as error:
        raise DataError(f"{where}: {error}") from error
    return own
