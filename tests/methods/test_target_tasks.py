"""A target task of multitask prompt tuning starts from a source artifact, as in PEFT."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import torch
from peft.tuners.multitask_prompt_tuning import MultitaskPromptEmbedding
from torch import nn

import foreword
from foreword.common.progress import Silent
from foreword.errors import UserError
from foreword.methods import MultitaskPromptTuning
from foreword.recipe import parse_recipe
from foreword.runs import train as run
from foreword.runs.preparing import prepare
from foreword.tuned.initial import initialise
from methods.several_tasks import STORED, recipe, rows_of_tasks


def test_a_target_task_starts_from_a_source_artifact(mini, tmp_path) -> None:
    """The three starts that PEFT has, held against its own numbers."""
    rows = rows_of_tasks(tmp_path)
    source = run(recipe(rows), backbone=mini, out=tmp_path / "source", device="cpu")
    foreword.export_peft(source.artifact, tmp_path / "exported")
    kept = foreword.load(source.artifact, backbone=mini).model.reparam()
    starts: dict[str, tuple[dict[str, Any], str, int]] = {
        "AVERAGE_SOURCE_TASKS": ({}, "average", 0),
        "EXACT_SOURCE_TASK": ({"task": "loud"}, "average", 1),
        "ONLY_SOURCE_SHARED": ({"factors": "random"}, "random", 0),
    }
    for theirs, (options, factors, task) in starts.items():
        given = recipe(
            rows,
            name="target",
            method={
                "task_column": None,
                "init": {"kind": "artifact", "path": str(source.folder), **options},
            },
        )
        del given["method"]["length"]
        ready = prepare(parse_recipe(given), "cpu", mini, Silent())
        model, method = ready.model, ready.recipe.method
        assert isinstance(method, MultitaskPromptTuning)
        assert method.length == 4
        initialise(model, method.init, [], trained=ready.trained)
        named = model.reparam()
        config = peft.MultitaskPromptTuningConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=4,
            token_dim=mini.geometry.width,
            num_transformer_submodules=1,
            prompt_tuning_init=theirs,
            prompt_tuning_init_task=task,
            prompt_tuning_init_state_dict_path=str(
                tmp_path / "exported" / "adapter_model.safetensors"
            ),
        )
        expected = MultitaskPromptEmbedding(config, nn.Embedding(2, mini.geometry.width))
        for name, other in STORED.items():
            drawn = factors == "random" and name != "embeddings"
            same = torch.equal(named[f"decoder.{name}"], expected.get_parameter(other))
            assert same != drawn, (theirs, name)
    given = recipe(rows, method={"init": {"kind": "artifact", "path": str(source.folder)}})
    given["method"]["init"]["factors"] = "same"
    again = run(
        {**given, "training": {**given["training"], "learning_rate": 1e-9}},
        backbone=mini,
        out=tmp_path / "again",
        device="cpu",
    )
    for name, tensor in foreword.load(again.artifact, backbone=mini).model.reparam().items():
        assert (tensor - kept[name]).abs().max() < 1e-6, name


def test_what_no_target_task_starts_from_is_refused(mini, tmp_path) -> None:
    rows = rows_of_tasks(tmp_path)
    source = run(recipe(rows), backbone=mini, out=tmp_path / "source", device="cpu")
    path = {"kind": "artifact", "path": str(source.folder)}
    for method, said in (
        ({"init": {**path, "task": "lout"}}, "has no task 'lout' .method.init.task. .did you mean"),
        ({"init": path, "rank": 2}, "a rank of 1, this run has 4 and 2"),
        ({"init": path, "length": 5}, "has a length of 4"),
        ({"init": {**path, "factors": "same"}, "task_column": None}, "`same` goes on with the"),
    ):
        with pytest.raises(UserError, match=said):
            prepare(parse_recipe(recipe(rows, method=method)), "cpu", mini, Silent())
    other = recipe(rows, method={"name": "prompt-tuning", "init": "vocabulary"})
    del other["method"]["task_column"]
    plain = run(other, backbone=mini, out=tmp_path / "plain", device="cpu")
    from_plain = {"init": {"kind": "artifact", "path": str(plain.folder)}}
    with pytest.raises(UserError, match="is prompt-tuning, but a target task starts from"):
        prepare(parse_recipe(recipe(rows, method=from_plain)), "cpu", mini, Silent())
