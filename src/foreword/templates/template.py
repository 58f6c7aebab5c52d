"""How an example becomes input: real words, slots for fields, virtual tokens and the answer.

    {premise}          a field of the record
    {premise:cut}      the same, shortened where all is too long; {hypothesis:cut=2} gives way after
                       every field with a smaller number, `cut` alone is the first
    {soft} {soft:3}    one virtual token, or several
    {mask}             where the answer is read: a mask token, or the end of what a decoder reads
    {{ }}              braces

Words of the template, virtual tokens and the mask are never cut. Blanks directly before `{soft}` or
`{mask}` belong to the word that stands there, as they do before a mask token of RoBERTa.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from foreword.data.example import Field, linearise
from foreword.errors import TemplateError, did_you_mean

MOST_SOFT = 4096
SHOWN = 150


@dataclass(frozen=True)
class FieldSlot:
    """A field of the record.

    Attributes:
        name: of the field.
        cut: when it gives way where all is too long: 1 first; None never.
    """

    name: str
    cut: int | None = None


@dataclass(frozen=True)
class SoftSlot:
    """Virtual tokens.

    Attributes:
        count: how many.
        spaced: whether a blank stood before them, which is not read.
    """

    count: int = 1
    spaced: bool = False


@dataclass(frozen=True)
class MaskSlot:
    """Where the answer is read.

    Attributes:
        spaced: whether a blank stood before it, which then is its word's.
    """

    spaced: bool = False


Piece = str | FieldSlot | SoftSlot | MaskSlot
"""Words of the template, or a slot."""
Part = str | SoftSlot | MaskSlot
"""The same with the fields filled in."""


@dataclass(frozen=True)
class Template:
    """A parsed template.

    Attributes:
        source: the template as it was written.
        pieces: its words and slots in their order; no two neighbours are both words.
    """

    source: str
    pieces: tuple[Piece, ...]

    @classmethod
    def parse(cls, source: str) -> Template:
        """Read a template.

        Raises:
            TemplateError: a brace without its partner, an empty or malformed slot, a second mask,
                with its column.
        """
        pieces: list[Piece] = []
        text, at = "", 0
        while at < len(source):
            two, one = source[at : at + 2], source[at]
            if two in ("{{", "}}"):
                text, at = text + one, at + 2
            elif one == "{":
                end = source.find("}", at)
                name = source[at + 1 : end].strip() if end >= 0 else ""
                if end < 0 or not name or "{" in name:
                    raise _error(
                        source,
                        at,
                        "'{' opens a slot that is not closed by '}' after a field's name; write "
                        "'{{' for a brace",
                    )
                slot = _slot(source, at, name)
                masked = any(isinstance(piece, MaskSlot) for piece in pieces)
                if masked and isinstance(slot, MaskSlot):
                    raise _error(source, at, "a second {mask}; one is read, so leave one out")
                if not isinstance(slot, FieldSlot):
                    slot = replace(slot, spaced=text.endswith(" "))
                    text = text.rstrip(" ")
                pieces += [text, slot] if text else [slot]
                text, at = "", end + 1
            elif one == "}":
                raise _error(source, at, "'}' closes no slot; write '}}' for a brace")
            else:
                text, at = text + one, at + 1
        template = cls(source, (*pieces, text) if text else tuple(pieces))
        template._check_cuts()
        return template

    @property
    def slots(self) -> tuple[str, ...]:
        """The fields it names."""
        return tuple(piece.name for piece in self.pieces if isinstance(piece, FieldSlot))

    @property
    def numbered(self) -> tuple[tuple[int, str], ...]:
        """The fields that give way where all is too long, each after its number."""
        given = {
            (p.cut, p.name) for p in self.pieces if isinstance(p, FieldSlot) and p.cut is not None
        }
        return tuple(sorted(given))

    @property
    def cuts(self) -> tuple[str, ...]:
        """The same in their order."""
        return tuple(name for _, name in self.numbered)

    @property
    def soft(self) -> int:
        """How many virtual tokens stand in it."""
        return sum(piece.count for piece in self.pieces if isinstance(piece, SoftSlot))

    @property
    def mask(self) -> MaskSlot | None:
        """Where the answer is read, if it says so."""
        return next((piece for piece in self.pieces if isinstance(piece, MaskSlot)), None)

    @property
    def plain(self) -> bool:
        """Whether it is words and fields alone."""
        return all(isinstance(piece, str | FieldSlot) for piece in self.pieces)

    def around(self, field: str) -> tuple[str, str]:
        """The words before and after the only slot, where that is this field; else none."""
        if self.slots != (field,):
            return "", ""
        at = self.pieces.index(next(p for p in self.pieces if isinstance(p, FieldSlot)))
        sides = self.pieces[:at], self.pieces[at + 1 :]
        before, after = ("".join(p for p in side if isinstance(p, str)) for side in sides)
        return before, after

    def without_soft(self) -> Template:
        """The same without its virtual tokens; a blank stands where one stood around them."""
        kept: list[Piece] = []
        left, blank = False, False
        for piece in self.pieces:
            if isinstance(piece, SoftSlot):
                left, blank = True, blank or piece.spaced
                continue
            if left and not kept and isinstance(piece, str):
                piece = piece.lstrip(" ")
            elif blank and kept:
                piece = _after_a_blank(kept, piece)
            left, blank = False, False
            if isinstance(piece, str) and kept and isinstance(kept[-1], str):
                kept[-1] += piece
            elif piece != "":
                kept.append(piece)
        return Template(self.source, tuple(kept))

    def check(self, known: Iterable[str]) -> None:
        """Raise TemplateError if a slot is not among the known fields."""
        known = list(known)
        for slot in self.slots:
            if slot not in known:
                raise TemplateError(
                    f"template {excerpt(self.source)}: the data has no field '{slot}'"
                    f"{did_you_mean(slot, known)}"
                )

    def fill(self, fields: Mapping[str, Field]) -> list[Part]:
        """The parts, with every field filled in; no two neighbours are both words.

        A blank before virtual tokens or the mask goes, also where it ends a field.
        """
        self.check(fields)
        parts: list[Part] = []
        for piece in self.pieces:
            words = linearise(fields[piece.name]) if isinstance(piece, FieldSlot) else piece
            if not isinstance(words, str):
                if parts and isinstance(parts[-1], str):
                    parts[-1] = parts[-1].rstrip(" ")
                parts.append(words)
            elif parts and isinstance(parts[-1], str):
                parts[-1] += words
            else:
                parts.append(words)
        return [part for part in parts if part != ""]

    def render(self, fields: Mapping[str, Field]) -> str:
        """The text, with every field filled in; virtual tokens and the mask stand as slots."""
        return "".join(shown(part) for part in self.fill(fields))

    def _check_cuts(self) -> None:
        numbers: dict[int, str] = {}
        cut_of: dict[str, int | None] = {}
        for piece in self.pieces:
            if not isinstance(piece, FieldSlot):
                continue
            if cut_of.setdefault(piece.name, piece.cut) != piece.cut:
                raise TemplateError(
                    f"template {excerpt(self.source)}: the field '{piece.name}' stands twice "
                    "and gives way once; write the same `cut` at both places"
                )
            other = numbers.setdefault(piece.cut, piece.name) if piece.cut else piece.name
            if other != piece.name:
                raise TemplateError(
                    f"template {excerpt(self.source)}: '{other}' and '{piece.name}' both have "
                    f"cut={piece.cut}; give each field that gives way its own number"
                )


def shown(part: Part) -> str:
    """A part as a person reads it: virtual tokens and the mask as slots."""
    match part:
        case SoftSlot(count=count, spaced=spaced):
            slot = "{soft}" if count == 1 else f"{{soft:{count}}}"
            return f" {slot}" if spaced else slot
        case MaskSlot(spaced=spaced):
            return " {mask}" if spaced else "{mask}"
    return part


def excerpt(source: str, at: int = 0) -> str:
    """A template as a message shows it: what stands around a column, where it is long."""
    if len(source) <= 2 * SHOWN:
        return repr(source)
    start = max(0, min(at - SHOWN, len(source) - 2 * SHOWN))
    before, after = "…" if start else "", "…" if start + 2 * SHOWN < len(source) else ""
    return f"{before}{source[start : start + 2 * SHOWN]!r}{after}"


def escaped(text: str) -> str:
    """A text as a template that renders to it."""
    return text.replace("{", "{{").replace("}", "}}")


def _after_a_blank(kept: list[Piece], piece: Piece) -> Piece:
    """A piece with a blank between it and what is kept."""
    if isinstance(piece, MaskSlot):
        return replace(piece, spaced=True)
    if isinstance(piece, FieldSlot):
        if isinstance(kept[-1], str):
            kept[-1] += " "
        else:
            kept.append(" ")
        return piece
    return piece if isinstance(piece, str) and piece[:1].isspace() else f" {piece}"


def _slot(source: str, at: int, written: str) -> FieldSlot | SoftSlot | MaskSlot:
    name, _, option = (part.strip() for part in written.partition(":"))
    if name == "mask":
        if option:
            raise _error(source, at, f"{{mask}} takes no option, found '{option[:40]}'")
        return MaskSlot()
    if name == "soft":
        if not option:
            return SoftSlot()
        if not option.isascii() or not option.isdigit() or not 1 <= int(option[:9]) <= MOST_SOFT:
            raise _error(
                source,
                at,
                f"{{soft:{option[:40]}}} does not say how many virtual tokens; write a number from "
                f"1 to {MOST_SOFT}, as in {{soft:3}}",
            )
        return SoftSlot(int(option))
    if ":" not in written:
        return FieldSlot(name)
    key, equals, number = (part.strip() for part in option.partition("="))
    if not name or key != "cut" or (equals and not (number.isascii() and number.isdigit())):
        raise _error(
            source,
            at,
            f"'{{{written[:60]}}}' is no slot; write {{{name or 'field'}}}, "
            f"{{{name or 'field'}:cut}} or {{field:cut=2}} for the order in which fields give way, "
            "{soft:3}, or {mask}",
        )
    cut = int(number[:9]) if equals else 1
    if cut < 1:
        raise _error(source, at, "cut counts from 1, the field that gives way first")
    return FieldSlot(name, cut)


def _error(source: str, at: int, what: str) -> TemplateError:
    return TemplateError(f"template {excerpt(source, at)}, column {at + 1}: {what}")
