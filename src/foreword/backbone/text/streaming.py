"""The text of tokens that are written one after the other: what is certain, and where it ends.

A character may need several tokens, and a stop word may be begun and not ended: text is given when
nothing that follows can change it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from foreword.backbone.text.tokens import Tokens

UNKNOWN = "\ufffd"
"""What a decoder writes for bytes that are no character, or none yet."""


class TextStream:
    """Text of tokens as they come.

    Args:
        tokens: makes text of tokens.
        stop: words before the first of which the text ends.

    Attributes:
        stopped: whether a stop word was written; the text ends before it, whatever comes.
        length: characters that are certain or wait for the rest of a stop word.
    """

    def __init__(self, tokens: Tokens, stop: Sequence[str] = ()) -> None:
        self.tokens, self.stop = tokens, tuple(stop)
        self.stopped = False
        self.length = 0
        self._ids: list[int] = []
        self._read = 0
        """How many tokens of `_ids` have given their text; they are kept since a token's text may
        depend on what is before it."""
        self._before = ""
        """Their text."""
        self._held = ""
        """Text of complete characters that was not given yet."""

    def add(self, token: int) -> None:
        """Take the next token."""
        if self.stopped:
            return
        self._ids.append(token)
        text = self.tokens.text(self._ids)
        fresh = self._after(text)
        if not fresh.endswith(UNKNOWN) and _ends_bytes(self.tokens, token):
            self._hold(fresh)
            own = self.tokens.text(self._ids[self._read :])
            if own:  # else a blank that begins the next token would be lost
                self._ids, self._before = self._ids[self._read :], own
            else:
                self._before = text
            self._read = len(self._ids)
            fresh = ""
        if self.stop:
            text = self._held + fresh
            ends = [at for word in self.stop if (at := text.find(word)) >= 0]
            if ends:
                self.stopped = True
                self.length += min(ends) - len(self._held)
                self._held = text[: min(ends)]

    def take(self) -> str:
        """What is certain now and was not given before."""
        keep = 0 if self.stopped else max(map(self._begun, self.stop), default=0)
        given = self._held[: len(self._held) - keep]
        self._held = self._held[len(given) :]
        return given

    def end(self) -> str:
        """The rest, where no token follows."""
        if not self.stopped:
            self._hold(self._after(self.tokens.text(self._ids)))
            self._ids, self._read, self._before = [], 0, ""
        given, self._held = self._held, ""
        return given

    def _after(self, text: str) -> str:
        """What a text says beyond the tokens that have given theirs."""
        if text.startswith(self._before):
            return text[len(self._before) :]
        alike = 0
        while text[alike : alike + 1] == self._before[alike : alike + 1] != "":
            alike += 1
        return text[alike:]

    def _hold(self, text: str) -> None:
        self._held += text
        self.length += len(text)

    def _begun(self, word: str) -> int:
        """How much of a stop word the text ends in."""
        most = min(len(word) - 1, len(self._held))
        return next((n for n in range(most, 0, -1) if self._held.endswith(word[:n])), 0)


@lru_cache(maxsize=4096)
def _ends_bytes(tokens: Tokens, token: int) -> bool:
    """Whether a run of bytes of SentencePiece's has ended with this token: what they say is not
    certain before, since one wrong byte makes none of them a character. Special tokens are left out
    of a text, so that the bytes around them are one run."""
    (name,) = tokens.names([token])
    special = token in tokens.tokenizer.all_special_ids
    return not special and re.fullmatch("<0x[0-9A-F]{2}>", name) is None
