"""Word lists of the invented field guide: names, places, and the values of every field."""

from __future__ import annotations

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
