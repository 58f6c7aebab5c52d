"""The tables in the docs list the families that are tested, and say what is so."""

import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from families import by_hand
from families.catalogue import FAMILIES, WITHOUT_KEYS_VALUES
from families.measures import TOLERANCE, backbone_of

ROOT = Path(__file__).resolve().parents[2]
PARITY = ROOT / "docs" / "parity.md"
TABLES = ROOT / "docs" / "families.md"


def rows(page: Path, mark: str | None = None) -> dict[str, list[str]]:
    """A table's cells by family."""
    text = page.read_text(encoding="utf-8")
    if mark is not None:
        found = re.search(rf"<!-- {mark} -->\n(.*?)<!-- end -->", text, re.S)
        assert found is not None
        text = found[1]
    lines = re.findall(r"^\| `(.*?)` \| (.*) \|$", text, re.M)
    assert len({family for family, _ in lines}) == len(lines)
    return {family: cells.split(" | ") for family, cells in lines}


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        patch.setattr(sys, "path", [*sys.path])
        return import_module("family_tables")


def test_parity_has_every_family_within_the_tolerance() -> None:
    found = rows(PARITY)
    assert found.keys() == FAMILIES.keys()
    for family, cells in found.items():
        for by_our_hand, peft in zip(cells[::2], cells[1::2], strict=True):
            assert float(by_our_hand) < TOLERANCE, family
            if peft not in ("raises", "not seen") and not peft.startswith("off by"):
                assert float(peft) < TOLERANCE, family


@pytest.mark.parametrize("family", ["bloom", "albert", "t5"])
def test_families_has_every_family_and_how_it_works(family, tables) -> None:
    """`python scripts/family_tables.py` writes it anew."""
    found = rows(TABLES, "families")
    assert found.keys() == FAMILIES.keys()
    with by_hand.ExactFloat64():
        measured = tables.ways_of(family)
    assert found[family] == [*measured, "yes" if tables.computes_again(family) else "no"]


def test_families_has_every_one_without_keys_and_values_with_the_reason(tables) -> None:
    found = rows(TABLES, "without")
    with by_hand.ExactFloat64():
        kinds = {name: backbone_of(name).geometry for name in WITHOUT_KEYS_VALUES}
        assert found["mamba"] == tables.without_of("mamba")
    reasons = {family: (cells[0], cells[-1]) for family, cells in found.items()}
    assert reasons == {family: (g.kind, g.unfit) for family, g in kinds.items()}
