"""Every recipe in the repository parses, and its templates do."""

from __future__ import annotations

import sys
from pathlib import Path

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
    print(f"{len(files) - wrong} of {len(files)} recipes parse")
    return 1 if wrong or not files else 0


if __name__ == "__main__":
    sys.exit(main())
