"""Runs every recipe of recipes/methods/, and writes the table of methods.

    python scripts/method_table.py --out runs/methods      # runs, then writes
    python scripts/method_table.py --out runs/methods --changed   # those that have no figures yet
    python scripts/method_table.py                         # writes from the figures that are there

Figures go to bench/results/methods.json; the tables in README.md and docs/methods/README.md are
written from it, between their marks. A finished run in --out is not run again.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import foreword
from foreword.artifacts.manifest import read_manifest
from foreword.artifacts.starting import without_folder
from foreword.common import files
from foreword.common.progress import PlainLog
from foreword.methods import METHODS
from foreword.names import METRICS
from foreword.recipe import load_recipe

ROOT = Path(__file__).resolve().parent.parent
RECIPES, FIGURES = ROOT / "recipes" / "methods", ROOT / "bench" / "results" / "methods.json"
PAGES = ROOT / "docs" / "methods"
WORDS = {
    "keys_values": "keys and values",
    "adaption": "gated keys and values",
    "embeddings": "embeddings",
    "multitask_embeddings": "embeddings",
    "text": "text",
    "prefix": "prefix",
    "infix": "infix",
    "in_text": "template",
    "generation": "generation",
    "sequence_head": "head",
    "token_head": "head",
    "span_head": "head",
    "verbalizer": "label words",
    "any_word": "a word",
    "none": "none",
    "full": "all weights",
    "top": "top layers",
    "bitfit": "biases",
    "adapter": "adapters",
    "lora": "LoRA",
}
"""A choice on an axis, and what the table calls it."""
TITLES = {
    "prefix-tuning": "Prefix-Tuning",
    "infix-tuning": "– infix",
    "embedding-only": "– embedding-only",
    "llama-adapter": "LLaMA-Adapter",
    "cartridge": "cartridge, a text as a prefix",
    "prompt-tuning": "Prompt Tuning",
    "residual-prompt-tuning": "– residual",
    "multitask-prompt-tuning": "– of several tasks",
    "cpt": "CPT, examples as a prompt",
    "p-tuning": "P-Tuning, virtual tokens in a template",
    "p-tuning-v2": "P-Tuning v2",
    "fine-tuning": "fine-tuning",
    "fine-tuning-top": "– of the top layers",
    "bitfit": "BitFit",
    "adapter": "adapters",
    "lora": "LoRA",
    "qlora": "– beside 4 bits (QLoRA)",
    "pet": "PET",
    "head-only": "head only",
    "hard-prompt": "hard prompt with examples",
}
"""What the table calls a recipe, where that is not its method's name."""
PAPERS = {"qlora": "Dettmers et al. 2023"}
"""The paper of a recipe, where that is not its method's."""
PLACES = (ROOT / "README.md", PAGES / "README.md")


def settings(recipe: Path, *, given: bool = False) -> dict[str, Any]:
    """What a recipe says, with every default; `given`: without the fields that are at theirs."""
    read = load_recipe(recipe)
    read = read.model_copy(update={"method": without_folder(read.method)})
    return read.model_dump(mode="json", exclude_defaults=given)


def changes(measured: Mapping[str, Any], recipe: Path) -> list[str]:
    """The fields whose value is another now than in the run that gave a recipe's figures.

    A field that is younger than that run counts where it is not at its default.
    """
    return _changes(measured, settings(recipe), settings(recipe, given=True), "")


def _changes(then: Any, now: Any, given: Any, path: str) -> list[str]:
    if not isinstance(then, Mapping) or not isinstance(now, Mapping):
        return [] if then == now else [path]
    paths = [f"{path}.{key}".lstrip(".") for key in then if key not in now]
    for key, value in now.items():
        below, stated = f"{path}.{key}".lstrip("."), isinstance(given, Mapping) and key in given
        if key in then:
            paths += _changes(then[key], value, given[key] if stated else {}, below)
        elif stated:
            paths.append(below)
    return paths


def measure(recipe: Path, out: Path) -> dict[str, Any]:
    """Run a recipe, or read its finished run: a row of the table."""
    folder = out / recipe.stem
    run = foreword.train(recipe, out=folder, resume=folder.exists(), progress=PlainLog(60))
    manifest = read_manifest(run.artifact)
    axes, training = manifest.axes, run.metrics["training"]
    scores = {k: v for k, v in run.metrics["prompt"]["all"].items() if v is not None}
    metric = next(iter(scores))
    alone = run.metrics.get("backbone", {}).get("all", {}).get(metric)
    prompted = manifest.method.length > 0
    return {
        "recipe": f"recipes/methods/{recipe.name}",
        "settings": settings(recipe),
        "method": manifest.method.name,
        "paper": PAPERS.get(recipe.stem, METHODS[manifest.method.name].paper),
        "backbone": manifest.backbone.name,
        "reparameterization": axes["reparameterization"]["trained_as"] if prompted else None,
        "injection": axes["injection"],
        "placement": axes["placement"] if prompted else None,
        "readout": axes["readout"],
        "delta": axes["delta"],
        "steps": training["steps"],
        "trained_parameters": training["trained_parameters"],
        "artifact_bytes": run.metrics["artifact_bytes"],
        "metric": metric,
        "figure": scores[metric],
        "backbone_alone": alone,
    }


def stem(row: Mapping[str, Any]) -> str:
    """The name of a row's recipe."""
    return Path(row["recipe"]).stem


def table(rows: list[dict[str, Any]], page: Path) -> str:
    """The rows in Markdown as a page has them: with all axes in docs/, without in README.md."""
    in_docs = page.parent == PAGES
    pages, top = ("", "../../") if in_docs else ("docs/methods/", "")
    titles = ["method", "paper", "artifact", "measured", "recipe"]
    if in_docs:
        titles[2:2] = [
            "virtual tokens are made by",
            "enter as",
            "stand",
            "answer",
            "backbone moves",
            "steps",
            "trained",
        ]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for row in rows:
        alone, title = row["backbone_alone"], METRICS[row["metric"]].title
        unit = " %" if title.endswith(" %") else ""
        beside = "" if alone is None else f" (backbone alone {alone:.1f}{unit})"
        made = {
            "table": "a table",
            "mlp": "an MLP",
            "lstm": "an LSTM",
            "residual": "a residual MLP",
            "bounded": "a bounded change",
        }
        axes = [
            made.get(row["reparameterization"], "–"),
            WORDS[row["injection"]] if row["placement"] else "–",
            WORDS[row["placement"]] if row["placement"] else "–",
            WORDS[row["readout"]],
            WORDS[row["delta"]],
            f"{row['steps']:,}",
            f"{row['trained_parameters']:,}",
        ]
        cells = [
            f"[{TITLES.get(stem(row), row['method'])}]({pages}{row['method']}.md)",
            row["paper"],
            *(axes if in_docs else []),
            f"{row['artifact_bytes'] / 1000:,.0f} kB",
            f"{title.removesuffix(' %')} {row['figure']:.1f}{unit}{beside}",
            f"[{Path(row['recipe']).name}]({top}{row['recipe']})",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(file: Path, text: str) -> None:
    """Put a table between a page's marks."""
    page = file.read_text(encoding="utf-8")
    new, count = re.subn(
        r"(<!-- methods: begin[^>]*-->\n).*?(<!-- methods: end -->)",
        lambda match: f"{match[1]}{text}\n{match[2]}",
        page,
        flags=re.DOTALL,
    )
    assert count == 1, f"{file} has no marks"
    files.write_text(file, new)


def main() -> int:
    """Run what is asked for, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, help="folder for the runs; without it nothing is run")
    parser.add_argument(
        "--changed",
        action="store_true",
        help="run only recipes that say something else than when they were measured",
    )
    given = parser.parse_args()
    recipes = sorted(RECIPES.glob("*.yaml"))
    for recipe in recipes:
        load_recipe(recipe)
    if given.out is not None:
        rows, known = [], {stem(row): row for row in json.loads(FIGURES.read_text("utf-8"))}
        for number, recipe in enumerate(recipes):
            row = known.get(recipe.stem)
            if given.changed and row is not None and not changes(row["settings"], recipe):
                rows.append(row)
                continue
            print(f"{number + 1} of {len(recipes)}: {recipe.stem}", file=sys.stderr, flush=True)
            rows.append(measure(recipe, given.out))
        order = [*TITLES, *METHODS]
        rows.sort(key=lambda row: order.index(stem(row)))
        files.write_text(FIGURES, json.dumps(rows, indent=1) + "\n")
    rows = json.loads(FIGURES.read_text(encoding="utf-8"))
    for page in PLACES:
        write(page, table(rows, page))
    return 0


if __name__ == "__main__":
    sys.exit(main())
