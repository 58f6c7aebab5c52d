"""What stands before an infix is read once, and not once in every epoch.

Which sources are kept depends on the recipe and the data alone, and so does with which others each
is read: a run that is resumed computes the same numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from foreword.backbone import Sources
from foreword.layout import Pair
from foreword.placement import Infix
from foreword.recipe import TrainingSpec
from foreword.training.hardware import Hardware
from foreword.tuned import TunedModel

TOGETHER = 16
"""Sources that are read together."""


@contextmanager
def reading_once(
    model: TunedModel,
    pairs: Sequence[Pair],
    spec: TrainingSpec,
    steps: int,
    hardware: Hardware,
) -> Iterator[None]:
    """While it lasts, the model has keys and values of its sources; nothing if that brings nothing.

    Not where something of the backbone moves, nor where a source is read less than twice.
    """
    counts = Counter(tuple(pair.source) for pair in pairs)
    reads = steps * spec.accumulation * spec.batch_size / len(counts)
    still = isinstance(model.placement, Infix) and model.delta.backbone is None
    if not still or not spec.source_cache or reads < 2:
        yield
        return
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
    model.sources = sources
    try:
        yield
    finally:
        model.sources = None
