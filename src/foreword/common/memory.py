"""How much memory there is; which errors say that it ran out, and what to do about it. Imports no
torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

_SIGNS = re.compile(
    r"DefaultCPUAllocator: (can't allocate|not enough) memory"
    r"|(CUDA|MPS backend|HIP|XPU) out of memory"
    r"|CUBLAS_STATUS_ALLOC_FAILED"
)
_ASKED = re.compile(r"[Tt]ried to allocate ([\d.]+ ?\w+)")
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
_GROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


class Memory(NamedTuple):
    """Bytes of memory.

    Attributes:
        whole: in all.
        free: those that can be had.
    """

    whole: int
    free: int


class _Names(NamedTuple):
    """Where control groups of one version stand, and what they call what they hold."""

    root: str
    limit: str
    used: str
    droppable: str


_FIRST = _Names("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_SECOND = _Names(".", "memory.max", "memory.current", "inactive_file")


def of_machine() -> Memory:
    """The memory of this machine, or what a container or a job may have of it where that is less.

    Pages of files that can be dropped (`inactive_file`) count as free, as in what Kubernetes calls
    the working set: a container that has read a large file is not full.
    """
    import psutil  # Accelerate brings it along

    machine = psutil.virtual_memory()
    whole, free = int(machine.total), int(machine.available)
    for limit, used in _limits():
        whole, free = min(whole, limit), min(free, max(0, limit - used))
    return Memory(whole, free)


def _limits() -> Iterator[tuple[int, int]]:
    """Limit and use of each control group that this process is in, as far as they are seen here."""
    try:
        lines = _OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        names = _FIRST if controllers else _SECOND
        # A container may see its own group as the root, whatever its path says.
        own = PurePosixPath(path.lstrip("/"))
        for group in (own, *own.parents):
            limit = _limit(_GROUPS / names.root / group, names)
            if limit is not None:
                yield limit


def _limit(group: Path, names: _Names) -> tuple[int, int] | None:
    try:
        limit, used = (
            (group / name).read_text(encoding="ascii").strip() for name in (names.limit, names.used)
        )
        statistics = (group / "memory.stat").read_text(encoding="ascii")
    except OSError:
        return None
    if not limit.isdigit():  # "max"
        return None
    entries = dict(line.split(" ", 1) for line in statistics.splitlines())
    return int(limit), int(used) - int(entries.get(names.droppable, 0))


def ran_out(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, says that the CPU's or a GPU's memory is full."""
    while error is not None:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return True
        if isinstance(error, RuntimeError) and _SIGNS.search(str(error)):
            return True
        error = error.__cause__
    return False


def advice(
    error: BaseException, *, batch: str = "training.batch_size", dtype: str = "backbone.dtype"
) -> str:
    """One line: how much was asked for, and what needs less.

    Args:
        error: what `ran_out` is true of.
        batch, dtype: what sets the batch's size and the backbone's type, as the user gives it.
    """
    amount = _ASKED.search(_text(error))
    much = f" (asked for {_readable(amount[1])} more)" if amount else ""
    return (
        f"out of memory{much}; give a smaller {batch} (a training learns the same with "
        "training.micro_batch_size=auto), a smaller evaluation.batch_size, or the backbone in "
        f"bfloat16 ({dtype})"
    )


def _text(error: BaseException | None) -> str:
    texts = []
    while error is not None:
        texts.append(str(error))
        error = error.__cause__
    return " ".join(texts)


def _readable(amount: str) -> str:
    """`2147483648 bytes` as `2.0 GiB`; what has a larger unit already stays."""
    number, _, unit = amount.partition(" ")
    if unit != "bytes":
        return amount
    size, power = float(number), 0
    while size >= 1024 and power < len(_UNITS) - 1:
        size, power = size / 1024, power + 1
    return f"{size:.1f} {_UNITS[power]}" if power else amount
