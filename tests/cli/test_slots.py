"""`foreword train --dry-run`, and what the other commands say of label words and slots."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from test_commands import QUICKSTART, Command, foreword, refused, run, small

from foreword.backbone import Backbone
from foreword.runs import train

__all__ = ["foreword", "run"]

ROWS = [("a good day", "yes"), ("a bad day", "no"), ("good", "yes"), ("bad", "no")]
SLOTS = "{soft:2} {sentence:cut} It was {soft} {mask}"


@pytest.fixture(scope="module")
def told(mini: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a recipe of label words, and its run."""
    folder = tmp_path_factory.mktemp("words")
    lines = ["sentence\tanswer", *(f"{sentence}\t{label}" for sentence, label in ROWS)]
    (folder / "all.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    recipe = {
        "version": 1,
        "name": "words",
        "backbone": "foreword/mini",
        "task": {
            "data": {"format": "tsv", "train": "all.tsv", "dev": "all.tsv", "label": "answer"},
            "input": SLOTS,
            "verbalizer": {
                "words": {"yes": ["good", "very fine"], "no": "bad"},
                "calibration": "content-free",
            },
        },
        "method": {"name": "p-tuning", "reparameterization": "mlp"},
        "training": {"steps": 2, "batch_size": 2},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    train(folder / "recipe.yaml", out=folder / "run", backbone=mini, device="cpu")
    return folder


def test_a_dry_run_shows_rows_and_writes_nothing(foreword: Command, told: Path) -> None:
    done = foreword("train", told / "recipe.yaml", "--dry-run", "--device", "cpu")
    assert done.status == 0
    for part in (
        "words: p-tuning on foreword/mini",
        "label 'yes': 'good' as Ġgood, 'very fine' as Ġvery Ġfine",
        "label word 'very fine' is 2 tokens here: Ġvery Ġfine",
        "all.tsv, line 2",
        "{soft:2} a good day It was {soft} {mask}",
        "<soft1> <soft2> Ġa Ġgood Ġday ĠIt Ġwas <soft3>",
        "says     yes",
        "nothing was trained or written",
    ):
        assert part in done.out
    assert re.search(r"^training: \d+ steps of \d+ rows, .* tokens in all$", done.out, re.M)
    assert not Path("runs").exists()
    again = foreword("train", told / "recipe.yaml", "--dry-run", "--device", "cpu", "--json")
    printed = json.loads(again.out)
    assert printed["examples"][0]["rows"][0]["says"] == ["yes"]
    assert printed["label_words"]["no"] == {"bad": ["Ġbad"]}
    assert printed["training"]["tokens"] > printed["training"]["predicted"] > 0
    assert printed["training"]["steps"] == 2


def test_a_dry_run_says_which_settings_hardly_work(foreword: Command, told: Path) -> None:
    late = ("--set", "training.evaluate_every=9000")
    done = foreword("train", told / "recipe.yaml", "--dry-run", "--device", "cpu", *late)
    assert done.status == 0
    assert "training.evaluate_every: 9,000, but the training has 2 steps" in done.out


def test_a_dry_run_of_pet(foreword: Command, told: Path) -> None:
    """What the models of each pattern read, and what the classifier does."""
    recipe = yaml.safe_load((told / "recipe.yaml").read_text(encoding="utf-8"))
    recipe["task"] |= {"input": "{sentence}", "limits": {"per_label": 1}}
    words = recipe["task"].pop("verbalizer")["words"]
    patterns = ["{sentence} It was {mask}", "{sentence:cut} : {mask}"]
    recipe["method"] = {"name": "pet", "words": words, "patterns": patterns}
    file = told / "pet.yaml"
    file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    done = foreword("train", file, "--dry-run", "--device", "cpu")
    assert done.status == 0
    _, first, second = done.out.split("\npattern ")
    second, _, classifier = second.partition(
        "the classifier, which learns from what the patterns' models say"
    )
    for number, (part, rendered) in enumerate(
        ((first, "{sentence} It was {mask}"), (second, "{sentence:cut} : {mask}")), 1
    ):
        for line in (
            f"{number} of 2  {rendered!r}",
            "label word 'very fine' is 2 tokens here: Ġvery Ġfine",
            "label 'no': 'bad' as Ġbad",
            "all.tsv, line ",
            "\n  says     yes (good, very fine)\n",
        ):
            assert line in part
    assert "ĠIt Ġwas" in first
    assert "Ġ:" in second
    assert "\n  says     yes\n" in classifier
    assert "{mask}" not in classifier
    assert done.out.endswith("nothing was trained or written\n")
    assert not Path("runs").exists()
    again = foreword("train", file, "--dry-run", "--device", "cpu", "--json")
    shown = json.loads(again.out)
    assert [pattern["pattern"] for pattern in shown["patterns"]] == patterns
    asked = [example["text"] for example in shown["examples"]]
    for pattern, ending in zip(shown["patterns"], (" It was {mask}", " : {mask}"), strict=True):
        assert [example["text"] for example in pattern["examples"]] == [e + ending for e in asked]


def test_a_dry_run_of_a_text(foreword: Command) -> None:
    done = foreword("train", QUICKSTART, "--dry-run", "--device", "cpu", *small())
    assert done.status == 0
    assert "2 virtual tokens stand outside of the text" in done.out
    assert "target   " in done.out
    assert done.out.count("  tokens   ") == 3
    assert not Path("runs").exists()


def test_a_dry_run_tells_what_is_cut(foreword: Command, told: Path) -> None:
    tight = ["--set", "task.max_tokens=7"]
    done = foreword("train", told / "recipe.yaml", "--dry-run", "--device", "cpu", *tight)
    assert "of at most 7)" in done.out
    assert "tokens of sentence" in done.out


def test_a_dry_run_points_at_mistakes(foreword: Command, told: Path) -> None:
    for template, said in {
        "{soft:2} {sentense} {mask}": "no field 'sentense' (did you mean 'sentence'?)",
        "{mask} {sentence} {mask}": "column 19: a second {mask}",
        "{sentence {mask}": "column 1: '{' opens a slot",
        "{mask} says {sentence}": "put {mask} last",
    }.items():
        override = f"task.input={json.dumps(template)}"
        arguments = ["train", told / "recipe.yaml", "--dry-run", "--device", "cpu"]
        refused(foreword(*arguments, "--set", override), said)


def test_a_dry_run_goes_on_with_nothing(foreword: Command, told: Path) -> None:
    done = foreword("train", told / "recipe.yaml", "--dry-run", "--resume")
    refused(done, "--dry-run", "--resume")


def test_show_says_slots_words_and_prior(foreword: Command, told: Path) -> None:
    done = foreword("show", told / "run")
    assert done.status == 0
    for part in (
        repr(SLOTS),
        "3 virtual tokens stand in the slots",
        "'good', 'very fine', prior ",
        "% taken off",
        "a label: yes, no",
    ):
        assert part in done.out


def test_predict_and_evaluate(foreword: Command, told: Path) -> None:
    done = foreword("predict", told / "run", "--text", "a good day", "--device", "cpu")
    (row,) = [json.loads(line) for line in done.out.splitlines()]
    assert set(row["probabilities"]) == {"yes", "no"}
    assert row["probability"] == max(row["probabilities"].values())
    measured = foreword(
        "evaluate", told / "run", "--data", told / "all.tsv", "--device", "cpu", "--json"
    )
    assert json.loads(measured.out)["examples"] == 4
    refused(foreword("generate", told / "run", "--text", "x", "--device", "cpu"), "tells a label")
