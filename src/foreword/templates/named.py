"""Chat templates by name, for tokenizers that have none (BLOOM, GPT-2, a base model's).

Written in the language of transformers' chat templates, with its `{% generation %}` around what is
trained: the assistant's text and the end token. The tokenizer's own rule sets a beginning token.
None shows tools or calls of them by itself, so that calls stand as text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from foreword.common.named import NameIn
from foreword.common.registry import Registry


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template.

    Attributes:
        what: how a conversation looks, in a few words.
        source: in Jinja, as transformers' tokenizers have it.
        defined_by: what defines it.
    """

    what: str
    source: str
    defined_by: Any = None


CHAT_TEMPLATES: Registry[ChatTemplate] = Registry("chat template")
"""Name -> chat template. Artifacts hold the name, so what a name stands for never changes."""
ChatTemplateName = Annotated[str, NameIn(CHAT_TEMPLATES)]
"""The name of a chat template."""


def _each_message(spoken: str, others: str, begun: str) -> str:
    """A template of three parts: the assistant's messages, all others, and where it begins."""
    return (
        "{% for message in messages %}"
        "{% if message['role'] == 'assistant' %}" + spoken + "{% else %}" + others + "{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}" + begun + "{% endif %}"
    )


_SAID = "{{ message['content'] }}"
_SPOKEN = "{% generation %}" + _SAID + "{{ eos_token }}{% endgeneration %}"

for _name, _template in {
    "plain": ChatTemplate(
        "User: …, a line end, Assistant: … and the end token",
        _each_message(
            "{{ 'Assistant:' }}{% generation %}{{ ' ' + message['content'] + eos_token }}"
            "{% endgeneration %}{{ '\n' }}",
            "{{ message['role'] | capitalize + ': ' + message['content'] + '\n' }}",
            "{{ 'Assistant:' }}",
        ),
    ),
    "chatml": ChatTemplate(
        "<|im_start|>user, a line, <|im_end|>; the end token follows where it is another one",
        _each_message(
            "{{ '<|im_start|>assistant\n' }}{% generation %}{{ message['content'] + '<|im_end|>' }}"
            "{% if eos_token != '<|im_end|>' %}{{ eos_token }}{% endif %}"
            "{% endgeneration %}{{ '\n' }}",
            "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}",
            "{{ '<|im_start|>assistant\n' }}",
        ),
    ),
    "zephyr": ChatTemplate(
        "<|user|>, a line and the end token; <|assistant|> alike",
        _each_message(
            "{{ '<|assistant|>\n' }}" + _SPOKEN + "{{ '\n' }}",
            "{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}",
            "{{ '<|assistant|>\n' }}",
        ),
    ),
    "vicuna": ChatTemplate(
        "the system's text, then USER: … ASSISTANT: … and the end token",
        _each_message(
            "{{ 'ASSISTANT:' }}{% generation %}{{ ' ' + message['content'] + eos_token }}"
            "{% endgeneration %}",
            "{% if message['role'] == 'system' %}{{ message['content'] + ' ' }}{% else %}"
            "{{ message['role'] | upper + ': ' + message['content'] + ' ' }}{% endif %}",
            "{{ 'ASSISTANT:' }}",
        ),
    ),
    "alpaca": ChatTemplate(
        "the system's text, then ### Instruction: and ### Response:, and the end token",
        _each_message(
            "{{ '### Response:\n' }}" + _SPOKEN + "{{ '\n\n' }}",
            "{% if message['role'] == 'user' %}{{ '### Instruction:\n' }}"
            "{% elif message['role'] != 'system' %}"
            "{{ '### ' + message['role'] | capitalize + ':\n' }}"
            "{% endif %}{{ message['content'] + '\n\n' }}",
            "{{ '### Response:\n' }}",
        ),
    ),
}.items():
    CHAT_TEMPLATES.add(_name, _template)
