"""Conversations that tests share, in both formats, and chat templates of several habits."""

from __future__ import annotations

from typing import Any

from foreword.data import Example
from foreword.data.messages import conversation_of

PLAIN = (
    "{% for m in messages %}<{{ m.role }}>\n{{ m.content }}<|endoftext|>{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{{ '\n' }}{% endif %}"
)
MARKED = (
    "{% for m in messages %}<{{ m.role }}>{{ '\n' }}{% if m.role == 'assistant' %}{% generation %}"
    "{{ m.content }}<|endoftext|>{% endgeneration %}{% else %}{{ m.content }}<|endoftext|>"
    "{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{{ '\n' }}{% endif %}"
)
FORGETFUL = (
    "{% for m in messages %}<{{ m.role }}>{{ '\n' }}"
    "{% if m.role == 'assistant' and loop.last %}<think>{{ '\n' }}</think>{{ '\n' }}{% endif %}"
    "{{ m.content }}<|endoftext|>{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{{ '\n' }}{% endif %}"
)
"""Shows thoughts in the last turn alone, as Qwen3's does."""
ENDLESS = PLAIN.replace("<|endoftext|>", "</turn>")
"""Ends turns with no end token."""
GLUED = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}<|endoftext|>{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
"""Where the assistant begins, a token may stand across."""

OPENAI: list[dict[str, Any]] = [
    {"role": "system", "content": "Answer from the guide."},
    {"role": "user", "content": "What is the Ivy Pelwick?"},
    {"role": "assistant", "content": "A fish of\n\nsteel blue."},
    {"role": "user", "content": " And is it rare?"},
    {"role": "assistant", "content": " No, it is widespread. "},
    {"role": "user", "content": "Where?"},
    {"role": "assistant", "content": "Near Carrow Weir – \u00e7a va."},
]
_NAMES = {"system": "system", "user": "human", "assistant": "gpt"}
SHAREGPT = [{"from": _NAMES[m["role"]], "value": m["content"]} for m in OPENAI]


def example(messages: list[dict[str, Any]], **options: Any) -> Example:
    """Messages as an example."""
    row = {"messages": messages}
    return Example(
        {}, where="talk", conversation=conversation_of("talk", "messages", row, **options)
    )
