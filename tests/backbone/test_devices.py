"""A model that lies in several places gives what it gives in one: logits, gradients, answers.

There is one device here, so parts lie in the CPU's memory and on the disk; what goes to another
device is shown on `meta`, which computes nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import dispatch_model
from tiny_families import batch, random_prompt, small_model
from torch import Tensor

from conftest import mini_tokens
from foreword.axes.injection import Embeddings
from foreword.backbone import (
    Backbone,
    Call,
    Decoding,
    Prompt,
    PromptKeyValues,
    bundled_backbones,
    devices,
    generate,
    load_backbone,
)
from foreword.backbone.layout import Layout, Pair
from foreword.backbone.prompts import cache
from foreword.errors import BackboneError, RecipeError, UserError
from foreword.methods import FineTuning, PrefixTuning
from foreword.methods.axes import Table
from foreword.recipe import TrainingSpec, parse_recipe
from foreword.runs import train as run
from foreword.training import train
from foreword.tuned.compose import compose

MINI = bundled_backbones()["foreword/mini"]
MAPS: dict[str, dict[str, dict[str, str | int]]] = {
    "gpt2": {
        "everything": {"": "disk"},
        "a layer": {
            "transformer.wte": "cpu",
            "transformer.wpe": "cpu",
            "transformer.h.0": "cpu",
            "transformer.h.1": "disk",
            "transformer.h.2": "cpu",
            "transformer.ln_f": "cpu",
            "lm_head": "cpu",
        },
        "the table": {
            "transformer.wte": "disk",
            "transformer.wpe": "cpu",
            "transformer.h": "cpu",
            "transformer.ln_f": "cpu",
            "lm_head": "disk",
        },
    },
    "llama": {
        "everything": {"": "disk"},
        "the table": {
            "model.embed_tokens": "disk",
            "model.layers": "cpu",
            "model.norm": "cpu",
            "model.rotary_emb": "cpu",
            "lm_head": "cpu",
        },
    },
    "bloom": {"everything": {"": "disk"}},
    "bert": {"everything": {"": "disk"}},
    "bart": {"everything": {"": "disk"}},
    "t5": {
        "everything": {"": "disk"},
        "the tables": {
            "shared": "disk",
            "encoder": "disk",
            "decoder.embed_tokens": "disk",
            "decoder.block": "cpu",
            "decoder.final_layer_norm": "cpu",
            "lm_head": "disk",
        },
    },
}
CASES = [(family, name) for family, maps in MAPS.items() for name in maps]
pytestmark = pytest.mark.filterwarnings("ignore:Some parameters are on the meta device:UserWarning")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Small checkpoints with the bundled tokenizer."""
    made = {}
    for family in MAPS:
        folder = tmp_path_factory.mktemp(family)
        small_model(family).save_pretrained(folder)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(MINI / file, folder / file)
        made[family] = str(folder)
    return made


Loaded = Callable[..., Backbone]


@pytest.fixture(scope="module")
def loaded(folders: dict[str, str]) -> Loaded:
    """`loaded(family, spread)`: a checkpoint in several places, or in one, loaded once."""
    made: dict[tuple[str, str | None], Backbone] = {}

    def load(family: str, spread: str | None = None) -> Backbone:
        if (family, spread) not in made:
            device_map = None if spread is None else MAPS[family][spread]
            made[family, spread] = load_backbone(folders[family], device_map=device_map)
        return made[family, spread]

    return load


def gradients(backbone: Backbone, on: bool = False) -> tuple[Tensor, Tensor]:
    """The logits of a batch, and the gradient of a prompt."""
    rows, prompt = random_prompt(backbone, 3)
    with backbone.recomputing(on):
        logits = backbone.logits(Call(batch(backbone, 3), prompt))
    logits.square().mean().backward()
    assert rows.grad is not None
    return logits.detach(), rows.grad


@pytest.mark.parametrize(("family", "spread"), CASES)
def test_spread_as_in_one_place(loaded, family, spread) -> None:
    whole, apart = loaded(family), loaded(family, spread)
    away = [parameter.is_meta for parameter in apart.model.parameters()]
    assert any(away)
    assert apart.device.type == "cpu"
    assert apart.sha256 == whole.sha256
    for on in (False, True):
        for one, other in zip(gradients(whole, on), gradients(apart, on), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
        assert [parameter.is_meta for parameter in apart.model.parameters()] == away


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize(("family", "spread"), [case for case in CASES if case[0] != "bert"])
def test_answers_are_those_of_one_place(loaded, family, spread, beams) -> None:
    whole, apart = loaded(family), loaded(family, spread)
    how = Decoding(max_new_tokens=4, num_beams=beams)
    found = []
    for backbone in (whole, apart):
        _, prompt = random_prompt(backbone, 3)
        found.append(generate(backbone, Call(batch(backbone, 3, side="left"), prompt), how))
    assert found[0] == found[1]


@pytest.mark.parametrize(("family", "spread"), CASES)
def test_embeddings_of_a_table_that_lies_elsewhere(loaded, family, spread) -> None:
    """Columns of virtual tokens, in every module that looks ids up; or what a decoder reads."""
    found = []
    for backbone in (loaded(family), loaded(family, spread)):
        g = backbone.geometry
        rows = torch.ones(3, g.width, requires_grad=True)
        if g.kind == "decoder":
            logits = backbone.logits(Call(batch(backbone, 3), Embeddings(backbone).prompt_of(rows)))
        else:
            columns = range(g.vocabulary, g.vocabulary + 3)
            layout = Layout.of([[5, 6, 7, 8], [9, 5]], columns=columns, positions="keep")
            if g.kind == "encoder-decoder":
                layout = Layout.of([[*(backbone.begin or ()), g.vocabulary]] * 2, source=layout)
            logits = backbone.logits(Call(layout, Prompt(embeddings=rows)))
        logits.square().mean().backward()
        assert rows.grad is not None
        found.append((logits.detach(), rows.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_a_text_as_a_start(folders) -> None:
    whole = load_backbone(folders["llama"])
    apart = load_backbone(folders["llama"], device_map={"": "disk"})
    for one, other in zip(
        whole.keys_values([5, 6])["decoder"], apart.keys_values([5, 6])["decoder"], strict=True
    ):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(whole.embeddings([5, 6]), apart.embeddings([5, 6]))


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
def test_a_prompt_is_trained_as_in_one_place(folders, family) -> None:
    pairs = [Pair([5, 6, 7, 8], [9, 10]), Pair([11, 12], [13])]
    spec = TrainingSpec(steps=3, batch_size=2, learning_rate=0.1, best_by=None)
    losses = []
    for device_map in (None, {"": "disk"}):
        backbone = load_backbone(folders[family], device_map=device_map)
        torch.manual_seed(0)
        method = PrefixTuning(name="prefix-tuning", length=4, reparameterization=Table())
        losses.append(
            [step["loss"] for step in train(compose(backbone, method), pairs, spec).steps]
        )
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_model_that_was_dispatched_by_hand(tmp_path) -> None:
    plain = Backbone.wrap(small_model("gpt2"), mini_tokens())
    model = small_model("gpt2")
    dispatch_model(model, MAPS["gpt2"]["the table"], offload_dir=str(tmp_path / "away"))
    with pytest.raises(BackboneError, match="lie elsewhere; load it from its folder, or give"):
        Backbone.wrap(model, mini_tokens())
    apart = Backbone.wrap(model, mini_tokens(), sha256=plain.sha256)
    for one, other in zip(gradients(plain), gradients(apart), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("rule", ["auto", "sequential"])
def test_a_rule(folders, rule) -> None:
    whole, apart = (load_backbone(folders["llama"], device_map=m) for m in (None, rule))
    if apart.device.type == "cpu":
        assert torch.equal(gradients(whole)[0], gradients(apart)[0])


def test_its_own_weights_do_not_move(folders) -> None:
    apart = load_backbone(folders["gpt2"], device_map={"": "disk"})
    with pytest.raises(BackboneError, match=r"^backbone\.device_map: weights in several places"):
        compose(apart, FineTuning(name="fine-tuning"))


def test_where_it_computes() -> None:
    assert devices.main_device("auto") is None
    assert devices.main_device({"a": "cpu", "b": "disk"}) == "cpu"
    assert devices.main_device({"a": "cpu", "b": "cuda:1"}) == "cuda"


def test_what_goes_to_another_device() -> None:
    """Each layer takes its part of a prompt to where it computes."""
    tokens = PromptKeyValues(torch.randn(2, 3, 4, 8), torch.randn(2, 3, 4, 8))
    own = torch.randn(2, 4, 5, 8, device="meta")
    for joined in tokens.front(0).before(own, own):
        assert joined.device.type == "meta"
        assert joined.shape == (2, 4, 8, 8)
    model = small_model("gpt2")
    for filled in (
        cache.fill(model, tokens, rows=2),
        cache.read_only(model, tokens, rows=2),
    ):
        for joined in filled.update(own, own, 0):
            assert joined.device.type == "meta"
            assert joined.shape == (2, 4, 8, 8)


@pytest.mark.parametrize(
    ("device_map", "message"),
    [
        ({"": "cuda:99"}, r"^backbone\.device_map: device 'cuda:99', given for '', is not here"),
        ({"": 99}, r"device 99, given for '', is not here; there is: .*cpu, disk"),
        ({"": "gpu"}, "device 'gpu'"),
        ({"": "meta"}, "device 'meta'"),
        ({"transformer.h": "disk"}, r"^backbone\.device_map: .*does not give any device"),
        (
            {"transformer": "cpu", "lm_head": "cpu", "transformer.wtf": "cpu"},
            r"has no module 'transformer\.wtf' \(did you mean 'transformer\.wte'",
        ),
    ],
)
def test_mistakes(folders, device_map, message) -> None:
    with pytest.raises(BackboneError, match=message):
        load_backbone(folders["gpt2"], device_map=device_map)


def test_shared_weights_in_two_places(folders) -> None:
    apart = {"shared": "disk", "encoder": "disk", "decoder": "cpu", "lm_head": "cpu"}
    with pytest.raises(BackboneError, match=r"^backbone\.device_map: weights that .* ties togeth"):
        load_backbone(folders["t5"], device_map=apart)


def recipe(device_map: Any) -> dict[str, Any]:
    """A recipe with this device map."""
    return {
        "version": 1,
        "name": "small",
        "backbone": {"name": "foreword/mini", "device_map": device_map},
        "task": {"data": {"format": "jsonl", "train": "foreword/fieldguide/train"}},
        "method": "prefix-tuning",
    }


@pytest.mark.parametrize("device_map", ["auto", {"": "disk"}, {"a": 0, "b": "cuda:1"}, None])
def test_in_a_recipe(device_map) -> None:
    found = parse_recipe(recipe(device_map))
    assert found.backbone.device_map == device_map
    assert parse_recipe(found.model_dump(mode="json")) == found


@pytest.mark.parametrize("wrong", ["atuo", "", {}, {"a": True}, {"a": -1}, {"a": None}, 3, [1]])
def test_mistakes_in_a_recipe(wrong) -> None:
    with pytest.raises(RecipeError, match=r"1 problem\n  - backbone\.device_map: expected"):
        parse_recipe(recipe(wrong))


def test_a_device_beside_a_map_is_refused() -> None:
    with pytest.raises(UserError, match=r"device: 'cpu' is asked for, but backbone\.device_map"):
        run(recipe({"": "disk"}), device="cpu")


@pytest.mark.parametrize(
    "device", ["cuda:99", "tpu", "meta", "disk", "", "cpu:1", -1, True, torch.device("meta")]
)
def test_a_device_that_is_not_here_is_refused(device: Any) -> None:
    with pytest.raises(BackboneError, match=rf"^device: '{device}' is not here; there is: .*cpu$"):
        load_backbone("foreword/mini", device=device)


@pytest.mark.parametrize("device_map", [{}, 3, ["cpu"]])
def test_what_is_no_device_map_is_refused(device_map: Any) -> None:
    with pytest.raises(BackboneError, match=r"^backbone\.device_map: expected a rule such as"):
        load_backbone("foreword/mini", device_map=device_map)


def test_the_first_device_of_a_kind_may_be_numbered() -> None:
    assert load_backbone("foreword/mini", device="cpu:0").device.type == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize(
    ("device_map", "device", "said"),
    [
        (None, "cuda", "device 'cuda' is not available here"),
        ({"": "cuda"}, None, "device 'cuda', given for '', is not here"),
    ],
)
def test_no_run_begins_on_a_gpu_that_is_not_here(device_map, device, said, tmp_path) -> None:
    with pytest.raises(UserError, match=said):
        run(recipe(device_map), out=tmp_path / "run", device=device)
    assert not (tmp_path / "run").exists()
