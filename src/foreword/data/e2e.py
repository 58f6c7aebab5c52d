"""The E2E challenge's meaning representations: `name[The Vaults], eatType[pub], ...`."""

from __future__ import annotations

import re

NAMES = {"eatType": "Type", "priceRange": "price", "familyFriendly": "family friendly"}
"""Names that the prefix-tuning paper's linearisation says otherwise than the file."""

_SLOT = re.compile(r"\s*([^\[\],]+?)\s*\[([^\[\]]*)\]\s*(,|$)")


def parse_meaning(text: str) -> dict[str, str]:
    """A meaning representation as a record, its slots named as in the paper's linearisation.

    Raises:
        ValueError: where it stops being `slot[value], slot[value]`.
    """
    record: dict[str, str] = {}
    at = 0
    while True:
        match = _SLOT.match(text, at)
        if match is None:
            raise ValueError(
                f"expected slot[value], slot[value], ...; it goes wrong at {text[at : at + 30]!r}"
            )
        slot, value, comma = match.groups()
        name = NAMES.get(slot, slot)
        if name in record:
            raise ValueError(f"slot '{slot}' stands twice")
        record[name] = value.strip()
        at = match.end()
        if not comma:
            return record
