"""The special tokens that a tokenizer sets around one text or two."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from foreword.backbone.text.tokenizing import whole
from foreword.errors import BackboneError

Special = tuple[tuple[int, int], ...]
"""Special tokens that stand together, each with the number of the text that it belongs to."""


@dataclass(frozen=True)
class Frame:
    """What stands around texts.

    Attributes:
        parts: the special tokens before the first text, between two, and after the last one.
        segments: of each text, what the model is told of its tokens (BERT's 0 and 1).
    """

    parts: tuple[Special, ...]
    segments: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, texts: int) -> Frame:
        """What a tokenizer sets by itself around one text or two.

        Raises:
            BackboneError: it changes a text, so that it cannot be told what stands around one.
        """
        words = ("a", "b")[:texts]
        encoding = whole(tokenizer)(*words, return_token_type_ids=True, verbose=False)
        ids: list[int] = encoding["input_ids"]
        kinds: list[int] = encoding.get("token_type_ids") or [0] * len(ids)
        parts: list[Special] = []
        segments: list[int] = []
        start = 0
        for word in words:
            own = tokenizer(word, add_special_tokens=False, verbose=False)["input_ids"]
            places = range(start, len(ids) - len(own) + 1)
            at = next((i for i in places if ids[i : i + len(own)] == own), None)
            if at is None or (ids and not own):
                raise BackboneError(
                    f"the tokenizer ({type(tokenizer).__name__}) does not set special tokens "
                    f"around a text: the tokens of {word!r} alone are none of those of {words!r}; "
                    "name a backbone with another tokenizer"
                )
            parts.append(tuple(zip(ids[start:at], kinds[start:at], strict=True)))
            segments.append(kinds[at] if own else 0)
            start = at + len(own)
        return cls((*parts, tuple(zip(ids[start:], kinds[start:], strict=True))), tuple(segments))

    @property
    def leading(self) -> tuple[int, ...]:
        """The special tokens before the first text."""
        return tuple(token for token, _ in self.parts[0])

    @property
    def size(self) -> int:
        """How many special tokens there are in all."""
        return sum(map(len, self.parts))

    def begun(self, begin: int) -> Frame:
        """The same frame, with this token among those before the first text."""
        if begin in self.leading:
            return self
        first, *others = self.parts
        return replace(self, parts=(((begin, 0), *first), *others))

    def without(self, tokens: Collection[int]) -> Frame:
        """The same frame without some tokens before and between texts."""
        *before, last = self.parts
        kept = [tuple(one for one in part if one[0] not in tokens) for part in before]
        return replace(self, parts=(*kept, last))

    def open(self) -> Frame:
        """The same frame with nothing after the last text, so that the text can go on."""
        return replace(self, parts=(*self.parts[:-1], ()))

    def around(self, *texts: Sequence[int]) -> tuple[list[int], list[int]]:
        """The tokens of all, and which of the texts each belongs to."""
        tokens = [token for token, _ in self.parts[0]]
        segments = [segment for _, segment in self.parts[0]]
        for text, segment, part in zip(texts, self.segments, self.parts[1:], strict=True):
            tokens += text
            segments += [segment] * len(text)
            for token, of in part:
                tokens.append(token)
                segments.append(of)
        return tokens, segments


def cut_in_windows(length: int, most: int | None, shared: int) -> list[tuple[int, int]]:
    """Where windows of a text begin and end, so that together they hold all of it.

    Args:
        length: tokens of the text.
        most: tokens of a window; None: any number, so there is one.
        shared: tokens that neighbouring windows share; fewer than `most`.
    """
    if most is None or length <= most:
        return [(0, length)]
    step = most - shared
    return [(at, min(at + most, length)) for at in range(0, length - most + step, step)]


def placed_best(rows: Sequence[tuple[int, int]], at: int, *, ahead: bool) -> int:
    """The number of the window in which a token has most around it, the first of several.

    Args:
        rows: where windows begin and end.
        at: the token.
        ahead: whether what follows it counts too, and not only what stands before it.
    """

    def around(number: int) -> int:
        begin, end = rows[number]
        return min(at - begin, end - 1 - at) if ahead else at - begin

    return max((i for i, (begin, end) in enumerate(rows) if begin <= at < end), key=around)
