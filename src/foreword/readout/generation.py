"""The answer is text that the backbone writes."""

from __future__ import annotations

from torch import Tensor, nn

from foreword.backbone import Backbone, Decoding, Prompt
from foreword.layout import Layout
from foreword.readout.base import Readout


class Generation(Readout):
    """Trained on the log-likelihood of the target tokens, read by decoding."""

    def loss(self, backbone: Backbone, layout: Layout, prompt: Prompt | None) -> Tensor:
        """Negative log-likelihood, in nats, of each target token: `[N]`."""
        logits = backbone.logits(layout, prompt, layout.reading_positions())
        return nn.functional.cross_entropy(
            logits.float() if logits.element_size() < 4 else logits,
            layout.target_ids(),
            reduction="none",
        )

    def answers(
        self, backbone: Backbone, layout: Layout, prompt: Prompt | None, how: Decoding
    ) -> list[str]:
        """The text after each row, cut at the first stop word and stripped."""
        texts = [backbone.tokens.text(ids) for ids in backbone.generate(layout, prompt, how)]
        return [_until(text, how.stop).strip() for text in texts]


def _until(text: str, stops: tuple[str, ...]) -> str:
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text
