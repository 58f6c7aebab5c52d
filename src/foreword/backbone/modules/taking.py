"""What a backbone can be given: prompts, heads, an answer's beginning."""

from __future__ import annotations

import inspect
from functools import cached_property

from transformers import PreTrainedModel

from foreword.backbone import geometry
from foreword.backbone.families import COUNT_THE_MASK
from foreword.backbone.shapes import Geometry
from foreword.backbone.text.tokens import Tokens
from foreword.errors import BackboneError


class Taking:
    """The part of `Backbone` that says what the model takes."""

    model: PreTrainedModel
    tokens: Tokens
    geometry: Geometry
    name: str

    @property
    def begin(self) -> tuple[int, ...] | None:
        """What an encoder-decoder's decoder reads before an answer: its start token, and what the
        tokenizer puts before every text, if that is not the same; None for other models.

        Raises:
            BackboneError: the config names no start token.
        """
        if self.geometry.kind != "encoder-decoder":
            return None
        config = self.model.config
        start = getattr(config, "decoder_start_token_id", None)
        if start is None:  # as transformers has it
            start = getattr(config.get_text_config(decoder=True), "bos_token_id", None)
        if start is None:
            raise BackboneError(
                f"backbone '{self.name}': its config names no decoder_start_token_id, with which "
                "every answer begins"
            )
        leading = self.tokens.leading
        return leading if leading[:1] == (start,) else (int(start), *leading)

    def check_takes_head(self) -> None:
        """Raise BackboneError for an encoder-decoder, whose states no head reads."""
        if self.geometry.kind == "encoder-decoder":
            raise BackboneError(
                f"backbone: '{self.name}' ({self.model.config.model_type}) is an "
                "encoder-decoder, on which a head has no place here; let it write the label as "
                "text, or name an encoder or a decoder"
            )

    def check_takes_keys_values(self) -> None:
        """Raise BackboneError where keys and values of virtual tokens have no place."""
        if self.geometry.through == "nothing":
            raise BackboneError(
                f"backbone: keys and values of virtual tokens do not fit '{self.name}' "
                f"({self.model.config.model_type}): {self.geometry.unfit}. Use prompt-tuning or "
                "p-tuning, whose virtual tokens stand in its input, or lora, adapter, bitfit, "
                "fine-tuning, head-only or hard-prompt, which have none. Families that take them: "
                "docs/families.md"
            )

    @property
    def tells_texts_apart(self) -> bool:
        """Whether the model has segment embeddings for a second text (BERT's).

        GPT-2 takes segments too, and would add the embeddings of its tokens 0 and 1.
        """
        named = "token_type_ids" in inspect.signature(self.model.base_model.forward).parameters
        return named and getattr(self.model.config, "type_vocab_size", 0) > 1

    @property
    def takes_cache(self) -> bool:
        """Whether the model takes keys and values of earlier positions."""
        return "past_key_values" in inspect.signature(self.model.base_model.forward).parameters

    @property
    def caches_a_prefix(self) -> bool:
        """Whether the decoder of an encoder-decoder can have a prefix in its cache."""
        encodes_too = self.geometry.kind == "encoder-decoder"
        return encodes_too and self.model.config.model_type not in COUNT_THE_MASK

    @property
    def reads_anew(self) -> bool:
        """Whether a decoder's rows are read anew for every token, since it is not known what it
        keeps of them."""
        return self.geometry.kind == "decoder" and self.geometry.through == "nothing"

    @cached_property
    def windows(self) -> tuple[int | None, ...]:
        """For each layer of a decoder how many positions it sees, itself included; None: all."""
        return geometry.windows(self.model)

    @cached_property
    def steps_by_attention(self) -> bool:
        """Whether a decoder's rows may be of different ages in one step of decoding: its attention
        takes keys and values from wherever we keep them, and it is told positions."""
        g = self.geometry
        own = g.kind == "decoder" and g.through == "interface" and g.takes_positions
        return own and not geometry.in_chunks(self.model)
