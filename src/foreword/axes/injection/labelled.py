"""Input embeddings that stand for a text with labels, which it is trained to predict, too."""

from __future__ import annotations

from torch import nn

from foreword.axes.injection.embeddings import Embeddings
from foreword.axes.parts import Named
from foreword.backbone import Prompt


class LabelledEmbeddings(Embeddings):
    """A decoder's, of which some are those of labels (Blau et al. 2024, CPT).

    Beside the embeddings there may be `decoder.labels` `[P]`, the token that each virtual token is
    the embedding of where the tokens before it should predict it, negative elsewhere, and
    `decoder.label_weights` `[P]`.
    """

    def prompt(self, named: Named) -> Prompt:
        """Keys and values; with labels, the loss of each of them, of the same forward pass."""
        if "decoder.labels" not in named:
            return super().prompt(named)
        labels, weights = named["decoder.labels"], named["decoder.label_weights"]
        at = (labels >= 0).nonzero().squeeze(1)
        rows, logits = self.backbone.read_with_logits(named["decoder.embeddings"], at - 1)
        prompt = Prompt({"decoder": rows})
        exact = logits.float() if logits.element_size() < 4 else logits
        losses = nn.functional.cross_entropy(exact, labels[at], reduction="none")
        prompt.own_loss = losses * weights[at]
        return prompt
