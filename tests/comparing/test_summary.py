"""What a report says of runs: their costs, and where each number comes from."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from finished_runs import a_run, evaluated
from markupsafe import escape

from foreword.comparing import compare_runs
from foreword.comparing.markdown import write_markdown
from foreword.comparing.page import write_page
from foreword.comparing.plots import plots_of
from foreword.comparing.summary import summarise
from foreword.data import Example
from foreword.recipe import parse_recipe
from foreword.runs import train

RECORDED = {"train": {"name": "train.jsonl", "sha256": "ab" * 32}}


@pytest.mark.slow
def test_runs_whose_data_has_moved_are_compared_by_what_they_recorded(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text('{"question": "a", "references": "b"}\n' * 4, encoding="utf-8")
    tiny = {
        "version": 1,
        "name": "own",
        "backbone": "foreword/mini",
        "task": {
            "data": {"format": "jsonl", "train": str(data), "dev": str(data)},
            "input": "{question}",
            "target": "{reference}",
        },
        "method": {"name": "prompt-tuning", "length": 1},
        "training": {"steps": 1, "batch_size": 2},
        "decoding": {"max_new_tokens": 2},
        "evaluation": {"backbone_alone": False},
    }
    for seed in range(2):
        train(parse_recipe({**tiny, "seed": seed}), out=tmp_path / f"run {seed}", device="cpu")
    shutil.move(data, tmp_path / "elsewhere.jsonl")
    content = compare_runs([tmp_path / "run 0", tmp_path / "run 1"]).content
    for seed, run in enumerate(content["provenance"]):
        assert run["data"]["train"]["name"] == "rows.jsonl"
        assert len(run["data"]["train"]["sha256"]) == 64
        assert run["versions"]["torch"]
        assert run["note"] == ""
        assert run["command"] == f"foreword train '{tmp_path}/run {seed}/recipe.yaml'"
        recipe = yaml.safe_load(run["recipe"])
        assert recipe["seed"] == seed
        assert recipe["task"]["data"]["train"] == "rows.jsonl"


def test_where_numbers_come_from_is_what_was_recorded_or_nothing(tmp_path: Path) -> None:
    known = replace(
        a_run(tmp_path / "x", 0, 50.0, method="a"),
        data=RECORDED,
        versions={"torch": "1.0.recorded"},
    )
    unknown = a_run(tmp_path / "y", 0, 50.0, method="b")
    content = summarise("ter", [known, unknown])
    first, second = content["provenance"]
    assert (first["data"], first["versions"]) == (RECORDED, {"torch": "1.0.recorded"})
    assert (second["data"], second["versions"]) == ({}, {})
    assert second["note"] == "The run recorded no data and no versions."
    assert yaml.safe_load(first["recipe"])["method"]["name"] == "prefix-tuning"
    assert escape(first["recipe"]) in write_page(content)
    for text in (write_page(content), write_markdown(content)):
        assert "ab" * 6 in text
        assert "torch 1.0.recorded" in text
        assert second["note"] in text
        assert f"foreword train {tmp_path / 'x' / 'recipe.yaml'}" in text


def test_tokens_are_those_of_all_batches_of_a_step(tmp_path: Path) -> None:
    run = a_run(tmp_path, 0, 50.0, method="a")
    changes = ("training.batch_size=4", "training.accumulation=3")
    one = evaluated(run, [3.0, 2.0, 1.0], *changes, tokens_a_pair=7.0)
    (method,) = summarise("ter", [one])["methods"]
    assert method["cost"]["tokens_to_95"] == 20 * 4 * 3 * 7


def test_what_tokens_to_95_are_stands_beside_them(tmp_path: Path) -> None:
    content = summarise("ter", [a_run(tmp_path, 0, 50.0, method="a")])
    says = "95 % of the way from the first to the best development score"
    assert says in write_page(content)
    assert says in write_markdown(content)


def test_curves_and_groups_have_mean_and_deviation_over_seeds(tmp_path: Path) -> None:
    runs = []
    for seed, (loss, seen) in enumerate([(3.0, 20.0), (1.0, 40.0)]):
        run = evaluated(a_run(tmp_path, seed, 50.0, method="a"), [9.0, loss, 1.0][: 3 - seed])
        prompt = {**run.metrics["prompt"], "seen": {"ter": seen}, "unseen": {"ter": 60.0}}
        runs.append(replace(run, metrics={**run.metrics, "prompt": prompt}))
    content = summarise("ter", runs)
    assert content["mean_curves"] == [
        {"method": "a", "step": 0, "mean": 9.0, "spread": 0.0},
        {"method": "a", "step": 10, "mean": 2.0, "spread": pytest.approx(2**0.5)},
    ]
    plots = {plot.title: plot for plot in plots_of(content)}
    curve = plots["Loss on the development examples during training"]
    assert "one standard deviation over seeds. a: lowest 2.000 ± 1.414." in curve.alternative
    (last,) = (v for v in curve.spec["data"]["values"] if v["step"] == 10)
    assert (last["low"], last["high"]) == pytest.approx((2 - 2**0.5, 2 + 2**0.5))
    (grouped,) = (plot for title, plot in plots.items() if "by group" in title)
    assert "a, seen: 30.0 ± 14.1; a, unseen: 60.0 ± 0.0" in grouped.alternative
    assert "| method | seen | unseen |" in write_markdown(content)
    assert "| a | 30.0 ± 14.1 | 60.0 ± 0.0 |" in write_markdown(content)


def test_one_seed_has_no_deviation(tmp_path: Path) -> None:
    run = evaluated(a_run(tmp_path, 0, 50.0, method="a"), [9.0, 3.0])
    (curve,) = (plot for plot in plots_of(summarise("ter", [run])) if "during" in plot.title)
    assert "deviation" not in curve.alternative
    assert "a: lowest 3.000." in curve.alternative


def test_markdown_has_outputs_in_a_short_form_and_all_pairs(tmp_path: Path) -> None:
    long = "word " * 40
    rows = [Example({"x": long}, references=("right",))]
    answers = {"a": "a says", "b": "<b> says", "c": "c ```"}
    runs = [
        replace(a_run(tmp_path, 0, score, method=name), answers=[answers[name]], examples=rows)
        for name, score in {"a": 70.0, "b": 30.0, "c": 50.0}.items()
    ]
    content = summarise("ter", runs)
    text = write_markdown(content)
    cut = long[:79]
    assert "| input | right | a | b | c |" in text
    assert f"| `{cut}…` | `right` | `a says` | `<b> says` | ```` c ``` ```` |" in text
    pairs = content["comparisons"]["ter"]
    assert len(pairs) == 3
    assert all(f"- {pair['sentence']}" in text for pair in pairs)


@pytest.mark.parametrize(
    ("apart", "ratio"), [({"evaluations": 6.0}, 2.0), ({}, 8.0)], ids=["recorded", "an older run"]
)
def test_time_a_step_is_of_training_alone(
    tmp_path: Path, apart: dict[str, float], ratio: float
) -> None:
    runs = []
    for name, seconds in {"a": {"train": 1.0, "evaluations": 0.0}, "b": {"train": 8.0}}.items():
        run = a_run(tmp_path, 0, 50.0, method=name)
        took = seconds | (apart if name == "b" else {})
        metrics = {**run.metrics, "training": {"steps": 5}, "seconds": took}
        runs.append(replace(run, metrics=metrics))
    costs = {m["name"]: m["cost"] for m in summarise("ter", runs)["methods"]}
    assert costs["b"]["seconds_a_step_ratio"] == pytest.approx(ratio)
    assert costs["a"]["seconds_a_step_ratio"] == 1


def test_one_seed_is_warned_of_where_methods_are_compared(tmp_path: Path) -> None:
    def warnings(seeds: dict[str, int]) -> list[str]:
        runs = [
            a_run(tmp_path, seed, 50.0, method=name)
            for name, count in seeds.items()
            for seed in range(count)
        ]
        return [line for line in summarise("ter", runs)["warnings"] if "seed" in line]

    (line,) = warnings({"a": 1, "b": 2})
    assert line.startswith("One seed only: a. Another seed may turn the order of methods around")
    (line,) = warnings(dict.fromkeys("abcdef", 1))
    assert line.startswith("One seed only: a, b, c, d, e and others.")
    assert warnings({"a": 2, "b": 2}) == []
    assert warnings({"a": 1}) == []
