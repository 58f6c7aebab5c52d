"""Decode every example of a data set, and measure the answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from foreword.backbone import Decoding
from foreword.errors import UserError
from foreword.evaluation.heads import asked, tell
from foreword.evaluation.metrics import METRICS
from foreword.evaluation.writing import Writing, decode_rows
from foreword.tasks import Example
from foreword.text import Fitted, TextTask
from foreword.tuned import TunedModel
from foreword.understanding import Answered, HeadTask

Scores = dict[str, float | None]


@dataclass(frozen=True)
class Report:
    """Answers to a data set and what they are worth.

    Attributes:
        sources: the rendered inputs, one for each example.
        answers: the decoded texts, labels, tags or spans, in the same order.
        scores: metric name to value over all examples; None where a metric does not apply.
        groups: the same for each group of examples, where there are groups.
        truncated: how many inputs were cut to fit.
        told: with a head, what it said in full.
    """

    sources: list[str]
    answers: list[Any]
    scores: Scores
    groups: dict[str, Scores] = field(default_factory=dict)
    truncated: int = 0
    told: list[Answered] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """The numbers alone."""
        return {"all": self.scores, **self.groups}


def fit_inputs(
    model: TunedModel, task: TextTask, examples: Sequence[Example], how: Decoding
) -> Fitted:
    """The inputs of examples as tokens, with room left for the prompt and the longest answer.

    Raises:
        UserError: prompt and answer leave nothing for an input, or one is too long.
    """
    room = model.room(how.max_new_tokens)
    if room is not None and room < 1:
        raise UserError(
            f"decoding.max_new_tokens: {how.max_new_tokens} new tokens leave no room for an input: "
            f"'{model.backbone.name}' has {model.backbone.geometry.context} positions, of which "
            f"method.length {model.placement.length} leaves {model.room(0)} for input and answer; "
            "give a smaller decoding.max_new_tokens or method.length"
        )
    return task.fit(model.backbone.tokens, examples, model.room, reserve=how.max_new_tokens)


def decode(
    model: TunedModel,
    sources: Sequence[list[int]],
    how: Decoding,
    *,
    batch_size: int,
    seed: int | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> list[str]:
    """Answers of one model to inputs given as tokens, in their order; see `decode_rows`.

    Args:
        model: writes.
        sources: the inputs.
        how: decoding.
        batch_size: rows that are written together.
        seed: of the first input's draws, where answers are drawn; the next ones have the next
            numbers.
        advance: called with the number of rows that are done.
    """
    rows = [
        Writing(model, source, how, None if seed is None else seed + number)
        for number, source in enumerate(sources)
    ]
    return decode_rows(rows, batch_size=batch_size, advance=advance)


def evaluate(
    model: TunedModel,
    task: TextTask | HeadTask,
    examples: Sequence[Example],
    how: Decoding,
    *,
    metrics: Sequence[str],
    batch_size: int = 32,
    seed: int | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Report:
    """Answer examples and measure.

    Args:
        model: what answers.
        task: how an example becomes input.
        examples: with references, or the metrics that need them are None.
        how: decoding, where the answer is a text.
        metrics: names in `METRICS`.
        batch_size: rows answered together.
        seed: of the first example's draws; see `decode`.
        advance: called with the number of rows after each batch.
    """
    if isinstance(task, HeadTask):
        told, cut = tell(model, task, examples, batch_size=batch_size, advance=advance)
        said = [answered.answer for answered in told]
        options = {"labels": task.labels} if task.answer == "label" else {}
        return Report(
            [asked(task, example) for example in examples],
            said,
            _scores(metrics, said, examples, options),
            _by_group(metrics, said, examples, options),
            cut,
            told,
        )
    fitted = fit_inputs(model, task, examples, how)
    decoded = decode(model, fitted.sources, how, batch_size=batch_size, seed=seed, advance=advance)
    answers = [task.bare_answer(text) for text in decoded]
    return Report(
        fitted.texts,
        answers,
        _scores(metrics, answers, examples, {}),
        _by_group(metrics, answers, examples, {}),
        len(fitted.truncated),
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
    found: dict[str, Scores] = {}
    for group in dict.fromkeys(example.group for example in examples if example.group):
        inside = [i for i, example in enumerate(examples) if example.group == group]
        found[group] = _scores(
            metrics, [answers[i] for i in inside], [examples[i] for i in inside], options
        )
    return found
