"""Recipes: all mistakes at once and in plain words, precedence, paths, round trips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import BaseModel, ValidationError

from foreword.errors import RecipeError
from foreword.methods import METHODS
from foreword.methods.axes import MLP, ActivationsInit, Data, RandomInit, Table
from foreword.recipe import (
    BackboneSpec,
    DataSpec,
    DecodingSpec,
    EvaluationSpec,
    Limits,
    Recipe,
    TaskSpec,
    TrainingSpec,
    load_recipe,
    parse_recipe,
    recipe_schema,
)
from foreword.recipe.yaml_text import parse_yaml

MINIMAL: dict[str, Any] = {
    "version": 1,
    "name": "minimal",
    "backbone": "foreword/mini",
    "task": {
        "data": {
            "format": "jsonl",
            "train": "foreword/fieldguide/train",
            "dev": "foreword/fieldguide/dev",
        }
    },
    "method": "prefix-tuning",
}
SECTIONS: dict[str, type[BaseModel]] = {
    "backbone": BackboneSpec,
    "task": TaskSpec,
    "task.data": DataSpec,
    "task.limits": Limits,
    "training": TrainingSpec,
    "decoding": DecodingSpec,
    "evaluation": EvaluationSpec,
}


def problems(*overrides: str, **sections: Any) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        parse_recipe({**MINIMAL, **sections}, overrides)
    return list(caught.value.problems)


def write(folder: Path, **sections: Any) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump({**MINIMAL, **sections}), encoding="utf-8")
    return file


def test_all_mistakes_at_once() -> None:
    found = problems(
        "nonsense",
        "seed.low=1",
        name="-x",
        backbone={"name": "foreword/mini", "dtyp": "float32"},
        task={"data": {"format": "jsnl"}, "metrics": ["blue"]},
        method={"name": "prefix-tuning", "length": 0},
        training={"steps": 1, "epochs": 1, "patience": 1, "batch_size": 0, "schedule": "linaer"},
        decoding={"top_p": 2},
        seed=3,
    )
    assert sorted(line.split(":")[0] for line in found) == [
        "backbone.dtyp",
        "decoding.top_p",
        "method.length",
        "name",
        "override nonsense",
        "override seed.low=1",
        "task.data.format",
        "task.metrics.0",
        "training",
        "training",
        "training.batch_size",
        "training.patience",
        "training.schedule",
    ]


def test_the_count_stands_in_the_message() -> None:
    with pytest.raises(RecipeError, match=r"^here: 1 problem\n  - seed: must be at least 0"):
        parse_recipe({**MINIMAL, "seed": -1}, where="here")
    with pytest.raises(RecipeError, match="2 problems"):
        parse_recipe({**MINIMAL, "seed": -1, "name": ""})


@pytest.mark.parametrize("other", [{}, {"batch_size": "x"}, {"learning_rate": -1}, {"extra": 1}])
@pytest.mark.parametrize(
    ("section", "line"),
    [
        ({"epochs": 1, "steps": 1}, "training: give either `epochs` or `steps`"),
        ({"epochs": None}, "training: give either `epochs` or `steps`"),
        ({"patience": 1}, "training: `patience` needs `evaluate_every` and `best_by`"),
        (
            {"patience": 1, "evaluate_every": 1, "best_by": None},
            "training: `patience` needs `evaluate_every` and `best_by`",
        ),
    ],
)
def test_rules_between_fields_hold_beside_other_mistakes(
    section: dict[str, Any], line: str, other: dict[str, Any]
) -> None:
    found = problems(training={**section, **other})
    assert found.count(line) == 1
    assert len(found) == 1 + len(other)


def test_a_wrong_value_breaks_no_rule_between_fields() -> None:
    assert len(problems(training={"epochs": -1})) == 1
    found = problems(training={"steps": 9, "patience": 1, "evaluate_every": -1})
    assert [line.split(":")[0] for line in found] == ["training.evaluate_every"]


TYPES = "training.precision: `bfloat16` has no meaning on a backbone in float16"
LABELLED: dict[str, Any] = {
    "data": {"format": "csv", "train": "train.csv", "dev": "dev.csv", "label": "label"}
}
BLIND: dict[str, Any] = {"data": {"format": "jsonl", "train": "foreword/fieldguide/train"}}


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        (
            {"backbone": {"name": "x", "dtype": "float16"}, "training": {"precision": "bfloat16"}},
            TYPES,
        ),
        (
            {"backbone": {"name": "x", "dtype": "float64"}, "training": {"precision": "bfloat16"}},
            TYPES.replace("in float16", "in float64"),
        ),
        (
            {
                "task": {**LABELLED, "head": {"pooling": "prompt"}},
                "method": {"name": "p-tuning-v2"},
            },
            "task.head.pooling: `prompt` reads a virtual token in an encoder's input, where "
            "p-tuning-v2 has none; choose first, last or mean",
        ),
        (
            {"task": BLIND, "training": {"best_by": "bleu"}},
            "training.best_by: `bleu` needs `task.data.dev` or `task.data.hold_out` to measure on",
        ),
        (
            {"training": {"best_by": "accuracy"}},
            "training.best_by: `accuracy` measures a label or one of a row's own choices, but this "
            "task asks for a text; choose among loss, bleu, chrf, ter, slot_coverage, nist, "
            "meteor, rouge_l, cider, rouge1, rouge2, rougeL",
        ),
        (
            {
                "task": {"data": {"format": "conll", "train": "x", "dev": "y"}},
                "training": {"best_by": "exact_match"},
            },
            "training.best_by: `exact_match` measures a span of a context, but this task asks for "
            "tags of words; choose among loss, entity_f1, entity_precision, entity_recall, "
            "tag_accuracy",
        ),
        (
            {"training": {"head_learning_rate": 0.1}},
            "training: `head_learning_rate` is of a head, but this task asks for a text without "
            "one; leave it out",
        ),
        (
            {"task": LABELLED, "training": {"delta_learning_rate": 0.1}},
            "training: `delta_learning_rate` is of the backbone's own weights, of which "
            "prefix-tuning moves none; leave it out, or name a method or `method.delta` that does",
        ),
        (
            {"task": BLIND, "training": {"patience": 1, "evaluate_every": 1}},
            "training.patience: needs `task.data.dev` or `task.data.hold_out` to watch",
        ),
    ],
)
@pytest.mark.parametrize("other", [{}, {"seed": -1}, {"evaluation": {"samples": "x"}}])
def test_rules_between_sections_hold_beside_other_mistakes(
    sections: dict[str, Any], line: str, other: dict[str, Any]
) -> None:
    found = problems(**sections, **other)
    assert sum(one.startswith(line) for one in found) == 1
    assert len(found) == 1 + len(other)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "auto"])
def test_types_that_go_together(dtype: str) -> None:
    overrides = [f"backbone.dtype={dtype}", "training.precision=bfloat16"]
    assert parse_recipe(MINIMAL, overrides).training.precision == "bfloat16"
    for alone in ("float16", "float64"):
        assert parse_recipe(MINIMAL, [f"backbone.dtype={alone}"]).backbone.dtype == alone


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        ({"trainig": {}}, "trainig: no such name (did you mean 'training'?)"),
        (
            {"backbone": {"nam": 1, "name": "x"}},
            "backbone.nam: no such name (did you mean 'name'?)",
        ),
        (
            {"method": {"name": "prefix-tuning", "lenght": 5}},
            "method.lenght: no such name (did you mean 'length'?)",
        ),
        (
            {"method": "prefix"},
            "method.name: 'prefix' is not known (did you mean 'prefix-tuning'?)",
        ),
        ({"method": "x"}, f"method.name: 'x' is not known (known: {', '.join(sorted(METHODS))})"),
        (
            {"method": {"name": "prefix-tuning", "reparameterization": {"kind": "mpl"}}},
            "method.reparameterization.kind: 'mpl' is not known (did you mean 'mlp'?)",
        ),
        (
            {
                "method": {
                    "name": "prefix-tuning",
                    "reparameterization": {"kind": "mlp", "hiden": 1},
                }
            },
            "method.reparameterization.hiden: no such name (did you mean 'hidden'?)",
        ),
        (
            {"training": {"loss": "token"}},
            "training.loss: 'token' is not known (did you mean 'token_mean'?)",
        ),
        (
            {"training": {"table": 1}},
            "training.table: no such name (known: accumulation, batch_size, best_by, betas, "
            "checkpoint_every, clip, delta_learning_rate, epochs, evaluate_every, "
            "gradient_checkpointing, head_learning_rate, learning_rate, loss, memory, "
            "micro_batch_size, mlm_batch_size, mlm_weight, patience, precision, savings, "
            "schedule, source_cache, steps, tracker, warmup, weight_decay)",
        ),
    ],
)
def test_did_you_mean(sections: dict[str, Any], line: str) -> None:
    assert problems(**sections) == [line]


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        ({"task": 3}, "task: expected a mapping, found 3"),
        ({"backbone": None}, "backbone: expected a mapping, found nothing"),
        ({"backbone": ["x"]}, "backbone: expected a mapping, found a list"),
        ({"method": {}}, "method: expected a mapping with `name` (known: "),
        ({"method": 7}, "method: expected a mapping, found 7"),
        ({"method": {"name": "prefix-tuning", "init": 7}}, "method.init: expected a mapping"),
        (
            {"method": {"name": "prefix-tuning", "init": "activations"}},
            "method.init: give `text`, or `examples` of at least 1, or both",
        ),
        ({"training": {"steps": "many"}}, "training.steps: expected a whole number, found 'many'"),
        ({"training": {"steps": 1.5}}, "training.steps: expected a whole number, found 1.5"),
        ({"training": {"steps": 0}}, "training.steps: must be at least 1, found 0"),
        ({"training": {"warmup": "x"}}, "training.warmup: expected a number, found 'x'"),
        ({"training": {"clip": 0}}, "training.clip: must be more than 0, found 0"),
        (
            {"training": {"clip": float("nan")}},
            "training.clip: expected a finite number, found nan",
        ),
        ({"training": {"betas": [0.9]}}, "training.betas.1: is missing"),
        (
            {"training": {"betas": [0.9, 1.0]}},
            "training.betas.1: must be less than 1, found 1.0",
        ),
        ({"training": {"betas": 3}}, "training.betas: expected a list, found 3"),
        (
            {"training": {"batch_size": "auto"}},
            "training.batch_size: `auto` would leave open how many examples an optimizer step",
        ),
        ({"training": {"micro_batch_size": "most"}}, "training.micro_batch_size: expected a whole"),
        ({"training": {"micro_batch_size": 0}}, "training.micro_batch_size: must be at least 1"),
        (
            {"training": {"gradient_checkpointing": "yes and no"}},
            "training.gradient_checkpointing: expected true or false",
        ),
        ({"training": {"memory": 8}}, "training: `memory` is what `micro_batch_size: auto` and"),
        (
            {"training": {"mlm_weight": 0.1, "micro_batch_size": 4}},
            "training: `mlm_weight` draws masked words for each forward pass",
        ),
        ({"training": {"savings": {"head": 2}}}, "training.savings.head: expected true or false"),
        ({"decoding": {"do_sample": "perhaps"}}, "decoding.do_sample: expected true or false"),
        ({"decoding": {"stop": "end"}}, "decoding.stop: expected a list, found 'end'"),
        ({"decoding": {"stop": [""]}}, "decoding.stop: a stop word must not be empty"),
        ({"decoding": {"top_p": 1.5}}, "decoding.top_p: must be at most 1, found 1.5"),
        ({"seed": 2**32}, "seed: must be less than 4294967296, found 4294967296"),
        ({"name": "a b"}, "name: expected letters, digits, '.', '_' and '-', beginning with"),
        ({"name": "x" * 101}, "name: expected at most 100 characters, found 'xxx"),
        ({"backbone": ""}, "backbone.name: expected at least 1 character, found ''"),
        ({"task": {"data": {"format": "csv", "train": ""}}}, "task.data.train: expected a name or"),
        ({"task": {}}, "task.data: is missing"),
        ({"version": "1.0"}, "version: '1.0' is not known (known: 1)"),
    ],
)
def test_messages_are_in_the_users_words(sections: dict[str, Any], line: str) -> None:
    found = problems(**sections)
    assert len(found) == 1
    assert found[0].startswith(line)


def test_unknown_version_is_said_alone() -> None:
    line = "version: 2 is not known here, this foreword reads version 1"
    assert problems(version=2, nonsense=1) == [line]
    with pytest.raises(RecipeError, match="version: is missing"):
        parse_recipe({k: v for k, v in MINIMAL.items() if k != "version"})


@pytest.mark.parametrize("raw", [None, 3, "text", [MINIMAL]])
def test_what_is_no_mapping(raw: Any) -> None:
    with pytest.raises(RecipeError, match="must be a mapping of sections, found"):
        parse_recipe(raw)


def test_precedence() -> None:
    paper = METHODS["prefix-tuning"].training_defaults
    recipe = parse_recipe(MINIMAL)
    assert recipe.training.learning_rate == paper["learning_rate"]
    assert recipe.training.epochs == paper["epochs"]
    assert recipe.training.batch_size == paper["batch_size"]
    recipe = parse_recipe({**MINIMAL, "training": {"learning_rate": 0.5, "steps": 7}})
    assert (recipe.training.learning_rate, recipe.training.steps) == (0.5, 7)
    assert recipe.training.epochs is None
    assert recipe.training.batch_size == paper["batch_size"]
    recipe = parse_recipe(
        {**MINIMAL, "training": {"learning_rate": 0.5}},
        ["training.learning_rate=1e-2", "training.learning_rate=2e-2"],
    )
    assert recipe.training.learning_rate == 2e-2


def test_steps_and_epochs_given_with_set_replace_each_other() -> None:
    recipe = parse_recipe({**MINIMAL, "training": {"epochs": 3}}, ["training.steps=7"])
    assert (recipe.training.steps, recipe.training.epochs) == (7, None)
    recipe = parse_recipe({**MINIMAL, "training": {"steps": 3}}, ["training.epochs=0.5"])
    assert (recipe.training.steps, recipe.training.epochs) == (None, 0.5)


def test_set_reaches_below_plain_texts() -> None:
    recipe = parse_recipe(
        MINIMAL, ["backbone.dtype=bfloat16", "method.length=3", "method.reparameterization=table"]
    )
    assert recipe.backbone == BackboneSpec(name="foreword/mini", dtype="bfloat16")
    assert recipe.method.length == 3
    assert recipe.method.reparameterization == Table()
    recipe = parse_recipe(
        {**MINIMAL, "method": {"name": "prefix-tuning", "init": "activations"}},
        ["method.init.text=a bird"],
    )
    assert recipe.method.init == ActivationsInit(text="a bird")


def test_set_makes_sections_and_reads_yaml() -> None:
    recipe = parse_recipe(
        MINIMAL, ["evaluation.samples=0", "decoding.stop=[a, b]", "training.clip=null", "name='1'"]
    )
    assert recipe.evaluation.samples == 0
    assert recipe.decoding.stop == ("a", "b")
    assert recipe.training.clip is None
    assert recipe.name == "1"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed", "expected key.path=value"),
        ("=3", "expected key.path=value"),
        ("a..b=3", "expected key.path=value"),
        ("seed=[", "the value is not valid YAML"),
        ("seed.low=3", "'seed' is a number, so it has nothing named below it"),
        ("task.data.train.x=3", "'train' is a text, so it has nothing named below it"),
    ],
)
def test_wrong_overrides(override: str, said: str) -> None:
    (line,) = problems(override, seed=0)
    assert line == f"override {override}: {line.split(': ', 1)[1]}"
    assert said in line


def test_overrides_leave_the_given_data_alone() -> None:
    given = json.loads(json.dumps(MINIMAL))
    parse_recipe(given, ["task.data.train=x", "training.steps=1", "method.length=1"])
    assert given == MINIMAL


def test_plain_texts_stand_for_names_and_kinds() -> None:
    recipe = parse_recipe(
        {
            **MINIMAL,
            "method": {
                "name": "prefix-tuning",
                "reparameterization": "mlp",
                "init": "random",
            },
        }
    )
    assert recipe.method.reparameterization == MLP()
    assert recipe.method.init == RandomInit()
    assert recipe.backbone == BackboneSpec(name="foreword/mini")


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "+1e-3", "0.001", "1.e-3", ".1e-2", "10e-4"])
def test_numbers_with_exponents(text: str, tmp_path: Path) -> None:
    file = write(tmp_path, training={"learning_rate": "RATE"})
    file.write_text(file.read_text(encoding="utf-8").replace("RATE", text), encoding="utf-8")
    assert load_recipe(file).training.learning_rate == pytest.approx(1e-3)
    assert load_recipe(file, ["training.weight_decay=1e-3"]).training.weight_decay == 1e-3


def test_texts_that_look_like_numbers_stay_texts(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("name: 1e\nbackbone: e3\nmethod: 1e-3x\n", encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    assert not [line for line in caught.value.problems if line.startswith(("name", "backbone"))]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version: 1\nversion: 1\n", "line 2, column 1: key 'version' stands twice"),
        ("task:\n  data:\n    dev: a\n    dev: b\n", "line 4, column 5: key 'dev' stands twice"),
        ("task: {1: a}\n", "line 1, column 8: key 1 is not a text"),
        ("a: &x [1]\nb: *x\n", "line 2, column 4: an alias"),
        ("a: {<<: {b: 1}}\n", "line 1, column 5: merging with <<"),
        ("task: [\n", "line 2, column 1"),
    ],
)
def test_yaml_mistakes_have_a_place(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    assert f"is not valid YAML: {said}" in caught.value.problems[0]


def test_an_alias_of_a_plain_value_is_fine(tmp_path: Path) -> None:
    file = write(tmp_path, name="&n minimal", seed="*n")
    text = file.read_text(encoding="utf-8").replace("'&n minimal'", "&n '7'")
    file.write_text(text.replace("'*n'", "*n"), encoding="utf-8")
    assert load_recipe(file).seed == 7


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for file in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(RecipeError, match=r"no such file|cannot be read"):
            load_recipe(file)


def test_paths_are_relative_to_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    file = write(
        tmp_path,
        backbone="./model",
        task={
            "data": {
                "format": "jsonl",
                "train": "foreword/fieldguide/train",
                "dev": "../dev.jsonl",
                "test": "~/test.jsonl",
            }
        },
    )
    recipe = load_recipe(file)
    assert recipe.task.data.train == "foreword/fieldguide/train"
    assert recipe.task.data.dev == str(tmp_path.resolve().parent / "dev.jsonl")
    assert recipe.task.data.test == str(tmp_path / "home" / "test.jsonl")
    assert recipe.backbone.name == str(tmp_path.resolve() / "model")
    nobody = write(tmp_path, task={"data": {"format": "csv", "train": "~nobody-of-this-name/x"}})
    train = load_recipe(nobody).task.data.train
    assert train == str(tmp_path.resolve() / "~nobody-of-this-name" / "x")


def test_paths_given_with_set_are_relative_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    file = write(tmp_path)
    here = tmp_path.resolve() / "here"
    assert load_recipe(file, ["task.data.dev=x"]).task.data.dev == str(here / "x")
    assert load_recipe(file, ["task.data.dev=/x"]).task.data.dev == "/x"
    bundled = "foreword/fieldguide/dev"
    assert load_recipe(file, [f"task.data.dev={bundled}"]).task.data.dev == bundled
    assert load_recipe(file, ["backbone=./x"]).backbone.name == str(here / "x")
    assert load_recipe(file, ["backbone.name=./x"]).backbone.name == str(here / "x")
    for name in ("foreword/mini", "org/model", "gpt2"):
        assert load_recipe(file, [f"backbone={name}"]).backbone.name == name


@pytest.mark.parametrize("folder", ["model", "org/model"])
def test_a_folder_that_is_there_is_a_backbone(folder: str, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir(parents=True)
    file = write(tmp_path, backbone=folder)
    assert load_recipe(file).backbone.name == str(tmp_path.resolve() / folder)


@pytest.mark.parametrize("field", ["backbone", "backbone.name", "task.data.train"])
def test_paths_that_no_file_has(field: str, tmp_path: Path) -> None:
    file = write(tmp_path)
    for text in ('""', r'"a\0b"', r'"./a\0b"'):
        with pytest.raises(RecipeError, match=r"expected a(t least| name or a path)"):
            load_recipe(file, [f"{field}={text}"])
    load_recipe(file, [f"{field}={'x' * 10_000}"])


@pytest.mark.parametrize("file", sorted(Path("recipes").glob("**/*.yaml")), ids=str)
def test_round_trip(file: Path) -> None:
    recipe = load_recipe(file)
    assert parse_recipe(yaml.safe_load(recipe.to_yaml())) == recipe


def test_round_trip_of_unusual_values(tmp_path: Path) -> None:
    recipe = parse_recipe(
        {
            **MINIMAL,
            "task": {**MINIMAL["task"], "input": "{a}: 火 {{\n\t|\u2028 'x' \"y\" #\n"},
            "method": {
                "name": "prefix-tuning",
                "reparameterization": "table",
                "init": {"kind": "activations", "text": "a: b\n", "examples": 2},
            },
            "training": {"epochs": 0.1, "learning_rate": 1e-7, "clip": None, "best_by": None},
            "decoding": {"stop": ["\n", "no", "1", " "]},
        }
    )
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe.to_yaml(), encoding="utf-8")
    again = load_recipe(file)
    assert again == recipe
    assert again.to_yaml() == recipe.to_yaml()


def test_frozen() -> None:
    recipe = parse_recipe(MINIMAL)
    for part in (recipe, recipe.task, recipe.training, recipe.method):
        with pytest.raises(ValidationError, match="frozen"):
            part.name = "other"  # type: ignore[union-attr]


def test_schema_mentions_each_field() -> None:
    schema = recipe_schema()
    json.dumps(schema)
    assert set(schema["properties"]) == set(Recipe.model_fields)
    for model in (*SECTIONS.values(), *METHODS.values(), Table, MLP, RandomInit, ActivationsInit):
        assert set(schema["$defs"][model.__name__]["properties"]) == set(model.model_fields)
        assert schema["$defs"][model.__name__]["additionalProperties"] is False


def test_schema_is_well_formed() -> None:
    schema = recipe_schema()
    kinds = {"type", "$ref", "anyOf", "oneOf", "const", "enum"}
    referred: set[str] = set()

    def visit(node: Any) -> None:
        for inner in node.values() if isinstance(node, dict) else node:
            if isinstance(inner, (dict, list)):
                visit(inner)
        if isinstance(node, dict):
            referred.update([node["$ref"]] if isinstance(node.get("$ref"), str) else [])
            fields = node.get("properties", {}).values()
            assert all(kinds & field.keys() for field in fields if isinstance(field, dict))

    visit(schema)
    assert referred == {f"#/$defs/{name}" for name in schema["$defs"]}
    assert set(schema["required"]) == {"version", "name", "backbone", "method"}
    assert schema["anyOf"] == [{"required": ["task"]}, {"required": ["teacher"]}]


def test_schema_knows_the_plain_texts() -> None:
    for section in ("backbone", "method"):
        assert {"type": "string"} in recipe_schema()["properties"][section]["anyOf"]


def test_schema_takes_every_recipe_and_what_a_run_writes_down() -> None:
    validator = jsonschema.Draft202012Validator(recipe_schema())
    validator.check_schema(validator.schema)
    files = sorted(Path("recipes").glob("**/*.yaml"))
    assert files
    for file in files:
        recipe = load_recipe(file)
        for raw in (parse_yaml(file.read_text(encoding="utf-8")), yaml.safe_load(recipe.to_yaml())):
            assert [error.message for error in validator.iter_errors(raw)] == [], file


NEEDED: dict[str, dict[str, Any]] = {
    "pet": {
        "method": {"patterns": "{a} {mask}", "words": {"x": "good", "y": ["bad", "poor"]}},
        "task": {
            "data": {"format": "tsv", "train": "a", "dev": "b", "label": "c"},
            "input": "{a}",
        },
    }
}
"""What a method cannot be without, beside the minimum."""


def every(options: type[Data]) -> list[type[Data]]:
    """All classes below one."""
    below = options.__subclasses__()
    return [*below, *(one for inner in below for one in every(inner))]


@pytest.mark.parametrize("field", ["init", "reparameterization"])
@pytest.mark.parametrize("method", list(METHODS))
def test_schema_takes_the_plain_texts_that_the_reader_takes(method: str, field: str) -> None:
    """Each kind of every method: as a text, as a mapping of nothing else, and misspelled."""
    validator = jsonschema.Draft202012Validator(recipe_schema())
    found = [one.model_fields["kind"].default for one in every(Data) if "kind" in one.model_fields]
    kinds = {kind for kind in found if isinstance(kind, str)}
    assert {"table", "lstm", "activations"} <= kinds
    taken = 0
    for kind in [*kinds, "no such thing", 7]:
        raw = {**MINIMAL, **NEEDED.get(method, {})}
        options = raw["method"] if method in NEEDED else {}
        raw["method"] = {**options, "name": method, field: kind}
        try:
            parse_recipe(raw)
        except RecipeError:
            accepted = False
        else:
            accepted = True
        assert validator.is_valid(raw) == accepted, kind
        taken += accepted
    assert taken
