"""The modules that look a model's input ids up."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel


def of_words(model: PreTrainedModel) -> list[nn.Module]:
    """Those that make the input's embeddings: one, or several that share its weights.

    Weights that lie elsewhere between two calls are shared no more, so the encoder and the decoder
    are asked for theirs, too.
    """
    own = model.get_input_embeddings()
    tables = {own}
    if model.config.is_encoder_decoder:
        for part in (model.get_encoder(), model.get_decoder()):
            tables.add(part.get_input_embeddings())
    tables.update(
        module
        for module in model.modules()
        if isinstance(module, nn.Embedding) and module.weight is own.weight
    )
    return list(tables)


def beside(model: PreTrainedModel) -> list[nn.Module]:
    """Those that make something else of the same ids: what each layer of Gemma 3n and Gemma 4 adds
    to its states by the word."""
    if not hasattr(model, "get_per_layer_input_embeddings"):
        return []
    try:
        table = model.get_per_layer_input_embeddings()
    except AttributeError:  # its config has none
        return []
    return [] if table is None else [table]
