"""A transformers model with a prompt, as training loops of other packages know models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from foreword.artifacts.manifest import Manifest
from foreword.attached import saving
from foreword.attached.rows import Rows, lay_out
from foreword.attached.surface import Surface
from foreword.backbone import Backbone, write_by_transformers
from foreword.errors import UserError

NOT_TAKEN = {
    "decoder_inputs_embeds": "give decoder_input_ids, or labels alone",
    "encoder_outputs": "give input_ids: the encoder reads them with the prompt",
    "inputs_embeds": "give input_ids",
    "past_key_values": "generate() keeps a cache of its own",
}
PACKED = ("cu_seq_lens_k", "cu_seq_lens_q", "seq_idx")


class AttachedModel(Surface):
    """A frozen transformers model and one prompt before every row of it. Made by `attach`.

    Its parameters and its `state_dict` are the prompt's alone, and those of a head that is trained
    beside it. The model below is no submodule: it stays in evaluation whatever `train()` says, so
    that its dropout is never active; it follows `to()`.
    """

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        return_dict: bool | None = None,
        **given: Any,
    ) -> Any:
        """transformers' own output of the model below, the prompt before each row.

        Args:
            input_ids: `[B, T]`, padded on either side.
            attention_mask: `[B, T]`, 1 at real tokens; all are if not given.
            labels: `[B, T]` (a decoder's are the input's, shifted by the model), -100 where nothing
                is predicted; for an encoder-decoder `[B, U]`; for a head `[B]` of a label or a
                number a row, `[B, L]` of L labels that a row has (1.0) or not.
            position_ids: `[B, T]`, those of a row without a prompt; counted by the mask if not
                given.
            token_type_ids: `[B, T]`, the text that a token belongs to.
            decoder_input_ids: `[B, U]`; made of the labels by the model if not given.
            decoder_attention_mask: `[B, U]`.
            return_dict: whether the output has names; otherwise it is a tuple.
            given: what else the model's own forward pass takes.

        Returns:
            `loss` and `logits`, whose columns are those of the input (virtual tokens have none),
            and what else the model gives.

        Raises:
            UserError: something is given that has no meaning beside a prompt.
        """
        self._backbone()
        given = self._taken(given)
        rows = self._rows(
            input_ids,
            attention_mask,
            position_ids,
            token_type_ids,
            self._written(decoder_input_ids, labels),
            decoder_attention_mask,
        )
        if labels is not None:
            whole = self.told is not None and self.told.kind.of_one_state
            given["labels"] = labels if whole else rows.labels(labels)
        output = self._run(rows, given)
        return output.to_tuple() if return_dict is False else output

    def body(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        **given: Any,
    ) -> Any:
        """The states of the model without its head, for loops that compute logits by themselves;
        the arguments are those of `forward`."""
        self._backbone()
        given = self._taken(given)
        rows = self._rows(
            input_ids,
            attention_mask,
            position_ids,
            token_type_ids,
            decoder_input_ids,
            decoder_attention_mask,
        )
        return self._run(rows, given, body=True)

    @torch.no_grad()
    def generate(
        self,
        inputs: Tensor | None = None,
        *,
        attention_mask: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        **given: Any,
    ) -> Any:
        """transformers' own `generate`, the prompt before each row.

        Args:
            inputs: `[B, T]`, also by the name `input_ids`; a decoder's are padded on the left.
            attention_mask: `[B, T]`; told by the padding token, as transformers does it, if not
                given.
            generation_config: the model's own if not given.
            given: what else `generate` takes.

        Returns:
            What it returns: a decoder's rows hold the input, too.
        """
        backbone = self._backbone()
        if self.told is not None:
            raise UserError(f"generate: {self._get_name()} writes no text; call the model itself")
        ids = given.pop("input_ids", None) if inputs is None else inputs
        self._refuse(given)
        settings = generation_config or self.generation_config
        mask = _mask(ids, settings, given) if attention_mask is None else attention_mask
        written = given.pop("decoder_input_ids", None)
        if backbone.begin is not None and written is None and ids is not None:
            written = _start(backbone, ids, settings, given)
        rows = self._rows(
            ids,
            mask,
            given.pop("position_ids", None),
            given.pop("token_type_ids", None),
            written,
            given.pop("decoder_attention_mask", None),
        )
        if generation_config is not None:
            given["generation_config"] = generation_config
        output = write_by_transformers(backbone, self.prompt.call(rows.layout), settings, given)
        added = 0 if rows.real is None else rows.layout.input_ids.shape[1] - rows.real.shape[1]
        if not added:
            return output
        if isinstance(output, Tensor):
            return output[:, added:]
        output.sequences = output.sequences[:, added:]
        return output

    def save_pretrained(
        self, save_directory: Path | str, *, is_main_process: bool = True, **details: Any
    ) -> Manifest | None:
        """Write the prompt as an artifact, which `foreword.load` reads.

        Args:
            save_directory: a folder that is empty, or that is not there yet.
            is_main_process: whether this process writes; others do nothing.
            details: what an artifact says of its task; see `saving.save`.

        Raises:
            UserError: the folder is not empty, no tokenizer is known, or the model's weights are no
                longer those that its name stands for.
        """
        self._backbone()
        if not is_main_process:
            return None
        return saving.save(Path(save_directory), self.prompt, self.method, self.told, **details)

    @property
    def base_model(self) -> Any:
        """What `body` does, as a function: loops call it in place of a model without its head."""
        return self.body

    def _rows(
        self,
        ids: Tensor | None,
        mask: Tensor | None,
        positions: Tensor | None,
        segments: Tensor | None,
        written: Tensor | None,
        written_mask: Tensor | None,
    ) -> Rows:
        """The batch whose logits are the output's."""
        backbone, place = self.prompt.backbone, self.prompt.placement
        if ids is None:
            raise UserError("input_ids: are missing; a prompt stands before rows of tokens")
        if positions is not None and not backbone.geometry.takes_positions:
            raise UserError(
                f"position_ids: '{backbone.name}' ({self.config.model_type}) counts its positions "
                "by itself; leave them out"
            )
        read = lay_out(
            place,
            ids,
            mask,
            columns=place.columns.get("encoder", ()),
            first_position=place.first_position,
            position_ids=positions,
            segments=segments,
        )
        if backbone.begin is None:
            return read
        if written is None:
            raise UserError("labels or decoder_input_ids: give what the decoder writes")
        return lay_out(
            place,
            written,
            written_mask,
            columns=place.columns.get("decoder", ()),
            source=read.layout,
            name="decoder_input_ids",
        )

    def _run(self, rows: Rows, given: dict[str, Any], *, body: bool = False) -> Any:
        backbone, given = self.prompt.backbone, {**given, "return_dict": True}
        with backbone.recomputing(self._recomputing and self.training):
            output = backbone.output(self.prompt.call(rows.layout), body=body, **given)
        return _named(output, rows)

    def _taken(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What the model itself is given of further arguments.

        Raises:
            UserError: one has no meaning beside a prompt.
        """
        self._refuse(given)
        if given.get("use_cache"):
            raise UserError(
                "use_cache: is not taken beside a prompt; generate() keeps a cache of its own"
            )
        return {k: value for k, value in given.items() if value is not None and k != "use_cache"}

    def _written(self, decoder_input_ids: Tensor | None, labels: Tensor | None) -> Tensor | None:
        model = self.prompt.backbone.model
        makes = getattr(model, "prepare_decoder_input_ids_from_labels", None)
        if decoder_input_ids is not None or labels is None or makes is None:
            return decoder_input_ids
        made: Tensor = makes(labels=labels)
        return made

    def _refuse(self, given: Mapping[str, Any]) -> None:
        """Raise UserError for what has no meaning beside a prompt."""
        for name, instead in NOT_TAKEN.items():
            if given.get(name) is not None:
                raise UserError(f"{name}: is not taken beside a prompt; {instead}")
        for name in PACKED:
            if given.get(name) is not None:
                raise UserError(
                    f"{name}: rows that hold several texts are not taken, since a prompt stands "
                    "before the first of them alone; give a row for each text "
                    "(SFTConfig(packing=False, padding_free=False))"
                )
        table = self.prompt.backbone.model.get_input_embeddings()
        if self.training and getattr(table, "neftune_noise_alpha", None) is not None:
            raise UserError(
                "neftune_noise_alpha: the frozen model stays in evaluation, where it gets no "
                "noise; leave it out"
            )


def _named(output: Any, rows: Rows) -> Any:
    """The output without a cache, its columns those of the batch."""
    kept = {name: value for name, value in output.items() if name != "past_key_values"}
    if rows.real is not None:
        for name in ("hidden_states", "attentions", "decoder_hidden_states", "decoder_attentions"):
            if name in kept:
                raise UserError(
                    f"output_{name.removeprefix('decoder_')}: virtual tokens have columns there; "
                    "leave it out"
                )
        for name in ("logits", "last_hidden_state"):
            if name in kept and kept[name].ndim == 3:
                kept[name] = rows.taken(kept[name])
    return type(output)(**kept)


def _mask(
    ids: Tensor | None, settings: GenerationConfig, given: Mapping[str, Any]
) -> Tensor | None:
    """Which tokens are real, where a padding token tells it that does not end a text, too."""
    pad = given.get("pad_token_id", settings.pad_token_id)
    ends = given.get("eos_token_id", settings.eos_token_id)
    ends = ends if isinstance(ends, list) else [ends]
    if ids is None or pad is None or pad in ends:
        return None
    mask: Tensor = (ids != pad).long()
    return mask


def _start(
    backbone: Backbone, ids: Tensor, settings: GenerationConfig, given: Mapping[str, Any]
) -> Tensor:
    """What an encoder-decoder's decoder begins with, `[B, 1]`."""
    start = given.get("decoder_start_token_id", settings.decoder_start_token_id)
    if start is None:
        assert backbone.begin is not None, "an encoder-decoder"
        start = backbone.begin[0]
    return ids.new_full((len(ids), 1), int(start))
