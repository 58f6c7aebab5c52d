"""Which errors say that memory ran out, and what to do about it. Imports no torch."""

from __future__ import annotations

import re

_SIGNS = re.compile(
    r"DefaultCPUAllocator: (can't allocate|not enough) memory"
    r"|(CUDA|MPS backend|HIP|XPU) out of memory"
    r"|CUBLAS_STATUS_ALLOC_FAILED"
)
_ASKED = re.compile(r"[Tt]ried to allocate ([\d.]+ ?\w+)")
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


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
