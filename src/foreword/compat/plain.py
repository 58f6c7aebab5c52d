"""From an artifact to a plain model's folder: `foreword export model`."""

from __future__ import annotations

from pathlib import Path

from foreword.artifacts.artifact import load_model
from foreword.artifacts.card import asked_and_answered
from foreword.artifacts.manifest import CARD, Manifest, artifact_folder, read_manifest
from foreword.backbone import Backbone
from foreword.backbone.silence import quiet
from foreword.backbone.weights.quantization import Quantization
from foreword.common import files
from foreword.common.run_files import refuse_unwritable
from foreword.compat import losses
from foreword.errors import RunError, UserError
from foreword.methods.axes import Bottlenecks


def export_model(
    artifact: Path | str,
    folder: Path | str,
    *,
    backbone: Backbone | str | None = None,
    device: str = "cpu",
    dtype: str | None = None,
    quantization: Quantization | None = None,
    other_backbone: bool = False,
    download: bool = False,
) -> list[str]:
    """Write the backbone as an artifact changed it, as a folder that transformers loads by itself.

    LoRA's updates are added to the weights; weights that moved themselves take their places. Of a
    quantised backbone the folder holds the weights that it computed with, so that it answers as the
    artifact does; how far they are from the checkpoint's is said.

    Args:
        artifact: an artifact, or a run folder that has one.
        folder: where it goes; there must be nothing yet.
        backbone: a loaded one, or where to load it from; by default what the artifact names.
        device: where it is loaded to.
        dtype: what its weights are cast to, and stored as; as trained if not given.
        quantization: how the backbone is quantised, instead of how it was trained with; {} for not
            at all: what was trained on quantised weights is then added to those of the checkpoint.
        other_backbone: take a backbone with other weights all the same.
        download: let a hub name be downloaded.

    Returns:
        What the folder does not hold, and what was lost on the way, in words.

    Raises:
        ArtifactError: the artifact is damaged or does not fit the backbone.
        UserError: what it changed has no place in a plain model, or the folder is not empty.
        RunError: the folder cannot be written.
    """
    source, folder = artifact_folder(artifact), Path(folder)
    manifest = read_manifest(source)
    _refuse_what_is_no_weight(source, manifest)
    files.refuse_occupied(folder)
    refuse_unwritable(folder)
    _, model = load_model(
        source,
        backbone=backbone if isinstance(backbone, Backbone) else None,
        backbone_name=backbone if isinstance(backbone, str) else None,
        device=device,
        dtype=dtype,
        quantization=quantization,
        other_backbone=other_backbone,
        download=download,
    )
    origin, weights = model.delta.origin, model.delta.weights()
    assert origin is not None, "something moved"
    plain = origin.plain(weights)
    from transformers import GenerationConfig

    plain.generation_config = GenerationConfig.from_model_config(plain.config)
    notes = [*_notes(manifest), *losses.of(manifest, origin, weights, device)]
    with files.new_folder(folder) as temporary, quiet():
        try:
            plain.save_pretrained(temporary)
            origin.tokens.tokenizer.save_pretrained(temporary)
        except (OSError, ValueError, RuntimeError) as error:
            raise RunError(f"{folder}: cannot be written: {error}") from error
        files.write_text(temporary / CARD, _card(manifest, notes))
    return notes


def _refuse_what_is_no_weight(source: Path, manifest: Manifest) -> None:
    method = manifest.method
    if method.length:
        raise UserError(
            f"{source}: has a prompt of {method.length} virtual tokens, for which a plain model "
            "has no place, and without which it would answer otherwise; `foreword export peft` "
            "writes prompts"
        )
    if method.moves.kind == "none":
        raise UserError(
            f"{source}: is {method.name}, which leaves the backbone as it is; the plain model is "
            f"'{manifest.backbone.name}' itself"
        )
    if isinstance(method.moves, Bottlenecks):
        raise UserError(
            f"{source}: adapters are layers of their own, for which a plain model has no place; "
            "LoRA can be put into its weights"
        )


def _notes(manifest: Manifest) -> list[str]:
    if manifest.head_sha256 is None:
        return []
    return [
        "the head that reads the answer stays in the artifact (head.safetensors); the folder holds "
        "the model below it"
    ]


def _card(manifest: Manifest, notes: list[str]) -> str:
    task = manifest.task
    bullets = "".join(f"- {note}\n" for note in notes)
    return f"""# {manifest.name}

`{manifest.backbone.name}` with what {manifest.method.name} changed put into its weights, by
foreword: a plain transformers model.

- {asked_and_answered(task)}
- Beginning token: `{manifest.tokens.bos}` (auto: as the tokenizer does by itself).
- Backbone sha256 over its stored tensors, before: `{manifest.backbone.sha256}`
{bullets}"""
