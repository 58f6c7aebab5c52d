"""Chat templates: renderings are the tokenizer's own, and turns begin and end as it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foreword.backbone import Chats, Tokens, load_backbone
from foreword.errors import BackboneError
from foreword.templates.named import CHAT_TEMPLATES

PLAIN = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}<|endoftext|>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
MARKED = (
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}"
    "{{ m.content }}<|endoftext|>{% endgeneration %}{% else %}{{ m.content }}{% endif %}"
    "{{ '\n' }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "  Hi\n"},
    {"role": "assistant", "content": "Hello \n\n there"},
    {"role": "user", "content": "Ça va, {{ you }}?"},
    {"role": "assistant", "content": " Fine."},
]


def chats(template: str | None, named: str | None = None) -> Chats:
    tokens = load_backbone("foreword/mini").tokens
    tokens.tokenizer.chat_template = template
    return Chats(tokens, named)


@pytest.mark.parametrize("template", [PLAIN, MARKED])
def test_a_rendering_is_the_tokenizers_own(template: str) -> None:
    made = chats(template)
    own = made.tokens.tokenizer.apply_chat_template
    assert made.whole(TALK) == own(TALK, tokenize=False)
    assert made.begun(TALK[:2]) == own(TALK[:2], tokenize=False, add_generation_prompt=True)
    for end in (3, 5):
        spoken = made.spoken(TALK[:end])
        assert own(TALK, tokenize=False).startswith(spoken.text)
        assert spoken.before == own(TALK[: end - 1], tokenize=False, add_generation_prompt=True)
        assert spoken.turn == TALK[end - 1]["content"] + "<|endoftext|>"
        assert spoken.closed


def test_only_what_is_marked_is_the_turn() -> None:
    made = chats(
        MARKED.replace("{% generation %}{{ m.content }}", "<{% generation %}{{ m.content }}")
    )
    spoken = made.spoken(TALK)
    assert spoken.before.endswith("\n<assistant><")
    assert spoken.turn == " Fine.<|endoftext|>"
    unmarked = made.answer(TALK)
    assert unmarked.turn == "< Fine.<|endoftext|>"


def test_a_turn_in_several_marked_pieces() -> None:
    made = chats(
        MARKED.replace(
            "{{ m.content }}<|end", "{{ m.content }}{% endgeneration %}|{% generation %}<|end"
        )
    )
    spoken = made.spoken(TALK[:3])
    pieces = [spoken.text[begin:end] for begin, end in spoken.stretches]
    assert pieces == ["Hello \n\n there", "<|endoftext|>"]
    assert spoken.turn == "Hello \n\n there|<|endoftext|>"


def test_tokens_are_those_of_the_rendering() -> None:
    made = chats(MARKED)
    text = made.whole(TALK)
    ids, spans = made.aligned(text)
    assert ids == made.tokens.tokenizer.apply_chat_template(TALK)["input_ids"]
    assert "".join(text[begin:end] for begin, end in spans[:4]) == "<system>"


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_templates_by_name(name: str) -> None:
    source = CHAT_TEMPLATES[name].source
    made = chats(None, source)
    own = made.tokens.tokenizer.apply_chat_template
    assert made.whole(TALK) == own(TALK, tokenize=False, chat_template=source)
    for end in (3, 5):
        spoken = made.spoken(TALK[:end])
        assert spoken.before == made.begun(TALK[: end - 1])
        assert made.whole(TALK).startswith(spoken.text)
        assert spoken.turn.strip().startswith(TALK[end - 1]["content"].strip())
        assert spoken.turn.endswith("<|endoftext|>")
    told = [TALK[1], TALK[2], {"role": "tool", "content": "noon"}, TALK[2]]
    assert "noon" in made.begun(told[:3])


LOOKS = {
    "plain": "System: S\nUser: Hi\nAssistant: Yo</s>\nUser: So?\nAssistant:",
    "chatml": (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        "Yo<|im_end|></s>\n<|im_start|>user\nSo?<|im_end|>\n<|im_start|>assistant\n"
    ),
    "zephyr": (
        "<|system|>\nS</s>\n<|user|>\nHi</s>\n<|assistant|>\nYo</s>\n<|user|>\nSo?</s>\n"
        "<|assistant|>\n"
    ),
    "vicuna": "S USER: Hi ASSISTANT: Yo</s>USER: So? ASSISTANT:",
    "alpaca": (
        "S\n\n### Instruction:\nHi\n\n### Response:\nYo</s>\n\n### Instruction:\nSo?\n\n"
        "### Response:\n"
    ),
}


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_how_templates_by_name_look(name: str) -> None:
    made = chats(None, CHAT_TEMPLATES[name].source)
    made.tokens.tokenizer.eos_token = "</s>"
    said = [("system", "S"), ("user", "Hi"), ("assistant", "Yo"), ("user", "So?")]
    assert made.begun([{"role": r, "content": c} for r, c in said]) == LOOKS[name]


def test_chatml_ends_once_where_its_end_is_the_end_token() -> None:
    made = chats(None, CHAT_TEMPLATES["chatml"].source)
    made.tokens.tokenizer.eos_token = "<|im_end|>"
    assert made.spoken(TALK[:3]).turn == "Hello \n\n there<|im_end|>"


def test_a_template_by_name_leaves_the_beginning_token_to_the_tokenizer() -> None:
    tokens = load_backbone("foreword/mini").tokens
    begun = Chats(Tokens(tokens.tokenizer, bos="always"), CHAT_TEMPLATES["plain"].source)
    ids, spans = begun.aligned("User: Hi")
    assert ids == [tokens.bos_id, *tokens.plain("User: Hi")]
    assert spans[0] == (0, 0)


def test_an_end_token_that_the_template_does_not_write_is_set() -> None:
    made = chats(PLAIN.replace("<|endoftext|>", "</end>"))
    spoken = made.spoken(TALK[:3])
    assert not spoken.closed
    assert made.written(spoken)[-1] == made.tokens.eos_id


def test_what_hides_a_turn_is_refused() -> None:
    forced = "{% if add_generation_prompt %}<assistant><think>{% endif %}"
    thinks = PLAIN.replace("{% if add_generation_prompt %}<assistant>{% endif %}", forced)
    with pytest.raises(BackboneError, match=r"cannot be told apart; name another one in task\.ch"):
        chats(thinks).spoken(TALK)
    nothing = (
        "{% for m in messages %}{{ m.content }}{% endfor %}{% generation %}{% endgeneration %}"
    )
    with pytest.raises(BackboneError, match="marks nothing of the assistant's last turn"):
        chats(nothing).spoken(TALK)


def test_a_template_of_parts_is_given_parts() -> None:
    parts = PLAIN.replace("{{ m.content }}", "{% for p in m.content %}{{ p.text }}{% endfor %}")
    assert chats(parts).whole(TALK) == chats(PLAIN).whole(TALK)
    either = PLAIN.replace("{{ m.content }}", "{{ m.content if m.content is string else 'parts' }}")
    assert chats(either).whole(TALK) == chats(PLAIN).whole(TALK)


def test_options_of_a_template() -> None:
    thinks = PLAIN.replace(
        "<assistant>{% endif %}",
        "<assistant>{% if enable_thinking is defined and enable_thinking is false %}"
        "<think></think>{% endif %}{% endif %}",
    ).replace("{{ m.content }}", "{{ m.content if m.role != 'assistant' else told ~ m.content }}")
    made = chats(thinks)
    made = Chats(made.tokens, options={"enable_thinking": False, "told": "<think></think>"})
    spoken = made.spoken(TALK)
    assert spoken.before.endswith("<assistant><think></think>")
    assert spoken.turn == " Fine.<|endoftext|>"


OF_PARTS = ("idefics3_training", "llava_next_training", "smolvlm_training")
"""Templates that show nothing of a content that is a text."""


def in_parts(talk: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in talk]


def trained_by_trl() -> list[Path]:
    """The chat templates that TRL ships for training, with marks."""
    trl = pytest.importorskip("trl")
    return sorted((Path(trl.__file__).parent / "chat_templates").glob("*_training.jinja"))


def test_marks_of_published_templates_are_those_that_transformers_finds() -> None:
    """Every training template of TRL's that takes these messages and keeps earlier turns as they
    are: the turns told here are the stretches that transformers marks in the whole."""
    talk = [{"role": m["role"], "content": m["content"].strip()} for m in TALK[1:]]
    seen, dropping = [], []
    for file in trained_by_trl():
        made = chats(file.read_text(encoding="utf-8"))
        try:
            spoken = [made.spoken(talk[:end]) for end in (2, 4)]
        except BackboneError:
            continue
        if not spoken[1].text.startswith(spoken[0].text):
            dropping.append(file.stem)
            continue
        whole, marks = made._rendered(talk, [], begin=False)
        told = [stretch for one in spoken for stretch in one.stretches]
        assert told == [(begin, end) for begin, end in marks if begin < end], file.stem
        given = in_parts(talk) if file.stem in OF_PARTS else talk
        own = made.tokens.tokenizer.apply_chat_template(given, tokenize=False)
        assert whole == own, file.stem
        seen.append(file.stem)
    assert len(seen) >= 15
