"""Whole runs of methods without keys and values, where prefixes or other methods have no place."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

import foreword
from families.catalogue import plain_model
from foreword.artifacts.manifest import read_manifest
from foreword.backbone import Backbone, bundled_backbones, load_backbone
from foreword.errors import UserError
from foreword.runs import train

OWN = """
from torch import nn
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast


class OwnConfig(PreTrainedConfig):
    model_type = "own_recurrence"
    vocab_size: int = 8192
    hidden_size: int = 16


class OwnForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = OwnConfig
    base_model_prefix = "body"

    def __init__(self, config):
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            nn.GRU(config.hidden_size, config.hidden_size, batch_first=True) for _ in range(2)
        )
        self.up = nn.Linear(config.hidden_size, config.hidden_size)
        self.head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    def _init_weights(self, module):
        pass

    def get_input_embeddings(self):
        return self.words

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids, **_):
        states = self.words(input_ids)
        for layer in self.layers:
            states = layer(states)[0]
        return CausalLMOutputWithPast(logits=self.head(self.up(states)))
"""
TARGETS = {
    "deberta-v2": ["query_proj", "value_proj"],
    "deepseek_v3": ["q_b_proj", "kv_b_proj"],
    "gemma4_text": ["q_proj", "v_proj"],
    "own_recurrence": ["up"],
}
METHODS = ("fine-tuning", "bitfit", "lora", "head-only", "hard-prompt", "prompt-tuning")
REFUSED = {
    ("bitfit", "deepseek_v3"): "has no biases, so BitFit has nothing to move",
    ("bitfit", "gemma4_text"): "has no biases, so BitFit has nothing to move",
    ("head-only", "own_recurrence"): "has no part that gives the states before its own head",
}
WORDS = {"good": "yes", "bad": "no"}


def of_own_code(folder: Path) -> None:
    """A model whose code lies beside its weights."""
    (folder / "own.py").write_text(OWN, encoding="utf-8")
    scope: dict[str, Any] = {"__name__": __name__}
    exec(compile(OWN, "own.py", "exec"), scope)
    scope["OwnForCausalLM"](scope["OwnConfig"]()).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {
        "AutoConfig": "own.OwnConfig",
        "AutoModelForCausalLM": "own.OwnForCausalLM",
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


@pytest.fixture(scope="module", params=list(TARGETS))
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """Loaded from a folder, as a user's is."""
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = "foreword/mini-mlm" if request.param == "deberta-v2" else "foreword/mini"
    words = AutoTokenizer.from_pretrained(bundled_backbones()[tokenizer])
    words.save_pretrained(folder)
    if request.param == "own_recurrence":
        of_own_code(folder)
    else:
        sizes = {"vocab_size": len(words)}
        if request.param == "gemma4_text":
            sizes["vocab_size_per_layer_input"] = len(words)
        plain_model(request.param, **sizes).float().save_pretrained(folder)
    with pytest.MonkeyPatch.context() as patch:
        modules = str(tmp_path_factory.mktemp("modules"))
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", modules)
        return load_backbone(str(folder), device="cpu", trust_remote_code=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        {"text": f"a {word} {thing}", "answer": answer}
        for thing in ("day", "film", "meal")
        for word, answer in WORDS.items()
    ]
    file = tmp_path_factory.mktemp("data") / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def recipe(backbone: Backbone, data: Path, name: str) -> dict[str, Any]:
    """To write the answer; with a head, and on an encoder, to tell it."""
    family = backbone.model.config.model_type
    encodes = backbone.geometry.kind == "encoder"
    column = "label" if encodes or name == "head-only" else "references"
    task = {
        "data": {"format": "jsonl", "train": str(data), "dev": str(data), column: "answer"},
        "input": "{text}",
    }
    if encodes and name == "hard-prompt":  # which has no head
        words = {"yes": "good", "no": "bad"}
        task |= {"input": "{text} {mask}", "verbalizer": {"words": words}}
    method = {"name": name, **({"targets": TARGETS[family]} if name == "lora" else {})}
    training = {"steps": 2, "batch_size": 2, "evaluate_every": 1, "epochs": None}
    return {
        "version": 1,
        "name": "any",
        "backbone": backbone.name,
        "method": method,
        "task": task,
        **({} if name == "hard-prompt" else {"training": training}),
        "decoding": {"max_new_tokens": 3},
    }


@pytest.mark.parametrize("name", METHODS)
def test_two_steps_are_trained_and_loaded_again(
    name: str, backbone: Backbone, data: Path, tmp_path: Path
) -> None:
    given = recipe(backbone, data, name)
    reason = REFUSED.get((name, backbone.model.config.model_type))
    if reason:
        with pytest.raises(UserError, match=reason):
            train(given, out=tmp_path / "run", backbone=backbone, device="cpu")
        return
    run = train(given, out=tmp_path / "run", backbone=backbone, device="cpu")
    if name != "hard-prompt":
        lines = (run.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
        losses = [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]
        assert len(losses) == 2
        assert all(math.isfinite(loss) for loss in losses)
        assert run.metrics["training"]["trained_parameters"] > 0
    assert read_manifest(run.artifact).method.name == name
    prompt = foreword.load(run.artifact, backbone=backbone)
    inputs = [json.loads(line)["text"] for line in data.read_text("utf-8").splitlines()]
    answers = (run.folder / "answers.jsonl").read_text("utf-8").splitlines()
    if "label" in given["task"]["data"]:
        again = [prediction.answer for prediction in prompt.predict(inputs)]
    else:
        again = prompt.generate(inputs)
    assert again == [json.loads(line)["output"] for line in answers]
