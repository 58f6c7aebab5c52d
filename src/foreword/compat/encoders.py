"""PEFT's modules that hold a prompt: its parameter names, shapes and order of random draws.

State dicts go both ways, and equal seeds give equal starts. `inference_mode` of a configuration
leaves the folded prompt alone: one table, whose rows are the prompt.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from foreword.axes.reparam.lstm import lstm_head, lstm_mlp_head, relu_mlp_head
from foreword.backbone import bundled_backbones
from foreword.compat.adapters.p_tuning import PromptEncoderConfig
from foreword.compat.adapters.prefix import PrefixTuningConfig
from foreword.compat.adapters.prompt import PromptTuningConfig
from foreword.compat.configs import PromptLearningConfig
from foreword.compat.peft_types import PromptEncoderReparameterizationType, PromptTuningInit


class PromptEmbedding(nn.Module):
    """A prompt of input embeddings.

    `(batch_size, total_virtual_tokens)` indices to `(batch_size, total_virtual_tokens, token_dim)`,
    where the total is `num_virtual_tokens · num_transformer_submodules`.

    Args:
        config: which start, and the sizes.
        word_embeddings: the base model's, which `TEXT` and `SAMPLE_VOCAB` start from.

    Raises:
        ValueError: the configuration leaves out a size, or the text has no tokens, or tokens that
            the base model does not have.
    """

    def __init__(self, config: PromptTuningConfig, word_embeddings: nn.Module) -> None:
        super().__init__()
        total, token_dim = _total(config), _needed(config, "token_dim")
        self.embedding = nn.Embedding(total, token_dim)
        start = config.prompt_tuning_init
        if config.inference_mode or start == PromptTuningInit.RANDOM:
            return
        if start == PromptTuningInit.SAMPLE_VOCAB:
            ids = torch.randint(0, _vocabulary(word_embeddings), (total,))
        else:
            ids = torch.tensor(_text_ids(config, total))
            known = _vocabulary(word_embeddings)
            if int(ids.max()) >= known:
                raise ValueError(
                    f"PromptTuningConfig.prompt_tuning_init_text: has the token {int(ids.max())}, "
                    f"but the word embeddings have {known} rows; name the model's own tokenizer in "
                    "tokenizer_name_or_path"
                )
        device = next(word_embeddings.parameters()).device
        with torch.no_grad():
            rows = word_embeddings(ids.to(device))
        if rows.shape != (total, token_dim):
            raise ValueError(
                f"PromptTuningConfig.token_dim is {token_dim}, but the word embeddings are "
                f"{rows.shape[-1]} wide"
            )
        self.embedding.weight = nn.Parameter(rows.clone().to(torch.float32))

    def forward(self, indices: Tensor) -> Tensor:
        """`(batch_size, total_virtual_tokens)` to `(..., total_virtual_tokens, token_dim)`."""
        rows: Tensor = self.embedding(indices)
        return rows


class PromptEncoder(nn.Module):
    """P-Tuning's prompt: a table through an LSTM and an MLP, or through an MLP.

    `(batch_size, total_virtual_tokens)` indices to `(batch_size, total_virtual_tokens, token_dim)`.

    Args:
        config: which network, and the sizes.

    Raises:
        ValueError: the configuration leaves out a size.
    """

    def __init__(self, config: PromptEncoderConfig) -> None:
        super().__init__()
        self.total_virtual_tokens = _total(config)
        self.token_dim = self.input_size = self.output_size = _needed(config, "token_dim")
        self.hidden_size = config.encoder_hidden_size
        self.encoder_type = PromptEncoderReparameterizationType(
            config.encoder_reparameterization_type
        )
        self.folded = config.inference_mode
        self.embedding = nn.Embedding(self.total_virtual_tokens, self.token_dim)
        if self.folded:
            return
        hidden = _needed(config, "encoder_hidden_size")
        if self.encoder_type == PromptEncoderReparameterizationType.LSTM:
            self.lstm_head = lstm_head(
                self.input_size, hidden, config.encoder_num_layers, config.encoder_dropout
            )
            self.mlp_head = lstm_mlp_head(hidden, self.output_size)
            return
        usual = PromptEncoderConfig.encoder_num_layers
        if config.encoder_num_layers != usual:
            warnings.warn(
                "PromptEncoderConfig.encoder_num_layers has no effect on the MLP, which has three "
                "linear layers",
                stacklevel=2,
            )
        self.mlp_head = relu_mlp_head(self.input_size, hidden, self.output_size)

    def forward(self, indices: Tensor) -> Tensor:
        """`(batch_size, total_virtual_tokens)` to `(..., total_virtual_tokens, token_dim)`."""
        rows: Tensor = self.embedding(indices)
        if self.folded:
            return rows
        if self.encoder_type == PromptEncoderReparameterizationType.LSTM:
            rows = self.lstm_head(rows)[0]
        made: Tensor = self.mlp_head(rows)
        return made


class PrefixEncoder(nn.Module):
    """A prefix of keys and values.

    `(batch_size, num_virtual_tokens)` indices to `(batch_size, num_virtual_tokens, 2 · num_layers ·
    token_dim)`: seen as `[2 · num_layers, heads, head_dim]`, index 2i holds the keys of layer i and
    2i + 1 its values.

    Args:
        config: with a projection or without, and the sizes.

    Raises:
        ValueError: the configuration leaves out a size.
    """

    def __init__(self, config: PrefixTuningConfig) -> None:
        super().__init__()
        length, token_dim = _needed(config, "num_virtual_tokens"), _needed(config, "token_dim")
        width = 2 * _needed(config, "num_layers") * token_dim
        self.prefix_projection = config.prefix_projection
        self.folded = config.inference_mode or not config.prefix_projection
        self.embedding = nn.Embedding(length, width if self.folded else token_dim)
        last: list[Tensor] = [self.embedding.weight]
        if not self.folded:
            hidden = _needed(config, "encoder_hidden_size")
            self.transform = nn.Sequential(
                nn.Linear(token_dim, hidden), nn.Tanh(), nn.Linear(hidden, width)
            )
            last = list(self.transform[2].parameters())
        if config.init_weights == "zero":
            with torch.no_grad():
                for parameter in last:
                    parameter.zero_()

    def forward(self, prefix: Tensor) -> Tensor:
        """`(batch_size, num_virtual_tokens)` to `(batch_size, num_virtual_tokens, width)`."""
        rows: Tensor = self.embedding(prefix)
        return rows if self.folded else self.transform(rows)

    def load_prompt_embeddings(self, prompt_embeddings: Tensor) -> None:
        """Take a stored prefix `[num_virtual_tokens, 2 · num_layers · token_dim]`.

        Raises:
            ValueError: it has another shape, or a projection makes this prefix.
        """
        if not self.folded:
            raise ValueError(
                "prompt_embeddings cannot be loaded with prefix_projection=True: no table and MLP "
                "follow from what they made"
            )
        if prompt_embeddings.shape != self.embedding.weight.shape:
            raise ValueError(
                f"prompt_embeddings: expected shape {list(self.embedding.weight.shape)}, found "
                f"{list(prompt_embeddings.shape)}"
            )
        with torch.no_grad():
            self.embedding.weight.copy_(prompt_embeddings)


def _needed(config: PromptLearningConfig, name: str) -> int:
    value: int | None = getattr(config, name)
    if value is None:
        raise ValueError(f"{type(config).__name__}.{name}: is needed to build the module; set it")
    return value


def _total(config: PromptLearningConfig) -> int:
    return _needed(config, "num_virtual_tokens") * _needed(config, "num_transformer_submodules")


def _vocabulary(word_embeddings: nn.Module) -> int:
    size: int = word_embeddings.num_embeddings  # type: ignore[assignment]
    return size


def _text_ids(config: PromptTuningConfig, total: int) -> list[int]:
    """The text's tokens, special ones included as in PEFT, repeated or cut to `total`."""
    from transformers import AutoTokenizer

    name = str(config.tokenizer_name_or_path)
    options = {k: v for k, v in (config.tokenizer_kwargs or {}).items() if k != "trust_remote_code"}
    tokenizer = AutoTokenizer.from_pretrained(bundled_backbones().get(name, name), **options)
    ids: list[int] = tokenizer(config.prompt_tuning_init_text)["input_ids"]
    if not ids:
        raise ValueError(
            "PromptTuningConfig.prompt_tuning_init_text: "
            f"{config.prompt_tuning_init_text!r} has no tokens"
        )
    return (ids * -(-total // len(ids)))[:total]
