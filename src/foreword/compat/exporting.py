"""From an artifact to PEFT's folder: `foreword export peft`. The backbone is not needed."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file

import foreword.compat.adapters  # noqa: F401, registers PEFT's methods
from foreword.artifacts.card import asked_and_answered
from foreword.artifacts.manifest import CARD, Manifest, artifact_folder, read_manifest
from foreword.common import files
from foreword.common.run_files import refuse_unwritable
from foreword.compat.adapter import ADAPTERS, CONFIG, WEIGHTS, AdapterConfig, PeftConfig
from foreword.compat.head_export import base_of
from foreword.errors import RunError, UserError
from foreword.methods import MethodOptions


def export_peft(artifact: Path | str, folder: Path | str) -> PeftConfig:
    """Write an artifact's prompt, or its LoRA, as a folder that PEFT loads.

    `peft.PeftModel.from_pretrained` does. The folder holds what inference needs:
    `adapter_config.json`, `adapter_model.safetensors` and a card that says what PEFT's format has
    no place for (templates, decoding, the backbone's hash).

    Args:
        artifact: an artifact, or a run folder that has one.
        folder: where it goes; there must be nothing yet.

    Raises:
        ArtifactError: the artifact is damaged.
        UserError: PEFT has no place for this, or the folder is not empty.
        RunError: the folder cannot be written.
    """
    source, folder = artifact_folder(artifact), Path(folder)
    files.refuse_occupied(folder)
    refuse_unwritable(folder)
    manifest = read_manifest(source)
    tensors, config = _adapter_of(source, manifest.method).written(source, manifest)
    with files.new_folder(folder) as temporary:
        try:
            save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
        except SafetensorError as error:
            raise RunError(f"{folder}: cannot be written: {error}") from error
        (temporary / WEIGHTS).chmod(0o644)
        text = json.dumps(config.to_dict(), indent=2, sort_keys=True)
        files.write_text(temporary / CONFIG, text + "\n")
        files.write_text(temporary / CARD, _card(manifest, config))
    return config


def _adapter_of(source: Path, method: MethodOptions) -> type[AdapterConfig]:
    """How PEFT holds what a method trained.

    Raises:
        UserError: it does not.
    """
    for known in ADAPTERS.values():
        if isinstance(method, known.methods):
            return known
    if method.enters.trains:
        for known in ADAPTERS.values():
            if known.enters is not None and issubclass(method.enters, known.enters):
                return known
    elif method.moves.kind == "none":
        raise UserError(
            f"{source}: is {method.name}: it has no trained prompt that PEFT could load"
        )
    no_model = method.moves.kind in ("none", "adapter")
    raise UserError(
        f"{source}: is {method.name}, which PEFT's format of prompts and LoRA has no place for"
        f"{'' if no_model else '; use `foreword export model`'}"
    )


def _card(manifest: Manifest, config: PeftConfig) -> str:
    task, length, below = manifest.task, manifest.method.length, base_of(manifest)
    what = f"A prompt of {length} virtual tokens" if length else "Low-rank updates"
    answers = [f"- {asked_and_answered(task)}"]
    if below is None:
        answers[0] += "; the answer ends in the end token."
        decoding = manifest.decoding.model_dump(exclude_defaults=True) or "greedy"
        answers.append(f"- Decoding: `{decoding}`")
    if task.thresholds:
        answers.append(f"- From which probability each label is told: `{task.thresholds}`")
    alone = f"""
{"Generate" if below is None else "Classify"} one row at a time: PEFT puts the prompt before a row's
padding, and other rows change the answer.
"""
    choice, tasks = manifest.method.choice, ""
    if choice is not None:
        numbered = ", ".join(f"{number} {name!r}" for number, name in enumerate(choice.names))
        tasks = f"- `task_ids`, which every call takes: {numbered}\n"
    base = config.base_model_name_or_path
    front = f"base_model: {json.dumps(base)}\n" if base else ""
    lines = "\n".join(answers)
    return f"""---
{front}library_name: peft
---

# {manifest.name}

{what} for `{manifest.backbone.name}`, trained with
{manifest.method.name} by foreword and exported to PEFT's format:

```python
{"" if below is None else f"base_model = {below}" + chr(10)}\
model = peft.PeftModel.from_pretrained(base_model, "{manifest.name}")
```

What PEFT's format has no place for:

{lines}
- Beginning token: `{manifest.tokens.bos}` (auto: as the tokenizer does by itself).
- Backbone sha256 over its stored tensors: `{manifest.backbone.sha256}`
{tasks}{alone if length else ""}"""
