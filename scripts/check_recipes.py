"""Every recipe in the repository parses, and its templates do; so does every run of every grid."""

from __future__ import annotations

import sys
from pathlib import Path

from foreword.comparing import load_grid
from foreword.errors import UserError
from foreword.recipe import load_recipe, written_input
from foreword.templates import Template, parse_input


def main() -> int:
    """Print each recipe's verdict; 1 if any is wrong."""
    wrong = 0
    files = sorted(Path("recipes").glob("**/*.yaml"))
    for file in files:
        try:
            recipe = load_recipe(file)
            parse_input(written_input(recipe.task.input))
            Template.parse(recipe.task.target)
        except UserError as error:
            wrong += 1
            print(error, file=sys.stderr)
    for file in sorted(Path("grids").glob("**/*.yaml")):
        try:
            load_grid(file)
        except UserError as error:
            wrong += 1
            print(error, file=sys.stderr)
    print(f"{len(files)} recipes and their grids: {wrong} wrong")
    return 1 if wrong or not files else 0


if __name__ == "__main__":
    sys.exit(main())
