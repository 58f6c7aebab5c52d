"""Tokenizers of every kind: the bundled byte-level one always, published ones where they lie."""

from __future__ import annotations

import copy
import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest
from transformers import (
    AddedToken,
    AutoTokenizer,
    BertTokenizer,
    GPT2Tokenizer,
    PreTrainedTokenizerBase,
    RobertaTokenizer,
    T5Tokenizer,
)

from conftest import SHARED
from foreword.backbone import bundled_backbones

KINDS = ("bundled", "bert", "roberta", "gpt2", "t5", "stories")


@lru_cache
def tokenizer(kind: str) -> PreTrainedTokenizerBase:
    """One that tests must not change; the test is skipped where its files are not there."""
    if kind == "bundled":
        return AutoTokenizer.from_pretrained(bundled_backbones()["foreword/mini"])
    files = {
        "bert": "tokenizers/bert/vocab.txt",
        "t5": "tokenizers/t5/t5_vocab",
        "stories": "models/stories260K",
    }
    file = SHARED / files.get(kind, "tokenizers/gpt2/encoder.json")
    if not file.exists():
        pytest.skip(f"needs {file} beside the repository, which is not here")
    if kind == "bert":
        return BertTokenizer(str(file))
    if kind == "t5":
        return T5Tokenizer(vocab=list(_pieces(file)))
    if kind == "stories":
        return AutoTokenizer.from_pretrained(file)
    made = GPT2Tokenizer if kind == "gpt2" else RobertaTokenizer
    return made(str(file), str(file.with_name("vocab.bpe")))


@lru_cache
def with_marks(kind: str) -> PreTrainedTokenizerBase:
    """The same with a mask token and a token `<soft>`, which take the blank before them."""
    made = copy.deepcopy(tokenizer(kind))
    mask = made.mask_token or "<mask>"
    made.add_special_tokens({"mask_token": AddedToken(mask, lstrip=True, special=True)})
    made.add_tokens([AddedToken("<soft>", lstrip=True, special=True)], special_tokens=True)
    return made


def _pieces(file: Path) -> Iterator[tuple[str, float]]:
    """Pieces and scores of a SentencePiece model: field 1 of the message, in which 1 is the piece
    and 2 its score."""
    raw, at = file.read_bytes(), 0
    while at < len(raw) and raw[at] == 0x0A:
        size, start = _number(raw, at + 1)
        one, inner = raw[start : start + size], 0
        piece, score = "", 0.0
        while inner < len(one):
            tag, inner = _number(one, inner)
            if tag == 0x0A:
                length, inner = _number(one, inner)
                piece, inner = one[inner : inner + length].decode(), inner + length
            elif tag == 0x15:
                (score,) = struct.unpack("<f", one[inner : inner + 4])
                inner += 4
            else:
                _, inner = _number(one, inner)
        yield piece, score
        at = start + size


def _number(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (raw[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not raw[at - 1] & 0x80:
            return value, at
