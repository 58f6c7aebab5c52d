"""A tokenizer that was given tokens which the model's embedding table has no rows for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import foreword
from conftest import VOCABULARY
from foreword.backbone import Backbone, bundled_backbones, load_backbone
from foreword.errors import DataError
from foreword.recipe import parse_recipe
from foreword.runs import train
from foreword.runs.preview import preview


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A tiny Llama whose tokenizer has a pad token and one more beyond its table."""
    folder = tmp_path_factory.mktemp("grown")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(bundled_backbones()["foreword/mini"])
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(folder)
    assert tokenizer.pad_token_id == VOCABULARY
    return load_backbone(str(folder), device="cpu")


def recipe(grown: Backbone, folder: Path, method: dict[str, Any], last: str = "a day") -> Any:
    rows = [{"text": text, "references": "a bird"} for text in ("it was a long day", "so", last)]
    (folder / "x.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    data = {"format": "jsonl", "train": str(folder / "x.jsonl"), "dev": str(folder / "x.jsonl")}
    return parse_recipe(
        {
            "version": 1,
            "name": "grown",
            "backbone": grown.name,
            "task": {"data": data, "input": "{text} ->"},
            "method": method,
            "training": {"steps": 2, "batch_size": 3, "learning_rate": 0.01},
            "decoding": {"max_new_tokens": 4},
        }
    )


@pytest.mark.parametrize("method", ["prefix-tuning", "prompt-tuning"])
def test_a_pad_beyond_the_table_does_no_harm(grown: Backbone, method: str, tmp_path: Path) -> None:
    """Rows of different lengths are padded in training, in decoding and where answers end early."""
    given = recipe(grown, tmp_path, {"name": method, "length": 3})
    run = train(given, out=tmp_path / "run", backbone=grown, device="cpu")
    assert run.metrics["examples"] == 3
    prompt = foreword.load(run.folder, backbone=grown, device="cpu")
    texts = ["so ->", "it was a long and windy day ->"]
    alone = [prompt.generate([text])[0] for text in texts]
    assert prompt.generate(texts) == alone


@pytest.mark.parametrize("last", ["a <new> day", "a [PAD] day"])
@pytest.mark.parametrize("method", ["prefix-tuning", "prompt-tuning"])
def test_any_other_token_beyond_the_table_is_refused_when_the_data_is_read(
    grown: Backbone, method: str, last: str, tmp_path: Path
) -> None:
    """Virtual tokens have ids beyond the table too: such a token must not be read as one."""
    given = recipe(grown, tmp_path, {"name": method, "length": 3}, last)
    name = last.split()[1]
    said = rf"x\.jsonl, line 3: the token '{name}' has the id 819\d, but".replace("[", r"\[")
    with pytest.raises(DataError, match=said):
        preview(given, backbone=grown, device="cpu")
    with pytest.raises(DataError, match=said):
        train(given, out=tmp_path / "run", backbone=grown, device="cpu")
    assert not (tmp_path / "run").exists()
    prompt = foreword.load(
        train(
            recipe(grown, tmp_path, {"name": method, "length": 3}),
            out=tmp_path / "other",
            backbone=grown,
            device="cpu",
        ).folder,
        backbone=grown,
        device="cpu",
    )
    with pytest.raises(DataError, match="the token '<new>' has the id"):
        prompt.generate(["a <new> day ->"])
