"""Write the bundled sample task: train.jsonl, dev.jsonl and test.jsonl of an invented field guide.

The task has to work without a network and has to be new to the small model the library ships
with, so both the records and their descriptions are made here, from our own word lists.

Run ``python -m foreword.bundled.fieldguide.generate [OUT_DIR] [--seed N]``.  The output depends on
the seed alone: one `random.Random`, only `random()`-based choices, no iteration over sets.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foreword.bundled.fieldguide import words as w
from foreword.bundled.fieldguide.describing import ADJECTIVES, YES_NO, Describer, Dice, Record
from foreword.bundled.splits import run, write_splits

SEED = 20240
SIZES = {"train": 400, "dev": 60, "test": 80}
UNSEEN_SIZE = 40

Row = dict[str, Any]


def missing(record: Record, text: str) -> list[str]:
    """The fields whose value the text does not hold word for word, yes/no fields aside."""
    low = text.lower()
    return [f for f, v in record.items() if f not in YES_NO and v.lower() not in low]


def awkward(record: Record, text: str) -> bool:
    """Whether a draft is grammatical but clumsy, so that the planner should try again.

    Clumsy are: too short or long, a sentence of three words, a bare "It is a fish.", the category
    said three times, and two words of ours from one stem ("growing", "grows").
    """
    lengths = [len(s.split()) for s in text.removesuffix(".").split(". ")]
    if not 8 <= sum(lengths) <= 40 or max(lengths) > 28 or min(lengths) < 4 or len(lengths) > 3:
        return True
    if re.search(rf"(, an?|is an?) {record['type']}[,.]", text):
        return True
    ours = text.lower()
    if ours.count(record["type"]) > 2 or ours.count(" has ") > 1 or ours.count(" of ") > 2:
        return True
    for value in sorted(record.values(), key=len, reverse=True):
        ours = re.sub(rf"\b{re.escape(value.lower())}\b", "", ours)
    stems = re.findall(r"\b[a-z]{4}", ours)
    return len(set(stems)) < len(stems)


def references(dice: Dice, record: Record) -> list[str]:
    """Two to four different descriptions of a record, each with an opening of its own."""
    wanted = 2 + dice.below(3)
    used: list[str] = []
    texts: list[str] = []
    while len(texts) < wanted:
        minor = [f for f in ("rarity", "season", "size") if f in record]
        drop = dice.pick(minor) if minor and len(record) > 5 and dice.chance(0.08) else None
        for _ in range(200):
            opening, text = Describer(dice, record, drop).describe()
            if opening not in used and not awkward(record, text):
                break
        else:
            if len(texts) > 1:
                break
        gone = missing(record, text)
        if gone != ([drop] if drop else []) or text in texts:
            continue
        used.append(opening)
        texts.append(text)
    return texts


class Maker:
    """Draws records: names never repeat, and every list of values is dealt out like a deck."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.names: set[str] = set()
        self.decks: dict[tuple[str, str], list[str]] = {}

    def deal(self, kind: str, field: str, values: w.Values) -> str:
        """The next value of a deck, so that none is left unused in the training split."""
        deck = self.decks.setdefault((kind, field), [])
        if not deck:
            deck.extend(self.dice.shuffled(values))
        return deck.pop()

    def name(self, kind: str) -> str:
        """A new name such as "Marsh Tollow"."""
        while True:
            ends = w.OWN_ENDS[kind] if self.dice.chance(0.4) else w.ENDS
            name = f"{self.dice.pick(w.FIRST)} {self.dice.pick(w.STEMS)}{self.dice.pick(ends)}"
            if name not in self.names:
                self.names.add(name)
                return name

    def record(self, kind: str) -> Record:
        """A record of two to six facts besides its name and type, in a varied order."""
        fields = list(w.VALUES[kind])
        many = self.dice.pick((2, 3, 3, 4, 4, 4, 5, 5, 6))
        novel = self.dice.shuffled(list(w.NOVEL.get(kind, ())))[: 1 + self.dice.below(2)]
        while True:
            chosen = self.dice.shuffled([f for f in fields if f not in novel])
            chosen = [*novel, *chosen[: many - len(novel)]]
            if any(len([f for f in chosen if f in rivals]) > 1 for rivals in w.RIVALS):
                continue
            if any(f not in ADJECTIVES for f in chosen):
                break
        facts = {"type": kind}
        for field in chosen:
            values = (w.NOVEL[kind] if field in novel else w.VALUES[kind])[field]
            value = self.deal(kind, field + "+" * (field in novel), values)
            while self.clashes(value, facts):
                value = self.dice.pick(values)
            facts[field] = value
        order = ["type", *self.dice.shuffled(chosen)]
        if self.dice.chance(0.3):
            order = self.dice.shuffled(order)
        return {"name": self.name(kind), **{f: facts[f] for f in order}}

    @staticmethod
    def clashes(value: str, facts: Record) -> bool:
        """Whether a word of the value is told by another field too, which would blur a metric."""
        own = [x for x in value.lower().split() if x not in ("cm", "m")]
        others = [other.lower() for other in facts.values()]
        return any(x in other or other in x for other in others for x in own)


def build(seed: int = SEED) -> dict[str, list[Row]]:
    """All three splits, by name."""
    dice = Dice(seed)
    maker = Maker(dice)
    splits: dict[str, list[Row]] = {}
    for split, size in SIZES.items():
        kinds = [w.SEEN[i % len(w.SEEN)] for i in range(size)]
        if split == "test":
            kinds += [w.UNSEEN[i % len(w.UNSEEN)] for i in range(UNSEEN_SIZE)]
        rows: list[Row] = []
        for kind in dice.shuffled(kinds):
            record = maker.record(kind)
            rows.append(
                {
                    "id": f"{split}-{len(rows) + 1:04d}",
                    "category": kind,
                    "seen": kind in w.SEEN,
                    "record": record,
                    "references": references(dice, record),
                }
            )
        splits[split] = rows
    return splits


def write(out_dir: Path, seed: int = SEED) -> list[Path]:
    """Write the three files into the folder and return their paths."""
    return write_splits(build(seed), out_dir)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: write the files and name them."""
    what = "Write the field guide's three JSONL files."
    return run(argv, what, build, folder=Path(__file__).parent, seed=SEED)


if __name__ == "__main__":
    raise SystemExit(main())
