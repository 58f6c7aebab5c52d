"""Choices are scored as lm-evaluation-harness scores the same rows.

It needs the harness, which the tests do not bring: `pip install --no-deps lm-eval` (0.4.13 was
compared) into a folder on PYTHONPATH. Its definition by hand is in `tests/tasks/test_choices.py`.
"""

from __future__ import annotations

import json
import string
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from conftest import VOCABULARY, make_backbone, mini_tokens
from foreword.backbone import Backbone, Decoding
from foreword.data import read_examples
from foreword.evaluation import evaluate
from foreword.methods import HardPrompt
from foreword.recipe import TaskId
from foreword.tasks import task_of
from foreword.tuned.compose import compose

pytestmark = pytest.mark.filterwarnings("ignore")
COPA = [
    {"premise": f"The {thing} {did}.", "question": asks, "label": i % 2, **choices}
    for i, (thing, did, asks) in enumerate(
        [
            ("otter", "swam away", "cause"),
            ("window", "broke", "cause"),
            ("girl", "ate the soup", "effect"),
            ("clock", "stopped", "effect"),
        ]
    )
    for choices in (
        {
            "choice1": "It saw the boat.",
            "choice2": "A stone hit it, and nobody had seen it coming.",
        },
        {"choice1": "She was no longer hungry.", "choice2": "It was late."},
    )
]
ENDINGS = [
    {
        "context": "A man stands on a ladder. He",
        "endings": ["falls.", "paints the wall with a brush.", "is a ladder, too", "—é🙂"],
        "gold": "1",
    },
    {"context": "It is", "endings": ["late", "late late late", "early in the north"], "gold": "0"},
]


def backbone_of(family: str) -> Backbone:
    if family != "t5":
        return make_backbone(family, torch.float64)
    config = CONFIG_MAPPING["t5"](
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        pad_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=0,
    )
    model = AutoModelForSeq2SeqLM.from_config(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.2, generator=generator)
    return Backbone.wrap(model.double().eval(), mini_tokens())


def by_the_harness(model: Any, file: Path, name: str, **texts: str) -> tuple[dict[str, Any], Any]:
    """Its figures, and the log-likelihoods of each row's choices."""
    lm_eval = pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.models.huggingface import HFLM

    tokenizer = mini_tokens().tokenizer
    backend = "seq2seq" if model.config.is_encoder_decoder else "causal"
    harness = HFLM(
        pretrained=model, tokenizer=tokenizer, backend=backend, batch_size=3, device="cpu"
    )
    metrics = [
        {"metric": metric, "aggregation": "mean", "higher_is_better": True}
        for metric in ("acc", "acc_norm")
    ]
    config = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"validation": str(file)}},
        "validation_split": "validation",
        "output_type": "multiple_choice",
        "metric_list": metrics,
        **texts,
    }
    task = ConfigurableTask(config=config)
    found = lm_eval.evaluate(harness, {name: task}, bootstrap_iters=0, log_samples=True)
    samples = sorted(found["samples"][name], key=lambda sample: sample["doc_id"])
    logs = [[log for log, _ in sample["filtered_resps"]] for sample in samples]
    return found["results"][name], logs


def written(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def compare(backbone: Backbone, file: Path, stated: dict[str, Any], texts: dict[str, str]) -> None:
    figures, logs = by_the_harness(backbone.model, file, "rows", **texts)
    task = task_of(TaskId(answer="choice", target=" {reference}", **stated))
    model = compose(backbone, HardPrompt(name="hard-prompt"), task.readout(backbone))
    columns = {key: stated[key] for key in ("choices", "right")}
    examples = read_examples(file, "jsonl", **columns)
    report = evaluate(task.on(model), examples, Decoding(), metrics=["acc", "acc_norm"])
    assert report.scores["acc"] == pytest.approx(100 * figures["acc,none"])
    assert report.scores["acc_norm"] == pytest.approx(100 * figures["acc_norm,none"])
    exact = backbone.model.dtype == torch.float64
    for one, expected in zip(report.predictions, logs, strict=True):
        assert one.log_likelihoods == pytest.approx(expected, abs=1e-9 if exact else 1e-3)


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
def test_choices_in_columns(family: str, tmp_path: Path) -> None:
    compare(
        backbone_of(family),
        written(tmp_path, COPA),
        {
            "input": "{premise} The {question} was that",
            "choices": ("choice1", "choice2"),
            "right": "label",
        },
        {
            "doc_to_text": "{{premise}} The {{question}} was that",
            "doc_to_choice": "{{[choice1, choice2]}}",
            "doc_to_target": "label",
        },
    )


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_choices_in_a_list(family: str, tmp_path: Path) -> None:
    compare(
        backbone_of(family),
        written(tmp_path, ENDINGS),
        {"input": "{context}", "choices": "endings", "right": "gold"},
        {"doc_to_text": "{{context}}", "doc_to_choice": "endings", "doc_to_target": "{{gold}}"},
    )


RECORD = [
    {
        "passage": "The boat left Bergen at noon. Anna Lund and the old captain stood on deck.",
        "entities": ["Bergen", "Anna Lund", "captain"],
        "asks": [
            ("Nobody but @placeholder saw the whale.", ["Anna Lund"]),
            ("The harbour of @placeholder was empty", ["Bergen"]),
        ],
    },
    {
        "passage": "In Lagos the Otter Club met the River Club, and the Otter Club won.",
        "entities": ["Lagos", "Otter Club", "River Club"],
        "asks": [("The cup went to the @placeholder", ["Otter Club", "River Club"])],
    },
]


def words_by_hand(text: str) -> list[str]:
    """As SQuAD's evaluation reads an answer."""
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    return [word for word in kept.split() if word not in ("a", "an", "the")]


def exact_by_hand(gold: str, given: str) -> int:
    return int(words_by_hand(gold) == words_by_hand(given))


def f1_by_hand(gold: str, given: str) -> float:
    own, right = Counter(words_by_hand(given)), Counter(words_by_hand(gold))
    shared = sum((own & right).values())
    return 2 * shared / (own.total() + right.total())


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_record(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ReCoRD's own file by its format, and the harness's rows of it: likelihoods of the whole
    sentence with each entity, exact matches, F1 of words."""
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")
    squad = SimpleNamespace(compute_exact=exact_by_hand, compute_f1=f1_by_hand)
    squad.squad_metrics = squad
    for name in ("transformers.data.metrics", "transformers.data.metrics.squad_metrics"):
        monkeypatch.setitem(sys.modules, name, squad)  # which transformers 5 has no more
    from lm_eval.tasks.super_glue.record import util

    lines, docs = [], []
    for one in RECORD:
        text = one["passage"]
        spans = [(text.index(entity), len(entity)) for entity in one["entities"]]
        entities = [{"start": at, "end": at + length - 1} for at, length in spans]
        asks = [
            {"query": query, "answers": [{"text": answer} for answer in answers]}
            for query, answers in one["asks"]
        ]
        lines.append({"passage": {"text": text, "entities": entities}, "qas": asks})
        docs += [
            {"passage": text, "query": query, "entities": one["entities"], "answers": answers}
            for query, answers in one["asks"]
        ]
    rows = [{"text": util.doc_to_text(doc), "choices": util.doc_to_choice(doc)} for doc in docs]
    backbone = backbone_of(family)
    _, logs = by_the_harness(
        backbone.model,
        written(tmp_path, rows),
        "rows",
        doc_to_text="{{text}}",
        doc_to_choice="choices",
        doc_to_target="0",
    )
    figures = [
        util.process_results(doc, [(log, False) for log in own])
        for doc, own in zip(docs, logs, strict=True)
    ]
    file = written(tmp_path, lines)
    stated = {"input": "{passage}", "target": "\n\n   - {before} {reference}{after}"}
    task = task_of(TaskId(answer="choice", **stated))
    model = compose(backbone, HardPrompt(name="hard-prompt"), task.readout(backbone))
    examples = read_examples(file, "record")
    report = evaluate(task.on(model), examples, Decoding(), metrics=["accuracy", "chosen_f1"])
    for one, expected in zip(report.predictions, logs, strict=True):
        assert one.log_likelihoods == pytest.approx(expected, abs=1e-9)
    for name, theirs in (("accuracy", "em"), ("chosen_f1", "f1")):
        mean = sum(float(figure[theirs]) for figure in figures) / len(figures)
        assert report.scores[name] == pytest.approx(100 * mean)


@pytest.mark.slow
def test_copa_itself(mini: Backbone, shared: Any) -> None:
    compare(
        mini,
        shared("data/fewglue") / "COPA/val.jsonl",
        {
            "input": "{premise} The {question} was that",
            "choices": ("choice1", "choice2"),
            "right": "label",
        },
        {
            "doc_to_text": "{{premise}} The {{question}} was that",
            "doc_to_choice": "{{[choice1, choice2]}}",
            "doc_to_target": "label",
        },
    )
