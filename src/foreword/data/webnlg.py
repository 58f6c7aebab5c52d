"""WebNLG 2017 (Gardent et al. 2017): triples of DBpedia and texts that say them, as XML.

A split is a folder (`train/1triples/*.xml` to `7triples`) or one file, as its test set is. Each
entry is a row:

- `triples`: linearised as `linearise_triples` says, with underscores as blanks and without double
  quotation marks, as the challenge's official baseline prepares them. Unlike the baseline,
  punctuation stays where it is and nothing is delexicalised.
- `triples_as_written`: the same with nothing changed, which is what Li & Liang's code reads.
- `category`, `size` (how many triples), and `seen`: whether the category is one of the training
  set's. Reporting apart by it is `group: seen`.

Its references are the texts that the corpus marks as good; those to be mended ("toFix") are left
out, as in Li & Liang's code, and an entry without a good one with them.
"""

from __future__ import annotations

from collections.abc import Iterator

from foreword.data.rows import Request, Row
from foreword.data.sources import data_file, folder_files
from foreword.data.triples import Triple, linearise_triples, read_entries

SEEN = frozenset(
    {
        "Airport",
        "Astronaut",
        "Building",
        "City",
        "ComicsCharacter",
        "Food",
        "Monument",
        "SportsTeam",
        "University",
        "WrittenWork",
    }
)
"""The categories of the training set. The test set has five others."""


def read(request: Request) -> Iterator[Row]:
    """The entries of a file or of all XML files below a folder."""
    unmended = left = 0
    for file in folder_files(data_file(request.path), ".xml"):
        for entry in read_entries(file, request.encoding):
            good = [text for comment, text in entry.texts if comment in ("good", "")]
            unmended += len(entry.texts) - len(good)
            if entry.texts and not good:
                left += 1
                continue
            yield Row(
                entry.where,
                {
                    "triples": linearise_triples([_clean(triple) for triple in entry.triples]),
                    "triples_as_written": linearise_triples(entry.triples),
                    "category": entry.category,
                    "size": len(entry.triples),
                    "seen": entry.category in SEEN,
                    **({"references": good} if good else {}),
                },
            )
    if unmended:
        request.notes.append(
            f"{unmended} texts marked as to be mended were left out, and {left} entries that have "
            "no other"
        )


def _clean(triple: Triple) -> Triple:
    subject, name, value = (part.replace("_", " ").replace('"', "").strip() for part in triple)
    return subject, name, value
