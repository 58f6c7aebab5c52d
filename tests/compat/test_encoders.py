"""PEFT's modules: the same parameters, starts and outputs; PEFT's own example runs unchanged."""

import itertools

import peft
import pytest
import torch
from torch import nn
from transformers import T5Config, T5Model

import foreword
from conftest import mini_tokens

SIZES = {
    "num_virtual_tokens": 6,
    "token_dim": 16,
    "num_transformer_submodules": 1,
    "num_attention_heads": 4,
    "num_layers": 3,
}
MODULES = {
    "random": ("PromptTuningConfig", "PromptEmbedding", {}),
    "two submodules": ("PromptTuningConfig", "PromptEmbedding", {"num_transformer_submodules": 2}),
    "vocabulary": ("PromptTuningConfig", "PromptEmbedding", {"prompt_tuning_init": "SAMPLE_VOCAB"}),
    "text": (
        "PromptTuningConfig",
        "PromptEmbedding",
        {
            "prompt_tuning_init": "TEXT",
            "prompt_tuning_init_text": "The robin is a bird.",
            "num_virtual_tokens": 20,
        },
    ),
    "long text": (
        "PromptTuningConfig",
        "PromptEmbedding",
        {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "The robin is a bird. " * 9},
    ),
    "text, folded": (
        "PromptTuningConfig",
        "PromptEmbedding",
        {
            "prompt_tuning_init": "TEXT",
            "prompt_tuning_init_text": "The",
            "inference_mode": True,
        },
    ),
    "prefix": ("PrefixTuningConfig", "PrefixEncoder", {}),
    "zero prefix": ("PrefixTuningConfig", "PrefixEncoder", {"init_weights": "zero"}),
    "projected": (
        "PrefixTuningConfig",
        "PrefixEncoder",
        {"prefix_projection": True, "encoder_hidden_size": 10},
    ),
    "projected, zero": (
        "PrefixTuningConfig",
        "PrefixEncoder",
        {"prefix_projection": True, "encoder_hidden_size": 10, "init_weights": "zero"},
    ),
    "mlp": ("PromptEncoderConfig", "PromptEncoder", {"encoder_hidden_size": 10}),
    "mlp, two submodules": (
        "PromptEncoderConfig",
        "PromptEncoder",
        {"encoder_hidden_size": 10, "num_transformer_submodules": 2},
    ),
    "lstm": (
        "PromptEncoderConfig",
        "PromptEncoder",
        {
            "encoder_hidden_size": 10,
            "encoder_reparameterization_type": "LSTM",
            "encoder_num_layers": 3,
        },
    ),
}


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer")
    mini_tokens().tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def words() -> nn.Embedding:
    torch.manual_seed(5)
    return nn.Embedding(8192, SIZES["token_dim"])


def build(library, name: str, words: nn.Embedding, tokenizer: str, **more):
    config_name, module_name, options = MODULES[name]
    given = {**SIZES, **options, **more}
    if "prompt_tuning_init_text" in options:
        given["tokenizer_name_or_path"] = tokenizer
    config = getattr(library, config_name)(**given)
    torch.manual_seed(11)
    arguments = [words] if module_name == "PromptEmbedding" else []
    return getattr(library, module_name)(config, *arguments)


@pytest.mark.parametrize("name", MODULES)
def test_same_seed_same_start_same_output(name, words, tokenizer_folder) -> None:
    theirs, ours = (build(lib, name, words, tokenizer_folder) for lib in (peft, foreword))
    expected, found = theirs.state_dict(), ours.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert [p.requires_grad for p in ours.parameters()] == [True] * len(expected)
    indices = torch.arange(theirs.embedding.num_embeddings).expand(2, -1)
    assert torch.equal(ours(indices), theirs(indices))
    assert ours(indices).shape[:2] == (2, theirs.embedding.num_embeddings)


@pytest.mark.parametrize("name", MODULES)
def test_state_dicts_go_both_ways(name, words, tokenizer_folder) -> None:
    theirs, ours = (build(lib, name, words, tokenizer_folder) for lib in (peft, foreword))
    for source, target in itertools.permutations((theirs, ours)):
        with torch.no_grad():
            for parameter in source.parameters():
                parameter.normal_()
        target.load_state_dict(source.state_dict())
        indices = torch.arange(3)[None]
        assert torch.equal(source(indices), target(indices))


EXAMPLE = """
from peft import PromptEmbedding, PromptTuningConfig

config = PromptTuningConfig(
    peft_type="PROMPT_TUNING",
    task_type="SEQ_2_SEQ_LM",
    num_virtual_tokens=20,
    token_dim=768,
    num_transformer_submodules=1,
    num_attention_heads=12,
    num_layers=12,
    prompt_tuning_init="TEXT",
    prompt_tuning_init_text="Predict if sentiment of this review is positive, negative or neutral",
    tokenizer_name_or_path="t5-base",
)

# t5_model.shared is the word embeddings of the base model
prompt_embedding = PromptEmbedding(config, t5_model.shared)
"""
"""PEFT's documented example, as it stands."""


def test_the_documented_example_with_the_import_replaced(tmp_path, monkeypatch) -> None:
    mini_tokens().tokenizer.save_pretrained(tmp_path / "t5-base")
    monkeypatch.chdir(tmp_path)
    small = T5Config(vocab_size=8192, d_model=768, d_kv=8, d_ff=8, num_layers=1, num_heads=1)
    t5_model = T5Model(small)
    found = {}
    for library in ("peft", "foreword"):
        names = {"t5_model": t5_model}
        exec(EXAMPLE.replace("from peft", f"from {library}"), names)
        found[library] = names["prompt_embedding"]
        assert type(found[library]).__module__.startswith(library)
    ours, theirs = found["foreword"], found["peft"]
    assert torch.equal(ours.embedding.weight, theirs.embedding.weight)
    indices = torch.arange(20).expand(3, -1)
    assert ours(indices).shape == (3, 20, 768)
    assert torch.equal(ours(indices), theirs(indices))
    text = "Predict if sentiment of this review is positive, negative or neutral"
    ids = mini_tokens().tokenizer(text)["input_ids"]
    assert torch.equal(ours.embedding.weight, t5_model.shared.weight[(ids * 20)[:20]])


def test_starts_are_floats_of_their_own(words, tokenizer_folder) -> None:
    half = nn.Embedding(8192, SIZES["token_dim"], dtype=torch.float16)
    for name in ("vocabulary", "text"):
        made = build(foreword, name, half, tokenizer_folder)
        assert made.embedding.weight.dtype == torch.float32
        before = half.weight.detach().clone()
        with torch.no_grad():
            made.embedding.weight.zero_()
        assert torch.equal(half.weight, before)


def test_random_is_normal_and_the_vocabulary_is_all_of_it() -> None:
    words = nn.Embedding.from_pretrained(torch.arange(50.0)[:, None])
    sizes = {"num_virtual_tokens": 4000, "token_dim": 1, "num_transformer_submodules": 1}
    made = foreword.PromptEmbedding(foreword.PromptTuningConfig(**sizes), words)
    assert abs(made.embedding.weight.std().item() - 1) < 0.05
    config = foreword.PromptTuningConfig(prompt_tuning_init="SAMPLE_VOCAB", **sizes)
    drawn = foreword.PromptEmbedding(config, words).embedding.weight
    assert set(drawn.flatten().tolist()) == set(map(float, range(50)))


def test_the_bundled_tokenizer_has_a_name(words) -> None:
    made = build(foreword, "text", words, "foreword/mini")
    ids = mini_tokens().tokenizer("The robin is a bird.")["input_ids"]
    assert torch.equal(made.embedding.weight[: len(ids)], words.weight[ids])


def test_no_code_of_a_tokenizers_own(words, tokenizer_folder, monkeypatch) -> None:
    seen = {}

    def from_pretrained(name, **options):
        seen.update(options)
        return mini_tokens().tokenizer

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", from_pretrained)
    given = {"trust_remote_code": True, "use_fast": True}
    build(foreword, "text", words, tokenizer_folder, tokenizer_kwargs=given)
    assert seen == {"use_fast": True}
    assert given == {"trust_remote_code": True, "use_fast": True}, "the user's own dict"


@pytest.mark.parametrize("name", ["mlp", "lstm", "projected"])
def test_folded_modules_hold_the_prompt(name, words, tokenizer_folder) -> None:
    """PEFT's raise AttributeError here: they call a network that they do not have."""
    theirs, ours = (
        build(lib, name, words, tokenizer_folder, inference_mode=True) for lib in (peft, foreword)
    )
    ours.load_state_dict(theirs.state_dict())
    indices = torch.arange(6)[None]
    assert torch.equal(ours(indices)[0], ours.embedding.weight)
    with pytest.raises(AttributeError):
        theirs(indices)


def test_load_prompt_embeddings(words, tokenizer_folder) -> None:
    rows = torch.randn(6, 2 * 3 * 16)
    theirs, ours = (build(lib, "prefix", words, tokenizer_folder) for lib in (peft, foreword))
    for module in (theirs, ours):
        module.load_prompt_embeddings(rows)
        assert torch.equal(module.embedding.weight, rows)
        with pytest.raises(ValueError, match="shape"):
            module.load_prompt_embeddings(rows[:2])
    with pytest.raises(ValueError, match="prefix_projection=True"):
        build(foreword, "projected", words, tokenizer_folder).load_prompt_embeddings(rows)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("random", "num_virtual_tokens"),
        ("random", "token_dim"),
        ("random", "num_transformer_submodules"),
        ("prefix", "num_layers"),
        ("projected", "encoder_hidden_size"),
        ("mlp", "encoder_hidden_size"),
        ("lstm", "token_dim"),
    ],
)
def test_a_size_that_is_left_out_is_asked_for(name, missing, words, tokenizer_folder) -> None:
    with pytest.raises(ValueError, match=f"{missing}: is needed"):
        build(foreword, name, words, tokenizer_folder, **{missing: None})


def test_starts_that_cannot_be(words, tokenizer_folder) -> None:
    with pytest.raises(ValueError, match="has no tokens"):
        build(foreword, "text", words, tokenizer_folder, prompt_tuning_init_text="")
    with pytest.raises(ValueError, match="token_dim is 8, but the word embeddings are 16"):
        build(foreword, "vocabulary", words, tokenizer_folder, token_dim=8)


def test_a_text_of_tokens_that_the_model_does_not_have() -> None:
    config = foreword.PromptTuningConfig(
        **SIZES,
        prompt_tuning_init="TEXT",
        prompt_tuning_init_text="The robin",
        tokenizer_name_or_path="foreword/mini",
    )
    with pytest.raises(
        ValueError, match=r"prompt_tuning_init_text: has the token \d+, but .* 9 rows"
    ):
        foreword.PromptEmbedding(config, nn.Embedding(9, 16))


def test_layers_of_the_mlp_are_three(words, tokenizer_folder) -> None:
    with pytest.warns(UserWarning, match="encoder_num_layers has no effect"):
        made = build(foreword, "mlp", words, tokenizer_folder, encoder_num_layers=5)
    assert len(made.mlp_head) == 5
    with pytest.raises(AttributeError):
        build(
            peft,
            "mlp",
            words,
            tokenizer_folder,
            encoder_num_layers=5,
            encoder_reparameterization_type="MLP",
        )
