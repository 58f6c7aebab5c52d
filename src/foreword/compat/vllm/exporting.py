"""From artifacts to what vLLM serves through the plug-in foreword-vllm: `foreword export vllm`.

A folder of prompts has one folder for each, named as clients name the prompt:

- `prompt.json`: how long it is, its template, tokens and decoding, and the hash of the backbone's
  weights;
- `<hash>.safetensors`: `decoder.keys` and `decoder.values`, `[layers, P, kv_heads, head_dim]`, and
  that hash again. A prompt that was replaced leaves its last file, for requests that are on their
  way.

vLLM keeps keys and values of whatever stands before a text, and knows nothing else of a prompt. So
virtual tokens among the input's embeddings are read by the backbone once, and what it made of them
is written; and keys for text that keeps its positions are turned to where vLLM puts the text.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save

from foreword.artifacts.artifact import load_model
from foreword.artifacts.manifest import Manifest, artifact_folder, read_manifest
from foreword.backbone import Backbone
from foreword.backbone.rotation import turned
from foreword.backbone.weights.quantization import Quantization
from foreword.common import files, opening
from foreword.common.json_text import parse_json
from foreword.common.run_files import refuse_unwritable
from foreword.compat.vllm.refusing import keys_values, refuse_what_vllm_has_not
from foreword.compat.vllm.stating import decoding_of, input_of, is_chat, notes_of, sample_of
from foreword.errors import BackboneError, UserError, argument
from foreword.tasks import task_of
from foreword.tuned import TunedModel

FORMAT = "1.0"
STATED = "prompt.json"
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"


@dataclass(frozen=True)
class ForVLLM:
    """A prompt as vLLM serves it.

    Attributes:
        name: what clients call it.
        length: P.
        size: bytes of its keys and values.
        notes: what is otherwise there than here, in words.
    """

    name: str
    length: int
    size: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Ready:
    """A prompt that is checked and not written yet."""

    what: ForVLLM
    stated: dict[str, Any]
    tensors: bytes = field(repr=False)


def export_vllm(
    artifacts: Mapping[str, Path | str],
    folder: Path | str,
    *,
    backbone: Backbone | str | None = None,
    device: str = "cpu",
    dtype: str | None = None,
    quantization: Quantization | None = None,
    other_backbone: bool = False,
    overwrite: bool = False,
    download: bool = False,
) -> list[ForVLLM]:
    """Write prompts into a folder that vLLM serves through the plug-in foreword-vllm.

    All are checked before the first is written, and each is written in one move: a server that
    reads the folder has the old prompt of a name or the new one.

    Args:
        artifacts: artifacts, or run folders, by the names that clients give as `model`.
        folder: where they go; prompts of other names that are there stay.
        backbone: a loaded one, or where to load it from; by default what the first artifact names.
        device: where it is loaded to.
        dtype: what its weights are cast to; as trained if not given.
        quantization: how the backbone is quantised, instead of how it was trained with; {} for not
            at all.
        other_backbone: take a backbone with other weights all the same.
        overwrite: replace prompts of these names.
        download: let a hub name be downloaded.

    Raises:
        ArtifactError: an artifact is damaged or does not fit the backbone.
        UserError: vLLM cannot serve a prompt, a name is none or taken, or nothing is given.
        RunError: the folder cannot be written.
    """
    folder = Path(folder)
    if not artifacts:
        raise UserError("artifacts: there are none; name at least one")
    manifests = {}
    for name, artifact in artifacts.items():
        _check_name(name)
        source = artifact_folder(artifact)
        manifests[name] = source, read_manifest(source)
        refuse_what_vllm_has_not(*manifests[name])
    _check_folder(folder, list(artifacts), overwrite=overwrite)
    ready = []
    for name, (source, _) in manifests.items():
        manifest, model = load_model(
            source,
            backbone=backbone if isinstance(backbone, Backbone) else None,
            backbone_name=backbone if isinstance(backbone, str) else None,
            device=device,
            dtype=dtype,
            quantization=quantization,
            other_backbone=other_backbone,
            download=download,
        )
        backbone = model.backbone
        ready.append(_ready(name, source, manifest, model))
    for one in ready:
        _write(folder / one.what.name, one)
    return [one.what for one in ready]


def name_of(artifact: Path | str) -> str:
    """What a prompt is called if nothing else is said: as the folder of its run, or its own."""
    place = Path(artifact).resolve()
    return place.parent.name if place.name == "artifact" else place.name


def _check_name(name: str) -> None:
    if not re.fullmatch(NAME, name):
        raise UserError(
            f"{name!r:.80}: is no name of a prompt: expected up to 128 letters, digits, '.', '_' "
            f"and '-', a letter or digit first; give one with {argument('NAME=ARTIFACT')}"
        )


def _check_folder(folder: Path, names: list[str], *, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is no folder; name another one")
    refuse_unwritable(folder)
    for name in names:
        place = folder / name
        if not place.exists():
            continue
        if not (place / STATED).is_file():
            raise UserError(
                f"{place}: is there and is no prompt (it has no {STATED}); name another folder"
            )
        if not overwrite:
            raise UserError(
                f"{place}: is there already; replace the prompt with "
                f"{argument('--overwrite', 'overwrite=True')}, or give another name"
            )


def _ready(name: str, source: Path, manifest: Manifest, model: TunedModel) -> _Ready:
    backbone, length = model.backbone, model.placement.length
    keys, values = keys_values(source, model)
    notes = notes_of(manifest)
    moves = model.placement.positions == "keep"
    if moves:
        try:
            keys = turned(backbone, keys, length)
        except BackboneError as error:
            raise UserError(
                f"{source}: was trained with `positions: keep`, but vLLM puts the text at the "
                f"positions after the prompt's. {error}; train with `positions: shift`"
            ) from error
        notes.append(f"takes {length} of the backbone's positions, which it kept in training")
    if model.injection.kind != "keys_values":
        notes.append(f"is written as the keys and values of its {length} virtual tokens")
    tensors = save(
        {
            "decoder.keys": keys.detach().cpu().contiguous(),
            "decoder.values": values.detach().cpu().contiguous(),
        },
        metadata={"backbone": backbone.sha256},  # one entry: the order of several is any
    )
    sha256 = hashlib.sha256(tensors).hexdigest()
    layers, _, kv_heads, head_dim = keys.shape
    task = task_of(manifest.task)
    stated = {
        "format": FORMAT,
        "name": name,
        "length": length,
        "file": f"{sha256[:16]}.safetensors",
        "sha256": sha256,
        "layers": layers,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "backbone": {
            "name": backbone.name,
            "revision": backbone.revision,
            "sha256": backbone.sha256,
            "dtype": backbone.dtype,
            "family": backbone.model.config.model_type,
        },
        "input": input_of(task),
        "tokens": {
            "leading": [] if is_chat(task) else backbone.tokens.source(""),
            "drops_blank": backbone.tokens.drops_blank,
        },
        "sample": sample_of(task, model),
        "chat_options": dict(manifest.task.chat_options),
        "decoding": decoding_of(manifest.decoding),
        "artifact": {
            "name": manifest.name,
            "method": manifest.method.name,
            "prompt_sha256": manifest.prompt_sha256,
        },
    }
    return _Ready(ForVLLM(name, length, len(tensors), tuple(notes)), stated, tensors)


def _write(place: Path, one: _Ready) -> None:
    """The tensors first, under a name of their own: who has read the old statement finds what it
    names."""
    last = _file_of(place)
    files.write_bytes(place / one.stated["file"], one.tensors)
    text = json.dumps(one.stated, indent=2, ensure_ascii=False)
    files.write_text(place / STATED, text + "\n")
    for old in place.glob("*.safetensors"):
        if old.name not in (one.stated["file"], last):
            old.unlink(missing_ok=True)


def _file_of(place: Path) -> str | None:
    """The tensors' file that a prompt names now, if there is one."""
    try:
        return str(parse_json(opening.read_text(place / STATED, within=place))["file"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
