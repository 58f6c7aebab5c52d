"""Virtual tokens that stay near a fixed start (Blau et al. 2024, CPT: projected gradient descent).

Token i is `start_i + moved_i`, and the length of `moved_i` is at most the bound of its kind.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from foreword.axes.parts import EmbeddingsPart, Named
from foreword.axes.reparam.base import Reparameterization

PER_EXAMPLE = 4
"""The numbers of token types go on by so many from one example of the context to the next."""
UNIT = 2048
"""The width for which a bound is stated; it grows with the square root of the width."""
IGNORED = -100


class Bounded(Reparameterization):
    """A start, and what was added to it.

    The start and what it is made of are no parameters; `fit` sets them.

    Args:
        part: the embeddings that are made.
        epsilon: the bound of a token of an example's content.
        format_epsilon: the bound of a token of the template.
        decay: what the labels of an example weigh beside those of the example after it.
    """

    start: Tensor
    tokens: Tensor
    types: Tensor

    def __init__(
        self, part: EmbeddingsPart, *, epsilon: float, format_epsilon: float, decay: float
    ) -> None:
        super().__init__()
        self.part, self.decay = part, decay
        self.epsilon, self.format_epsilon = epsilon, format_epsilon
        self.register_buffer("start", torch.zeros(part.length, part.width))
        self.register_buffer("tokens", torch.zeros(part.length, dtype=torch.long))
        self.register_buffer("types", torch.zeros(part.length, dtype=torch.long))
        self.moved = nn.Parameter(torch.zeros(part.length, part.width))

    def forward(self) -> dict[str, Tensor]:
        """The embeddings `[P, width]`; in a training step, which first brings `moved` back within
        its bounds, the context's labels and their weights `[P]`, too."""
        kind = self._kind()
        training = self.training and torch.is_grad_enabled()
        with torch.no_grad():
            within = self.moved * self._shrinking(kind)
            if training:
                self.moved.copy_(within)
        moves = (kind > 0) & (kind < PER_EXAMPLE)
        rows = self.start + (self.moved if training else within) * moves[:, None]
        named = self.part.split(rows)
        if training:
            named[f"{self.part.site}.labels"] = torch.where(self._labels(), self.tokens, IGNORED)
            named[f"{self.part.site}.label_weights"] = self._weights().to(rows.dtype)
        return named

    @torch.no_grad()
    def fit(self, named: Named) -> float:
        """Start at these embeddings; token ids and types, where they are given, are theirs, and
        `moved` is how far the virtual tokens have moved from them already."""
        self.start.copy_(self.part.join(named))
        self.moved.zero_()
        given = {"tokens": self.tokens, "types": self.types, "moved": self.moved}
        for name, tensor in given.items():
            if f"{self.part.site}.{name}" in named:
                tensor.copy_(named[f"{self.part.site}.{name}"])
        return 0.0

    @property
    def own_answers(self) -> int:
        """How many tokens of the context's labels are predicted."""
        return int(self._labels().sum())

    def _kind(self) -> Tensor:
        """`[P]`: 1 of an input's template, 2 of its content, 3 of an answer's template, 4 of a
        label; 0 of what is neither trained nor predicted."""
        return torch.where(self.types > 0, (self.types - 1) % PER_EXAMPLE + 1, 0)

    def _labels(self) -> Tensor:
        """`[P]`: whether a token is predicted; nothing stands before the first one."""
        labels = self._kind() == PER_EXAMPLE
        labels[:1] = False
        return labels

    def _weights(self) -> Tensor:
        """`[P]`: `decay` for the last example's labels, its square for those before, and so on."""
        weights = torch.ones(self.part.length, device=self.types.device, dtype=torch.float64)
        numbers = set(self.types[self._labels()].tolist())
        for back, number in enumerate(sorted(numbers, reverse=True)):
            weights[self.types == number] = self.decay ** (back + 1)
        return weights

    def _shrinking(self, kind: Tensor) -> Tensor:
        """`[P, 1]`: what each token's `moved` is multiplied by to be within its bound."""
        scale = math.sqrt(self.part.width / UNIT)
        bounds = torch.where(kind == 2, self.epsilon * scale, self.format_epsilon * scale)
        lengths = self.moved.norm(dim=1)
        return torch.where(lengths > bounds, bounds / lengths, 1.0)[:, None].to(self.moved.dtype)
