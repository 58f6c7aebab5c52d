"""Masked words of unlabelled inputs, predicted beside the labels (Schick & Schütze 2021, 3.2).

It keeps a tuned model a language model: with few labelled examples it forgets how to be one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foreword.axes.readout import Verbalizer
from foreword.backbone import Call, Prompt
from foreword.backbone.layout import Pair
from foreword.tuned import TunedModel

IGNORED = -100


@dataclass(frozen=True)
class MaskedWords:
    """The loss on masked tokens of rows drawn at random (Devlin et al. 2019, section 3.1).

    Of 15 % of the tokens 80 % are masked, 10 % replaced by others and 10 % left. Draws come from
    torch's random state, which checkpoints hold.

    Attributes:
        model: predicts.
        pairs: rows, their label masks in place; marked tokens are never drawn.
        rows: drawn for each step.
        share: of tokens that are predicted.
    """

    model: TunedModel
    pairs: Sequence[Pair]
    rows: int
    share: float = 0.15

    def __call__(self, prompt: Prompt | None) -> Tensor:
        """Mean negative log-likelihood in nats of the predicted tokens; 0 where none is drawn."""
        backbone = self.model.backbone
        drawn = torch.randint(len(self.pairs), (self.rows,)).tolist()
        layout = self.model.lay_out([self.pairs[i] for i in drawn])
        ids, mask = layout.input_ids.cpu(), layout.attention_mask.cpu()
        special = torch.tensor(backbone.tokens.tokenizer.all_special_ids)
        words = mask & ~torch.isin(ids, special) & (ids < backbone.geometry.vocabulary)
        chosen = words & (torch.rand(ids.shape) < self.share)
        kind = torch.rand(ids.shape)
        others = torch.randint(backbone.geometry.vocabulary, ids.shape)
        hidden = torch.where(chosen & (kind < 0.9), others, ids)
        hidden = hidden.masked_fill(chosen & (kind < 0.8), backbone.tokens.mask_id or 0)
        layout.input_ids.copy_(hidden)
        where = chosen.flatten().nonzero().squeeze(1).to(layout.input_ids.device)
        if not where.numel():
            return torch.zeros((), device=layout.input_ids.device)
        logits = backbone.logits(Call(layout, prompt), where)
        right = ids.flatten().to(where.device)[where]
        return nn.functional.cross_entropy(logits.float(), right)


@contextmanager
def masked_words(
    model: TunedModel, pairs: Sequence[Pair], *, weight: float, rows: int
) -> Iterator[None]:
    """While it lasts, a model with label words learns masked words of these rows, too.

    Args:
        model: reads label words at masks.
        pairs: rows, their label masks in place.
        weight: of this loss; that on labels has the rest of 1.
        rows: drawn for each step.
    """
    readout = model.readout
    assert isinstance(readout, Verbalizer)
    readout.beside, readout.beside_weight = MaskedWords(model, pairs, rows), weight
    try:
        yield
    finally:
        readout.beside = None
