"""How far the student is from its teacher, and how far others are that are made without training.

On rows that were made before the training: the divergence from the teacher's kept distributions,
and the negative log-likelihood of the answers, both in nats per predicted token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from foreword.axes.readout.divergence import divergence
from foreword.backbone import Call, Decoding, Prompt
from foreword.backbone.layout import Pair, Taught
from foreword.data import Example
from foreword.errors import DataError
from foreword.evaluation.evaluate import Scores
from foreword.evaluation.metrics import METRICS
from foreword.procedures.distilling.answering import unanswered
from foreword.procedures.distilling.eviction import evicted
from foreword.procedures.distilling.teacher import Fronts, Teacher
from foreword.procedures.distilling.texts import beginning
from foreword.tasks.decoding import Writing, decode_rows
from foreword.tuned import TunedModel

TOGETHER = 8
"""Rows of one forward pass."""
DISTANCES = ("student", "nothing", "truncated", "evicted", "text")
"""What is measured, by what stands before each row."""
ATTENDING = 16
"""Rows that say which positions of a text are attended to."""


@dataclass(frozen=True)
class Distance:
    """How far a model is from the teacher.

    Attributes:
        divergence: from the teacher, in nats per token.
        likelihood: the negative logarithm of the answers' probability, in nats per token.
        tokens: of what stands before each row.
    """

    divergence: float
    likelihood: float
    tokens: int

    def figures(self) -> dict[str, float]:
        """The same as plain data."""
        return {"kl": self.divergence, "nll": self.likelihood, "tokens": self.tokens}


CallOf = Callable[[Sequence[Pair]], Call]
"""Rows as a call of the model that is measured."""


@torch.no_grad()
def distance(
    model: TunedModel,
    pairs: Sequence[Pair],
    tokens: int,
    call: CallOf | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Distance:
    """Measure a model on rows with what their teachers say of them.

    Args:
        model: is measured; its backbone is run.
        pairs: the rows, as the model reads them.
        tokens: of what stands before each row, as the figures call it.
        call: makes calls of rows; the model's own if not given.
        advance: called with the number of rows after each forward pass.
    """
    order = sorted(range(len(pairs)), key=lambda number: pairs[number].length)
    far = unlikely = 0.0
    count = 0
    for start in range(0, len(order), TOGETHER):
        rows = [pairs[number] for number in order[start : start + TOGETHER]]
        laid = model.call(model.lay_out(rows)) if call is None else call(rows)
        layout = laid.layout
        logits = model.backbone.logits(laid, layout.reading_positions())
        taught = Taught.joined([row.taught for row in rows if row.taught is not None])
        far += divergence(taught.to(logits.device), logits).double().sum().item()
        logs = logits.double().log_softmax(-1)
        unlikely -= logs.gather(-1, layout.target_ids()[:, None]).sum().item()
        count += len(logits)
        advance(len(rows))
    return Distance(far / count, unlikely / count, tokens)


@dataclass(frozen=True)
class Rows:
    """Rows of one text.

    Attributes:
        examples: they before they are tokens.
        pairs: as the student reads them, with what the teacher says.
        teacher: has read the text.
        text: it.
    """

    examples: Sequence[Example]
    pairs: Sequence[Pair]
    teacher: Teacher
    text: str

    def behind(self, teacher: Teacher) -> list[Pair]:
        """The rows as they stand behind the text of a teacher, this one's or another."""
        rows = [pair for example in self.examples for pair in teacher.pairs(example)]
        return [
            replace(row, taught=pair.taught) for row, pair in zip(rows, self.pairs, strict=True)
        ]


def distances(
    student: TunedModel,
    groups: Sequence[Rows],
    attending: Sequence[Pair],
    fronts: Fronts,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, Distance]:
    """The student beside what needs no training, each on the rows of all texts.

    Args:
        student: what was trained.
        groups: rows by the text that their teacher reads.
        attending: other rows behind the text, which say what of it is attended to.
        fronts: how a text stands before rows.
        advance: called with numbers of rows as they are measured: all of them once for each name
            in `DISTANCES`.
    """
    length = student.placement.length
    measured: dict[str, list[tuple[Distance, int]]] = {}

    def add(
        name: str,
        model: TunedModel,
        pairs: Sequence[Pair],
        tokens: int,
        call: CallOf | None = None,
    ) -> None:
        one = distance(model, pairs, tokens, call, advance)
        weight = sum(len(pair.predicted) for pair in pairs)
        measured.setdefault(name, []).append((one, weight))

    for rows in groups:
        pairs, teacher = rows.pairs, rows.teacher
        behind = rows.behind(teacher)
        add("student", student, pairs, length)
        add("nothing", student.bare(), pairs, 0)
        if length:
            cut = fronts.teacher(beginning(student.backbone.tokens, rows.text, length))
            add("truncated", cut.model, rows.behind(cut), len(cut.front))
        else:
            advance(len(pairs))
        if length and teacher.backbone.geometry.through == "interface" and attending:
            kept = Prompt({"decoder": evicted(teacher, attending[:ATTENDING], length)})

            def call(taken: Sequence[Pair], own: Teacher = teacher, kept: Prompt = kept) -> Call:
                return Call(own.model.lay_out(taken), Prompt(kept.sites))

            add("evicted", teacher.model, behind, length, call)
        else:
            advance(len(pairs))
        add("text", teacher.model, behind, len(teacher.front))
    return {name: _mean(parts) for name, parts in measured.items()}


def check_scored(teacher: Teacher, examples: Sequence[Example], how: Decoding) -> None:
    """Make sure, before anything is trained, that a teacher can answer what `scores` asks.

    Raises:
        DataError: an example does not fit behind the teacher's text.
    """
    for one in examples:
        try:
            teacher.source(unanswered(one), how.max_new_tokens)
        except DataError as error:
            raise DataError(
                f"{error}; the teacher's text stands before it, and decoding.max_new_tokens keeps "
                f"{how.max_new_tokens} tokens for the answer"
            ) from error


def scores(
    teacher: Teacher,
    examples: Sequence[Example],
    how: Decoding,
    metrics: Sequence[str],
    batch_size: int,
    advance: Callable[[int], None],
) -> Scores:
    """What the answers are worth that a backbone gives with a text before the inputs.

    Args:
        teacher: has read the text.
        examples: with references.
        how: decoding.
        metrics: names in `METRICS`.
        batch_size: rows answered together.
        advance: called with the number of examples that are done.
    """
    task = teacher.task
    writings = [
        Writing(teacher.model, teacher.source(unanswered(one), how.max_new_tokens), how)
        for one in examples
    ]
    texts = decode_rows(writings, batch_size=batch_size, advance=advance)
    answers = [task.bare_answer(text) for text in texts]
    options = task.metric_options
    return {name: METRICS[name].score(answers, examples, **options) for name in metrics}


def _mean(parts: Sequence[tuple[Distance, int]]) -> Distance:
    whole = sum(weight for _, weight in parts)
    first = parts[0][0]
    return replace(
        first,
        divergence=sum(one.divergence * weight for one, weight in parts) / whole,
        likelihood=sum(one.likelihood * weight for one, weight in parts) / whole,
        tokens=max(one.tokens for one, _ in parts),
    )
