"""What a loaded prompt takes as inputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from foreword import load
from foreword.backbone import Backbone
from foreword.compat import import_peft
from foreword.data import Example
from foreword.errors import DataError, UserError, refuse_single
from foreword.recipe import load_recipe, parse_recipe
from foreword.runs import train
from foreword.scoring import score
from foreword.session import LoadedPrompt

QUICKSTART = Path(__file__).resolve().parents[1] / "recipes" / "quickstart.yaml"


@pytest.fixture(scope="module")
def prompt(mini: Backbone, tmp_path_factory: pytest.TempPathFactory) -> LoadedPrompt:
    """A prompt that has learnt nothing."""
    small = ["training.steps=1", "training.batch_size=2", "task.limits={train: 2, dev: 1, test: 1}"]
    fast = ["decoding.max_new_tokens=2", "method.length=1", "method.reparameterization.kind=table"]
    overrides = [*small, *fast, "evaluation.backbone_alone=false"]
    out = tmp_path_factory.mktemp("runs") / "run"
    run = train(QUICKSTART, overrides=overrides, out=out, backbone=mini, device="cpu")
    return load(run.artifact, backbone=mini)


@pytest.mark.parametrize("inputs", ["App crashes", {"record": "x"}, b"x"])
def test_one_input_by_itself_is_no_list(prompt: LoadedPrompt, inputs: Any) -> None:
    """Python would take a text for its characters."""
    for ask in (prompt.generate, prompt.answer):
        with pytest.raises(UserError, match=r"^inputs: expected a list, found one (text|mapping)"):
            ask(inputs)


@pytest.mark.parametrize(
    "call",
    [
        lambda: load_recipe(QUICKSTART, "seed=1"),
        lambda: parse_recipe(yaml.safe_load(QUICKSTART.read_text("utf-8")), "seed=1"),
        lambda: train(QUICKSTART, overrides="seed=1"),  # type: ignore[arg-type]
        lambda: score("a b", [["a b"]]),
        lambda: score(["a b"], "a b"),
        lambda: score(["a b"], ["a b"]),
        lambda: score(["a b"], [["a b"]], "bleu"),
        lambda: import_peft("nowhere", "out", labels="a,b"),
        lambda: refuse_single("x", "a"),
    ],
)
def test_one_text_in_the_place_of_a_list(call: Callable[[], object], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a list, found one text; write \\['"):
        call()


def test_metrics_of_an_evaluation_are_a_list(prompt: LoadedPrompt) -> None:
    with pytest.raises(UserError, match=r"^metrics: expected a list"):
        prompt.evaluate([], metrics="bleu")


def test_texts_fields_and_examples_ask_the_same(prompt: LoadedPrompt) -> None:
    asked = ["name : A", {"record": {"name": "A"}}, Example({"record": {"name": "A"}})]
    first, *rest = prompt.generate(asked)
    assert rest == [first, first]
    assert prompt.generate(iter([])) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"record": None}, "^input 2, field 'record': is null; expected a text"),
        ("a\ud800", r"^input 2: is no text that can be read: it holds half a character"),
        ({"record": "\udcff"}, "^input 2, field 'record': is no text that can be read"),
        (None, "^input 2: expected a text, or named values, found NoneType"),
        (7, "^input 2: expected a text, or named values, found int"),
    ],
)
def test_what_is_no_input(prompt: LoadedPrompt, given: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        prompt.generate(["name : A", given])
