"""A backbone is what its files say, whole, and its answers are decoded as a recipe says."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from conftest import FAMILIES, make_backbone, random_ids, tiny_model
from foreword.backbone import Backbone, Decoding, bundled_backbones, load_backbone
from foreword.backbone.tokens import Tokens
from foreword.errors import BackboneError
from foreword.layout import Layout

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
    assert other.generate(layout, None, how) == plain.generate(layout, None, how)


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
