"""PEFT saves and we answer as it does; we export and it answers as we do."""

import hashlib
import json
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file

import foreword
from compat.exchanging import KINDS, LENGTH, WARNINGS, base_model, peft_answers, peft_model, save
from conftest import one_of_each
from families.measures import backbone_of
from foreword.artifacts.artifact import save_artifact
from foreword.artifacts.manifest import read_manifest
from foreword.backbone import Backbone, bundled_backbones, load_backbone
from foreword.errors import ArtifactError, BackboneError, TemplateError, UserError
from foreword.methods import HardPrompt, PrefixTuning, PromptTuning, PTuning, axes
from foreword.recipe import TaskId
from foreword.tuned.compose import compose

pytestmark = [pytest.mark.filterwarnings(*WARNINGS), pytest.mark.usefixtures("loaded_once")]
NEW_TOKENS = 12
TEXTS = {
    "foreword/mini": [
        "name : Silver Piper | type : bird ->",
        "name : Grey Otter | type : mammal | colour : grey ->",
        "The robin is a small",
        "Once",
        "In winter the river",
        "A",
    ],
    "stories260K": [
        "Once upon a time",
        "The dog",
        "Lily was a girl who",
        "Tom and his mom went to",
        "A",
        "One day, a big red",
    ],
}
LOUD = {
    "prefix": 1.0,
    "cartridge": 1.0,
    "projected prefix": 3.0,
    "prompt": 1.0,
    "p-tuning, mlp": 6.0,
}


@pytest.fixture(scope="module")
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def where(name, shared) -> str:
    """The backbone's folder, as PEFT is told it."""
    if name == "foreword/mini":
        return str(bundled_backbones()[name])
    return str(shared(f"models/{name}"))


@pytest.fixture(scope="module")
def backbone(where) -> Backbone:
    return load_backbone(where)


@pytest.fixture(scope="module")
def bare(name, where) -> list[str]:
    """What the backbone answers without a prompt."""
    return peft_answers(base_model(where), where, TEXTS[name], NEW_TOKENS)


def on_one_backbone(kinds):
    """Each on one of the backbones; on the others by `make soak`."""
    cases = one_of_each([(kind, name) for kind in kinds for name in TEXTS], 1)
    return pytest.mark.parametrize(("kind", "name"), cases, indirect=["name"])


@on_one_backbone(KINDS)
def test_there_and_back(kind, name, where, backbone, bare, tmp_path) -> None:
    texts = TEXTS[name]
    theirs = peft_model(where, kind, loud=LOUD.get(kind, 6.0))
    expected = peft_answers(theirs, where, texts, NEW_TOKENS)
    adapter = save(theirs, tmp_path / "adapter")
    manifest = foreword.import_peft(adapter, tmp_path / "imported")
    assert manifest.backbone.name == where
    assert manifest.tokens.bos == "auto"
    prompt = foreword.load(tmp_path / "imported", backbone=backbone)
    assert prompt.generate(texts, max_new_tokens=NEW_TOKENS) == expected
    assert sum(a != b for a, b in zip(bare, expected, strict=True)) >= 3, "the prompt must tell"

    foreword.export_peft(tmp_path / "imported", tmp_path / "exported")
    again = peft.PeftModel.from_pretrained(base_model(where), str(tmp_path / "exported")).eval()
    assert peft_answers(again, where, texts, NEW_TOKENS) == expected
    assert same_rows(adapter, tmp_path / "exported")
    second = foreword.import_peft(tmp_path / "exported", tmp_path / "second", backbone=backbone)
    assert second.prompt_sha256 == manifest.prompt_sha256


def same_rows(one: Path, other: Path) -> bool:
    rows = [load_file(f / "adapter_model.safetensors")["prompt_embeddings"] for f in (one, other)]
    return torch.equal(*rows)


METHODS = {
    "prefix": PrefixTuning(
        name="prefix-tuning", length=LENGTH, reparameterization=axes.Table(std=1.0)
    ),
    "projected prefix": PrefixTuning(name="prefix-tuning", length=LENGTH),
    "prompt": PromptTuning(name="prompt-tuning", length=LENGTH),
    "p-tuning, lstm": PTuning(name="p-tuning", length=LENGTH),
    "p-tuning, mlp": PTuning(
        name="p-tuning", length=LENGTH, reparameterization=axes.ReluMLP(hidden=20)
    ),
}


def artifact(folder: Path, backbone: Backbone, method, *, loud: float = 1.0) -> Path:
    torch.manual_seed(2)
    model = compose(backbone, method)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(loud)
    task = TaskId(input="{text}", target="{reference}", metrics=("bleu",))
    save_artifact(folder, model, name="ours", method=method, task=task)
    return folder


@on_one_backbone(METHODS)
def test_peft_answers_with_what_we_trained(kind, name, where, backbone, tmp_path) -> None:
    texts = TEXTS[name]
    ours = artifact(tmp_path / "ours", backbone, METHODS[kind], loud=1.5)
    expected = foreword.load(ours, backbone=backbone).generate(texts, max_new_tokens=NEW_TOKENS)
    config = foreword.export_peft(ours, tmp_path / "adapter")
    model = peft.PeftModel.from_pretrained(base_model(where), str(tmp_path / "adapter")).eval()
    assert peft_answers(model, where, texts, NEW_TOKENS) == expected
    assert type(config).__name__ == KINDS[kind][0]
    stated = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert stated["base_model_name_or_path"] == where
    assert not stated.get("prefix_projection"), "what is stored is folded"
    loaded = peft.PeftConfig.from_pretrained(str(tmp_path / "adapter"))
    assert type(loaded).__name__ == type(config).__name__


def test_a_run_folder_is_exported_and_our_names_stay_here(mini, tmp_path) -> None:
    """PEFT would look for `foreword/mini` on the hub."""
    artifact(tmp_path / "run" / "artifact", mini, METHODS["prompt"])
    foreword.export_peft(tmp_path / "run", tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] is None
    assert {file.name for file in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "README.md",
    }
    card = (tmp_path / "adapter" / "README.md").read_text(encoding="utf-8")
    assert "foreword/mini" in card
    assert mini.sha256 in card
    with pytest.raises(ArtifactError, match="names no base model; name it with `backbone`"):
        foreword.import_peft(tmp_path / "adapter", tmp_path / "back")
    back = foreword.import_peft(tmp_path / "adapter", tmp_path / "back", backbone="foreword/mini")
    assert back.backbone.sha256 == mini.sha256


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> Path:
    where = str(bundled_backbones()["foreword/mini"])
    folder = tmp_path_factory.mktemp("adapter") / "one"
    return save(peft_model(where, "projected prefix"), folder)


def test_what_an_import_records(adapter, mini, tmp_path) -> None:
    foreword.import_peft(
        adapter, tmp_path / "it", backbone=mini, input="{record} ->", target=" {reference}"
    )
    manifest = read_manifest(tmp_path / "it")
    assert manifest.name == "it"
    assert (manifest.task.input, manifest.task.target) == ("{record} ->", " {reference}")
    assert manifest.method == PrefixTuning(
        name="prefix-tuning",
        length=LENGTH,
        positions="shift",
        reparameterization=axes.MLP(hidden=24),
    )
    assert manifest.method.positions == "shift"
    assert manifest.backbone.sha256 == mini.sha256
    said = manifest.data["peft"]
    raw = (adapter / "adapter_model.safetensors").read_bytes()
    assert said["sha256"] == hashlib.sha256(raw).hexdigest()
    raw = (adapter / "adapter_config.json").read_bytes()
    assert said["config_sha256"] == hashlib.sha256(raw).hexdigest()
    assert said["name"] == f"{adapter.name}/adapter_model.safetensors"
    assert str(adapter.parent) not in (tmp_path / "it" / "foreword.json").read_text("utf-8")
    assert said["config"]["peft_version"] == peft.__version__
    assert said["config"]["prefix_projection"] is True
    prompt = foreword.load(tmp_path / "it", backbone=mini)
    assert prompt.generate([{"record": {"name": "x"}}], max_new_tokens=2)


def test_where_a_prompt_started_is_recorded(mini, tmp_path) -> None:
    where = str(bundled_backbones()["foreword/mini"])
    for init, expected in (
        ({"prompt_tuning_init": "SAMPLE_VOCAB"}, axes.VocabularyInit(most_common=8192)),
        (
            {
                "prompt_tuning_init": "TEXT",
                "prompt_tuning_init_text": "A bird",
                "tokenizer_name_or_path": where,
            },
            axes.TextInit(text="A bird"),
        ),
    ):
        config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3, **init)
        folder = tmp_path / init["prompt_tuning_init"]
        save(peft.get_peft_model(base_model(where), config), folder / "peft")
        manifest = foreword.import_peft(folder / "peft", folder / "ours", backbone=mini)
        assert manifest.method.init == expected


def test_an_adapter_of_another_backbone(adapter, tiny_backbone, tmp_path) -> None:
    for family in ("gpt2", "llama"):
        with pytest.raises(ArtifactError, match=r"num_layers is 6, but backbone .* `backbone`"):
            foreword.import_peft(adapter, tmp_path / "it", backbone=tiny_backbone(family))
    assert list(tmp_path.iterdir()) == []


def test_mistakes_of_a_call(adapter, mini, tmp_path) -> None:
    with pytest.raises(TemplateError, match="needs the slot"):
        foreword.import_peft(adapter, tmp_path / "it", backbone=mini, target="x")
    with pytest.raises(TemplateError, match="column 1"):
        foreword.import_peft(adapter, tmp_path / "it", backbone=mini, input="{")
    with pytest.raises(BackboneError, match="cannot be loaded"):
        foreword.import_peft(adapter, tmp_path / "it", backbone=str(tmp_path / "none"))
    with pytest.raises(ArtifactError, match="no such folder"):
        foreword.import_peft(tmp_path / "none", tmp_path / "it", backbone=mini)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x", encoding="utf-8")
    for call in (
        lambda: foreword.import_peft(adapter, tmp_path / "full", backbone=mini),
        lambda: foreword.export_peft(
            artifact(tmp_path / "ours", mini, METHODS["prefix"]), tmp_path / "full"
        ),
    ):
        with pytest.raises(UserError, match="is there already and is not empty"):
            call()
    assert {file.name for file in tmp_path.iterdir()} == {"full", "ours"}


def test_what_peft_has_no_place_for(mini, tmp_path) -> None:
    keep = PrefixTuning(name="prefix-tuning", length=2, positions="keep")
    alone = HardPrompt(name="hard-prompt")
    for method, said in ((keep, "PEFT always puts"), (alone, "no trained prompt")):
        folder = artifact(tmp_path / method.name, mini, method)
        with pytest.raises(UserError, match=said):
            foreword.export_peft(folder, tmp_path / "adapter")
    folder = artifact(tmp_path / "delta", mini, METHODS["prefix"])
    manifest = json.loads((folder / "foreword.json").read_text(encoding="utf-8"))
    manifest["axes"]["delta"] = "bitfit"
    (folder / "foreword.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(UserError, match="its delta is bitfit"):
        foreword.export_peft(folder, tmp_path / "adapter")
    with pytest.raises(ArtifactError, match="is no artifact"):
        foreword.export_peft(tmp_path / "none", tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("family", ["deepseek_v3", "glm4_moe_lite"])
def test_a_prefix_on_latent_attention_stays_here(family, adapter, tmp_path) -> None:
    """PEFT puts a prefix into the cache, which holds latents there; embeddings are exchanged."""
    latent = backbone_of(family, torch.float32)
    ours = artifact(tmp_path / "ours", latent, METHODS["prefix"])
    with pytest.raises(UserError, match="cache holds latents"):
        foreword.export_peft(ours, tmp_path / "adapter")
    with pytest.raises(ArtifactError, match=f"cache, and that of .*{family}.* holds latents"):
        foreword.import_peft(adapter, tmp_path / "it", backbone=latent)
    prompt = artifact(tmp_path / "prompt", latent, METHODS["prompt"])
    foreword.export_peft(prompt, tmp_path / "embeddings")
    foreword.import_peft(tmp_path / "embeddings", tmp_path / "it", backbone=latent)
    assert not (tmp_path / "adapter").exists()


def test_a_prompt_that_fills_the_context(tiny_backbone, tmp_path) -> None:
    long = PromptTuning(name="prompt-tuning", length=300)
    ours = artifact(tmp_path / "ours", tiny_backbone("gpt2", n_positions=512), long)
    foreword.export_peft(ours, tmp_path / "adapter")
    with pytest.raises(UserError, match="300 virtual tokens leave no room"):
        foreword.import_peft(
            tmp_path / "adapter", tmp_path / "it", backbone=tiny_backbone("gpt2", n_positions=256)
        )
