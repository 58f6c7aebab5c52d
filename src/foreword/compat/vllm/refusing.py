"""What vLLM cannot serve, each with its reason."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from foreword.artifacts.manifest import Manifest
from foreword.backbone import PromptKeyValues
from foreword.backbone.geometry import in_chunks
from foreword.errors import ArtifactError, UserError
from foreword.tuned import TunedModel


def refuse_what_vllm_has_not(source: Path, manifest: Manifest) -> None:
    """Raise UserError for what an artifact says of itself."""
    method, stated = manifest.method, manifest.axes
    kind = manifest.backbone.kind
    if kind != "decoder":
        raise UserError(
            f"{source}: its backbone is an {kind}; in vLLM a prompt stands before the text of a "
            "decoder alone"
        )
    readout = stated.get("readout", "generation")
    if readout != "generation":
        raise UserError(
            f"{source}: its readout is {readout!s:.60}; in vLLM prompts write texts alone"
        )
    if method.moves.kind != "none":
        raise UserError(
            f"{source}: has weights of the backbone that were trained (delta: "
            f"{method.moves.kind}), which requests with other prompts would get, too; train it "
            "with `delta: none`, or serve it by itself (`foreword export model`, `export peft`)"
        )
    if not method.enters.trains:
        raise UserError(
            f"{source}: is {method.name}: it has no trained prompt; send its text to the backbone"
        )
    if manifest.task.chat_template is not None:
        raise UserError(
            f"{source}: was trained with the chat template '{manifest.task.chat_template}', and "
            "vLLM renders messages with the tokenizer's own; give the tokenizer that template and "
            "train without task.chat_template"
        )
    placement = stated.get("placement", "prefix")
    where = {"infix": "between source and target", "in_text": "in slots of its text"}
    if placement != "prefix":
        raise UserError(
            f"{source}: its virtual tokens stand {where.get(str(placement), placement)!s:.60}; in "
            "vLLM a prompt stands before all text"
        )


def keys_values(source: Path, model: TunedModel) -> tuple[Tensor, Tensor]:
    """What a prompt is to the attention of every layer: keys and values
    `[layers, P, kv_heads, head_dim]`.

    Raises:
        UserError: it is something else, or vLLM keeps something else for this backbone.
    """
    backbone = model.backbone
    family = f"'{backbone.name}' ({backbone.model.config.model_type})"
    if backbone.geometry.slides or in_chunks(backbone.model):
        raise UserError(
            f"{source}: layers of {family} attend through a sliding window, out of which vLLM lets "
            "the prompt slide; it is trained to be seen from everywhere"
        )
    if not backbone.geometry.caches_heads:
        what = {
            "latents": "has latent attention, of which vLLM keeps the latents, and a prompt is "
            "keys and values",
            "shared": "has layers that take the keys and values of others, and a prompt has some "
            "for each",
        }[backbone.geometry.cache]
        raise UserError(f"{source}: {family} {what}")
    prompt = model.prompt()
    sites = {} if prompt is None or prompt.embeddings is not None else prompt.sites
    prefix = sites.get("decoder")
    if not isinstance(prefix, PromptKeyValues):
        raise UserError(
            f"{source}: its virtual tokens enter as {model.injection.kind}, and vLLM has a place "
            "for keys and values before the text alone"
        )
    if prefix.gates is not None:
        raise UserError(
            f"{source}: its virtual tokens have a softmax of their own (LLaMA-Adapter), and in "
            "vLLM a prompt shares that of the text"
        )
    every = range(backbone.geometry.main.layers)
    if prefix.layers != tuple(every):
        raise UserError(
            f"{source}: stands in {str(list(prefix.layers))[:80]} of {len(every)} layers alone; in "
            "vLLM a prompt stands in all; train without method.layers"
        )
    keys, values = prefix.keys, prefix.values
    if isinstance(keys, tuple) or isinstance(values, tuple) or keys.shape != values.shape:
        raise UserError(
            f"{source}: keys and values of {family} have different widths, for which vLLM's cache "
            "has no place"
        )
    if not _finite(keys, values):
        raise ArtifactError(f"{source}: its keys and values are not finite on {family}")
    return keys, values


def _finite(*tensors: Tensor) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors)
