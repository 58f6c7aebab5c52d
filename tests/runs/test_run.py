"""A run folder: what is written, where, and what it says."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import foreword
from conftest import figures_written_by
from foreword.artifacts.manifest import read_manifest
from foreword.backbone import Backbone, Call, StepDecoder, has_units, load_backbone
from foreword.backbone.weights.hashing import hash_module
from foreword.common.pictures import write_figure
from foreword.data.readers import data_file
from foreword.errors import DataError, RecipeError, RunError, UserError
from foreword.recipe import BackboneSpec, load_recipe
from foreword.runs import Run, train
from foreword.runs.given import as_the_recipe_says
from launching import Launcher

QUICKSTART = Path(__file__).resolve().parents[2] / "recipes" / "quickstart.yaml"
SMALL = [
    "training.steps=4",
    "method.init=random",
    "training.batch_size=4",
    "training.evaluate_every=2",
    "task.limits.train=16",
    "task.limits.dev=2",
    "task.limits.test=3",
    "decoding.max_new_tokens=4",
    "method.length=2",
    "method.reparameterization={kind: mlp, hidden: 8}",
]


def start(tiny: Backbone, out: Path | None, *overrides: str, **options: Any) -> Run:
    return train(
        QUICKSTART, overrides=[*SMALL, *overrides], out=out, backbone=tiny, device="cpu", **options
    )


@pytest.fixture(scope="module")
def run(tiny: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Run:
    before = hash_module(tiny.model)
    with figures_written_by(write_figure):
        run = start(tiny, tmp_path_factory.mktemp("run") / "small")
    assert hash_module(tiny.model) == before, "the backbone's bytes are not touched"
    return run


def lines(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_the_folder_holds_all_of_it(run: Run) -> None:
    found = {str(file.relative_to(run.folder)) for file in run.folder.rglob("*") if file.is_file()}
    assert found == {
        "recipe.yaml",
        "log.jsonl",
        "metrics.json",
        "answers.jsonl",
        "curve.png",
        "artifact/foreword.json",
        "artifact/prompt.safetensors",
        "artifact/README.md",
    }
    assert len((run.folder / "curve.png").read_bytes()) > 1000
    assert [f.name for f in run.folder.parent.iterdir()] == [run.folder.name]


def test_metrics(run: Run) -> None:
    written = json.loads((run.folder / "metrics.json").read_text(encoding="utf-8"))
    assert written == run.metrics
    assert (written["split"], written["examples"], written["truncated"]) == ("test", 3, 0)
    for subject in ("prompt", "backbone"):
        assert set(written[subject]["all"]) == {"bleu", "chrf", "ter", "slot_coverage"}
        assert set(written[subject]) <= {"all", "seen", "not seen"}
    training = written["training"]
    assert (training["steps"], training["pairs"], training["truncated"]) == (4, 16, 0)
    assert training["best_step"] in (2, 4)
    assert [entry["step"] for entry in training["evaluations"]] == [2, 4]
    layers, width = 2, 32
    assert training["stored_parameters"] == 2 * 2 * layers * width
    assert training["trained_parameters"] == sum(
        (2 * width, width * 8 + 8, 8 * 2 * layers * width + 2 * layers * width)
    )
    assert training["initial_fit_error"] is None
    size = sum(file.stat().st_size for file in run.artifact.iterdir())
    assert written["artifact_bytes"] == size
    assert set(written["seconds"]) == {"initialise", "train", "evaluations", "all"}


def test_log_and_answers(run: Run) -> None:
    log = lines(run.folder / "log.jsonl")
    steps = [entry for entry in log if "step" in entry]
    assert [entry["step"] for entry in steps] == [1, 2, 3, 4]
    assert set(steps[0]) == {"step", "loss", "learning_rate", "gradient_norm"}
    watched = [entry["evaluation"] for entry in log if "evaluation" in entry]
    assert watched == run.metrics["training"]["evaluations"]
    losses = [entry["loss"] for entry in steps]
    assert run.metrics["training"]["final_loss"] == pytest.approx(sum(losses) / 4)
    answers = lines(run.folder / "answers.jsonl")
    test = foreword.read_examples("foreword/fieldguide/test", "jsonl", group="seen")[:3]
    assert [tuple(row["references"]) for row in answers] == [e.references for e in test]
    assert [row["group"] for row in answers] == [example.group for example in test]
    assert len(run.samples) == 3
    assert run.samples[0]["output"] == answers[0]["output"]


@pytest.mark.slow
def test_the_recipe_runs_again_to_the_same_prompt(run: Run, tiny: Backbone, tmp_path: Path) -> None:
    assert load_recipe(run.folder / "recipe.yaml") == run.recipe
    again = train(run.folder / "recipe.yaml", out=tmp_path / "again", backbone=tiny, device="cpu")
    name = "prompt.safetensors"
    assert (again.artifact / name).read_bytes() == (run.artifact / name).read_bytes()
    other = start(tiny, tmp_path / "other", "seed=1", "evaluation.backbone_alone=false")
    keys = [load_file(r.artifact / name)["decoder.keys"] for r in (run, other)]
    assert not torch.equal(*keys)
    assert "backbone" not in other.metrics


def test_the_artifact_says_where_it_comes_from(run: Run, tiny: Backbone) -> None:
    manifest = read_manifest(run.artifact)
    assert manifest.backbone.sha256 == tiny.sha256
    assert manifest.tokens.sha256 == tiny.tokens.sha256
    assert manifest.seed == run.recipe.seed
    assert manifest.metrics == run.metrics["prompt"]
    for split in ("train", "dev", "test"):
        raw = data_file(f"foreword/fieldguide/{split}").read_bytes()
        assert manifest.data[split]["sha256"] == hashlib.sha256(raw).hexdigest()
    assert yaml.safe_load((run.folder / "recipe.yaml").read_text("utf-8")) == manifest.recipe
    assert set(manifest.versions) >= {"python", "foreword", "torch", "transformers"}
    assert manifest.task.group == "seen"
    assert manifest.axes["reparameterization"] == {"trained_as": "mlp", "stored": "folded"}


def test_the_loaded_artifact_answers_as_the_run_did(run: Run, tiny: Backbone) -> None:
    prompt = foreword.load(run.folder, backbone=tiny, device="cpu")
    test = foreword.read_examples("foreword/fieldguide/test", "jsonl", group="seen")[:3]
    answers = lines(run.folder / "answers.jsonl")
    report = prompt.evaluate(test)
    assert report.answers == [row["output"] for row in answers]
    assert report.figures() == run.metrics["prompt"]
    assert prompt.generate([example.fields for example in test]) == report.answers
    with pytest.raises(UserError, match=r"decoding\.max_tokens: no such name"):
        prompt.generate(["x"], max_tokens=3)


def test_runs_are_numbered(tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    alone = ["method=hard-prompt", "task.limits.test=1"]
    names = []
    for _ in range(3):
        run = train(QUICKSTART, overrides=alone, backbone=tiny, device="cpu")
        names.append(str(run.folder))
    assert names == ["runs/quickstart", "runs/quickstart-2", "runs/quickstart-3"]
    assert run.metrics["training"]["steps"] == 0
    assert run.metrics["training"]["stored_parameters"] == 0
    assert not (run.folder / "curve.png").exists()
    assert foreword.load(run.folder, backbone=tiny).generate(["x"], max_new_tokens=2)


def test_an_occupied_folder_is_refused(run: Run, tiny: Backbone) -> None:
    before = (run.folder / "metrics.json").read_bytes()
    with pytest.raises(UserError, match="is there already and is not empty"):
        start(tiny, run.folder)
    assert (run.folder / "metrics.json").read_bytes() == before


@pytest.mark.parametrize(
    ("override", "kind", "said"),
    [
        ("task.data.train=null", RecipeError, "task.data.train: is missing"),
        ("task.data={format: jsonl, train: x}", RecipeError, "names neither `dev` nor `test`"),
        ("task.data.dev=none.jsonl", DataError, "none.jsonl: no such file"),
        (
            "decoding.max_new_tokens=600",
            UserError,
            r"decoding\.max_new_tokens: 600 new tokens leave no room for an input: 'foreword/mini' "
            r"has 512 positions, of which method\.length 2 leaves 510 for input and answer",
        ),
        ("decoding.max_new_tokens=490", DataError, "the input has"),
        (
            "method.length=600",
            UserError,
            r"method\.length: 600 virtual tokens leave no room in the 512",
        ),
        ("method.length=511", UserError, r"method\.length 511 leaves 1 for input and answer"),
    ],
)
def test_what_a_run_refuses(
    override: str, kind: type[UserError], said: str, tiny: Backbone, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=said):
        start(tiny, tmp_path / "out", override)
    assert list(tmp_path.iterdir()) == [], "found before anything is written or trained"


@pytest.mark.parametrize(
    "override",
    [
        "task.data.train=none.jsonl",
        "method={name: prompt-tuning, length: 2, init: {kind: labels, labels: ['']}}",
    ],
)
def test_a_refused_run_leaves_nothing_behind(override: str, tiny: Backbone, tmp_path: Path) -> None:
    settings = [line for line in SMALL if not line.startswith("method")]
    with pytest.raises(UserError):
        train(QUICKSTART, overrides=[*settings, override], out=tmp_path / "out", backbone=tiny)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("split", ["dev", "test"])
def test_examples_that_do_not_fit_are_found_before_the_training(
    split: str, tiny: Backbone, tmp_path: Path
) -> None:
    row = {"record": "bird " * 600, "references": "x"}
    (tmp_path / "long.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"long\.jsonl, line 1: the input has 6\d\d tokens"):
        start(
            tiny,
            tmp_path / "out",
            f"task.data.{split}={tmp_path / 'long.jsonl'}",
            "task.data.group=null",
        )
    assert not (tmp_path / "out").exists()


def test_a_given_backbone_takes_the_recipes_token_rule(tiny: Backbone, tmp_path: Path) -> None:
    run = start(tiny, tmp_path / "out", "backbone.bos=always", "training.steps=1")
    manifest = read_manifest(run.artifact)
    assert (tiny.tokens.bos, manifest.tokens.bos) == ("auto", "always")
    told = [row["output"] for row in lines(run.folder / "answers.jsonl")]
    fields = [e.fields for e in foreword.read_examples("foreword/fieldguide/test", "jsonl")[:3]]
    assert foreword.load(run.folder, backbone=tiny).generate(fields) == told


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("backbone.name=gpt2", "name: the recipe says 'gpt2', the backbone given has 'foreword/mi"),
        ("backbone.dtype=float64", "dtype: the recipe says 'float64', the backbone given has 'flo"),
    ],
)
def test_a_given_backbone_that_is_another_than_the_recipes(
    override: str, said: str, tiny: Backbone, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=f"backbone.{said}") as raised:
        start(tiny, tmp_path / "out", override)
    fix = {"name": "'backbone.name=foreword/mini'", "dtype": "'backbone.dtype=float32'"}
    assert f"override it with {fix[said.split(':')[0]]}" in str(raised.value)
    with pytest.raises(
        UserError, match="'cuda' is asked for, but the backbone given lies on 'cpu'"
    ):
        train(QUICKSTART, overrides=SMALL, out=tmp_path / "out", backbone=tiny, device="cuda")
    assert list(tmp_path.iterdir()) == []


def test_a_given_backbone_is_compared_by_what_it_is(tiny: Backbone, tmp_path: Path) -> None:
    spec = BackboneSpec(name=str(tmp_path / "link"), revision="main", dtype="auto")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    given = replace(tiny, name=str(tmp_path / "real"), revision="0123456789abcdef")
    assert as_the_recipe_says(given, spec, None).tokens.bos == "auto"
    as_the_recipe_says(given, spec.model_copy(update={"revision": "0123456"}), "cpu")
    with pytest.raises(RecipeError, match=r"backbone\.revision: the recipe says 'fedcba9'"):
        as_the_recipe_says(given, spec.model_copy(update={"revision": "fedcba9"}), "cpu")


THREE_STEPS = [
    *SMALL,
    *("training.learning_rate=1e-3", "training.steps=3", "training.evaluate_every=3"),
    *("task.limits.train=4", "training.warmup=0", "evaluation.backbone_alone=false"),
]


def losses_of(run: Run) -> list[float]:
    return [entry["loss"] for entry in lines(run.folder / "log.jsonl") if "loss" in entry]


@pytest.fixture(scope="module")
def in_float32(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of three steps in float32."""
    out = tmp_path_factory.mktemp("float32") / "run"
    return losses_of(train(QUICKSTART, overrides=THREE_STEPS, out=out, device="cpu"))


@pytest.mark.parametrize(
    ("dtype", "precision"),
    [
        ("float32", "bfloat16"),
        pytest.param("float16", "float32", marks=pytest.mark.soak),
        pytest.param("bfloat16", "bfloat16", marks=pytest.mark.soak),
        pytest.param("auto", "float32", marks=pytest.mark.soak),
    ],
)
def test_types_that_train(
    dtype: str, precision: str, in_float32: list[float], tmp_path: Path
) -> None:
    """The loss and its fall are float32's as far as the type can tell, and the artifact works
    again.

    Three small steps on one batch: rounding, which is another one on every kind of processor, does
    not grow into another course of training.
    """
    chosen = [f"backbone.dtype={dtype}", f"training.precision={precision}"]
    run = train(QUICKSTART, overrides=[*THREE_STEPS, *chosen], out=tmp_path / "run", device="cpu")
    losses = losses_of(run)
    assert losses[0] == pytest.approx(in_float32[0], rel=0.01)
    fallen = in_float32[0] - in_float32[2]
    assert fallen > 0.1
    assert losses[0] - losses[2] == pytest.approx(fallen, rel=0.25)
    own = "float16" if has_units("float16", "cpu") else "float32"
    stored = {"auto": own}.get(dtype, dtype)
    assert read_manifest(run.artifact).backbone.dtype == stored
    assert len(foreword.load(run.folder, device="cpu").generate(["x"], max_new_tokens=2)) == 1


def test_the_stored_type_is_refused_where_it_does_not_go_with_the_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foreword.backbone.arithmetic._processor", lambda: {"amx_fp16": True})
    monkeypatch.setattr("foreword.runs.preparing.load_backbone", load_backbone)  # not one kept
    overrides = [*SMALL, "backbone.dtype=auto", "training.precision=bfloat16"]
    with pytest.raises(RecipeError, match="no meaning on a backbone in float16"):
        train(QUICKSTART, overrides=overrides, out=tmp_path / "out", device="cpu")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb", "mlflow"])
def test_a_tracker_that_is_not_there(
    tracker: str, tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foreword.training.hardware.find_spec", lambda _: None)
    said = rf"training\.tracker: '{tracker}' is not installed here; pip install"
    with pytest.raises(UserError, match=said) as raised:
        start(tiny, tmp_path / "out", f"training.tracker={tracker}")
    assert ("foreword[trackers]" in str(raised.value)) == (tracker == "tensorboard")
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_writes_into_the_run_folder(tiny: Backbone, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = start(tiny, tmp_path / "out", "training.tracker=tensorboard")
    found = EventAccumulator(str(run.folder / "tensorboard" / "quickstart")).Reload()
    logged = [entry["loss"] for entry in lines(run.folder / "log.jsonl") if "loss" in entry]
    assert [event.value for event in found.Scalars("loss")] == pytest.approx(logged)
    evaluations = run.metrics["training"]["evaluations"]
    assert [event.step for event in found.Scalars("dev/loss")] == [e["step"] for e in evaluations]


def test_a_tracker_that_cannot_be_started(
    tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no key\nand a long story")

    monkeypatch.setattr("accelerate.Accelerator.init_trackers", fail)
    with pytest.raises(UserError, match=r"^training\.tracker: cannot be started: no key$"):
        start(tiny, tmp_path / "out", "training.tracker=tensorboard")
    assert list(tmp_path.iterdir()) == []


def test_evaluation_batch_size_is_that_of_every_evaluation(
    tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The development loss, BLEU during training, and the measuring afterwards."""
    read, written = [], []
    forward, step = Backbone.logits, StepDecoder.step

    def logits(self: Backbone, call: Call, *rest: Any) -> Any:
        if not torch.is_grad_enabled():
            read.append(call.rows)
        return forward(self, call, *rest)

    def steps(self: StepDecoder) -> Any:
        written.append(self.active)
        return step(self)

    monkeypatch.setattr(Backbone, "logits", logits)
    monkeypatch.setattr(StepDecoder, "step", steps)
    start(
        tiny,
        tmp_path / "out",
        "evaluation.batch_size=2",
        "task.limits.dev=5",
        "training.best_by=bleu",
        "training.steps=1",
        "training.evaluate_every=1",
        "evaluation.backbone_alone=false",
    )
    references = [e.references for e in foreword.read_examples("foreword/fieldguide/dev", "jsonl")]
    pairs = sum(len(each) for each in references[:5])
    assert read == [2] * (pairs // 2) + [1] * (pairs % 2)
    assert max(written) == 2


def test_dev_stands_in_for_a_missing_test_file(tiny: Backbone, tmp_path: Path) -> None:
    run = start(
        tiny,
        tmp_path / "out",
        "task.data.test=null",
        "training.patience=1",
        "training.best_by=bleu",
    )
    assert (run.metrics["split"], run.metrics["examples"]) == ("dev", 2)
    assert all("bleu" in entry for entry in run.metrics["training"]["evaluations"])


def test_real_words_start(mini: Backbone, tmp_path: Path) -> None:
    run = start(
        mini,
        tmp_path / "out",
        "method.init={kind: activations, text: a bird, examples: 1}",
        "method.reparameterization=table",
        "training.steps=1",
    )
    assert run.metrics["training"]["initial_fit_error"] == 0


def test_a_failed_run_leaves_no_artifact(mini: Backbone, tmp_path: Path) -> None:
    steep = ("training.learning_rate=1e3", "training.weight_decay=1e3", "training.steps=30")
    with pytest.raises(RunError, match=r"the (development )?loss became"):
        start(mini, tmp_path / "out", *steep)
    assert not (tmp_path / "out" / "artifact").exists()
    assert lines(tmp_path / "out" / "log.jsonl")


@pytest.mark.slow
def test_plain_data_is_a_recipe(tiny: Backbone, tmp_path: Path) -> None:
    raw = yaml.safe_load(QUICKSTART.read_text(encoding="utf-8"))
    raw["training"]["learning_rate"] = 1e-3
    run = train(raw, overrides=SMALL, out=tmp_path / "a", backbone=tiny, device="cpu")
    again = train(run.recipe, out=tmp_path / "b", backbone=tiny, device="cpu")
    assert again.recipe == run.recipe
    figures = [
        {k: v for k, v in r.metrics.items() if k in ("prompt", "split")} for r in (run, again)
    ]
    assert figures[0] == figures[1]


@pytest.mark.slow
@pytest.mark.parametrize("by", ["environment", pytest.param("torchrun", marks=pytest.mark.soak)])
def test_two_processes_train_as_one(
    by: str, mini: Backbone, launcher: Launcher, tmp_path: Path
) -> None:
    """One batch shared by two gloo processes gives the losses of one process, and one folder.

    `test_sharding` has processes that accelerate starts, which does it as torchrun does.
    """
    settings = (*SMALL, "training.batch_size=5", "training.learning_rate=1e-3")
    one = start(mini, tmp_path / "one", *settings[len(SMALL) :]).folder
    overrides = [part for item in settings for part in ("--set", item)]
    words = ["train", str(QUICKSTART), "--device", "cpu", *overrides]
    if by == "environment":
        both = launcher.together(tmp_path, words)
        assert [each.end() for each in both] == [0, 0], both[0].printed()
    else:
        by_torchrun(words, tmp_path)
    two = tmp_path / "runs" / "quickstart"
    assert [folder.name for folder in two.parent.iterdir()] == ["quickstart"]
    losses = [[e["loss"] for e in lines(run / "log.jsonl") if "loss" in e] for run in (one, two)]
    assert len(losses[0]) == 4
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    tensors = [load_file(run / "artifact" / "prompt.safetensors") for run in (one, two)]
    for name in tensors[0]:
        assert (tensors[0][name] - tensors[1][name]).abs().max() < 1e-4


def by_torchrun(words: list[str], folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = ["-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, *launch, "-m", "foreword", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
