"""lm-evaluation-harness, unmodified, asks a server by its `local-completions`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from asking import decoder_world
from running import Client, named, running

from foreword.backbone import Backbone

pytest.importorskip("lm_eval")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # its own, and its packages'

ROWS = [
    {"question": "so", "choices": [" a film", " it rained all day", " no"], "gold": 0},
    {"question": "The hill behind the house", "choices": [" was green", " sang", " a"], "gold": 1},
    {"question": "it rained", "choices": [" all day", " again and again", "ing"], "gold": 2},
]
World = tuple[Backbone, dict[str, Path]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    backbone, folders = decoder_world(tmp_path_factory.mktemp("lm-eval"))
    return backbone, named(folders)


@pytest.fixture(scope="module")
def client(world: World) -> Iterator[Client]:
    backbone, folders = world
    with running(backbone, prompt=folders) as found:
        yield found


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    return file


@pytest.fixture(scope="module")
def evaluated(client: Client, world: World, rows: Path) -> dict[str, Any]:
    """Two tasks on those rows: one whose choices are scored, one that writes."""
    from lm_eval import simple_evaluate
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    tokenizer = rows.parent / "tokenizer"
    world[0].tokens.tokenizer.save_pretrained(tokenizer)
    data = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(rows)}},
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "target_delimiter": "",
        "num_fewshot": 0,
    }
    chosen = {
        **data,
        "task": "chosen",
        "output_type": "multiple_choice",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "gold",
    }
    written = {
        **data,
        "task": "written",
        "output_type": "generate_until",
        "doc_to_target": "{{choices[0]}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6, "temperature": 0},
        "metric_list": [{"metric": "exact_match"}],
    }
    model = LocalCompletionsAPI(
        base_url=f"{client.url}/completions",
        model="deep",
        tokenizer=str(tokenizer),
        tokenizer_backend="huggingface",
        batch_size=2,
        max_length=200,
    )
    found: dict[str, Any] = simple_evaluate(
        model=model, tasks=[chosen, written], log_samples=True, bootstrap_iters=0
    )
    return found


def test_choices_are_scored_as_the_model_scores_them(
    evaluated: dict[str, Any], client: Client, world: World
) -> None:
    """`echo` with log-probabilities: sums over the tokens of each choice are those of logits that
    are computed here, of the prompt's model without any server."""
    backbone, _ = world
    model = client.served.store.get("deep").model
    assert len(evaluated["samples"]["chosen"]) == len(ROWS)
    for sample in evaluated["samples"]["chosen"]:
        row = sample["doc"]
        scores = []
        for choice, answer in zip(row["choices"], sample["filtered_resps"], strict=True):
            ids = backbone.tokens.tokenizer(row["question"], add_special_tokens=False).input_ids
            whole = backbone.tokens.tokenizer(row["question"] + choice, add_special_tokens=False)
            with torch.no_grad():
                call = model.call(model.arrange([whole.input_ids], side="left"))
                logits = backbone.logits(call)[0].log_softmax(-1)
            expected = sum(
                float(logits[at - 1, whole.input_ids[at]])
                for at in range(len(ids), len(whole.input_ids))
            )
            score, _ = answer
            assert float(score) == pytest.approx(expected, abs=1e-6)
            scores.append(expected)
        best = max(range(len(scores)), key=scores.__getitem__)
        assert sample["acc"] == float(best == row["gold"])


def test_texts_are_those_of_the_prompt(evaluated: dict[str, Any], client: Client) -> None:
    for sample in evaluated["samples"]["written"]:
        (expected,) = client.texts(
            "deep",
            prompt=client.served.service.backbone.tokens.tokenizer(
                sample["doc"]["question"], add_special_tokens=False
            ).input_ids,
            max_tokens=6,
            temperature=0,
            stop=["\n"],
        )
        assert sample["resps"][0][0] == expected
