"""Write the bundled sample task: train.jsonl, dev.jsonl and test.jsonl of an invented field guide.

The task has to work without a network and has to be new to the small model the library ships
with, so both the records and their descriptions are made here, from our own word lists.  A
description is not one template filled in: a planner picks an opening, decides which facts go into
the noun, the predicate, a place phrase or a later sentence, and each field has several wordings.

Run ``python -m foreword.bundled.fieldguide.generate [OUT_DIR] [--seed N]``.  The output depends on
the seed alone: one `random.Random`, only `random()`-based choices, no iteration over sets.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from foreword.bundled.fieldguide import words as w
from foreword.bundled.splits import run, write_splits

SEED = 20240
SIZES = {"train": 400, "dev": 60, "test": 80}
UNSEEN_SIZE = 40
ADJECTIVES = ("rarity", "size", "colour")
PLACE = ("habitat", "near", "season")
YES_NO = ("edible",)
# What stands all year round: nobody "finds" an oak "in spring".
ROOTED = ("tree", "fern")

Record = dict[str, str]
Row = dict[str, Any]
T = TypeVar("T")


class Dice:
    """The few random choices used here, built on `Random.random` alone.

    `Random.random` is the one method whose sequence Python promises to keep between versions;
    `choice`, `sample` and `shuffle` have changed before, and the files must never change.
    """

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def chance(self, share: float) -> bool:
        """True with the given probability."""
        return self._random.random() < share

    def below(self, n: int) -> int:
        """An integer from 0 to n - 1."""
        return int(self._random.random() * n)

    def pick(self, items: Sequence[T]) -> T:
        """One item."""
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """A new list with the items in another order."""
        rest = list(items)
        return [rest.pop(self.below(len(rest))) for _ in items]


class Describer:
    """Writes one description of one record, keeping track of the facts not yet told."""

    def __init__(self, dice: Dice, record: Record, left_out: str | None = None) -> None:
        self.dice = dice
        self.record = record
        self.kind = record["type"]
        self.left = [f for f in record if f not in ("name", "type", left_out)]
        bare = self.kind in w.PLANTS and dice.chance(0.15)
        self.name = record["name"] if bare else "the " + record["name"]
        self.one = record["name"] if bare else w.with_article(record["name"])
        self.typed = False
        self.hung = False
        self.make = ""
        self.keep = 0

    # ---- words for facts ----

    def key(self, table: dict[str, w.Values], field: str) -> w.Values:
        """The wordings of a field, those of this category first; empty if there are none."""
        if field in YES_NO:
            return table.get(f"{field}={self.record[field]}", ())
        return table.get(f"{field}/{self.kind}") or table.get(field, ())

    def say(self, table: dict[str, w.Values], field: str) -> str:
        """Tell a field by one of its wordings in the table, and strike it off."""
        self.left.remove(field)
        return w.fill(self.dice.pick(self.key(table, field)), self.record[field])

    def spare(self) -> bool:
        """Whether a fact may still go into the noun, with enough left for the opening's verbs."""
        return len([f for f in self.left if f not in ADJECTIVES]) > self.keep

    def has(self, *fields: str) -> list[str]:
        """Those of the fields that are untold."""
        return [f for f in fields if f in self.left]

    def where(self, fields: Sequence[str], walking: bool = False) -> str:
        """A phrase of place and time out of the given fields: "in reed beds near Hollin Mill"."""
        parts = []
        for field in (f for f in PLACE if f in fields):
            value = self.record[field]
            self.left.remove(field)
            if field == "habitat":
                word = w.WALKING.get(value, "past") if walking else w.PREPOSITION[value]
                parts.append(f"{word} {value}")
            elif field == "near":
                far = "past" if walking and not parts else "not far from"
                word = self.dice.pick(("near", "near", "near", "close to", far))
                parts.append(f"{word} {value}")
            else:
                parts.append(f"in {value}")
        return " ".join(parts)

    def noun(self, adjectives: int = 2, hang: float = 0.3) -> str:
        """A noun phrase without article: up to so many adjectives, the type, perhaps a "with"."""
        adjectives_shown = self.dice.shuffled(self.has(*ADJECTIVES))[:adjectives]
        head = [self.record[f] for f in ADJECTIVES if f in adjectives_shown]
        self.left = [f for f in self.left if f not in adjectives_shown]
        if len(head) < 2 and self.has("edible") and self.spare() and self.dice.chance(0.3):
            self.left.remove("edible")
            head = [*head[:1], "edible" if self.record["edible"] == "yes" else "inedible"]
            if adjectives_shown and adjectives_shown[0] == "colour":
                head.reverse()
        phrase = " ".join([*head, self.kind])
        self.typed = True
        withs = [f for f in self.left if self.key(w.WITHS, f)]
        if withs and self.spare() and self.dice.chance(hang):
            phrase += " " + self.say(w.WITHS, self.dice.pick(withs))
            self.hung = True
        return phrase

    def units(self) -> list[list[str]]:
        """The untold facts, grouped as one predicate would tell them, in a random order."""
        places = self.has("habitat", "near")
        season = self.has("season")
        if places and season and self.dice.chance(0.5):
            places, season = [*places, *season], []
        adjectives = self.has(*ADJECTIVES)
        others = [[f] for f in self.left if f not in (*ADJECTIVES, *PLACE, *YES_NO)]
        middle = self.dice.shuffled([*others, *([places] if places else [])])
        groups = [*([adjectives] if adjectives else []), *middle]
        if season:
            groups.insert(self.dice.below(len(groups) + 1), season)
        return [*groups, *([[f] for f in self.has(*YES_NO)])]

    def predicate(self, unit: Sequence[str]) -> str:
        """One finite verb phrase that tells the unit."""
        if unit[0] in ADJECTIVES:
            values = [self.record[f] for f in unit]
            self.left = [f for f in self.left if f not in unit]
            return "is " + w.listed(self.dice.shuffled(values))
        if unit[0] in ("habitat", "near"):
            table = w.APPEARS if "season" in unit else w.LIVES
            return self.dice.pick(table[self.kind]).replace("{p}", self.where(unit))
        return self.say(w.VERBS, unit[0])

    def turn(self, before: Sequence[str], unit: Sequence[str]) -> bool:
        """Whether telling the unit after the earlier facts calls for "but", not "and"."""
        values = [self.record[f] for f in before]
        if unit[0] == "edible":
            bad = any(v in w.BAD_TASTES for v in values)
            good = any(f in ("taste", "smell") for f in before) and not bad
            return bad if self.record["edible"] == "yes" else good
        scarce = "rarity" in before and self.record["rarity"] in w.FEW
        return scarce and unit[0] in ("habitat", "near")

    def predicates(self, units: Sequence[Sequence[str]]) -> str:
        """Verb phrases joined into one; "has a flat cap and has ..." loses its second "has"."""
        phrases = [self.predicate(u) for u in units]
        if len(phrases) > 1 and self.turn(units[-2], units[-1]):
            last = phrases.pop()
            if last.startswith("is found"):
                last = last.replace("is found", "can be found", 1)
            return w.listed(phrases) + " but " + last
        if len(phrases) == 2 and all(s.startswith("has ") for s in phrases):
            phrases[1] = phrases[1].removeprefix("has ")
        return w.listed(phrases)

    # ---- sentences ----

    def tail(self, share: float = 0.6) -> str:
        """What may follow the opening noun phrase: a participle, a relative clause or nothing."""
        place = self.has("habitat", "near")
        if self.hung or not self.dice.chance(share):
            return ""
        if place and self.dice.chance(0.6):
            if place[0] == "habitat" and self.dice.chance(0.3):
                self.left.remove("habitat")
                return f" of {self.record['habitat']}"
            if self.has("season") and self.kind not in ROOTED and self.dice.chance(0.4):
                place = [*place, "season"]
                form = "found {p}"
            else:
                form = self.dice.pick(w.FOUND.get(self.kind, w.GROWING))
            return " " + form.replace("{p}", self.where(place))
        units = [u for u in self.units() if u[0] not in ADJECTIVES]
        take = 2 if len(units) > 2 or self.dice.chance(0.5) else 1
        return " that " + self.predicates(units[:take]) if units else ""

    def rest(self) -> list[str]:
        """The sentences that tell whatever the opening has left."""
        sentences = []
        while self.left or not self.typed:
            subject = "it"
            if not self.typed:
                noun = self.noun(hang=0.0)
                if not self.left:
                    sentences.append(f"it is {w.with_article(noun)}")
                    break
                subject = f"this {noun}"
            elif self.dice.chance(0.12):
                subject = self.dice.pick(("this ", "the ")) + self.kind
            units = self.units()
            sentences.append(self.follow(subject, units if len(units) < 4 else units[:2]))
        return sentences

    def follow(self, subject: str, units: list[list[str]]) -> str:
        """One later sentence that tells the units."""
        place = next((u for u in units if u[0] in PLACE), None)
        stays = place == ["season"] and self.kind in ROOTED
        if subject == "it" and place and not stays and self.dice.chance(0.4):
            return self.place_sentence(place, [u for u in units if u is not place])
        clause = next((u[0] for u in units if len(u) == 1 and self.key(w.CLAUSES, u[0])), None)
        if subject == "it" and clause and self.dice.chance(0.5):
            others = [u for u in units if u != [clause]]
            sentence = self.say(w.CLAUSES, clause)
            if not others:
                return sentence
            joint = ", but it " if self.turn([clause], others[0]) else ", and it "
            return sentence + joint + self.predicates(others)
        if clause and len(units) > 1 and self.dice.chance(0.35):
            others = [u for u in units if u != [clause]]
            sentence = self.predicates(others)
            return f"{subject} {sentence}, and {self.say(w.CLAUSES, clause)}"
        return f"{subject} {self.predicates(units)}"

    def place_sentence(self, place: list[str], others: list[list[str]]) -> str:
        """A sentence that sends the reader to the place, or at the right time of year."""
        if "song" in self.left and self.dice.chance(0.5):
            others = [u for u in others if u != ["song"]]
            self.left.remove("song")
            sentence = f"listen for its {self.record['song']} {self.where(place)}"
        else:
            form = self.dice.pick(("look for it {p}", "you will find it {p}", "you may see it {p}"))
            sentence = form.replace("{p}", self.where(place))
        if not others:
            return sentence
        if place[0] == "habitat" and others[0] in (["food"], ["height"], ["song"]):
            sentence += ", where it " + self.predicate(others[0])
            others = others[1:]
        return sentence + (f". It {self.predicates(others)}" if others else "")

    # ---- openings ----

    def describe(self) -> tuple[str, str]:
        """The family of the opening used, and the finished text."""
        can = [(f, shape) for f, needs, shape in w.OPENINGS if all(map(self.meets, needs.split()))]
        family = self.dice.pick(list(dict.fromkeys(f for f, _ in can)))
        shape = self.dice.pick([s for f, s in can if f == family])
        self.keep = 2 * shape.count("{two}") + shape.count("{some}")
        opening = re.sub(r"\{(\w+)\}", lambda match: self.slot(match[1]), shape)
        return family, " ".join(s[0].upper() + s[1:] + "." for s in [opening, *self.rest()])

    def meets(self, need: str) -> bool:
        """Whether the untold facts allow what an opening needs."""
        if need == "predicate":
            return len([f for f in self.left if f not in ADJECTIVES]) > 0
        kinds = {"place": PLACE[:2], "adjective": ADJECTIVES, "trait": tuple(w.TRAITS)}
        kinds["feature"] = tuple(f for f in w.TRAITS if f != "smell")
        return bool(self.has(*kinds.get(need, (need,))))

    def slot(self, slot: str) -> str:
        """The words for one slot of an opening; `words.OPENINGS` says what each stands for."""
        if slot in ("noun", "bare", "kin"):
            noun = self.noun(2 + self.dice.below(2), 0.3 if slot == "noun" else 0.0)
            return noun if slot == "kin" else w.with_article(noun)
        if slot in ("home", "place", "walk"):
            fields = self.has("habitat", "near")
            fields += self.has("season") if slot != "home" and self.dice.chance(0.5) else []
            return self.where(fields, walking=slot == "walk")
        if slot in ("near", "season"):
            self.left.remove(slot)
            return self.record[slot]
        if slot in ("trait", "feature"):
            traits = [f for f in self.left if f in w.TRAITS and (f != "smell" or slot == "trait")]
            field = self.dice.pick(traits)
            self.left.remove(field)
            form, plural = w.TRAITS[field]
            self.make = "make" if plural else "makes"
            return w.fill(form, self.record[field])
        if slot in ("some", "two", "more"):
            units = [u for u in self.units() if u[0] not in ADJECTIVES]
            if slot == "more":
                go_on = units and self.hung and self.dice.chance(0.6)
                return " and " + self.predicates(units[:1]) if go_on else ""
            return self.predicates(units[: max(1 + (slot == "two"), 1 + self.dice.below(3))])
        if slot == "of":
            if self.hung or not self.spare() or not self.has("habitat") or self.dice.chance(0.6):
                return ""
            self.left.remove("habitat")
            return f" of {self.record['habitat']}"
        if slot == "stands":
            return self.dice.pick(w.STANDS.get(self.kind, ("grows",)))
        if slot == "see":
            return self.dice.pick(w.SEE)
        return self.tail() if slot == "tail" else str(getattr(self, slot))


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
