"""A text's keys and values cut down to those that are attended to most: what needs no training.

Of every layer and head the P positions of the text are kept whose keys get the largest share of
attention, summed over the answers of some rows (Zhang et al. 2023, "H2O", section 4, keep what was
attended to most; here the rows that attend are questions and answers about the text, as the
observation window of Li et al. 2024, "SnapKV", section 4). Keys keep the positions that they had,
and rows stand where they stood behind the whole text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from foreword.backbone import Call, Prompt, PromptKeyValues
from foreword.backbone.layout import Pair
from foreword.backbone.prompts.prompt import Place
from foreword.errors import UserError
from foreword.procedures.distilling.teacher import Teacher


class _Weighing(Prompt):
    """A prompt that adds up how much attention each of its positions gets: by layer
    `[kv_heads, P]`."""

    def __init__(self, whole: PromptKeyValues, mass: dict[int, Tensor]) -> None:
        super().__init__({"decoder": whole})
        self.mass = mass

    def enter(
        self,
        place: Place,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Any,
        bias: Tensor | None,
        given: Mapping[str, Any],
    ) -> tuple[Tensor, Tensor, Any, Tensor | None]:
        """As every prompt; what each query of the one row attends to is added up."""
        entered = super().enter(place, query, key, value, mask, bias, given)
        keys = entered[0]
        length = keys.shape[2] - key.shape[2]
        groups, queries = query.shape[1] // keys.shape[1], query.shape[2]
        scaling = given.get("scaling") or query.shape[-1] ** -0.5
        scores = query @ keys.repeat_interleave(groups, 1).transpose(2, 3) * scaling
        later = torch.ones(queries, key.shape[2], dtype=torch.bool, device=query.device).triu(1)
        scores[..., length:].masked_fill_(later, float("-inf"))
        shares = scores.float().softmax(-1)[..., :length].sum(2)
        mass = shares[0].unflatten(0, (keys.shape[1], groups)).sum(1)
        self.mass[place.layer] = self.mass[place.layer] + mass if place.layer in self.mass else mass
        return entered


@torch.no_grad()
def evicted(teacher: Teacher, pairs: Sequence[Pair], length: int) -> PromptKeyValues:
    """The keys and values of a teacher's text at the positions that get most attention.

    Args:
        teacher: has read the text.
        pairs: rows behind it that attend to it.
        length: how many positions of each layer and head are kept; all where the text has fewer.

    Raises:
        UserError: the backbone's attention cannot be looked at.
    """
    backbone = teacher.backbone
    if backbone.geometry.through != "interface":
        raise UserError(f"teacher: the attention of '{backbone.name}' cannot be looked at")
    whole = teacher_keys_values(teacher)
    mass: dict[int, Tensor] = {}
    for pair in pairs:
        layout = teacher.model.lay_out([pair])
        backbone.hidden(Call(layout, _Weighing(whole, mass)))
    keys: list[Tensor] = []
    values: list[Tensor] = []
    for at, layer in enumerate(whole.layers):
        kept = mass[layer].topk(min(length, whole.length), -1).indices.sort(-1).values
        index = kept.T[:, :, None]
        for side, out in ((whole.keys[at], keys), (whole.values[at], values)):
            out.append(side.gather(0, index.to(side.device).expand(-1, -1, side.shape[2])))
    return PromptKeyValues(tuple(keys), tuple(values), whole.layers)


def teacher_keys_values(teacher: Teacher) -> PromptKeyValues:
    """The keys and values of a teacher's text."""
    prompt = teacher.model.prompt()
    assert prompt is not None, "a teacher has a prompt"
    whole = prompt.sites["decoder"]
    assert isinstance(whole, PromptKeyValues), "all rows of a teacher share one prompt"
    return whole
