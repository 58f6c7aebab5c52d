"""An artifact in words: its card, what was trained, how its backbone is quantised. No torch."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from foreword.artifacts.manifest import TEACHER, Manifest
from foreword.methods import METHODS
from foreword.recipe import TaskId, written_input


def quantised_as(quantization: Mapping[str, Any] | None) -> str:
    """How a backbone is quantised, in words."""
    if not quantization:
        return "not quantised"
    options = [f"{k}={v}" for k, v in quantization.items() if k != "quant_method"]
    return f"quantised by {' '.join([str(quantization.get('quant_method')), *options])}"


def card(manifest: Manifest, usage: str) -> str:
    """The model card.

    Args:
        manifest: what the artifact says of itself.
        usage: a command that asks it.
    """
    scores = manifest.metrics.get("all", {})
    measured = "\n".join(
        f"| {name} | {value:.2f} |" for name, value in scores.items() if value is not None
    )
    table = f"| metric | value |\n|---|---|\n{measured}\n" if measured else "Not measured.\n"
    method, moves = manifest.method, manifest.method.moves.kind
    what = "A prompt for the frozen backbone" if moves == "none" else "A change to the backbone"
    parts = [f"{method.length} virtual tokens"] if method.length else []
    parts += [f"{moves} of its weights"] if moves != "none" else []
    return f"""# {manifest.name}

{what} `{manifest.backbone.name}` ({manifest.backbone.family}), trained with {method.name}
({METHODS[method.name].paper}): {" and ".join(parts) or "nothing but a head"}{_trained(manifest)}.

- {asked_and_answered(manifest.task)}
- Backbone sha256: `{manifest.backbone.sha256}`
- Seed: {manifest.seed}{f"{chr(10)}- {far}" if (far := said_of_divergence(manifest)) else ""}

```
{usage}
```

{table}
Made by foreword {manifest.versions.get("foreword", "unknown")}. The backbone's licence applies to
it; the licence of the training data may apply to this prompt.
"""


def asked_and_answered(task: TaskId) -> str:
    """What is read, and what is written after it, in words."""
    if task.answer == "turns":
        by = f"chat template {task.chat_template}" if task.chat_template else "own chat template"
        return (
            f"Input: conversations, lists of messages in the column `{task.messages}`, by the {by};"
            " answer: the assistant's next turn"
        )
    answer = f"; answer: `{task.target!r}`" if task.answer == "text" else ""
    return f"Input: `{written_input(task.input)!r}`{answer}"


def usage_of(verb: str, fields: Sequence[str], folder: str = "THIS_FOLDER") -> str:
    """A command that asks an artifact.

    Args:
        verb: the command that its task answers to.
        fields: those of a row that are read.
        folder: the artifact.
    """
    command = f"foreword {verb} {folder}"
    if len(fields) == 1:
        return f'{command} --text "..."'
    row = json.dumps(dict.fromkeys(fields, "..."), ensure_ascii=False)
    return f"echo {shlex.quote(row)} | {command} --input -"


def _trained(manifest: Manifest) -> str:
    trained = said_of_trained(manifest.trained_parameters, manifest.trained_share)
    return f", {trained}" if trained else ""


def said_of_trained(parameters: int | None, share: float | None) -> str:
    """How much was trained, in words; nothing where that is not known."""
    if parameters is None:
        return ""
    of = "" if share is None else f" ({percent(share)} of the backbone's)"
    return f"{parameters:,} parameters{of}"


def said_of_divergence(manifest: Manifest) -> str:
    """How far a prompt that learned a text is from its teacher, in words; nothing of others."""
    measured = manifest.metrics.get(TEACHER, {})
    if measured.get("student") is None:
        return ""
    bare = measured.get("nothing")
    beside = "" if bare is None else f" ({bare:.3f} without a prompt)"
    return (
        f"KL divergence to the backbone with the text before the question: "
        f"{measured['student']:.3f} nats per token{beside}"
    )


def percent(share: float) -> str:
    """A share with as many digits as tell it from nothing."""
    return f"{100 * share:.3g} %" if share < 0.9995 else f"{100 * share:.0f} %"
