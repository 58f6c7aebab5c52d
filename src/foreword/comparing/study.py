"""A search as Optuna keeps it, in a file: what was chosen, what came of it, and what may go on."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import variance
from typing import Any

from foreword.common.differences import differences
from foreword.comparing.constraints import Constraint
from foreword.comparing.space import Space
from foreword.errors import UserError, argument

STUDY = "study.db"
ABOUT = "about"
"""What a study is marked with: all that decides what its values mean."""
SECONDS = "seconds"
"""What a trial took, also where it was ended early or failed."""
OWN = "own"
"""What a trial of the recipe's own settings is marked with."""
AS_GIVEN = "as given"
"""What it is marked with, too, where the space does not hold them: nothing is chosen for it."""

ENOUGH = 4
"""Trials with a value, from which on is told what mattered."""


@dataclass(frozen=True)
class Within:
    """What mattered among the trials that chose as the best one.

    Attributes:
        choice: axis -> the name of its choice.
        trials: how many of them there are.
        importances: what was chosen inside, or on other axes -> its share.
    """

    choice: Mapping[str, Any]
    trials: int
    importances: Mapping[str, float]


def import_optuna() -> Any:
    """The module.

    Raises:
        UserError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise UserError(
            "a search needs Optuna, which is not installed: pip install 'foreword[search]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def open_study(
    optuna: Any,
    folder: Path,
    about: Mapping[str, Any],
    *,
    high: bool,
    examples: tuple[int, int | None],
    seed: int,
) -> Any:
    """A search: choices by the tree-structured Parzen estimator (Bergstra et al. 2011), runs ended
    early by Hyperband (Li et al. 2018), which compares them after as many examples.

    Args:
        optuna: the module.
        folder: where its file is; a search that is there goes on.
        about: plain data on metric, recipe, data and space; those of a search that goes on must
            be the same.
        high: whether much of the metric is good.
        examples: the fewest that a run reads before it may be ended early, and those of a whole
            one; None where the first run that ends shows it.
        seed: of the choices. What a search chooses where it goes on depends on how many runs there
            are, too, so that it does not choose again what it began with.

    Raises:
        UserError: there is a search of something else.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(
            study_name="search",
            storage=f"sqlite:///{folder / STUDY}",
            load_if_exists=True,
            direction="maximize" if high else "minimize",
            pruner=optuna.pruners.HyperbandPruner(
                min_resource=examples[0], max_resource=examples[1] or "auto"
            ),
        )
        _refuse_another(study, folder, about)
        drawn = random.Random(f"{seed}/{len(study.trials)}").getrandbits(32)
        study.sampler = optuna.samplers.TPESampler(seed=drawn, multivariate=True, group=True)
    return study


def _refuse_another(study: Any, folder: Path, about: Mapping[str, Any]) -> None:
    if not study.trials and ABOUT not in study.user_attrs:
        study.set_user_attr(ABOUT, dict(about))
        return
    lines = differences(study.user_attrs.get(ABOUT, {}), about)
    if lines:
        what = "\n".join(
            [f"{folder}: holds a search of something else, so it cannot go on with this:", *lines]
        )
        raise UserError(f"{what}\n{argument('--out')}: give another folder, or remove it")


def drawn(optuna: Any, count: int, *, seed: int = 0) -> Iterator[Any]:
    """Trials of no search, whose choices are drawn evenly.

    Args:
        optuna: the module.
        count: how many.
        seed: of the choices.
    """
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for _ in range(count):
        yield study.ask()


def expect_own(study: Any, suggested: Mapping[str, Any] | None) -> None:
    """Have the recipe's own settings run next, unless they have run or wait already.

    Args:
        study: the search.
        suggested: those settings as a chooser suggests them; None where the space lacks them: then
            the recipe runs as it is.
    """
    own = [trial for trial in study.trials if trial.user_attrs.get(OWN)]
    if all(trial.state.name == "FAIL" for trial in own):
        marks = {OWN: True} if suggested is not None else {OWN: True, AS_GIVEN: True}
        study.enqueue_trial(dict(suggested or {}), user_attrs=marks)


def begun(study: Any) -> list[Any]:
    """The trials that have begun."""
    return [trial for trial in study.trials if trial.state.name != "WAITING"]


def failing(study: Any) -> list[str]:
    """Why each of the last trials failed, those since the last that did not."""
    reasons: list[str] = []
    for trial in reversed(begun(study)):
        if trial.state.name != "FAIL" or "reason" not in trial.user_attrs:
            break
        reasons.append(trial.user_attrs["reason"])
    return reasons


def best_of(study: Any, bounds: Sequence[Constraint]) -> Any | None:
    """The trial with the best value among those that ended and keep the constraints."""
    fitting = [
        trial
        for trial in study.trials
        if trial.state.name == "COMPLETE" and fits(trial.user_attrs, bounds)
    ]
    return _best(study, fitting)


def _best(study: Any, trials: Sequence[Any]) -> Any | None:
    sign = -1 if study.direction.name == "MAXIMIZE" else 1
    return min(trials, key=lambda trial: sign * trial.value, default=None)


def fits(attributes: Mapping[str, Any], bounds: Sequence[Constraint]) -> bool:
    """Whether a trial keeps the constraints; one of which no costs are known does."""
    costs = attributes.get("costs")
    return costs is None or all(bound.excess(costs) < 0 for bound in bounds)


def importances(optuna: Any, study: Any, space: Space) -> dict[str, float]:
    """How much each axis of a space has to do with the value: shares by PED-ANOVA (Watanabe et al.
    2023). Of a branching axis alone, the share of the variance that lies between its choices
    (epsilon squared, which is 0 on average where they do not differ)."""
    trials = _ended(study)
    if space.branching == list(space.axes):
        return {axis: _between(trials, axis) for axis in space.axes if len(trials) >= ENOUGH}
    return _shares(optuna, study, trials, list(space.axes))


def importances_within(
    optuna: Any, study: Any, space: Space, bounds: Sequence[Constraint]
) -> Within | None:
    """The same of all that is chosen within the choices of the best trial of those for which there
    were choices; None where no axis branches."""
    trials = _ended(study)
    best = _best(study, [trial for trial in trials if fits(trial.user_attrs, bounds)])
    if best is None or not space.branching:
        return None
    choice = {axis: best.params[axis] for axis in space.branching}
    same = [t for t in trials if all(t.params[axis] == name for axis, name in choice.items())]
    names = [name for name in best.params if name not in choice]
    return Within(choice, len(same), _shares(optuna, study, same, names))


def _ended(study: Any) -> list[Any]:
    """The trials with a value, but for a recipe for which nothing was chosen."""
    return [trial for trial in study.trials if trial.state.name == "COMPLETE" and trial.params]


def _between(trials: Sequence[Any], axis: str) -> float:
    choices: dict[Any, list[float]] = {}
    for trial in trials:
        choices.setdefault(trial.params[axis], []).append(trial.value)
    if len(choices) in (1, len(trials)):
        return 0.0
    whole = variance([trial.value for trial in trials])
    inside = sum((len(values) - 1) * variance(values) for values in choices.values() if values[1:])
    return max(0.0, 1 - inside / (len(trials) - len(choices)) / whole) if whole else 0.0


def _shares(
    optuna: Any, study: Any, trials: Sequence[Any], names: Sequence[str]
) -> dict[str, float]:
    if len(trials) < ENOUGH or not names:
        return {}
    looked_at = optuna.create_study(direction=study.direction)
    looked_at.add_trials(trials)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a choice that one run alone made
            shares = optuna.importance.get_param_importances(
                looked_at,
                evaluator=optuna.importance.PedAnovaImportanceEvaluator(),
                params=list(names),
            )
    except (ValueError, RuntimeError):
        return {}
    return {name: float(share) for name, share in shares.items()}
