"""Settings of a training that cannot work, or hardly: said before it begins.

The rates are those of docs/choosing.md, widened by what papers and shipped recipes use.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from foreword.methods import METHODS, PET, MethodOptions
from foreword.recipe import Recipe, TrainingSpec
from foreword.training.amount import total_steps, warmup_steps


@dataclass(frozen=True)
class Wants:
    """What a kind of parameter wants of its learning rate.

    Attributes:
        what: the parameters, in the plural.
        rates: the lowest and the highest rate that usually serve, as text.
        most: above this rate, training usually fails.
        least: rate times steps, below which the parameters hardly move: an optimizer of Adam's kind
            moves a number by about the rate in each step.
    """

    what: str
    rates: str
    most: float
    least: float


KEYS_VALUES = {
    "table": Wants("plain tables of keys and values", "0.02 to 0.3", most=2.0, least=1.0),
    "mlp": Wants("MLPs that make keys and values", "5e-5 to 5e-3", most=0.03, least=0.01),
}
EMBEDDINGS = {
    "table": Wants("plain tables of virtual tokens", "0.02 to 0.5", most=5.0, least=0.5),
    "mlp": Wants("MLPs that make virtual tokens", "1e-5 to 5e-3", most=0.03, least=1e-3),
    "lstm": Wants("LSTMs that make virtual tokens", "1e-5 to 5e-3", most=0.03, least=1e-3),
}
DELTAS = {
    "full": Wants("all weights of a backbone", "1e-5 to 1e-3", most=5e-3, least=1e-4),
    "top": Wants("all weights of layers", "1e-5 to 2e-3", most=0.01, least=1e-4),
    "bitfit": Wants("biases", "1e-3 to 2e-2", most=0.2, least=0.02),
    "adapter": Wants("bottleneck adapters", "3e-4 to 5e-3", most=0.05, least=5e-3),
    "lora": Wants("low-rank updates", "2e-4 to 5e-3", most=0.03, least=5e-3),
}
HEAD = Wants("heads", "1e-3 to 0.05", most=1.0, least=5e-3)


def cautions(recipe: Recipe, rows: int) -> list[str]:
    """What should be said of a recipe's training on so many rows, a line each."""
    if not rows or not _trains(recipe):
        return []
    if isinstance(recipe.method, PET) and recipe.training.steps is None:
        return []  # its classifier learns from other rows, of which the number is not known yet
    total = total_steps(recipe.training, rows)
    return [*_warmup(recipe, total), *_evaluations(recipe, total), *_rates(recipe, total)]


def _trains(recipe: Recipe) -> bool:
    method = recipe.method
    return method.length > 0 or method.moves.kind != "none" or recipe.task.has_head


def _warmup(recipe: Recipe, total: int) -> Iterator[str]:
    spec, steps = recipe.training, warmup_steps(recipe.training, total)
    if steps <= total / 2:
        return
    share = min(1.0, total / steps)
    theirs = METHODS[recipe.method.name].training_defaults.get("warmup") == spec.warmup
    default = f", the default of {recipe.method.name}" if theirs else ""
    yield (
        f"training.warmup: the rate rises for {steps:,} steps{default}, but the training has "
        f"{total:,}, so it ends at {share:.0%} of training.learning_rate"
        if steps > total
        else f"training.warmup: the rate rises for {steps:,} of {total:,} steps"
    ) + "; give a share of the steps, such as `warmup: 0.1`"


def _evaluations(recipe: Recipe, total: int) -> Iterator[str]:
    spec, data = recipe.training, recipe.task.data
    if data.dev is None and data.hold_out is None:
        return
    every = spec.evaluate_every
    tenth = max(1, total // 10)
    if every is None:
        if spec.best_by not in (None, "loss"):
            yield (
                f"training.best_by: `{spec.best_by}` chooses among evaluations, but there is one, "
                f"after the last step; give `evaluate_every`, such as {tenth}"
            )
    elif every >= total:
        dead = ", and training.patience ends nothing" if spec.patience else ""
        yield (
            f"training.evaluate_every: {every:,}, but the training has {total:,} steps, so it is "
            f"evaluated once, after the last{dead}; give a smaller number, such as {tenth}"
        )
    elif spec.patience and (spec.patience + 1) * every >= total:
        yield (
            f"training.patience: {spec.patience} evaluations after the best one, {every:,} steps "
            f"from one to the next, are not over before the last of {total:,} steps, so it ends "
            "nothing; give a smaller `patience` or `evaluate_every`"
        )


def _rates(recipe: Recipe, total: int) -> Iterator[str]:
    spec = recipe.training
    steps = total * (1.0 if spec.schedule == "constant" else 0.5)
    slow, moving = [], 0
    for field, rate, wants in _by_rate(spec, recipe):
        moving += 1
        if wants is None:
            continue
        if rate > wants.most:
            yield (
                f"training.{field}: {rate:g} is high for {wants.what}, which usually want "
                f"{wants.rates}"
            )
        elif rate * steps < wants.least:
            slow.append(
                f"training.{field}: {rate:g} over {total:,} steps moves {wants.what} by hardly "
                f"{rate * steps:.1g}; they usually want rates of {wants.rates}, or more steps"
            )
    if len(slow) == moving:  # otherwise other parameters learn
        yield from slow


def _by_rate(spec: TrainingSpec, recipe: Recipe) -> Iterator[tuple[str, float, Wants | None]]:
    """Each kind of parameter that is trained: the field that says its rate, the rate, and its
    wants, where they are known."""
    method: MethodOptions = recipe.method
    if method.length:
        kinds = EMBEDDINGS if method.enters.has_slots else KEYS_VALUES
        wants = kinds.get(method.reparameterization.kind)
        if wants is not None and kinds is KEYS_VALUES and method.init.kind != "random":
            wants = replace(wants, least=0.0)  # what starts from real words need not move far
        yield "learning_rate", spec.learning_rate, wants
    if method.moves.kind != "none":
        own = spec.delta_learning_rate
        field = "learning_rate" if own is None else "delta_learning_rate"
        yield field, own or spec.learning_rate, DELTAS.get(method.moves.kind)
    if recipe.task.has_head:
        own = spec.head_learning_rate
        field = "learning_rate" if own is None else "head_learning_rate"
        yield field, own or spec.learning_rate, HEAD
