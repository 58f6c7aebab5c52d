"""A prompt must do to a model what the same text in front does."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from foreword.backbone import devices, geometry
from foreword.backbone.call import Call
from foreword.backbone.layout import Layout
from foreword.backbone.prompts.key_values import PromptKeyValues, Sides
from foreword.backbone.prompts.prompt import Prompt
from foreword.common.sites import Site

KeysAndValues = Mapping[Site, tuple[Sides, Sides]]


def check_with_a_text(
    model: PreTrainedModel,
    keys_values: Callable[[list[int]], KeysAndValues],
    logits: Callable[[Call], Tensor],
    *,
    rounded: bool,
) -> str | None:
    """Compare the logits after four tokens with those after the keys and values of the first two.

    Args:
        model: a decoder.
        keys_values: the model's own keys and values for a text, by site.
        logits: `[rows, positions, vocabulary]` of a call.
        rounded: whether the weights are quantised, and so less is equal.

    Returns:
        How they differ, or by what a forward pass with them fails; None where all is well.
    """
    ids, device = [1, 2, 3, 4], devices.entry(model)
    try:
        with torch.no_grad():
            keys, values = keys_values(ids[:2])["decoder"]
            expected = logits(Call(Layout.of([ids]).to(device)))[:, 2:]
            rest = Layout.of([ids[2:]], virtual=2).to(device)
            prompt = Prompt({"decoder": PromptKeyValues(keys, values)})
            after_prompt = logits(Call(rest, prompt))
    except geometry.FAILURES as error:
        return (
            "with a text's keys and values in front of it, a forward pass of the model fails "
            f"({geometry.first_line(error)})"
        )
    gap = geometry.gap(after_prompt, expected, rounded=rounded)
    return gap and f"the logits after a text, and after its keys, differ by {gap}"
