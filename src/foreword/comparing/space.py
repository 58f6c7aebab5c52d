"""What a search may choose. No torch.

training.learning_rate: {low: 1e-4, high: 1.0, log: true}
method.length: {low: 1, high: 100, log: true}      # whole numbers, since both ends are
training.head_learning_rate: {around: 8}           # an eighth to eight times the recipe's own
training.steps: {times: [0.5, 1, 2]}               # so many times the recipe's own
method.reparameterization: [table, mlp]            # or one of some values
method:                                            # or choices by name, and what each sets;
  prefix:                                          # ranges and lists may stand inside
    {method: prefix-tuning, method.init: {one_of: [random, {kind: activations, examples: 4}]}}
  lora: {method: lora, training.learning_rate: {low: 1e-4, high: 1e-2, log: true}}
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from foreword.errors import RecipeError, UserError, argument
from foreword.recipe.problems import explain
from foreword.recipe.yaml_text import read_yaml

KEYS = {"low", "high", "around", "one_of", "times"}
"""What tells a choice of values from choices by name."""
LENGTHS = {"low": 1, "high": 64, "log": True}
RATES: dict[str, tuple[float, float]] = {
    "prefix-tuning": (3e-3, 0.5),
    "prompt-tuning": (1e-2, 1.0),
    "p-tuning": (1e-4, 1e-2),
    "lora": (1e-4, 1e-2),
    "adapter": (1e-4, 1e-2),
    "bitfit": (3e-4, 3e-2),
    "fine-tuning": (2e-5, 2e-3),
}
"""Method -> the rates that are tried where a search is given no space."""
STARTS: dict[str, tuple[Any, ...]] = {
    "prefix-tuning": ({"kind": "activations", "examples": 4}, "random"),
    "prompt-tuning": ("labels", "uniform"),
    "p-tuning": ("random", "vocabulary"),
}
"""Method -> the starts that are tried there."""


class Range(BaseModel):
    """Numbers between two ends, both of which may be chosen."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    low: float | int
    high: float | int
    log: bool = False

    @model_validator(mode="after")
    def _rules(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"`low` is {self.low}, which is not below `high`, {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"`low` is {self.low}; with `log` it must be more than 0")
        return self

    @property
    def whole(self) -> bool:
        """Whether whole numbers are chosen."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def holds(self, value: Any) -> bool:
        """Whether a value is one of these numbers."""
        kinds = (int,) if self.whole else (int, float)
        number = isinstance(value, kinds) and not isinstance(value, bool)
        return number and self.low <= value <= self.high


class OneOf(BaseModel):
    """One of some values, where a list would be a value itself: inside of a choice by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    one_of: list[Any] = Field(min_length=2)


class Times(BaseModel):
    """A recipe's own number, so many times."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    times: list[float] = Field(min_length=2)

    @model_validator(mode="after")
    def _rules(self) -> Times:
        if min(self.times) <= 0:
            raise ValueError(f"`times` has {min(self.times):g}; it must be more than 0")
        return self

    def known(self, place: str, own: Any) -> OneOf:
        """Those numbers, whole ones of a whole one.

        Args:
            place: the key, for the message.
            own: what the recipe has there.

        Raises:
            UserError: it is no number above 0.
        """
        _check_number(place, own, "give the values as a list")
        whole = isinstance(own, int)
        return OneOf(one_of=[max(1, round(own * n)) if whole else own * n for n in self.times])


class Around(BaseModel):
    """Numbers around a recipe's own, as many times smaller and greater at most, evenly in log."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    around: float

    @model_validator(mode="after")
    def _rules(self) -> Around:
        if self.around <= 1:
            raise ValueError(f"`around` is {self.around:g}; it must be more than 1")
        return self

    def known(self, place: str, own: Any) -> Range:
        """The range around a recipe's own number.

        Args:
            place: the key, for the message.
            own: what the recipe has there.

        Raises:
            UserError: it is no number above 0.
        """
        _check_number(place, own, "give the range as {low, high}")
        low, high = own / self.around, own * self.around
        if isinstance(own, int):
            low, high = max(1, round(low)), max(own + 1, round(high))
        return Range(low=low, high=high, log=True)


def _check_number(place: str, own: Any, advice: str) -> None:
    if isinstance(own, bool) or not isinstance(own, (int, float)) or own <= 0:
        raise UserError(
            f"{place}: the recipe has {own!r} there, and only a number above 0 has others "
            f"around it; {advice}"
        )


class Chooser(Protocol):
    """What suggests values: an Optuna trial."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """A whole number."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """One of some texts."""


@dataclass(frozen=True)
class Space:
    """What a search may choose.

    Attributes:
        axes: axis -> a range, a list of values, or choices by name and what each sets. An `Around`
            stands for a range until a recipe is known (`around`), and `Times` for values.
    """

    axes: Mapping[str, Any]

    def around(self, recipe: Any) -> Space:
        """The space with ranges around a recipe's own numbers.

        Raises:
            UserError: there is no number around which one could be.
        """
        settings = recipe.model_dump(mode="json")

        def known(key: str, given: Any) -> Any:
            if isinstance(given, (Around, Times)):
                return given.known(key, _setting(settings, key))
            return given

        return Space(
            {
                axis: {
                    name: {key: known(key, value) for key, value in changes.items()}
                    for name, changes in given.items()
                }
                if isinstance(given, Mapping)
                else known(axis, given)
                for axis, given in self.axes.items()
            }
        )

    def written(self) -> dict[str, Any]:
        """The space as plain data."""

        def plain(value: Any) -> Any:
            if isinstance(value, BaseModel):
                return value.model_dump(mode="json")
            if isinstance(value, Mapping):
                return {str(key): plain(inner) for key, inner in value.items()}
            return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value

        return {axis: plain(given) for axis, given in self.axes.items()}

    @property
    def branching(self) -> list[str]:
        """The axes with choices inside of which more is chosen."""
        return [
            axis
            for axis, given in self.axes.items()
            if isinstance(given, Mapping)
            and any(
                isinstance(value, (Range, OneOf))
                for changes in given.values()
                for value in changes.values()
            )
        ]

    def own(self, recipe: Any, made: Callable[[Mapping[str, Any]], Any]) -> dict[str, Any] | None:
        """What a chooser would have to suggest for a recipe's own settings.

        Args:
            recipe: as it is.
            made: the recipe with changes; it may raise RecipeError.

        Returns:
            Name -> value, as they are suggested; None where the space does not hold the recipe.
        """
        settings = recipe.model_dump(mode="json")
        suggested: dict[str, Any] = {}
        for axis, given in self.axes.items():
            for name, changes in _choices(axis, given).items():
                inside = _inside(settings, changes, lambda c: _leaves(recipe, made, c))
                if inside is None:
                    continue
                if name is not None:
                    suggested[axis] = name
                suggested |= {_called(axis, name, key): value for key, value in inside.items()}
                break
            else:
                return None
        return suggested

    def choose(self, chooser: Chooser) -> dict[str, Any]:
        """Changes to the recipe: key -> value; those of the first axes come first."""
        changes: dict[str, Any] = {}
        for axis, given in self.axes.items():
            choices = _choices(axis, given)
            name = None if None in choices else chooser.suggest_categorical(axis, list(choices))
            for key, value in choices[name].items():
                changes[key] = _chosen(chooser, _called(axis, name, key), value)
        return changes


def _choices(axis: str, given: Any) -> Mapping[Any, Mapping[str, Any]]:
    """What an axis has to choose from, by the names that a chooser knows, and what each sets; a
    range alone is the one choice `None`, of which nobody is asked."""
    if isinstance(given, Range):
        return {None: {axis: given}}
    if isinstance(given, (list, OneOf)):
        values = given.one_of if isinstance(given, OneOf) else given
        return {number: {axis: value} for number, value in enumerate(values)}
    choices: Mapping[str, Mapping[str, Any]] = given
    return choices


def _called(axis: str, name: str | int | None, key: str) -> str:
    """The name by which a chooser knows what may be chosen for a key."""
    return key if name is None else f"{axis}/{name}/{key}"


def _setting(settings: Any, key: str) -> Any:
    """What stands in plain data at a key such as `training.learning_rate`; None if nothing does."""
    for part in key.split("."):
        settings = settings.get(part) if isinstance(settings, Mapping) else None
    return settings


def _leaves(recipe: Any, made: Callable[[Mapping[str, Any]], Any], changes: Any) -> bool:
    """Whether changes leave a recipe as it is."""
    try:
        return bool(made(changes) == recipe)
    except RecipeError:
        return False


def _inside(
    settings: Mapping[str, Any],
    changes: Mapping[str, Any],
    leaves: Callable[[Mapping[str, Any]], bool],
) -> dict[str, Any] | None:
    """What a chooser would have to suggest inside of a choice for a recipe's own settings; None
    where nothing leaves the recipe as it is."""
    ranges = {key: value for key, value in changes.items() if isinstance(value, Range)}
    numbers = {key: _setting(settings, key) for key in ranges}
    if not all(ranges[key].holds(value) for key, value in numbers.items()):
        return None
    lists = {key: value.one_of for key, value in changes.items() if isinstance(value, OneOf)}
    for picked in product(*(range(len(values)) for values in lists.values())):
        places = dict(zip(lists, picked, strict=True))
        values = {key: lists[key][place] for key, place in places.items()}
        if leaves({**changes, **numbers, **values}):
            return {**numbers, **places}
    return None


def _chosen(chooser: Chooser, name: str, given: Any) -> Any:
    """What is set: a value that was chosen, or the one that there is."""
    if isinstance(given, OneOf):
        return given.one_of[chooser.suggest_categorical(name, list(range(len(given.one_of))))]
    return _within(chooser, name, given) if isinstance(given, Range) else given


def _within(chooser: Chooser, name: str, range_: Range) -> float | int:
    if range_.whole:
        return chooser.suggest_int(name, int(range_.low), int(range_.high), log=range_.log)
    return chooser.suggest_float(name, float(range_.low), float(range_.high), log=range_.log)


def load_space(file: Path | str) -> Space:
    """A space from a YAML file.

    Raises:
        RecipeError: everything that is wrong with it.
    """
    raw = read_yaml(Path(file))
    if not isinstance(raw, Mapping) or not raw:
        raise RecipeError(str(file), ["must be a mapping of axes, such as method.length"])
    problems: list[str] = []
    axes = {str(axis): _axis(str(axis), given, problems) for axis, given in raw.items()}
    if problems:
        raise RecipeError(str(file), problems)
    return Space(axes)


def _axis(axis: str, given: Any, problems: list[str]) -> Any:
    if isinstance(given, list):
        if len(given) < 2:
            problems.append(f"{axis}: expected two values at least")
        return given
    if not isinstance(given, Mapping) or not given:
        problems.append(
            f"{axis}: expected a range {{low, high}} or {{around}}, {{times}}, a list, or choices "
            "by name"
        )
        return given
    if KEYS & given.keys():
        return _values(axis, given, problems)
    choices: dict[str, dict[str, Any]] = {}
    for name, changes in given.items():
        if not isinstance(changes, Mapping):
            problems.append(f"{axis}.{name}: expected what it sets, as key: value")
            continue
        choices[str(name)] = {
            str(key): _values(f"{axis}.{name}.{key}", value, problems)
            if isinstance(value, Mapping) and KEYS & value.keys()
            else value
            for key, value in changes.items()
        }
    return choices


def _values(place: str, given: Mapping[str, Any], problems: list[str]) -> BaseModel | None:
    kinds: dict[str, type[BaseModel]] = {"around": Around, "one_of": OneOf, "times": Times}
    kind = next((kind for key, kind in kinds.items() if key in given), Range)
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        problems += [f"{place}: {line}" for line in explain(error, kind, root="range")]
        return None


def check_recipes(
    space: Space, made: Callable[[Mapping[str, Any]], Any], choosers: Iterable[Chooser]
) -> None:
    """Make sure that a space holds recipes.

    Args:
        space: what may be chosen.
        made: the recipe with changes; it may raise RecipeError.
        choosers: at least one; each is asked until a recipe comes of what it chooses.

    Raises:
        RecipeError: none does; it says what is wrong with the last.
    """
    for chooser in choosers:
        try:
            made(space.choose(chooser))
            return
        except RecipeError as error:
            wrong = error
    raise RecipeError(
        "space",
        [f"nothing that it chooses makes a recipe; such as: {line}" for line in wrong.problems],
    )


def usual_space(fits: Callable[[Mapping[str, Any]], bool]) -> Space:
    """Every method of `RATES` that fits a recipe, each with its rates and, where it has them, a
    length and starts.

    Args:
        fits: whether a recipe with such changes is one, a function of them.

    Raises:
        UserError: none of them does.
    """
    methods: dict[str, dict[str, Any]] = {}
    for name, (low, high) in RATES.items():
        rates = Range(low=low, high=high, log=True)
        own: dict[str, Any] = {"method": name}
        if not fits({**own, "training.learning_rate": low}):
            own["training.delta_learning_rate"] = None  # that of another method
        if not fits({**own, "training.learning_rate": low}):
            continue
        changes: dict[str, Any] = {**own, "training.learning_rate": rates}
        if fits({**own, "method.length": 2}):
            changes["method.length"] = Range.model_validate(LENGTHS)
        if name == "prefix-tuning":
            changes["method.reparameterization"] = "table"
        starts = [
            start
            for start in STARTS.get(name, ())
            if fits({**own, "training.learning_rate": low, "method.init": start})
        ]
        if len(starts) > 1:
            changes["method.init"] = OneOf(one_of=starts)
        methods[name] = changes
    if not methods:
        raise UserError(
            f"space: none of the usual methods ({', '.join(RATES)}) fits this recipe; "
            f"{argument('--space')}: say what may be chosen"
        )
    return Space({"method": methods})
