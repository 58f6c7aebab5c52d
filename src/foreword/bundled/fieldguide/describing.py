"""Descriptions of the invented field guide's records.

A description is not one template filled in: a planner picks an opening, decides which facts go into
the noun, the predicate, a place phrase or a later sentence, and each field has several wordings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random
from typing import TypeVar

from foreword.bundled.fieldguide import phrases as p
from foreword.bundled.fieldguide import words as w

ADJECTIVES = ("rarity", "size", "colour")
PLACE = ("habitat", "near", "season")
YES_NO = ("edible",)
# What stands all year round: nobody "finds" an oak "in spring".
ROOTED = ("tree", "fern")

Record = dict[str, str]
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
        self.one = record["name"] if bare else p.with_article(record["name"])
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
        return p.fill(self.dice.pick(self.key(table, field)), self.record[field])

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
        withs = [f for f in self.left if self.key(p.WITHS, f)]
        if withs and self.spare() and self.dice.chance(hang):
            phrase += " " + self.say(p.WITHS, self.dice.pick(withs))
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
            return "is " + p.listed(self.dice.shuffled(values))
        if unit[0] in ("habitat", "near"):
            table = p.APPEARS if "season" in unit else p.LIVES
            return self.dice.pick(table[self.kind]).replace("{p}", self.where(unit))
        return self.say(p.VERBS, unit[0])

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
            return p.listed(phrases) + " but " + last
        if len(phrases) == 2 and all(s.startswith("has ") for s in phrases):
            phrases[1] = phrases[1].removeprefix("has ")
        return p.listed(phrases)

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
                form = self.dice.pick(p.FOUND.get(self.kind, p.GROWING))
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
                    sentences.append(f"it is {p.with_article(noun)}")
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
        clause = next((u[0] for u in units if len(u) == 1 and self.key(p.CLAUSES, u[0])), None)
        if subject == "it" and clause and self.dice.chance(0.5):
            others = [u for u in units if u != [clause]]
            sentence = self.say(p.CLAUSES, clause)
            if not others:
                return sentence
            joint = ", but it " if self.turn([clause], others[0]) else ", and it "
            return sentence + joint + self.predicates(others)
        if clause and len(units) > 1 and self.dice.chance(0.35):
            others = [u for u in units if u != [clause]]
            sentence = self.predicates(others)
            return f"{subject} {sentence}, and {self.say(p.CLAUSES, clause)}"
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
        can = [(f, shape) for f, needs, shape in p.OPENINGS if all(map(self.meets, needs.split()))]
        family = self.dice.pick(list(dict.fromkeys(f for f, _ in can)))
        shape = self.dice.pick([s for f, s in can if f == family])
        self.keep = 2 * shape.count("{two}") + shape.count("{some}")
        opening = re.sub(r"\{(\w+)\}", lambda match: self.slot(match[1]), shape)
        return family, " ".join(s[0].upper() + s[1:] + "." for s in [opening, *self.rest()])

    def meets(self, need: str) -> bool:
        """Whether the untold facts allow what an opening needs."""
        if need == "predicate":
            return len([f for f in self.left if f not in ADJECTIVES]) > 0
        kinds = {"place": PLACE[:2], "adjective": ADJECTIVES, "trait": tuple(p.TRAITS)}
        kinds["feature"] = tuple(f for f in p.TRAITS if f != "smell")
        return bool(self.has(*kinds.get(need, (need,))))

    def slot(self, slot: str) -> str:
        """The words for one slot of an opening; `words.OPENINGS` says what each stands for."""
        if slot in ("noun", "bare", "kin"):
            noun = self.noun(2 + self.dice.below(2), 0.3 if slot == "noun" else 0.0)
            return noun if slot == "kin" else p.with_article(noun)
        if slot in ("home", "place", "walk"):
            fields = self.has("habitat", "near")
            fields += self.has("season") if slot != "home" and self.dice.chance(0.5) else []
            return self.where(fields, walking=slot == "walk")
        if slot in ("near", "season"):
            self.left.remove(slot)
            return self.record[slot]
        if slot in ("trait", "feature"):
            traits = [f for f in self.left if f in p.TRAITS and (f != "smell" or slot == "trait")]
            field = self.dice.pick(traits)
            self.left.remove(field)
            form, plural = p.TRAITS[field]
            self.make = "make" if plural else "makes"
            return p.fill(form, self.record[field])
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
            return self.dice.pick(p.STANDS.get(self.kind, ("grows",)))
        if slot == "see":
            return self.dice.pick(p.SEE)
        return self.tail() if slot == "tail" else str(getattr(self, slot))
