"""How much fits into memory: positions of rows that are written, and prompts."""

from __future__ import annotations

import torch

from foreword.axes.placement import Infix
from foreword.axes.readout import Generation
from foreword.backbone import Backbone, packed_bytes, shares
from foreword.backbone.memory import bytes_of_position
from foreword.common.memory import of_machine
from foreword.tuned import TunedModel

SHARE = 0.25
"""Of the memory that there is, what rows that are written may take; and weights laid out again."""


def positions_in_memory(backbone: Backbone, longest: int, rows: int) -> int:
    """How many positions fit into a share of the memory: at least those of one row of the longest,
    and no more than as many rows of it can use."""
    fit = int(SHARE * _memory(backbone.device)) // max(1, bytes_of_position(backbone))
    return max(longest, min(rows * longest, fit))


def packs(backbone: Backbone) -> bool:
    """Whether there is a second layout of the weights that makes steps faster, and room for it."""
    return 0 < packed_bytes(backbone) <= SHARE * _memory(backbone.device)


def _memory(device: torch.device) -> int:
    """Bytes of memory where a model runs: what is free of a GPU's, else the machine's or this
    container's."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    return of_machine().whole


def bytes_of_prompt(model: TunedModel) -> int:
    """What a loaded prompt takes: its tensors, those that were made of them (for rows that share
    many virtual tokens, too), and its head."""
    tensors = [*model.reparam().values(), *model.readout.parameters()]
    prompt = model.prompt()
    writes = isinstance(model.readout, Generation) and not isinstance(model.placement, Infix)
    if prompt is not None:
        if prompt.embeddings is not None:
            tensors.append(prompt.embeddings)
        for tokens in prompt.sites.values():
            for member in tokens.prompts:
                tensors += [*member.keys, *member.values]
                if writes and shares(model.backbone, member):
                    apart = member.shared(model.backbone.model.dtype)
                    tensors += [*apart.keys, *apart.values]
    by_place = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}
    return sum(by_place.values())
