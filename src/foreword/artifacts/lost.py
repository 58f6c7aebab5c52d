"""What a prompt loses where it is put together with others, as figures on texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from foreword.errors import DataError, UserError
from foreword.tuned import TunedModel


@dataclass(frozen=True)
class Lost:
    """What is predicted of texts behind a prompt alone, behind all together, and behind none.

    Attributes:
        prompt: its name.
        tokens: how many predictions the figures are means over.
        truncated: texts that were cut to fit the backbone's context.
        divergence: Kullback-Leibler divergence in nats per token, from the prompt alone to all
            together; 0 is nothing lost.
        divergence_bare: the same to the backbone without any prompt: all of it lost.
        alone, together, bare: log-likelihood of the texts in nats per token.
    """

    prompt: str
    tokens: int
    truncated: int
    divergence: float
    divergence_bare: float
    alone: float
    together: float
    bare: float

    @property
    def share(self) -> float | None:
        """How much of what the prompt changes is lost; None where it changes nothing."""
        return self.divergence / self.divergence_bare if self.divergence_bare > 0 else None

    def figures(self) -> dict[str, Any]:
        """All of it, by name."""
        return {**asdict(self), "share": self.share}


@torch.no_grad()
def lost(name: str, alone: TunedModel, together: TunedModel, texts: Sequence[str]) -> Lost:
    """Measure one prompt.

    Args:
        name: the prompt's.
        alone: the backbone with it.
        together: the backbone with the composition.
        texts: what is predicted, token by token; the first token of each is given.

    Raises:
        UserError: there are no texts, or the backbone writes nothing.
        DataError: a text has fewer than two tokens.
    """
    backbone = alone.backbone
    if not texts:
        raise UserError("texts: expected at least one to measure on, found none")
    if backbone.geometry.kind != "decoder":
        raise UserError(
            f"texts: '{backbone.name}' is an {backbone.geometry.kind}, and what is lost is "
            "measured on a decoder's predictions of a text"
        )
    models = (alone, together, alone.bare())
    rooms = [room for model in models if (room := model.room(0)) is not None]
    sums, tokens, truncated = torch.zeros(5, dtype=torch.float64), 0, 0
    for number, text in enumerate(texts, 1):
        ids = backbone.tokens.source(text)
        if rooms and len(ids) > min(rooms):
            ids, truncated = ids[: min(rooms)], truncated + 1
        if len(ids) < 2:
            raise DataError(
                f"text {number}: {text[:60]!r} has {len(ids)} tokens; at least two are needed, to "
                "predict one from the other"
            )
        next_ids = torch.tensor(ids[1:])
        logs = [_logs(model, ids) for model in models]
        own = logs[0].exp()
        sums += torch.tensor(
            [
                *((own * (logs[0] - other)).sum().item() for other in logs[1:]),
                *(log.gather(1, next_ids[:, None]).sum().item() for log in logs),
            ],
            dtype=torch.float64,
        )
        tokens += len(next_ids)
    means = (sums / tokens).tolist()
    return Lost(name, tokens, truncated, *means)


def _logs(model: TunedModel, ids: list[int]) -> Tensor:
    """Log-probabilities after each token but the last: `[tokens - 1, vocabulary]`, on the CPU."""
    logits = model.backbone.logits(model.call(model.arrange([ids])))[0, :-1]
    return logits.double().log_softmax(-1).cpu()
