"""Texts to windows of token ids: reading, filtering, the held-out split, packing.

Knows nothing about objectives or models.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from tokenizers import Tokenizer

from foreword.common import files

BOUNDARY = 0
"""Stands between documents: `<|endoftext|>` of the bundled vocabulary, `[PAD]` of characters."""

NOTATIONS = (
    r"^\s*[\w'-]+(?: [\w'-]+){0,4} : \S",
    r" \| [\w'-]+(?: [\w'-]+){0,4} : ",
    r"^\s*[\w'-]+(?: [\w'-]+){0,4}\[[^\]\n]*\](?:,| ;|\s*$| [-=]>)",
)
"""Lines of a record as the sample tasks write it: `name : X | type : Y`, and E2E's `name[X],`."""

BATCH = 2048
PART = 1 << 20


@dataclass(frozen=True)
class Document:
    """One text of the corpus."""

    kind: str
    text: str

    @property
    def digest(self) -> str:
        """The document's name for the split: a hash of its text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass
class Filter:
    """Takes lines of unwanted notations out, and counts them.

    A document that begins with such a line is a record in that notation and is dropped; elsewhere
    only the line goes.
    """

    patterns: Sequence[str] = NOTATIONS
    lines: Counter[str] = field(default_factory=Counter)
    documents: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._any = [re.compile(pattern, re.MULTILINE) for pattern in self.patterns]

    def __call__(self, documents: Iterable[Document]) -> Iterator[Document]:
        """The documents without those lines."""
        for document in documents:
            if not self.finds(document.text):
                yield document
                continue
            kept = [line for line in document.text.split("\n") if not self.finds(line)]
            if self.finds(document.text.split("\n", 1)[0]):
                self.documents[document.kind] += 1
                continue
            self.lines[document.kind] += document.text.count("\n") + 1 - len(kept)
            yield Document(document.kind, "\n".join(kept))

    def finds(self, text: str) -> bool:
        """Whether any line of a text is in an unwanted notation."""
        return any(pattern.search(text) for pattern in self._any)


def read_documents(file: Path) -> Iterator[Document]:
    """The documents of a JSONL file, plain, `.xz` or `.gz`.

    Raises:
        ValueError: a line is not an object with the strings `kind` and `text`.
    """
    with _open(file) as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                kind, text = row["kind"], row["text"]
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise ValueError(f"{file}:{number}: no object with kind and text") from error
            if not isinstance(kind, str) or not isinstance(text, str):
                raise ValueError(f"{file}:{number}: kind and text must be strings")
            if text.strip():
                yield Document(kind, text)


def _open(file: Path) -> IO[str]:
    if file.suffix == ".xz":
        return lzma.open(file, "rt", encoding="utf-8")
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8")
    return file.open(encoding="utf-8")


def split(
    documents: Iterable[Document], share: float
) -> tuple[list[Document], dict[str, list[Document]]]:
    """Training documents, and the held-out ones by kind; a text that occurs twice counts once.

    Of each kind those with the smallest hashes are held out: `share` of them, at least one.
    """
    unique = {document.digest: document for document in documents}
    by_kind: dict[str, list[str]] = {}
    for digest, document in unique.items():
        by_kind.setdefault(document.kind, []).append(digest)
    held_out = {
        kind: [unique[digest] for digest in sorted(digests)[: max(1, round(share * len(digests)))]]
        for kind, digests in sorted(by_kind.items())
    }
    away = {document.digest for kind in held_out.values() for document in kind}
    return [document for digest, document in unique.items() if digest not in away], held_out


def read_split(
    data: Path, share: float, keep: Filter
) -> tuple[list[Document], dict[str, list[Document]]]:
    """What a file holds for training, and held out by kind, as every run on it draws it."""
    return split(keep(read_documents(data)), share)


@dataclass(frozen=True)
class Stream:
    """Documents one after another, each followed by the boundary.

    Attributes:
        ids: `[n]` uint16.
        starts: `[n]` bool, where a word (a piece of the pre-tokenizer) begins.
    """

    ids: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def windows(self, length: int) -> int:
        """How many whole windows there are."""
        return len(self) // length

    def window(self, index: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids and word starts of one window; a word cut by its edge begins with the window."""
        part = slice(index * length, (index + 1) * length)
        starts = self.starts[part].copy()
        starts[0] = True
        return self.ids[part].astype(np.int64), starts


def encode(tokenizer: Tokenizer, documents: Sequence[Document]) -> Stream:
    """Tokenize documents into one stream."""
    ids: list[np.ndarray] = []
    starts: list[np.ndarray] = []
    for at in range(0, len(documents), BATCH):
        texts = [document.text for document in documents[at : at + BATCH]]
        for encoding in tokenizer.encode_batch(texts, add_special_tokens=False):
            words = np.array(encoding.word_ids, dtype=np.int64)
            ids.append(np.array([*encoding.ids, BOUNDARY], dtype=np.uint16))
            starts.append(np.append(np.diff(words, prepend=-1) != 0, True))
    if not ids:
        return Stream(np.zeros(0, np.uint16), np.zeros(0, bool))
    return Stream(np.concatenate(ids), np.concatenate(starts))


def repeated(training: Stream, held_out: Stream, run: int = 12) -> float:
    """Share of the runs of so many tokens in held-out text that training text holds as well."""
    if len(held_out) < run:
        return 0.0
    wanted, times = np.unique(_hashes(held_out.ids, run), return_counts=True)
    hit = np.zeros(len(wanted), bool)
    for begin in range(0, len(training), PART):
        seen = _hashes(training.ids[begin : begin + PART + run - 1], run)
        places = np.searchsorted(wanted, seen).clip(max=len(wanted) - 1)
        hit[places[wanted[places] == seen]] = True
    return float(times[hit].sum() / times.sum())


def _hashes(ids: np.ndarray, run: int) -> np.ndarray:
    """A number for each run of tokens; runs that differ have different numbers, nearly always."""
    total = np.zeros(max(0, len(ids) - run + 1), np.uint64)
    for offset in range(run):
        total *= np.uint64(0x9E3779B97F4A7C15)
        total += ids[offset : offset + len(total)].astype(np.uint64) + np.uint64(1)
    return total


@dataclass(frozen=True)
class Corpus:
    """What a run reads.

    Attributes:
        training: all training documents in one stream.
        held_out: a stream per kind.
        about: counts, and what the filter took away, for the log and the card.
        tokenizer: what made the ids.
    """

    tokenizer: Tokenizer
    training: Stream
    held_out: dict[str, Stream]
    about: dict[str, object]


def load_corpus(
    data: Path, tokenizer: Tokenizer, *, share: float, patterns: Sequence[str], cache: Path
) -> Corpus:
    """Read, filter, split and tokenize a corpus, or read what that gave the last time."""
    settings = {
        "data_sha256": files.sha256(data),
        "vocabulary_sha256": hashlib.sha256(tokenizer.to_str().encode()).hexdigest(),
        "held_out_share": share,
        "filter": list(patterns),
    }
    wanted = json.dumps(settings, sort_keys=True)
    if (cached := _read_cache(cache, wanted, tokenizer)) is not None:
        return cached
    keep = Filter(patterns)
    training, held_out = read_split(data, share, keep)
    streams = {kind: encode(tokenizer, documents) for kind, documents in held_out.items()}
    stream = encode(tokenizer, training)
    counts = Counter(document.kind for document in training)
    sizes: Counter[str] = Counter()
    for document in training:
        sizes[document.kind] += len(document.text.encode())
    about: dict[str, object] = {
        **settings,
        "training_documents": dict(sorted(counts.items())),
        "training_bytes": dict(sorted(sizes.items())),
        "training_tokens": len(stream),
        "held_out_documents": {kind: len(documents) for kind, documents in held_out.items()},
        "held_out_tokens": {kind: len(cached) for kind, cached in streams.items()},
        "filtered_documents": dict(sorted(keep.documents.items())),
        "filtered_lines": dict(sorted(keep.lines.items())),
    }
    corpus = Corpus(tokenizer, stream, streams, about)
    arrays = {"training.ids": stream.ids, "training.starts": stream.starts}
    for kind, one in streams.items():
        arrays |= {f"{kind}.ids": one.ids, f"{kind}.starts": one.starts}
    metadata = {"settings": wanted, "about": json.dumps(about)}
    files.write_bytes(cache, save(arrays, metadata=metadata))
    return corpus


def _read_cache(cache: Path, wanted: str, tokenizer: Tokenizer) -> Corpus | None:
    try:
        with safe_open(cache, framework="numpy") as stored:
            metadata = stored.metadata() or {}
            if metadata.get("settings") != wanted:
                return None
            names = sorted({name.rpartition(".")[0] for name in stored.keys()})  # noqa: SIM118
            streams = {
                name: Stream(stored.get_tensor(f"{name}.ids"), stored.get_tensor(f"{name}.starts"))
                for name in names
            }
    except (OSError, SafetensorError):
        return None
    return Corpus(tokenizer, streams.pop("training"), streams, json.loads(metadata["about"]))
