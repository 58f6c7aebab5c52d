"""What is learned: the three objectives, each with its vocabulary, model, batches and loss.

Knows nothing about files, time or optimizers.
"""

from __future__ import annotations

import copy
import json
import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from pretrain_text import BOUNDARY, Stream
from tokenizers import AddedToken, Tokenizer
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

Batch = dict[str, Tensor]
IGNORED = -100
UNKNOWN = "[UNK]"
POSITIONS = 512
NOISE, SPAN = 0.15, 3.0
EMBEDDINGS = 0.02
MAX_WAVES = 32
LOUD = 6.0
OFFSETS = ((-1, 1, -2, 2, -3, 3, -4, 4), (-1, 1, -2, 2, -6, 6, -3, 3))
"""Where the heads of the first layers look at first."""
SENTINELS = 100


class Objective(ABC):
    """One way to make examples of running text.

    Args:
        tokenizer: the byte-level BPE whose ids stay as they are; tokens are only added.
        shape: width, layers and heads; the family's defaults below where absent.
    """

    name: str
    page = ""
    """Of the card, where it is not the objective's own."""
    special: tuple[AddedToken, ...] = ()
    positions = POSITIONS
    embedding_rate = 1.0
    """What the learning rate of the word embeddings is multiplied by."""

    def __init__(self, tokenizer: Tokenizer, shape: dict[str, int] | None = None) -> None:
        self.tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self.own = self.tokenizer.get_vocab_size()
        self.tokenizer.add_special_tokens(list(self.special))
        self.shape = {"width": 256, "layers": 6, "heads": 8, **(shape or {})}

    @property
    def vocabulary(self) -> int:
        """Number of ids, the added ones included."""
        return self.tokenizer.get_vocab_size()

    def id(self, token: str) -> int:
        """The id of a token that exists."""
        number = self.tokenizer.token_to_id(token)
        assert number is not None, token
        return number

    @abstractmethod
    def taken(self, length: int, share: float = NOISE) -> int:
        """How many tokens of the stream an example of `length` positions holds."""

    @abstractmethod
    def example(
        self, ids: np.ndarray, starts: np.ndarray, dice: np.random.Generator, share: float = NOISE
    ) -> dict[str, np.ndarray]:
        """One example with a share of its tokens hidden; equal numbers of tokens, equal shapes."""

    @abstractmethod
    def model(self) -> PreTrainedModel:
        """The model with random weights."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross entropy of each predicted token `[rows, n]`, 0 where there is none to predict."""

    @abstractmethod
    def saved_tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer as AutoTokenizer is to find it."""

    def finish(self, model: PreTrainedModel) -> None:  # noqa: B027
        """What is set once training is over."""

    def batch(
        self,
        stream: Stream,
        windows: np.ndarray,
        length: int,
        seed: list[int],
        share: float = NOISE,
    ) -> Batch:
        """The examples of some windows; their random choices depend on `seed` alone."""
        dice = np.random.default_rng(seed)
        taken = self.taken(length, share)
        rows = [self.example(*stream.window(int(i), taken), dice, share) for i in windows]
        return {name: torch.from_numpy(np.stack([r[name] for r in rows])) for name in rows[0]}

    def predicted(self, batch: Batch) -> int:
        """How many tokens of a batch are predicted."""
        return int((batch["labels"] != IGNORED).sum())

    def _wrap(self, **tokens: Any) -> PreTrainedTokenizerFast:
        return PreTrainedTokenizerFast(
            tokenizer_object=self.tokenizer, model_max_length=self.positions, **tokens
        )


class Causal(Objective):
    """Each token from those before it; GPT-2 architecture."""

    name = "causal"

    def taken(self, length: int, share: float = NOISE) -> int:
        """All positions hold text."""
        del share
        return length

    def example(
        self, ids: np.ndarray, starts: np.ndarray, dice: np.random.Generator, share: float = NOISE
    ) -> dict[str, np.ndarray]:
        """The window, and what follows each of its tokens."""
        del starts, dice, share
        return {"input_ids": ids, "labels": np.append(ids[1:], IGNORED)}

    def model(self) -> PreTrainedModel:
        """GPT-2 without dropout."""
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=self.vocabulary,
                n_positions=POSITIONS,
                n_embd=self.shape["width"],
                n_layer=self.shape["layers"],
                n_head=self.shape["heads"],
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                resid_pdrop=0.0,
                bos_token_id=BOUNDARY,
                eos_token_id=BOUNDARY,
                pad_token_id=BOUNDARY,
            )
        )

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """At every position but the last."""
        logits = model(input_ids=batch["input_ids"], use_cache=False).logits
        return _entropy(logits, batch["labels"])

    def saved_tokenizer(self) -> PreTrainedTokenizerFast:
        """One token is beginning, end and padding."""
        token = self.tokenizer.id_to_token(BOUNDARY)
        return self._wrap(bos_token=token, eos_token=token, unk_token=token, pad_token=token)


class Masked(Objective):
    """Whole words hidden (Devlin et al. 2019, 15 %: 80 mask, 10 random, 10 kept); BERT.

    Args:
        tokenizer: the byte-level BPE, or a vocabulary of characters with its own `[UNK]`.
        shape: width, layers and heads.
        positions: how many there are.
    """

    name = "masked"
    special = (
        AddedToken("[PAD]", special=True, normalized=False),
        AddedToken("[CLS]", special=True, normalized=False),
        AddedToken("[SEP]", special=True, normalized=False),
        AddedToken("[MASK]", special=True, normalized=False, lstrip=True),
    )

    def __init__(
        self,
        tokenizer: Tokenizer,
        shape: dict[str, int] | None = None,
        positions: int = POSITIONS,
    ) -> None:
        super().__init__(tokenizer, shape)
        self.positions = positions
        self.cls, self.sep, self.mask = self.id("[CLS]"), self.id("[SEP]"), self.id("[MASK]")
        reserved = [i for i in (BOUNDARY, self.cls, self.sep, self.mask) if i < self.own]
        self.first = max(reserved) + 1
        """The first id that is of text."""
        self.has_unknown = self.tokenizer.token_to_id(UNKNOWN) is not None
        if self.has_unknown:
            self.page = "characters"
        self.tokenizer.post_processor = TemplateProcessing(
            single="[CLS]:0 $A:0 [SEP]:0",
            pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
            special_tokens=[("[CLS]", self.cls), ("[SEP]", self.sep)],
        )

    def taken(self, length: int, share: float = NOISE) -> int:
        """All but [CLS] and [SEP]."""
        del share
        return length - 2

    def example(
        self, ids: np.ndarray, starts: np.ndarray, dice: np.random.Generator, share: float = NOISE
    ) -> dict[str, np.ndarray]:
        """[CLS] window [SEP]; `positions` and `labels` hold the whole share, padded."""
        budget = max(1, round(share * len(ids)))
        hidden, word = choose_words(ids, starts, budget, dice)
        said = ids.copy()
        fate = dice.random(int(starts.sum()))[word]
        said[fate < 0.8] = self.mask
        random = (fate >= 0.8) & (fate < 0.9)
        said[random] = dice.integers(self.first, self.own, len(ids))[random]
        shown = np.where(ids == BOUNDARY, self.sep, ids)
        shown[hidden] = said[hidden]
        positions = np.zeros(budget, np.int64)
        labels = np.full(budget, IGNORED, np.int64)
        places = np.flatnonzero(hidden)
        positions[: len(places)] = places + 1
        labels[: len(places)] = ids[places]
        return {
            "input_ids": np.concatenate([[self.cls], shown, [self.sep]]),
            "positions": positions,
            "labels": labels,
        }

    def model(self) -> PreTrainedModel:
        """BERT without dropout, its first layers looking around (see `look_around`)."""
        width = self.shape["width"]
        model = BertForMaskedLM(
            BertConfig(
                initializer_range=width**-0.5,
                vocab_size=self.vocabulary,
                hidden_size=width,
                num_hidden_layers=self.shape["layers"],
                num_attention_heads=self.shape["heads"],
                intermediate_size=4 * width,
                max_position_embeddings=self.positions,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
                pad_token_id=self.id("[PAD]"),
                bos_token_id=self.cls,
                eos_token_id=self.sep,
                tie_word_embeddings=True,
            )
        )
        look_around(model)
        return model

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """At the chosen positions; the head is run at these alone."""
        assert isinstance(model, BertForMaskedLM)
        states = model.bert(input_ids=batch["input_ids"]).last_hidden_state
        index = batch["positions"].unsqueeze(-1).expand(-1, -1, states.shape[-1])
        return _entropy(model.cls(states.gather(1, index)), batch["labels"])

    def saved_tokenizer(self) -> PreTrainedTokenizerFast:
        """BERT's names for its tokens."""
        unknown = {"unk_token": UNKNOWN} if self.has_unknown else {}
        return self._wrap(
            **unknown,
            pad_token="[PAD]",
            cls_token="[CLS]",
            sep_token="[SEP]",
            mask_token=self.special[-1],
            model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        )

    def finish(self, model: PreTrainedModel) -> None:
        """The second segment, of which training saw nothing, starts as the first."""
        segments = model.get_submodule("bert.embeddings.token_type_embeddings").weight
        with torch.no_grad():
            segments[1:] = segments[0]


class Denoising(Objective):
    """Spans replaced by sentinels, the decoder writes them (Raffel et al. 2020, 3.1.4); T5."""

    name = "denoising"
    embedding_rate = 5.0
    special = (
        AddedToken("<pad>", special=True, normalized=False),
        AddedToken("</s>", special=True, normalized=False),
        *(
            AddedToken(f"<extra_id_{i}>", special=True, normalized=False, lstrip=True)
            for i in range(SENTINELS)
        ),
    )

    def __init__(self, tokenizer: Tokenizer, shape: dict[str, int] | None = None) -> None:
        super().__init__(tokenizer, {"layers": 4, **(shape or {})})
        self.pad, self.end = self.id("<pad>"), self.id("</s>")
        self.start, self.whole = self.pad, False
        self.sentinel = self.id("<extra_id_0>")
        self.tokenizer.post_processor = TemplateProcessing(
            single="$A:0 </s>:0",
            pair="$A:0 </s>:0 $B:0 </s>:0",
            special_tokens=[("</s>", self.end)],
        )

    def taken(self, length: int, share: float = NOISE) -> int:
        """As many as leave `length` positions in the encoder: sentinels are fewer than tokens."""

        def given(tokens: int) -> int:
            noise, spans = noise_of(tokens, share)
            return tokens - noise + spans + 1

        tokens = length - 1
        while given(tokens + 1) <= length:
            tokens += 1
        return tokens

    def example(
        self, ids: np.ndarray, starts: np.ndarray, dice: np.random.Generator, share: float = NOISE
    ) -> dict[str, np.ndarray]:
        """The window with sentinels and </s>; the spans, each after its sentinel, and </s>."""
        del starts
        noise = choose_spans(len(ids), dice, share)
        said = mark_runs(ids, noise, self.sentinel) if self.whole else self._spans(ids, noise)
        return {
            "input_ids": np.append(replace_runs(ids, noise, self.sentinel), self.end),
            "labels": np.append(said, self.end),
        }

    @property
    def rewriting(self) -> Denoising:
        """The same with a decoder that writes the whole text, each span after its sentinel."""
        copied = copy.copy(self)
        copied.whole = True
        return copied

    def _spans(self, ids: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Every span with its sentinel in front."""
        begins = noise & ~np.append(False, noise[:-1])
        said: list[int] = []
        for at in np.flatnonzero(noise):
            if begins[at]:
                said.append(self.sentinel + int(begins[: at + 1].sum()) - 1)
            said.append(int(ids[at]))
        return np.array(said, np.int64)

    def model(self) -> PreTrainedModel:
        """T5 with gated GELU, tied embeddings and a start that looks around; without dropout."""
        width, heads = self.shape["width"], self.shape["heads"]
        model = T5ForConditionalGeneration(
            T5Config(
                vocab_size=self.vocabulary,
                d_model=width,
                d_kv=width // heads,
                d_ff=5 * width // 2,
                num_layers=self.shape["layers"],
                num_decoder_layers=self.shape["layers"],
                num_heads=heads,
                feed_forward_proj="gated-gelu",
                dropout_rate=0.0,
                tie_word_embeddings=True,
                n_positions=POSITIONS,
                pad_token_id=self.pad,
                eos_token_id=self.end,
                decoder_start_token_id=self.pad,
            )
        )
        look_beside(model)
        return model

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """At every position of the decoder."""
        labels = batch["labels"]
        begin = torch.full_like(labels[:, :1], self.start)
        logits = model(
            input_ids=batch["input_ids"],
            decoder_input_ids=torch.cat([begin, labels[:, :-1]], dim=1),
            use_cache=False,
        ).logits
        return _entropy(logits, labels)

    def saved_tokenizer(self) -> PreTrainedTokenizerFast:
        """T5's names for its tokens."""
        return self._wrap(
            pad_token="<pad>",
            eos_token="</s>",
            unk_token="<pad>",
            additional_special_tokens=list(self.special[2:]),
            model_input_names=["input_ids", "attention_mask"],
        )


OBJECTIVES: dict[str, type[Objective]] = {o.name: o for o in (Causal, Masked, Denoising)}


def look_around(model: BertForMaskedLM) -> None:
    """Let a narrow BERT learn from its neighbours at once.

    From BERT's own start, a small model learns word frequencies for millions of tokens before its
    attention finds the words beside a mask. Here matrices start at a deviation of 1/√width (0.02 is
    nearly nothing at width 256), what layers add to their input starts small, positions are
    sinusoids in dimensions of their own, and each head of the first layers looks at one offset.
    All of it is trained on.
    """
    tables, head = (
        model.bert.embeddings,
        model.config.hidden_size // model.config.num_attention_heads,
    )
    waves = min(head, MAX_WAVES) // 2
    rates = torch.exp(torch.linspace(math.log(2.5), math.log(0.05), waves))
    turns = torch.arange(model.config.max_position_embeddings).unsqueeze(1) * rates
    with torch.no_grad():
        for table in (tables.word_embeddings, tables.token_type_embeddings):
            table.weight.mul_(EMBEDDINGS / model.config.initializer_range)
            table.weight[:, : 2 * waves] = 0
        tables.position_embeddings.weight.zero_()
        tables.position_embeddings.weight[:, 0 : 2 * waves : 2] = 2.5 * EMBEDDINGS * turns.sin()
        tables.position_embeddings.weight[:, 1 : 2 * waves : 2] = 2.5 * EMBEDDINGS * turns.cos()
        for layer, offsets in zip(model.bert.encoder.layer, OFFSETS, strict=False):
            query, key = layer.attention.self.query.weight, layer.attention.self.key.weight
            for rows, offset in zip(query.split(head), offsets, strict=False):
                _turn(rows, offset * rates)
            for rows, _ in zip(key.split(head), offsets, strict=False):
                _turn(rows, torch.zeros(waves))
        for layer in model.bert.encoder.layer:
            layer.attention.output.dense.weight.mul_(0.05)
            layer.output.dense.weight.mul_(0.05)


def look_beside(model: T5ForConditionalGeneration) -> None:
    """The same for T5, whose positions are biases: heads look at one offset each, two at all.

    In the encoder at both sides, in the decoder back. Cross-attention looks for the token that the
    decoder has just read, which for the first token of a span is its sentinel; what layers add
    starts small, so that it is found.
    """
    both, back = (-1, 1, -2, 2, -3, 3), (-1, -1, -2, -2, -3, -4)
    with torch.no_grad():
        for stack, offsets in ((model.encoder, both), (model.decoder, back)):
            bias = stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight
            bias.zero_()
            ahead = bias.shape[0] // 2 if stack is model.encoder else 0
            for head, offset in enumerate(offsets[: bias.shape[1]]):
                bias[abs(offset) + (ahead if offset > 0 else 0), head] = LOUD
        for block in model.decoder.block:
            cross = block.layer[1].EncDecAttention
            cross.q.weight.copy_(cross.k.weight / 4)
        for name, parameter in model.named_parameters():
            if name.endswith((".o.weight", ".wo.weight")):
                parameter.mul_(0.2)


def _turn(rows: Tensor, angles: Tensor) -> None:
    """`[head, width]` rows that read the sinusoids, each pair turned by an angle."""
    rows.mul_(0.3)
    rows[:, : 2 * len(angles)] = 0
    for wave, angle in enumerate(angles.tolist()):
        sine, cosine = 2 * wave, 2 * wave + 1
        rows[sine, sine] = rows[cosine, cosine] = 0.8 * math.cos(angle)
        rows[sine, cosine] = 0.8 * math.sin(angle)
        rows[cosine, sine] = -0.8 * math.sin(angle)


def choose_words(
    ids: np.ndarray, starts: np.ndarray, budget: int, dice: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Whole words, in random order, that fit into a budget of tokens; never the boundary.

    Returns:
        `[n]` bool, the tokens chosen; `[n]` int, the word of each token.
    """
    word = np.cumsum(starts) - 1
    lengths = np.bincount(word)
    order = dice.permutation(len(lengths))
    order = order[ids[starts][order] != BOUNDARY]
    chosen = np.zeros(len(lengths), bool)
    left = budget
    for index in order[: 2 * budget]:
        if lengths[index] <= left:
            chosen[index] = True
            left -= int(lengths[index])
            if not left:
                break
    return chosen[word], word


def noise_of(tokens: int, share: float = NOISE) -> tuple[int, int]:
    """How many of so many tokens are noise, and in how many spans."""
    noise = min(max(round(tokens * share), 1), tokens - 1)
    return noise, min(max(round(noise / SPAN), 1), tokens - noise)


def choose_spans(tokens: int, dice: np.random.Generator, share: float = NOISE) -> np.ndarray:
    """`[tokens]` bool: spans of noise, kept apart by at least one token.

    The numbers of noise tokens and of spans are fixed; their lengths and places are drawn. T5's own
    code lets every example end in noise; here the text may begin or end either way.
    """
    noise, spans = noise_of(tokens, share)
    long = _parts(noise, spans, dice)
    apart = _parts(tokens - noise + 2, spans + 1, dice)
    apart[0] -= 1
    apart[-1] -= 1
    runs = np.empty(2 * spans + 1, np.int64)
    runs[0::2], runs[1::2] = apart, long
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)


def replace_runs(ids: np.ndarray, noise: np.ndarray, sentinel: int) -> np.ndarray:
    """Each run of noise becomes one sentinel; they count upwards."""
    begins = noise & ~np.append(False, noise[:-1])
    shown = np.where(begins, sentinel + np.cumsum(begins) - 1, ids)
    return shown[~noise | begins]


def mark_runs(ids: np.ndarray, noise: np.ndarray, sentinel: int) -> np.ndarray:
    """Each run of noise after a sentinel; they count upwards."""
    begins = np.flatnonzero(noise & ~np.append(False, noise[:-1]))
    return np.insert(ids, begins, sentinel + np.arange(len(begins)))


def restore_spans(shown: np.ndarray, tokens: np.ndarray, sentinel: int) -> np.ndarray:
    """The text of an example again, without its </s>: what `Denoising.example` undoes."""
    spans: dict[int, list[int]] = {}
    at = -1
    for token in tokens[:-1].tolist():
        if token >= sentinel:
            at = token
            spans[at] = []
        else:
            spans[at].append(token)
    whole = [t for i in shown[:-1].tolist() for t in (spans[i] if i >= sentinel else [i])]
    return np.array(whole, np.int64)


def _parts(total: int, count: int, dice: np.random.Generator) -> np.ndarray:
    """`total` in `count` positive parts, every way as likely."""
    cuts = np.sort(dice.choice(total - 1, count - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def _entropy(logits: Tensor, labels: Tensor) -> Tensor:
    flat = nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return flat.view(labels.shape)


def vocabulary_of(tokenizer_json: str) -> Tokenizer:
    """The tokenizer of a tokenizer.json, its post-processor removed."""
    content = json.loads(tokenizer_json)
    content["post_processor"] = None
    return Tokenizer.from_str(json.dumps(content))
