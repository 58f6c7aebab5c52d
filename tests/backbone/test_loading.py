"""A backbone is what its files say, whole, and its answers are decoded as a recipe says."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from conftest import FAMILIES, make_backbone, random_ids, tiny_model
from foreword.backbone import Backbone, Call, Decoding, bundled_backbones, generate, load_backbone
from foreword.backbone.layout import Layout
from foreword.backbone.text.tokens import Tokens
from foreword.errors import BackboneError

MINI = bundled_backbones()["foreword/mini"]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(MINI, tmp_path / "copy")
    return tmp_path / "copy"


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_missing_weights_are_refused(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if ".h.3." not in name}
    save_file(kept, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneError, match=r"lacks weights that the model needs \(12: .*h\.3\."):
        load_backbone(str(copy))


def test_weights_without_a_place_are_refused(copy: Path) -> None:
    edit(copy / "config.json", n_layer=3)
    with pytest.raises(BackboneError, match="has weights that the model has no place for"):
        load_backbone(str(copy))


def test_half_a_checkpoint_is_refused(copy: Path) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(BackboneError, match="cannot be loaded"):
        load_backbone(str(copy))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_checkpoint_says_of_generation_changes_no_answer(family) -> None:
    layout = Layout.of(random_ids([5, 3]), side="left")
    how = Decoding(max_new_tokens=6)
    plain = make_backbone(family, torch.float32)
    model = tiny_model(family, torch.float32)
    model.generation_config.repetition_penalty = 3.0
    model.generation_config.no_repeat_ngram_size = 1
    model.generation_config.suppress_tokens = list(range(50))
    other = Backbone.wrap(model, plain.tokens)
    assert generate(other, Call(layout), how) == generate(plain, Call(layout), how)


def test_the_tokenizers_hash_covers_merges_normalizer_and_chat_template(copy: Path) -> None:
    def sha256() -> str:
        return Tokens(AutoTokenizer.from_pretrained(copy)).sha256

    file = copy / "tokenizer.json"
    first, raw = sha256(), json.loads(file.read_text())
    assert sha256() == first
    edit(file, normalizer={"type": "Lowercase"})
    lowered = sha256()
    edit(file, normalizer=None, model={**raw["model"], "merges": raw["model"]["merges"][:100]})
    shorn = sha256()
    file.write_text(json.dumps(raw))
    edit(copy / "tokenizer_config.json", chat_template="{{ messages }}")
    assert len({first, lowered, shorn, sha256()}) == 4


def test_padding_a_batch_does_not_change_the_tokenizers_hash(mini) -> None:
    tokenizer = AutoTokenizer.from_pretrained(MINI)
    tokenizer(["a", "a longer text"], padding=True, truncation=True, max_length=3)
    assert Tokens(tokenizer).sha256 == mini.tokens.sha256


@pytest.fixture
def coded(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundled backbone under a model type that transformers has not, with code of its own."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "hf"))
    names = {"AutoConfig": "coded.CodedConfig", "AutoModelForCausalLM": "coded.CodedForCausalLM"}
    edit(copy / "config.json", model_type="coded", architectures=["CodedLM"], auto_map=names)
    (copy / "coded.py").write_text(
        "from transformers import GPT2Config, GPT2LMHeadModel\n\n\n"
        "class CodedConfig(GPT2Config):\n    model_type = 'coded'\n\n\n"
        "class CodedForCausalLM(GPT2LMHeadModel):\n    config_class = CodedConfig\n"
    )
    return copy


def test_code_that_is_not_trusted_is_refused_with_the_flags_name(coded: Path) -> None:
    said = r"comes with code of its own.*`trust_remote_code=True`; for an artifact"
    with pytest.raises(BackboneError, match=said):
        load_backbone(str(coded))


def test_a_model_of_code_of_its_own_is_a_language_model(coded: Path, mini) -> None:
    """transformers has no such type among its decoders; the checkpoint names the class."""
    found = load_backbone(str(coded), trust_remote_code=True)
    assert type(found.model).__name__ == "CodedForCausalLM"
    layout = Layout.of(random_ids([5, 3]))
    with torch.no_grad():
        assert torch.equal(found.logits(Call(layout)), mini.logits(Call(layout)))


@pytest.mark.parametrize(
    ("auto", "base", "stated"),
    [
        ("AutoModelForMaskedLM", "BertForMaskedLM", "CodedModel"),
        ("AutoModel", "BertModel", "CodedModel"),
        ("AutoModelForSeq2SeqLM", "T5ForConditionalGeneration", "CodedModel"),
    ],
)
def test_every_kind_may_come_with_its_code(auto, base, stated, coded, monkeypatch) -> None:
    config = transformers.CONFIG_MAPPING["t5" if "T5" in base else "bert"]
    tiny = {"hidden_size": 32, "d_model": 32, "num_layers": 1, "num_hidden_layers": 1}
    heads = {"num_heads": 4, "num_attention_heads": 4, "d_kv": 8, "d_ff": 16}
    model = getattr(transformers, base)(config(**tiny, **heads, vocab_size=8192))
    model.save_pretrained(coded)
    names = {"AutoConfig": f"{base.lower()}.Config", auto: f"{base.lower()}.{stated}"}
    edit(coded / "config.json", model_type="coded", architectures=[stated], auto_map=names)
    (coded / f"{base.lower()}.py").write_text(
        f"from transformers import {config.__name__}, {base}\n\n\n"
        f"class Config({config.__name__}):\n    model_type = 'coded'\n\n\n"
        f"class {stated}({base}):\n    config_class = Config\n"
    )
    found = load_backbone(str(coded), trust_remote_code=True)
    assert type(found.model).__name__ == stated
    assert isinstance(found.model, getattr(transformers, base))


@pytest.mark.parametrize("line", ["raise AttributeError('gone')", "1 / 0", "("])
def test_code_that_fails_is_no_traceback(line, coded: Path) -> None:
    code = coded / "coded.py"
    code.write_text(f"{line}\n{code.read_text()}")
    with pytest.raises(BackboneError, match="the code that comes with it fails"):
        load_backbone(str(coded), trust_remote_code=True)
