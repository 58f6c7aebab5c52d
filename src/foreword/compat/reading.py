"""PEFT's folder of one adapter: `adapter_config.json` and `adapter_model.safetensors`.

The folder comes from somebody else. Only these two files are opened, and only as JSON and as
safetensors: no pickle is read, no class is looked up by a name in it, and no link out of it is
followed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

import foreword.compat.adapters  # noqa: F401, registers PEFT's methods
from foreword.common import files, opening
from foreword.common.json_text import parse_json
from foreword.compat.adapter import ADAPTERS, CONFIG, TASK_TYPES, WEIGHTS, Adapter, AdapterConfig
from foreword.compat.peft_types import PeftType
from foreword.errors import ArtifactError, did_you_mean
from foreword.recipe.problems import explain, found

PICKLE = "adapter_model.bin"
LARGEST_CONFIG = 2**20


def read_adapter(folder: Path | str) -> Adapter:
    """Read a folder that PEFT's `save_pretrained` wrote for a prompt method, or for LoRA.

    Raises:
        ArtifactError: it is none, is damaged, or holds what foreword does not take.
    """
    folder = Path(folder)
    try:
        if not folder.is_dir():
            raise ArtifactError(
                f"{folder}: no such folder; give one that PEFT's save_pretrained wrote (a hub name "
                "is not downloaded)"
            )
        _refuse_several(folder)
        config = _read_config(_file(folder, CONFIG))
        if not (folder / WEIGHTS).exists() and (folder / PICKLE).exists():
            raise ArtifactError(
                f"{folder}: its weights are a pickle ({PICKLE}), which can run code and is never "
                "read; save them again from PEFT with safe_serialization=True"
            )
        file = _file(folder, WEIGHTS)
        tensors, sha256 = _load(file)
    except OSError as error:
        raise ArtifactError(f"{folder}: cannot be read: {error.strerror or error}") from error
    taken, head = config.taken(file, tensors)
    return Adapter(folder, config, taken, head, sha256)


def _refuse_several(folder: Path) -> None:
    """PEFT puts further adapters into folders inside; a trainer's checkpoints are none."""
    names = sorted(
        file.parent.name
        for file in folder.glob(f"*/{CONFIG}")
        if not re.fullmatch(r"checkpoint-\d+", file.parent.name)
    )
    if names:
        raise ArtifactError(
            f"{folder}: holds several adapters ({', '.join(names)[:200]} in folders of their own); "
            "import one of those folders, or move it out"
        )


def _file(folder: Path, name: str) -> Path:
    file = folder / name
    if not file.exists():
        raise ArtifactError(f"{folder}: is no PEFT adapter, it has no {name}")
    try:
        opening.check_regular(file, within=folder)
    except OSError as error:
        raise ArtifactError(f"{file}: {error.strerror}") from error
    return file


def _read_config(file: Path) -> AdapterConfig:
    try:
        raw = parse_json(opening.read_text(file, within=file.parent, most=LARGEST_CONFIG))
    except opening.Refused as error:
        raise ArtifactError(f"{file}: {error.strerror}") from error
    except ValueError as error:
        raise ArtifactError(f"{file}: cannot be read as JSON: {str(error)[:200]}") from error
    if not isinstance(raw, dict):
        raise ArtifactError(f"{file}: expected an object, found {type(raw).__name__}")
    peft_type = raw.get("peft_type")
    known = ADAPTERS.get(peft_type) if isinstance(peft_type, str) else None
    if known is None:
        raise ArtifactError(f"{file}: peft_type: {_other_type(peft_type)}")
    _refuse_code(file, raw)
    known.refuse(file, raw)
    stated = {"task_type": None} | {
        key: value
        for key, value in raw.items()
        if value is not None and (key in known.model_fields or value not in (False, [], {}))
    }
    try:
        config = known.model_validate(stated)
    except ValidationError as error:
        lines = [f"  - {line}" for line in explain(error, known, root=CONFIG)[:20]]
        raise ArtifactError("\n".join([f"{file}: cannot be imported:", *lines])) from error
    config.check(file)
    return config


def _other_type(peft_type: Any) -> str:
    names = ", ".join(ADAPTERS)
    if peft_type in [member.value for member in PeftType]:
        return f"{peft_type} is no method that foreword imports (it imports {names})"
    if isinstance(peft_type, str):
        return f"{found(peft_type)} is not known{did_you_mean(peft_type, ADAPTERS)}"
    return f"expected one of {names}, found {found(peft_type)}"


def _refuse_code(file: Path, raw: dict[str, Any]) -> None:
    mapping = raw.get("auto_mapping")
    if not mapping:
        return
    library = mapping.get("parent_library") if isinstance(mapping, Mapping) else None
    if not isinstance(library, str) or not library.startswith("transformers."):
        raise ArtifactError(
            f"{file}: auto_mapping: it names code of its own; foreword imports none from a folder"
        )
    its_class = found(mapping.get("base_model_class"))
    if not raw.get("task_type"):
        raise ArtifactError(
            f"{file}: task_type: is missing: it was trained without one, for which PEFT keeps "
            f"transformers' class ({its_class}) in auto_mapping. Set task_type to what that class "
            f"is for, one of {', '.join(TASK_TYPES)}, and auto_mapping to null"
        )
    raise ArtifactError(
        f"{file}: auto_mapping: it names {its_class} beside a task_type, which says it already; "
        "set auto_mapping to null"
    )


def _load(file: Path) -> tuple[dict[str, Tensor], str]:
    """All tensors of a file, and its hash."""
    try:
        tensors = load_file(file)  # the header says how long the file is: before all is hashed
        return tensors, files.sha256(file)
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise ArtifactError(f"{file}: cannot be read as safetensors: {str(error)[:200]}") from error
