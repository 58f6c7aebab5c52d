"""Keys and values that are kept by attention, beside attention counted by hand."""

from __future__ import annotations

import pytest
import torch

from conftest import make_backbone, random_ids
from foreword.backbone import Call, Prompt
from foreword.backbone.layout import Pair
from foreword.procedures.distilling.eviction import evicted, teacher_keys_values
from foreword.procedures.distilling.teacher import Teacher
from foreword.tasks.turns import Turns

TASK = Turns("messages", chat_template="plain")
PAIRS = [Pair(s, t) for s, t in zip(random_ids([4, 7]), random_ids([3, 2], seed=1), strict=True)]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_all_positions_are_the_whole_text(family: str) -> None:
    teacher = Teacher(
        make_backbone(family, torch.float64), TASK, tuple(random_ids([11], seed=2)[0])
    )
    kept = evicted(teacher, PAIRS, 20)
    assert kept.length == 11
    layout = teacher.model.lay_out(PAIRS)
    at = layout.reading_positions()
    ours = teacher.backbone.logits(Call(layout, Prompt({"decoder": kept})), at)
    whole = teacher.backbone.logits(teacher.model.call(layout), at)
    torch.testing.assert_close(ours, whole, rtol=0, atol=1e-9)


def test_the_positions_with_most_attention_are_kept() -> None:
    """Against the attention that transformers' own eager code returns."""
    front = random_ids([11], seed=2)[0]
    backbone = make_backbone("llama", torch.float64)
    teacher = Teacher(backbone, TASK, tuple(front))
    kept, whole = evicted(teacher, PAIRS, 3), teacher_keys_values(teacher)
    from transformers import AutoModelForCausalLM

    eager = AutoModelForCausalLM.from_config(
        backbone.model.config, attn_implementation="eager"
    ).double()
    eager.load_state_dict(backbone.model.state_dict())
    eager.eval()
    layers = len(whole.keys)
    mass = [torch.zeros(2, len(front), dtype=torch.float64) for _ in range(layers)]
    for pair in PAIRS:
        ids = torch.tensor([[*front, *pair.source, *pair.target]])
        seen = eager(ids, output_attentions=True).attentions
        for layer in range(layers):
            own = seen[layer][0, :, len(front) :, : len(front)].sum(1)
            mass[layer] += own.detach().unflatten(0, (2, 2)).sum(1)
    for layer in range(layers):
        for head in range(2):
            best = sorted(mass[layer][head].topk(3).indices.tolist())
            expected = whole.keys[layer][best, head]
            torch.testing.assert_close(kept.keys[layer][:, head], expected, rtol=0, atol=1e-12)
            expected = whole.values[layer][best, head]
            torch.testing.assert_close(kept.values[layer][:, head], expected, rtol=0, atol=1e-12)
