"""Odd numbers, encodings, kinds of files and names, drawn by a seed."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import yaml
from mutators import JUNK, damaged_bytes, damaged_tree, paths

NUMBERS: tuple[Any, ...] = (
    float("inf"),
    float("-inf"),
    float("nan"),
    0,
    -1,
    -0.0,
    1,
    True,
    False,
    1e-320,
    1e-45,
    3.4e38,
    1e308,
    -1e308,
    10**18,
    2**31,
    2**63,
    2**64,
    10**400,
    0.5,
    1.0000000001,
    "1",
    "1e5",
    "0x10",
    "1_000",
    "١٢",
    ".inf",
    "NaN",
)
TEXTS = (
    "",
    " ",
    "\n",
    "x",
    "{",
    "}",
    "{text",
    "{text}{text}",
    "{soft:99}",
    "{mask}",
    "[/b]",
    "[bold]x",
    "\x1b[31mred",
    "a\x00b",
    "a\u2028b\x85c",
    "\u202eabc",
    "e\u0301" * 50,
    "ﷺ" * 20,
    "👩‍👩‍👧‍👦",
    "火 水",
    "-",
    "--out",
    "null",
    "~",
    "1e5",
    "'",
    '"',
    "%s%n",
    "../../x",
    "/dev/zero",
    "foreword/nothing",
    "x" * 300,
    "word " * 800,
)
ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "gb18030", "latin-1", "utf-7", "cp037")
HALVES = ("\ud800", "\udfff", "a\udc80b")


def nested(depth: int, *, mapping: bool) -> Any:
    """Lists or mappings inside each other."""
    value: Any = "x"
    for _ in range(depth):
        value = {"a": value} if mapping else [value]
    return value


def odd_value(rng: random.Random) -> Any:
    """A number, a text, a nest or something else."""
    kind = rng.randrange(8)
    if kind < 4:
        return rng.choice(NUMBERS)
    if kind < 6:
        return rng.choice(TEXTS)
    if kind < 7:
        return copy.deepcopy(rng.choice(JUNK))
    return nested(rng.choice((2, 63, 64, 65, 200)), mapping=rng.random() < 0.5)


def odd_tree(rng: random.Random, tree: Any) -> Any:
    """The tree with one value odd, or damaged in another way."""
    if rng.random() < 0.3:
        return damaged_tree(rng.randrange(2**32), tree)
    tree = copy.deepcopy(tree)
    places = list(paths(tree))
    if rng.random() < 0.4:
        numeric = [place for place in places if type(_at(tree, place)) in (int, float)]
        places = numeric or places
    if places:
        *parents, key = rng.choice(places)
        _at(tree, parents)[key] = odd_value(rng)
    return tree


def _at(tree: Any, place: Any) -> Any:
    for key in place:
        tree = tree[key]
    return tree


def odd_text(rng: random.Random) -> str:
    """A text such as a user, or a file, might give."""
    return rng.choice((*TEXTS, *HALVES)) if rng.random() < 0.9 else chr(rng.randrange(0x110000))


def odd_bytes(rng: random.Random, raw: bytes) -> bytes:
    """Bytes in another encoding, with halves of characters or NULs, or damaged."""
    kind = rng.randrange(6)
    text = raw.decode("utf-8", "replace")
    if kind == 0:
        return text.encode(rng.choice(ENCODINGS), "replace")
    if kind == 1:
        at = rng.randrange(len(text) + 1)
        put = rng.choice((*HALVES, "\0", "\ufeff", "\u2028", "\x85", "\x1a", "\x1b[2J", "\x0c"))
        return (text[:at] + put + text[at:]).encode("utf-8", "surrogatepass")
    if kind == 2:
        at = rng.randrange(len(text) + 1)
        put = rng.choice(("\\ud800", "\\u0000", "NaN", "-Infinity", "1e999", "[" * 70, "\\x00"))
        return (text[:at] + put + text[at:]).encode()
    return damaged_bytes(rng.randrange(2**32), raw) if raw else b"\0"


KINDS = (
    "missing",
    "empty",
    "folder",
    "full folder",
    "fifo",
    "zero",
    "null",
    "random",
    "loop",
    "dangling",
    "outside",
    "inside",
    "huge",
)


def become(kind: str, place: Path) -> None:
    """Put something of another kind in a file's place."""
    content = place.read_bytes() if place.is_file() else b""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
    if kind == "empty":
        place.touch()
    elif kind.endswith("folder"):
        place.mkdir()
        if kind.startswith("full"):
            (place / "x").write_bytes(content)
    elif kind == "fifo":
        os.mkfifo(place)
    elif kind in ("zero", "null", "random"):
        place.symlink_to("/dev/urandom" if kind == "random" else f"/dev/{kind}")
    elif kind == "loop":
        place.symlink_to(place.name)
    elif kind == "dangling":
        place.symlink_to("nowhere")
    elif kind in ("outside", "inside"):
        there = place.parent if kind == "inside" else place.parent.parent
        other = there / f"moved-{place.name}"
        other.write_bytes(content)
        place.symlink_to(other)
    elif kind == "huge":
        place.write_bytes(content)
        os.truncate(place, 2**42)


def spoil(rng: random.Random, place: Path, *, fifo: bool = True) -> str:
    """Do something to a file; says what.

    Args:
        rng: draws.
        place: the file.
        fifo: whether it may become a FIFO, for which a reader of streams would wait rightly.
    """
    if not place.is_file() or rng.random() < 0.2:
        kind = rng.choice([kind for kind in KINDS if fifo or kind != "fifo"])
        become(kind, place)
        return kind
    raw = place.read_bytes()
    if rng.random() < 0.6:
        tree = _tree(place, raw)
        if tree is not None:
            place.write_bytes(_written(place, odd_tree(rng, tree)))
            return "values"
    place.write_bytes(odd_bytes(rng, raw))
    return "bytes"


def _tree(place: Path, raw: bytes) -> Any:
    if place.suffix == ".jsonl":
        return [json.loads(line) for line in raw.splitlines()]
    if place.suffix == ".json":
        return json.loads(raw)
    return yaml.safe_load(raw) if place.suffix == ".yaml" else None


def _written(place: Path, tree: Any) -> bytes:
    if place.suffix == ".yaml":
        return yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")
    if place.suffix == ".jsonl" and isinstance(tree, list):
        return b"".join(json.dumps(row).encode() + b"\n" for row in tree)
    return json.dumps(tree, ensure_ascii=False).encode("utf-8", "surrogatepass")
