"""The texts of a recipe's training examples as a JSONL file that scripts/pretrain.py reads.

    python scripts/recipe_texts.py recipes/understanding/chnsenticorp-mini.yaml \
        --kind review --out reviews.jsonl

What the recipe holds out is drawn as `foreword train` draws it and is not written, so that a
backbone pretrained on the file has not read what the recipe measures on; labels are not written
either. With another seed or another share another part is held out.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from foreword.common import files
from foreword.data import Example
from foreword.errors import ForewordError, RecipeError, UserError
from foreword.recipe import load_recipe, written_input
from foreword.runs.data import read_examples
from foreword.templates import parse_input


def texts_of(examples: list[Example], slots: tuple[str, ...]) -> list[str]:
    """What the template's fields say, one text per example; empty and repeated ones left out.

    Raises:
        UserError: a field is no text.
    """
    texts: dict[str, None] = {}
    for example in examples:
        values = [example.fields.get(slot) for slot in slots]
        for slot, value in zip(slots, values, strict=True):
            if not isinstance(value, str):
                raise UserError(f"{example.where}: the field `{slot}` is no text")
        text = "\n".join(str(value).strip() for value in values).strip()
        if text:
            texts[text] = None
    return list(texts)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 it failed, 2 the input is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--kind", required=True, help="what losses of these texts are shown under")
    parser.add_argument("--set", action="append", default=[], metavar="KEY.PATH=VALUE")
    given = parser.parse_args(arguments)
    try:
        recipe = load_recipe(given.recipe, given.set)
        slots = parse_input(written_input(recipe.task.input)).slots
        if not slots:
            raise RecipeError(str(given.recipe), ["task.input: names no field"])
        examples = read_examples(recipe)
        measured = set(texts_of([*examples.dev, *examples.test], slots))
        texts = [text for text in texts_of(examples.train, slots) if text not in measured]
        lines = [json.dumps({"kind": given.kind, "text": t}, ensure_ascii=False) for t in texts]
        files.write_text(given.out, "\n".join(lines) + "\n")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except (ForewordError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"{given.out}: {len(texts):,} texts, {sum(map(len, texts)):,} characters; "
        f"{len(measured):,} held out",
        file=sys.stderr,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
