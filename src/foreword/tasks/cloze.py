"""The answer is a label: that of the word which is missing in a pattern."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from foreword.axes.readout import Verbalizer
from foreword.axes.readout.verbalizer import Words
from foreword.backbone import Backbone, Tokens
from foreword.backbone.shapes import Kind
from foreword.data import Example
from foreword.errors import ArtifactError, DataError, RecipeError
from foreword.methods.examples import FIXED, LABEL, Demonstration
from foreword.recipe import TaskId, WindowPool
from foreword.tasks.base import LabelWords
from foreword.tasks.blanks import Slots
from foreword.tasks.demonstrating import demonstration
from foreword.tasks.reading import ReadTask
from foreword.tasks.rows import Prediction, Row
from foreword.tasks.stating import check_windows, labels_of, templates_of
from foreword.tasks.text import Templates
from foreword.tasks.windows import of_one_label
from foreword.tuned import TunedModel


@dataclass(frozen=True)
class Cloze(ReadTask):
    """A label for a text: that of the word which is missing in a template (PET's patterns).

    Attributes:
        text: the pattern, and what gives way where it is too long.
        labels: in their order.
        words: of each label, as they are written.
        order: how a word of several tokens is read at masks.
        calibrated: whether a prior of the labels is taken off.
        windows: how windows of a text that is too long are told together; None: it is cut.
        stride: tokens that neighbouring windows share.
    """

    text: Templates
    labels: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]
    order: Literal["joint", "max-first"] = "joint"
    calibrated: bool = False
    windows: WindowPool | None = None
    stride: int = 128
    answer = "label"
    _unknown_label = "give it a word in task.verbalizer.words"

    @classmethod
    def of(cls, stated: TaskId) -> Cloze:
        """The task as an artifact states it.

        Raises:
            ArtifactError: it has fewer than two labels, or others than its words are of.
        """
        spec, labels = stated.verbalizer, labels_of(stated)
        if spec is None or set(spec.words) != set(labels):
            words = [] if spec is None else list(spec.words)
            raise ArtifactError(
                f"task.verbalizer.words: has words for {str(words)[:200]}, but the "
                f"labels are {str(list(labels))[:200]}"
            )
        words_of = tuple(spec.words[label] for label in labels)
        calibrated = spec.calibration != "none"
        text = templates_of(stated)
        check_windows(stated, text)
        windows, stride = stated.windows, stated.stride
        return cls(text, labels, words_of, spec.order, calibrated, windows, stride)

    @classmethod
    def labels_of(cls, example: Example) -> tuple[str, ...]:
        """The label of an example."""
        return () if example.label is None else (example.label,)

    @property
    def metric_options(self) -> Mapping[str, Any]:
        """All labels, in their order."""
        return {"labels": self.labels}

    def readout(self, backbone: Backbone) -> Verbalizer:
        """The label words on this backbone.

        Raises:
            UserError: it cannot read them; two labels have the same word, or a word has no tokens.
        """
        slots = Slots.of(backbone, self.text)
        return Verbalizer(
            self.tokens(backbone),
            masked=slots.masked,
            before=slots.before,
            order=self.order,
            calibrated=self.calibrated,
        )

    def notes(self, backbone: Backbone) -> list[str]:
        """Which label words are several tokens, or not known, to this backbone's tokenizer."""
        slots = Slots.of(backbone, self.text)
        unknown = backbone.tokens.tokenizer.unk_token_id
        notes = []
        for word in (word for label in self.words for word in label):
            ids = slots.words(backbone.tokens, backbone.geometry.kind, self.text, word)
            parts = backbone.tokens.tokenizer.convert_ids_to_tokens(ids)
            if unknown is not None and unknown in ids:
                notes.append(f"label word {word!r} is not known to this tokenizer")
            elif len(ids) > 1:
                notes.append(f"label word {word!r} is {len(ids)} tokens here: {' '.join(parts)}")
        return notes

    def rows(
        self,
        model: TunedModel,
        example: Example,
        *,
        labelled: bool = True,
        reserve: int = 0,  # noqa: ARG002
    ) -> list[Row]:
        """One row, or one for each window; to tell a label at masks, one for each number of tokens
        that a word has, window after window."""
        backbone = model.backbone
        slots, lengths = Slots.of(backbone, self.text), self._lengths(backbone)
        labels = (self.label_number(example, example.label),) if labelled else ()
        parts = [example]
        if self.windows is not None:
            parts = slots.windows(model, self.text, example, lengths[-1], self.stride)
        return [
            slots.row(model, self.text, part, many, labels)
            for part in parts
            for many in (lengths[-1:] if labelled else lengths)
        ]

    def _lengths(self, backbone: Backbone) -> list[int]:
        """How many tokens the words have that are told in rows of their own; otherwise the most."""
        lengths = sorted({len(word) for label in self.tokens(backbone) for word in label})
        return lengths if Slots.of(backbone, self.text).masked else lengths[-1:]

    def prediction(
        self,
        backbone: Backbone,
        example: Example,  # noqa: ARG002
        rows: Sequence[Row],  # noqa: ARG002
        outputs: Sequence[Tensor],
    ) -> Prediction:
        """The label whose words are the most probable."""
        probabilities = self.shares(outputs)
        if self.windows is not None:
            rows_each = len(self._lengths(backbone))
            starts = range(0, len(outputs), rows_each)
            windows = [self.shares(outputs[at : at + rows_each]) for at in starts]
            of_windows = [torch.tensor(list(one.values()), dtype=torch.float64) for one in windows]
            together = of_one_label(of_windows, self.windows).tolist()
            probabilities = dict(zip(self.labels, together, strict=True))
        best = max(probabilities, key=probabilities.__getitem__)
        return Prediction(best, probabilities[best], probabilities)

    def shares(self, outputs: Sequence[Tensor]) -> dict[str, float]:
        """The probability of each label, from what the readout gave for each row of an example."""
        words = iter(torch.stack(list(outputs)).double().nansum(0).tolist())
        scores = [sum(next(words) for _ in label) / len(label) for label in self.words]
        shares = torch.tensor(scores, dtype=torch.float64).softmax(0).tolist()
        return dict(zip(self.labels, shares, strict=True))

    @property
    def class_words(self) -> tuple[str, ...]:
        """All label words."""
        return tuple(word for words in self.words for word in words)

    def label_words(self, backbone: Backbone) -> LabelWords:
        """The words of each label, with their tokens."""
        named = backbone.tokens.names
        return {
            label: {word: named(ids) for word, ids in zip(words, tokens, strict=True)}
            for label, words, tokens in zip(
                self.labels, self.words, self.tokens(backbone), strict=True
            )
        }

    def demonstration(self, backbone: Backbone, example: Example) -> Demonstration:
        """The input and the first word of its label."""
        tokens = backbone.tokens
        word = self.words[self.label_number(example, example.label)][0]
        slots = Slots.of(backbone, self.text)
        ids = slots.words(tokens, backbone.geometry.kind, self.text, word)
        answer, types = [*ids, tokens.eos_id], [LABEL] * len(ids) + [FIXED]
        return demonstration(self.text, tokens, example, answer, types)

    def check_labels(self, examples: Sequence[Example], split: str) -> None:
        """Raise RecipeError where a label has no word, so that no answer could ever be right."""
        known = {example.label for example in examples if example.label is not None}
        unnamed = sorted(known - set(self.labels))
        if unnamed:
            raise RecipeError(
                "recipe",
                [
                    f"task.verbalizer.words: has no word for the label {unnamed[0]!r} of the "
                    f"{split} examples; its labels are {', '.join(self.labels)}"
                ],
            )

    def tokens(self, backbone: Backbone) -> Words:
        """The words of each label as tokens.

        Raises:
            UserError: two labels have a word in common, or a word has no tokens.
        """
        slots = Slots.of(backbone, self.text)
        return _tokens_of(self, slots, backbone.tokens, backbone.geometry.kind)


@lru_cache(maxsize=64)
def _tokens_of(
    task: Cloze, slots: Slots, tokens: Tokens, kind: Kind
) -> tuple[tuple[tuple[int, ...], ...], ...]:
    owner: dict[tuple[int, ...], str] = {}
    tokens_of_labels = []
    for label, words in zip(task.labels, task.words, strict=True):
        tokens_of_labels.append(
            [tuple(slots.words(tokens, kind, task.text, word)) for word in words]
        )
        for word, ids in zip(words, tokens_of_labels[-1], strict=True):
            if not ids:
                raise DataError(
                    f"task.verbalizer.words: {word!r} has no tokens in this vocabulary; name "
                    "another word"
                )
            if (other := owner.setdefault(ids, label)) != label:
                raise DataError(
                    f"task.verbalizer.words: {word!r} says both {other!r} and {label!r} in this "
                    "vocabulary; name another word for one of them"
                )
    return tuple(map(tuple, tokens_of_labels))
