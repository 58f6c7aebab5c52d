"""A search for a method and its settings: Optuna chooses, the development examples decide.

The test set is never read: runs of a search measure on the development examples, and the recipe
that wins names the test set again.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foreword.common import files
from foreword.common.progress import Progress, Silent
from foreword.comparing.cluster import Cluster
from foreword.comparing.executing import Loaded
from foreword.comparing.grid import written_changes
from foreword.comparing.page import check_installed
from foreword.comparing.space import Space, usual_space
from foreword.comparing.trials import OWN, Constraint, Runner
from foreword.errors import RecipeError, UserError
from foreword.names import LOSS, METRICS
from foreword.recipe import Recipe, parse_recipe
from foreword.recipe.yaml_text import read_yaml

STUDY, BEST, REPORT = "study.db", "best.yaml", "search.json"


@dataclass(frozen=True)
class Search:
    """What came of a search.

    Attributes:
        best: the recipe that won, with the test set that the given one names; None where no run
            kept the constraints.
        trials: what was tried, as plain data: changes, value, state, costs, seconds, and whether
            it is the recipe as it was given.
        importances: axis -> its share of the differences between values; empty where too few runs
            ended.
        metric: what was searched by.
    """

    best: Recipe | None
    trials: Sequence[Mapping[str, Any]]
    importances: Mapping[str, float]
    metric: str

    @property
    def ranked(self) -> list[Mapping[str, Any]]:
        """The trials, best first; those without a value last."""
        sign = -1 if _is_high(self.metric) else 1
        valued = [trial for trial in self.trials if trial["value"] is not None]
        rest = [trial for trial in self.trials if trial["value"] is None]
        return [*sorted(valued, key=lambda trial: sign * trial["value"]), *rest]


def search(
    recipe: Path | str,
    *,
    budget: float,
    out: Path | str | None = None,
    metric: str | None = None,
    space: Space | None = None,
    constraints: Sequence[str] = (),
    overrides: Sequence[str] = (),
    trials: int | None = None,
    seed: int = 0,
    device: str | None = None,
    progress: Progress | None = None,
    on: Cluster | None = None,
) -> Search:
    """Search for the settings with the best development score.

    Where the space holds the recipe's own settings, they are tried first, and to the end.

    Args:
        recipe: a YAML file; its steps are those of every run.
        budget: seconds of runs in all, those of a search that goes on included. The run that is at
            it when they are over ends first.
        out: folder; `runs/search-<name>` if not given. A search that is there goes on.
        metric: what decides: a metric that the task measures, the first of them if not given, or
            "loss", the development loss of the state that is kept, which moves less between runs.
        space: what may be chosen; `usual_space` if not given.
        constraints: such as `artifact_kb < 200`.
        overrides: `key.path=value` strings for all runs.
        trials: most runs in all, beside the budget.
        seed: of the choices.
        device: "cpu", "cuda" or "mps"; the best there is if not given.
        progress: told of every run.
        on: a Ray cluster that runs go to, as many at a time as it has workers; the budget is that
            of all runs together.

    Raises:
        UserError: the recipe or a constraint is wrong, or there are no development examples.
        Stopped: Ctrl-C or SIGTERM; the same call goes on.
    """
    check_installed()
    optuna = _optuna()
    file, progress = Path(recipe), progress or Silent()
    raw, bounds = read_yaml(file), [Constraint.parse(text) for text in constraints]
    start = file.parent.resolve()

    def made(changes: Mapping[str, Any]) -> Recipe:
        given = [*overrides, *written_changes(changes)]
        return parse_recipe(raw, given, where=str(file), folder=start)

    base = made({})
    chosen_by = metric or base.task.measured[0]
    if chosen_by not in (*base.task.measured, LOSS):
        raise UserError(
            f"metric: '{chosen_by}' is not measured; the task measures "
            f"{', '.join(base.task.measured)}, and there is '{LOSS}', that of development"
        )
    if base.task.data.dev is None and base.task.data.hold_out is None:
        raise RecipeError(
            str(file), ["task.data: a search needs `dev` or `hold_out`; it reads no test set"]
        )
    axes = (space or usual_space(lambda changes: _is_recipe(made, changes))).around(base)
    folder = Path("runs") / f"search-{base.name}" if out is None else Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    high = _is_high(chosen_by)
    study = _study(optuna, folder, high, base.training.steps or 1, seed)
    runner = Runner(optuna, study, made, axes, folder, chosen_by, bounds, high)
    _clear_interrupted(optuna, study)
    if not study.trials and (own := axes.own(base, made)) is not None:
        study.enqueue_trial(own, user_attrs={OWN: True})

    def more() -> bool:
        spent = sum(trial.user_attrs.get("seconds", 0.0) for trial in study.trials)
        begun = sum(trial.state.name != "WAITING" for trial in study.trials)
        if spent >= budget or (trials is not None and begun >= trials):
            return False
        progress.say(
            f"run {begun + 1}: {spent:.0f} of {budget:.0f} seconds are spent{_best_so_far(study)}"
        )
        return True

    if on is None:
        loaded = Loaded(device)
        while more():
            runner.run(loaded)
    else:
        runner.run_on(on, more, device)
    return _result(optuna, study, folder, made, chosen_by)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise UserError(
            "a search needs Optuna, which is not installed: pip install 'foreword[search]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _study(optuna: Any, folder: Path, high: bool, steps: int, seed: int) -> Any:
    """The search as Optuna keeps it: choices by the tree-structured Parzen estimator (Bergstra et
    al. 2011), runs ended early by Hyperband (Li et al. 2018)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True)
        return optuna.create_study(
            study_name="search",
            storage=f"sqlite:///{folder / STUDY}",
            load_if_exists=True,
            direction="maximize" if high else "minimize",
            sampler=sampler,
            pruner=optuna.pruners.HyperbandPruner(
                min_resource=max(1, steps // 9), max_resource=max(1, steps)
            ),
        )


def _is_high(metric: str) -> bool:
    """Whether much of a metric is good."""
    return metric != LOSS and METRICS[metric].better == "high"


def _is_recipe(made: Callable[[Mapping[str, Any]], Recipe], changes: Mapping[str, Any]) -> bool:
    try:
        made(changes)
    except RecipeError:
        return False
    return True


def _clear_interrupted(optuna: Any, study: Any) -> None:
    """Trials that were running when a search was killed count as failed."""
    for trial in study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)


def _feasible(study: Any) -> list[Any]:
    ended = [trial for trial in study.trials if trial.value is not None]
    ended = [trial for trial in ended if trial.state.name == "COMPLETE"]
    return [t for t in ended if all(x < 0 for x in t.user_attrs.get("excess", []))]


def _best(study: Any) -> Any | None:
    sign = -1 if study.direction.name == "MAXIMIZE" else 1
    return min(_feasible(study), key=lambda trial: sign * trial.value, default=None)


def _best_so_far(study: Any) -> str:
    best = _best(study)
    return "" if best is None else f"; the best so far is run {best.number + 1}, {best.value:.3f}"


def _result(
    optuna: Any,
    study: Any,
    folder: Path,
    made: Callable[[Mapping[str, Any]], Recipe],
    metric: str,
) -> Search:
    best = _best(study)
    recipe = None if best is None else made(best.user_attrs["changes"])
    trials = [
        {
            "run": trial.number + 1,
            "state": trial.state.name.lower(),
            "value": trial.value,
            "changes": trial.user_attrs.get("changes", {}),
            "costs": trial.user_attrs.get("costs", {}),
            "fits": all(excess < 0 for excess in trial.user_attrs.get("excess", [])),
            "seconds": trial.user_attrs.get("seconds"),
            "reason": trial.user_attrs.get("reason"),
            "own": trial.user_attrs.get(OWN, False),
        }
        for trial in study.trials
    ]
    outcome = Search(recipe, trials, _importances(optuna, study), metric)
    if recipe is not None:
        files.write_text(folder / BEST, recipe.to_yaml())
    report = {
        "metric": metric,
        "best": None if best is None else best.number + 1,
        "trials": trials,
        "importances": dict(outcome.importances),
    }
    files.write_text(folder / REPORT, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    return outcome


def _importances(optuna: Any, study: Any) -> dict[str, float]:
    """How much each axis that all runs chose has to do with the value (PED-ANOVA)."""
    if sum(trial.state.name == "COMPLETE" for trial in study.trials) < 4:
        return {}
    try:
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (ValueError, RuntimeError):
        return {}
    return {name: float(share) for name, share in shares.items()}
