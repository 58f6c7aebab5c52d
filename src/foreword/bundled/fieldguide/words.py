"""Word lists and clause templates of the invented field guide.

The wording lives here, so that it can be read and mended without touching the planner in
`generate.py`. In every template ``{v}`` stands for the value exactly as the record holds it,
``{p}`` for a phrase of place or time such as "in reed beds near Hollin Bridge".
"""

from __future__ import annotations

from collections.abc import Sequence

Values = tuple[str, ...]

SEEN: Values = ("bird", "tree", "mushroom", "fish", "butterfly", "flower")
UNSEEN: Values = ("seashell", "fern")
PLANTS: Values = ("tree", "mushroom", "flower", "fern")


def _words(text: str) -> Values:
    return tuple(text.split())


def _list(text: str) -> Values:
    return tuple(part.strip() for part in text.split(","))


# ---- names ------------------------------------------------------------------------------------

FIRST: Values = _words(
    "Abbot Amber Arrow Bishop Bonnet Candle Carter Chapel Cinder Cobble Cottage Drover "
    "Drummer Dusk Ember Feather Fiddle Friar Frost Harbour Harvest Hazel Hermit Hollow Islet "
    "Ivy Jester Juniper Kettle Lantern Lattice Linen Marsh Meadow Midland Miller Mirror "
    "Monk Needle Parson Pebble Pilgrim Ribbon Saddle Sailor Shepherd Spindle "
    "Steeple Tailor Tangle Thimble Thorn Tinker Trumpet Vale Velvet Weaver Willow "
    "Yarrow"
)
STEMS: Values = _words(
    "Ar Bal Bel Cor Dal Dor Fen Gal Gar Hol Kel Lar Mar Mel Nor Or Pel Quil Ral Ser Sol Tal Tol "
    "Var Wen Yor"
)
ENDS: Values = ("dle", "low", "mer", "net", "rick", "sel", "ter", "vet", "wick")
OWN_ENDS: dict[str, Values] = {
    "bird": ("wing", "bill", "crest", "piper"),
    "tree": ("wood", "bough", "thorn"),
    "mushroom": ("cap", "stool", "button"),
    "fish": ("fin", "gill", "scale"),
    "butterfly": ("wing", "dancer", "flit"),
    "flower": ("bell", "wort", "bloom"),
    "seashell": ("spire", "horn", "winkle"),
    "fern": ("brake", "plume", "leaf"),
}
PLACES: Values = tuple(
    f"{a} {b}"
    for a, ends in (
        ("Hollin", "Bridge Mill"),
        ("Carrow", "Abbey Weir"),
        ("Eastwick", "Ferry Quarry"),
        ("Penmoor", "Castle Lane"),
        ("Stanwell", "Church Pond"),
        ("Ashcombe", "Farm Hill"),
        ("Wexley", "Lock Tower"),
        ("Thornby", "Green Halt"),
        ("Millbeck", "Chapel Dam"),
        ("Orford", "Inn Wharf"),
        ("Cranley", "Gate School"),
        ("Dunmere", "Harbour Lighthouse"),
    )
    for b in ends.split()
)

# ---- values -----------------------------------------------------------------------------------

# Every habitat is a plural noun phrase; here is what stands before it in "lives in reed beds".
PREPOSITION: dict[str, str] = {
    "reed beds": "in",
    "oak woods": "in",
    "heather moors": "on",
    "old orchards": "in",
    "rocky shores": "on",
    "salt marshes": "in",
    "garden hedges": "in",
    "river banks": "along",
    "hill farms": "on",
    "chalk slopes": "on",
    "pine forests": "in",
    "forest edges": "along",
    "mountain valleys": "in",
    "birch groves": "in",
    "wet meadows": "in",
    "grassy verges": "on",
    "mossy banks": "on",
    "shady lanes": "along",
    "stony streams": "in",
    "deep lakes": "in",
    "mill ponds": "in",
    "quiet coves": "in",
    "weedy canals": "in",
    "sandy bays": "in",
    "sunny clearings": "in",
    "village gardens": "in",
    "clover fields": "in",
    "stone walls": "on",
    "peat bogs": "in",
    # only ever in the test split
    "tide pools": "in",
    "shingle beaches": "on",
    "sea caves": "in",
    "mud flats": "on",
    "damp ravines": "in",
    "cave mouths": "in",
    "rain forests": "in",
    "waterfall ledges": "on",
}

# The same for "if you walk past reed beds"; "past" where the list has nothing else.
WALKING: dict[str, str] = {
    **dict.fromkeys(("oak woods", "old orchards", "pine forests", "birch groves"), "through"),
    **dict.fromkeys(("wet meadows", "sunny clearings", "clover fields"), "through"),
    **dict.fromkeys(("village gardens", "mountain valleys", "rain forests"), "through"),
    **dict.fromkeys(("damp ravines",), "through"),
    **dict.fromkeys(("heather moors", "hill farms", "chalk slopes"), "over"),
    **dict.fromkeys(("salt marshes", "mud flats", "peat bogs"), "across"),
    **dict.fromkeys(("rocky shores", "river banks", "forest edges", "grassy verges"), "along"),
    **dict.fromkeys(("shady lanes", "weedy canals", "sandy bays", "shingle beaches"), "along"),
    **dict.fromkeys(("stony streams", "garden hedges"), "along"),
}


_RARITY = _list("common, rare, scarce, uncommon, very rare, widespread, threatened")
# The rarities after which "but" reads better than "and".
FEW: Values = ("rare", "scarce", "uncommon", "very rare", "threatened")
BAD_TASTES: Values = ("bitter", "sour", "muddy", "bland")

VALUES: dict[str, dict[str, Values]] = {
    "bird": {
        "colour": _list("brown, grey, pale blue, rust red, olive green, black, sandy, white"),
        "size": _list("small, tiny, large, plump, slender"),
        "length": _list("9 cm, 12 cm, 15 cm, 20 cm, 34 cm"),
        "habitat": _list(
            "reed beds, oak woods, heather moors, old orchards, rocky shores, salt marshes, "
            "garden hedges, river banks, hill farms"
        ),
        "season": _list("early spring, spring, late spring, summer, autumn, winter, midwinter"),
        "food": _list("beetles, thistle seeds, worms, water snails, ripe berries, midges, acorns"),
        "song": _list(
            "low whistle, dry rattle, rising trill, soft coo, harsh croak, sharp double note, "
            "bubbling warble, metallic chirp"
        ),
        "markings": _list("white spots, dark bars, yellow streaks, pale rings"),
        "rarity": _RARITY,
        "near": PLACES,
    },
    "tree": {
        "colour": _list("dark green, silver grey, golden, bronze, blue green"),
        "size": _list("tall, slender, broad, squat, small"),
        "height": _list("4 m, 7 m, 12 m, 20 m, 35 m"),
        "habitat": _list(
            "chalk slopes, river banks, pine forests, mountain valleys, peat bogs, garden hedges, "
            "hill farms, birch groves"
        ),
        "season": _list("early spring, spring, late spring, early summer, summer"),
        "bark": _list("smooth, flaky, rough, papery, furrowed, peeling"),
        "fruit": _list("red berries, winged seeds, hard nuts, round cones, sticky pods, tiny figs"),
        "smell": _list("resin, lemon peel, fresh pepper, warm bread"),
        "rarity": _RARITY,
        "near": PLACES,
    },
    "mushroom": {
        "colour": _list("brown, cream, orange, purple, pale yellow, grey, scarlet"),
        "size": _list("small, tiny, large, stout, slender"),
        "habitat": _list(
            "oak woods, pine forests, birch groves, wet meadows, grassy verges, mossy banks, "
            "forest edges, old orchards"
        ),
        "season": _list("late spring, late summer, early autumn, autumn, late autumn, winter"),
        "smell": _list("honey, wet straw, fresh almonds, old cellars, aniseed, burnt sugar"),
        "taste": _list("bitter, mild, nutty, peppery, earthy, sour"),
        "cap": _list("domed, flat, bell-shaped, pointed, wavy, funnel-shaped"),
        "edible": ("yes", "no"),
        "rarity": _RARITY,
        "near": PLACES,
    },
    "fish": {
        "colour": _list("silver, green, golden, dull brown, pale pink, steel blue"),
        "size": _list("small, tiny, large, slender, stout"),
        "length": _list("6 cm, 12 cm, 20 cm, 45 cm, 80 cm"),
        "habitat": _list(
            "stony streams, deep lakes, mill ponds, quiet coves, weedy canals, sandy bays, "
            "salt marshes"
        ),
        "season": _list("early spring, spring, summer, late summer, autumn, winter"),
        "food": _list("water fleas, shrimps, caddis grubs, pond weed, fallen flies, tadpoles"),
        "markings": _list("black stripes, white spots, dark bars, red dots, yellow streaks"),
        "taste": _list("mild, sweet, muddy, oily, bland"),
        "edible": ("yes", "no"),
        "rarity": _RARITY,
        "near": PLACES,
    },
    "butterfly": {
        "colour": _list("orange, pale blue, yellow, white, violet, dark brown, copper"),
        "size": _list("small, tiny, large, delicate, broad"),
        "wingspan": _list("2 cm, 3 cm, 5 cm, 7 cm, 9 cm"),
        "habitat": _list(
            "sunny clearings, village gardens, clover fields, chalk slopes, heather moors, "
            "wet meadows, forest edges, river banks"
        ),
        "season": _list("spring, late spring, early summer, summer, late summer, early autumn"),
        "food": _list("thistle nectar, tree sap, bramble nectar, fallen plums, clover nectar"),
        "markings": _list("black veins, white spots, red dots, dark bars, pale rings"),
        "rarity": _RARITY,
        "near": PLACES,
    },
    "flower": {
        "colour": _list("white, violet, pale yellow, crimson, pale pink, deep blue, orange"),
        "size": _list("tall, small, dainty, low-growing, tiny"),
        "height": _list("5 cm, 10 cm, 25 cm, 40 cm, 90 cm"),
        "habitat": _list(
            "wet meadows, clover fields, stone walls, shady lanes, mossy banks, peat bogs, "
            "chalk slopes, grassy verges"
        ),
        "season": _list("early spring, spring, late spring, early summer, summer, late summer"),
        "smell": _list("honey, vanilla, lemon peel, fresh hay, cloves, aniseed"),
        "petals": _list("four, five, six, eight, frilled, narrow, heart-shaped, rounded"),
        "rarity": _RARITY,
        "near": PLACES,
    },
    "seashell": {
        "colour": _list("white, cream, orange, pale pink, purple, pale yellow"),
        "size": _list("small, tiny, large, delicate"),
        "length": _list("6 cm, 9 cm, 12 cm"),
        "habitat": _list("rocky shores, quiet coves, sandy bays"),
        "season": _list("spring, late summer, autumn, winter"),
        "markings": _list("white spots, dark bars, pale rings, red dots"),
        "rarity": _RARITY,
        "near": PLACES,
    },
    "fern": {
        "colour": _list("dark green, blue green, golden, bronze"),
        "size": _list("tall, small, dainty, slender"),
        "height": _list("10 cm, 25 cm, 40 cm, 90 cm"),
        "habitat": _list("oak woods, mossy banks, stone walls, shady lanes, peat bogs"),
        "season": _list("early spring, spring, late spring, early summer"),
        "smell": _list("fresh hay, honey, vanilla, resin"),
        "edible": ("yes", "no"),
        "rarity": _RARITY,
        "near": PLACES,
    },
}

# What a record of an unseen category holds, once or twice, that no training record holds.
NOVEL: dict[str, dict[str, Values]] = {
    "seashell": {
        "shape": _list("spiral, fan-like, cone-like, twisted, ear-like"),
        "lining": _list("pearly, glassy, chalky, rosy"),
        "habitat": _list("tide pools, shingle beaches, sea caves, mud flats"),
        "colour": _list("ivory, coral pink, sea green"),
    },
    "fern": {
        "fronds": _list("feathery, lacy, glossy, leathery, forked"),
        "spores": _list("rust brown, dusty, dark brown, ash grey"),
        "habitat": _list("damp ravines, cave mouths, rain forests, waterfall ledges"),
        "colour": _list("lime green, emerald, sea green"),
    },
}

# Fields that say the same kind of thing; a record holds one of them at most.
RIVALS: tuple[Values, ...] = (("size", "length", "height", "wingspan"),)

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
