"""Conversations as SmolLM2's own tokenizer renders them, in both formats.

It needs `models/smollm2-135m-instruct` (the hub's HuggingFaceTB/SmolLM2-135M-Instruct; its
tokenizer is enough) below the checkout, where the recipes look for it, or in the shared folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from conftest import SHARED, tiny_model
from foreword.backbone import Backbone, Chats, Tokens
from foreword.data.messages import conversation_of
from foreword.methods import PrefixTuning
from foreword.methods.axes import Table
from foreword.recipe import TaskId
from foreword.tasks import BoundTask, task_of
from foreword.tuned.compose import compose
from talks import OPENAI, SHAREGPT, example

NAME = "models/smollm2-135m-instruct"
PLACES = (Path(__file__).resolve().parents[2] / NAME, SHARED / NAME)
FORMATS = pytest.mark.parametrize("talk", [OPENAI, SHAREGPT], ids=["openai", "sharegpt"])


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    for folder in PLACES:
        if (folder / "tokenizer.json").exists():
            return AutoTokenizer.from_pretrained(folder)
    pytest.skip(f"needs SmolLM2's tokenizer in {NAME}, which is not here")


@pytest.fixture(scope="module")
def task(tokenizer: PreTrainedTokenizerBase) -> BoundTask:
    """A tiny random model of its vocabulary."""
    model = tiny_model("gpt2", vocab_size=len(tokenizer), n_positions=512)
    backbone = Backbone.wrap(model, Tokens(tokenizer))
    stated = task_of(TaskId(input="", target="", answer="turns", messages="messages"))
    method = PrefixTuning(name="prefix-tuning", length=3, reparameterization=Table(std=1.0))
    return stated.on(compose(backbone, method, stated.readout(backbone)).eval())


@FORMATS
@pytest.mark.parametrize("first", [0, 1], ids=["a system's message", "its own system's message"])
def test_a_text_is_its_own_character_by_character(
    talk: list[dict[str, Any]], first: int, tokenizer: PreTrainedTokenizerBase
) -> None:
    chats, own = Chats(Tokens(tokenizer)), tokenizer.apply_chat_template
    turns = conversation_of("talk", "messages", {"messages": talk[first:]}).turns
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    assert messages == OPENAI[first:]
    expected = own(OPENAI[first:], tokenize=False)
    assert chats.whole(messages) == expected
    assert expected.startswith("<|im_start|>system\n")
    for end in range(2 - first, len(messages), 2):
        begun = own(OPENAI[first : first + end], tokenize=False, add_generation_prompt=True)
        assert chats.begun(messages[:end]) == begun
        spoken = chats.spoken(messages[: end + 1])
        assert spoken.before == begun
        assert spoken.turn == messages[end]["content"] + "<|im_end|>"
        assert expected.startswith(spoken.text)


@FORMATS
def test_a_row_is_its_own_and_the_turns_are_trained(
    talk: list[dict[str, Any]], task: BoundTask, tokenizer: PreTrainedTokenizerBase
) -> None:
    (row,) = task.rows(example(talk))
    own = tokenizer.apply_chat_template(OPENAI, tokenize=False).removesuffix("\n")
    assert tokenizer.decode(row.pair.source + row.pair.target) == own
    trained, at = [], 0
    for begin, end in [*row.pair.between, (len(row.pair.target), 0)]:
        trained.append(tokenizer.decode(row.pair.target[at:begin]))
        at = end
    assert trained == [m["content"] + "<|im_end|>" for m in OPENAI if m["role"] == "assistant"]
