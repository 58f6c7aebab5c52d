"""Names that recipes, artifacts, the command line and the code behind them share: one table each.

A data format is added here and in `tasks/readers.py`, a metric here and in
`evaluation/metrics.py`; tests hold the two together. Imports nothing of foreword.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

FORMATS = {
    "jsonl": "one JSON object a line",
    "csv": "comma-separated, with a header and quotes",
    "tsv": "tab-separated, with a header and without quotes",
    "parquet": "columns of a Parquet file",
    "e2e": "the E2E challenge's CSV with columns mr and ref",
    "webnlg": "WebNLG 2017 XML, a file or a folder of files",
    "dart": "DART, its JSON or its XML",
    "xsum": "XSUM's document and summary, as JSONL or Parquet",
    "conll": "CoNLL columns: one word a line, empty lines between sentences",
    "squad": "SQuAD JSON, 1.1 or 2.0",
}
"""Format of a data file -> what it is."""

TABLES = ("jsonl", "csv", "tsv", "parquet")
"""Those whose rows are named columns of any kind."""

COLUMNS = ("references", "label", "group", "words", "tags")
"""What a recipe's `task.data`, an artifact and `tasks.read_data` call the columns they read."""

Answer = Literal["text", "label", "tags", "span", "word"]
"""What is measured: a text, a label, one tag a word, a span of the context given as text, or the
word that is missing in a pattern."""

ASKED: dict[Answer, str] = {
    "text": "a text",
    "label": "a label",
    "tags": "tags of words",
    "span": "a span of a context",
    "word": "a missing word",
}
"""What a message calls it."""

UNITS: dict[Answer, str] = {
    "text": "target token",
    "label": "label",
    "tags": "tag",
    "span": "end of a span",
    "word": "word",
}
"""What a loss is a mean over."""


@dataclass(frozen=True)
class MetricName:
    """What a metric is called, and how its figure is read.

    Attributes:
        title: what a table calls it.
        better: "high" or "low".
        of: what it measures.
        decimals: how many a table shows.
    """

    title: str
    better: Literal["high", "low"] = "high"
    of: Answer = "text"
    decimals: int = 1


METRICS = {
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
    "accuracy": MetricName("accuracy %", of="label"),
    "f1": MetricName("F1 %", of="label"),
    "macro_f1": MetricName("macro F1 %", of="label"),
    "matthews": MetricName("Matthews × 100", of="label"),
    "entity_f1": MetricName("entity F1 %", of="tags"),
    "entity_precision": MetricName("entity precision %", of="tags"),
    "entity_recall": MetricName("entity recall %", of="tags"),
    "tag_accuracy": MetricName("tag accuracy %", of="tags"),
    "exact_match": MetricName("exact match %", of="span"),
    "squad_f1": MetricName("SQuAD F1 %", of="span"),
    "precision_at_1": MetricName("P@1 %", of="word"),
}
"""Metric -> its title and scale, in the order of tables."""

DEFAULT_METRICS: dict[Answer, tuple[str, ...]] = {
    "text": ("bleu", "chrf", "ter", "slot_coverage"),
    "label": ("accuracy", "macro_f1"),
    "tags": ("entity_f1", "entity_precision", "entity_recall"),
    "span": ("exact_match", "squad_f1"),
    "word": ("precision_at_1",),
}
"""What is measured where a recipe names nothing."""

if TYPE_CHECKING:
    Format = str
    Metric = str
else:  # pydantic checks these, and their JSON Schema lists the names
    Format = Literal[tuple(FORMATS)]
    Metric = Literal[tuple(METRICS)]
