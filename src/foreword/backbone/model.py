"""A frozen decoder: logits at chosen positions, keys and values of a text, decoding.

The only class through which the rest of foreword runs a model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, GenerationConfig, PreTrainedModel

from foreword.backbone import attention, families, hashing
from foreword.backbone.activations import fuse_activations
from foreword.backbone.attention import ARGUMENT, PromptKeyValues
from foreword.backbone.decoding import Decoding, generation_config, watch
from foreword.backbone.families import Geometry
from foreword.backbone.tokens import BosRule, Tokens
from foreword.errors import BackboneError
from foreword.layout import Layout


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen model with its token rule and its identity; see `load_backbone` and `wrap`."""

    model: PreTrainedModel
    tokens: Tokens
    geometry: Geometry
    name: str
    revision: str | None
    sha256: str

    @classmethod
    def wrap(
        cls,
        model: PreTrainedModel,
        tokens: Tokens,
        *,
        name: str | None = None,
        revision: str | None = None,
        sha256: str | None = None,
    ) -> Backbone:
        """Take a transformers model: freeze it, route its attention, check that a prefix works.

        Raises:
            BackboneError: its family cannot carry prompt keys and values.
        """
        families.refuse_by_name(model.config.model_type)
        attention.register()
        try:
            model.set_attn_implementation(attention.IMPLEMENTATION)
        except ValueError as error:
            raise BackboneError(
                f"backbone family '{model.config.model_type}' cannot carry a prefix: {error}"
            ) from error
        # What a checkpoint ships there (penalties, suppressed tokens) would change every answer.
        model.generation_config = GenerationConfig()
        model.eval()
        model.requires_grad_(False)
        fuse_activations(model)
        geometry = families.measure(model)
        families.probe(model, geometry)
        return cls(
            model,
            tokens,
            geometry,
            name or model.config.name_or_path or model.config.model_type,
            revision,
            sha256 or hashing.hash_module(model),
        )

    @property
    def device(self) -> torch.device:
        """Where the model's first layer lies."""
        device: torch.device = self.model.device
        return device

    @property
    def dtype(self) -> str:
        """The type its weights were loaded as, by torch's name."""
        return str(self.model.dtype).removeprefix("torch.")

    def with_bos(self, bos: BosRule) -> Backbone:
        """The same model under another rule for the beginning token."""
        return replace(self, tokens=replace(self.tokens, bos=bos))

    def logits(
        self, layout: Layout, prompt: PromptKeyValues | None, reading: Tensor | None = None
    ) -> Tensor:
        """One forward pass.

        Args:
            layout: a batch, on the model's device.
            prompt: keys and values before every row, or none.
            reading: flat positions `[N]` (`Layout.reading_positions`) at which the head is run.

        Returns:
            `[N, vocabulary]`, or `[B, T, vocabulary]` without `reading`.
        """
        extra = {} if prompt is None else {ARGUMENT: prompt}
        with self._reading(reading):
            logits: Tensor = self.model(
                input_ids=layout.input_ids,
                attention_mask=layout.attention_mask,
                position_ids=layout.position_ids,
                use_cache=False,
                **extra,
            ).logits
        return logits

    @contextmanager
    def _reading(self, reading: Tensor | None) -> Iterator[None]:
        """Run the head at `reading` alone; whatever the family does to its logits stays in place.

        The rows are gathered into a contiguous `[N, d]`: the head on a sliced, strided tensor is
        several times slower.
        """
        if reading is None:
            yield
            return

        def gather(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (inputs[0].flatten(0, 1).index_select(0, reading), *inputs[1:])

        handle = self.model.get_output_embeddings().register_forward_pre_hook(gather)
        try:
            yield
        finally:
            handle.remove()

    @torch.no_grad()
    def keys_values(self, ids: list[int]) -> tuple[Tensor, Tensor]:
        """The model's own keys and values for a text: two `[layers, T, kv_heads, head_dim]`.

        Position ids run from 0, so that they are what a prefix of this text would have had.
        """
        given = torch.tensor([ids], device=self.device)
        cache = self.model(
            input_ids=given, attention_mask=torch.ones_like(given), use_cache=True
        ).past_key_values
        return _read_cache(cache)

    def embeddings(self, ids: list[int]) -> Tensor:
        """The model's own input embeddings of tokens: `[T, width]`, detached."""
        table = self.model.get_input_embeddings()
        found: Tensor = table(torch.tensor(ids, dtype=torch.long, device=self.device))
        return found.detach()

    def read_embeddings(self, rows: Tensor) -> PromptKeyValues:
        """Keys and values of P embeddings `[P, width]` at positions 0 to P - 1, with gradient."""
        length = rows.shape[0]
        positions = torch.arange(length, device=self.device)[None]
        cache = self.model(
            inputs_embeds=rows[None].to(self.device, self.model.dtype),
            attention_mask=torch.ones_like(positions),
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
        ).past_key_values
        return PromptKeyValues(*_read_cache(cache))

    @torch.no_grad()
    def generate(
        self, layout: Layout, prompt: PromptKeyValues | None, how: Decoding
    ) -> list[list[int]]:
        """Continue every row of a left-padded layout; returns the new tokens, end token left off.

        The prompt lies in the cache from the start, so no step pays for it again.
        """
        rows, length = layout.rows, 0 if prompt is None else prompt.length
        mask = layout.attention_mask.long()
        extra: dict[str, Any] = {}
        if prompt is not None:
            extra["past_key_values"] = families.fill_cache(
                self.model, prompt.keys, prompt.values, rows=rows * how.num_beams
            )
            mask = torch.cat([mask.new_ones(rows, length), mask], dim=1)
        extra |= watch(self.tokens, layout, how)
        output = self.model.generate(
            input_ids=layout.input_ids,
            attention_mask=mask,
            position_ids=layout.position_ids,
            generation_config=generation_config(self.tokens, how),
            **extra,
        )
        new = output[:, layout.input_ids.shape[1] :].tolist()
        return [self._until_end(row) for row in new]

    def _until_end(self, ids: list[int]) -> list[int]:
        end = self.tokens.eos_id
        return ids[: ids.index(end)] if end in ids else ids


def _read_cache(cache: Cache) -> tuple[Tensor, Tensor]:
    """Keys and values of a cache's first row: two `[layers, T, kv_heads, head_dim]`."""
    keys = torch.stack([layer.keys[0].transpose(0, 1) for layer in cache.layers])
    values = torch.stack([layer.values[0].transpose(0, 1) for layer in cache.layers])
    return keys, values
