"""Text to tokens and back, by one rule that an artifact records.

Source: the tokenizer's own beginning token (or none, or always one), then the text, or two texts as
the tokenizer joins them; what an encoder reads is closed as the tokenizer does it. Target: the
text, then the end token, which is trained; a decoder's text goes on after the source, so
SentencePiece's mark of a beginning is not set again. A blank that begins a text is that mark, not a
second blank. Virtual tokens stand before all of it. Padding is known by the mask alone, so any id
that the model has can fill it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from transformers import PreTrainedTokenizerBase

from foreword.backbone.text.encoding import encoded
from foreword.backbone.text.frames import Frame, cut_in_windows, placed_best
from foreword.backbone.text.tokenizing import sha256
from foreword.errors import BackboneError, DataError

BosRule = Literal["auto", "always", "never"]


@dataclass(frozen=True)
class Tokens:
    """A tokenizer and the rule by which special tokens are set.

    Attributes:
        tokenizer: transformers' own.
        bos: whether a beginning token stands before the source: the tokenizer's `bos_token` or
            `cls_token`, or, where it names neither, whatever it sets before a text. What it sets
            between two texts and after them does not depend on it.
        encodes: whether an encoder reads the source, which then keeps its closing token.
        virtual: the first id that stands for a virtual token: the size of the model's vocabulary.
    """

    tokenizer: PreTrainedTokenizerBase
    bos: BosRule = "auto"
    encodes: bool = False
    virtual: int = 0

    def source(self, text: str) -> list[int]:
        """Tokens of an input text.

        Raises:
            DataError: one of them has no row in the model's embedding table.
            BackboneError: the rule asks for a beginning token that the tokenizer does not have.
        """
        return self._frame(1).around(self.plain(text))[0]

    def document(self, text: str) -> list[int]:
        """Tokens of a text that stands before inputs: what the rule sets before an input, the text,
        and nothing after it.

        Raises:
            DataError: as `source`.
            BackboneError: as `source`.
        """
        return [*self._frame(1).leading, *self.plain(text)]

    def pair(self, first: str, second: str) -> tuple[list[int], list[int]]:
        """Tokens of two texts as the tokenizer joins them, and which of the two each belongs to.

        Raises:
            DataError: as `source`.
            BackboneError: as `source`.
        """
        return self._frame(2).around(self.plain(first), self.plain(second))

    def filled(self, *texts: Sequence[str | int]) -> tuple[list[int], list[int]]:
        """Tokens of one or two texts in which ids stand between the words, special tokens around
        them as `source` and `pair` set them; and which of the two texts each token belongs to.

        The words between two ids are read by themselves, so that no token spans an id.
        """
        return self._frame(len(texts)).around(*map(self._between, texts))

    def real(self, ids: Sequence[int]) -> int:
        """How many of some ids stand for tokens of a text, not for virtual ones."""
        return sum(number < self.virtual for number in ids)

    def continued(self, text: str) -> list[int]:
        """Tokens of a text that goes on after another one: no mark of a beginning before it.

        A word of its own it is all the same, not the rest of one (WordPiece's `##`).
        """
        for anchor in (".", "a") if text[:1].isalnum() else ("a", "."):
            before, both = self.plain(anchor), self.plain(anchor + text)
            if text and both[: len(before)] == before and len(both) > len(before):
                return both[len(before) :]
        return self.plain(text)

    def _after(self, text: str) -> list[int]:
        """Tokens of a text that follows other text."""
        return self.continued(text) if _mark(self.tokenizer).set else self.plain(text)

    def _between(self, parts: Sequence[str | int]) -> list[int]:
        ids: list[int] = []
        for i, part in enumerate(parts):
            if isinstance(part, int):
                ids.append(part)
            else:
                ids += self.plain(part) if i == 0 else self.continued(part)
        return ids

    @property
    def bos_id(self) -> int | None:
        """The beginning token, if there is one, whatever the rule."""
        number = self.tokenizer.bos_token_id
        return None if number is None else self._known(int(number))

    @property
    def mask_id(self) -> int | None:
        """The mask token, if there is one."""
        number = self.tokenizer.mask_token_id
        return None if number is None else self._known(int(number))

    def names(self, ids: Sequence[int]) -> list[str]:
        """Tokens as a person reads them, virtual ones as `<soft1>`, `<soft2>` and so on."""
        size = self.virtual or max(ids, default=0) + 1
        known = iter(self.tokenizer.convert_ids_to_tokens([i for i in ids if i < size]))
        return [f"<soft{i - size + 1}>" if i >= size else str(next(known)) for i in ids]

    def sentinel(self, number: int) -> int | None:
        """The token that stands for a span that an encoder-decoder fills in (T5's), if there is
        one."""
        name = f"<extra_id_{number}>"
        token_id = self.tokenizer.convert_tokens_to_ids(name)
        known = token_id is not None and self.tokenizer.convert_ids_to_tokens(token_id) == name
        return self._known(int(token_id)) if known else None

    def words(
        self, words: Sequence[str], room: int | None, stride: int, *, ahead: bool = True
    ) -> list[tuple[list[int], dict[int, int]]]:
        """Words joined by blanks, as rows: the tokens of each, and at which of them each word is
        read, by the word's number.

        Words that do not fit into one row stand in windows that overlap. Each word is read once, at
        its first token, where most stands around it; a word without a token is read nowhere.

        Args:
            words: all of them.
            room: tokens of a row, special tokens included; None: one row.
            stride: tokens that neighbouring windows share; at most half of them.
            ahead: whether the model sees what follows a word; if not, a word is read where most
                stands before it.

        Raises:
            DataError: as `source`; or the room holds special tokens alone.
        """
        text = " ".join(words)
        ids, spans = self._spans(text)
        frame = self._frame(1)
        most = None if room is None else room - frame.size
        if most is not None and most < 1:
            raise DataError(
                f"{room} tokens leave no room for a word beside {frame.size} special tokens; give "
                "a larger task.max_tokens"
            )
        rows = cut_in_windows(len(ids), most, min(stride, (most or 0) // 2))
        read: list[dict[int, int]] = [{} for _ in rows]
        for word, at in _first_tokens(words, spans):
            number = placed_best(rows, at, ahead=ahead)
            read[number][word] = len(frame.leading) + at - rows[number][0]
        laid = [frame.around(ids[begin:end])[0] for begin, end in rows]
        return list(zip(laid, read, strict=True))

    def windows(
        self, question: str, context: str, room: int | None, stride: int
    ) -> list[tuple[list[int], list[int], dict[int, tuple[int, int]]]]:
        """A question with each window of its context: ids, segments, and the characters of the
        context that each of the window's tokens covers, by the token's index.

        Args:
            question: read before each window.
            context: what is cut into windows.
            room: tokens of a window, the question and special tokens included; None: one window.
                Without them it holds more than `stride`.
            stride: tokens that neighbouring windows share.

        Raises:
            DataError: as `source`.
        """
        question_ids, frame = self.plain(question), self._frame(2)
        ids, spans = self._spans(context)
        most = None if room is None else room - frame.size - len(question_ids)
        front = sum(map(len, frame.parts[:2])) + len(question_ids)
        parts = []
        for begin, end in cut_in_windows(len(ids), most, stride):
            row, segments = frame.around(question_ids, ids[begin:end])
            covered = {
                front + i: span for i, span in enumerate(spans[begin:end]) if span[0] < span[1]
            }
            parts.append((row, segments, covered))
        return parts

    def stretches(self, text: str, most: int, shared: int) -> list[tuple[int, int]]:
        """Where windows of a text begin and end, in characters; see `cut_in_windows`.

        Raises:
            DataError: as `source`.
        """
        ids, spans = self._spans(text)
        windows = cut_in_windows(len(ids), most, shared)
        return [(spans[begin][0], spans[end - 1][1]) for begin, end in windows]

    def target(self, text: str) -> list[int]:
        """Tokens of an answer, ended by the end token: a decoder's goes on after the source, an
        encoder-decoder's is a text of its own."""
        return [*self.written(text), self._known(self.eos_id)]

    def written(self, text: str) -> list[int]:
        """The same without an end token."""
        return self.plain(text) if self.encodes else self._after(text)

    def plain(self, text: str) -> list[int]:
        """Tokens of a text that nothing stands before, without any special token.

        Raises:
            DataError: one of them has no row in the model's embedding table.
        """
        if text[:1] == " " and self.drops_blank:
            text = text[1:]  # the tokenizer sets this blank itself
        ids, _ = encoded(self.tokenizer, text)
        self._known(*ids)
        return ids

    @property
    def drops_blank(self) -> bool:
        """Whether a blank that begins a text is left to the tokenizer, which sets it itself."""
        return _mark(self.tokenizer).doubled

    @property
    def leading(self) -> tuple[int, ...]:
        """The special tokens that the tokenizer puts before every text."""
        return Frame.of(self.tokenizer, 1).leading

    def spans(self, text: str, ids: Sequence[int]) -> list[tuple[int, int]]:
        """The characters of a text that each of its tokens covers.

        Args:
            text: what was read.
            ids: its tokens, whether it went on after another text or not, without special tokens.

        Raises:
            DataError: they are no tokens of the text.
        """
        for before in ("", ".", "a"):  # what `continued` reads a text after
            whole_ids, spans = self._spans(before + text)
            if len(whole_ids) >= len(ids) and whole_ids[len(whole_ids) - len(ids) :] == list(ids):
                skipped = len(before)
                own = spans[len(whole_ids) - len(ids) :]
                return [(max(0, begin - skipped), end - skipped) for begin, end in own]
        raise DataError(f"cannot tell which token is of which part of {text[:80]!r}")

    def _spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Tokens of a text without any special token, and the characters that each covers."""
        ids, spans = encoded(self.tokenizer, text, spans=True)
        self._known(*ids)
        return ids, spans

    def _known(self, *ids: int) -> int:
        """The last of some tokens.

        Raises:
            DataError: the model's embedding table has no row for one of them.
        """
        beyond = max(ids, default=0)
        if self.virtual and beyond >= self.virtual:
            name = self.tokenizer.convert_ids_to_tokens(beyond)
            raise DataError(
                f"the token {name!r} has the id {beyond}, but the backbone's embedding table has "
                f"rows for the ids 0 to {self.virtual - 1} alone: the tokenizer was given tokens "
                "that the model does not have; call model.resize_token_embeddings(len(tokenizer)) "
                "and save both, or take the token out of the tokenizer or of the text"
            )
        return ids[-1] if ids else 0

    def _frame(self, texts: int) -> Frame:
        return _ruled(self, texts)

    def text(self, ids: list[int]) -> str:
        """Text of tokens, without special ones."""
        decoded: str = self.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return decoded

    @property
    def eos_id(self) -> int:
        """The end token."""
        if self.tokenizer.eos_token_id is None:
            raise BackboneError(
                "the tokenizer has no end token (eos_token), which ends every answer"
            )
        return int(self.tokenizer.eos_token_id)

    @property
    def eos(self) -> str:
        """The end token as text."""
        assert self.eos_id is not None
        return str(self.tokenizer.eos_token)

    @property
    def pad_id(self) -> int:
        """What fills padding columns: any id that the model has serves, since the mask tells them;
        0 where the tokenizer's own lies beyond the model's embedding table."""
        own = int(self.tokenizer.pad_token_id or 0)
        return 0 if self.virtual and own >= self.virtual else own

    @property
    def sha256(self) -> str:
        """Hash of all that decides how text becomes tokens; see `tokenizing.sha256`."""
        return sha256(self.tokenizer)


@dataclass(frozen=True)
class _Mark:
    """SentencePiece's mark of a beginning, which reads as a blank.

    Attributes:
        set: whether the tokenizer sets it before every text.
        doubled: whether it does so before a blank, too.
    """

    set: bool
    doubled: bool


@lru_cache(maxsize=64)
def _mark(tokenizer: PreTrainedTokenizerBase) -> _Mark:
    def pieces(text: str) -> str:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return "".join(map(str, tokenizer.convert_ids_to_tokens(ids)))

    return _Mark(set=pieces("a").startswith("▁"), doubled=pieces(" a").startswith("▁▁"))


def _first_tokens(
    words: Sequence[str], spans: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """The number of each word that has a token, and its first token's.

    Args:
        words: joined by blanks.
        spans: the characters that each token covers, in their order.
    """
    token = begin = 0
    for number, word in enumerate(words):
        end = begin + len(word)
        while token < len(spans) and (
            spans[token][1] <= begin or spans[token][0] >= spans[token][1]
        ):
            token += 1
        if token < len(spans) and spans[token][0] < end:
            yield number, token
        begin = end + 1


@lru_cache(maxsize=64)
def _ruled(tokens: Tokens, texts: int) -> Frame:
    """The special tokens around texts under the rule for beginning tokens."""
    tokenizer = tokens.tokenizer
    frame = Frame.of(tokenizer, texts)
    named = [
        int(token)
        for token in (tokenizer.bos_token_id, tokenizer.cls_token_id)
        if token is not None
    ]
    if tokens.bos == "never":
        frame = frame.without(named or frame.leading)
    elif tokens.bos == "always":
        if not named:
            raise BackboneError(
                "tokens.bos: 'always' was asked for, but the tokenizer has no beginning token; use "
                "'auto' or 'never'"
            )
        frame = frame.begun(named[0])
    frame = frame if tokens.encodes else frame.open()
    tokens._known(*(token for part in frame.parts for token, _ in part))
    return frame
