"""Eight threads ask four prompts on one backbone odd things: each is told what it is told alone.

No call leaves anything on the backbone, nor does one that is refused.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from odd import HALVES, TEXTS, odd_value

from foreword.artifacts.artifact import save_artifact
from foreword.axes.readout import SequenceHead
from foreword.backbone import Backbone
from foreword.errors import UserError
from foreword.methods import MethodChoice, PrefixTuning, PromptTuning, PTuningV2
from foreword.recipe import TaskId
from foreword.session import LoadedPrompt, load
from foreword.tuned.compose import compose

THREADS, CALLS = 8, 48
WRITES = TaskId(input="{text}", target="{reference}")
TELLS = TaskId(input="{text}", target="{reference}", answer="label", labels=("a", "b"))
PROMPTS: dict[str, tuple[MethodChoice, TaskId]] = {
    "prefix": (PrefixTuning(name="prefix-tuning", length=3), WRITES),
    "soft": (PromptTuning(name="prompt-tuning", length=3), WRITES),
    "soft too": (PromptTuning(name="prompt-tuning", length=3), WRITES),
    "head": (PTuningV2(name="p-tuning-v2", length=3), TELLS),
}


@pytest.fixture(scope="module")
def prompts(
    tiny_backbone: Callable[..., Backbone], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, LoadedPrompt]:
    backbone, loaded = tiny_backbone("llama"), {}
    for name, (method, task) in PROMPTS.items():
        head = SequenceHead(backbone.hidden_width, 2) if task.answer == "label" else None
        folder = tmp_path_factory.mktemp("threads") / name
        save_artifact(folder, compose(backbone, method, head), name=name, method=method, task=task)
        loaded[name] = load(folder, backbone=backbone)
    return loaded


def ask(prompt: LoadedPrompt, given: Any, rows: int) -> str:
    """What is told of a call, or why it is refused."""
    try:
        if prompt.manifest.task.answer == "label":
            told = prompt.predict(given, batch_size=rows)
            return repr([(one.answer, round(one.probability, 4)) for one in told])
        return repr(prompt.generate(given, batch_size=rows, max_new_tokens=4))
    except UserError as error:
        return f"refused: {error}"


def drawn(rng: random.Random) -> Any:
    """A call's inputs: some texts of some lengths, sometimes odd ones."""
    inputs = [rng.choice(("the fox is", "red", "an otter " * 9)) for _ in range(rng.randint(1, 4))]
    kind = rng.randrange(5)
    if kind == 0:
        return [*inputs, rng.choice((*TEXTS, *HALVES))]
    if kind == 1:
        return [*inputs, {"text": odd_value(rng)}]
    return odd_value(rng) if kind == 2 else inputs


@pytest.mark.parametrize("seed", range(3))
def test_threads_are_told_what_they_are_told_alone(
    seed: int, prompts: dict[str, LoadedPrompt]
) -> None:
    rng = random.Random(seed)
    calls = [
        (prompts[rng.choice(list(prompts))], drawn(rng), rng.choice((1, 2, 3, 0)))
        for _ in range(CALLS)
    ]
    model = next(iter(prompts.values())).model.backbone.model
    alone = [ask(*call) for call in calls]
    before = state(model)
    assert any(told.startswith("refused") for told in alone)
    assert any(not told.startswith("refused") for told in alone)
    with ThreadPoolExecutor(THREADS) as pool:
        together = list(pool.map(lambda call: ask(*call), calls))
    assert together == alone
    assert state(model) == before


def state(model: Any) -> list[tuple[str, int, int]]:
    """The modules of a model, and how many hooks are on each."""
    return [
        (name, id(module), len(module._forward_hooks) + len(module._forward_pre_hooks))
        for name, module in model.named_modules()
    ]
