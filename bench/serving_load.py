"""Latency by load, and what thousands of registered prompts cost.

    python bench/serving_load.py --backbone 34m --requests 16 --threads 1 --clock cpu
    python bench/serving_load.py --backbone 34m --registered 5000 --threads 1 --clock cpu

Requests of bench/serving.py arrive at random (Poisson) at shares of what the engine does at most,
which three times as many requests tell that come together. Told are their times to the first and
the last token, divided by the medians of a request that comes alone. In one more run, at a load of
0.8, a prompt is added, or replaced, with every eighth request, and asked for at once.

With `--registered`, instead: the time of a step with 10 and with so many prompts registered, in
memory of the same size, the same prompts asked for.

`--clock cpu` is for a machine that does other work: time is that of this process's processor, and
passes at once where there is nothing to do before the next request.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from decoding import Request
from foreword.artifacts.artifact import save_artifact
from foreword.backbone import Backbone
from foreword.methods import PrefixTuning
from foreword.methods.axes import Table
from foreword.recipe import TaskId
from foreword.serving import Engine, EngineOptions, Job, PromptStore
from foreword.tuned import TunedModel
from serving import Timed, named, parser_of, prefix_of, prepared, say, served_by, write, writing
from training import CLOCKS

LOADS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.2)
ADDING_AT, EVERY = 0.8, 8
"""The load at which prompts are added, and with which requests."""
PERCENT = (50, 90, 99)
FEW = 10
MEMORY = 2**28
"""Bytes of prompts in memory, where thousands are registered."""


class Clock:
    """Time in seconds: of the wall, or of this process's processor, where what would be spent
    waiting is passed over."""

    def __init__(self, name: str) -> None:
        self.now_of, self.skips, self.skipped = CLOCKS[name], name == "cpu", 0.0

    def now(self) -> float:
        """The time."""
        return self.now_of() + self.skipped

    def until(self, due: float, idle: Callable[[], bool]) -> None:
        """Wait for a time.

        Args:
            due: the time.
            idle: whether nothing is done.
        """
        while (left := due - self.now()) > 0:
            if self.skips and idle():
                self.skipped += left
            else:
                time.sleep(min(left, 0.002))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, and write JSON and a plot if a folder is given."""
    parser = parser_of(__doc__)
    parser.add_argument("--registered", type=int, default=0, help="prompts, such as 5000")
    parser.add_argument("--rounds", type=int, default=8, help="with --registered; %(default)s")
    parser.add_argument("--each", type=int, default=128, help="requests of a load; %(default)s")
    options = parser.parse_args(arguments)
    backbone, requests, models, report = prepared(options, "serving_load", arguments)
    what = "registered" if options.registered else "load"
    if options.registered:
        report |= registered(options, backbone, requests)
    else:
        report |= by_load(options, backbone, requests, models)
    print(table(report))
    if options.out:
        name = f"serving-{what}-{named(options.backbone)}-cpu"
        write(report, Path(options.out), name)
        if not options.registered:
            draw(report, Path(options.out) / f"{name}.png")
    return 0


def stored(backbone: Backbone, length: int, folder: Path) -> list[Path]:
    """A few prefixes as artifacts."""
    method = PrefixTuning(name="prefix-tuning", length=length, reparameterization=Table())
    found = [folder / f"p{number}" for number in range(FEW)]
    for place in found:
        save_artifact(
            place,
            prefix_of(backbone, length),
            name=place.name,
            method=method,
            task=TaskId(input="{text}", target="{reference}"),
        )
    return found


def registered(
    options: argparse.Namespace, backbone: Backbone, requests: list[Request]
) -> dict[str, Any]:
    """Time of a step with many prompts registered, divided by that with a few."""
    clock, names = CLOCKS[options.clock], ("few", "again", "many")
    stores = {name: PromptStore(backbone, memory=MEMORY) for name in names}
    with tempfile.TemporaryDirectory() as temporary:
        folders = stored(backbone, options.length, Path(temporary))
        begun = clock()
        for number in range(options.registered):
            stores["many"].add(f"p{number}", folders[number % FEW])
        adding = (clock() - begun) / options.registered
        for name in names[:2]:
            for folder in folders:
                stores[name].add(folder.name, folder)
        rounds = []
        size = len(requests)
        with Engine(backbone, EngineOptions(rows=size, queue=size)) as engine:

            def step(store: PromptStore) -> float:
                steps, begun = engine.counts.steps, clock()
                served_by(engine, requests, lambda i: store.get(f"p{i % FEW}").model)
                return (clock() - begun) / (engine.counts.steps - steps)

            for store in stores.values():
                step(store)
            for number in range(options.rounds):
                order = list(names) * 3
                random.Random(number).shuffle(order)
                seconds = dict.fromkeys(names, 0.0)
                for name in order:
                    seconds[name] += step(stores[name])
                rounds.append(seconds)
                say(f"round {number + 1}/{options.rounds}")
    ratios = {name: [seconds[name] / seconds["few"] for seconds in rounds] for name in names[1:]}
    return {
        "few": FEW,
        "many": options.registered,
        "step time, median of ratios": statistics.median(ratios["many"]),
        "ratios": ratios["many"],
        "ratios of the few again": ratios["again"],
        "seconds to add one": adding,
    }


def by_load(
    options: argparse.Namespace,
    backbone: Backbone,
    requests: list[Request],
    models: list[TunedModel],
) -> dict[str, Any]:
    """Times to the first and the last token at each load, divided by the median of a request that
    comes alone."""
    dice, size = random.Random(options.seed), len(requests)
    clock = Clock(options.clock)
    with (
        tempfile.TemporaryDirectory() as temporary,
        Engine(backbone, EngineOptions(rows=size, queue=10**6)) as engine,
    ):
        folders = stored(backbone, options.length, Path(temporary))
        store = PromptStore(backbone)

        def ask(number: int, adding: bool = False) -> Timed:
            heard = Timed(clock.now(), clock.now)
            model = models[number % len(models)]
            if adding:
                name = f"new{number % (3 * EVERY)}"
                store.add(name, folders[number % FEW])
                model = store.get(name).model
            engine.submit([Job(writing(model, requests[number % size]), heard)])
            return heard

        alone = [_ended([ask(number)])[0] for number in range(min(12, size))]
        begun = clock.now()
        _ended([ask(number) for number in range(3 * size)])
        most = 3 * size / (clock.now() - begun)
        first = statistics.median(one.first - one.asked for one in alone)
        whole = statistics.median(one.last - one.asked for one in alone)

        def at(load: float, adding: bool) -> dict[str, Any]:
            asked: list[Timed] = []
            begun = due = clock.now()
            for number in range(options.each):
                due += dice.expovariate(load * most)
                clock.until(due, lambda: all(one.ended.is_set() for one in asked))
                asked.append(ask(number, adding and number % EVERY == 0))
            _ended(asked)
            took = max(one.last for one in asked) - begun
            firsts = sorted((one.first - one.asked) / first for one in asked)
            wholes = sorted((one.last - one.asked) / whole for one in asked)
            say(f"load {load}")
            return {
                "load": load,
                "answered": options.each / took / most,
                "failed": sum(one.error is not None for one in asked),
                **{f"first, {p} %": _percentile(firsts, p) for p in PERCENT},
                **{f"whole, {p} %": _percentile(wholes, p) for p in PERCENT},
            }

        return {
            "requests a second at most": most,
            "alone, seconds to the first token": first,
            "alone, seconds": whole,
            "requests of each load": options.each,
            "loads": [at(load, adding=False) for load in LOADS],
            "prompts added": -(-options.each // EVERY),
            "while prompts are added": at(ADDING_AT, adding=True),
        }


def _ended(heard: list[Timed]) -> list[Timed]:
    for one in heard:
        one.ended.wait()
    return heard


def _percentile(ordered: Sequence[float], percent: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = [f"`{report['command']}`", "", report["lengths"], ""]
    if "many" in report:
        again = statistics.median(report["ratios of the few again"])
        lines.append(
            f"step with {report['many']} prompts registered ÷ with {report['few']}: "
            f"{report['step time, median of ratios']:.3f} (the few again: {again:.3f})"
        )
        return "\n".join(lines)
    lines += [
        "| load | answered | failed | first token ÷ alone: 50, 90, 99 % | whole ÷ alone |",
        "|--:|--:|--:|--|--|",
    ]
    adding = report["while prompts are added"]
    for one in [*report["loads"], adding]:
        shown = [
            ", ".join(f"{one[f'{what}, {p} %']:.1f}" for p in PERCENT)
            for what in ("first", "whole")
        ]
        load = f"{one['load']}{', prompts added' if one is adding else ''}"
        lines.append(f"| {load} | {one['answered']:.2f} | {one['failed']} | {' | '.join(shown)} |")
    return "\n".join(lines)


def draw(report: dict[str, Any], file: Path) -> None:
    """Percentiles by load."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.2), sharex=True)
    loads = report["loads"]
    for axis, what, title in zip(
        axes, ("first", "whole"), ("first token", "whole answer"), strict=True
    ):
        for percent in PERCENT:
            axis.plot(
                [one["load"] for one in loads],
                [one[f"{what}, {percent} %"] for one in loads],
                marker="o",
                label=f"{percent} %",
            )
        axis.axvline(1.0, color="grey", linestyle="--", linewidth=1)
        axis.set(xlabel="arrivals ÷ most that is answered", ylabel=f"{title} ÷ alone", yscale="log")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
