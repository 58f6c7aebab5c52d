"""The texts that are distilled: looked at, and cut into parts."""

from __future__ import annotations

import re
from dataclasses import dataclass

from foreword.backbone import Tokens

HARDLY_KNOWN = 0.2
"""Share of unknown or partial characters among the tokens of a text from which that is said."""
LONGEST_TOKEN = 16
"""Characters of a token, above which a part of a text may be shorter than it could be."""
_ENDS = re.compile(r"(?:\n\s*\n|(?<=[.!?。！？])\s+|\n)")
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class Known:
    """How well a vocabulary knows a text.

    Attributes:
        tokens: of the text.
        strange: how many of them are unknown, or only a part of a character.
    """

    tokens: int
    strange: int

    @property
    def note(self) -> str | None:
        """What there is to say of it; None where the text is known well."""
        if self.strange <= HARDLY_KNOWN * self.tokens:
            return None
        return (
            f"{self.strange:,} of the text's {self.tokens:,} tokens are unknown to the backbone, or"
            " parts of characters; it hardly knows this script, and will teach little of the text"
        )


def known(tokens: Tokens, text: str) -> Known:
    """Count what a vocabulary does not know of a text."""
    ids = tokens.plain(text)
    unknown = tokens.tokenizer.unk_token_id
    strange = {
        token
        for token in set(ids)
        if token == unknown
        or _BYTE.fullmatch(str(tokens.tokenizer.convert_ids_to_tokens(token)))
        or "�" in tokens.tokenizer.decode([token])
    }
    return Known(len(ids), sum(token in strange for token in ids))


def chunks_of(tokens: Tokens, text: str, most: int) -> list[str]:
    """A text in parts of at most so many tokens, cut where a paragraph ends, else a sentence or a
    line, else where the tokens are as many.

    Joined they are the text, but for blanks between them.
    """
    parts: list[str] = []
    rest = text.strip()
    while rest:
        end = _end(tokens, rest, most)
        parts.append(rest[:end].strip())
        rest = rest[end:].strip()
    return parts


def beginning(tokens: Tokens, text: str, most: int) -> str:
    """The first tokens of a text, as text: of at most so many tokens."""
    (_, end), *_ = tokens.stretches(text, most, 0)
    return text[:end]


def _end(tokens: Tokens, text: str, most: int) -> int:
    """Where the first part of a text ends, in characters."""
    seen = text[: LONGEST_TOKEN * most]
    stretches = tokens.stretches(seen, most, 0)
    if len(stretches) == 1:
        return len(seen)
    full = max(1, stretches[0][1])
    ends = [match.end() for match in _ENDS.finditer(text, 0, full)]
    paragraphs = [end for end in ends if re.search(r"\n\s*\n\s*$", text[:end])]
    for candidates in (paragraphs, ends):
        late = [end for end in candidates if end > full // 2]
        if late:
            return late[-1]
    return full
