"""A frozen model: logits at chosen positions, keys and values of a text, decoding.

The only class through which the rest of foreword runs a model.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import DynamicCache, GenerationConfig, PreTrainedModel

from foreword.backbone import arithmetic, devices, geometry, turns
from foreword.backbone.call import Call, inputs
from foreword.backbone.checking import check_with_a_text
from foreword.backbone.layout import Layout
from foreword.backbone.leaving_out import saves
from foreword.backbone.modules import copying, last_layer, outputs, sharding, tables
from foreword.backbone.modules.activations import fuse_activations
from foreword.backbone.modules.moving import Moving
from foreword.backbone.modules.reach import reach
from foreword.backbone.modules.taking import Taking
from foreword.backbone.prompts.attention import Attention
from foreword.backbone.prompts.carrying import ARGUMENT, looking_up, reading_at
from foreword.backbone.prompts.key_values import Past, PromptKeyValues, Sides
from foreword.backbone.prompts.prompt import Prompt, Recorder, stack
from foreword.backbone.shapes import Geometry
from foreword.backbone.text.tokens import BosRule, Tokens
from foreword.backbone.weights import hashing
from foreword.backbone.weights import quantization as quantized
from foreword.backbone.weights.quantization import Quantization
from foreword.common.sites import Site
from foreword.errors import BackboneError


@dataclass(frozen=True, eq=False)
class Backbone(Moving, Taking):
    """A frozen model with its token rule and its identity; see `load_backbone` and `wrap`.

    Attributes:
        attention: how attention is computed; "own" where the family does not let us.
        quantization: what transformers' quantisation config was made of, where weights are
            quantised.
        turn: held during each forward pass; a lock where the model's modules change while it runs.
        notes: what there is to know of it before a training, a line each.
    """

    model: PreTrainedModel
    tokens: Tokens
    geometry: Geometry
    name: str
    revision: str | None
    sha256: str
    attention: Attention | Literal["own"] = "own"
    quantization: Quantization | None = None
    turn: AbstractContextManager[Any] = field(default_factory=nullcontext)
    notes: tuple[str, ...] = ()

    @classmethod
    def wrap(
        cls,
        model: PreTrainedModel,
        tokens: Tokens,
        *,
        name: str | None = None,
        revision: str | None = None,
        sha256: str | None = None,
        attention: Attention | None = None,
        quantization: Quantization | None = None,
        notes: tuple[str, ...] = (),
    ) -> Backbone:
        """Take a transformers model: freeze it, route its attention, find out what prompts fit.

        Args:
            model: a decoder, an encoder or an encoder-decoder.
            tokens: its tokenizer and the rule for special tokens.
            name: what it is called; its config says it otherwise.
            revision: of a hub name.
            sha256: of its stored tensors; computed if not given.
            attention: how attention is computed; what suits the family otherwise.
            quantization: how its weights are quantised; its config says it otherwise.
            notes: what there is to know of it before a training, a line each.

        Raises:
            BackboneError: it does not run, or not with this attention.
        """
        # What a checkpoint ships there (penalties, suppressed tokens) would change every answer.
        model.generation_config = GenerationConfig()
        fuse_activations(model)
        model.eval()
        model.requires_grad_(False)
        quantization = quantization or quantized.of_model(model)
        if quantization is not None:
            quantized.keep_gradients(model)
        kind = geometry.kind_of(model)
        measured, used = reach(model, kind, attention)
        backbone = cls(
            model,
            replace(tokens, encodes=kind != "decoder", virtual=measured.vocabulary),
            measured,
            name or model.config.name_or_path or model.config.model_type,
            revision,
            sha256 or hashing.hash_module(model),
            used,
            quantization,
            threading.RLock() if turns.changes_itself(model) else nullcontext(),
            notes,
        )
        if not measured.keeps_embeddings:
            return backbone
        rounded = bool(quantization)
        unfit = check_with_a_text(model, backbone.keys_values, backbone.logits, rounded=rounded)
        if unfit is None:
            return backbone
        return replace(backbone, geometry=replace(measured, through="nothing", unfit=unfit))

    @property
    def device(self) -> torch.device:
        """Where the model takes its inputs: its first layer's device."""
        return devices.entry(self.model)

    @property
    def dtype(self) -> str:
        """The type its weights were loaded as, by torch's name."""
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def slowness(self) -> str | None:
        """What there is to say where its device has no units for the type of its weights."""
        instead = "give float32, or auto, which takes it here, in twice the memory"
        return arithmetic.slowness(self.dtype, self.device, "backbone.dtype", instead)

    def copied(self, moving: Collection[str] = ()) -> Backbone:
        """The same backbone in modules of its own, around the same weights.

        Args:
            moving: names of parameters that are copied, to be trained.
        """
        return replace(self, model=copying.copied(self.model, moving))

    def with_bos(self, bos: BosRule) -> Backbone:
        """The same model under a rule for the beginning token; this backbone where it has the rule
        already, with what was measured of it."""
        if bos == self.tokens.bos:
            return self
        return replace(self, tokens=replace(self.tokens, bos=bos))

    def logits(self, call: Call, reading: Tensor | None = None) -> Tensor:
        """One forward pass.

        Args:
            call: rows and their prompts, on the model's device.
            reading: flat positions `[N]` (`Layout.reading_positions`) at which the head is run.

        Returns:
            `[N, vocabulary]`, or `[B, T, vocabulary]` without `reading`.

        Raises:
            BackboneError: the model has no language-model head.
        """
        everywhere = reading is not None and not saves("head")
        alone = self._last_layer_at(call, reading)
        with alone, reading_at(self.head, None if everywhere else reading):
            logits: Tensor = self._run(self.model, call).logits
        return logits.flatten(0, 1)[reading] if everywhere else logits

    def line_logits(
        self, ids: Sequence[int], positions: Sequence[int], prompt: Prompt, reading: Sequence[int]
    ) -> Tensor:
        """What comes after chosen tokens of a line in which several rows stand: `[N, vocabulary]`.

        Args:
            ids: tokens of the line.
            positions: their position ids.
            prompt: keeps the rows apart in every attention, and has their virtual tokens.
            reading: numbers of the N tokens.
        """
        at, device = torch.tensor(reading, dtype=torch.long), self.device
        given: dict[str, Any] = {
            "input_ids": torch.tensor([ids], device=device),
            "attention_mask": torch.ones(1, len(ids), dtype=torch.long, device=device),
            "position_ids": torch.tensor([positions], device=device),
            "use_cache": False,
            ARGUMENT: prompt,
        }
        with self.turn, self.looking_up(prompt), reading_at(self.head, at.to(device)):
            logits: Tensor = self.model(**given).logits
        return logits

    @property
    def head(self) -> nn.Module:
        """The language-model head.

        Raises:
            BackboneError: the model has none.
        """
        head = self.model.get_output_embeddings()
        if head is None:
            raise BackboneError(
                f"backbone '{self.name}' ({self.model.config.model_type}) has no language-model "
                "head, so it gives no logits over its vocabulary"
            )
        return cast(nn.Module, head)

    @cached_property
    def hidden_width(self) -> int:
        """d of the states that `hidden` gives."""
        with torch.no_grad():
            return self.hidden(Call(Layout.of([[1]]).to(self.device))).shape[-1]

    def hidden(self, call: Call, reading: Tensor | None = None) -> Tensor:
        """The last layer's states, before any head.

        Args:
            call: rows and their prompts, on the model's device.
            reading: flat positions `[N]` of those that are wanted.

        Returns:
            `[N, d]`, or those of every token, `[B, T, d]`, without `reading`.

        Raises:
            BackboneError: the model gives no states, only what its own head makes of them.
        """
        with self._last_layer_at(call, reading):
            output = self._run(self.model.base_model, call)
        states: Tensor | None = getattr(output, "last_hidden_state", None)
        if states is None:
            raise BackboneError(
                f"backbone '{self.name}' ({self.model.config.model_type}) has no part that gives "
                "the states before its own head (`base_model_prefix` names none), so no head can "
                "read them; let the backbone write the answer"
            )
        return states if reading is None else states.flatten(0, 1)[reading]

    def output(self, call: Call, *, body: bool = False, **given: Any) -> Any:
        """What transformers' own forward pass gives for a call.

        Args:
            call: rows and their prompts, on the model's device.
            body: whether the model without its head is run.
            given: what the model gets beside or instead of what `inputs` says, such as labels.
        """
        return self._run(self.model.base_model if body else self.model, call, **given)

    def _last_layer_at(self, call: Call, reading: Tensor | None) -> AbstractContextManager[None]:
        """While it lasts, the last layer of a forward pass has right numbers where it is read."""
        rows, tokens = call.layout.input_ids.shape
        with self.turn:
            return last_layer.read_at(self.model, self.geometry, reading, (rows, tokens))

    def _run(self, model: nn.Module, call: Call, **given: Any) -> Any:
        past = () if call.layout.before is None else self.past(call)
        whole = {**inputs(self.model, self.geometry, call, past), **given}
        with self.turn, self.looking_up(call.prompt), outputs.computed_again(self.model):
            return model(**whole)

    def read(self, before: Layout) -> Past:
        """A decoder's keys and values for rows without any prompt: by layer, those of all columns.

        Args:
            before: padded on the left; see `Layout.before`.
        """
        given: dict[str, Any] = {
            "input_ids": before.input_ids,
            "attention_mask": before.attention_mask,
            "past_key_values": DynamicCache(),  # one that forgets nothing beyond a window
            "use_cache": True,
        }
        if self.geometry.takes_positions:
            given["position_ids"] = before.position_ids
        with self.turn:
            filled = self.model.base_model(**given).past_key_values
        return tuple((layer.keys, layer.values) for layer in filled.layers)

    def past(self, call: Call) -> Past:
        """What rows have read before their virtual tokens, which stand between two parts."""
        assert call.layout.before is not None, "nothing stands before the virtual tokens"
        known = None if call.prompt is None else call.prompt.past
        return self.read(call.layout.before) if known is None else known

    def looking_up(self, prompt: Prompt | None) -> AbstractContextManager[None]:
        """While it lasts, ids from the vocabulary's size on stand for the prompt's embeddings in
        what this thread runs."""
        if prompt is None or prompt.embeddings is None:
            return nullcontext()
        return looking_up(
            tables.of_words(self.model),
            prompt.embeddings,
            self.geometry.vocabulary,
            beside=tables.beside(self.model),
            pad_id=getattr(self.model.config.get_text_config(), "pad_token_id", None) or 0,
        )

    def keys_values(self, ids: list[int]) -> dict[Site, tuple[Sides, Sides]]:
        """The model's own keys and values for a text, by site and layer: `[T, kv_heads, …_dim]`.

        Position ids run from the first, so that they are what a prefix of this text would have had.
        The decoder of an encoder-decoder reads the text too, after its start; its cross-attention
        has the keys of the encoder's text.
        """
        begin = self.begin
        source = None if begin is None else Layout.of([ids])
        layout = Layout.of(
            [[*(begin or ()), *ids]], source=source, first_position=self.geometry.first_position
        )
        with torch.no_grad():
            recorded, _ = self._record(self.model.base_model, layout.to(self.device), None)
        return {
            site: (
                stack([key[-len(ids) :] for key in keys]),
                stack([one[-len(ids) :] for one in values]),
            )
            for site, (keys, values) in recorded.items()
        }

    def embeddings(self, ids: list[int]) -> Tensor:
        """The model's own input embeddings of tokens: `[T, width]`, detached."""
        table = self.model.get_input_embeddings()
        vectors: Tensor = table(torch.tensor(ids, dtype=torch.long, device=self.device))
        return vectors.detach()

    def read_embeddings(self, rows: Tensor) -> PromptKeyValues:
        """A decoder's keys and values of P embeddings `[P, width]` at positions 0 to P - 1, with
        gradient."""
        first = self.geometry.vocabulary
        layout = Layout.of([range(first, first + rows.shape[0])]).to(self.device)
        return PromptKeyValues(*self._record(self.model.base_model, layout, rows)[0]["decoder"])

    def read_with_logits(self, rows: Tensor, reading: Tensor) -> tuple[PromptKeyValues, Tensor]:
        """What `read_embeddings` gives, and what a decoder would write after N of the embeddings:
        logits `[N, vocabulary]`, of one forward pass.

        Args:
            rows: P embeddings `[P, width]`.
            reading: their numbers `[N]`.
        """
        first = self.geometry.vocabulary
        layout = Layout.of([range(first, first + rows.shape[0])]).to(self.device)
        with reading_at(self.head, reading):
            sites, output = self._record(self.model, layout, rows)
        return PromptKeyValues(*sites["decoder"]), output.logits

    def _record(
        self, module: nn.Module, layout: Layout, embeddings: Tensor | None
    ) -> tuple[dict[Site, tuple[Sides, Sides]], Any]:
        """Keys and values of one row by site, and what the forward pass of the module returned."""
        g = self.geometry
        if g.through == "interface":
            recorder = Recorder(embeddings)
            output = self._run(module, Call(layout, recorder))
            recorded = {site: recorder.rows(site) for site in g.sites}
            if output[0].requires_grad and sharding.is_sharded(self.model):
                recorded = {
                    site: (
                        sharding.taken_out(keys, output[0]),
                        sharding.taken_out(values, output[0]),
                    )
                    for site, (keys, values) in recorded.items()
                }
            return recorded, output
        with self.turn, self.looking_up(Prompt(embeddings=embeddings)):
            output = module(
                input_ids=layout.input_ids,
                attention_mask=layout.attention_mask.long(),
                use_cache=True,
            )
        layers = output.past_key_values.layers
        keys_values = (
            stack([layer.keys[0].transpose(0, 1) for layer in layers]),
            stack([layer.values[0].transpose(0, 1) for layer in layers]),
        )
        return {"decoder": keys_values}, output

    def encode(self, call: Call) -> Any:
        """What the encoder of an encoder-decoder makes of the rows' sources."""
        source, prompt = call.layout.source, call.prompt
        assert source is not None, "only an encoder-decoder encodes"
        routed = prompt is not None and self.geometry.through == "interface"
        extra = {ARGUMENT: prompt} if routed else {}
        with self.turn, self.looking_up(prompt), outputs.computed_again(self.model):
            return self._encoder(source, **extra)

    def encoded(self, source: Layout) -> Tensor:
        """The encoder's last states of sources that no prompt enters: `[B, S, d]`."""
        with self.turn:
            states: Tensor = self._encoder(source).last_hidden_state
        return states

    def _encoder(self, source: Layout, **extra: Any) -> Any:
        return self.model.get_encoder()(
            input_ids=source.input_ids, attention_mask=source.attention_mask, **extra
        )
