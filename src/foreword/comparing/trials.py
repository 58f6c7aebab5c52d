"""The trials of a search: chosen, run here or on a cluster, measured, told to the study."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.common.progress import Silent
from foreword.common.run_files import is_finished
from foreword.comparing.cells import Place
from foreword.comparing.cluster import Cluster
from foreword.comparing.constraints import Constraint, costs_of
from foreword.comparing.executing import Failure, Loaded, attempt
from foreword.comparing.grid import Cell
from foreword.comparing.space import Space
from foreword.comparing.study import AS_GIVEN, OWN, SECONDS
from foreword.errors import ForewordError, UserError
from foreword.names import LOSS
from foreword.recipe import Recipe

if TYPE_CHECKING:
    from foreword.comparing.cluster import Crew
    from foreword.training.signals import Stop

UNTESTED: Mapping[str, Any] = {"task.data.test": None}
"""Changes to a recipe after which nothing of it reads the test set."""


class Runner:
    """Runs trials: chooses, has them trained and measured, tells the study."""

    def __init__(
        self,
        optuna: Any,
        study: Any,
        made: Callable[[Mapping[str, Any]], Recipe],
        space: Space,
        folder: Path,
        metric: str,
        bounds: Sequence[Constraint],
        high: bool,
    ) -> None:
        self.optuna, self.study = optuna, study
        self.made, self.space, self.folder, self.metric = made, space, folder, metric
        self.bounds, self.high = bounds, high

    def settle(self) -> None:
        """The study is told of the trials that were under way when the search was killed: the value
        of one whose run is finished, and that the others failed."""
        states = self.optuna.trial.TrialState
        for frozen in self.study.get_trials(deepcopy=False, states=[states.RUNNING]):
            trial = self.optuna.trial.Trial(self.study, frozen._trial_id)
            seconds = max(frozen.user_attrs.get(SECONDS, 0.0), self._lasted(frozen))
            if is_finished(self._folder(trial)):
                self._tell(trial, seconds, None)
            else:
                trial.set_user_attr(SECONDS, seconds)
                self.study.tell(trial, state=states.FAIL)

    def _lasted(self, trial: Any) -> float:
        """Seconds from the begin of a trial to the last that its run has written here."""
        start = trial.datetime_start.timestamp()
        written = (file.stat().st_mtime for file in self._folder(trial).rglob("*"))
        return float(max(0.0, max(written, default=start) - start))

    def run(self, loaded: Loaded) -> None:
        """One trial in this process."""
        started = time.monotonic()
        trial, place = self._begun()
        if place is None:
            return

        def watch(entry: Mapping[str, float]) -> None:
            if self._is_hopeless(trial, place.cell.recipe, entry):
                raise self.optuna.TrialPruned

        pruned, failure = False, None
        try:
            failure = attempt(place, loaded, Silent(), watch)
        except self.optuna.TrialPruned:
            pruned = True
        except BaseException:  # the search is stopped; it settles the trial where it goes on
            trial.set_user_attr(SECONDS, time.monotonic() - started)
            raise
        self._tell(trial, time.monotonic() - started, _reason(failure), pruned=pruned)

    def run_on(self, cluster: Cluster, more: Callable[[], bool], device: str | None) -> None:
        """Trials on a cluster, as long as there are to be more, as many at a time as workers."""
        from foreword.comparing.cluster import crew_of
        from foreword.training.signals import stop_on_signals

        trials: dict[int, tuple[Any, Recipe, float]] = {}
        with (
            crew_of(cluster, self.folder, runs=10**6, device=device, watched=True) as crew,
            stop_on_signals() as stop,
        ):
            try:
                self._deal_out(crew, trials, more, stop)
            except BaseException:  # as in `run`
                for trial, _, started in trials.values():
                    trial.set_user_attr(SECONDS, time.monotonic() - started)
                raise

    def _deal_out(
        self,
        crew: Crew,
        trials: dict[int, tuple[Any, Recipe, float]],
        more: Callable[[], bool],
        stop: Stop,
    ) -> None:
        going_on = True
        while going_on or crew.running:
            stop.check()
            while going_on and crew.free and (going_on := more()):
                trial, place = self._begun()
                if place is not None:
                    trials[trial.number] = trial, place.cell.recipe, time.monotonic()
                    crew.begin(place, trial.number)
            for number, entry in crew.ray.get(crew.reports.take.remote()):
                if number not in trials:
                    continue
                trial, recipe, started = trials[number]
                trial.set_user_attr(SECONDS, time.monotonic() - started)  # a kill leaves no file
                if self._is_hopeless(trial, recipe, entry):
                    crew.give_up(number)
            for _, number, failure, pruned in crew.ended():
                trial, _, started = trials[number]
                self._tell(trial, time.monotonic() - started, _reason(failure), pruned=pruned)
                del trials[number]

    def _begun(self) -> tuple[Any, Place | None]:
        """A trial and its run; of one whose choices are no recipe the study is told, and no run."""
        trial = self.study.ask()
        changes = {} if trial.user_attrs.get(AS_GIVEN) else self.space.choose(trial)
        trial.set_user_attr("changes", changes)
        given = {**changes, **UNTESTED, "evaluation.backbone_alone": False}
        try:
            return trial, Place(Cell({}, self.made(given)), self._folder(trial))
        except ForewordError as error:
            self._tell(trial, 0.0, str(error))
            return trial, None

    def _folder(self, trial: Any) -> Path:
        return self.folder / "runs" / f"{trial.number:04d}"

    def _is_hopeless(self, trial: Any, recipe: Recipe, entry: Mapping[str, float]) -> bool:
        """Whether a run is to end early, by what it has reached and others had reached after as
        many examples."""
        value = entry.get(self.metric)
        if value is None:
            value = -entry["loss"] if self.high else entry["loss"]
        trial.report(value, int(entry["step"]) * rows_of_step(recipe))
        return not trial.user_attrs.get(OWN) and bool(trial.should_prune())

    def _tell(
        self, trial: Any, seconds: float, reason: str | None, *, pruned: bool = False
    ) -> None:
        """The study is told of a trial that has ended: well, by itself or by a failure."""
        states = self.optuna.trial.TrialState
        state, value = states.PRUNED if pruned else states.FAIL, None
        attributes: dict[str, Any] = {SECONDS: seconds}
        if reason is None and not pruned:
            try:
                value, measured = self._measured(trial)
                attributes |= measured
                state = states.COMPLETE
            except ForewordError as error:
                reason = str(error)
        if reason is not None:
            attributes["reason"] = reason
        for name, entry in attributes.items():
            trial.set_user_attr(name, entry)
        self.study.tell(trial, value, state=state)

    def _measured(self, trial: Any) -> tuple[float, dict[str, Any]]:
        from foreword.runs.finished import read_metrics

        metrics = read_metrics(self._folder(trial))
        value = (
            _kept_loss(metrics)
            if self.metric == LOSS
            else metrics["prompt"]["all"].get(self.metric)
        )
        if value is None:
            raise UserError(f"{self.metric}: has no value on the development examples")
        costs = costs_of(metrics)
        for bound in self.bounds:
            trial.set_constraint(bound.name, bound.excess(costs))
        return value, {"costs": costs}


def rows_of_step(recipe: Recipe) -> int:
    """Examples that each step of a training reads."""
    return recipe.training.batch_size * recipe.training.accumulation


def _kept_loss(metrics: Mapping[str, Any]) -> float | None:
    """The development loss of the state that a run kept; None where it was never measured."""
    training = metrics["training"]
    for evaluation in training.get("evaluations", ()):
        if evaluation["step"] == training.get("best_step"):
            loss = evaluation.get(LOSS)
            return None if loss is None else float(loss)
    return None


def _reason(failure: Failure | None) -> str | None:
    return None if failure is None else failure.reason
