"""Clause templates of the invented field guide.

The wording lives here and in `words.py`, so that it can be read and mended without touching the
planner in `describing.py`. In every template ``{v}`` stands for the value exactly as the record
holds it, ``{p}`` for a phrase of place or time such as "in reed beds near Hollin Bridge".
"""

from __future__ import annotations

from collections.abc import Sequence

from foreword.bundled.fieldguide.words import Values

# ---- clause templates -------------------------------------------------------------------------
# A key is "field" or "field/category"; the latter wins.

# Predicates: what follows the name or "it".
VERBS: dict[str, Values] = {
    "food": ("feeds on {v}", "eats {v}", "feeds mainly on {v}", "lives on {v}"),
    "food/butterfly": ("feeds on {v}", "drinks {v}", "is drawn to {v}", "is fond of {v}"),
    "song": ("has a {v} for a song", "sings with a {v}", "gives a {v}", "calls with a {v}"),
    "smell": ("smells of {v}", "has a smell of {v}", "gives off a scent of {v}"),
    "taste": ("tastes {v}", "has a {v} taste", "is {v} to the taste"),
    "markings": ("is marked with {v}", "has {v}", "can be told by its {v}", "bears {v}"),
    "cap": ("has a {v} cap", "carries a {v} cap", "wears a {v} cap"),
    "bark": ("has {v} bark", "can be told by its {v} bark", "is covered in {v} bark"),
    "fruit": ("bears {v}", "produces {v}", "carries {v}"),
    "petals": ("has {v} petals", "opens {v} petals", "bears {v} petals"),
    "height": ("grows to {v}", "reaches {v}", "stands about {v} tall", "can reach {v} in height"),
    "length": ("is about {v} long", "measures {v}", "reaches {v} in length"),
    "length/fish": ("grows to {v}", "is about {v} long", "reaches {v} in length"),
    "wingspan": ("has a wingspan of {v}", "measures {v} across the wings"),
    "shape": ("has a {v} shape", "is {v} in shape"),
    "lining": ("has a {v} lining", "is {v} on the inside"),
    "fronds": ("has {v} fronds", "unrolls {v} fronds", "can be told by its {v} fronds"),
    "spores": ("sheds {v} spores", "has {v} spores", "carries {v} spores"),
    "season/bird": ("is best seen in {v}", "is easiest to spot in {v}", "arrives in {v}"),
    "season/tree": ("flowers in {v}", "is at its best in {v}", "blossoms in {v}"),
    "season/mushroom": ("appears in {v}", "comes up in {v}", "can be found in {v}"),
    "season/fish": ("spawns in {v}", "is most active in {v}", "is easiest to see in {v}"),
    "season/butterfly": ("flies in {v}", "is on the wing in {v}", "can be seen in {v}"),
    "season/flower": ("blooms in {v}", "is in bloom in {v}", "is at its best in {v}"),
    "season/fern": ("unfurls in {v}", "puts out new leaves in {v}", "is at its best in {v}"),
    "season/seashell": ("washes up in {v}", "is washed ashore in {v}", "can be found in {v}"),
    "edible=yes": ("is good to eat", "can be eaten", "is safe to eat"),
    "edible=no": ("should not be eaten", "is not safe to eat", "is not fit to eat"),
}

# Whole clauses with a subject of their own; they can follow "and" or open a sentence.
CLAUSES: dict[str, Values] = {
    "food": ("its main food is {v}", "its diet is mostly {v}", "{v} are its favourite food"),
    "food/butterfly": ("its favourite food is {v}", "its main food is {v}"),
    "food/fish": ("its main food is {v}", "its diet is mostly {v}"),
    "song": ("its song is a {v}", "its call is a {v}", "its usual song is a {v}"),
    "smell": ("there is a smell of {v} about it", "its scent is that of {v}"),
    "taste": ("its taste is {v}", "the taste is {v}"),
    "taste/fish": ("its flesh is {v}", "its taste is {v}"),
    "cap": ("its cap is {v}", "the cap is {v}"),
    "bark": ("its bark is {v}", "the bark is {v}"),
    "fruit": ("its branches carry {v}", "its branches bear {v}"),
    "petals": ("each bloom has {v} petals", "its blooms have {v} petals"),
    "height": ("its height is about {v}", "its full height is {v}"),
    "length": ("its length is about {v}", "it measures about {v}"),
    "wingspan": ("its wingspan is {v}", "its wings measure {v} across"),
    "shape": ("its shape is {v}", "the shell is {v}"),
    "lining": ("its lining is {v}", "the lining is {v}"),
    "fronds": ("its fronds are {v}", "the fronds are {v}"),
    "spores": ("its spores are {v}", "the spores are {v}"),
    "colour/bird": ("its feathers are {v}", "its plumage is {v}"),
    "colour/fish": ("its scales are {v}",),
    "colour/butterfly": ("its wings are {v}",),
    "colour/flower": ("its blooms are {v}",),
    "colour/tree": ("its leaves are {v}", "its foliage is {v}"),
    "colour/mushroom": ("its colour is {v}",),
    "colour/fern": ("its leaves are {v}",),
    "colour/seashell": ("its colour is {v}",),
}

# Phrases that hang on the noun: "a small brown bird with white spots".
WITHS: dict[str, Values] = {
    "song": ("with a {v}", "with a {v} for a song"),
    "smell": ("with a smell of {v}", "with a scent of {v}", "smelling of {v}"),
    "taste": ("with a {v} taste",),
    "markings": ("with {v}", "marked with {v}"),
    "cap": ("with a {v} cap",),
    "bark": ("with {v} bark",),
    "fruit": ("with {v}", "bearing {v}"),
    "petals": ("with {v} petals",),
    "wingspan": ("with a wingspan of {v}",),
    "height": ("growing to {v}", "about {v} tall"),
    "length": ("about {v} long",),
    "shape": ("with a {v} shape",),
    "lining": ("with a {v} lining",),
    "fronds": ("with {v} fronds",),
    "spores": ("with {v} spores",),
}

# The noun phrase that follows "its" or "the ... of the Marsh Tollow", and whether it is plural.
TRAITS: dict[str, tuple[str, bool]] = {
    "song": ("{v}", False),
    "smell": ("smell of {v}", False),
    "taste": ("{v} taste", False),
    "markings": ("{v}", True),
    "cap": ("{v} cap", False),
    "bark": ("{v} bark", False),
    "fruit": ("{v}", True),
    "petals": ("{v} petals", True),
    "fronds": ("{v} fronds", True),
    "shape": ("{v} shape", False),
    "lining": ("{v} lining", False),
}

# Predicates of place alone, and of place together with season.
LIVES: dict[str, Values] = {
    "bird": ("lives {p}", "makes its home {p}", "nests {p}", "is found {p}", "can be seen {p}"),
    "tree": ("grows {p}", "is found {p}", "stands {p}", "can be found {p}"),
    "mushroom": ("grows {p}", "is found {p}", "can be found {p}", "springs up {p}"),
    "fish": ("lives {p}", "swims {p}", "is found {p}", "can be caught {p}"),
    "butterfly": ("lives {p}", "flies {p}", "flutters {p}", "is found {p}", "can be seen {p}"),
    "flower": ("grows {p}", "is found {p}", "blooms {p}", "can be found {p}"),
    "fern": ("grows {p}", "is found {p}", "can be found {p}"),
    "seashell": ("is found {p}", "can be picked up {p}", "turns up {p}", "lies {p}"),
}
APPEARS: dict[str, Values] = {
    "bird": ("can be seen {p}", "may be spotted {p}", "can be found {p}"),
    "tree": ("flowers {p}", "blossoms {p}", "is worth seeing {p}"),
    "mushroom": ("comes up {p}", "appears {p}", "can be found {p}"),
    "fish": ("can be seen {p}", "can be found {p}", "spawns {p}"),
    "butterfly": ("flies {p}", "can be seen {p}", "is on the wing {p}"),
    "flower": ("blooms {p}", "can be seen {p}", "is in bloom {p}"),
    "fern": ("unfurls {p}", "can be seen {p}", "can be found {p}"),
    "seashell": ("washes up {p}", "can be found {p}", "turns up {p}"),
}
# "a small brown bird found in reed beds"
FOUND: dict[str, Values] = {
    "bird": ("found {p}", "seen {p}", "living {p}"),
    "fish": ("found {p}", "living {p}"),
    "butterfly": ("found {p}", "seen {p}"),
    "seashell": ("found {p}", "washed up {p}"),
}
GROWING: Values = ("found {p}", "growing {p}")
# The verb of "in reed beds lives the Marsh Tollow"; plants grow.
STANDS: dict[str, Values] = {
    "bird": ("lives", "nests"),
    "fish": ("lives", "swims"),
    "butterfly": ("lives", "flies"),
    "seashell": ("lies",),
}

# ---- openings ---------------------------------------------------------------------------------
# The first sentence of a description: its family (no two descriptions of a record share one), what
# it needs among the untold facts, and its shape. The slots are filled from left to right:
#   {name} {one}          "the Marsh Tollow", "a Marsh Tollow"
#   {noun} {bare} {kin}   "a small brown bird" perhaps with a "with ..."; never with; no article
#   {tail} {of}           perhaps " that ..." or " found in ..."; perhaps " of reed beds"
#   {some} {two} {more}   one or more predicates; at least two; perhaps " and ..."
#   {home} {place} {walk} habitat and place; perhaps the season too; worded for somebody walking
#   {near} {season}       the bare values
#   {trait} {feature}     "low whistle", "smell of honey"; the same without the smells
#   {make} {see} {stands} verbs
OPENINGS: tuple[tuple[str, str, str], ...] = (
    ("plain", "", "{name} is {noun}{tail}{more}"),
    ("plain again", "", "{name} is {noun}{tail}{more}"),
    ("aside", "predicate adjective", "{name}, {noun}, {some}"),
    ("before", "predicate adjective", "{noun}{of}, {name} {some}"),
    ("called", "predicate", "{bare} called {name} {some}"),
    ("called", "predicate", "{bare} known as {name} {some}"),
    ("there", "place", "there is {bare} called {name} {home}"),
    ("there", "place", "{home} there is {bare} called {name}{tail}"),
    ("walk", "place", "if you walk {walk}, you may {see} {one}, {noun}{tail}"),
    ("walk", "place", "if you walk {walk}, you may {see} {name}, {noun}{tail}"),
    ("walk", "place", "walk {walk} and you may {see} {one}, {noun}{tail}"),
    ("walk", "place", "on a walk {walk}, you might {see} {name}, {noun}{tail}"),
    ("walk", "place", "anyone out walking {walk} may {see} {one}, {noun}{tail}"),
    ("see", "near", "visitors to {near} may {see} {name}, {noun}{tail}"),
    ("see", "near", "people living near {near} know {name}, {noun}{tail}"),
    ("see", "place", "{place}, you may {see} {one}, {noun}{tail}"),
    ("see", "place", "keep your eyes open {place} and you may {see} {name}, {noun}{tail}"),
    ("see", "place", "with a little luck you will {see} {one} {place}"),
    ("look", "place", "look for {name}, {noun}, {place}"),
    ("look", "place", "look {place} for {name}, {noun}{tail}"),
    ("inverted", "place", "{home} {stands} {name}, {noun}{tail}"),
    ("season", "season", "{season} is the best time to see {name}, {noun}{tail}"),
    ("season", "season", "{season} is the time to look for {name}, {noun}{tail}"),
    ("known", "trait", "known for its {trait}, {name} is {bare}{tail}"),
    ("known", "trait", "easily told by its {trait}, {name} is {bare}{tail}"),
    ("known", "trait", "recognised by its {trait}, {name} is {bare}{tail}"),
    ("feature", "feature", "the {feature} of {name} {make} this {kin} easy to recognise"),
    ("feature", "feature", "the {feature} of {name} {make} this {kin} hard to mistake"),
    ("feature", "feature", "its {feature} {make} {name} easy to tell from other kinds"),
    ("feature", "trait", "you can tell {name} by its {trait}"),
    ("feature", "trait", "{name} is best known for its {trait}"),
    ("action", "predicate", "{name} {two}"),
)
SEE: Values = ("see", "come across", "find", "notice", "come upon")


# ---- joining ----------------------------------------------------------------------------------


def fill(template: str, value: str) -> str:
    """Put a value into its template, turning "a" into "an" before a vowel."""
    if value[0] in "aeiou":
        template = template.replace("a {v}", "an {v}")
    return template.replace("{v}", value)


def with_article(phrase: str) -> str:
    """The phrase after "a" or "an"."""
    return ("an " if phrase[0].lower() in "aeiou" else "a ") + phrase


def listed(parts: Sequence[str]) -> str:
    """Join as English does: "x", "x and y", "x, y and z"."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
