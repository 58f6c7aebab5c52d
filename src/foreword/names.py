"""Names that recipes, artifacts, the command line and the code behind them share.

A kind of answer is added here and as a file in `tasks/`, a data format here and in
`data/readers.py`, a metric here and in `evaluation/metrics.py`; tests hold these places together.
Formats and metrics of other packages and of a user's own file bring what reads or scores them along
(`foreword.extensions`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from foreword.common.named import NameIn
from foreword.common.registry import Registry

Answer = Literal[
    "text", "turns", "label", "labels", "number", "choice", "tags", "span", "word", "vector"
]
"""What is measured: a text, the assistant's turns of a conversation, a label, any number of labels,
a number, one or some of a row's own choices, one tag a word, a span of the context given as text,
the word that is missing in a pattern, or a vector for a text."""


Together = int | Literal["auto"]
"""How many rows are answered together; "auto": as many as memory has room for, `MOST_TOGETHER` at
most."""
MOST_TOGETHER = 256
"""More rows than these make nothing faster."""


@dataclass(frozen=True)
class AnswerKind:
    """What is known of a kind of answer before any data or model is read.

    Attributes:
        title: what a message calls it.
        unit: what a loss is a mean over.
        metrics: what is measured where a recipe names nothing.
        column: the key of `task.data` that names its column in tables; None where a format, or a
            {mask} in the input, asks for it.
        head: whether a trained layer answers, unless label words do.
        whole: whether that layer answers for an input as a whole, which may then have a second
            text.
        labelled: whether the answers are among names that the training data show.
        templates: whether the input is written by templates.
        apart: whether a second text is read by itself instead of with the first.
        measured_as: the kind of answer whose metrics measure it; None: its own.
        loss: what a loss is measured in.
    """

    title: str
    unit: str
    metrics: tuple[str, ...]
    column: str | None = None
    head: bool = False
    whole: bool = False
    labelled: bool = False
    templates: bool = True
    apart: bool = False
    measured_as: Answer | None = None
    loss: str = "nats"


ANSWERS: dict[Answer, AnswerKind] = {
    "text": AnswerKind("a text", "target token", ("bleu", "chrf", "ter", "slot_coverage")),
    "turns": AnswerKind(
        "the assistant's turns",
        "target token",
        ("bleu", "chrf", "ter"),
        column="messages",
        templates=False,
        measured_as="text",
    ),
    "label": AnswerKind(
        "a label",
        "label",
        ("accuracy", "macro_f1"),
        column="label",
        head=True,
        whole=True,
        labelled=True,
    ),
    "labels": AnswerKind(
        "several labels",
        "label that is told or not",
        ("micro_f1", "macro_f1", "samples_f1"),
        column="label_list",
        head=True,
        whole=True,
        labelled=True,
    ),
    "number": AnswerKind(
        "a number",
        "number",
        ("mse", "pearson", "spearman"),
        column="number",
        head=True,
        whole=True,
        loss="squared error",
    ),
    "choice": AnswerKind(
        "one of a row's own choices", "choice", ("accuracy",), column="choices", whole=True
    ),
    "tags": AnswerKind(
        "tags of words",
        "tag",
        ("entity_f1", "entity_precision", "entity_recall"),
        head=True,
        labelled=True,
        templates=False,
    ),
    "span": AnswerKind(
        "a span of a context",
        "end of a span",
        ("exact_match", "squad_f1"),
        head=True,
        templates=False,
    ),
    "word": AnswerKind("a missing word", "word", ("precision_at_1",)),
    "vector": AnswerKind(
        "a vector",
        "pair",
        ("recall_at_1", "recall_at_10", "mrr"),
        column="paired",
        whole=True,
        apart=True,
    ),
}
"""What is measured -> what is known of it; each has a file in `tasks/`."""


COLUMNS = (
    "references",
    "label",
    "messages",
    "tools",
    "measured",
    "label_list",
    "separator",
    "number",
    "choices",
    "right",
    "paired",
    "similarity",
    "group",
    "words",
    "tags",
)
"""What a recipe's `task.data`, an artifact and `tasks.read_data` call the columns they read."""


@dataclass(frozen=True)
class FormatName:
    """A format of data files.

    Attributes:
        what: what it is, in a few words.
        asks: what its examples ask for, where no column is named as their answer.
        table: whether its rows are named columns of any kind, one of which may be a label.
        read: what reads it, a `foreword.data.rows.Reader`; None: `foreword.data.readers` has it.
        defined_by: what defines it.
    """

    what: str
    asks: Answer = "text"
    table: bool = False
    read: Callable[..., Any] | None = None
    defined_by: Any = None


FORMATS: Registry[FormatName] = Registry("data format", "foreword.formats")
"""Name of a data format -> what it is."""

for _name, _format in {
    "jsonl": FormatName("one JSON object a line", table=True),
    "csv": FormatName("comma-separated, with a header and quotes", table=True),
    "tsv": FormatName("tab-separated, with a header and without quotes", table=True),
    "parquet": FormatName("columns of a Parquet file", table=True),
    "e2e": FormatName("the E2E challenge's CSV with columns mr and ref"),
    "webnlg": FormatName("WebNLG 2017 XML, a file or a folder of files"),
    "dart": FormatName("DART, its JSON or its XML"),
    "xsum": FormatName("XSUM's document and summary, as JSONL or Parquet"),
    "multirc": FormatName("SuperGLUE's MultiRC, JSON lines of passages", asks="choice"),
    "record": FormatName("SuperGLUE's ReCoRD, JSON lines of passages", asks="choice"),
    "conll": FormatName(
        "CoNLL columns: one word a line, empty lines between sentences", asks="tags"
    ),
    "squad": FormatName("SQuAD JSON, 1.1 or 2.0", asks="span"),
}.items():
    FORMATS.add(_name, _format)


def tables() -> tuple[str, ...]:
    """The formats whose rows are named columns of any kind."""
    return tuple(name for name, known in FORMATS.items() if known.table)


@dataclass(frozen=True)
class MetricName:
    """What a metric is called, and how its figure is read.

    Attributes:
        title: what a table calls it.
        better: "high" or "low".
        of: what it measures; one that several kinds of answers have names them all.
        decimals: how many a table shows.
        score: from answers and their examples to a number (`foreword.evaluation.metrics.Score`);
            None: `foreword.evaluation.metrics` has it.
        defined_by: what defines it.
    """

    title: str
    better: Literal["high", "low"] = "high"
    of: Answer | tuple[Answer, ...] = "text"
    decimals: int = 1
    score: Callable[..., float | None] | None = None
    defined_by: Any = None

    @property
    def kinds(self) -> tuple[Answer, ...]:
        """All that it measures."""
        return self.of if isinstance(self.of, tuple) else (self.of,)


LOSS = "loss"
"""What stands beside the metrics where the development loss decides."""

METRICS: Registry[MetricName] = Registry("metric", "foreword.metrics")
"""Metric -> its title and scale, in the order of tables."""

for _metric, _title in {
    "bleu": MetricName("BLEU"),
    "chrf": MetricName("chrF"),
    "ter": MetricName("TER", "low"),
    "slot_coverage": MetricName("slots %"),
    "nist": MetricName("NIST", decimals=3),
    "meteor": MetricName("METEOR", decimals=3),
    "rouge_l": MetricName("ROUGE_L", decimals=3),
    "cider": MetricName("CIDEr", decimals=3),
    "rouge1": MetricName("ROUGE-1"),
    "rouge2": MetricName("ROUGE-2"),
    "rougeL": MetricName("ROUGE-L"),
    "accuracy": MetricName("accuracy %", of=("label", "choice")),
    "f1": MetricName("F1 %", of="label"),
    "macro_f1": MetricName("macro F1 %", of=("label", "labels")),
    "matthews": MetricName("Matthews × 100", of="label"),
    "micro_f1": MetricName("micro F1 %", of="labels"),
    "samples_f1": MetricName("samples F1 %", of="labels"),
    "subset_accuracy": MetricName("subset accuracy %", of="labels"),
    "mse": MetricName("MSE", "low", of="number", decimals=3),
    "mae": MetricName("MAE", "low", of="number", decimals=3),
    "pearson": MetricName("Pearson × 100", of=("number", "vector")),
    "spearman": MetricName("Spearman × 100", of=("number", "vector")),
    "acc": MetricName("acc %", of="choice"),
    "acc_norm": MetricName("acc_norm %", of="choice"),
    "choices_f1": MetricName("F1 of choices %", of="choice"),
    "chosen_f1": MetricName("F1 of words %", of="choice"),
    "entity_f1": MetricName("entity F1 %", of="tags"),
    "entity_precision": MetricName("entity precision %", of="tags"),
    "entity_recall": MetricName("entity recall %", of="tags"),
    "tag_accuracy": MetricName("tag accuracy %", of="tags"),
    "exact_match": MetricName("exact match %", of="span"),
    "squad_f1": MetricName("SQuAD F1 %", of="span"),
    "precision_at_1": MetricName("P@1 %", of="word"),
    "recall_at_1": MetricName("recall@1 %", of="vector"),
    "recall_at_10": MetricName("recall@10 %", of="vector"),
    "mrr": MetricName("MRR × 100", of="vector"),
}.items():
    METRICS.add(_metric, _title)


def mismatch(metric: str, answer: Answer, beside: tuple[str, ...] = ()) -> str | None:
    """What is wrong with a metric for a kind of answer, if anything.

    Args:
        metric: its name, which is known.
        answer: what the task asks for.
        beside: what may be named instead of a metric of that kind.
    """
    measured, kind = METRICS[metric].kinds, ANSWERS[answer].measured_as or answer
    if kind in measured:
        return None
    fitting = [*beside, *(name for name, known in METRICS.items() if kind in known.kinds)]
    titles = " or ".join(ANSWERS[other].title for other in measured)
    return (
        f"`{metric}` measures {titles}, but this task asks for "
        f"{ANSWERS[answer].title}; choose among {', '.join(fitting)}"
    )


TEXT = "text"
"""The format of a file with one input a line; beside those of `FORMATS`."""
Format = Annotated[str, NameIn(FORMATS)]
"""The name of a data format."""
Metric = Annotated[str, NameIn(METRICS)]
"""The name of a metric."""
