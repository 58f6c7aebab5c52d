"""Answer every example of a data set, and measure the answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from foreword.backbone import Decoding
from foreword.data import Example
from foreword.evaluation.metrics import METRICS
from foreword.names import Together
from foreword.tasks import BoundTask, Prediction

Scores = dict[str, float | None]


@dataclass(frozen=True)
class Report:
    """Answers to a data set and what they are worth.

    Attributes:
        predictions: one for each example.
        scores: metric name to value over all examples; None where a metric does not apply.
        groups: the same for each group of examples, where there are groups.
    """

    predictions: list[Prediction]
    scores: Scores
    groups: dict[str, Scores] = field(default_factory=dict)

    @property
    def sources(self) -> list[str]:
        """The inputs as text."""
        return [prediction.input for prediction in self.predictions]

    @property
    def answers(self) -> list[Any]:
        """The texts, labels, tags or spans."""
        return [prediction.answer for prediction in self.predictions]

    @property
    def truncated(self) -> int:
        """How many inputs were cut to fit."""
        return sum(prediction.truncated for prediction in self.predictions)

    def figures(self) -> dict[str, Any]:
        """The numbers alone."""
        return {"all": self.scores, **self.groups}


def evaluate(
    task: BoundTask,
    examples: Sequence[Example],
    how: Decoding,
    *,
    metrics: Sequence[str],
    batch_size: Together = 32,
    seed: int | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Report:
    """Answer examples and measure.

    Args:
        task: what is asked, and the model that answers.
        examples: with references, or the metrics that need them are None.
        how: decoding, where the answer is a text.
        metrics: names in `METRICS`.
        batch_size: rows answered together.
        seed: of the first example's draws; see `BoundTask.answers`.
        advance: called with the number of examples that are done.
    """
    predictions = task.answers(examples, how, batch_size=batch_size, seed=seed, advance=advance)
    predictions = task.task.compared(predictions, examples)
    answers = [task.task.measured(prediction) for prediction in predictions]
    options = task.task.metric_options
    return Report(
        predictions,
        _scores(metrics, answers, examples, options),
        _by_group(metrics, answers, examples, options),
    )


def _scores(
    metrics: Sequence[str],
    answers: Sequence[Any],
    examples: Sequence[Example],
    options: Mapping[str, Any],
) -> Scores:
    return {name: METRICS[name].score(answers, examples, **options) for name in metrics}


def _by_group(
    metrics: Sequence[str],
    answers: Sequence[Any],
    examples: Sequence[Example],
    options: Mapping[str, Any],
) -> dict[str, Scores]:
    by_group: dict[str, Scores] = {}
    for group in dict.fromkeys(example.group for example in examples if example.group):
        inside = [i for i, example in enumerate(examples) if example.group == group]
        by_group[group] = _scores(
            metrics, [answers[i] for i in inside], [examples[i] for i in inside], options
        )
    return by_group
