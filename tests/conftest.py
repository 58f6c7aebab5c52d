"""What all tests share: tiny random backbones, the bundled one, and the shared data folder."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    DynamicCache,
    PreTrainedModel,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from foreword.backbone import Backbone, Prompt, Tokens, bundled_backbones, load_backbone
from foreword.backbone.layout import Layout, PositionRule
from foreword.common import files
from foreword.common.pictures import write_figure
from foreword.runs import curve
from foreword.scoring import confusion
from foreword.tuned import TunedModel
from launching import Launcher, launching

pytest_plugins = ["quick", "benchmarks"]

# One thread for a process, and for those that tests start: more of them than free processors wait
# for each other by spinning, which doubles what a test takes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


gc.disable()  # until all is imported and collected


def pytest_collection_finish() -> None:
    """What modules and collected tests hold stays, so the garbage collector need not look at it
    again and again."""
    gc.collect()
    gc.freeze()
    gc.enable()


SHARED = Path(__file__).resolve().parents[2] / "shared"
VOCABULARY = 8192

LLAMA_LIKE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
"""Grouped heads: two query heads share a key and a value."""

CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {
        "n_embd": 32,
        "n_layer": 3,
        "n_head": 4,
        "n_positions": 256,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
    },
    "llama": LLAMA_LIKE,
    "qwen3": {**LLAMA_LIKE, "head_dim": 16, "num_hidden_layers": 3},
    "opt": {
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "dropout": 0.0,
    },
}
FAMILIES = tuple(CONFIGS)


def tiny_model(
    family: str, dtype: torch.dtype = torch.float32, *, seed: int = 0, **overrides: Any
) -> PreTrainedModel:
    """A random model; its weights are large enough that a wrong position or mask shows."""
    settings = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config = CONFIG_MAPPING[family](**(settings | CONFIGS.get(family, {}) | overrides))
    generator = torch.Generator().manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.2, generator=generator)
    return model.to(dtype).eval()


def saved_bert(folder: Path, kind: Any, *, positions: int, masked: bool = False) -> Backbone:
    """A tiny random BERT over the bundled vocabulary, saved and loaded from its folder.

    Args:
        folder: where it goes.
        kind: transformers' class of the model.
        positions: how many it has.
        masked: whether its tokenizer has a mask token, the last of its vocabulary.
    """
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY + masked,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=positions,
        initializer_range=0.2,
    )
    kind(config).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(bundled_backbones()["foreword/mini"])
    if masked:
        tokenizer.add_special_tokens({"mask_token": "[MASK]"})
    tokenizer.save_pretrained(folder)
    return load_backbone(str(folder), device="cpu")


@pytest.fixture(scope="session")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A tiny random BERT with its head over the bundled vocabulary and a mask token."""
    folder = tmp_path_factory.mktemp("masked")
    return saved_bert(folder, BertForMaskedLM, positions=128, masked=True)


_tokenizers: list[Any] = []


def mini_tokens() -> Tokens:
    """The bundled backbone's tokenizer, loaded once."""
    if not _tokenizers:
        _tokenizers.append(AutoTokenizer.from_pretrained(bundled_backbones()["foreword/mini"]))
    return Tokens(_tokenizers[0])


def make_backbone(
    family: str, dtype: torch.dtype = torch.float32, *, seed: int = 0, **overrides: Any
) -> Backbone:
    """A tiny random backbone; `overrides` go into its config."""
    return Backbone.wrap(tiny_model(family, dtype, seed=seed, **overrides), mini_tokens())


def random_rows(backbone: Backbone, length: int, *, seed: int = 0) -> torch.Tensor:
    """Virtual tokens `[P, width]` for keys and values, in the backbone's own type."""
    g = backbone.geometry.main
    generator = torch.Generator().manual_seed(seed)
    shape = (length, g.width)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(backbone.model.dtype)


def random_ids(lengths: list[int], *, seed: int = 0) -> list[list[int]]:
    """Token lists of given lengths, without the end token."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(1, VOCABULARY, (n,), generator=generator).tolist() for n in lengths]


def cached_logits(
    backbone: Backbone,
    ids: list[int],
    prompt: Prompt | None,
    positions: PositionRule = "shift",
) -> torch.Tensor:
    """The reference: one row alone, the prompt in the model's own cache: `[T, vocabulary]`.

    Written without foreword's attention function, layout or cache filling.
    """
    given = torch.tensor([ids])
    tokens = None if prompt is None else prompt.sites["decoder"]
    length = 0 if tokens is None else tokens.length
    cache = DynamicCache(config=backbone.model.config)
    if tokens is not None:
        for layer in range(tokens.keys.shape[0]):
            keys = tokens.keys[layer].permute(1, 0, 2)[None].clone()
            values = tokens.values[layer].permute(1, 0, 2)[None].clone()
            cache.update(keys, values, layer)
    first = length if positions == "shift" else 0
    with torch.no_grad():
        return backbone.model(
            input_ids=given,
            attention_mask=torch.ones(1, length + len(ids), dtype=torch.long),
            position_ids=first + torch.arange(len(ids))[None],
            past_key_values=cache,
            use_cache=True,
        ).logits[0]


def row_logits(logits: torch.Tensor, layout: Layout, row: int) -> torch.Tensor:
    """A row's logits at its real tokens, in their order: `[length of the row, vocabulary]`."""
    return logits[row][layout.attention_mask[row]]


def arranged(
    model: TunedModel, texts: list[str], answers: list[str] | None = None, *, side: str = "right"
) -> Layout:
    """Texts as a batch of a model."""
    tokens = model.backbone.tokens
    targets = None if answers is None else [tokens.target(answer) for answer in answers]
    return model.arrange([tokens.source(text) for text in texts], targets, side=side)


def tolerance(reference: torch.Tensor) -> float:
    """How far floats may part: 1e-9 in float64, 1e-5 of the largest number in float32."""
    scale = max(1.0, reference.abs().max().item())
    return 1e-9 if reference.dtype == torch.float64 else 1e-5 * scale


LOADERS = (
    "foreword.artifacts.artifact",
    "foreword.backbone",
    "foreword.bank",
    "foreword.compat.importing",
    "foreword.runs.preparing",
    "foreword.session",
)
"""Modules that load backbones by their names."""


@contextmanager
def loading_once(wanted: Callable[[str], bool]) -> Iterator[None]:
    """A backbone is loaded once meanwhile, as from Python whoever shares one does.

    Args:
        wanted: whether those of a name are.
    """
    loaded: dict[str, Backbone] = {}

    def load(name: str, **how: Any) -> Backbone:
        if not wanted(name):
            return load_backbone(name, **how)
        key = repr((name, sorted(how.items(), key=lambda item: item[0])))
        if key not in loaded:
            loaded[key] = load_backbone(name, **how)
        return loaded[key]

    with pytest.MonkeyPatch.context() as patch:
        for module in LOADERS:
            patch.setattr(f"{module}.load_backbone", load)
        yield


def one_of_each(cases: Sequence[tuple[Any, ...]], count: int) -> list[Any]:
    """Parameters of which some are for `make soak`: of cases with the same `count` first parts one
    is kept, another one from group to group."""
    groups: dict[Any, list[tuple[Any, ...]]] = {}
    for case in cases:
        groups.setdefault(case[:count], []).append(case)
    kept = [own[number % len(own)] for number, own in enumerate(groups.values())]
    return [pytest.param(*case, marks=() if case in kept else pytest.mark.soak) for case in cases]


def assert_close(actual: torch.Tensor, reference: torch.Tensor) -> None:
    """Equal as far as floats can be; tells the gap."""
    assert actual.shape == reference.shape
    gap = (actual - reference).abs().max().item()
    assert gap <= tolerance(reference), f"differ by {gap:.3g}"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _unsynced() -> Iterator[None]:
    """No test outlasts its machine, so this process waits for no disk; commands of their own do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        yield


@pytest.fixture(scope="module")
def loaded_once() -> Iterator[None]:
    """Tests of a file share backbones loaded by names that mean the same in every folder."""
    with loading_once(lambda name: name.startswith(("foreword/", "/"))):
        yield


@contextmanager
def figures_written_by(write: Callable[[Any, Path], None]) -> Iterator[None]:
    """How the pictures of runs are written meanwhile, instead of `write_figure`."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (curve, confusion):
            patch.setattr(module, "write_figure", write)
        yield


@pytest.fixture(scope="session", autouse=True)
def _undrawn() -> Iterator[None]:
    """Pictures are files with nothing in them, but for tests `with_pictures`: drawing one takes as
    long as training a tiny model."""
    with figures_written_by(lambda _, file: files.write_bytes(file, b"\x89PNG")):
        yield


@pytest.fixture
def with_pictures() -> Iterator[None]:
    """The pictures of runs are drawn."""
    with figures_written_by(write_figure):
        yield


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Hashes are cached away from the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOREWORD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def launcher() -> Iterator[Launcher]:
    """Starts commands in processes of their own that do not pay for the imports."""
    with launching() as one:
        yield one


@pytest.fixture(scope="session")
def mini() -> Backbone:
    """The bundled backbone; frozen, so that tests may share it."""
    return load_backbone("foreword/mini")


@pytest.fixture(scope="session")
def tiny() -> Backbone:
    """Random weights under the name of the bundled backbone, for runs in which its words tell
    nothing; frozen, so that tests may share it."""
    made = tiny_model("gpt2", n_layer=2, n_positions=512)
    return Backbone.wrap(made, mini_tokens(), name="foreword/mini")


@pytest.fixture(scope="session")
def tiny_backbone() -> Callable[..., Backbone]:
    """`tiny_backbone(family, dtype)`: a tiny random backbone, made once per choice."""
    made: dict[tuple[Any, ...], Backbone] = {}

    def make(family: str, dtype: torch.dtype = torch.float32, **overrides: Any) -> Backbone:
        key = (family, dtype, repr(sorted(overrides.items())))
        if key not in made:
            made[key] = make_backbone(family, dtype, **overrides)
        return made[key]

    return make


@pytest.fixture
def norms_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """RMSNorm of Llama and Qwen3 casts to float32 whatever the model's type; here it does not."""

    def forward(self: Any, hidden_states: torch.Tensor) -> torch.Tensor:
        assert hidden_states.dtype == torch.float64
        variance = hidden_states.pow(2).mean(-1, keepdim=True)
        return self.weight * hidden_states * torch.rsqrt(variance + self.variance_epsilon)

    for norm in (LlamaRMSNorm, Qwen3RMSNorm):
        monkeypatch.setattr(norm, "forward", forward)


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """`shared(path)`: a file of the shared folder beside the repository, or the test is skipped."""

    def find(path: str) -> Path:
        file = SHARED / path
        if not file.exists():
            pytest.skip(f"needs shared/{path} beside the repository, which is not here")
        return file

    return find
