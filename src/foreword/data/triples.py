"""Sets of triples with texts that say them: the XML that WebNLG and DART share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from foreword.common import opening
from foreword.data.lines import UTF8, check_encoding, show, text_lines
from foreword.errors import DataError

Triple = tuple[str, str, str]
"""Subject, property and object."""


@dataclass(frozen=True)
class Entry:
    """One set of triples.

    Attributes:
        where: file and entry.
        category: as the file has it, or nothing.
        triples: in the file's order.
        texts: comment and text of each.
    """

    where: str
    category: str
    triples: tuple[Triple, ...]
    texts: tuple[tuple[str, str], ...]


def linearise_triples(triples: Sequence[Triple]) -> str:
    """`subject : property : object | subject : property : object` (Li & Liang 2021, 5.1).

    Their code begins WebNLG's with one more ` | ` and DART's without; here both go without.
    """
    return " | ".join(" : ".join(triple) for triple in triples)


def read_entries(file: Path, encoding: str = UTF8) -> Iterator[Entry]:
    """The entries of one XML file: `modifiedtripleset` and the `lex` of each.

    Args:
        file: where.
        encoding: instead of the one that the file states of itself, where it is not UTF-8.

    Raises:
        DataError: it is not XML, or an entry is not what it should be.
    """
    try:
        if check_encoding(encoding) == UTF8:
            with opening.open_regular(file) as handle:
                root = ElementTree.parse(handle).getroot()
        else:
            text = "".join(line for _, line in text_lines(file, encoding))
            root = ElementTree.fromstring(text)
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    except ElementTree.ParseError as error:
        line, column = error.position
        reason = str(error).split(":")[0]
        raise DataError(
            f"{file}, line {line}, column {column}: not valid XML ({reason})"
        ) from error
    except (ValueError, LookupError) as error:
        raise DataError(
            f"{file}, line 1: not XML that can be read ({error}); an encoding that is stated there "
            "and not known to the XML reader can be given as `encoding`"
        ) from error
    for number, entry in enumerate(root.iter("entry"), start=1):
        where = f"{file}, entry {entry.get('eid') or number}"
        lines = [triple.text or "" for triple in entry.iterfind("modifiedtripleset/mtriple")]
        if not lines:
            raise DataError(f"{where}: expected triples in modifiedtripleset/mtriple, found none")
        yield Entry(
            where,
            entry.get("category", ""),
            tuple(_triple(where, line) for line in lines),
            tuple(_text(where, lex) for lex in entry.iterfind("lex")),
        )


def _triple(where: str, line: str) -> Triple:
    parts = [part.strip() for part in line.split(" | ")]
    if len(parts) != 3 or not all(parts):
        raise DataError(
            f"{where}, mtriple: expected 'subject | property | object', found {show(line)}"
        )
    return parts[0], parts[1], parts[2]


def _text(where: str, lex: ElementTree.Element) -> tuple[str, str]:
    text = (lex.text or "").strip()
    if not text:
        raise DataError(
            f"{where}, lex {lex.get('lid', '')}: expected a text that is not empty; of the "
            "enriched WebNLG take the challenge's own files"
        )
    return lex.get("comment", ""), text
