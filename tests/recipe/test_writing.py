"""Writing a recipe and reading it are inverse, whatever a valid recipe says."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.recipe import Recipe, load_recipe, parse_recipe
from foreword.recipe.writing import write_yaml
from foreword.recipe.yaml_text import parse_yaml
from foreword.runs.resuming import refuse_other_recipe

LOOK_ALIKES = (
    *("1e5", "-1E5", "1.e3", ".5e-3", "1_0", "0x1f", "0b1", "017", "1:30", ".inf", ".nan", "+1"),
    *("~", "null", "yes", "off", "True", "=", "<<", "2020-01-01", "2020-01-01 00:00:00"),
    *("- a", "? a", "a: b", "a:", "#", "a #b", "&a", "*a", "!a", "%a", "@a", "`a", "|", ">", "---"),
    *(
        "[",
        "{",
        "}",
        ",",
        "'",
        '"',
        "\\",
        "\n",
        "\r\n",
        "\t",
        " a",
        "a ",
        "\n a",
        "a\n\n",
        "a\\ \nb",
    ),
    *("\x00", "\x07", "\x7f", "\x85", "\u2028", "\u200b", "\ufeff", "\ufffe", "\U0001f642", "火"),
)
LETTERS = st.characters(exclude_categories=["Cs"])
SAMPLED = st.sampled_from(LOOK_ALIKES)
TEXTS = SAMPLED | st.text(LETTERS, min_size=1) | st.lists(SAMPLED, min_size=1).map("".join)
WORDS = SAMPLED.filter(lambda text: text.strip() == text)
PATHS = TEXTS.filter(lambda text: "\0" not in text)
NAMES = st.sampled_from(["1e5", "0x10", "1.5", "null", "yes", "1_000"]) | st.from_regex(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True
)
RATES = st.floats(1e-12, 1.0, allow_subnormal=False)
OPTIONS: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(-1e9, 1e9) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def texts(draw: st.DrawFn) -> dict[str, Any]:
    """A task that asks for a text, with each section that such a recipe may have."""
    message = st.fixed_dictionaries({"role": st.just("user"), "content": TEXTS})
    counts = st.none() | st.integers(1, 10**6)
    return {
        "backbone": {
            "name": draw(PATHS),
            "revision": draw(st.none() | TEXTS),
            "quantization": draw(st.none() | OPTIONS.map(lambda v: {"quant_method": "x", "v": v})),
            "device_map": draw(
                st.none() | st.dictionaries(TEXTS, st.integers(0, 9) | TEXTS, min_size=1)
            ),
        },
        "task": {
            "data": {
                "format": "csv",
                "train": draw(PATHS),
                "dev": draw(PATHS),
                "references": draw(TEXTS),
                "group": draw(st.none() | TEXTS),
            },
            "input": draw(TEXTS.filter(lambda t: "{" not in t) | st.lists(message, min_size=1)),
            "target": draw(TEXTS),
            "truncate": draw(st.none() | TEXTS),
            "limits": {"train": draw(counts), "dev": draw(counts)},
        },
        "method": {
            "name": "prefix-tuning",
            "init": {"kind": "activations", "text": draw(TEXTS)},
            "reparameterization": draw(st.sampled_from(["table", "mlp"])),
        },
        "training": {
            "epochs": draw(st.floats(1e-3, 1e3)),
            "learning_rate": draw(RATES),
            "warmup": draw(st.floats(0, 1e6)),
            "betas": draw(st.tuples(RATES, RATES).map(lambda b: [x * 0.9 for x in b])),
            "clip": draw(st.none() | RATES),
            "best_by": draw(st.sampled_from(["loss", "bleu", None])),
        },
        "decoding": {"stop": draw(st.lists(TEXTS, max_size=3)), "length_penalty": draw(RATES)},
    }


@st.composite
def labels(draw: st.DrawFn) -> dict[str, Any]:
    """A task that asks for a label by label words, its own or those of PET's patterns."""
    words = draw(
        st.dictionaries(
            TEXTS,
            WORDS | st.lists(WORDS, min_size=1, max_size=3, unique=True),
            min_size=2,
            max_size=4,
        )
    )
    data = {"format": "tsv", "train": draw(PATHS), "hold_out": draw(RATES), "label": draw(TEXTS)}
    order = draw(st.none() | st.permutations(list(words)))
    masked = draw(WORDS.filter(lambda text: "{" not in text and "}" not in text)) + " {mask}"
    if draw(st.booleans()):
        return {
            "task": {"data": data, "input": draw(TEXTS.filter(lambda t: "{" not in t))},
            "method": {"name": "pet", "patterns": [masked], "words": words},
            "training": {"steps": draw(st.integers(1, 10**6))},
        }
    return {
        "task": {"data": data, "input": masked, "labels": order, "verbalizer": {"words": words}},
        "method": "prompt-tuning",
    }


def written_and_read(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe as its run reads it again."""
    file = folder / "recipe.yaml"
    file.write_text(recipe.to_yaml(), encoding="utf-8")
    refuse_other_recipe(folder, recipe)
    return load_recipe(file)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(name=NAMES, seed=st.integers(0, 2**32 - 1), sections=texts() | labels())
def test_a_written_recipe_is_read_as_itself(name: str, seed: int, sections: dict[str, Any]) -> None:
    raw = {"version": 1, "name": name, "backbone": "foreword/mini", "seed": seed, **sections}
    with tempfile.TemporaryDirectory() as folder:
        recipe = parse_recipe(raw, folder=Path(folder))
        assert written_and_read(recipe, Path(folder)) == recipe


@settings(max_examples=80, deadline=None, derandomize=True)
@given(data=st.dictionaries(TEXTS, OPTIONS))
def test_written_data_is_read_as_itself(data: dict[str, Any]) -> None:
    assert parse_yaml(write_yaml(data)) == data


@pytest.mark.parametrize("text", ["1e5", "1e-3"])
def test_a_text_that_looks_like_a_number_stays_a_text(text: str, tmp_path: Path) -> None:
    raw = {
        "version": 1,
        "name": text,
        "backbone": {"name": "foreword/mini", "revision": text},
        "task": {"data": {"format": "jsonl", "train": "x", "dev": "y", "references": text}},
        "method": "prompt-tuning",
    }
    recipe = parse_recipe(raw)
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe.to_yaml(), encoding="utf-8")
    again = load_recipe(file)
    assert (again.name, again.backbone.revision, again.task.data.references) == (text,) * 3


def test_lists_given_twice_are_written_out() -> None:
    shared = ["a", {"b": 1}]
    assert parse_yaml(write_yaml({"one": shared, "two": shared})) == {"one": shared, "two": shared}
