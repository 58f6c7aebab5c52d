"""From a name to a frozen backbone.

`foreword/...` names are ours and lie in the package; anything else is a folder or a hub name and
goes to transformers' own loading.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
)

from foreword.backbone import arithmetic, devices
from foreword.backbone.devices import DeviceMap
from foreword.backbone.model import Backbone
from foreword.backbone.prompts.attention import Attention
from foreword.backbone.silence import quiet
from foreword.backbone.text.tokens import BosRule, Tokens
from foreword.backbone.weights import claims, gguf, hashing
from foreword.backbone.weights import quantization as quantized
from foreword.backbone.weights.quantization import Quantization
from foreword.errors import BackboneError, argument, did_you_mean

DType = Literal["auto", "float32", "bfloat16", "float16", "float64"]
_USUAL = (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError)
"""What transformers itself raises where a checkpoint cannot be loaded."""
_loading = threading.Lock()
"""transformers sets torch's default type and how modules start for the whole process while it
loads, so that one backbone is loaded at a time."""
BUNDLED = Path(__file__).parent.parent / "bundled"


def bundled_backbones() -> dict[str, Path]:
    """The backbones in the package, by name."""
    return {
        f"foreword/{config.parent.name}": config.parent
        for config in sorted(BUNDLED.glob("*/config.json"))
    }


def load_backbone(
    name: str | Path,
    *,
    revision: str | None = None,
    dtype: DType = "float32",
    device: str | torch.device = "cpu",
    bos: BosRule = "auto",
    attention: Attention | None = None,
    quantization: Quantization | None = None,
    device_map: DeviceMap | None = None,
    local_files_only: bool = False,
    trust_remote_code: bool = False,
) -> Backbone:
    """Load a backbone, freeze it, and find out how it takes a prompt.

    Args:
        name: a `foreword/...` name, a folder, a hub name, or a GGUF file: its path, or
            `owner/repository/file.gguf` of the hub.
        revision: branch, tag or commit of a hub name.
        dtype: what its weights are cast to; "auto" keeps the stored type, but takes float32 for one
            of 16 bits that the device has no units for.
        device: where it lies, unless there is a `device_map`.
        bos: rule for the beginning token (see `Tokens`).
        attention: how attention is computed: "sdpa", "eager" or "flex"; what suits the family if
            not given.
        quantization: what transformers' quantisation config is made of: `quant_method`, and that
            method's options. A checkpoint that is stored quantised loads as it says.
        device_map: a rule of transformers' ("auto", …) or a device by module, for a model that is
            spread over several, or that lies partly in memory ("cpu") or on the disk ("disk").
        local_files_only: never download.
        trust_remote_code: run code that comes with the checkpoint.

    Raises:
        BackboneError: it cannot be found, or is no language model; its attention, quantisation or
            devices cannot be had here; or it comes with code that is not trusted, or that fails.
    """
    name = str(name)
    if device_map is None:
        devices.check_device(device)
    packed = None
    folder = _bundled(name)
    if gguf.is_gguf(name):
        packed = _unpacked(name, revision, dtype, local_files_only=local_files_only)
        folder = packed.folder
    where = str(folder or name)
    options: dict[str, Any] = {
        "revision": None if packed else revision,
        "local_files_only": local_files_only,
        "trust_remote_code": trust_remote_code,
    }
    spread = {} if device_map is None else devices.options(device_map)
    try:
        gguf.check_folder(name, Path(where))
        claims.check_files(name, where)
        config = AutoConfig.from_pretrained(where, **options)
        claims.check_config(name, config)
        auto = _class(name, config, trusted=trust_remote_code)
        used = quantized.stored(config) or (quantized.plain(quantization) if quantization else None)
        if used and not spread:
            spread = {"device_map": {"": torch.device(device)}}  # it cannot always be moved
        with (
            _loading,
            quiet(),
            _quantising(name, config, quantization, dtype, spread) as quantising,
        ):
            tokenizer = AutoTokenizer.from_pretrained(where, **options)
            tokenizer("a")  # what its files say badly is noticed when it is used
            model, report = auto.from_pretrained(
                where,
                dtype=dtype if dtype == "auto" else getattr(torch, dtype),
                output_loading_info=True,
                **options,
                **spread,
                **quantising,
            )
    except BackboneError:
        raise
    except Exception as error:  # what libraries raise for a folder's content has no common class
        if not trust_remote_code and "trust_remote_code" in str(error):
            raise BackboneError(
                f"backbone '{name}': comes with code of its own, which is not run unless you trust "
                "it: read it, then give "
                f"{argument('--trust-remote-code', '`trust_remote_code=True`')}; for an artifact "
                f"name the backbone with {argument('--backbone')} as well"
            ) from error
        first = _first_line(error)
        if trust_remote_code and not isinstance(error, _USUAL):
            raise BackboneError(
                f"backbone '{name}': the code that comes with it fails "
                f"({type(error).__name__}: {first}); it may be written for another version of "
                "transformers"
            ) from error
        if quantization and isinstance(error, ImportError):
            raise BackboneError(f"{quantized.FIELD}: {first}") from error
        if device_map is not None and "device_map" in first:
            raise BackboneError(f"{devices.FIELD}: {first}") from error
        if device_map is not None and "meta device" in first:
            raise BackboneError(
                f"{devices.FIELD}: weights that '{name}' ties together lie in two places "
                f"({first}); give one place to all modules that share them"
            ) from error
        raise BackboneError(
            f"backbone '{name}' cannot be loaded: {first}. Give a folder written by "
            f"save_pretrained(), a hub name, or one of {', '.join(bundled_backbones())}"
        ) from error
    _check_complete(name, model, report)
    if used and not quantized.stored(config):
        quantized.check_quantised(name, model, used)
    if device_map is not None:
        devices.check_modules(device_map, model)
    if not spread:
        model.to(device)
    stored = folder or stored_folder(where, revision)
    sha256 = packed.source.tensors if packed else ""
    sha256 = sha256 or (hashing.hash_folder(stored) if stored else hashing.hash_module(model))
    widened = arithmetic.widen(model) if dtype == "auto" and not spread else None
    notes = [packed.note(name) if packed else None, widened]
    return Backbone.wrap(
        model,
        Tokens(tokenizer, bos),
        name=name,
        revision=getattr(config, "_commit_hash", None) or revision,
        sha256=sha256,
        attention=attention,
        quantization=used,
        notes=tuple(note for note in notes if note),
    )


def _unpacked(
    name: str, revision: str | None, dtype: str, *, local_files_only: bool
) -> gguf.Unpacked:
    file = gguf.file_of(name, revision, local_files_only=local_files_only)
    with _loading, quiet():
        return gguf.unpacked(name, file, dtype, lambda config: _class(name, config, trusted=False))


def _first_line(error: Exception) -> str:
    """What an error of a library says in short: its first line, and the second where the first one
    only announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    short = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    if not short:
        return type(error).__name__
    return short if len(short) <= 300 else f"{short[:297]}..."


@contextmanager
def _quantising(
    name: str, config: Any, wanted: Quantization | None, dtype: str, spread: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """The options of `from_pretrained` for a quantised model, and its mistakes in our words."""
    stored = quantized.stored(config)
    where = spread.get("device_map")
    if stored is not None:
        what = f"backbone '{name}' is stored quantised ({stored.get('quant_method')})"
        if wanted and quantized.plain(wanted) != stored:
            raise BackboneError(f"{quantized.FIELD}: {what}, and loads so; leave the field out")
        quantized.check_environment(stored, where, what=what, is_stored=True)
        yield {}
    elif wanted:
        made = quantized.config_of(wanted)
        quantized.check_environment(made, where, what=quantized.FIELD, is_stored=False)
        with quantized.converting(name, dtype):
            yield {"quantization_config": made}
    else:
        yield {}


HEADS = (
    "classifier",
    "cls",
    "discriminator_predictions",
    "generator_lm_head",
    "generator_predictions",
    "lm_head",
    "pooler",
    "pre_classifier",
    "predictions",
    "qa_outputs",
    "score",
    "sop_classifier",
    "vocab_layer_norm",
    "vocab_projector",
    "vocab_transform",
)
"""What stands on top of an encoder's or decoder's states, and is left out with no harm to them."""


def _check_complete(name: str, model: Any, report: dict[str, Any]) -> None:
    """transformers makes up random numbers for weights that a checkpoint lacks; we do not."""
    body = f"{model.base_model_prefix}."
    for key, what in (
        ("missing_keys", "its checkpoint lacks weights that the model needs"),
        ("unexpected_keys", "its checkpoint has weights that the model has no place for"),
    ):
        names = sorted(report.get(key) or ())
        if key == "unexpected_keys":
            names = [n for n in names if n.removeprefix(body).split(".")[0] not in HEADS]
        if names:
            some = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            raise BackboneError(
                f"backbone '{name}': {what} ({len(names)}: {some}); checkpoint and config.json do "
                "not belong together, or the checkpoint is not whole"
            )


def _bundled(name: str) -> Path | None:
    if not name.startswith("foreword/"):
        return None
    known = bundled_backbones()
    if name not in known:
        raise BackboneError(
            f"backbone '{name}': no such bundled backbone{did_you_mean(name, known)}"
        )
    return known[name]


def stored_folder(where: str, revision: str | None) -> Path | None:
    """The folder of a checkpoint that is here; None where there is none."""
    if gguf.is_gguf(where):
        return _unpacked(where, revision, "float32", local_files_only=True).folder
    if Path(where).is_dir():
        return Path(where)
    from transformers.utils import cached_file

    file = cached_file(where, "config.json", revision=revision, local_files_only=True)
    return Path(file).parent if file else None


def _class(name: str, config: Any, *, trusted: bool) -> Any:
    """transformers' class for what a checkpoint holds.

    Its config says what it was saved from. An encoder may lack its language-model head; a decoder
    saved without one has it tied to its embeddings.

    Args:
        name: the backbone's.
        config: transformers' config of it.
        trusted: whether classes of the checkpoint's own code may be taken, which its config names.
    """
    from transformers.models.auto import modeling_auto as auto

    own = set(getattr(config, "auto_map", None) or ()) if trusted else set()
    stated = (getattr(config, "architectures", None) or [""])[0]
    if config.is_encoder_decoder:
        return AutoModelForSeq2SeqLM
    if stated.endswith("ForMaskedLM"):
        return AutoModelForMaskedLM
    # A mapping has what a program registered, too; its names have all model types.
    encoder = (
        config.model_type in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
        or type(config) in auto.MODEL_FOR_MASKED_LM_MAPPING
        or "AutoModelForMaskedLM" in own
    )
    decoder = (
        config.model_type in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        or type(config) in auto.MODEL_FOR_CAUSAL_LM_MAPPING
        or "AutoModelForCausalLM" in own
    )
    if decoder and (not encoder or stated.endswith(("ForCausalLM", "LMHeadModel"))):
        return AutoModelForCausalLM
    if encoder and own and "AutoModel" not in own:
        return AutoModelForMaskedLM
    if encoder or "AutoModel" in own:
        return AutoModel
    raise BackboneError(
        f"backbone '{name}' ({config.model_type}) is no language model: neither a decoder, nor an "
        "encoder, nor an encoder-decoder of text"
    )


@lru_cache(maxsize=1)
def default_device() -> str:
    """cuda, else mps, else cpu."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
