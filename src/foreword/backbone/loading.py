"""From a name to a frozen backbone.

`foreword/...` names are ours and lie in the package; anything else is a folder or a hub name and
goes to transformers' own loading.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from foreword.backbone import attention, families, hashing
from foreword.backbone.model import Backbone
from foreword.backbone.tokens import BosRule, Tokens
from foreword.errors import BackboneError, did_you_mean

DType = Literal["auto", "float32", "bfloat16", "float16", "float64"]
BUNDLED = Path(__file__).parent.parent / "bundled"


def bundled_backbones() -> dict[str, Path]:
    """The backbones in the package, by name."""
    return {
        f"foreword/{config.parent.name}": config.parent
        for config in sorted(BUNDLED.glob("*/config.json"))
    }


def load_backbone(
    name: str,
    *,
    revision: str | None = None,
    dtype: DType = "float32",
    device: str | torch.device = "cpu",
    bos: BosRule = "auto",
    local_files_only: bool = False,
    trust_remote_code: bool = False,
) -> Backbone:
    """Load a backbone, freeze it, and make sure that it can carry prompt keys and values.

    Args:
        name: a `foreword/...` name, a folder, or a hub name.
        revision: branch, tag or commit of a hub name.
        dtype: what its weights are cast to; "auto" keeps the stored type.
        device: where it lies.
        bos: rule for the beginning token (see `Tokens`).
        local_files_only: never download.
        trust_remote_code: run code that comes with the checkpoint.

    Raises:
        BackboneError: it cannot be found, is not a decoder, or its family cannot carry a prompt.
    """
    folder = _bundled(name)
    where = str(folder or name)
    options: dict[str, Any] = {
        "revision": revision,
        "local_files_only": local_files_only,
        "trust_remote_code": trust_remote_code,
    }
    try:
        config = AutoConfig.from_pretrained(where, **options)
        _check_decoder(name, config)
        families.refuse_by_name(config.model_type)
        attention.register()
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(where, **options)
            model, report = AutoModelForCausalLM.from_pretrained(
                where,
                dtype=dtype if dtype == "auto" else getattr(torch, dtype),
                attn_implementation=attention.IMPLEMENTATION,
                output_loading_info=True,
                **options,
            )
    except (
        OSError,
        ValueError,
        KeyError,
        ImportError,
        RuntimeError,
        SafetensorError,
    ) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BackboneError(
            f"backbone '{name}' cannot be loaded: {first}. Give a folder written by "
            f"save_pretrained(), a hub name, or one of {', '.join(bundled_backbones())}"
        ) from error
    _check_complete(name, report)
    model.to(device)
    stored = folder or _stored_folder(where, revision)
    return Backbone.wrap(
        model,
        Tokens(tokenizer, bos),
        name=name,
        revision=getattr(config, "_commit_hash", None) or revision,
        sha256=hashing.hash_folder(stored) if stored else hashing.hash_module(model),
    )


def _check_complete(name: str, report: dict[str, Any]) -> None:
    """transformers makes up random numbers for weights that a checkpoint lacks; we do not."""
    for key, what in (
        ("missing_keys", "its checkpoint lacks weights that the model needs"),
        ("unexpected_keys", "its checkpoint has weights that the model has no place for"),
    ):
        names = sorted(report.get(key) or ())
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


def _stored_folder(where: str, revision: str | None) -> Path | None:
    if Path(where).is_dir():
        return Path(where)
    from transformers.utils import cached_file

    found = cached_file(where, "config.json", revision=revision, local_files_only=True)
    return Path(found).parent if found else None


def _check_decoder(name: str, config: Any) -> None:
    if config.is_encoder_decoder:
        raise BackboneError(
            f"backbone '{name}' ({config.model_type}) is an encoder-decoder; prefix-tuning here "
            "needs a decoder such as gpt2, llama, qwen3 or opt"
        )
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise BackboneError(
            f"backbone '{name}' ({config.model_type}) is not a decoder with a language-model head"
        )


class _quiet:
    """Keeps transformers' loading bars and advice off the terminal for a moment."""

    def __enter__(self) -> None:
        self.level = transformers_logging.get_verbosity()
        self.bars = transformers_logging.is_progress_bar_enabled()
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        transformers_logging.set_verbosity(self.level)
        if self.bars:
            transformers_logging.enable_progress_bar()


@lru_cache(maxsize=1)
def default_device() -> str:
    """cuda, else mps, else cpu."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
