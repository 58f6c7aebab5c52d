"""A search for a method and its settings: Optuna chooses, the development examples decide.

The test set is never read: runs of a search measure on the development examples, and the recipe
that wins names the test set again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foreword.common import files
from foreword.common.progress import Progress, Silent
from foreword.comparing.cluster import Cluster
from foreword.comparing.constraints import Constraint
from foreword.comparing.executing import Loaded
from foreword.comparing.grid import written_changes
from foreword.comparing.page import check_installed
from foreword.comparing.space import Space, check_recipes, usual_space
from foreword.comparing.study import (
    OWN,
    SECONDS,
    Within,
    begun,
    best_of,
    drawn,
    expect_own,
    failing,
    fits,
    importances,
    importances_within,
    open_study,
)
from foreword.comparing.study import import_optuna as import_optuna
from foreword.comparing.trials import UNTESTED, Runner, rows_of_step
from foreword.errors import RecipeError, RunError, UserError
from foreword.names import LOSS, METRICS
from foreword.recipe import Recipe, parse_recipe
from foreword.recipe.yaml_text import read_yaml

BEST, REPORT = "best.yaml", "search.json"
DRAWN = 32
"""How often a space is drawn from before it counts as one without a recipe."""
FAILURES = 5
"""Runs that fail one after the other, after which a search ends."""


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
        within: the same among the runs that chose as the best one, such as its method; None where
            no choice has others inside.
        metric: what was searched by.
        warning: what is to be known of the recipe that won, in one line; None where none did.
    """

    best: Recipe | None
    trials: Sequence[Mapping[str, Any]]
    importances: Mapping[str, float]
    metric: str
    warning: str | None = None
    within: Within | None = None

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

    The recipe's own settings are tried first, and to the end, whether the space holds them or not.

    Args:
        recipe: a YAML file; its steps are those of every run, unless the space varies them.
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
        UserError: the recipe, the space or a constraint is wrong, there are no development
            examples, or the folder holds a search of something else.
        RunError: several runs failed, one after the other.
        Stopped: Ctrl-C or SIGTERM; the same call goes on.
    """
    from foreword.runs.data import data_hashes, without_folders
    from foreword.training.signals import Stopped

    check_installed()
    optuna = import_optuna()
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
    axes = (space or usual_space(_fits(made))).around(base)
    check_recipes(axes, made, drawn(optuna, DRAWN))
    folder = Path("runs") / f"search-{base.name}" if out is None else Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    high = _is_high(chosen_by)
    about = {
        "metric": chosen_by,
        "recipe": without_folders(base).model_dump(mode="json"),
        "data": {split: entry["sha256"] for split, entry in data_hashes(made(UNTESTED)).items()},
        "space": axes.written(),
    }
    with files.locked(folder):
        study = open_study(optuna, folder, about, high=high, examples=_resources(base), seed=seed)
        runner = Runner(optuna, study, made, axes, folder, chosen_by, bounds, high)
        runner.settle()
        expect_own(study, axes.own(base, made))

        def result() -> Search:
            return _result(optuna, study, axes, folder, made, chosen_by, bounds)

        def more() -> bool:
            spent = sum(trial.user_attrs.get(SECONDS, 0.0) for trial in study.trials)
            count, reasons = len(begun(study)), failing(study)
            if len(reasons) >= FAILURES:
                result()
                raise RunError(
                    f"the last {len(reasons)} runs of the search failed, the last of them so: "
                    f"{reasons[0]}"
                )
            if spent >= budget or (trials is not None and count >= trials):
                return False
            best = best_of(study, bounds)
            best_so_far = (
                ""
                if best is None
                else f"; the best so far is run {best.number + 1}, {best.value:.3f}"
            )
            progress.say(
                f"run {count + 1}: {spent:.0f} of {budget:.0f} seconds are spent{best_so_far}"
            )
            return True

        try:
            if on is None:
                loaded = Loaded(device)
                while more():
                    runner.run(loaded)
            else:
                runner.run_on(on, more, device)
        except Stopped:
            result()  # the best so far, in its file
            raise
        return result()


def _is_high(metric: str) -> bool:
    """Whether much of a metric is good."""
    return metric != LOSS and METRICS[metric].better == "high"


def _resources(recipe: Recipe) -> tuple[int, int | None]:
    """The fewest examples after which a run may be ended, and all that it reads; None where that
    depends on how many rows there are."""
    spec, rows = recipe.training, rows_of_step(recipe)
    if spec.steps is None:
        return (spec.evaluate_every or 1) * rows, None
    return max(1, spec.steps * rows // 9), spec.steps * rows


def _fits(made: Callable[[Mapping[str, Any]], Recipe]) -> Callable[[Mapping[str, Any]], bool]:
    def fits(changes: Mapping[str, Any]) -> bool:
        """Whether a recipe with such changes is one."""
        try:
            made(changes)
        except RecipeError:
            return False
        return True

    return fits


def _result(
    optuna: Any,
    study: Any,
    space: Space,
    folder: Path,
    made: Callable[[Mapping[str, Any]], Recipe],
    metric: str,
    bounds: Sequence[Constraint],
) -> Search:
    best = best_of(study, bounds)
    recipe = None if best is None else made(best.user_attrs["changes"])
    trials = [
        {
            "run": trial.number + 1,
            "state": trial.state.name.lower(),
            "value": trial.value if trial.state.name == "COMPLETE" else None,
            "changes": trial.user_attrs.get("changes", {}),
            "costs": trial.user_attrs.get("costs", {}),
            "fits": fits(trial.user_attrs, bounds),
            "seconds": trial.user_attrs.get(SECONDS),
            "reason": trial.user_attrs.get("reason"),
            "own": trial.user_attrs.get(OWN, False),
        }
        for trial in begun(study)
    ]
    warning = None if best is None or recipe is None else _warning(best.number + 1, recipe.seed)
    mattered = importances(optuna, study, space)
    within = importances_within(optuna, study, space, bounds)
    outcome = Search(recipe, trials, mattered, metric, warning, within)
    if recipe is not None:
        files.write_text(folder / BEST, f"# {warning}\n{recipe.to_yaml()}")
    report = {
        "metric": metric,
        "best": None if best is None else best.number + 1,
        "warning": warning,
        "trials": trials,
        "importances": mattered,
        "within": None if within is None else asdict(within),
    }
    files.write_text(folder / REPORT, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    return outcome


def _warning(run: int, seed: int) -> str:
    return (
        f"run {run} is the best of single runs, each with one seed ({seed}): what it is ahead may "
        "be chance; compare it with the recipe in several seeds, on the test set"
    )
