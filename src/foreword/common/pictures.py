"""Figures as PNG files, in fonts that have the characters of their texts."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from foreword.common import files
from foreword.common.characters import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontEntry


OWN = "DejaVu Sans"
"""The font that matplotlib brings."""


@dataclass(frozen=True)
class Lettering:
    """How texts from outside are written in a figure.

    Attributes:
        families: fonts in the order in which they are asked for a character, matplotlib's own
            first, for `fontfamily`.
        numbers: text -> `#1`, `#2` and so on, which stands for a text that no installed font has
            all characters of.
    """

    families: tuple[str, ...]
    numbers: dict[str, str]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Lettering:
        """Choose installed fonts that together have all characters of the texts.

        The operating system's fonts are looked through where matplotlib's own lacks a character.
        """
        texts = list(dict.fromkeys(texts))
        families, missing = [OWN], _characters(texts) - _drawn_by(_own_file())
        for family, file in _installed() if missing else ():
            if drawn := missing & _drawn_by(file):
                families.append(family)
                missing -= drawn
            if not missing:
                break
        without = [text for text in texts if not missing.isdisjoint(text)]
        return cls(tuple(families), {text: f"#{i}" for i, text in enumerate(without, 1)})

    def __call__(self, text: str) -> str:
        """What is written for a text: itself, without matplotlib's formulas and with control
        characters as escapes, or its number."""
        return self.numbers.get(text, printable(text).replace("\t", " ").replace("$", r"\$"))

    @property
    def key(self) -> str:
        """A line for each text that a number stands for, its characters as JSON escapes."""
        lines = [
            f"{number} is {text.encode('ascii', 'backslashreplace').decode()}"
            for text, number in self.numbers.items()
        ]
        return "\n".join(["no installed font has the characters of:", *lines]) if lines else ""


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure of so many inches, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def write_figure(figure: Figure, file: Path) -> None:
    """Write a figure as PNG.

    Raises:
        RunError: the file cannot be written.
    """
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120)
    files.write_bytes(file, picture.getvalue())


def _characters(texts: Iterable[str]) -> set[str]:
    return {one for text in texts for one in printable(text) if not one.isspace()}


def _own_file() -> str:
    from matplotlib import get_data_path

    return str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


def _installed() -> list[tuple[str, str]]:
    """Families of fonts and a file of each, regular faces before others.

    Unicode's font of last resort, which draws boxes for all characters there are, is left out.
    """
    from matplotlib import font_manager

    manager = font_manager.fontManager
    known = {entry.fname for entry in manager.ttflist}
    for file in font_manager.findSystemFonts():
        if file not in known:  # installed after matplotlib wrote its list
            try:
                manager.addfont(file)
            except (OSError, RuntimeError):  # not a font that FreeType reads
                continue

    def rank(entry: FontEntry) -> tuple[bool, bool, str]:
        return entry.style != "normal", entry.weight not in (400, "normal"), entry.fname

    files_of: dict[str, str] = {}
    for entry in sorted(manager.ttflist, key=rank):
        files_of.setdefault(entry.name, entry.fname)
    boxes = [name for name in files_of if "lastresort" in name.replace(" ", "").lower()]
    return [(name, file) for name, file in files_of.items() if name not in boxes]


@lru_cache(maxsize=256)
def _drawn_by(file: str) -> frozenset[str]:
    """The characters that a font's file has outlines of; none where it cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(file)
        return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()
    except (OSError, RuntimeError):
        return frozenset()
