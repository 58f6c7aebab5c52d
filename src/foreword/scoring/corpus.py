"""Outputs and their references, tokenised once for all measures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from foreword.scoring.ptb import tokenise

Texts = tuple[str, ...]


@dataclass(frozen=True)
class Corpus:
    """Segments: an output and at least one reference each.

    Attributes:
        outputs: `[segments]`.
        references: the references of each segment.
    """

    outputs: Texts
    references: tuple[Texts, ...]

    @cached_property
    def ptb(self) -> Corpus:
        """The same after the PTB tokeniser: lower-case tokens between blanks, no punctuation.

        Raises:
            Unavailable: without Java.
        """
        flat = iter(tokenise([text for texts in self.references for text in texts]))
        references = tuple(tuple(next(flat) for _ in texts) for texts in self.references)
        return Corpus(tuple(tokenise(self.outputs)), references)
