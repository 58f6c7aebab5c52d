"""What a prompt says of itself to a server: template, tokens, a sample, decoding."""

from __future__ import annotations

from typing import Any

from foreword.artifacts.manifest import Manifest
from foreword.recipe import DecodingSpec
from foreword.tasks import Task, task_of
from foreword.templates import Chat, Template
from foreword.templates.template import FieldSlot
from foreword.tuned import TunedModel

SAID = "12 × é, 'a' -> {b}"


def input_of(task: Task) -> list[Any]:
    """The input's words and slots in their order; of messages the role, too. A conversation is
    what a user says."""
    if task.answer == "turns":
        return [{"role": "user", "content": [{"field": task.fields[0]}]}]
    assert task.text is not None, "what is written has templates, or is a turn"
    if isinstance(task.text.input, Chat):
        return [
            {"role": role, "content": _pieces(content)}
            for role, content in task.text.input.messages
        ]
    return _pieces(task.text.input)


def _pieces(template: Template) -> list[Any]:
    return [
        {"field": piece.name} if isinstance(piece, FieldSlot) else piece
        for piece in template.pieces
    ]


def is_chat(task: Task) -> bool:
    """Whether a chat template renders the input."""
    return task.answer == "turns" or (task.text is not None and isinstance(task.text.input, Chat))


def sample_of(task: Task, model: TunedModel) -> dict[str, Any]:
    """An input with its tokens, by which a server checks that it makes the same of a text."""
    fields = {name: f"The {name}: {SAID}" for name in task.fields}
    given = next(iter(fields.values())) if task.answer == "turns" else fields
    (row,) = task.rows(model, task.example(given), labelled=False)
    return {"fields": fields, "tokens": row.pair.source}


def decoding_of(how: DecodingSpec) -> dict[str, Any]:
    """Settings by vLLM's names; a temperature of 0 is greedy."""
    return {
        "max_tokens": how.max_new_tokens,
        "temperature": how.temperature if how.do_sample else 0.0,
        "top_p": how.top_p,
        "top_k": how.top_k,
        "repetition_penalty": how.repetition_penalty,
        "stop": list(how.stop),
    }


def notes_of(manifest: Manifest) -> list[str]:
    """What is otherwise there than here, in words."""
    how, notes = manifest.decoding, []
    if how.num_beams > 1:
        notes.append(f"decoding.num_beams is {how.num_beams}, and vLLM writes without beams here")
    if how.no_repeat_ngram_size:
        notes.append(
            f"decoding.no_repeat_ngram_size is {how.no_repeat_ngram_size}, which vLLM has not"
        )
    cut = task_of(manifest.task).cut_fields
    if cut:
        notes.append(
            f"an input that is too long is cut in {', '.join(cut)} here, and refused there"
        )
    return notes
