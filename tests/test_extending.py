"""The examples of docs/extending.md, each run as it stands there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from conftest import arranged, assert_close, random_ids
from foreword import names
from foreword.artifacts.artifact import load_model, save_artifact
from foreword.artifacts.manifest import read_manifest
from foreword.axes.injection.options import INJECTIONS
from foreword.axes.reparam.options import REPARAMETERIZATIONS
from foreword.backbone import Backbone, Decoding
from foreword.cli.app import app
from foreword.common.progress import Silent
from foreword.data import read_examples
from foreword.errors import ArtifactError, DataError
from foreword.evaluation import METRICS as SCORED
from foreword.extensions import load_plugin
from foreword.methods import METHODS
from foreword.methods.axes import ActivationsInit
from foreword.recipe import TaskId, parse_recipe
from foreword.runs.preparing import prepare
from foreword.training import Pair, train
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose
from foreword.tuned.initial import initialise

PAGE = Path(__file__).resolve().parents[1] / "docs" / "extending.md"
TEXTS = ["a bird", "The robin is a small"]
EXAMPLES = {
    block.split(":")[0].removeprefix("# "): block
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
}


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """`example(name)`: an example of the page as a file, whose names last as long as the test."""
    shared: tuple[Any, ...] = (
        METHODS,
        REPARAMETERIZATIONS,
        INJECTIONS,
        names.METRICS,
        names.FORMATS,
    )
    kept = [(registry, dict(registry._entries)) for registry in shared]

    def write(name: str) -> Path:
        file = tmp_path / name
        file.write_text(EXAMPLES[name], encoding="utf-8")
        return file

    yield write
    for registry, entries in kept:
        registry._entries = entries
        registry.changes += 1


def recipe(method: Any, **task: Any) -> Any:
    data = {"format": "jsonl", "train": "foreword/fieldguide/train"}
    return parse_recipe(
        {
            "version": 1,
            "name": "it",
            "backbone": "foreword/mini",
            "task": {"data": data, **task},
            "method": method,
            "training": {"steps": 4, "batch_size": 2, "learning_rate": 0.1},
        }
    )


def trained(backbone: Backbone, checked: Any) -> TunedModel:
    model = compose(backbone, checked.method)
    pairs = [Pair(*pair) for pair in zip(random_ids([4, 6]), random_ids([3, 2]), strict=True)]
    train(model, pairs, checked.training)
    return model


def stored(folder: Path, model: TunedModel, method: Any) -> None:
    task = TaskId(input="{text}\n", target="{reference}")
    save_artifact(folder, model, name="it", method=method, task=task)


def test_every_example_is_here() -> None:
    assert list(EXAMPLES) == ["product.py", "gated.py", "whole.py", "words.py", "pairs.py"]


def test_a_reparameterization(
    example: Callable[[str], Path], tiny_backbone: Callable[..., Backbone]
) -> None:
    load_plugin(example("product.py"))
    backbone = tiny_backbone("llama")
    made = {"kind": "product", "rank": 2}
    checked = recipe({"name": "prefix-tuning", "length": 5, "reparameterization": made})
    model = compose(backbone, checked.method)
    width = model.injection.width
    assert model.trained_parameters == 2 * (5 + width)
    assert torch.linalg.matrix_rank(model.rows()) == 2
    whole = recipe(
        {"name": "prefix-tuning", "length": 4, "reparameterization": {**made, "rank": 4}}
    )
    fitted = compose(backbone, whole.method)
    left = initialise(fitted, ActivationsInit(text="The robin sings in the garden"), [])
    assert left == pytest.approx(0, abs=1e-9)
    assert recipe({"name": "p-tuning", "reparameterization": "product"}).method.length == 9


def test_a_method_with_a_tensor_of_its_own(
    example: Callable[[str], Path], tiny_backbone: Callable[..., Backbone], tmp_path: Path
) -> None:
    load_plugin(example("gated.py"))
    backbone = tiny_backbone("gpt2")
    method = {"name": "gated-prefix", "length": 3, "reparameterization": "table"}
    checked = recipe(method)
    start = compose(backbone, checked.method)
    values = start.prompt().sites["decoder"].values  # type: ignore[union-attr]
    assert not values.any(), "gates are closed at first"
    model = trained(backbone, checked)
    named = model.reparam()
    assert named["decoder.gates"].shape == (3,)
    assert named["decoder.gates"].all(), "and are trained"
    prompt = model.prompt()
    assert prompt is not None
    gates = named["decoder.gates"].tanh()
    for layer in range(3):
        own = named["decoder.values"][layer] * gates[layer]
        assert_close(prompt.sites["decoder"].values[layer], own)
    stored(tmp_path / "artifact", model, checked.method)
    manifest, again = load_model(tmp_path / "artifact", backbone=backbone)
    assert manifest.axes["injection"] == "gated_keys_values"
    for name, tensor in again.reparam().items():
        assert torch.equal(tensor, named[name]), name
    how = Decoding(max_new_tokens=5)
    answers = [m.answers(arranged(m, TEXTS, side="left"), how) for m in (model, again)]
    assert answers[0] == answers[1]
    assert again.stored_parameters == model.stored_parameters
    del METHODS._entries["gated-prefix"]
    METHODS.changes += 1
    with pytest.raises(ArtifactError, match=r"not known here.*load_plugin[\s\S]*'gated-prefix'"):
        read_manifest(tmp_path / "artifact")


def test_a_method_that_reads_training_examples(
    example: Callable[[str], Path], mini: Backbone, tmp_path: Path
) -> None:
    load_plugin(example("whole.py"))
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        '{"bird": "robin", "says": "red"}\n{"bird": "wren", "says": "brown"}\n', "utf-8"
    )
    given = recipe(
        "whole-examples",
        data={"format": "jsonl", "train": str(rows), "dev": str(rows), "references": "says"},
        input="{bird} ->",
        target=" {reference}",
    )
    ready = prepare(given, "cpu", mini, Silent())
    method, tokens = ready.recipe.method, mini.tokens
    written = {tokens.text(list(pair.source + pair.target)) for pair in ready.data.pairs}
    ends = [0, *(i + 1 for i, token in enumerate(method.init.tokens) if token == tokens.eos_id)]
    shown = {tokens.text(list(method.init.tokens[begin:end])) for begin, end in pairwise(ends)}
    assert shown == written
    assert ready.model.placement.length == method.length == ends[-1]


def test_a_metric(example: Callable[[str], Path]) -> None:
    load_plugin(example("words.py"))
    assert recipe("prefix-tuning", metrics=["words", "bleu"]).task.measured == ("words", "bleu")
    assert SCORED["words"].score(["one two", "three"], []) == 1.5
    assert SCORED["words"].score([], []) is None


def test_a_data_format(example: Callable[[str], Path], tmp_path: Path) -> None:
    load_plugin(example("pairs.py"))
    data = {"format": "pairs", "train": "x"}
    assert recipe("prefix-tuning", data=data, input="{text}").task.answer == "text"
    file = tmp_path / "birds.txt"
    file.write_text("robin\tred\nwren\tbrown\n", encoding="utf-8")
    assert [one.references for one in read_examples(file, "pairs")] == [("red",), ("brown",)]
    file.write_text("robin\tred\nwren brown\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 2: expected a source and a target"):
        read_examples(file, "pairs")


def test_the_command_line_loads_a_file(example: Callable[[str], Path], tmp_path: Path) -> None:
    file = str(example("gated.py"))
    done = CliRunner().invoke(app, ["recipe-schema", "--plugin", file])
    assert done.exit_code == 0
    assert (
        "gated-prefix"
        in json.loads(done.output)["properties"]["method"]["anyOf"][0]["discriminator"]["mapping"]
    )
    done = CliRunner().invoke(app, ["show", str(tmp_path), "--plugin", str(tmp_path / "gone.py")])
    assert "no such file" in str(done.exception)
    for verb in ("train", "generate", "predict", "evaluate", "show", "ls"):
        assert "--plugin" in CliRunner().invoke(app, [verb, "--help"], color=False).output, verb
