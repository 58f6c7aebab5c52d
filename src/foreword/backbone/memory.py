"""How many bytes a forward pass or a step holds, and how many a device has."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from foreword.common.memory import of_machine, ran_out

if TYPE_CHECKING:
    from foreword.backbone import Backbone


SHARE = 0.7
"""Of the memory that is free, what rows that are answered may take."""


def rows_that_fit(
    run: Callable[[int], Any],
    known: Sequence[Tensor],
    device: torch.device,
    *,
    most: int,
    beside: int = 0,
) -> int:
    """How many rows can go through a model at once, by what one and two of them hold.

    Args:
        run: a forward pass of so many rows, of the longest.
        known: what lies in memory already.
        device: where it runs.
        most: no more than these are asked for.
        beside: bytes that a row takes later and that `run` does not show.

    Returns:
        As many as a share of what is free has room for; one where there is no room, too.
    """
    if most < 2:
        return 1
    peaks = []
    try:
        for rows in (1, 2):
            with counting(device, known) as counted:
                run(rows)
            peaks.append(counted.peak)
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        return 1  # what does not go through alone says so when it is answered
    one, two = peaks
    left = int(SHARE * free(device)) - one - beside
    return max(1, min(most, 1 + left // max(1, two - one + beside)))


class Peak:
    """The most bytes that were held beyond what was there at the beginning.

    Attributes:
        peak: so far.
    """

    peak = 0


class Alive(TorchDispatchMode, Peak):
    """Bytes of the tensors that live, from the first operation that sees them.

    Attributes:
        now: at this moment; what was `known` beforehand is left out.
        peak: the most so far.
    """

    def __init__(self, known: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._seen = {id_ for tensor in known for id_, _ in storages(tensor)}
        self._known = list(known)

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run the operation, and look at what goes in and comes out."""
        output = func(*args, **(kwargs or {}))
        for one in tree_leaves((args, kwargs, output)):
            if isinstance(one, Tensor):
                self._see(one)
        return output

    def _see(self, tensor: Tensor) -> None:
        for id_, storage in storages(tensor):
            if id_ not in self._seen:
                self._seen.add(id_)
                size = storage.nbytes()
                self.now += size
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._gone, id_, size)

    def _gone(self, id_: int, size: int) -> None:
        self._seen.discard(id_)
        self.now -= size


@contextmanager
def counting(device: torch.device, known: Sequence[Tensor]) -> Iterator[Peak]:
    """The peak of what runs inside: the allocator's own count on CUDA, elsewhere that of tensors.

    Args:
        device: where it runs.
        known: what lies in memory already.
    """
    if device.type != "cuda":
        with Alive(known) as alive:
            yield alive
        return
    torch.cuda.reset_peak_memory_stats(device)
    before, counted = torch.cuda.memory_allocated(device), Peak()
    try:
        yield counted
    finally:
        counted.peak = torch.cuda.max_memory_allocated(device) - before


def held(device: torch.device, known: Sequence[Tensor]) -> int:
    """Bytes that are in use before a step."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    sizes = {id_: storage.nbytes() for one in known for id_, storage in storages(one)}
    return sum(sizes.values())


def free(device: torch.device) -> int:
    """Bytes that are there to be used: of a GPU, or of the machine or this container."""
    if device.type == "cuda":
        there, _ = torch.cuda.mem_get_info(device)
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(there + idle)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return of_machine().free


def bytes_of_position(backbone: Backbone) -> int:
    """What one position of a row takes in a cache: its keys and values in every layer."""
    g = backbone.geometry
    sites = [g.main, *(g.sites[site] for site in ("cross",) if site in g.sites)]
    numbers = sum(site.width or 2 * site.layers * g.width for site in sites)
    return numbers * int(backbone.model.dtype.itemsize)


def storages(tensor: Tensor) -> list[tuple[int, torch.UntypedStorage]]:
    """Where a tensor's numbers lie; those of a quantised weight lie in several places."""
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        return [one for name in names for one in storages(getattr(tensor, name))]
    if tensor.is_meta:
        return []
    storage = tensor.untyped_storage()
    return [(storage._cdata, storage)]


def resident(model: nn.Module) -> list[Tensor]:
    """All tensors of a model, its quantisation's own too."""
    tensors = [*model.parameters(), *model.buffers()]
    for parameter in model.parameters():
        for name in ("quant_state", "CB", "SCB"):
            tensors += _tensors(getattr(parameter, name, None))
    for module in model.modules():
        tensors += _tensors(getattr(module, "state", None))
        tensors += _tensors(getattr(module, "quant_state", None))
    return tensors


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    inner = vars(value).values() if hasattr(value, "__dict__") else ()
    return [one for one in inner if isinstance(one, Tensor)]
