"""What an example becomes, and what its answer is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from foreword.backbone.layout import Pair
from foreword.errors import DataError


@dataclass(frozen=True)
class Row:
    """One row of tokens that an example becomes.

    Attributes:
        pair: source, target, marks and labels.
        cut: how many tokens of the example were left out so that it fits.
        at: for each marked token what it stands for: the number of a word, or characters of a
            context; None for "no answer".
        text: the source as rendered, where a text is written after it.
    """

    pair: Pair
    cut: int = 0
    at: tuple[int | tuple[int, int] | None, ...] = ()
    text: str = ""


@dataclass(frozen=True)
class Candidate:
    """A span that may be the answer.

    Attributes:
        answer: its text.
        start: where it begins, in characters of the context.
        probability: of its begin and end in its window.
        score: the logarithm of its probability less that of no answer.
    """

    answer: str
    start: int
    probability: float
    score: float


@dataclass(frozen=True)
class Prediction:
    """The answer to one example, and what else is known of it.

    Attributes:
        answer: the text; the label; the labels, where there may be several; the number; the text of
            a choice, or several such; one tag a word, None for a word that was not read since it
            has no token; the text of a span, "" for no answer; or the numbers of a vector, and
            where vectors were compared the cosine of the text's and its own paired one's.
        probability: of the answer; of each label or tag, None where there is none; of a span's
            begin and end in its window; None for a text or a number.
        probabilities: of every label, where the answer is one or several.
        start: where a span begins, in characters of its context; None for no answer.
        score: of a span: the logarithm of its probability less that of no answer.
        candidates: of a span: the likeliest ones, the first first, none of which overlap; "" for
            no answer is none of them.
        truncated: whether the input was cut to fit.
        input: what was asked, as text.
        chosen: the numbers of the choices that were chosen, where a row brings its own.
        shares: the probability of each of them.
        log_likelihoods: of each of them, where that is what chooses.
        beside: the vectors of the texts that are paired with the input, where there are any.
        rank: the place, from 1, of the first paired text among those of a whole set.
    """

    answer: str | float | tuple[str | None, ...] | tuple[float, ...]
    probability: float | tuple[float | None, ...] | None = None
    probabilities: dict[str, float] = field(default_factory=dict)
    start: int | None = None
    score: float | None = None
    candidates: tuple[Candidate, ...] = ()
    truncated: bool = False
    input: str = field(default="", repr=False)
    chosen: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()
    log_likelihoods: tuple[float, ...] = ()
    beside: tuple[tuple[float, ...], ...] = field(default=(), repr=False)
    rank: int | None = None


def by_name(where: str, fields: Sequence[str]) -> DataError:
    """The error of a plain text where there is not one field that it could be."""
    listed = ", ".join(fields) or "(none)"
    return DataError(
        f"{where}: this prompt's input has the fields {listed}; give them by name, as JSON"
    )
