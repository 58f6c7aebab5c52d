"""The answer is a word of the backbone's own vocabulary, read where a template leaves room for it.

PET (Schick & Schütze 2021a, section 3.1): a verbalizer gives each label a word, and a label is as
probable as its word is among the words of all labels. Where the word is read depends on what the
backbone learned: at mask tokens (masked models), at the next token (decoders), or after a sentinel
(T5). Words of several tokens as in Schick & Schütze 2021b (section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from foreword.backbone import Backbone, Prompt
from foreword.layout import Layout
from foreword.readout.base import Told

Words = Sequence[Sequence[Sequence[int]]]
"""By label its words, each as tokens."""
Order = Literal["joint", "max-first"]


class Blank(Told):
    """Where a word is missing: a read of the vocabulary's logarithms of probabilities there.

    Args:
        masked: whether mask tokens stand there, which the layout marks; the next token if not.
        before: what the answer begins with (T5's sentinel), for the next token.
    """

    def __init__(self, *, masked: bool, before: Sequence[int] = ()) -> None:
        super().__init__()
        self.masked, self.before = masked, tuple(before)

    def at_masks(self, backbone: Backbone, layout: Layout, prompt: Prompt | None) -> Tensor:
        """Log-probabilities at every mark, row after row: `[N, vocabulary]`."""
        assert layout.marks is not None, "masks are marked"
        reading = layout.marks.flatten().nonzero().squeeze(1)
        return _log_softmax(backbone.logits(layout, prompt, reading))

    def after(
        self, backbone: Backbone, layout: Layout, prompt: Prompt | None, stems: Words
    ) -> Tensor:
        """Log-probabilities of what follows each row and its way through each stem.

        Args:
            backbone: reads.
            layout: B rows, padded on the right.
            prompt: what conditions them.
            stems: one list of S texts, each read from its beginning.

        Returns:
            `[B, S, longest stem + 1, vocabulary]`; row, stem, how much of the stem was read.
        """
        (texts,) = stems
        behind = layout if not any(texts) else layout.followed_by(texts)
        longest = max(map(len, texts))
        last = layout.attention_mask.sum(1) - 1
        at = last.repeat_interleave(len(texts))[:, None] + torch.arange(
            longest + 1, device=last.device
        )
        width = behind.input_ids.shape[1]
        first = torch.arange(behind.rows, device=last.device)[:, None] * width
        logits = backbone.logits(behind, prompt, (first + at).flatten())
        return _log_softmax(logits).view(layout.rows, len(texts), longest + 1, -1)


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

    def loss(self, backbone: Backbone, layout: Layout, prompt: Prompt | None) -> Tensor:
        """Negative log-likelihood of each row's label: `[B]`."""
        assert layout.labels is not None, "label words are trained on labels"
        words = (
            self._together(backbone, layout, prompt)
            if self.masked
            else self._next(backbone, layout, prompt)
        )
        scores = self.scores(self._less_the_prior(words))
        found = nn.functional.cross_entropy(scores, layout.labels, reduction="none")
        if self.beside is None or not (self.training and torch.is_grad_enabled()):
            return found
        return (1 - self.beside_weight) * found + self.beside_weight * self.beside(prompt)

    def read(self, backbone: Backbone, layout: Layout, prompt: Prompt | None) -> list[Tensor]:
        """Of each row the logarithm of each word's probability, less that of its label's prior; NaN
        where the row has another number of masks than the word has tokens."""
        if not self.masked:
            return list(self._less_the_prior(self._next(backbone, layout, prompt)).cpu())
        assert layout.marks is not None, "masks are marked"
        counts = layout.marks.sum(1)
        found = self._together(backbone, layout, prompt)
        lengths = torch.tensor([len(word) for word in self.words], device=counts.device)
        if self.order == "max-first":
            for number, word in enumerate(self.words):
                rows = (counts == len(word)).nonzero().squeeze(1)
                if len(word) > 1 and rows.numel():
                    chosen = layout.taken(rows)
                    found[rows, number] = self._surest_first(backbone, chosen, prompt, word)
        found = found.masked_fill(lengths[None] != counts[:, None], torch.nan)
        return list(self._less_the_prior(found).cpu())

    def scores(self, words: Tensor) -> Tensor:
        """Scores of the labels `[B, labels]` from those of their words `[B, words]`."""
        of = torch.tensor(self.label_of, device=words.device)
        sums = words.new_zeros(len(words), self.labels).index_add(1, of, words)
        return sums / torch.bincount(of, minlength=self.labels)

    def _less_the_prior(self, words: Tensor) -> Tensor:
        return words if self.prior is None else words - self.prior.to(words)[self.label_of]

    def _together(self, backbone: Backbone, layout: Layout, prompt: Prompt | None) -> Tensor:
        """All masks of a row at once; a word has as many of them as it has tokens: `[B, words]`."""
        assert layout.marks is not None, "masks are marked"
        counts = layout.marks.sum(1)
        logs = self.at_masks(backbone, layout, prompt)
        firsts = counts.cumsum(0) - counts
        columns = []
        for word in self.words:
            at = [
                logs[(firsts + torch.clamp(counts - 1, max=i)), token]
                for i, token in enumerate(word)
            ]
            columns.append(torch.stack(at).sum(0))
        return torch.stack(columns, 1)

    def _surest_first(
        self, backbone: Backbone, layout: Layout, prompt: Prompt | None, word: Sequence[int]
    ) -> Tensor:
        """One word, its surest token put in before the others are read again: `[B]`."""
        assert layout.marks is not None, "masks are marked"
        rows, tokens = layout.rows, torch.tensor(list(word), device=layout.input_ids.device)
        places = layout.marks.nonzero()[:, 1].view(rows, len(word))
        left = torch.ones_like(places, dtype=torch.bool)
        ids, total = layout.input_ids.clone(), torch.zeros((), device=tokens.device)
        every = torch.arange(rows, device=ids.device)
        for _ in word:
            logs = self.at_masks(backbone, replace(layout, input_ids=ids), prompt)
            own = logs.view(rows, len(word), -1).gather(2, tokens.expand(rows, -1)[..., None])[
                ..., 0
            ]
            best = own.masked_fill(~left, -torch.inf).argmax(1)
            total = total + own[every, best]
            left[every, best] = False
            ids[every, places[every, best]] = tokens[best]
        return total

    def _next(self, backbone: Backbone, layout: Layout, prompt: Prompt | None) -> Tensor:
        """Each word token after token, as a decoder writes it: `[B, words]`."""
        stems = list(dict.fromkeys((*self.before, *word[:-1]) for word in self.words))
        logs = self.after(backbone, layout, prompt, [stems])
        first = len(self.before)
        columns = []
        for word in self.words:
            stem = stems.index((*self.before, *word[:-1]))
            at = [logs[:, stem, first + i, token] for i, token in enumerate(word)]
            columns.append(torch.stack(at).sum(0))
        return torch.stack(columns, 1)


class AnyWord(Blank):
    """The most probable of all words of one token: what LAMA asks (Petroni et al. 2019)."""

    def loss(self, backbone: Backbone, layout: Layout, prompt: Prompt | None) -> Tensor:
        """Negative log-likelihood of each row's word: `[B]`."""
        assert layout.labels is not None, "a word is trained on words"
        logs = self._logs(backbone, layout, prompt)
        return nn.functional.nll_loss(logs, layout.labels, reduction="none")

    def read(self, backbone: Backbone, layout: Layout, prompt: Prompt | None) -> list[Tensor]:
        """Of each row the logarithms of the probabilities of all tokens: `[vocabulary]`."""
        return list(self._logs(backbone, layout, prompt).cpu())

    def _logs(self, backbone: Backbone, layout: Layout, prompt: Prompt | None) -> Tensor:
        if self.masked:
            return self.at_masks(backbone, layout, prompt)
        return self.after(backbone, layout, prompt, [[self.before]])[:, 0, -1]


def _log_softmax(logits: Tensor) -> Tensor:
    return (logits.float() if logits.element_size() < 4 else logits).log_softmax(-1)
