"""GGUF files as backbones: what they hold, what is kept of them, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from pathlib import Path

import gguf
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import foreword
from conftest import assert_close, cached_logits, tiny_model
from foreword.artifacts.artifact import load_model
from foreword.backbone import has_units, load_backbone
from foreword.backbone.weights.gguf import SOURCE
from foreword.cli import main
from foreword.errors import BackboneError
from foreword.recipe import BackboneSpec, load_recipe
from foreword.serving.spec import ServeSpec
from gguf_files import (
    TEMPLATE,
    WORDS,
    small_tokenizer,
    stored_name,
    stored_weight,
    tiny_llama,
    write_gguf,
)

KINDS = gguf.GGMLQuantizationType
NOTE = "is a GGUF file of"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOREWORD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("foreword.backbone.weights.gguf._for_now", {})
    return tmp_path / "cache"


@pytest.fixture
def model():
    return tiny_llama()


@pytest.fixture
def file(tmp_path: Path, model) -> Path:
    return write_gguf(tmp_path / "tiny.gguf", model)


def kept_beside(file: Path, dtype: str = "float32") -> Path:
    return file.with_name(f"{file.name}.foreword-{dtype}")


def load(file: Path, **options):
    with pytest.warns(UserWarning, match=NOTE):
        return load_backbone(file, **options)


def test_it_computes_what_the_model_computes_that_was_written(file, model) -> None:
    backbone = load(file)
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        assert_close(backbone.model(ids).logits, model(ids).logits)


def test_a_quantised_file_has_the_numbers_of_its_blocks(tmp_path, model) -> None:
    file = write_gguf(tmp_path / "q8.gguf", model, kind=KINDS.Q8_0)
    backbone = load(file)
    own = backbone.model.state_dict()
    rounded = 0
    for name, tensor in model.state_dict().items():
        if tensor.ndim == 1:
            continue
        weight = stored_weight(model, name, tensor)
        blocks = gguf.quants.quantize(weight, KINDS.Q8_0)
        expected = torch.from_numpy(gguf.quants.dequantize(blocks, KINDS.Q8_0))
        mine = torch.from_numpy(stored_weight(model, name, own[name]))
        assert torch.equal(mine, expected), name
        rounded += not torch.equal(expected, torch.from_numpy(weight))
    assert rounded > 10
    assert backbone.quantization is None
    assert "Q8_0, F32" in backbone.notes[0]


def test_tokenizer_and_chat_template_are_the_files_own(file) -> None:
    tokens = load(file).tokens
    text = "The Punter serves Italian food, it's 20 pounds.\n"
    assert tokens.plain(text) == small_tokenizer().encode(text).ids
    assert tokens.tokenizer.chat_template == TEMPLATE
    talk = [{"role": "user", "content": "Hi"}]
    assert tokens.tokenizer.apply_chat_template(talk, tokenize=False) == "<user>Hi"


def test_what_was_kept_is_a_plain_folder_and_loads_the_same(file, recwarn) -> None:
    first = load(file)
    folder = kept_beside(file)
    assert stat.S_IMODE((folder / "model.safetensors").stat().st_mode) == 0o644
    recwarn.clear()
    second = load_backbone(file)
    assert not recwarn.list
    assert second.sha256 == first.sha256
    assert second.tokens.sha256 == first.tokens.sha256
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, first.model.state_dict()[name])
        assert torch.equal(weight, second.model.state_dict()[name])


def test_it_is_known_by_its_stored_tensors(tmp_path, file, model) -> None:
    backbone = load(file)
    again = write_gguf(tmp_path / "again.gguf", model, template="{{ messages }}")
    assert load(again).sha256 == backbone.sha256
    rounded = write_gguf(tmp_path / "f16.gguf", model, kind=KINDS.F16)
    assert load(rounded).sha256 != backbone.sha256
    other = write_gguf(tmp_path / "other.gguf", tiny_llama(seed=1))
    assert load(other).sha256 != backbone.sha256


def test_kept_for_another_file_it_is_made_anew(file) -> None:
    before = load(file)
    changed = write_gguf(file, tiny_llama(seed=1))
    os.utime(changed, ns=(1, 1))
    after = load(file)
    assert after.sha256 != before.sha256
    assert not torch.equal(after.model.lm_head.weight, before.model.lm_head.weight)


@pytest.mark.parametrize("harm", ["weights", "source", "version", "half"])
def test_what_is_not_what_was_kept_is_made_anew(file, harm, tmp_path) -> None:
    before = load(file)
    folder = kept_beside(file)
    if harm == "weights":
        other = tmp_path / "other"
        tiny_llama(seed=2).save_pretrained(other)
        (folder / "model.safetensors").unlink()  # the first backbone reads the old file still
        shutil.copy(other / "model.safetensors", folder / "model.safetensors")
    elif harm == "half":
        (folder / "model.safetensors").unlink()
    else:
        stated = json.loads((folder / SOURCE).read_text())
        stated |= {"file": "0" * 64} if harm == "source" else {"transformers": "4.0"}
        (folder / SOURCE).write_text(json.dumps(stated))
    after = load(file)
    assert after.sha256 == before.sha256
    assert torch.equal(after.model.lm_head.weight, before.model.lm_head.weight)


def test_a_folder_of_somebody_else_stays(file, cache) -> None:
    own = kept_beside(file)
    own.mkdir()
    (own / "notes.txt").write_text("mine")
    load(file)
    assert [place.name for place in own.iterdir()] == ["notes.txt"]
    assert list((cache / "gguf").glob("*/model.safetensors"))


@pytest.fixture
def unwritable(monkeypatch: pytest.MonkeyPatch):
    """Folders in which nothing can be made, for whoever runs this (root may write everywhere)."""
    from foreword.common import files

    refused: list[Path] = []
    make = files.tempfile.mkdtemp

    def guarded(*args, **kwargs):
        if Path(kwargs.get("dir") or "/") in refused:
            raise PermissionError(13, "Permission denied")
        return make(*args, **kwargs)

    monkeypatch.setattr(files.tempfile, "mkdtemp", guarded)
    return refused


def test_beside_an_unwritable_file_the_users_cache_keeps_it(file, unwritable, cache) -> None:
    unwritable.append(file.parent)
    with pytest.warns(UserWarning, match=f"kept in {cache / 'gguf'}"):
        first = load_backbone(file)
    assert not kept_beside(file).exists()
    assert load_backbone(file).sha256 == first.sha256


def test_where_nothing_can_be_written_it_loads_all_the_same(file, unwritable, cache) -> None:
    unwritable += [file.parent, cache / "gguf"]
    with pytest.warns(UserWarning, match=r"done anew at each start.*Permission denied"):
        first = load_backbone(file)
    assert not kept_beside(file).exists()
    assert not (cache / "gguf").exists() or not any((cache / "gguf").iterdir())
    assert load_backbone(file).sha256 == first.sha256  # by this process, once
    assert load_backbone(file, dtype="bfloat16").sha256 == first.sha256


def test_a_smaller_type_is_kept_by_itself_and_is_the_same_cast(file) -> None:
    half = load(file, dtype="bfloat16")
    assert kept_beside(file, "bfloat16").is_dir()
    assert not kept_beside(file).exists()
    whole = load(file)
    shutil.rmtree(kept_beside(file, "bfloat16"))
    cast = load_backbone(file, dtype="bfloat16")  # from float32, which serves all types
    assert cast.sha256 == half.sha256 == whole.sha256
    for name, weight in half.model.state_dict().items():
        assert torch.equal(weight, cast.model.state_dict()[name])


def test_as_stored_is_the_files_own_type(tmp_path, model) -> None:
    half = write_gguf(tmp_path / "half.gguf", model, kind=KINDS.F16)
    quick = has_units("float16", "cpu")
    assert load(half, dtype="auto").dtype == ("float16" if quick else "float32")
    blocks = write_gguf(tmp_path / "blocks.gguf", model, kind=KINDS.Q8_0)
    assert load(blocks, dtype="auto").dtype == "float32"


def test_stored_rotary_factors_become_the_rule_that_made_them(tmp_path) -> None:
    rule = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    ruled = tiny_llama(rope_parameters=rule, max_position_embeddings=512)
    plain = 500000.0 ** -(torch.arange(0, 8, 2, dtype=torch.float64) / 8)
    factors = plain / ruled.model.rotary_emb.inv_freq.double()
    assert factors.max() > 1  # otherwise the rule would change nothing
    file = write_gguf(tmp_path / "ruled.gguf", ruled, factors=factors)
    ids = torch.arange(5, 405)[None] % WORDS
    with torch.no_grad():
        assert_close(load(file).model(ids).logits, ruled(ids).logits)
    strange = write_gguf(tmp_path / "strange.gguf", ruled, factors=factors.flip(0))
    with pytest.raises(BackboneError, match="follow no rule of transformers"):
        load_backbone(strange)


def test_what_is_no_model_that_transformers_reads_is_refused(tmp_path, model) -> None:
    def refused(file: Path, match: str) -> None:
        with pytest.raises(BackboneError, match=match):
            load_backbone(file)
        assert not kept_beside(file).exists()

    text = tmp_path / "text.gguf"
    text.write_text("no model")
    refused(text, r"is no GGUF file \(begins with b'no m'")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(6))
    refused(broken, "is damaged, or was cut off while it was copied; fetch it again")
    whole = write_gguf(tmp_path / "whole.gguf", model)
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole.read_bytes()[:-4000])
    refused(cut, "is damaged, or was cut off|lacks weights|cannot read this GGUF")
    refused(tmp_path / "none.gguf", "there is no such file")
    strange = write_gguf(tmp_path / "strange.gguf", model, architecture="wavtokenizer-dec")
    refused(strange, "reads no GGUF of the architecture 'wavtokenizer-dec'; it reads .*llama")
    part = write_gguf(tmp_path / "part.gguf", model, more={"split.count": 3})
    refused(part, "is one of 3 parts")
    adapter = write_gguf(tmp_path / "adapter.gguf", model, more={"general.type": "adapter"})
    refused(adapter, r"holds no model \('adapter'\)")
    scaled = write_gguf(tmp_path / "yarn.gguf", model, more={"llama.rope.scaling.type": "yarn"})
    refused(scaled, "rotary positions are scaled")
    lacking = write_gguf(tmp_path / "lacking.gguf", model, without=("blk.1.ffn_up.weight",))
    refused(lacking, "lacks weights that the model needs.*up_proj")
    with pytest.raises(BackboneError, match=f"name one of them: .*{adapter.name}"):
        load_backbone(tmp_path)


def test_without_the_package_the_extra_is_named_and_what_was_kept_loads(
    file, tmp_path, monkeypatch
) -> None:
    first = load(file)
    other = write_gguf(tmp_path / "other.gguf", tiny_llama(seed=1))
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.setattr("foreword.backbone.weights.gguf.find_spec", lambda name: None)
    with pytest.raises(BackboneError, match=r"pip install 'foreword\[gguf\]'"):
        load_backbone(other)
    assert load_backbone(file).sha256 == first.sha256


def test_a_recipe_names_the_file_or_its_folder_and_the_file(tmp_path, file) -> None:
    spec = BackboneSpec(name=str(tmp_path), gguf_file="tiny.gguf")
    assert spec == BackboneSpec(name=str(file))
    with pytest.raises(ValueError, match="expected the name of a"):
        BackboneSpec(name=str(tmp_path), gguf_file="model.bin")
    stated = {
        "version": 1,
        "name": "tiny",
        "method": "prompt-tuning",
        "task": {
            "input": "{a}",
            "target": "{b}",
            "data": {"train": "rows.jsonl", "format": "jsonl"},
        },
        "training": {"steps": 1},
    }
    for written in ("tiny.gguf", {"name": ".", "gguf_file": "tiny.gguf"}):
        recipe_file = tmp_path / "recipe.yaml"
        recipe_file.write_text(json.dumps({**stated, "backbone": written}))
        recipe = load_recipe(recipe_file)
        assert recipe.backbone.name == str(file)
        assert recipe.backbone.gguf_file is None


def test_a_file_of_the_hubs_cache_is_kept_in_the_users(tmp_path, file, cache, monkeypatch) -> None:
    commit = "0" * 39 + "1"
    place = tmp_path / "hub" / "models--someone--tiny-GGUF"
    (place / "snapshots" / commit).mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    shutil.move(file, place / "snapshots" / commit / "tiny.gguf")
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.warns(UserWarning, match=NOTE):
        backbone = load_backbone("someone/tiny-GGUF/tiny.gguf", local_files_only=True)
    assert backbone.name == "someone/tiny-GGUF/tiny.gguf"
    assert [one.name for one in (place / "snapshots" / commit).iterdir()] == ["tiny.gguf"]
    assert len(list((cache / "gguf").iterdir())) == 1


def test_a_prompt_trained_on_it_is_found_again(file, tmp_path) -> None:
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    )
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    attached = foreword.attach(model, "prefix-tuning", tokenizer=tokenizer, length=3)
    with pytest.warns(UserWarning, match=NOTE):
        attached.save_pretrained(tmp_path / "artifact", input="{a}")
    manifest, loaded = load_model(tmp_path / "artifact")
    assert manifest.backbone.name == str(file)
    assert manifest.backbone.quantization is None
    ids = [5, 6, 7]
    reference = cached_logits(loaded.backbone, ids, loaded.prompt())
    again = attached(input_ids=torch.tensor([ids])).logits[0]
    assert_close(again[-3:], reference)


@pytest.mark.filterwarnings("default:.*is a GGUF file of")
def test_every_verb_takes_it(file, tmp_path, capsys, monkeypatch) -> None:
    def foreword_does(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["foreword", *map(str, words), "--device", "cpu"])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0)

    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"source": "a b", "references": "c d"}\n' * 4)
    recipe = {
        "version": 1,
        "name": "tiny",
        "backbone": "tiny.gguf",
        "method": {"name": "prompt-tuning", "length": 2},
        "task": {
            "input": "{source}",
            "target": " {reference}",
            "data": {"train": "rows.jsonl", "dev": "rows.jsonl", "format": "jsonl"},
        },
        "training": {"steps": 2, "batch_size": 2},
        "decoding": {"max_new_tokens": 2},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    run = tmp_path / "run"
    assert foreword_does("train", tmp_path / "recipe.yaml", "--out", run) == 0
    assert "never as GGUF" in capsys.readouterr().err
    written = []
    moved = shutil.copy(file, tmp_path / "moved.gguf")
    for more in ([], ["--backbone", moved]):
        assert foreword_does("generate", run, "--text", "a b", *more) == 0
        written.append(capsys.readouterr().out)
    assert written[0] == written[1]
    assert foreword_does("evaluate", run, "--data", rows) == 0
    other = write_gguf(tmp_path / "other.gguf", tiny_llama(seed=1))
    assert foreword_does("generate", run, "--text", "a b", "--backbone", other) == 2
    assert "whose weights have sha256" in capsys.readouterr().err
    assert ServeSpec(backbone=str(file)).backbone_name == "tiny"


def test_names_cover_the_whole_model(model) -> None:
    names = [stored_name(name) for name in model.state_dict()]
    assert len(set(names)) == len(names)
    assert tiny_model("llama").config.tie_word_embeddings is False
