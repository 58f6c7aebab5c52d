"""A grid: one recipe, and what is varied in it. No torch.

version: 1
name: lengths
recipe: ../recipes/quickstart.yaml
set: {training.steps: 200}          # in all runs
seeds: [0, 1, 2]                    # runs that differ in these alone are one method's
draws: {task.limits.sample: [1, 2]} # and so are those that differ in what is drawn; `seed` in
                                    # place of the list: each seed draws its own
grid:
  method.length: [1, 5, 20]         # a key of the recipe and its values
  start:                            # or a name, and what each of its choices sets
    random: {method.init: random}
    words: {method.init: {kind: activations, text: "name type"}}
runs:                               # further runs, beside the grid's
  fine-tuning: {method: fine-tuning, training.learning_rate: 1e-4}
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from foreword.common.bounds import Seed
from foreword.common.choices import Data
from foreword.errors import RecipeError
from foreword.recipe import Recipe, parse_recipe
from foreword.recipe.problems import explain
from foreword.recipe.yaml_text import read_yaml

MOST = 10_000
"""Most runs of one grid."""
SEED = "seed"

Changes = Annotated[dict[str, Any], Field(description="key of the recipe -> its value")]


class Grid(Data):
    """What is run.

    Attributes:
        version: of this format.
        name: the comparison's.
        recipe: the base, a file relative to the grid's.
        set: changes to the base, in all runs.
        grid: axis -> its values, or its choices by name and what each sets.
        runs: further runs by name, each with what it sets, and with every seed and draw.
        seeds: of every run; instead of an axis `seed`.
        draws: key of the recipe -> values that are drawn like seeds, and averaged over; `seed`: the
            run's own seed, so that each draws anew.
        x: axis of numbers that plots draw on x.
    """

    version: Literal[1]
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    recipe: str = Field(description="file of the recipe that all runs start from")
    set: Changes = Field(default_factory=dict)
    grid: dict[str, list[Any] | dict[str, Changes]] = Field(default_factory=dict)
    runs: dict[str, Changes] = Field(default_factory=dict)
    seeds: tuple[Seed, ...] | None = Field(None, min_length=1)
    draws: dict[str, list[Any] | str] = Field(default_factory=dict)
    x: str | None = Field(
        None, description="axis of numbers that plots draw on x; null: the first there is"
    )


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes:
        choices: axis -> the choice, as a text; without the seed and the draws.
        recipe: what is run.
        drawn: key of a draw -> its value, as a text.
    """

    choices: Mapping[str, str]
    recipe: Recipe
    drawn: Mapping[str, str] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """What runs with other seeds are called, too."""
        return label(self.choices) or self.recipe.name

    @property
    def name(self) -> str:
        """The run's own name: the method, the seed and the draws."""
        draws = [f"{key.rpartition('.')[2]} {value}" for key, value in self.drawn.items()]
        return ", ".join([self.method, f"seed {self.recipe.seed}", *draws])


def label(choices: Mapping[str, str]) -> str:
    """Choices as one name: a choice that has a name says it alone."""
    return ", ".join(
        value if "." not in axis else f"{axis.rpartition('.')[2]} {value}"
        for axis, value in choices.items()
    )


def number_of(choice: str) -> float | None:
    """A choice as the finite number that it is; None where it is none."""
    try:
        number = float(choice)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def load_grid(file: Path | str) -> tuple[Grid, list[Cell]]:
    """A grid and all of its runs, each checked.

    Raises:
        RecipeError: everything that is wrong with the grid, or with a recipe that comes of it.
    """
    file = Path(file)
    raw = read_yaml(file)
    if not isinstance(raw, Mapping):
        raise RecipeError(str(file), ["must be a mapping, with `recipe` and `grid`"])
    try:
        grid = Grid.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(str(file), explain(error, Grid, root="grid")) from error
    return grid, cells_of(grid, file)


def cells_of(grid: Grid, file: Path) -> list[Cell]:
    """All runs of a grid, in its order.

    Args:
        grid: what is varied.
        file: the grid's; paths in it are relative to its folder.
    """
    problems = _problems(grid)
    if problems:
        raise RecipeError(str(file), problems)
    base = file.parent / grid.recipe
    raw = read_yaml(base)
    seeds = _seeds(grid)
    settings = [
        ({axis: name for axis, name, _ in point}, _merged(point)) for point in _points(grid)
    ]
    settings += [({"run": name}, changes) for name, changes in grid.runs.items()]
    problems = _namesakes(settings)
    if problems:
        raise RecipeError(str(file), problems)
    drawn = _draws(grid)
    follow = [key for key, values in grid.draws.items() if values == SEED]
    count = len(settings) * max(1, len(seeds)) * len(drawn)
    if count > MOST:
        raise RecipeError(str(file), [f"grid: makes {count:,} runs, of at most {MOST:,}"])
    cells = []
    for choices, changes in settings:
        for seed, draw in itertools.product(seeds or (None,), drawn):
            seeded = {} if seed is None else dict.fromkeys((SEED, *follow), seed)
            overrides = {**grid.set, **changes, **dict(draw), **seeded}
            where = f"{file}, {label(choices) or grid.name}"
            recipe = parse_recipe(
                raw,
                written_changes(overrides),
                where=where,
                folder=base.parent.resolve(),
                start=file.parent.resolve(),
            )
            cells.append(Cell(choices, recipe, {key: _text(value) for key, value in draw}))
    problems = _repeats(cells)
    if problems:
        raise RecipeError(str(file), problems)
    return cells


def _problems(grid: Grid) -> list[str]:
    lines = []
    if not (grid.grid or grid.runs or grid.seeds or grid.draws):
        lines.append("grid: names nothing to compare; give `grid` or `runs`")
    if grid.seeds is not None and SEED in grid.grid:
        lines.append("seeds: give either `seeds` or the axis `seed`")
    if grid.seeds is not None and _repeat(grid.seeds):
        lines.append("seeds: names a value twice, which would be one run counted as two")
    for axis, choices in grid.grid.items():
        if not choices:
            lines.append(f"grid.{axis}: has no values")
        elif axis == SEED and not isinstance(choices, list):
            lines.append("grid.seed: expected a list of numbers")
        elif isinstance(choices, list) and _repeat(choices):
            lines.append(f"grid.{axis}: names a value twice")
    lines += [f"draws.{key}: has no values" for key, values in grid.draws.items() if not values]
    lines += [
        f"draws.{key}: names a value twice, which would be one run counted as two"
        for key, values in grid.draws.items()
        if isinstance(values, list) and _repeat(values)
    ]
    lines += [
        f"draws.{key}: `seed` needs seeds; give `seeds: [0, 1, 2]`"
        for key, values in grid.draws.items()
        if values == SEED and not _seeds(grid)
    ]
    lines += [
        f"draws.{key}: expected a list, or `seed`, found {values!r}"
        for key, values in grid.draws.items()
        if isinstance(values, str) and values != SEED
    ]
    if SEED in grid.draws:
        lines.append("draws.seed: give `seeds` instead")
    axes = [axis for axis in grid.grid if axis != SEED]
    if grid.x is not None and grid.x not in axes:
        lines.append(f"x: {grid.x!r} is no axis; the axes are {', '.join(axes) or '(none)'}")
    elif grid.x is not None:
        wrong = [name for name in map(_text, grid.grid[grid.x]) if number_of(name) is None]
        if wrong:
            lines.append(
                f"x: {grid.x!r} has a choice that is no number, {wrong[0]!r}; "
                "name an axis of numbers"
            )
    return lines


def _repeat(values: Sequence[Any]) -> bool:
    return len({_text(value) for value in values}) < len(values)


def _namesakes(settings: Iterable[tuple[Mapping[str, str], object]]) -> list[str]:
    """A line for each setting that is called as another is: a report would take both for one."""
    named: dict[str, Mapping[str, str]] = {}
    lines = []
    for choices, _ in settings:
        first = named.setdefault(label(choices), choices)
        if first is not choices:
            lines.append(
                f"{label(choices)!r} names two settings, {_stated(first)} and {_stated(choices)}; "
                "give one of them another name"
            )
    return lines


def _stated(choices: Mapping[str, str]) -> str:
    return " and ".join(f"{axis}: {choice}" for axis, choice in choices.items())


def _repeats(cells: Iterable[Cell]) -> list[str]:
    """A line for each run of a method that repeats another of its runs."""
    first: dict[tuple[str, str], Cell] = {}
    return [
        f"{cell.name}: is the same run as {first[key].name}, and would be counted as two; what "
        "seeds and draws set must tell the runs of a method apart"
        for cell in cells
        if first.setdefault(
            key := (cell.method, cell.recipe.model_dump_json(exclude={"name"})), cell
        )
        is not cell
    ]


def _seeds(grid: Grid) -> Sequence[Any]:
    if grid.seeds is not None:
        return grid.seeds
    given = grid.grid.get(SEED, [])
    assert isinstance(given, list)
    return given


def _draws(grid: Grid) -> list[tuple[tuple[str, Any], ...]]:
    """Every combination of what is drawn from lists: (key, value) each."""
    listed = [(key, values) for key, values in grid.draws.items() if isinstance(values, list)]
    return list(itertools.product(*([(key, value) for value in values] for key, values in listed)))


def _points(grid: Grid) -> Iterable[tuple[tuple[str, str, Mapping[str, Any]], ...]]:
    """Every combination of the axes' choices: (axis, the choice's name, what it sets) each."""
    axes = []
    for axis, choices in grid.grid.items():
        if axis == SEED:
            continue
        if isinstance(choices, list):
            axes.append([(axis, _text(value), {axis: value}) for value in choices])
        else:
            axes.append([(axis, name, changes) for name, changes in choices.items()])
    return itertools.product(*axes) if axes or not grid.runs else ()


def _merged(point: Iterable[tuple[str, str, Mapping[str, Any]]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for _, _, changes in point:
        merged.update(changes)
    return merged


def written_changes(changes: Mapping[str, Any]) -> list[str]:
    """Changes as overrides; what replaces a whole section comes before what is below it."""
    in_order = sorted(changes.items(), key=lambda item: item[0].count("."))
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in in_order]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
