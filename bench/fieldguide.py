"""The batch that a step is timed on: the first rows of the bundled task."""

from __future__ import annotations

from foreword import read_examples
from foreword.backbone import Backbone
from foreword.backbone.layout import Layout
from foreword.methods import PrefixTuning
from foreword.tasks.text import Templates
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose

ROWS = 8


def prefix_and_batch(backbone: Backbone) -> tuple[TunedModel, Layout]:
    """A fresh prefix with the method's own settings, and `ROWS` records with their sentences."""
    model: TunedModel = compose(backbone, PrefixTuning(name="prefix-tuning"))
    examples = read_examples("foreword/fieldguide/train", "jsonl")[:ROWS]
    task = Templates.of("{record}\n")
    pairs = [task.pair(backbone.tokens, e, e.references[0], model.room) for e in examples]
    return model, model.arrange([pair[0] for pair in pairs], [pair[1] for pair in pairs])
