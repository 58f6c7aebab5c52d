"""The answer is a word of the backbone's own vocabulary, read where a template leaves room for it.

PET (Schick & Schütze 2021a, section 3.1): a verbalizer gives each label a word, and a label is as
probable as its word is among the words of all labels. Where the word is read depends on what the
backbone learned: at mask tokens (masked models), at the next token (decoders), or after a sentinel
(T5). Words of several tokens as in Schick & Schütze 2021b (section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from foreword.axes.readout.base import Predictor
from foreword.backbone import Backbone, Call, Prompt
from foreword.backbone.layout import Layout

Words = Sequence[Sequence[Sequence[int]]]
"""By label its words, each as tokens."""
Order = Literal["joint", "max-first"]


class Blank(Predictor):
    """Where a word is missing: a read of the vocabulary's logarithms of probabilities there.

    Args:
        masked: whether mask tokens stand there, which the layout marks; the next token if not.
        before: what the answer begins with (T5's sentinel), for the next token.
    """

    reads = "logits"

    def __init__(self, *, masked: bool, before: Sequence[int] = ()) -> None:
        super().__init__()
        self.masked, self.before = masked, tuple(before)

    @property
    def stems(self) -> list[tuple[int, ...]]:
        """What stands behind a row, each text for itself, where the next token is read on the way
        through it."""
        return [self.before]

    def run(self, call: Call) -> Call:
        """The rows themselves, or each row followed by every stem."""
        if self.masked or not any(self.stems):
            return call
        prompt = None if call.prompt is None else call.prompt.repeated(len(self.stems))
        return Call(call.layout.followed_by(self.stems), prompt)

    def positions(self, call: Call) -> Tensor:
        """Those of the masks, row after row; or for each row and stem the last token of the row and
        as many after it as the longest stem has."""
        if self.masked:
            return _marks(call.layout).flatten().nonzero().squeeze(1)
        stems, mask = self.stems, call.layout.attention_mask
        longest = max(map(len, stems))
        last = (mask.sum(1) - 1).repeat_interleave(len(stems))
        width = mask.shape[1] + longest
        first = torch.arange(len(last), device=last.device)[:, None] * width
        steps = torch.arange(longest + 1, device=last.device)
        return (first + last[:, None] + steps).flatten()

    def after(self, taken: Tensor, call: Call) -> Tensor:
        """Log-probabilities of what follows each row and its way through each stem.

        Args:
            taken: logits at `positions(call)`.
            call: B rows, padded on the right.

        Returns:
            `[B, S, longest stem + 1, vocabulary]`; row, stem, how much of the stem was read.
        """
        longest = max(map(len, self.stems))
        return _log_softmax(taken).view(call.rows, len(self.stems), longest + 1, -1)


class Verbalizer(Blank):
    """The label whose words are the most probable.

    A label's score is the mean over its words of their logarithms of probability, less the
    logarithm of its prior where it is calibrated (Zhao et al. 2021); labels are as probable as a
    softmax over the scores says. With words of one token each this is PET's softmax over logits.

    Args:
        words: of each label.
        masked: whether mask tokens stand there, as many as the row's marks.
        before: what an answer begins with.
        order: how masks of a word with several tokens are filled when a label is told: all at once
            ("joint"), or the surest first and then the others again ("max-first", PET's). Training
            always takes them all at once, as PET does.
        calibrated: whether a prior is kept.
    """

    kind: ClassVar[str] = "verbalizer"

    prior: Tensor | None
    beside: Callable[[Prompt | None], Tensor] | None = None
    """Another loss in each training step, of weight `beside_weight`; a scalar."""
    beside_weight: float = 0.0

    def __init__(
        self,
        words: Words,
        *,
        masked: bool,
        before: Sequence[int] = (),
        order: Order = "joint",
        calibrated: bool = False,
    ) -> None:
        super().__init__(masked=masked, before=before)
        self.order: Order = order
        self.words = [tuple(word) for label in words for word in label]
        self.labels = len(words)
        self.label_of = [number for number, label in enumerate(words) for _ in label]
        prior = nn.Parameter(torch.zeros(self.labels), requires_grad=False) if calibrated else None
        self.register_parameter("prior", prior)

    @property
    def longest(self) -> int:
        """Tokens of the longest word."""
        return max(map(len, self.words))

    @property
    def stems(self) -> list[tuple[int, ...]]:
        """What an answer begins with, and all but the last token of each word."""
        return list(dict.fromkeys((*self.before, *word[:-1]) for word in self.words))

    @property
    def one_pass(self) -> bool:
        """Not where masks are filled one after the other."""
        return not (self.masked and self.order == "max-first" and self.longest > 1)

    def loss(self, backbone: Backbone, call: Call) -> Tensor:
        """Negative log-likelihood of each row's label: `[B]`."""
        labels = call.layout.labels
        assert labels is not None, "label words are trained on labels"
        scores = self.scores(self._less_the_prior(self._words(self.taken(backbone, call), call)))
        losses = nn.functional.cross_entropy(scores, labels, reduction="none")
        if self.beside is None or not (self.training and torch.is_grad_enabled()):
            return losses
        return (1 - self.beside_weight) * losses + self.beside_weight * self.beside(call.prompt)

    def read(self, backbone: Backbone, call: Call) -> list[Tensor]:
        """As `answers` says; masks one after the other, where that is the order."""
        if self.one_pass:
            return super().read(backbone, call)
        scores = self._words(self.taken(backbone, call), call)
        counts = _marks(call.layout).sum(1)
        for number, word in enumerate(self.words):
            rows = (counts == len(word)).nonzero().squeeze(1)
            if len(word) > 1 and rows.numel():
                scores[rows, number] = self._surest_first(backbone, call.taken(rows), word)
        return self._of_words(scores, call)

    def answers(self, taken: Tensor, call: Call) -> list[Tensor]:
        """Of each row the logarithm of each word's probability, less that of its label's prior; NaN
        where the row has another number of masks than the word has tokens."""
        return self._of_words(self._words(taken, call), call)

    def _of_words(self, scores: Tensor, call: Call) -> list[Tensor]:
        if self.masked:
            counts = _marks(call.layout).sum(1)
            lengths = torch.tensor([len(word) for word in self.words], device=counts.device)
            scores = scores.masked_fill(lengths[None] != counts[:, None], torch.nan)
        return list(self._less_the_prior(scores).cpu())

    def scores(self, words: Tensor) -> Tensor:
        """Scores of the labels `[B, labels]` from those of their words `[B, words]`."""
        of = torch.tensor(self.label_of, device=words.device)
        sums = words.new_zeros(len(words), self.labels).index_add(1, of, words)
        return sums / torch.bincount(of, minlength=self.labels)

    def _less_the_prior(self, words: Tensor) -> Tensor:
        return words if self.prior is None else words - self.prior.to(words)[self.label_of]

    def _words(self, taken: Tensor, call: Call) -> Tensor:
        """The logarithm of each word's probability: `[B, words]`."""
        return self._at_once(taken, call) if self.masked else self._next(taken, call)

    def _at_once(self, taken: Tensor, call: Call) -> Tensor:
        """All masks of a row at once; a word has as many of them as it has tokens."""
        counts = _marks(call.layout).sum(1)
        logs = _log_softmax(taken)
        firsts = counts.cumsum(0) - counts
        columns = []
        for word in self.words:
            at = [
                logs[(firsts + torch.clamp(counts - 1, max=i)), token]
                for i, token in enumerate(word)
            ]
            columns.append(torch.stack(at).sum(0))
        return torch.stack(columns, 1)

    def _surest_first(self, backbone: Backbone, call: Call, word: Sequence[int]) -> Tensor:
        """One word, its surest token put in before the others are read again: `[B]`."""
        layout, marks = call.layout, _marks(call.layout)
        rows, tokens = layout.rows, torch.tensor(list(word), device=layout.input_ids.device)
        places = marks.nonzero()[:, 1].view(rows, len(word))
        left = torch.ones_like(places, dtype=torch.bool)
        ids, total = layout.input_ids.clone(), torch.zeros((), device=tokens.device)
        every = torch.arange(rows, device=ids.device)
        for _ in word:
            now = Call(replace(layout, input_ids=ids), call.prompt)
            logs = _log_softmax(self.taken(backbone, now))
            own = logs.view(rows, len(word), -1).gather(2, tokens.expand(rows, -1)[..., None])[
                ..., 0
            ]
            best = own.masked_fill(~left, -torch.inf).argmax(1)
            total = total + own[every, best]
            left[every, best] = False
            ids[every, places[every, best]] = tokens[best]
        return total

    def _next(self, taken: Tensor, call: Call) -> Tensor:
        """Each word token after token, as a decoder writes it."""
        stems, logs = self.stems, self.after(taken, call)
        first = len(self.before)
        columns = []
        for word in self.words:
            stem = stems.index((*self.before, *word[:-1]))
            at = [logs[:, stem, first + i, token] for i, token in enumerate(word)]
            columns.append(torch.stack(at).sum(0))
        return torch.stack(columns, 1)


class AnyWord(Blank):
    """The most probable of all words of one token: what LAMA asks (Petroni et al. 2019)."""

    kind: ClassVar[str] = "any_word"

    def loss(self, backbone: Backbone, call: Call) -> Tensor:
        """Negative log-likelihood of each row's word: `[B]`."""
        labels = call.layout.labels
        assert labels is not None, "a word is trained on words"
        logs = self._logs(self.taken(backbone, call), call)
        return nn.functional.nll_loss(logs, labels, reduction="none")

    def answers(self, taken: Tensor, call: Call) -> list[Tensor]:
        """Of each row the logarithms of the probabilities of all tokens: `[vocabulary]`."""
        return list(self._logs(taken, call).cpu())

    def _logs(self, taken: Tensor, call: Call) -> Tensor:
        return _log_softmax(taken) if self.masked else self.after(taken, call)[:, 0, -1]


def _marks(layout: Layout) -> Tensor:
    assert layout.marks is not None, "masks are marked"
    return layout.marks


def _log_softmax(logits: Tensor) -> Tensor:
    return (logits.float() if logits.element_size() < 4 else logits).log_softmax(-1)
