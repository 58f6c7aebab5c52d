"""Seeded damage to plain data and to bytes: what a slip of the hand or a bad disk would do."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import one_of_each


def seeds(count: int) -> list[Any]:
    """Seeds for a test's damage; two of three are for `make soak`."""
    return [
        pytest.param(*case.values[1:], marks=case.marks)
        for case in one_of_each([(seed // 3, seed) for seed in range(count)], 1)
    ]


JUNK: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1.5,
    10**30,
    -(10**400),
    float("nan"),
    float("inf"),
    "",
    " ",
    "x",
    "0",
    "1e-3",
    "foreword/nothing",
    "../../etc/passwd",
    "{",
    "{record",
    "null\0byte",
    "żółć 火 🙂 \u202e",
    "x" * 10_000,
    [],
    [[]],
    ["x", 1, None],
    {},
    {"name": None},
    {"a": {"b": {"c": [1, {"d": None}]}}},
)


def paths(tree: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something lies in nested data, the root left out."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield (*here, key)
        if isinstance(value, (dict, list)):
            yield from paths(value, (*here, key))


def damaged_tree(seed: int, tree: Any) -> Any:
    """The tree with one to three values or keys changed, removed, renamed, moved or added."""
    rng = random.Random(seed)
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(paths(tree))
        if not places:
            return tree
        *parents, key = rng.choice(places)
        holder = tree
        for parent in parents:
            holder = holder[parent]
        operation = rng.choice(("value", "value", "value", "delete", "rename", "add", "swap"))
        if operation == "value":
            holder[key] = copy.deepcopy(rng.choice(JUNK))
        elif operation == "delete":
            del holder[key]
        elif operation == "rename" and isinstance(holder, dict):
            name = rng.choice((f"{key}s", f"{key}"[1:], f"{key}".upper(), "ключ", f"{key}\n"))
            holder[name] = holder.pop(key)
        elif operation == "add" and isinstance(holder, dict):
            holder[rng.choice(("table", "mlp", "extra", "a.b", "", "x" * 300))] = rng.choice(JUNK)
        else:
            *_, other = rng.choice(places)
            if isinstance(holder, dict):
                holder[other] = copy.deepcopy(tree) if rng.random() < 0.3 else holder[key]
    return tree


def damaged_bytes(seed: int, raw: bytes) -> bytes:
    """The bytes cut, flipped, repeated, reordered or with strange ones put in."""
    rng = random.Random(seed)
    at, end = sorted(rng.randrange(len(raw) + 1) for _ in range(2))
    some = rng.randbytes(rng.choice((1, 4, 50)))
    special = rng.choice(
        (
            b"\0",
            b"\xff\xfe",
            b"\xef\xbb\xbf",
            b'"',
            b"'",
            b"\t",
            b"\r",
            b"{",
            b"[" * 5000,
            b"&a *a ",
        )
    )
    line_ends = raw.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\n", b"")))
    flipped = bytearray(raw)
    for _ in range(rng.choice((1, 3, 20))):
        flipped[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    return rng.choice(
        (
            raw[:at],
            raw[at:],
            raw[:at] + raw[end:],
            raw[:end] + raw[at:],
            raw[:at] + some + raw[at:],
            raw[:at] + special + raw[at:],
            raw[:at] + special + raw[at:],
            special + raw,
            line_ends,
            bytes(flipped),
            bytes(flipped),
            b"".join(rng.sample(lines := raw.splitlines(keepends=True), len(lines))),
        )
    )
