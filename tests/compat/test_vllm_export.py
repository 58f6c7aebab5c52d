"""`foreword export vllm`: what is written, and what is refused with nothing written."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import foreword
from conftest import LLAMA_LIKE, cached_logits, make_backbone, random_ids
from families.measures import backbone_of
from foreword.artifacts.artifact import save_artifact
from foreword.axes.readout import SequenceHead
from foreword.backbone import Backbone, Prompt, PromptKeyValues, load_backbone
from foreword.cli import main
from foreword.compat import export_vllm
from foreword.compat.vllm import name_of
from foreword.compat.vllm.stating import SAID
from foreword.errors import ArtifactError, UserError
from foreword.methods import (
    BitFit,
    Cartridge,
    HardPrompt,
    InfixTuning,
    LLaMAAdapter,
    PrefixTuning,
    PromptTuning,
    PTuning,
    axes,
)
from foreword.recipe import DecodingSpec, TaskId
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose

LENGTH = 5
TABLE = axes.Table(std=1.0)
PREFIX = PrefixTuning(name="prefix-tuning", length=LENGTH, reparameterization=TABLE)
SOFT = PromptTuning(name="prompt-tuning", length=LENGTH)
TASK = TaskId(input="{name} is a {{kind}}: {kind} ->", target=" {reference}")


def save(folder: Path, backbone: Backbone, method: Any, task: TaskId = TASK, **more: Any) -> Path:
    """An artifact of random virtual tokens that are far from nothing."""
    model = compose(backbone, method)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.reparam.parameters():
            parameter.normal_()
    save_artifact(folder, model, name=folder.name, method=method, task=task, **more)
    return folder


def written(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    stated = json.loads((folder / "prompt.json").read_text())
    return stated, load_file(folder / stated["file"])


def exported(folder: Path) -> PromptKeyValues:
    _, tensors = written(folder)
    return PromptKeyValues(tensors["decoder.keys"], tensors["decoder.values"])


@pytest.fixture(scope="module")
def llama() -> Backbone:
    return make_backbone("llama")


@pytest.fixture(scope="module")
def gpt2() -> Backbone:
    return make_backbone("gpt2")


def test_a_prefix_is_written_as_it_was_trained(gpt2, tmp_path) -> None:
    how = DecodingSpec(max_new_tokens=9, stop=("\n",), repetition_penalty=1.3)
    artifact = save(tmp_path / "birds", gpt2, PREFIX, decoding=how)
    (told,) = export_vllm({"birds": artifact}, tmp_path / "out", backbone=gpt2)
    stated, tensors = written(tmp_path / "out" / "birds")
    trained = load_file(artifact / "prompt.safetensors")
    for name in ("decoder.keys", "decoder.values"):
        assert torch.equal(tensors[name], trained[name])
    assert (told.name, told.length, told.notes) == ("birds", LENGTH, ())
    assert [stated[key] for key in ("length", "layers", "kv_heads", "head_dim")] == [5, 3, 4, 8]
    assert stated["backbone"]["sha256"] == gpt2.sha256
    content = (tmp_path / "out" / "birds" / stated["file"]).read_bytes()
    assert stated["sha256"] == hashlib.sha256(content).hexdigest()
    with safe_open(tmp_path / "out" / "birds" / stated["file"], "pt") as file:
        assert file.metadata() == {"backbone": gpt2.sha256}
    assert stated["input"] == [{"field": "name"}, " is a {kind}: ", {"field": "kind"}, " ->"]
    assert stated["decoding"] == {
        "max_tokens": 9,
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 0,
        "repetition_penalty": 1.3,
        "stop": ["\n"],
    }
    sample = stated["sample"]
    assert all(SAID in text for text in sample["fields"].values())
    text = "{name} is a {{kind}}: {kind} ->".format(**sample["fields"])
    assert gpt2.tokens.tokenizer(text)["input_ids"] == sample["tokens"]


def test_a_cartridge_and_a_composition_are_written_as_any_prefix(llama, tmp_path) -> None:
    cartridge = Cartridge(
        name="cartridge", length=LENGTH, frozen=2, init=axes.FirstTokensInit(text="A")
    )
    text = save(tmp_path / "text", llama, cartridge)
    task = save(tmp_path / "task", llama, PREFIX)
    foreword.compose([text, task], backbone=llama).save(tmp_path / "both")
    prompts = {"text": text, "both": tmp_path / "both"}
    export_vllm(prompts, tmp_path / "prompts", backbone=llama)
    for name, length in (("text", LENGTH), ("both", 2 * LENGTH)):
        _, tensors = written(tmp_path / "prompts" / name)
        stored = load_file(tmp_path / name / "prompt.safetensors")
        for side in ("keys", "values"):
            assert torch.equal(tensors[f"decoder.{side}"], stored[f"decoder.{side}"])
            assert tensors[f"decoder.{side}"].shape[1] == length


def test_sampling_has_its_temperature(gpt2, tmp_path) -> None:
    how = DecodingSpec(do_sample=True, temperature=0.7, top_k=5)
    artifact = save(tmp_path / "birds", gpt2, PREFIX, decoding=how)
    export_vllm({"birds": artifact}, tmp_path / "out", backbone=gpt2)
    decoding = written(tmp_path / "out" / "birds")[0]["decoding"]
    assert (decoding["temperature"], decoding["top_k"]) == (0.7, 5)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_soft_prompt_is_written_as_what_the_model_makes_of_it(family, tmp_path) -> None:
    """The reference: transformers' own cache after its own pass over the embeddings."""
    backbone = make_backbone(family)
    artifact = save(tmp_path / "soft", backbone, SOFT)
    (told,) = export_vllm({"soft": artifact}, tmp_path / "out", backbone=backbone)
    assert "keys and values of its 5 virtual tokens" in told.notes[0]
    _, tensors = written(tmp_path / "out" / "soft")
    rows = load_file(artifact / "prompt.safetensors")["decoder.embeddings"]
    with torch.no_grad():
        cache = backbone.model(inputs_embeds=rows[None], use_cache=True).past_key_values
    for layer, own in enumerate(cache.layers):
        for side in ("keys", "values"):
            expected = getattr(own, side)[0].transpose(0, 1)
            assert torch.allclose(tensors[f"decoder.{side}"][layer], expected, atol=1e-5)


def test_text_that_keeps_its_positions_has_its_keys_turned(llama, tmp_path) -> None:
    keeping = PREFIX.model_copy(update={"positions": "keep"})
    artifact = save(tmp_path / "kept", llama, keeping)
    (told,) = export_vllm({"kept": artifact}, tmp_path / "out", backbone=llama)
    assert "takes 5 of the backbone's positions" in told.notes[0]
    trained = load_file(artifact / "prompt.safetensors")
    as_trained = PromptKeyValues(trained["decoder.keys"], trained["decoder.values"])
    (ids,) = random_ids([7])
    kept = cached_logits(llama, ids, Prompt({"decoder": as_trained}), "keep")
    served = cached_logits(llama, ids, Prompt({"decoder": exported(tmp_path / "out/kept")}))
    unturned = cached_logits(llama, ids, Prompt({"decoder": as_trained}))
    assert (served - kept).abs().max() < 1e-4
    assert (unturned - kept).abs().max() > 0.1


def test_positions_that_cannot_be_moved_are_refused(gpt2, tmp_path) -> None:
    artifact = save(tmp_path / "a", gpt2, PREFIX.model_copy(update={"positions": "keep"}))
    with pytest.raises(UserError, match=r"`positions: keep`.*train with `positions: shift`"):
        export_vllm({"a": artifact}, tmp_path / "out", backbone=gpt2)
    assert not (tmp_path / "out").exists()


REFUSED: dict[str, tuple[str, dict[str, Any], Any, str]] = {
    "infix": (
        "gpt2",
        {},
        InfixTuning(name="infix-tuning", length=3, reparameterization=TABLE),
        "between source and target",
    ),
    "delta": (
        "gpt2",
        {},
        PREFIX.model_copy(update={"delta": axes.Biases()}),
        "delta: bitfit",
    ),
    "no prompt": ("gpt2", {}, HardPrompt(name="hard-prompt"), "has no trained prompt"),
    "weights alone": ("gpt2", {}, BitFit(name="bitfit"), "delta: bitfit"),
    "some layers": (
        "gpt2",
        {},
        PREFIX.model_copy(update={"layers": (0, 1)}),
        r"in \[0, 1\] of 3 layers alone",
    ),
    "a softmax of their own": (
        "llama",
        {},
        LLaMAAdapter(name="llama-adapter", length=3, layers=2),
        "a softmax of their own",
    ),
    "window": ("mistral", {**LLAMA_LIKE, "sliding_window": 8}, PREFIX, "a sliding window"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_vllm_cannot_serve_is_refused(case, tmp_path) -> None:
    family, options, method, why = REFUSED[case]
    backbone = make_backbone(family, **options)
    artifact = save(tmp_path / "a", backbone, method)
    with pytest.raises(UserError, match=why):
        export_vllm({"a": artifact}, tmp_path / "out", backbone=backbone)
    assert not (tmp_path / "out").exists()


def test_latent_attention_is_refused(tmp_path) -> None:
    backbone = backbone_of("deepseek_v2", dtype=torch.float32)
    artifact = save(tmp_path / "a", backbone, PREFIX)
    with pytest.raises(UserError, match="latent attention"):
        export_vllm({"a": artifact}, tmp_path / "out", backbone=backbone)


def test_slots_inside_the_text_are_refused(gpt2, tmp_path) -> None:
    method = PTuning(name="p-tuning", length=2)
    model: TunedModel = compose(gpt2, method, inside=True)
    task = TaskId(input="{soft:2} {text} is", target=" {reference}")
    save_artifact(tmp_path / "a", model, name="a", method=method, task=task)
    with pytest.raises(UserError, match="in slots of its text"):
        export_vllm({"a": tmp_path / "a"}, tmp_path / "out", backbone=gpt2)


def test_heads_and_encoders_are_refused(gpt2, masked, tmp_path) -> None:
    labels = TaskId(
        input="{text}", target="{reference}", answer="label", labels=("a", "b"), label="label"
    )
    for name, backbone, why in (
        ("a", gpt2, "readout is sequence_head"),
        ("b", masked, "backbone is an encoder"),
    ):
        model = compose(backbone, PREFIX, SequenceHead(32, 2))
        save_artifact(tmp_path / name, model, name=name, method=PREFIX, task=labels)
        with pytest.raises(UserError, match=why):
            export_vllm({name: tmp_path / name}, tmp_path / "out", backbone=backbone)


def test_all_are_checked_before_the_first_is_written(gpt2, tmp_path) -> None:
    good = save(tmp_path / "good", gpt2, PREFIX)
    bad = save(tmp_path / "bad", gpt2, PREFIX.model_copy(update={"positions": "keep"}))
    with pytest.raises(UserError, match="keep"):
        export_vllm({"good": good, "bad": bad}, tmp_path / "out", backbone=gpt2)
    assert not (tmp_path / "out").exists()


def test_another_backbone_is_refused(gpt2, tmp_path) -> None:
    artifact = save(tmp_path / "a", gpt2, PREFIX)
    other = make_backbone("gpt2", seed=1)
    with pytest.raises(ArtifactError, match="whose weights have sha256"):
        export_vllm({"a": artifact}, tmp_path / "out", backbone=other)
    export_vllm({"a": artifact}, tmp_path / "out", backbone=other, other_backbone=True)
    assert written(tmp_path / "out" / "a")[0]["backbone"]["sha256"] == other.sha256


def test_prompts_are_added_and_replaced(gpt2, tmp_path) -> None:
    first, second = (save(tmp_path / name, gpt2, PREFIX) for name in ("one", "two"))
    other = save(tmp_path / "other", gpt2, SOFT)
    out = tmp_path / "out"
    export_vllm({"one": first}, out, backbone=gpt2)
    export_vllm({"two": second}, out, backbone=gpt2)
    before = written(out / "one")[0]
    with pytest.raises(UserError, match=r"one: is there already; replace the prompt with `?overw"):
        export_vllm({"one": other}, out, backbone=gpt2)
    assert written(out / "one")[0] == before
    export_vllm({"one": other}, out, backbone=gpt2, overwrite=True)
    assert sorted(place.name for place in out.iterdir()) == ["one", "two"]
    after = written(out / "one")[0]
    assert after["sha256"] != before["sha256"]
    files = {before["file"], after["file"], "prompt.json"}
    assert {file.name for file in (out / "one").iterdir()} == files
    third = save(tmp_path / "third", gpt2, PREFIX.model_copy(update={"length": 2}))
    export_vllm({"one": third}, out, backbone=gpt2, overwrite=True)
    files = {after["file"], written(out / "one")[0]["file"], "prompt.json"}
    assert {file.name for file in (out / "one").iterdir()} == files


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".a", "a b", "ä", "a\n", "x" * 129, "a\0"])
def test_odd_names_are_refused(name, gpt2, tmp_path) -> None:
    artifact = save(tmp_path / "a", gpt2, PREFIX)
    with pytest.raises(UserError, match="is no name of a prompt"):
        export_vllm({name: artifact}, tmp_path / "out", backbone=gpt2)
    assert sorted(place.name for place in tmp_path.iterdir()) == ["a"]


def test_a_folder_of_something_else_is_left_alone(gpt2, tmp_path) -> None:
    artifact = save(tmp_path / "a", gpt2, PREFIX)
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "a" / "precious").touch()
    with pytest.raises(UserError, match="is no prompt"):
        export_vllm({"a": artifact}, tmp_path / "out", backbone=gpt2, overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is no folder"):
        export_vllm({"a": artifact}, tmp_path / "file", backbone=gpt2)


@pytest.fixture
def chatty(gpt2) -> Iterator[Backbone]:
    """The same backbone with a chat template."""
    tokenizer = gpt2.tokens.tokenizer
    before = tokenizer.chat_template
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }} : {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant{{ mark }} :{% endif %}"
    )
    yield gpt2
    tokenizer.chat_template = before


def test_messages_are_written_with_their_roles(tmp_path, chatty) -> None:
    task = TaskId(
        input=[
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "Say {text}!"},
        ],
        target="{reference}",
        chat_options={"mark": "?"},
    )
    artifact = save(tmp_path / "chat", chatty, PREFIX, task)
    export_vllm({"chat": artifact}, tmp_path / "out", backbone=chatty)
    stated = written(tmp_path / "out" / "chat")[0]
    text = stated["sample"]["fields"]["text"]
    rendered = f"system : Be short.\nuser : Say {text}!\nassistant? :"
    assert chatty.tokens.plain(rendered) == stated["sample"]["tokens"]
    assert stated["chat_options"] == {"mark": "?"}
    assert stated["input"] == [
        {"role": "system", "content": ["Be short."]},
        {"role": "user", "content": ["Say ", {"field": "text"}, "!"]},
    ]
    assert stated["tokens"]["leading"] == []


def test_a_conversation_is_what_a_user_says(tmp_path, chatty) -> None:
    task = TaskId(input="", target="", answer="turns", messages="talk")
    artifact = save(tmp_path / "chat", chatty, PREFIX, task)
    export_vllm({"chat": artifact}, tmp_path / "out", backbone=chatty)
    stated = written(tmp_path / "out" / "chat")[0]
    assert stated["input"] == [{"role": "user", "content": [{"field": "talk"}]}]
    text = stated["sample"]["fields"]["talk"]
    expected = chatty.tokens.plain(f"user : {text}\nassistant :")
    assert stated["sample"]["tokens"] == expected
    named = task.model_copy(update={"chat_template": "chatml"})
    artifact = save(tmp_path / "named", chatty, PREFIX, named)
    with pytest.raises(UserError, match="the chat template 'chatml'"):
        export_vllm({"named": artifact}, tmp_path / "out", backbone=chatty)


def test_what_differs_there_is_said(gpt2, tmp_path) -> None:
    how = DecodingSpec(num_beams=4, no_repeat_ngram_size=3)
    task = TASK.model_copy(update={"truncate": "name"})
    artifact = save(tmp_path / "a", gpt2, PREFIX, task, decoding=how)
    (told,) = export_vllm({"a": artifact}, tmp_path / "out", backbone=gpt2)
    notes = " ".join(told.notes)
    assert all(word in notes for word in ("num_beams is 4", "no_repeat_ngram_size", "cut in name"))


def test_the_command(monkeypatch, capsys, tmp_path) -> None:
    mini = load_backbone("foreword/mini")
    save(tmp_path / "runs" / "birds" / "artifact", mini, PREFIX)
    save(tmp_path / "fish", mini, SOFT)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["foreword", "export", "vllm", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return (int(end.value.code or 0), *capsys.readouterr())

    status, out, err = run("runs/birds", "soft=fish", "prompts", "--device", "cpu")
    assert status == 0
    lines = [line.split()[:2] for line in out.splitlines()]
    assert lines == [["prompt", "prompts/birds"], ["prompt", "prompts/soft"]]
    assert "note: soft: is written as the keys and values" in err
    status, _, err = run("runs/birds", "birds=fish", "more", "--device", "cpu")
    assert (status, "would both be called 'birds'" in err) == (2, True)
    status, _, err = run("fish", "prompts", "--device", "cpu", "--backbone", "fish")
    assert status == 2
    assert not (tmp_path / "prompts" / "fish").exists()
    assert not (tmp_path / "more").exists()


def test_names_are_those_of_runs() -> None:
    assert [name_of(path) for path in ("runs/a", "runs/a/artifact", "b/")] == ["a", "a", "b"]
