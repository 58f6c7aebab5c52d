"""How far a model is from a teacher, of which the k likeliest tokens are known.

With p the teacher's distribution over the vocabulary V, q the model's and K the teacher's k
likeliest tokens, the tokens outside of K count as one:

    KL = sum over t in K of p(t) log(p(t) / q(t)) + p(V - K) log(p(V - K) / q(V - K))

This is a lower bound of the whole divergence (the log sum inequality), and the whole of it where K
is V. The authors' code of Eyuboglu et al. 2025 ("Cartridges") keeps k = 20 and trains on the first
sum alone; the second keeps the model from giving to other tokens what the teacher does not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from foreword.backbone.layout import Taught


def likeliest(logits: Tensor, k: int) -> Taught:
    """What a teacher says, from its logits `[N, vocabulary]`; of all tokens where there are no more
    than k."""
    logs = _wide(logits).log_softmax(-1)
    best = logs.topk(min(k, logs.shape[-1]), -1)
    return Taught(best.indices, best.values, _others(logs, best.indices))


def divergence(taught: Taught, logits: Tensor) -> Tensor:
    """The Kullback-Leibler divergence of a model from a teacher, in nats: `[N]`.

    Args:
        taught: what the teacher says.
        logits: the model's, `[N, vocabulary]`.
    """
    logs = _wide(logits).log_softmax(-1)
    tokens = taught.tokens.long()
    known = taught.logs.to(logs.dtype)
    here = known.exp()
    total = (here * (known - logs.gather(-1, tokens))).sum(-1)
    if tokens.shape[-1] == logs.shape[-1]:
        return total
    rest = taught.rest.to(logs.dtype)
    mass = rest.exp()
    others = mass * (rest.masked_fill(mass == 0, 0.0) - _others(logs, tokens))
    return total + others


def _others(logs: Tensor, tokens: Tensor) -> Tensor:
    """The logarithm of what all other tokens have together; -inf where there are none."""
    return logs.scatter(-1, tokens, float("-inf")).logsumexp(-1)


def _wide(logits: Tensor) -> Tensor:
    return logits.float() if logits.element_size() < torch.float32.itemsize else logits
