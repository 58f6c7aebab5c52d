"""Which heavy packages each verb may import: what it does not need must not make it wait."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from foreword.backbone import Backbone
from foreword.methods import HeadOnly
from stored_prompts import labels, prefix, store, vectors, writes

HEAVY = {
    "accelerate",
    "altair",
    "bitsandbytes",
    "datasets",
    "fastapi",
    "fsspec",
    "jinja2",
    "matplotlib",
    "nltk",
    "numpy",
    "optuna",
    "pandas",
    "peft",
    "PIL",
    "prometheus_client",
    "pyarrow",
    "pydantic",
    "ray",
    "rouge_score",
    "sacrebleu",
    "safetensors",
    "scipy",
    "sentence_transformers",
    "seqeval",
    "sklearn",
    "starlette",
    "tokenizers",
    "torch",
    "torchao",
    "transformers",
    "uvicorn",
    "vllm",
    "yaml",
}
READS = {"pydantic", "yaml"}
"""What recipes, artifacts and settings are read with."""
LOADS = READS | {
    *("torch", "transformers", "tokenizers", "safetensors", "numpy"),
    *("accelerate", "scipy", "jinja2", "PIL"),  # by transformers' own model classes
}
"""What a backbone is loaded with."""
SERVES = LOADS | {"fastapi", "starlette", "uvicorn", "prometheus_client"}
ARTIFACTS = Path(__file__).parents[1] / "artifacts" / "of_1_0"
RUN = """
import json, sys
from foreword.cli import main

heavy, steps = json.loads(sys.argv[1]), json.loads(sys.argv[2])
for words in steps:
    sys.argv = ["foreword", *words]
    try:
        main()
    except SystemExit as end:
        status = end.code
    imported = sorted(set(heavy) & {name.partition(".")[0] for name, m in sys.modules.items() if m})
    print(json.dumps([status, imported]), file=sys.stderr)
"""


def imported(*steps: list[str], at: Path) -> list[set[str]]:
    """The heavy packages that are there after each of some commands, which one process runs."""
    given = [json.dumps(sorted(HEAVY)), json.dumps(steps)]
    done = subprocess.run(
        [sys.executable, "-c", RUN, *given], cwd=at, capture_output=True, text=True
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("[")]
    assert len(lines) == len(steps), done.stderr
    told = [json.loads(line) for line in lines]
    assert all(status == 0 for status, _ in told), done.stderr
    return [set(names) for _, names in told]


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        (["--help"], set()),
        (["--version"], set()),
        (["train", "--help"], {"pydantic"}),  # typer's own
        (["generate", "--help"], {"pydantic"}),  # typer's own
        (["serve", "--help"], {"pydantic"}),  # typer's own
        (["ls", str(ARTIFACTS)], READS),
        (["show", str(ARTIFACTS / "prefix")], READS),
        (["recipe-schema"], READS),
    ],
    ids=lambda value: " ".join(value[:1]) if isinstance(value, list) else "",
)
def test_what_computes_nothing(words: list[str], allowed: set[str], tmp_path: Path) -> None:
    (found,) = imported(words, at=tmp_path)
    assert found <= allowed


def test_what_answers_trains_and_measures(mini: Backbone, tmp_path: Path) -> None:
    """One process runs a verb after the other, those that may import least first."""
    kinds = {
        "writer": (prefix(), writes()),
        "head": (HeadOnly(name="head-only"), labels()),
        "vectors": (prefix(), vectors()),
    }
    for name, (method, task) in kinds.items():
        store(tmp_path / name, mini, method, task, max_new_tokens=2)
    (tmp_path / "rows.csv").write_text("text,answer\nan otter,a heron\na toad,a hawk\n", "utf-8")
    data = {"format": "csv", "train": "rows.csv", "dev": "rows.csv", "references": "answer"}
    recipe = {
        "version": 1,
        "name": "starting",
        "backbone": "foreword/mini",
        "task": {"data": data, "input": "{text} ->", "target": " {reference}"},
        "method": {"name": "prefix-tuning", "length": 2},
        "training": {"steps": 1, "batch_size": 2},
        "evaluation": {"backbone_alone": False},
        "decoding": {"max_new_tokens": 2},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    cpu = ["--device", "cpu"]
    steps = {
        "generate": ["generate", "writer", "--text", "a", *cpu],
        "predict": ["predict", "head", "--text", "a", *cpu],
        "embed": ["embed", "vectors", "--text", "a", *cpu],
        "dry run": ["train", "recipe.yaml", "--out", "dry", "--dry-run", *cpu],
        "evaluate": ["evaluate", "writer", "--data", "rows.csv", "--references", "answer", *cpu],
        "train": ["train", "recipe.yaml", "--out", "run", *cpu],
    }
    measures = LOADS | {"sacrebleu"}
    allowed = {
        "generate": LOADS,
        "predict": LOADS,
        "embed": LOADS,
        "dry run": LOADS,
        "evaluate": measures,
        "train": measures | {"matplotlib", "fsspec"},
    }
    found = imported(*steps.values(), at=tmp_path)
    for verb, names in zip(steps, found, strict=True):
        assert names <= allowed[verb], f"{verb}: {names - allowed[verb]}"


def test_what_serves() -> None:
    """As far as a server goes before it listens."""
    code = (
        "import sys; from foreword.serving.http import server; "
        "from foreword.serving.spec import ServeSpec; "
        "spec = ServeSpec(backbone='foreword/mini', device='cpu'); "
        "served = server.prepare(spec, server.load(spec)); server.Server(served); "
        "served.engine.close(); "
        f"print(*sorted({HEAVY!r} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) <= SERVES
