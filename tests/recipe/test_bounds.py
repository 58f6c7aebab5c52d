"""Every number of recipes, methods, decoding and manifests has bounds, and what lies beyond is
refused by its field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from foreword.artifacts.manifest import MANIFEST, Manifest, read_manifest
from foreword.errors import ArtifactError, RecipeError
from foreword.methods import METHODS
from foreword.recipe import Recipe, parse_recipe

STORED = Path(__file__).resolve().parents[1] / "artifacts" / "of_1_0" / "prefix"
LEAST, MOST = {"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"}
RECIPE: dict[str, Any] = {
    "version": 1,
    "name": "bounded",
    "backbone": "foreword/mini",
    "task": {"data": {"format": "jsonl", "train": "a", "dev": "b"}},
    "method": "prefix-tuning",
}


def unbounded(schema: dict[str, Any], node: dict[str, Any], path: str = "") -> set[str]:
    """The fields of a JSON schema whose numbers lack a bound."""
    if "$ref" in node:
        name = node["$ref"].rsplit("/", 1)[1]
        return set() if name in path.split("/") else unbounded(schema, schema["$defs"][name], name)
    found = set()
    if node.get("type") in ("integer", "number") and "const" not in node:
        found = set() if LEAST & node.keys() and MOST & node.keys() else {path}
    inner = [one for key in ("anyOf", "oneOf", "prefixItems") for one in node.get(key, ())]
    inner += [one for key in ("items", "additionalProperties") if (one := node.get(key))]
    for one in inner:
        found |= unbounded(schema, one, path) if isinstance(one, dict) else set()
    for name, one in node.get("properties", {}).items():
        found |= unbounded(schema, one, f"{path}/{name}")
    return found


@pytest.mark.parametrize("model", [Recipe, Manifest, *METHODS.values()], ids=str)
def test_every_number_has_bounds(model: type[BaseModel]) -> None:
    schema = model.model_json_schema()
    assert unbounded(schema, schema) == set()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.epochs=1e308", "must be at most 1000000, found 1e+308"),
        ("training.steps=1e30", "expected a smaller number, found 1e+30"),
        ("training.learning_rate=1e30", "must be at most 1000, found 1e+30"),
        ("training.betas=[-0.1, 0.9]", "betas.0: must be at least 0, found -0.1"),
        ("decoding={do_sample: true, temperature: 1e-30}", "must be at least 0.001, found 1e-30"),
        ("decoding.length_penalty=1e5", "must be at most 20, found 100000.0"),
        ("decoding.repetition_penalty=1e-300", "must be at least 0.01, found 1e-300"),
        ("decoding.num_beams=100000", "must be at most 1024, found 100000"),
        ("decoding.max_new_tokens=1e9", "must be at most 10000000, found 1000000000"),
        ("task.limits.train=1e12", "must be at most 1000000000, found 1000000000000.0"),
        ("method.layers=[100000]", "must be at most 10000, found 100000"),
        ("task.data.hold_out=1e300", "must be at most 1000000000, found 1e+300"),
    ],
)
def test_numbers_beyond_their_bounds(override: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(RECIPE, [override])
    assert any(said in line for line in caught.value.problems), caught.value


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("task.stride", -1, "task.stride: must be at least 1, found -1"),
        ("task.longest_answer", 0, "task.longest_answer: must be at least 1, found 0"),
        ("task.max_tokens", -5, "task.max_tokens: must be at least 1, found -5"),
        ("task.words", 10**9, "task.words: must be at most 1000000, found 1000000000"),
        ("seed", -1, "seed: must be at least 0, found -1"),
        ("trained_parameters", -1, "trained_parameters: must be at least 0, found -1"),
        ("trained_share", -0.5, "trained_share: must be at least 0, found -0.5"),
        ("metrics", {"all": {"bleu": 1e300}}, "metrics.all.bleu: must be at most 1e+15, found 1e"),
        ("decoding.num_beams", 10**6, "decoding.num_beams: must be at most 1024, found 1000000"),
        ("method.length", -3, "method.length: must be at least 1, found -3"),
    ],
)
def test_a_manifest_with_numbers_beyond_their_bounds(
    path: str, value: Any, said: str, tmp_path: Path
) -> None:
    raw = json.loads((STORED / MANIFEST).read_text(encoding="utf-8"))
    *above, last = path.split(".")
    here = raw
    for name in above:
        here = here[name]
    here[last] = value
    (tmp_path / MANIFEST).write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(ArtifactError) as caught:
        read_manifest(tmp_path)
    assert said in str(caught.value)
