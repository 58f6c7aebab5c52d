"""Many prompts on one backbone, answered together: `foreword.prompts(backbone)`.

A batch may mix prompts of all kinds and lengths. The backbone is loaded once and a prompt is
kilobytes, so thousands may be kept, and they may be added and removed while others answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from foreword.backbone import Backbone, Decoding, default_device, load_backbone
from foreword.compose import compose
from foreword.errors import ArtifactError, DataError, UserError, did_you_mean
from foreword.methods import HardPrompt
from foreword.recipe import DecodingSpec
from foreword.session import Answer, LoadedPrompt, decoding_of, load
from foreword.text import Templates
from foreword.understanding import Prediction, Request, TextGeneration, answer_together

PROMPT = "prompt"
"""The field of a row that names its prompt."""
DECODING = "decoding"
"""The field of a row that holds settings of its own."""
SEED = "seed"
"""The field of a row that holds the seed of its draws."""
RESERVED = (PROMPT, DECODING, SEED)
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
        alone = compose(backbone, HardPrompt(name="hard-prompt"))
        self._alone = TextGeneration(Templates.of("{text}")).on(alone)

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
            raise UserError(
                f"prompt: there is no '{name}'{did_you_mean(name, known)}; there is: "
                f"{', '.join(known[:20]) or 'none'}"
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
        if not name:
            raise UserError("prompt: a name must not be empty")
        loaded = (
            artifact
            if isinstance(artifact, LoadedPrompt)
            else load(artifact, backbone=self.backbone, other_backbone=other_backbone)
        )
        where = artifact if isinstance(artifact, str | Path) else name
        if loaded.model.delta.backbone is not None:
            moves = loaded.manifest.method.moves.kind
            raise ArtifactError(
                f"{where}: has weights of the backbone that were trained too (delta: {moves}), so "
                "it cannot answer in one batch with other prompts; use foreword.load for it alone"
            )
        if loaded.model.backbone.model is not self.backbone.model:
            raise ArtifactError(
                f"{where}: is loaded on another backbone; load it with "
                "foreword.load(folder, backbone=bank.backbone), or give its folder"
            )
        taken = [field for field in loaded.task.task.fields if field in RESERVED]
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
        batch_size: int = 32,
        seed: int | None = None,
        advance: Callable[[int], None] = lambda _: None,
        **decoding: Any,
    ) -> list[str]:
        """Answer each row; the arguments are those of `answer`."""
        answers = self.answer(rows, batch_size=batch_size, seed=seed, advance=advance, **decoding)
        return [answer.text for answer in answers]

    def answer(
        self,
        rows: Sequence[Row],
        *,
        batch_size: int = 32,
        seed: int | None = None,
        advance: Callable[[int], None] = lambda _: None,
        **decoding: Any,
    ) -> list[Answer]:
        """Answer each row with its own prompt, all in one batch.

        Args:
            rows: `{"prompt": name, field: value, …}`; the backbone alone goes on with the field
                `text` where the name is None. A row may have `decoding`, settings of its own, and a
                `seed`.
            batch_size: rows written together; it changes no greedy answer beyond ties.
            seed: of the first row's draws, for sampling; the next ones have the next numbers.
            advance: called with the number of rows that are done.
            decoding: overrides of the prompts' decoding, named as in a recipe.

        Raises:
            UserError: a row names no prompt of this bank, or one that writes no text.
            DataError: a row lacks a field, or is too long.
        """
        requests = []
        for i, row in enumerate(rows):
            where = f"row {i + 1}"
            name, loaded, fields = self._row(row, where)
            how = _decoding(loaded, row, where, decoding)
            task = self._alone if loaded is None else loaded.task
            task.task.check_verb("generate", f"{where}: {_who(name)}")
            example = (
                task.task.example(fields, where)
                if loaded is None
                else loaded.example(fields, where)
            )
            own = _seed(row, where, None if seed is None else seed + i)
            requests.append(Request(task, example, how, own))
        predictions = answer_together(requests, batch_size=batch_size, advance=advance)
        return [Answer.of(prediction) for prediction in predictions]

    def predict(
        self,
        rows: Sequence[Row],
        *,
        batch_size: int = 32,
        advance: Callable[[int], None] = lambda _: None,
    ) -> list[Prediction]:
        """Tell each row's label, tags or span with its own prompt and head, all in one batch.

        Args:
            rows: `{"prompt": name, field: value, …}`.
            batch_size: rows read together; it changes no answer beyond rounding.
            advance: called with the number of rows that are done.

        Raises:
            UserError: a row names no prompt of this bank, or one that writes texts.
            DataError: a row lacks a field, or is too long.
        """
        requests = []
        for i, row in enumerate(rows):
            where = f"row {i + 1}"
            name, loaded, fields = self._row(row, where)
            task = self._alone if loaded is None else loaded.task
            task.task.check_verb("predict", f"{where}: {_who(name)}")
            example = (
                task.task.example(fields, where)
                if loaded is None
                else loaded.example(fields, where)
            )
            requests.append(Request(task, example))
        return answer_together(requests, batch_size=batch_size, advance=advance)

    def _row(self, row: Row, where: str) -> tuple[str | None, LoadedPrompt | None, dict[str, Any]]:
        """A row's prompt and fields."""
        if not isinstance(row, Mapping) or PROMPT not in row:
            raise DataError(
                f'{where}: give {{"prompt": name, field: value, …}}; the name is null for the '
                "backbone alone"
            )
        name = row[PROMPT]
        if name is not None and not isinstance(name, str):
            raise DataError(f"{where}: prompt: expected a name or null, found {name!r}")
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
    download: bool = False,
    trust_remote_code: bool = False,
) -> PromptBank:
    """An empty bank of prompts on a backbone.

    Args:
        backbone: a loaded one, or where to load it from: a folder, a hub name, or foreword/….
        device: "cpu", "cuda" or "mps"; the best there is if not given.
        dtype: what to cast the backbone to; float32 if not given.
        download: let a hub name be downloaded.
        trust_remote_code: run code that comes with the backbone.

    Raises:
        BackboneError: the backbone cannot be loaded.
    """
    if not isinstance(backbone, Backbone):
        backbone = load_backbone(
            backbone,
            dtype=dtype or "float32",  # type: ignore[arg-type]
            device=device or default_device(),
            local_files_only=not download,
            trust_remote_code=trust_remote_code,
        )
    return PromptBank(backbone)


def _decoding(
    loaded: LoadedPrompt | None, row: Row, where: str, overrides: Mapping[str, Any]
) -> Decoding:
    """A row's settings: its prompt's, those of the call, its own; the later word wins."""
    own = row.get(DECODING) or {}
    if not isinstance(own, Mapping):
        raise DataError(f"{where}: decoding: expected settings by name, found {own!r}")
    try:
        stated = DecodingSpec() if loaded is None else loaded.manifest.decoding
        return decoding_of(stated, **{**overrides, **own})
    except UserError as error:
        raise UserError(f"{where}: {error}" if own else str(error)) from error


def _who(name: str | None) -> str:
    return "the backbone alone" if name is None else f"'{name}'"


def _seed(row: Row, where: str, otherwise: int | None) -> int | None:
    own = row.get(SEED, otherwise)
    if own is not None and (isinstance(own, bool) or not isinstance(own, int) or own < 0):
        raise DataError(f"{where}: seed: expected a whole number from 0, found {own!r}")
    return own
