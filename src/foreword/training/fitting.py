"""How many examples go through a model at once, and whether its layers are computed twice: as
memory has room for.

Neither changes what is learned: a batch stays what the recipe says, and its parts add up to its
gradient. So the peak of a step is measured beforehand, with one example, then two, four and so on,
each time those that take the most, and the largest number that fits is taken. Layers are computed
twice, which costs time, only where a single example would not fit otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from foreword.backbone import devices, memory
from foreword.backbone.layout import Pair
from foreword.backbone.stored_pairs import answers, lengths
from foreword.errors import BackboneError, UserError
from foreword.recipe import TrainingSpec
from foreword.training import randomness
from foreword.training.hardware import Hardware
from foreword.training.held_out import lay_out
from foreword.tuned import TunedModel

SHARE = 0.9
"""Of the memory that is free, what a step may take where a recipe names no budget."""
_MOMENTS = 2
"""Numbers that AdamW keeps for each one that is trained."""


@dataclass(frozen=True)
class Fit:
    """What was chosen.

    Attributes:
        micro_batch_size: examples that go through the model at once; None: all of a batch.
        gradient_checkpointing: whether layers are computed twice.
        peak: bytes that a step holds beyond `held`; None where nothing was measured.
        held: bytes that lie in memory before it.
        room: bytes that there are for the step.
    """

    micro_batch_size: int | None
    gradient_checkpointing: bool
    peak: int | None = None
    held: int | None = None
    room: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @property
    def line(self) -> str | None:
        """What was chosen, in a line; None where the recipe said it."""
        if self.peak is None or self.held is None or self.room is None:
            return None
        size, twice = self.micro_batch_size, self.gradient_checkpointing
        return (
            f"memory: {'a batch' if size is None else f'{size} examples'} at once, "
            f"{'with' if twice else 'without'} gradient checkpointing; a step takes "
            f"{_gigabytes(self.peak)} beside the {_gigabytes(self.held)} that lie there, and there "
            f"is room for {_gigabytes(self.room)}"
        )


def fitted(model: TunedModel, pairs: Sequence[Pair], spec: TrainingSpec, hardware: Hardware) -> Fit:
    """What a recipe says, "auto" settled by measuring. Nothing of the model or of random states is
    changed.

    Raises:
        UserError: the budget is too small for one example, the weights lie in several places, or
            a batch of this task cannot be cut.
    """
    size, twice = spec.micro_batch_size, spec.gradient_checkpointing
    if size is not None and model.readout.weighs_examples:
        raise UserError(
            "training.micro_batch_size: each pair is learned against the others of its batch, so a "
            "batch in parts is learned differently; leave it out"
        )
    if size != "auto" and twice != "auto":
        return Fit(size, twice)
    if devices.is_spread(model.backbone.model):
        raise UserError(
            "training.micro_batch_size, training.gradient_checkpointing: 'auto' measures one "
            "device, but backbone.device_map spreads the backbone; give numbers"
        )
    whole = -(-min(spec.batch_size, len(pairs)) // hardware.processes)
    most = whole if size is None or size == "auto" else min(size, whole)
    held = _held(model, hardware)
    room = round(spec.memory * 1e9) - held if spec.memory is not None else _free(hardware)
    ways = _ways(model) if twice == "auto" else [twice is True]
    for recomputes in ways:
        fits, peaks = _measure(model, pairs, _sizes(most), recomputes, room, hardware)
        if fits == most or (fits and size == "auto"):
            return Fit(None if fits == whole else fits, recomputes, int(peaks[fits]), held, room)
    least, needs = next(iter(peaks.items()))
    if spec.memory is None and math.isfinite(needs):  # what is free is a guess
        chosen = least if size == "auto" else size
        return Fit(chosen, ways[-1], int(needs), held, room)
    much = _gigabytes(int(needs)) if math.isfinite(needs) else "more than there is"
    raise UserError(
        f"training.memory: {_gigabytes(held + room)} are too few: {_gigabytes(held)} lie in memory "
        f"already, and a step of {least} of the longest examples takes {much}; give more, shorter "
        "examples, micro_batch_size: auto and gradient_checkpointing: auto, or the backbone in "
        "fewer bits (backbone.dtype, backbone.quantization)"
    )


def _held(model: TunedModel, hardware: Hardware) -> int:
    """Bytes that lie in memory before a step: weights, what is trained, what is kept for reuse."""
    known = [*memory.resident(model.backbone.model), *model.parameters()]
    kept = sum(reuse.size for reuse in model.reuses)
    counted = hardware.device.type == "cuda"  # by the allocator
    return memory.held(hardware.device, known) + (0 if counted else kept)


def _sizes(whole: int) -> list[int]:
    """A batch in 1, 2, 4, … parts: the sizes of the largest part, ascending."""
    return sorted({-(-whole // 2**power) for power in range(whole.bit_length() + 1)})


def _ways(model: TunedModel) -> list[bool]:
    """Without recomputing layers, and with it where a family can."""
    try:
        model.backbone.check_trainable(recomputing=True)
    except BackboneError:
        return [False]
    return [False, True]


def _free(hardware: Hardware) -> int:
    """Processes on one machine share its memory; each has a GPU of its own."""
    sharing = hardware.processes if hardware.device.type == "cpu" else 1
    return int(SHARE * memory.free(hardware.device) / sharing)


def _measure(
    model: TunedModel,
    pairs: Sequence[Pair],
    sizes: Sequence[int],
    recomputes: bool,
    room: int,
    hardware: Hardware,
) -> tuple[int, dict[int, float]]:
    """The largest of some numbers of examples that fits in all processes, 0 for none; and by number
    the bytes of a step, as far as it was tried."""
    orders = [(-of(pairs).astype("int64")).argsort(kind="stable") for of in (lengths, answers)]
    fits, peaks, fixed = 0, dict[int, float](), _fixed(model)
    for size in sizes:
        if hardware.any(int(_expected(peaks, size, fixed) > room)):
            break
        chosen = {
            tuple(sorted((-order).argsort(kind="stable")[:size].tolist())) for order in orders
        }
        peaks[size] = max(peak_of(model, pairs, rows, hardware, recomputes) for rows in chosen)
        if hardware.any(int(peaks[size] > room)):
            break
        fits = size
    return fits, peaks


def _expected(peaks: dict[int, float], size: int, fixed: int) -> float:
    """The bytes of a step of so many examples: on a line through the last two that were measured,
    or through the only one and what no example needs."""
    points = [(0, float(fixed)), *peaks.items()][-2:]
    if len(points) < 2:
        return 0.0
    (fewer, low), (more, high) = points
    return high + (high - low) / (more - fewer) * (size - more)


def _fixed(model: TunedModel) -> int:
    """Bytes of a step whatever the examples: gradients of what is trained, and AdamW's numbers."""
    trained = [one for one in model.parameters() if one.requires_grad]
    return (_MOMENTS + 1) * sum(one.nbytes for one in trained)


def peak_of(
    model: TunedModel,
    pairs: Sequence[Pair],
    rows: Sequence[int],
    hardware: Hardware,
    recomputes: bool,
) -> float:
    """The most bytes that a step of these examples holds beyond what lies in memory, the
    optimizer's numbers included; infinite where they are not to be had."""
    device = hardware.device
    known = [*memory.resident(model.backbone.model), *model.parameters()]
    trained = [one for one in model.parameters() if one.requires_grad]
    before = randomness.capture()
    try:
        with (
            memory.counting(device, known) as counted,
            model.backbone.recomputing(recomputes),
        ):
            with hardware.accelerator.autocast():
                loss = model(lay_out(model, pairs, rows)).sum()
            loss.backward()
            del loss
    except torch.OutOfMemoryError:
        return math.inf
    finally:
        model.zero_grad(set_to_none=True)
        randomness.restore(*before)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return counted.peak + _MOMENTS * sum(one.nbytes for one in trained)


def _gigabytes(count: int) -> str:
    return f"{max(0, count) / 1e9:.3g} GB"
