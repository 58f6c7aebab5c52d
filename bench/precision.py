"""What arithmetic in 16 bits takes on this device: a training step of a prefix, and one forward
pass, as ratios to float32.

    python bench/precision.py
    python bench/precision.py --backbone models/smollm2-135m-instruct --rounds 3 --out FILE

The batch is the same in all variants, which take turns; a ratio is of medians of processor time (of
time on a GPU). `dtype` casts the weights, `precision` is autocast on float32 weights.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from fieldguide import prefix_and_batch
from foreword import load_backbone
from foreword.backbone import has_units

VARIANTS = {
    "float32": ("float32", False),
    "dtype bfloat16": ("bfloat16", False),
    "dtype float16": ("float16", False),
    "precision bfloat16": ("float32", True),
}


def main() -> None:
    """Time every variant in turns and print a table."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--backbone", default="foreword/mini")
    flags.add_argument("--device", default="cpu")
    flags.add_argument("--rounds", type=int, default=7)
    flags.add_argument("--threads", type=int, default=1)
    flags.add_argument("--out", type=Path, help="write the figures as JSON")
    given = flags.parse_args()
    torch.set_num_threads(given.threads)
    ways = {
        name: passes(given.backbone, given.device, dtype, autocast=autocast)
        for name, (dtype, autocast) in VARIANTS.items()
    }
    spent: dict[tuple[str, str], list[float]] = {}
    for _ in range(given.rounds + 1):
        for name, calls in ways.items():
            for what, call in calls.items():
                spent.setdefault((name, what), []).append(seconds(call, given.device))
    figures = {
        name: {
            what: round(
                statistics.median(spent[name, what][1:])  # the first round warms up
                / statistics.median(spent["float32", what][1:]),
                2,
            )
            for what in calls
        }
        for name, calls in ways.items()
    }
    units = {dtype: has_units(dtype, given.device) for dtype in ("bfloat16", "float16")}
    capability = torch.backends.cpu.get_cpu_capability()
    print(f"{given.backbone} on {given.device} ({capability}), units: {units}")
    print(f"{'':20}{'step':>8}{'forward':>9}")
    for name, row in figures.items():
        print(f"{name:20}{row['step']:8.2f}{row['forward']:9.2f}")
    if given.out is not None:
        whole = {
            "backbone": Path(given.backbone).name,
            "device": given.device,
            "capability": capability,
            "units": units,
            "ratios to float32": figures,
        }
        given.out.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")


def passes(
    name: str, device: str, dtype: str, *, autocast: bool
) -> dict[str, Callable[[], object]]:
    """A training step and a forward pass of a prefix on a backbone."""
    backbone = load_backbone(name, device=device, dtype=dtype)  # type: ignore[arg-type]
    model, layout = prefix_and_batch(backbone)

    def way() -> contextlib.AbstractContextManager[object]:
        kind = torch.device(device).type
        return torch.autocast(kind, torch.bfloat16) if autocast else contextlib.nullcontext()

    def step() -> None:
        with way():
            loss = model(layout).sum()
        loss.backward()

    def forward() -> None:
        with way(), torch.no_grad():
            model(layout)

    return {"step": step, "forward": forward}


def seconds(call: Callable[[], object], device: str) -> float:
    """How long a call takes: of the processor, or of the clock where a GPU computes."""
    if torch.device(device).type == "cpu":
        start = time.process_time()
        call()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
