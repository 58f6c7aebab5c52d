"""Texts from outside in pictures: a font that has their characters, or numbers in their place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.image import imread

from foreword.common import pictures
from foreword.common.pictures import OWN, Lettering
from foreword.scoring import confusion_matrix

pytestmark = pytest.mark.usefixtures("with_pictures")
FAMILY = "Two Characters"


def make_font(file: Path, characters: str) -> None:
    """A font in which each of these characters is a triangle."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    pen.lineTo((500, 700))
    pen.lineTo((1000, 0))
    pen.closePath()
    triangle, names = pen.glyph(), [f"glyph{ord(one)}" for one in characters]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", *names])
    builder.setupCharacterMap({ord(c): name for c, name in zip(characters, names, strict=True)})
    builder.setupGlyf(dict.fromkeys([".notdef", *names], triangle))
    builder.setupHorizontalMetrics(dict.fromkeys([".notdef", *names], (1000, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": FAMILY, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(file)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The operating system has one font more, and one file that is none."""
    make_font(tmp_path / "two.ttf", "好差")
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    found = [str(tmp_path / "broken.ttf"), str(tmp_path / "two.ttf")]
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: found)
    manager = font_manager.fontManager
    monkeypatch.setattr(manager, "ttflist", [e for e in manager.ttflist if "mpl-data" in e.fname])
    yield
    pictures._drawn_by.cache_clear()


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operating system has no fonts: there are matplotlib's own."""
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    manager = font_manager.fontManager
    monkeypatch.setattr(manager, "ttflist", [e for e in manager.ttflist if "mpl-data" in e.fname])


@pytest.mark.usefixtures("installed")
def test_an_installed_font_that_has_the_characters_is_found() -> None:
    found = Lettering.of(["好", "差", "a"])
    assert found.families == (OWN, FAMILY)
    assert found("好") == "好"
    assert found.key == ""


@pytest.mark.usefixtures("bare")
def test_texts_that_no_font_has_are_numbered_and_the_key_says_which() -> None:
    found = Lettering.of(["good", "好评", "差评", "好评"])
    assert found.families == (OWN,)
    assert [found(text) for text in ("good", "好评", "差评")] == ["good", "#1", "#2"]
    assert found.key.splitlines() == [
        "no installed font has the characters of:",
        r"#1 is \u597d\u8bc4",
        r"#2 is \u5dee\u8bc4",
    ]


def test_no_font_is_looked_for_where_matplotlibs_own_has_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pictures, "_installed", lambda: pytest.fail("fonts were looked through"))
    found = Lettering.of(["good", "café $x$\n"])
    assert found("café $x$") == r"café \$x\$"


def test_control_characters_are_drawn_as_escapes(tmp_path: Path) -> None:
    """matplotlib warns (an error here) of a glyph that no font has."""
    labels = ("a\x1b[31m", "b\t\x00", "c\u0085")
    assert Lettering.of(labels)(labels[0]) == r"a\x1b[31m"
    assert Lettering.of(["a\U000649b1"]).numbers == {"a\U000649b1": "#1"}  # no character yet
    confusion_matrix(labels, labels, labels).draw(tmp_path / "three.png", "d\x1b\u2028")


@pytest.mark.usefixtures("bare")
def test_a_matrix_without_a_font_has_no_empty_boxes(tmp_path: Path) -> None:
    """No glyph is missing, of which matplotlib warns (an error here); labels differ."""
    labels = ("好评", "差评")
    matrix = confusion_matrix(labels, labels, labels)
    matrix.draw(tmp_path / "two.png", "Hôtel 酒店")
    confusion_matrix(labels, labels, labels[::-1]).draw(tmp_path / "turned.png", "Hôtel 酒店")
    one, other = imread(tmp_path / "two.png"), imread(tmp_path / "turned.png")
    assert one.shape != other.shape or not np.array_equal(one, other)


@pytest.mark.usefixtures("installed")
def test_a_matrix_is_drawn_in_the_font_that_has_the_labels(tmp_path: Path) -> None:
    confusion_matrix("好差", "好差").draw(tmp_path / "two.png")
    confusion_matrix("ab", "ab").draw(tmp_path / "plain.png")
    assert not np.array_equal(imread(tmp_path / "two.png"), imread(tmp_path / "plain.png"))
