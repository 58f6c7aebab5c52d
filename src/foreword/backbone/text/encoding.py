"""Texts to tokens: one by one, or those of many examples together, by a tokenizer's own threads.

A call of a tokenizer costs many times what the tokens of a short text cost. `together` therefore
makes things of many examples at once: what asks for the tokens of a text that are not there yet is
put off, the texts that were asked for are tokenised in one call, and it is made again. Nothing that
makes them knows of it, and the tokens are those that each text has alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from itertools import islice
from typing import TypeVar

from transformers import PreTrainedTokenizerBase

from foreword.backbone.text.tokenizing import whole

T = TypeVar("T")
R = TypeVar("R")
Encoded = tuple[list[int], list[tuple[int, int]]]
"""Tokens without special ones; the characters that each covers, where they were asked for."""
FIRST, MOST = 32, 1024
"""Examples of the first batch and of the largest; each batch is twice the one before."""
ROUNDS = 5
"""How often a thing is begun anew; what it asks for after that is tokenised at once."""


def encoded(tokenizer: PreTrainedTokenizerBase, text: str, *, spans: bool = False) -> Encoded:
    """The tokens of a text.

    Args:
        tokenizer: transformers' own.
        text: is read as it is.
        spans: whether the characters of each token are asked for.
    """
    batch = _batch.get()
    if batch is None or batch.tokenizer is not tokenizer:
        (one,) = _encode(tokenizer, [text], spans=spans)
        return one
    ids, covered = batch.of(text, spans)
    return list(ids), covered


def together(
    tokenizer: PreTrainedTokenizerBase, items: Iterable[T], make: Callable[[T], R]
) -> Iterator[R]:
    """What is made of each item, in their order, the texts of many items tokenised together.

    Args:
        tokenizer: of which tokens are asked by `encoded`.
        items: some more of them than are asked for may be taken.
        make: gives the same whenever it is called; what it raises is raised at the item's turn.
    """
    items, size = iter(items), FIRST
    while block := list(islice(items, size)):
        size = min(2 * size, MOST)
        for made in _made(tokenizer, block, make):
            if isinstance(made, _Failed):
                raise made.error
            yield made


def with_texts_of(make: Callable[[], R], *others: Callable[[], object]) -> R:
    """What `make` gives. Where it has to wait for the tokens of a text, the texts that others will
    ask for after it are tokenised with it; nothing else becomes of the others here."""
    try:
        return make()
    except _Missing:
        for other in others:
            with suppress(Exception, _Missing):
                other()
        raise


class _Missing(BaseException):
    """The tokens of a text are not there yet. No mistake, which `except Exception` might take."""


class _Failed:
    def __init__(self, error: Exception) -> None:
        self.error = error


class _Batch:
    """The texts of some items."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.known: dict[tuple[str, bool], Encoded] = {}
        self.wanted: dict[tuple[str, bool], None] = {}
        self.waits = True

    def of(self, text: str, spans: bool) -> Encoded:
        known = self.known.get((text, spans))
        if known is None:
            if self.waits:
                self.wanted[text, spans] = None
                raise _Missing
            (known,) = _encode(self.tokenizer, [text], spans=spans)
        return known

    def read(self) -> None:
        for spans in (False, True):
            texts = [text for text, of in self.wanted if of is spans]
            if texts:
                read = _encode(self.tokenizer, texts, spans=spans)
                self.known.update(zip(((text, spans) for text in texts), read, strict=True))
        self.wanted.clear()


_batch: ContextVar[_Batch | None] = ContextVar("_batch", default=None)


def _made(
    tokenizer: PreTrainedTokenizerBase, block: list[T], make: Callable[[T], R]
) -> list[R | _Failed]:
    made: dict[int, R | _Failed] = {}
    batch = _Batch(tokenizer)
    before = _batch.set(batch)
    try:
        for round in range(ROUNDS + 1):
            batch.waits = round < ROUNDS and tokenizer.is_fast and len(block) > 1
            for number in [number for number in range(len(block)) if number not in made]:
                try:
                    made[number] = make(block[number])
                except _Missing:
                    continue
                except Exception as error:
                    made[number] = _Failed(error)
            if len(made) == len(block):
                break
            batch.read()
    finally:
        _batch.reset(before)
    return [made[number] for number in range(len(block))]


def _encode(tokenizer: PreTrainedTokenizerBase, texts: list[str], *, spans: bool) -> list[Encoded]:
    alone = len(texts) == 1
    encoding = whole(tokenizer)(
        texts[0] if alone else texts,
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        **({"return_offsets_mapping": True} if spans else {}),
        verbose=False,
    )
    ids, covered = encoding["input_ids"], encoding["offset_mapping"] if spans else None
    if alone:
        return [(ids, covered or [])]
    return list(zip(ids, covered or [[] for _ in texts], strict=True))
