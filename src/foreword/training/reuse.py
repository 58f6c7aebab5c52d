"""Work that training leaves out since it was done before: the one place that decides about it.

Each saving is a `TrainingReuse`: made before the first step or not at all, it changes what a call
holds and never what the call computes. Which work is kept depends on the recipe and the data alone,
so a run that is resumed computes the same numbers.

`KeptSources`: what stands before an infix is read once, and not once in every epoch.
`KeptEncodings`: so is what an encoder reads that no prompt enters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from foreword.axes.placement import Infix
from foreword.backbone import Call, Encodings, Remembered, Sources
from foreword.backbone.layout import Layout, Pair
from foreword.common.progress import Progress
from foreword.recipe import TrainingSpec
from foreword.training.hardware import Hardware
from foreword.training.signals import Stop
from foreword.tuned import TrainingReuse, TunedModel

TOGETHER = 16
"""Sources that are read together, at most."""
TOKENS = 2**13
"""Tokens that are read together, at most, where a single source has no more."""


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
def reusing(planned: Planned, progress: Progress, stop: Stop) -> Iterator[None]:
    """While it lasts, the model's calls leave out what `REUSES` found worth keeping.

    Raises:
        Stopped: `stop` was requested while sources were read.
    """
    reuses = [made for make in REUSES if (made := make(planned, progress, stop)) is not None]
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


@dataclass(frozen=True)
class KeptEncodings:
    """Calls that have what the encoder makes of their sources."""

    encodings: Encodings

    @property
    def size(self) -> int:
        """Bytes of states."""
        return self.encodings.size

    def reuse(self, call: Call) -> Call:
        """The same call, its sources read already."""
        if call.prompt is not None and call.layout.source is not None:
            call.prompt.encoded = self.encodings.recall(call.layout.source)
        return call


def kept_sources(planned: Planned, progress: Progress, stop: Stop) -> KeptSources | None:
    """Keys and values of all sources, read before the first step.

    None where something of the backbone moves, or where a source is read less than twice.
    """
    model = planned.model
    counts = _counts(planned) if isinstance(model.placement, Infix) else None
    if counts is None:
        return None
    sources = Sources(model.backbone, planned.spec.source_cache * 1e9)
    _fill(planned, counts, sources, lambda layout: layout.before, progress, stop)
    return KeptSources(sources)


def kept_encodings(planned: Planned, progress: Progress, stop: Stop) -> KeptEncodings | None:
    """What an encoder makes of all sources where no prompt enters it, read before the first step.

    None where something of the backbone moves, or where a source is read less than twice.
    """
    model = planned.model
    if model.backbone.geometry.kind != "encoder-decoder":
        return None
    with torch.no_grad():
        prompt = model.prompt()
    if prompt is None or "encoder" in prompt.sites or prompt.embeddings is not None:
        return None
    counts = _counts(planned)
    if counts is None:
        return None
    encodings = Encodings(model.backbone, planned.spec.source_cache * 1e9)
    _fill(planned, counts, encodings, lambda layout: layout.source, progress, stop)
    return KeptEncodings(encodings)


def _counts(planned: Planned) -> Counter[tuple[int, ...]] | None:
    """How often an epoch reads each source; None where sources do not stay what they are, are read
    less than twice in all, or may not be kept."""
    spec = planned.spec
    # Processes that share a backbone run it together, whatever each of them remembers.
    still = planned.model.delta.backbone is None and planned.hardware.sharding is None
    if not still or not spec.source_cache or not spec.savings.sources:
        return None
    counts = Counter(tuple(row.source) for pair in planned.pairs for row in pair.rows)
    epochs = planned.steps * spec.accumulation * spec.batch_size / len(planned.pairs)
    return counts if epochs * counts.total() / len(counts) >= 2 else None


def _fill(
    planned: Planned,
    counts: Counter[tuple[int, ...]],
    kept: Remembered,
    part: Callable[[Layout], Layout | None],
    progress: Progress,
    stop: Stop,
) -> None:
    """Read all sources, the most frequent first, if there is no room for all; then those of one
    length together.

    Args:
        planned: whose.
        counts: how often an epoch reads each.
        kept: where they are kept.
        part: of a batch, what is read.
        progress: told how far it is.
        stop: ends it.
    """
    order = sorted(counts, key=lambda source: (-counts[source], len(source)))
    progress.begin("read sources", len(order))
    with planned.hardware.accelerator.autocast():
        while order and not kept.full:
            stop.check()
            longest = max(map(len, order[:TOGETHER]))
            many = max(1, min(TOGETHER, TOKENS // max(1, longest)))
            group, order = order[:many], order[many:]
            texts = part(planned.model.arrange(group))
            if texts is not None:
                kept.keep(texts)
            progress.advance(len(group))


REUSES: tuple[Callable[[Planned, Progress, Stop], TrainingReuse | None], ...] = (
    kept_sources,
    kept_encodings,
)
"""What may be reused, in the order in which calls go through it."""
