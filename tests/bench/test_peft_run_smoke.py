"""bench/peft_run.py trains one prompt by foreword and by PEFT, and both learn the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import Bench
from foreword.common.progress import Silent
from foreword.recipe import load_recipe
from foreword.runs import train
from foreword.runs.preparing import prepare
from foreword.training import loop

ROOT = Path(__file__).parent.parent.parent
FEW = ("training.steps=3", "task.limits.train=16", "task.limits.dev=2", "method.length=4")


def test_both_learn_the_same(bench: Bench, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    sets = [part for change in (*FEW, "decoding.max_new_tokens=4") for part in ("--set", change)]
    recipe, out = str(ROOT / "recipes" / "quickstart.yaml"), tmp_path / "out"
    assert bench("peft_run").main([recipe, *sets, "--out", str(out)]) == 0
    report = json.loads((out / "figures.json").read_text("utf-8"))
    assert report["steps"] == 3
    losses, scores = report["last_losses"], report["scores"]
    assert losses["foreword"] == pytest.approx(losses["PEFT"], abs=1e-3)
    assert scores["foreword"] == scores["PEFT"]
    assert 0 < report["peak_over_pefts"] < 1


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("training.loss=sequence_sum", "training.loss: the recipe has sequence_sum"),
        ("training.accumulation=2", "set training.accumulation=1"),
    ],
)
def test_what_pefts_step_is_not_is_refused(
    change: str, line: str, bench: Bench, tmp_path: Path
) -> None:
    recipe = str(ROOT / "recipes" / "quickstart.yaml")
    with pytest.raises(SystemExit, match=line):
        bench("peft_run").main([recipe, "--set", change, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_it_takes_the_batches_of_a_run(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In two epochs and a half, so that the order of the second is seen."""
    peft_run = bench("peft_run")
    changes = ["training.steps=5", "task.limits={train: 16, dev: 1, test: 1}"]
    changes += ["training.batch_size=8", "evaluation.backbone_alone=false"]
    changes += ["decoding.max_new_tokens=2"]
    recipe = load_recipe(ROOT / "recipes" / "quickstart.yaml", changes)
    ready = prepare(recipe, "cpu", None, Silent())
    steps: list[list[int]] = []

    def step(rows: list[int]) -> float:
        steps.append(rows)
        return 0.0

    peft_run._train(ready, {"foreword": step, "PEFT": step}, {"foreword": [], "PEFT": []}, "cpu")
    run: list[list[int]] = []
    one = loop._one_step

    def watched(wrapped: Any, model: Any, pairs: Any, batches: Any, *given: Any, **by: Any) -> Any:
        run.extend(batches)
        return one(wrapped, model, pairs, batches, *given, **by)

    monkeypatch.setattr(loop, "_one_step", watched)
    train(recipe, out=tmp_path / "run")
    assert len(run) == 5
    assert steps[::2] == steps[1::2] == run
