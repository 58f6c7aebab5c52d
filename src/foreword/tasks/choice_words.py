"""The answer is among a row's own choices: label words say of each whether it is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from foreword.axes.readout import Verbalizer
from foreword.backbone import Backbone
from foreword.data import Example
from foreword.data.answers import CHOICES
from foreword.recipe import TaskId
from foreword.recipe.task import RIGHT_WRONG
from foreword.scoring.thresholds import USUAL
from foreword.tasks.base import LabelWords
from foreword.tasks.choice import ChoiceTask, Columns, Scores, choices_of, right_of, with_choice
from foreword.tasks.cloze import Cloze
from foreword.tasks.rows import Row
from foreword.tasks.text import Templates
from foreword.tuned import TunedModel


@dataclass(frozen=True)
class ChoiceByWords(ChoiceTask):
    """The choice of which a pattern says the surest that it is right (PET's MultiRC: Schick &
    Schütze 2021b, appendix A).

    Attributes:
        text: the pattern, which names the choice.
        columns: where a row has its choices.
        judges: tells by label words whether a choice is right.
        several: whether any number of choices may be right.
        threshold: from which probability a choice is told then.
    """

    text: Templates
    columns: Columns
    judges: Cloze
    several: bool = False
    threshold: float = USUAL

    @classmethod
    def of(cls, stated: TaskId) -> ChoiceByWords:
        """The task as an artifact states it.

        Raises:
            ArtifactError: its words are of other labels than right and wrong.
        """
        judges = Cloze.of(stated.model_copy(update={"labels": RIGHT_WRONG}))
        return cls(
            judges.text,
            stated.choices or CHOICES,
            judges,
            stated.choice.select == "several",
            stated.thresholds.get(RIGHT_WRONG[0], USUAL),
        )

    @property
    def class_words(self) -> tuple[str, ...]:
        """All label words."""
        return self.judges.class_words

    def readout(self, backbone: Backbone) -> Verbalizer:
        """The words of right and wrong on this backbone."""
        return self.judges.readout(backbone)

    def notes(self, backbone: Backbone) -> list[str]:
        """Which label words are several tokens, or not known."""
        return self.judges.notes(backbone)

    def label_words(self, backbone: Backbone) -> LabelWords:
        """The words of right and wrong, with their tokens."""
        return self.judges.label_words(backbone)

    def without_soft(self) -> ChoiceByWords:
        """The same without virtual tokens in the text."""
        bare = replace(self.judges, text=self.judges.text.without_soft())
        return replace(self, text=bare.text, judges=bare)

    def rows(
        self,
        model: TunedModel,
        example: Example,
        *,
        labelled: bool = True,
        reserve: int = 0,
    ) -> list[Row]:
        """The rows of each choice, by its number (`Row.at`)."""
        right = right_of(example, perhaps_none=self.several) if labelled else ()
        rows = []
        for number, choice in enumerate(choices_of(example)):
            label = RIGHT_WRONG[number not in right] if labelled else None
            labelled_example = replace(with_choice(example, choice), label=label)
            own = self.judges.rows(model, labelled_example, labelled=labelled, reserve=reserve)
            rows += [replace(row, at=(number,)) for row in own]
        return rows

    def scores(self, example: Example, rows: Sequence[Row], outputs: Sequence[Tensor]) -> Scores:
        """How probable it is that each choice is right."""
        shares = []
        for number in range(len(choices_of(example))):
            own = [i for i, row in enumerate(rows) if row.at == (number,)]
            probabilities = self.judges.shares([outputs[i] for i in own])
            shares.append(probabilities[RIGHT_WRONG[0]])
        return Scores(shares)

    def read_at(self, backbone: Backbone, row: Row) -> tuple[list[str], list[str]]:
        """The mask, and whether the choice is right."""
        return self.judges.read_at(backbone, row)
