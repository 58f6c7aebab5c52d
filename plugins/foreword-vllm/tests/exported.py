"""What tests of the plug-in share: prompts as `foreword export vllm` writes them, and requests as
vLLM's scheduler has them, made without either."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save

from foreword_vllm.scheduling import Engine
from foreword_vllm.tensors import Shape

WEIGHTS = "a" * 64
SHAPE = Shape(layers=2, kv_heads=4, head_dim=8, dtype=torch.float32)
ENGINE = Engine("base", WEIGHTS, SHAPE, block_size=16, context=128)


def tensors(length: int, seed: int = 0, **changed: Any) -> dict[str, torch.Tensor]:
    """Random keys and values."""
    generator = torch.Generator().manual_seed(seed)
    shape = (SHAPE.layers, length, SHAPE.kv_heads, SHAPE.head_dim)
    made = {
        name: torch.randn(shape, generator=generator) for name in ("decoder.keys", "decoder.values")
    }
    return {**made, **changed}


def statement(length: int, content: bytes, **changed: Any) -> dict[str, Any]:
    """What a prompt says of itself."""
    sha256 = hashlib.sha256(content).hexdigest()
    return {
        "format": "1.0",
        "name": "birds",
        "length": length,
        "file": f"{sha256[:16]}.safetensors",
        "sha256": sha256,
        "layers": SHAPE.layers,
        "kv_heads": SHAPE.kv_heads,
        "head_dim": SHAPE.head_dim,
        "backbone": {"name": "base", "sha256": WEIGHTS, "dtype": "float32"},
        "input": [{"field": "record"}, " ->"],
        "tokens": {"leading": [1], "drops_blank": False},
        "sample": {"fields": {"record": "a b"}, "tokens": [1, 97, 32, 98, 32, 45, 62]},
        "chat_options": {},
        "decoding": {
            "max_tokens": 9,
            "temperature": 0.0,
            "top_p": 1.0,
            "top_k": 0,
            "repetition_penalty": 1.0,
            "stop": [],
        },
        **changed,
    }


def write(
    root: Path,
    name: str,
    length: int = 5,
    *,
    seed: int = 0,
    weights: str = WEIGHTS,
    held: dict[str, torch.Tensor] | None = None,
    **changed: Any,
) -> str:
    """Write a prompt, or replace it; returns the hash of its tensors.

    Args:
        root: the folder of prompts.
        name: the prompt's.
        length: P.
        seed: of its numbers.
        weights: the hash of what it was trained on.
        held: its tensors, if not random ones.
        changed: fields of its statement.
    """
    content = save(held or tensors(length, seed), metadata={"backbone": weights})
    stated = statement(length, content, name=name, **changed)
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / stated["file"]).write_bytes(content)
    (folder / ".prompt.json.tmp").write_text(json.dumps(stated))
    (folder / ".prompt.json.tmp").replace(folder / "prompt.json")
    return str(stated["sha256"])


class Request(SimpleNamespace):
    """As much of vLLM's `Request` as the scheduler's side touches; its blocks have the salt and
    the tokens for names."""

    def __init__(self, request_id: str, ids: list[int] | None, **given: Any) -> None:
        super().__init__(
            request_id=request_id,
            prompt_token_ids=ids,
            prompt_embeds=None,
            mm_features=[],
            lora_request=None,
            resumable=False,
            skip_reading_prefix_cache=False,
            cache_salt=None,
            kv_transfer_params=None,
            num_prompt_tokens=len(ids or [0]),
            _all_token_ids=list(ids or [0]),
            block_hashes=[],
        )
        self.__dict__.update(given)
        self.update_block_hashes()

    @property
    def num_tokens(self) -> int:
        """Of all that was read and written."""
        return len(self._all_token_ids)

    def update_block_hashes(self) -> None:
        """Names of the whole blocks that have none yet."""
        size = ENGINE.block_size
        for end in range((len(self.block_hashes) + 1) * size, self.num_tokens + 1, size):
            self.block_hashes.append((self.cache_salt, tuple(self._all_token_ids[:end])))


def asking(request_id: str, ids: list[int], name: Any, **given: Any) -> Request:
    """A request that names a prompt."""
    return Request(request_id, ids, kv_transfer_params={"foreword": name}, **given)
