"""Prompts put together: as texts that do not see each other, as sums, and as they load."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import foreword
from conftest import assert_close, cached_logits, make_backbone
from foreword.artifacts.artifact import load_model, save_artifact
from foreword.artifacts.joined import parts_of
from foreword.artifacts.manifest import read_manifest
from foreword.backbone import Backbone, Prompt, PromptKeyValues
from foreword.backbone.layout import Layout
from foreword.bank import PromptBank
from foreword.cli import main
from foreword.errors import ArtifactError, BackboneError, DataError, UserError
from foreword.methods import Cartridge, LoRA, PrefixTuning, PTuningV2
from foreword.methods.axes import FirstTokensInit
from foreword.tuned.compose import compose as put_on
from foreword.tuned.initial import initialise
from stored_prompts import KINDS, TABLE, labels, prefix, soft, store, writes

FIRST = "The Silver Piper is a small grey bird that lives beside slow rivers."
SECOND = "Answer in one word, as the old keeper of the field guide would."
INPUTS = ["Where does it live?", "A", "It sings at noon, does it not?"]


def cartridge(folder: Path, backbone: Backbone, text: str) -> tuple[Path, list[int]]:
    ids = backbone.tokens.document(text)
    method = Cartridge(name="cartridge", length=len(ids), init=FirstTokensInit(text=text))
    model = put_on(backbone, method).to(backbone.model.dtype)
    initialise(model, method.init, [])
    save_artifact(folder, model, name=folder.name, method=method, task=writes())
    return folder, ids


@pytest.fixture(scope="module")
def llama() -> Backbone:
    return make_backbone("llama")


def cosines_in_float64(backbone: Backbone) -> None:
    """transformers computes them in float32 whatever the model's type."""
    rotary = backbone.model.model.rotary_emb

    def forward(x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angles = position_ids[..., None].double() * rotary.inv_freq.double()
        both = torch.cat([angles, angles], -1)
        return both.cos(), both.sin()

    rotary.forward = forward


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_behind_each_other_they_are_texts_that_do_not_see_each_other(
    family, tmp_path, norms_in_float64
) -> None:
    """Keys and values of each text, read alone by the model itself at the positions where it
    stands now."""
    backbone = make_backbone(family, torch.float64)
    cosines_in_float64(backbone)
    one, first = cartridge(tmp_path / "one", backbone, FIRST)
    two, second = cartridge(tmp_path / "two", backbone, SECOND)
    three, third = cartridge(tmp_path / "three", backbone, "By the weir.")
    whole = foreword.compose([one, two, three], backbone=backbone)
    texts, start = [], 0
    for ids in (first, second, third):
        texts.append(backbone.read(Layout.of([ids], first_position=start)))
        start += len(ids)
    keys, values = (
        torch.stack(
            [
                torch.cat([text[layer][side][0] for text in texts], 1).transpose(0, 1)
                for layer in range(backbone.geometry.main.layers)
            ]
        )
        for side in (0, 1)
    )
    assert_close(whole.model.reparam()["decoder.keys"], keys)
    assert_close(whole.model.reparam()["decoder.values"], values)
    reference = Prompt({"decoder": PromptKeyValues(keys, values)})
    for text in INPUTS:
        ids = backbone.tokens.source(text)
        own = backbone.logits(whole.model.call(whole.model.arrange([ids])))[0]
        assert_close(own, cached_logits(backbone, ids, reference))


def test_in_the_input_they_are_rows_behind_each_other(tmp_path) -> None:
    backbone = make_backbone("gpt2", torch.float64)
    folders = [store(tmp_path / str(n), backbone, soft(n + 2), writes(), seed=n) for n in range(2)]
    whole = foreword.compose(folders, backbone=backbone)
    rows = [
        load_file(folder / "prompt.safetensors")["decoder.embeddings"].double()
        for folder in folders
    ]
    ids = backbone.tokens.source(INPUTS[2])
    embedded = backbone.model.get_input_embeddings()(torch.tensor(ids))
    with torch.no_grad():
        reference = backbone.model(inputs_embeds=torch.cat([*rows, embedded])[None]).logits[0, 5:]
    own = backbone.logits(whole.model.call(whole.model.arrange([ids])))[0]
    assert_close(own[-len(ids) :], reference)


def test_without_positions_nothing_is_moved(tmp_path) -> None:
    backbone = make_backbone("gpt2")
    method = PrefixTuning(
        name="prefix-tuning", length=3, reparameterization=TABLE, positions="keep"
    )
    folders = [store(tmp_path / str(n), backbone, method, writes(), seed=n) for n in range(2)]
    whole = foreword.compose(folders, backbone=backbone)
    stored = [load_file(folder / "prompt.safetensors") for folder in folders]
    sides = [torch.cat([one[f"decoder.{s}"] for one in stored], 1) for s in ("keys", "values")]
    for side, name in zip(sides, ("keys", "values"), strict=True):
        assert torch.equal(whole.model.reparam()[f"decoder.{name}"], side)
    ids = backbone.tokens.source(INPUTS[0])
    reference = Prompt({"decoder": PromptKeyValues(*sides)})
    own = backbone.logits(whole.model.call(whole.model.arrange([ids])))[0]
    assert_close(own, cached_logits(backbone, ids, reference, "keep"))
    assert whole.manifest.axes["positions"] == "keep"


def test_keys_that_cannot_be_moved_are_refused_unless_left_as_they_are(tmp_path) -> None:
    backbone = make_backbone("gpt2")
    folders = [store(tmp_path / str(n), backbone, prefix(), writes(), seed=n) for n in range(2)]
    with pytest.raises(BackboneError, match=r"moved by 3 on .*\(gpt2\).*cannot be done.*keep"):
        foreword.compose(folders, backbone=backbone)
    whole = foreword.compose(folders, backbone=backbone, as_stored=True)
    keys = [load_file(folder / "prompt.safetensors")["decoder.keys"] for folder in folders]
    assert torch.equal(whole.model.reparam()["decoder.keys"], torch.cat(keys, 1))
    assert whole.manifest.recipe["composed"]["keys"] == "as stored"


@pytest.mark.parametrize("method", [soft(), prefix()], ids=["soft", "deep"])
def test_sums(method, llama, tmp_path) -> None:
    folders = [store(tmp_path / str(n), llama, method, writes(), seed=n) for n in range(3)]
    stored = [load_model(folder, backbone=llama)[1].reparam() for folder in folders]

    def numbers(**how) -> dict[str, torch.Tensor]:
        return foreword.compose(folders, backbone=llama, **how).model.reparam()

    for name, mean in numbers(average=True).items():
        assert_close(mean, torch.stack([one[name] for one in stored]).mean(0))
    for name, one in numbers(weights=[0.0, 1.0, 0.0]).items():
        assert torch.equal(one, stored[1][name])
    for name, mixed in numbers(weights=[0.7, 0.6, -0.3]).items():
        assert_close(mixed, 0.7 * stored[0][name] + 0.6 * stored[1][name] - 0.3 * stored[2][name])


def test_saved_it_is_what_it_is_when_it_is_put_together_at_loading(llama, tmp_path) -> None:
    text, _ = cartridge(tmp_path / "text", llama, FIRST)
    task = store(tmp_path / "task", llama, prefix(), writes("Q: {text} A:"), seed=4)
    manifest = foreword.compose([text, task], backbone=llama).save(tmp_path / "both")
    assert manifest.name == "text+task"
    assert manifest.task == read_manifest(task).task
    assert manifest.method.length == read_manifest(text).method.length + 3
    hashes = [one["sha256"] for one in manifest.data.values()]
    assert hashes == [read_manifest(one).prompt_sha256 for one in (text, task)]
    saved = foreword.load(tmp_path / "both", backbone=llama)
    loaded = foreword.load(f"{text}+{task}", backbone=llama)
    listed = foreword.load([text, task], backbone=llama)
    for name, tensor in saved.model.reparam().items():
        assert torch.equal(loaded.model.reparam()[name], tensor)
        assert torch.equal(listed.model.reparam()[name], tensor)
    expected = saved.generate(INPUTS, max_new_tokens=8)
    assert loaded.generate(INPUTS, max_new_tokens=8) == expected
    assert foreword.load(task, backbone=llama).generate(INPUTS, max_new_tokens=8) != expected
    assert (tmp_path / "both" / "README.md").exists()


def test_in_a_mixed_batch_each_row_is_as_alone(llama, tmp_path) -> None:
    text, _ = cartridge(tmp_path / "text", llama, FIRST)
    folders = {
        name: store(tmp_path / name, llama, *KINDS[kind], seed=number)
        for number, (name, kind) in enumerate([("soft", "soft"), ("deep", "deep")])
    }
    bank = PromptBank(llama)
    for name, folder in folders.items():
        bank.add(name, folder)
    bank.add("on top", f"{text}+{folders['deep']}")
    names = [None, "deep", "on top", "soft", "on top"]
    texts = [*INPUTS, "B", "What is it?"]
    rows = [{"prompt": n, "text": t} for n, t in zip(names, texts, strict=True)]
    together = bank.generate(rows, max_new_tokens=8)
    assert together == [bank.generate([row], max_new_tokens=8)[0] for row in rows]
    alone = foreword.load(f"{text}+{folders['deep']}", backbone=llama)
    assert together[2] == alone.generate([texts[2]], max_new_tokens=8)[0]
    assert together[1] != bank.generate([{**rows[1], "prompt": "on top"}], max_new_tokens=8)[0]


def test_names_with_a_plus(tmp_path) -> None:
    plus = tmp_path / "a+b"
    (plus / "run").mkdir(parents=True)
    (tmp_path / "c").mkdir()
    assert parts_of(plus) == (plus,)
    assert parts_of(f"{plus}/run+{tmp_path}/c") == (plus / "run", tmp_path / "c")
    assert parts_of("nowhere+else") == (Path("nowhere+else"),)
    assert parts_of(f"{tmp_path}/c+none") == (tmp_path / "c", Path("none"))
    (tmp_path / "a").mkdir()
    assert parts_of(plus) == (plus,), "a folder with the name's beginning changes nothing"
    assert parts_of(f"{plus}+{tmp_path}/a") == (plus, tmp_path / "a")


@pytest.mark.parametrize("name", ["+", "{}+", "+{}", "{}++{}"])
def test_nothing_on_one_side_of_a_plus(name, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArtifactError, match="on one side of a plus"):
        foreword.load(name.format(tmp_path, tmp_path))


def test_more_virtual_tokens_than_an_artifact_may_have(tmp_path) -> None:
    endless = make_backbone("bloom")
    own = store(tmp_path / "own", endless, soft(2100), writes())
    with pytest.raises(ArtifactError, match="have 4,200 virtual tokens together"):
        foreword.compose([own, own], backbone=endless)


def refused(llama: Backbone, tmp_path: Path) -> dict[str, Path]:
    other = make_backbone("llama", seed=1)
    lora = LoRA(name="lora")
    return {
        "backbone's sha256": store(tmp_path / "b", other, prefix(), writes()),
        "weights of the backbone moved": store(tmp_path / "d", llama, lora, writes()),
        "has a head": store(
            tmp_path / "h",
            llama,
            PTuningV2(name="p-tuning-v2", length=3, reparameterization=TABLE),
            labels(),
        ),
        "its injection is embeddings": store(tmp_path / "e", llama, soft(3), writes()),
        "stand in the text": store(tmp_path / "s", llama, *KINDS["slots"]),
        "enter at other layers": store(
            tmp_path / "l", llama, prefix().model_copy(update={"layers": (0,)}), writes()
        ),
        "its positions is keep": store(
            tmp_path / "k", llama, prefix().model_copy(update={"positions": "keep"}), writes()
        ),
        "has 5 virtual tokens": store(tmp_path / "n", llama, prefix(5), writes()),
    }


def test_what_does_not_go_together_is_refused(llama, tmp_path) -> None:
    own = store(tmp_path / "own", llama, prefix(), writes())
    for message, folder in refused(llama, tmp_path).items():
        with pytest.raises(ArtifactError, match=message):
            foreword.compose([own, folder], backbone=llama, average="5 virtual" in message)
    with pytest.raises(UserError, match="two or more"):
        foreword.compose([own], backbone=llama)
    with pytest.raises(UserError, match="expected a list"):
        foreword.compose(str(own), backbone=llama)
    for weights in ([1.0], [1.0, float("nan")]):
        with pytest.raises(UserError, match="expected 2 numbers"):
            foreword.compose([own, own], backbone=llama, weights=weights)
    with pytest.raises(UserError, match="one of the two"):
        foreword.compose([own, own], backbone=llama, weights=[1, 1], average=True)
    with pytest.raises(ArtifactError, match="there is no such folder"):
        foreword.load(f"{own}+none", backbone=llama)


def test_what_is_lost(llama, tmp_path) -> None:
    folders = [store(tmp_path / str(n), llama, prefix(), writes(), seed=n) for n in range(2)]
    kept = foreword.compose(folders, backbone=llama, weights=[1, 0])
    first, second = kept.check(INPUTS[::2])
    assert first.divergence == 0.0
    assert first.alone == first.together
    assert first.share == 0.0
    assert second.divergence > 0.01
    ids = [llama.tokens.source(text) for text in INPUTS[::2]]
    assert first.tokens == sum(map(len, ids)) - 2
    own = load_model(folders[1], backbone=llama)[1].prompt()
    total = torch.zeros(3, dtype=torch.float64)
    for row in ids:
        after = torch.tensor(row[1:])
        alone, together, bare = (
            cached_logits(llama, row, prompt)[:-1].double().log_softmax(-1)
            for prompt in (own, kept.model.prompt(), None)
        )
        total += torch.stack(
            [
                (alone.exp() * (alone - together)).sum(),
                (alone.exp() * (alone - bare)).sum(),
                together.gather(1, after[:, None]).sum(),
            ]
        )
    expected = (total / first.tokens).tolist()
    measured = [second.divergence, second.divergence_bare, second.together]
    assert measured == pytest.approx(expected, abs=1e-4)
    with pytest.raises(UserError, match="at least one"):
        kept.check([])
    with pytest.raises(DataError, match="text 2: 'A' has 1 tokens"):
        kept.check(["A b c", "A"])


def test_the_command(llama, tmp_path, monkeypatch, capsys) -> None:
    where = tmp_path / "backbone"
    llama.model.save_pretrained(where)
    llama.tokens.tokenizer.save_pretrained(where)
    backbone = foreword.load_backbone(where)
    text, _ = cartridge(tmp_path / "text", backbone, FIRST)
    task = store(tmp_path / "task", backbone, prefix(), writes("Q: {text} A:"), seed=4)
    capsys.readouterr()

    def command(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["foreword", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return int(end.value.code or 0), printed.out, printed.err

    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(INPUTS[::2]) + "\n")
    cpu = ("--device", "cpu")
    both = tmp_path / "both"
    status, out, _ = command("compose", text, task, "--out", both, "--check", texts, "--json", *cpu)
    assert status == 0
    lost = json.loads(out)["lost"]
    assert [one["prompt"] for one in lost] == ["text", "task"]
    assert all(one["divergence"] > 0 for one in lost)
    asked = ("--text", INPUTS[0], *cpu)
    _, saved, _ = command("generate", both, *asked)
    status, loaded, _ = command("generate", f"{text}+{task}", *asked)
    assert (status, loaded) == (0, saved)
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "on top", "text": INPUTS[0]}))
    named = ("--prompt", f"on top={text}+{task}", "--backbone", where, "--input", rows, *cpu)
    _, mixed, _ = command("generate", *named)
    assert json.loads(mixed)["output"] == json.loads(saved)["output"]
    status, table, _ = command("compose", text, task, "--check", texts, *cpu)
    assert status == 0
    assert "what each prompt loses, in nats per token" in table
    for words, message in (
        ((text, task), "--out: give a folder"),
        ((text, task, "--out", both), "is not empty"),
        ((text, task, "--out", tmp_path / "c", "--weights", "1;2"), "expected numbers"),
        ((text, task, "--out", tmp_path / "c", "--average"), "only prompts of one length"),
        ((text, f"{text}+{task}", "--out", tmp_path / "c"), "`foreword compose` writes"),
    ):
        status, _, err = command("compose", *words, *cpu)
        assert status == 2
        assert message in err
    assert not (tmp_path / "c").exists()
