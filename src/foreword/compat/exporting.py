"""From an artifact to PEFT's folder: `foreword export peft`. The backbone is not needed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from foreword.artifacts.manifest import CARD, TENSORS, Manifest, artifact_folder, read_manifest
from foreword.artifacts.stored import read_parts
from foreword.axes.injection import KeysValues
from foreword.axes.injection.base import expect_shapes
from foreword.backbone import Geometry, SiteGeometry
from foreword.common import files
from foreword.common.run_files import refuse_unwritable
from foreword.common.sites import Site
from foreword.compat.adapter import CONFIG, TENSOR, WEIGHTS
from foreword.compat.adaption import AdaptionPromptConfig, adaption
from foreword.compat.configs import (
    CPTConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptLearningConfig,
    PromptTuningConfig,
)
from foreword.compat.low_rank import LoraConfig, low_rank
from foreword.errors import ArtifactError, RunError, UserError
from foreword.methods import CPT, LLaMAAdapter, PTuning, axes
from foreword.methods.cpt import Bounded

Written = PromptLearningConfig | LoraConfig | AdaptionPromptConfig


def export_peft(artifact: Path | str, folder: Path | str) -> Written:
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
    tensors: dict[str, Tensor]
    config: Written
    adapts = isinstance(manifest.method, LLaMAAdapter)
    if not adapts:
        _refuse_what_peft_has_not(source, manifest)
    if adapts:
        tensors, config = adaption(source, manifest, _common(manifest))
    elif manifest.method.moves.kind == "lora":
        tensors, config = low_rank(source, manifest, _common(manifest))
    else:
        rows, config = _prompt(source, manifest)
        tensors = {TENSOR: rows.contiguous()}
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


def _refuse_what_peft_has_not(source: Path, manifest: Manifest) -> None:
    method, stated = manifest.method, manifest.axes
    lora = method.moves.kind == "lora"
    if lora and method.length:
        raise UserError(
            f"{source}: is a prompt of {method.length} virtual tokens with LoRA beside it, and a "
            "folder of PEFT's holds one of them; train one alone to export it"
        )
    if lora:
        if stated.get("readout", "generation") != "generation":
            raise UserError(
                f"{source}: its readout is {str(stated['readout'])[:60]}, for which LoRA in PEFT's "
                "format has no place here; `foreword export model` writes the model below it"
            )
        return
    if not method.enters.trains and method.moves.kind != "none":
        raise UserError(
            f"{source}: is {method.name}, which PEFT's format of prompts and LoRA has no place for"
            f"{'' if method.moves.kind == 'adapter' else '; use `foreword export model`'}"
        )
    if not method.enters.trains:
        raise UserError(
            f"{source}: is {method.name}: it has no trained prompt that PEFT could load"
        )
    if stated.get("positions", "shift") != "shift":
        raise UserError(
            f"{source}: was trained with positions '{str(stated['positions'])[:60]}', but PEFT "
            "always puts the text at positions after the prompt's, where the answers would be "
            "others; train with `positions: shift` to export"
        )
    if stated.get("window") == "seen":
        raise UserError(
            f"{source}: its backbone attends through a sliding window, from beyond which the "
            "prompt is seen here, but not in PEFT, where the answers would be others"
        )
    if issubclass(method.enters, axes.KeysValues) and stated.get("cache") == "latents":
        raise UserError(
            f"{source}: its backbone's cache holds latents from which keys and values are made "
            "(latent attention), and PEFT puts a prefix into the cache; prompt tuning and P-Tuning "
            "can be exported"
        )
    for axis, usual in (("delta", "none"), ("placement", "prefix"), ("readout", "generation")):
        if stated.get(axis, usual) != usual:
            raise UserError(
                f"{source}: its {axis} is {str(stated[axis])[:60]}, for which a prompt in PEFT's "
                f"format has no place here; only {usual} can be exported"
            )
    sites = stated.get("sites", ["decoder"])
    if manifest.backbone.kind == "encoder-decoder":
        if issubclass(method.enters, axes.KeysValues):
            raise UserError(
                f"{source}: is a prefix on an encoder-decoder ({', '.join(map(str, sites))[:60]}): "
                "PEFT gives its encoder and the attention over it none, and lets layers of the "
                "decoder share theirs; prompt tuning and P-Tuning on the encoder can be exported"
            )
        if sites != ["encoder"]:
            raise UserError(
                f"{source}: its virtual tokens stand in the input of {str(sites)[:60]}; PEFT has "
                "them in the encoder's alone"
            )
    elif getattr(method, "layers", None) is not None:
        raise UserError(
            f"{source}: carries a prefix in chosen layers alone (method.layers); PEFT has it in all"
        )


def _prompt(source: Path, manifest: Manifest) -> tuple[Tensor, PromptLearningConfig]:
    """The virtual tokens `[P, width]`, and the configuration that goes with them."""
    method = manifest.method
    tensors = read_parts(source, manifest)[TENSORS]
    encodes = manifest.backbone.kind == "encoder-decoder"
    common: dict[str, Any] = {
        **_common(manifest),
        "num_virtual_tokens": method.length,
        "num_transformer_submodules": 1,  # PEFT's 2 would add rows that it never reads
    }
    if issubclass(method.enters, axes.KeysValues):
        geometry = _geometry(source, tensors)
        prefix = KeysValues(geometry)
        rows = prefix.matrix(prefix.stored(tensors, method.length))
        return rows, PrefixTuningConfig(
            **common,
            token_dim=geometry.width,
            num_layers=geometry.main.layers,
            num_attention_heads=geometry.main.kv_heads,
            encoder_hidden_size=geometry.width,
        )
    rows = _embeddings(source, tensors, "encoder" if encodes else "decoder", method.length)
    common["token_dim"] = rows.shape[1]
    if isinstance(method, PTuning):
        return rows, PromptEncoderConfig(**common, **_encoder(method, rows.shape[1]))
    if isinstance(method, CPT):
        return rows, CPTConfig(**common, **_context(source, method))
    return rows, PromptTuningConfig(**common)


def _context(source: Path, method: CPT) -> dict[str, Any]:
    """What PEFT keeps of CPT's context; it counts the tokens to know how many there are.

    Raises:
        UserError: the artifact does not say which tokens it started from.
    """
    if not method.init.tokens:
        raise UserError(
            f"{source}: method.init has no `tokens`, of which PEFT's format of CPT needs one for "
            "each virtual token; train it by a recipe to export it"
        )
    made_by = method.reparameterization
    bounds = {}
    if isinstance(made_by, Bounded):
        bounds = {
            "opt_weighted_loss_type": "decay",
            "opt_loss_decay_factor": made_by.decay,
            "opt_projection_epsilon": made_by.epsilon,
            "opt_projection_format_epsilon": made_by.format_epsilon,
        }
    return {
        "cpt_token_ids": list(method.init.tokens),
        "cpt_tokens_type_mask": list(method.init.types),
        **bounds,
    }


def _common(manifest: Manifest) -> dict[str, Any]:
    """What the configurations of all methods say."""
    name = manifest.backbone.name
    encodes = manifest.backbone.kind == "encoder-decoder"
    return {
        "task_type": "SEQ_2_SEQ_LM" if encodes else "CAUSAL_LM",
        "inference_mode": True,
        # PEFT would look for our own names on the hub.
        "base_model_name_or_path": None if name.startswith("foreword/") else name,
        "revision": manifest.backbone.revision,
    }


def _geometry(source: Path, tensors: Mapping[str, Tensor]) -> Geometry:
    """As much of the backbone's geometry as the keys show; `width` is PEFT's token_dim."""
    keys = tensors.get("decoder.keys")
    if keys is None or keys.ndim != 4 or not keys.numel():
        raise ArtifactError(
            f"{source / TENSORS}: expected decoder.keys [layers, P, kv_heads, head_dim]"
        )
    layers, _, kv_heads, head_dim = keys.shape
    site = SiteGeometry(layers, kv_heads, head_dim, head_dim)
    return Geometry("decoder", {"decoder": site}, kv_heads * head_dim, None, 0)


def _embeddings(source: Path, tensors: Mapping[str, Tensor], site: Site, length: int) -> Tensor:
    """The virtual tokens `[P, d]`; any d, since no backbone is here to say it."""
    name = f"{site}.embeddings"
    found = tensors.get(name)
    d = found.shape[1] if found is not None and found.ndim == 2 and found.numel() else 1
    expect_shapes(tensors, {name: (length, d)})
    rows = tensors[name]
    if not rows.is_floating_point() or not rows.isfinite().all():
        raise ArtifactError(f"{source / TENSORS}: {name} must hold finite floating-point numbers")
    return rows


def _encoder(method: PTuning, d: int) -> dict[str, Any]:
    """How the prompt was made; PEFT keeps it, and does not run it on a folded prompt."""
    made_by = method.reparameterization
    if isinstance(made_by, axes.ReluMLP):
        return {
            "encoder_reparameterization_type": "MLP",
            "encoder_hidden_size": made_by.hidden or d,
        }
    if not isinstance(made_by, axes.LSTM):
        return {}
    if not isinstance(made_by, axes.LSTM):
        return {}
    return {
        "encoder_reparameterization_type": "LSTM",
        "encoder_hidden_size": made_by.hidden or max(1, d // 2),
        "encoder_num_layers": made_by.layers,
        "encoder_dropout": made_by.dropout,
    }


def _card(manifest: Manifest, config: Written) -> str:
    task, length = manifest.task, manifest.method.length
    what = f"A prompt of {length} virtual tokens" if length else "Low-rank updates"
    alone = """
Generate one row at a time: PEFT puts the prompt before a row's padding, and other rows change the
answer.
"""
    base = config.base_model_name_or_path
    front = f"base_model: {json.dumps(base)}\n" if base else ""
    return f"""---
{front}library_name: peft
---

# {manifest.name}

{what} for `{manifest.backbone.name}`, trained with
{manifest.method.name} by foreword and exported to PEFT's format:

```python
model = peft.PeftModel.from_pretrained(base_model, "{manifest.name}")
```

What PEFT's format has no place for:

- Input: `{task.input!r}`; answer: `{task.target!r}`; the answer ends in the end token.
- Beginning token: `{manifest.tokens.bos}` (auto: as the tokenizer does by itself).
- Decoding: `{manifest.decoding.model_dump(exclude_defaults=True) or "greedy"}`
- Backbone sha256 over its stored tensors: `{manifest.backbone.sha256}`
{alone if length else ""}"""
