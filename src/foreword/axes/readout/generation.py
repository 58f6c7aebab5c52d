"""The answer is text that the backbone writes."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from foreword.axes.readout.base import Readout
from foreword.axes.readout.divergence import divergence
from foreword.backbone import Backbone, Call, Decoding, Tokens, generate


class Generation(Readout):
    """Trained on the log-likelihood of the target tokens, or on what a teacher says at them; read
    by decoding."""

    kind: ClassVar[str] = "generation"
    continues: ClassVar[bool] = True

    def loss(self, backbone: Backbone, call: Call) -> Tensor:
        """Negative log-likelihood, in nats, of each target token; where a teacher says what comes
        there, the divergence from it: `[N]`."""
        layout = call.layout
        logits = backbone.logits(call, layout.reading_positions())
        if layout.taught is not None:
            return divergence(layout.taught, logits)
        return nn.functional.cross_entropy(
            logits.float() if logits.element_size() < 4 else logits,
            layout.target_ids(),
            reduction="none",
        )

    def answers(self, backbone: Backbone, call: Call, how: Decoding) -> list[str]:
        """The text after each row of a left-padded call."""
        new = generate(backbone, call, how)
        return [self.text(backbone.tokens, ids, how.stop) for ids in new]

    def text(self, tokens: Tokens, ids: list[int], stops: tuple[str, ...]) -> str:
        """An answer's text, cut at the first stop word and stripped."""
        text = tokens.text(ids)
        ends = [at for stop in stops if (at := text.find(stop)) >= 0]
        return (text[: min(ends)] if ends else text).strip()
