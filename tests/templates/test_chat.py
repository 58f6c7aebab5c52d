"""Messages as input: rendered by the chat template, and only the assistant's turn is trained."""

from pathlib import Path
from typing import Any

import pytest

import foreword
from foreword.backbone import Backbone, Chats, Tokens, load_backbone
from foreword.data import Example
from foreword.errors import BackboneError, RecipeError, TemplateError
from foreword.recipe import parse_recipe
from foreword.tasks.text import Templates

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}<|endoftext|>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
MESSAGES = [
    {"role": "system", "content": "Say the record."},
    {"role": "user", "content": "{record}"},
]
EXAMPLE = Example({"record": {"name": "Ivy", "type": "bird"}}, ("Ivy is a bird.",))


@pytest.fixture
def chatty() -> Backbone:
    """The bundled backbone with a chat template whose turns end in the end token."""
    backbone = load_backbone("foreword/mini")
    backbone.tokens.tokenizer.chat_template = TEMPLATE
    return backbone


def turn(tokens: Tokens, asked: str, said: str) -> list[int]:
    """The tokens of an answer to a question."""
    chats = Chats(tokens)
    question, answer = {"role": "user", "content": asked}, {"role": "assistant", "content": said}
    return chats.written(chats.answer([question, answer]))


def test_source_ends_where_the_assistant_begins(chatty) -> None:
    tokens, task = chatty.tokens, Templates.of(MESSAGES)
    text, ids = task.source(tokens, EXAMPLE)
    assert text == (
        "<system>Say the record.<|endoftext|><user>name : Ivy | type : bird<|endoftext|><assistant>"
    )
    assert ids == tokens.plain(text)


def test_only_the_assistants_turn_is_target(chatty) -> None:
    tokens, task = chatty.tokens, Templates.of(MESSAGES)
    source, target, cut = task.pair(tokens, EXAMPLE, "Ivy is a bird.", lambda _: None)
    assert not cut
    assert target == [*tokens.plain("Ivy is a bird."), tokens.eos_id]
    whole = tokens.tokenizer.apply_chat_template(
        [*task.input.render(EXAMPLE.fields), {"role": "assistant", "content": "Ivy is a bird."}],
        tokenize=False,
    )
    assert tokens.tokenizer.decode(source + target) == whole


def test_what_follows_the_end_of_the_turn_is_not_trained(chatty) -> None:
    tokens = chatty.tokens
    tokens.tokenizer.chat_template = TEMPLATE.replace("<|endoftext|>{%", "<|endoftext|>\n{%")
    assert turn(tokens, "x", "y")[-1] == tokens.eos_id
    tokens.tokenizer.chat_template = TEMPLATE.replace("<|endoftext|>", "</s>")
    assert turn(tokens, "x", "y")[-1] == tokens.eos_id


def test_a_template_that_hides_the_turn_is_refused(chatty) -> None:
    chatty.tokens.tokenizer.chat_template = "{{ messages | length }}"
    with pytest.raises(BackboneError, match="cannot be told apart"):
        turn(chatty.tokens, "x", "y")


def test_a_template_that_refuses_the_roles_says_so(chatty) -> None:
    chatty.tokens.tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(BackboneError, match="refuses these messages: no system role"):
        Chats(chatty.tokens).begun([{"role": "system", "content": "x"}])


def test_a_tokenizer_without_template_is_refused(mini) -> None:
    with pytest.raises(BackboneError, match="has no chat template"):
        Templates.of(MESSAGES).source(mini.tokens, EXAMPLE)


def test_truncation_cuts_the_field_alone(chatty) -> None:
    tokens = chatty.tokens
    task = Templates.of([{"role": "user", "content": "Say: {text} Now!"}], truncate="text")
    example = Example({"text": "word " * 60}, ("x",))
    source, _, cut = task.pair(tokens, example, "x", lambda answer: 40 - answer)
    text = tokens.tokenizer.decode(source)
    assert cut
    assert len(source) <= 38
    assert text.startswith("<user>Say: word word")
    assert text.endswith(" Now!<|endoftext|><assistant>")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ([{"role": "boss", "content": "x"}], r"task\.input.*role"),
        ([{"role": "user"}], r"task\.input.*content: is missing"),
        ([], r"task\.input"),
    ],
)
def test_wrong_messages_in_a_recipe(written: Any, message: str) -> None:
    raw = {
        "version": 1,
        "name": "x",
        "backbone": "foreword/mini",
        "task": {"data": {"format": "jsonl"}, "input": written},
        "method": "prefix-tuning",
    }
    with pytest.raises(RecipeError, match=message):
        parse_recipe(raw)


def test_messages_must_end_before_the_answer() -> None:
    with pytest.raises(TemplateError, match="end before the assistant's turn"):
        Templates.of([{"role": "assistant", "content": "x"}])


@pytest.mark.slow
def test_a_chat_recipe_end_to_end(chatty, tmp_path: Path) -> None:
    recipe = {
        "version": 1,
        "name": "chat",
        "backbone": "foreword/mini",
        "task": {
            "data": {
                "format": "jsonl",
                "train": "foreword/fieldguide/train",
                "dev": "foreword/fieldguide/dev",
            },
            "input": MESSAGES,
            "limits": {"train": 8, "dev": 2},
        },
        "method": {"name": "prefix-tuning", "length": 2, "reparameterization": "table"},
        "training": {"steps": 2, "batch_size": 4},
        "decoding": {"max_new_tokens": 4},
    }
    run = foreword.train(recipe, out=tmp_path / "run", backbone=chatty)
    loaded = foreword.load(run.artifact, backbone=chatty)
    assert loaded.task.task.text.input.source == MESSAGES
    assert len(loaded.generate([{"record": {"name": "Ivy"}}], max_new_tokens=3)) == 1
