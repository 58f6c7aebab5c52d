"""CoNLL columns (Tjong Kim Sang & De Meulder 2003 and many others): one word a line.

Columns stand between tabs, or between blanks where the file's first line has no tab; an empty line
ends a sentence; `-DOCSTART-` lines are passed over. `task.data.words` and `task.data.tags` number
the columns from 1; without them words are in the first and tags in the last. Tags of entities may
follow IOB1, IOB2 or BIOES and become IOB2; other tags, such as parts of speech, stay as they are.

Each sentence is a row: its `text` is the words between blanks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from foreword.data.lines import show, text_lines
from foreword.data.rows import Request, Row
from foreword.data.sources import data_file
from foreword.data.tags import OUTSIDE, iob2, is_entity_tag, scheme_of
from foreword.errors import DataError

Sentence = list[tuple[str, str, str | None]]
"""Where each word stands, the word, and its tag."""


def read(request: Request) -> Iterator[Row]:
    """The sentences of a file."""
    sentences = list(_sentences(data_file(request.path), request))
    tags = [[tag for _, _, tag in sentence if tag is not None] for sentence in sentences]
    scheme = scheme_of(tags)
    if scheme is not None:
        _refuse_mixture(sentences)
        if scheme != "IOB2":
            request.notes.append(f"its tags follow {scheme} and are read as IOB2")
    for sentence, own in zip(sentences, tags, strict=True):
        words = tuple(word for _, word, _ in sentence)
        yield Row(
            sentence[0][0],
            {"text": " ".join(words)},
            words=words,
            tags=iob2(own) if own else None,
        )


def _sentences(file: Path, request: Request) -> Iterator[Sentence]:
    separator: str | None = None
    width = 0
    sentence: Sentence = []
    for number, raw in text_lines(file, request.encoding):
        line = raw.rstrip("\r\n")
        if not line.strip() or line.startswith("-DOCSTART-"):
            if sentence:
                yield sentence
            sentence = []
            continue
        where = f"{file}, line {number}"
        separator = separator or ("\t" if "\t" in line else " ")
        columns = line.split("\t") if separator == "\t" else re.split(r"[ \t]+", line.strip(" \t"))
        width = width or len(columns)
        if len(columns) != width:
            raise DataError(
                f"{where}: expected {width} columns, as in the lines before, found {len(columns)}: "
                f"{show(line)}"
            )
        sentence.append((where, *_word_and_tag(where, columns, request)))
    if sentence:
        yield sentence


def _word_and_tag(where: str, columns: list[str], request: Request) -> tuple[str, str | None]:
    width = len(columns)
    for name, column in (("words", request.words), ("tags", request.tags)):
        if column is not None and column > width and (name == "words" or request.answers):
            raise DataError(f"{where}: has {width} columns; task.data.{name} names number {column}")
    at = width if request.tags is None else request.tags
    tagged = at <= width and at != request.words
    if request.answers and not tagged:
        raise DataError(
            f"{where}: expected a column of words and another of tags, found {width} columns; "
            "task.data.words and task.data.tags number them from 1"
        )
    # A word may be a blank of another kind: Chinese corpora tag U+3000.
    word, tag = columns[request.words - 1].strip(" "), columns[at - 1].strip() if tagged else None
    if not word or tag == "":
        raise DataError(f"{where}: a column is empty")
    return word, tag


def _refuse_mixture(sentences: list[Sentence]) -> None:
    """Entities' tags beside tags that are none: a wrong column, or a broken line."""
    for sentence in sentences:
        for where, _, tag in sentence:
            if tag is not None and tag != OUTSIDE and not is_entity_tag(tag):
                raise DataError(
                    f"{where}: expected a tag such as O, B-PER or I-PER, as others in the file, "
                    f"found {show(tag)}"
                )
