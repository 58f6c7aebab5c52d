"""Work that training leaves out since it was done before: the one place that decides about it.

Each saving is a `TrainingReuse`: made before the first step or not at all, it changes what a call
holds and never what the call computes. Which work is kept depends on the recipe and the data alone,
so a run that is resumed computes the same numbers.

`KeptSources`: what stands before an infix is read once, and not once in every epoch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from foreword.axes.placement import Infix
from foreword.backbone import Call, Sources
from foreword.backbone.layout import Pair
from foreword.recipe import TrainingSpec
from foreword.training.hardware import Hardware
from foreword.tuned import TrainingReuse, TunedModel

TOGETHER = 16
"""Sources that are read together."""


@dataclass(frozen=True)
class Planned:
    """What a training is going to do, which decides what it may reuse.

    Attributes:
        model: is trained.
        pairs: its examples.
        spec: the `training` section of the recipe.
        steps: how many it takes in all.
        hardware: where it runs.
    """

    model: TunedModel
    pairs: Sequence[Pair]
    spec: TrainingSpec
    steps: int
    hardware: Hardware


@contextmanager
def reusing(planned: Planned) -> Iterator[None]:
    """While it lasts, the model's calls leave out what `REUSES` found worth keeping."""
    reuses = [made for make in REUSES if (made := make(planned)) is not None]
    planned.model.reuses = tuple(reuses)
    try:
        yield
    finally:
        planned.model.reuses = ()


@dataclass(frozen=True)
class KeptSources:
    """Calls that have the keys and values of what stands before their virtual tokens."""

    sources: Sources

    @property
    def size(self) -> int:
        """Bytes of keys and values."""
        return self.sources.size

    def reuse(self, call: Call) -> Call:
        """The same call, its sources read already."""
        if call.prompt is not None and call.layout.before is not None:
            call.prompt.past = self.sources.recall(call.layout.before)
        return call


def kept_sources(planned: Planned) -> KeptSources | None:
    """Keys and values of all sources, read before the first step.

    None where something of the backbone moves, or where a source is read less than twice.
    """
    model, spec = planned.model, planned.spec
    pairs, steps, hardware = planned.pairs, planned.steps, planned.hardware
    still = isinstance(model.placement, Infix) and model.delta.backbone is None
    # Processes that share a backbone run it together, whatever each of them remembers.
    still = still and hardware.sharding is None
    if not still or not spec.source_cache or not spec.savings.sources:
        return None
    counts = Counter(tuple(pair.source) for pair in pairs)
    if steps * spec.accumulation * spec.batch_size / len(counts) < 2:
        return None
    sources = Sources(model.backbone, spec.source_cache * 1e9)
    # The most frequent first, if there is no room for all; then those of one length together.
    order = sorted(counts, key=lambda source: (-counts[source], len(source)))
    with hardware.accelerator.autocast():
        for start in range(0, len(order), TOGETHER):
            before = model.arrange(order[start : start + TOGETHER]).before
            if before is not None:
                sources.keep(before)
            if sources.full:
                break
    return KeptSources(sources)


REUSES: tuple[Callable[[Planned], TrainingReuse | None], ...] = (kept_sources,)
"""What may be reused, in the order in which calls go through it."""
