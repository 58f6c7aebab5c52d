"""The assistant's turns as rows: read and predicted is what the tokenizer's template says."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import given as drawn
from hypothesis import strategies as st
from torch import nn
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

from conftest import tiny_model
from foreword.backbone import Backbone, Chats, Tokens, bundled_backbones
from foreword.backbone.layout import Pair
from foreword.data import Example
from foreword.data.messages import conversation_of
from foreword.errors import BackboneError, DataError
from foreword.methods import HardPrompt, InfixTuning, PrefixTuning
from foreword.methods.axes import Table
from foreword.recipe import TaskId
from foreword.tasks import BoundTask, Row, Turns, task_of
from foreword.templates.named import CHAT_TEMPLATES
from foreword.tuned.compose import compose
from talks import ENDLESS, FORGETFUL, GLUED, MARKED, OPENAI, PLAIN, example

PREFIX = PrefixTuning(name="prefix-tuning", length=3, reparameterization=Table(std=1.0))


def tokens_with(template: str | None) -> Tokens:
    tokenizer = AutoTokenizer.from_pretrained(bundled_backbones()["foreword/mini"])
    tokenizer.chat_template = template
    return Tokens(tokenizer)


def bound(template: str | None, method: Any = PREFIX, **stated: Any) -> BoundTask:
    """A task of conversations on a tiny random model in float64."""
    made = Backbone.wrap(tiny_model("gpt2", torch.float64, n_positions=1024), tokens_with(template))
    task = task_of(TaskId(input="", target="", answer="turns", messages="messages", **stated))
    return task.on(compose(made, method, task.readout(made)).double().eval())


def own_rendering(task: BoundTask, messages: list[dict[str, Any]], **options: Any) -> Any:
    """The tokenizer's own tokens, or what else it gives."""
    tokenizer = task.model.backbone.tokens.tokenizer
    return tokenizer.apply_chat_template(messages, **options)


def whole(row: Row) -> list[int]:
    return row.pair.source + row.pair.target


def mask(pair: Pair) -> list[int]:
    """1 at what is predicted, over source and target."""
    found = [0] * len(pair.source) + [1] * len(pair.target)
    for begin, end in pair.between:
        for at in range(len(pair.source) + begin, len(pair.source) + end):
            found[at] = 0
    return found


@pytest.mark.parametrize("template", [PLAIN, MARKED], ids=["prefixes", "marks"])
def test_a_row_is_the_tokenizers_own_rendering(template: str) -> None:
    task = bound(template)
    (row,) = task.rows(example(OPENAI))
    own = own_rendering(task, OPENAI)["input_ids"]
    end = len(own) - 1  # the line end behind the last end token, which is not trained
    assert whole(row) == own[:end]
    assert len(row.pair.between) == 2


def test_masks_are_those_that_transformers_finds_by_marks() -> None:
    task = bound(MARKED)
    (row,) = task.rows(example(OPENAI))
    own = own_rendering(task, OPENAI, return_dict=True, return_assistant_tokens_mask=True)
    assert mask(row.pair) == own["assistant_masks"][: len(whole(row))]
    (same,) = bound(PLAIN).rows(example(OPENAI))
    assert (same.pair.source, same.pair.target) == (row.pair.source, row.pair.target)
    assert mask(same.pair) == mask(row.pair)


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_templates_by_name(name: str) -> None:
    task = bound(None, chat_template=name)
    (row,) = task.rows(example(OPENAI))
    source = CHAT_TEMPLATES[name].source
    own = own_rendering(
        task, OPENAI, chat_template=source, return_dict=True, return_assistant_tokens_mask=True
    )
    assert whole(row) == own["input_ids"][: len(whole(row))]
    assert mask(row.pair) == own["assistant_masks"][: len(whole(row))]
    assert not any(own["assistant_masks"][len(whole(row)) :])


@pytest.mark.parametrize("template", [PLAIN, MARKED, FORGETFUL, ENDLESS, GLUED])
def test_each_turn_is_read_after_what_is_read_when_it_is_answered(template: str) -> None:
    """Alone and together: what comes before a predicted turn is what a generation begins with."""
    task = bound(template)
    read: list[tuple[list[int], list[int]]] = []
    for row in task.rows(example(OPENAI)):
        ids, predicted = whole(row), mask(row.pair)
        begins = [at for at, one in enumerate(predicted) if one and not predicted[at - 1]]
        for begin in begins:
            length = next(
                (n for n, one in enumerate(predicted[begin:]) if not one), len(ids) - begin
            )
            read.append((ids[:begin], ids[begin : begin + length]))
    assert len(read) == 3
    tokens = task.model.backbone.tokens
    for number, (before, said) in enumerate(read):
        (asked,) = task.rows(example(OPENAI[: 3 + 2 * number]), labelled=False)
        assert asked.pair.source == before
        assert said[-1] == tokens.eos_id
        assert OPENAI[2 + 2 * number]["content"].strip() in tokens.tokenizer.decode(said)


def test_turns_that_are_rendered_otherwise_later_have_rows_of_their_own() -> None:
    task = bound(FORGETFUL)
    rows = task.rows(example(OPENAI))
    assert [row.pair.between for row in rows] == [()] * 3
    text = task.model.backbone.tokens.tokenizer.decode(rows[0].pair.target)
    assert text == "<think>\n</think>\nA fish of\n\nsteel blue.<|endoftext|>"
    assert "row of its own" in task.task.notes(task.model.backbone)[0]


def test_a_template_without_an_end_token_gets_one() -> None:
    task = bound(ENDLESS)
    rows = task.rows(example(OPENAI))
    text = task.model.backbone.tokens.tokenizer.decode(rows[1].pair.target)
    assert text == " No, it is widespread. </turn>\n<|endoftext|>"
    assert "put behind each" in task.task.notes(task.model.backbone)[0]
    unended = MARKED.replace("<|endoftext|>{% endgen", "{% endgen")
    (note,) = bound(unended).task.notes(bound(unended).model.backbone)
    assert "without the end token" in note
    assert bound(PLAIN).task.notes(bound(PLAIN).model.backbone) == []


def reference_loss(task: BoundTask, pair: Pair) -> torch.Tensor:
    """Nats of each predicted token, by transformers' model alone and its labels."""
    ids = torch.tensor([pair.source + pair.target])
    labels = torch.tensor([mask(pair)]) * (ids + 1) - 1
    with torch.no_grad():
        logits = task.model.backbone.model(input_ids=ids).logits[0, :-1]
    kept = labels[0, 1:] >= 0
    return nn.functional.cross_entropy(logits[kept], labels[0, 1:][kept], reduction="none")


def test_a_rows_loss_is_that_of_its_turns_one_by_one() -> None:
    task = bound(PLAIN, HardPrompt(name="hard-prompt"))
    (together,) = task.pairs([example(OPENAI)])[0]
    alone = task.pairs([example(OPENAI[:end]) for end in (3, 5, 7)])[0]
    model = task.model
    with torch.no_grad():
        first = model(model.lay_out([together]))
        beside = model(model.lay_out([Pair([5, 6], [7]), together]))[1:]
    assert first.shape == (together.answers,)
    torch.testing.assert_close(first, reference_loss(task, together), rtol=0, atol=1e-9)
    torch.testing.assert_close(beside, first, rtol=0, atol=1e-9)
    last = []
    for pair in alone:  # only what the last stretch of each predicts
        begin = pair.between[-1][1] if pair.between else 0
        last.append(Pair(pair.source + pair.target[:begin], pair.target[begin:]))
    with torch.no_grad():
        apart = torch.cat([model(model.lay_out([pair])) for pair in last])
    torch.testing.assert_close(first, apart, rtol=0, atol=1e-9)


def test_a_prefix_stands_before_all_turns() -> None:
    task = bound(PLAIN)
    (pair,) = task.pairs([example(OPENAI)])[0]
    begin = pair.between[-1][1]
    last = Pair(pair.source + pair.target[:begin], pair.target[begin:])
    with torch.no_grad():
        together = task.model(task.model.lay_out([pair]))
        apart = task.model(task.model.lay_out([last]))
    torch.testing.assert_close(together[-len(apart) :], apart, rtol=0, atol=1e-9)


def test_virtual_tokens_between_source_and_target_are_between_those_of_every_turn() -> None:
    infix = InfixTuning(name="infix-tuning", length=3, reparameterization=Table(std=1.0))
    task = bound(PLAIN, infix)
    rows = task.rows(example(OPENAI))
    assert [row.pair.between for row in rows] == [()] * 3


def test_an_encoder_reads_what_comes_before_each_turn() -> None:
    config = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    t5 = T5ForConditionalGeneration(
        T5Config(vocab_size=8192, decoder_start_token_id=0, pad_token_id=0, **config)
    )
    backbone = Backbone.wrap(t5.eval(), tokens_with(PLAIN))
    task = task_of(TaskId(input="", target="", answer="turns", messages="messages"))
    on = task.on(compose(backbone, HardPrompt(name="hard-prompt"), task.readout(backbone)))
    rows = on.rows(example(OPENAI))
    assert [row.pair.between for row in rows] == [()] * 3
    assert rows[2].pair.source == on.rows(example(OPENAI), labelled=False)[0].pair.source


def test_turns_of_no_weight_are_read_and_not_predicted() -> None:
    silent = [{**m, "weight": 0} if i == 4 else m for i, m in enumerate(OPENAI)]
    task = bound(PLAIN)
    (row,), (all_of_it,) = task.rows(example(silent)), task.rows(example(OPENAI))
    assert whole(row) == whole(all_of_it)
    assert len(row.pair.between) == 1
    assert row.pair.answers < all_of_it.pair.answers


CALLS = [
    {"role": "user", "content": "What time is it?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"type": "function", "function": {"name": "clock", "arguments": {"in": "Rome"}}}
        ],
    },
    {"role": "tool", "content": "noon"},
    {"role": "assistant", "content": "Noon."},
]
SHOWS_CALLS = PLAIN.replace(
    "{{ m.content }}",
    "{{ m.content }}{% for c in m.tool_calls or [] %}[{{ c.function.name }} "
    "{{ c.function.arguments | tojson }}]{% endfor %}",
).replace("{% for m", "{% if tools %}{{ tools | tojson }}{% endif %}{% for m", 1)
TOOLS = [{"type": "function", "function": {"name": "clock", "parameters": {}}}]


def test_calls_of_tools_are_kept_as_text_or_as_the_template_shows_them() -> None:
    plain, shown = bound(PLAIN), bound(SHOWS_CALLS, tools="tools")
    (row,) = plain.rows(example(CALLS))
    text = plain.model.backbone.tokens.tokenizer.decode(whole(row))
    call = json.dumps(CALLS[1]["tool_calls"][0]["function"])
    assert f"<assistant>\n<tool_call>\n{call}\n</tool_call><|endoftext|>" in text
    (row,) = shown.rows(example(CALLS))
    assert whole(row) == own_rendering(shown, CALLS)["input_ids"][: len(whole(row))]
    given = Example(
        {},
        where="x",
        conversation=conversation_of("x", "m", {"m": CALLS, "tools": TOOLS}, tools="tools"),
    )
    (row,) = shown.rows(given)
    own = own_rendering(shown, CALLS, tools=TOOLS)["input_ids"]
    assert whole(row) == own[: len(whole(row))]
    with pytest.raises(BackboneError, match=r"x: task\.data\.tools: .* shows no tools"):
        plain.rows(given)


def long_talk(lengths: list[int], system: bool) -> list[dict[str, Any]]:
    """An exchange for each length, of about so many tokens."""
    talk = [{"role": "system", "content": "Be brief."}] if system else []
    for number, length in enumerate(lengths):
        talk.append({"role": "user", "content": f"Question {number}" + " and so" * length})
        talk.append({"role": "assistant", "content": f"Answer {number}" + " it is" * length})
    return talk


@drawn(
    st.lists(st.integers(0, 12), min_size=1, max_size=9),
    st.booleans(),
    st.sampled_from([PLAIN, MARKED, FORGETFUL, ENDLESS]),
    st.integers(150, 280),
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_windows_of_turns(
    tasks: dict[str, BoundTask], lengths: list[int], system: bool, template: str, most: int
) -> None:
    """Whatever the lengths: each turn is predicted once, every row fits and is a rendering of whole
    exchanges behind the system's message."""
    task = tasks[template]
    task = Turns("messages", max_tokens=most).on(task.model)
    talk = long_talk(lengths, system)
    tokenizer = task.model.backbone.tokens.tokenizer
    rows = task.rows(example(talk))
    said = [m["content"] for m in talk if m["role"] == "assistant"]
    predicted = []
    for row in rows:
        assert len(whole(row)) <= most
        text = tokenizer.decode(whole(row))
        assert text.startswith("<system>\nBe brief." if system else "<user>")
        at = [n for n in range(len(lengths)) if f"Question {n}" in text]
        assert at == list(range(at[0], at[-1] + 1))
        pair = row.pair
        for begin, end in zip(
            [0, *(end for _, end in pair.between)],
            [*(begin for begin, _ in pair.between), len(pair.target)],
            strict=True,
        ):
            turn = tokenizer.decode(pair.target[begin:end], skip_special_tokens=True)
            turn = turn.replace("<think>\n</think>\n", "").replace("</turn>\n", "")
            predicted.append(turn)
    assert sorted(predicted) == sorted(said)
    whole_talk = Turns("messages").on(task.model).rows(example(talk))
    if all(len(whole(row)) <= most for row in whole_talk):
        assert [row.pair for row in rows] == [row.pair for row in whole_talk]


@pytest.fixture(scope="module")
def tasks() -> dict[str, BoundTask]:
    return {template: bound(template) for template in (PLAIN, MARKED, FORGETFUL, ENDLESS)}


def test_windows_share_what_fits_into_half_of_one(tasks: dict[str, BoundTask]) -> None:
    talk = long_talk([4] * 8, system=True)
    made = Turns("messages", max_tokens=120).on(tasks[PLAIN].model)
    tokenizer = made.model.backbone.tokens.tokenizer
    texts = [tokenizer.decode(whole(row)) for row in made.rows(example(talk))]
    asked = [[n for n in range(8) if f"Question {n}" in text] for text in texts]
    answered = [len(row.pair.between) + 1 for row in made.rows(example(talk))]
    for before, after in pairwise(asked):
        shared = [n for n in after if n in before]
        kept = example(talk[:1] + talk[1 + 2 * shared[0] : 1 + 2 * shared[-1] + 2])
        assert kept.conversation is not None
        text = Chats(made.model.backbone.tokens).whole(
            [{"role": t.role, "content": t.content} for t in kept.conversation.turns]
        )
        assert len(made.model.backbone.tokens.plain(text)) <= 60
    assert sum(answered) == 8
    assert len(asked) > 2


def test_what_is_answered_keeps_the_latest_exchanges(tasks: dict[str, BoundTask]) -> None:
    talk = long_talk([4] * 8, system=True)[:-1]
    made = Turns("messages", max_tokens=120).on(tasks[PLAIN].model)
    (row,) = made.rows(example(talk, answered=False), labelled=False, reserve=10)
    assert row.cut > 0
    assert len(row.pair.source) <= 120
    first = next(n for n in range(8) if f"Question {n}" in row.text)
    rest = talk[1 + 2 * first :]
    assert row.text == Chats(made.model.backbone.tokens).begun([talk[0], *rest])
    more = Chats(made.model.backbone.tokens).begun([talk[0], *talk[2 * first - 1 :]])
    assert len(made.model.backbone.tokens.plain(more)) > 120
    (free,) = tasks[PLAIN].rows(example(talk, answered=False), labelled=False, reserve=10)
    assert free.cut == 0
    assert len(free.pair.source) == len(row.pair.source) + row.cut


def test_an_exchange_that_is_too_long(tasks: dict[str, BoundTask]) -> None:
    talk = long_talk([2, 60, 2], system=True)
    talk[4]["content"] = "Answer 1"
    whole_model = tasks[PLAIN].model
    refused = Turns("messages", max_tokens=100).on(whole_model)
    message = r"talk: the exchange that begins with 'Question 1 .*truncate: messages"
    with pytest.raises(DataError, match=message):
        refused.rows(example(talk))
    with pytest.raises(DataError, match=message):
        refused.rows(example(talk[:4], answered=False), labelled=False, reserve=10)
    cutting = Turns("messages", cuts=True, max_tokens=100).on(whole_model)
    rows = cutting.rows(example(talk))
    assert [row.cut > 0 for row in rows].count(True) == 1
    assert max(len(whole(row)) for row in rows) <= 100
    decode = whole_model.backbone.tokens.tokenizer.decode
    assert "".join(decode(row.pair.predicted) for row in rows).count("Answer 1<") == 1
    (row,) = cutting.rows(example(talk[:4], answered=False), labelled=False, reserve=10)
    assert row.cut > 0
    assert len(row.pair.source) <= 100
    talk[4]["content"] = "Answer" + " it is" * 100
    with pytest.raises(DataError, match="more than may be cut of it; shorten the assistant's"):
        cutting.rows(example(talk))


def test_a_role_that_the_template_refuses_is_named_by_line() -> None:
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    with pytest.raises(BackboneError, match=r"talk: .*refuses these messages: no system"):
        bound(strict + PLAIN).rows(example(OPENAI))
    with pytest.raises(BackboneError, match=r"talk: .*no chat template; name one in task\.chat_te"):
        bound(None).rows(example(OPENAI))
