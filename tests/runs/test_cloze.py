"""Whole runs with label words and slots: trained, calibrated, resumed, stored, loaded again."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from stopping import Killed, Told

import foreword
from conftest import one_of_each
from foreword.artifacts.manifest import MANIFEST, read_manifest
from foreword.backbone import Backbone
from foreword.compat import export_peft
from foreword.errors import ArtifactError, DataError, RecipeError, UserError
from foreword.recipe import parse_recipe
from foreword.runs import Run, train
from foreword.runs.preview import preview

SLOTS = "{soft:2} {sentence:cut} It was{soft} {mask}"
CHAT = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
WORDS = {"yes": ["good", "very fine"], "no": "bad"}


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = [
        f"a {word} {thing} in the {place}\t{label}"
        for thing in ("day", "film", "meal")
        for word, label in (("good", "yes"), ("bad", "no"))
        for place in ("north", "south", "east", "west")
    ]
    file = tmp_path_factory.mktemp("rated") / "train.tsv"
    file.write_text("\n".join(["sentence\tanswer", *lines]) + "\n", encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Subjects and the single word that answers."""
    pairs = [("grass", "green"), ("snow", "white"), ("coal", "black"), ("sky", "blue")]
    rows = [{"subject": s, "object": o} for s, o in pairs]
    file = tmp_path_factory.mktemp("facts") / "facts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def recipe(data: dict[str, Any], backbone: Backbone, **more: Any) -> dict[str, Any]:
    task, training = more.pop("task", {}), more.pop("training", {})
    return {
        "version": 1,
        "name": "slots",
        "backbone": backbone.name,
        "method": {"name": "p-tuning", "reparameterization": "mlp"},
        **more,
        "task": {"data": data, **task},
        "training": {
            "steps": 4,
            "batch_size": 4,
            "learning_rate": 0.01,
            "evaluate_every": 2,
            **training,
        },
    }


def labelled(rated: Path, backbone: Backbone, **more: Any) -> dict[str, Any]:
    data = {"format": "tsv", "train": str(rated), "label": "answer", "hold_out": 8}
    task = {"input": SLOTS, "verbalizer": {"words": WORDS}, **more.pop("task", {})}
    return recipe(data, backbone, task=task, **more)


def start(given: dict[str, Any], backbone: Backbone, out: Path, **options: Any) -> Run:
    return train(given, out=out, backbone=backbone, device="cpu", **options)


def answers(run: Run) -> list[dict[str, Any]]:
    text = (run.folder / "answers.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


CALIBRATED = [
    (calibration, kind)
    for calibration in ("none", "content-free", "examples")
    for kind in ("encoder", "decoder")
]


@pytest.mark.parametrize(("calibration", "kind"), one_of_each(CALIBRATED, 1))
def test_label_words(
    kind: str, calibration: str, masked: Backbone, tiny: Backbone, rated: Path, tmp_path: Path
) -> None:
    """What an artifact predicts, its run measured."""
    backbone = masked if kind == "encoder" else tiny
    untouched = {name: weight.clone() for name, weight in backbone.model.state_dict().items()}
    words = {"words": WORDS, "calibration": calibration, "order": "max-first"}
    given = labelled(rated, backbone, task={"verbalizer": words}, training={"best_by": "accuracy"})
    progress = Told()
    run = start(given, backbone, tmp_path / "run", progress=progress)
    for name, weight in backbone.model.state_dict().items():
        assert torch.equal(weight, untouched[name])
    assert run.recipe.method.length == 3, "as many as slots"
    manifest = read_manifest(run.artifact)
    assert (manifest.axes["placement"], manifest.axes["readout"]) == ("in_text", "verbalizer")
    assert manifest.task.labels == ("yes", "no")
    assert set(run.metrics) >= {"prompt", "backbone"}, "words are read without virtual tokens too"
    tensors = load_file(run.artifact / "prompt.safetensors")
    assert {name: tuple(t.shape) for name, t in tensors.items()} == {
        f"{kind}.embeddings": (3, backbone.geometry.width)
    }
    stored = sorted(file.name for file in run.artifact.glob("*.safetensors"))
    assert ("head.safetensors" in stored) == (calibration != "none")
    found = answers(run)
    prompt = foreword.load(run.folder, backbone=backbone, device="cpu")
    again = prompt.predict([row["input"] for row in found], batch_size=3)
    for answered, row in zip(again, found, strict=True):
        assert answered.answer == row["output"]
        assert answered.probability == pytest.approx(row["probability"], abs=1e-5)
        assert sum(row["probabilities"].values()) == pytest.approx(1)
    assert any("'very fine' is 2 tokens here" in line for line in progress.lines)
    assert any("prior of the labels" in line for line in progress.lines) == (calibration != "none")


def test_a_stopped_run_goes_on_to_the_same_bits(
    masked: Backbone, rated: Path, tmp_path: Path
) -> None:
    """The prior is not taken anew."""
    words = {"words": WORDS, "calibration": "examples"}
    given = labelled(
        rated, masked, task={"verbalizer": words}, training={"checkpoint_every": 1, "steps": 6}
    )
    whole = start(given, masked, tmp_path / "whole")
    with pytest.raises(Killed):
        start(given, masked, tmp_path / "cut", progress=Told(at=3))
    resumed = start(given, masked, tmp_path / "cut", resume=True)
    for file in ("prompt.safetensors", "head.safetensors"):
        assert (resumed.artifact / file).read_bytes() == (whole.artifact / file).read_bytes()


def test_the_backbone_alone_has_a_prior_of_its_own(
    tiny: Backbone, rated: Path, tmp_path: Path
) -> None:
    """As measured without any prompt: the trained prompt's prior is not taken off it."""
    words = {"words": WORDS, "calibration": "content-free"}
    task = {"input": "{soft:2} {sentence} It was {mask}", "verbalizer": words}
    run = start(labelled(rated, tiny, task=task), tiny, tmp_path / "run")
    task = {"input": "{sentence} It was {mask}", "verbalizer": words}
    given = labelled(rated, tiny, task=task, method={"name": "hard-prompt"})
    bare = start(given, tiny, tmp_path / "bare")
    assert run.metrics["backbone"] == bare.metrics["prompt"]


def test_slots_beside_a_head(masked: Backbone, rated: Path, tmp_path: Path) -> None:
    """P-Tuning's slots, a trained layer that answers, and biases that move."""
    task = {"input": "{soft:2} {sentence:cut} It was{soft} good .", "verbalizer": None}
    method = {"name": "p-tuning", "reparameterization": "mlp", "delta": "bitfit"}
    run = start(labelled(rated, masked, task=task, method=method), masked, tmp_path / "run")
    found = answers(run)
    again = foreword.load(run.folder, backbone=masked, device="cpu").predict(
        [row["input"] for row in found]
    )
    assert [answered.answer for answered in again] == [row["output"] for row in found]
    axes = read_manifest(run.artifact).axes
    assert (axes["placement"], axes["readout"], axes["delta"]) == (
        "in_text",
        "sequence_head",
        "bitfit",
    )


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_probing(kind: str, masked: Backbone, mini: Backbone, facts: Path, tmp_path: Path) -> None:
    """LAMA's question with P-Tuning's template of (3, 3, 3): the word that is missing."""
    backbone = masked if kind == "encoder" else mini
    template = (
        "{soft:3} {mask}{soft:3} {subject}{soft:3}"
        if kind == "encoder"
        else "{soft:3} {subject}{soft:3} {mask}"
    )
    data = {"format": "jsonl", "train": str(facts), "dev": str(facts), "references": "object"}
    long = {"steps": 60, "learning_rate": 0.03, "evaluate_every": 30, "schedule": "constant"}
    given = recipe(
        data, backbone, task={"input": template}, method={"name": "prompt-tuning"}, training=long
    )
    run = start(given, backbone, tmp_path / "run")
    manifest = read_manifest(run.artifact)
    assert (manifest.task.answer, manifest.axes["readout"]) == ("word", "any_word")
    assert manifest.method.length == (9 if kind == "encoder" else 6)
    assert set(run.metrics["prompt"]["all"]) == {"precision_at_1"}
    if kind == "decoder":
        assert run.metrics["prompt"]["all"]["precision_at_1"] >= 50, "four facts can be learned"
    prompt = foreword.load(run.folder, backbone=backbone, device="cpu")
    for row in answers(run):
        (said,) = prompt.predict([row["input"]])
        assert said.answer == row["output"].strip()
        assert said.probability == pytest.approx(row["probability"], abs=1e-5)
    with pytest.raises(UserError, match="a missing word"):
        prompt.generate(["grass"])


def test_text_with_slots(tiny: Backbone, tmp_path: Path) -> None:
    """A decoder writes after words and virtual tokens that are mixed."""
    data = {
        "format": "jsonl",
        "train": "foreword/fieldguide/train",
        "dev": "foreword/fieldguide/dev",
    }
    given = recipe(
        data,
        tiny,
        task={
            "input": "{soft:4} {record} ->{soft:2}",
            "target": " {reference}",
            "limits": {"train": 8, "dev": 3},
        },
        decoding={"max_new_tokens": 8},
        method={"name": "prompt-tuning"},
    )
    run = start(given, tiny, tmp_path / "run")
    assert {"prompt", "backbone"} <= set(run.metrics)
    prompt = foreword.load(run.folder, backbone=tiny, device="cpu")
    found = answers(run)
    rows = [
        {"record": row["input"].removeprefix("{soft:4} ").removesuffix(" ->{soft:2}")}
        for row in found
    ]
    assert prompt.generate(rows) == [row["output"] for row in found]
    with pytest.raises(UserError, match="placement is in_text"):
        export_peft(run.artifact, tmp_path / "peft")


def test_peft_has_no_place_for_label_words(tiny: Backbone, rated: Path, tmp_path: Path) -> None:
    task = {"input": "{sentence} It was {mask}"}
    given = labelled(rated, tiny, task=task, method={"name": "prompt-tuning", "length": 3})
    run = start(given, tiny, tmp_path / "run")
    with pytest.raises(UserError, match="readout is verbalizer"):
        export_peft(run.artifact, tmp_path / "peft")
    assert not (tmp_path / "peft").exists()


def test_an_artifact_whose_slots_and_length_part_is_refused(
    tiny: Backbone, rated: Path, tmp_path: Path
) -> None:
    run = start(labelled(rated, tiny), tiny, tmp_path / "run")
    file = run.artifact / MANIFEST
    stated = json.loads(file.read_text(encoding="utf-8"))
    stated["task"]["input"] = stated["task"]["input"].replace("{soft:2}", "{soft:5}")
    file.write_text(json.dumps(stated), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"6 \{soft\} slots, but method.length is 3"):
        foreword.load(run.folder, backbone=tiny, device="cpu")


def refused(given: dict[str, Any], *said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(given)
    for part in said:
        assert part in str(caught.value)


def test_recipes_that_have_no_meaning(tiny: Backbone, rated: Path) -> None:
    def given(**more: Any) -> dict[str, Any]:
        return labelled(rated, tiny, **more)

    words = {"words": WORDS}
    refused(given(method={"name": "prefix-tuning"}), "prefix-tuning puts no virtual tokens")
    refused(given(method={"name": "p-tuning", "length": 7}), "`length` is 7", "3 {soft} slots")
    refused(given(method={"name": "p-tuning", "positions": "keep"}), "`positions` has no meaning")
    refused(given(task={"verbalizer": None}), "give `verbalizer.words`")
    refused(given(task={"labels": ["yes", "maybe"]}), "`labels` are yes, maybe")
    refused(given(task={"head": {"hidden": 8}}), "either `verbalizer` or `head`")
    refused(given(task={"verbalizer": {"words": {"yes": "good"}}}), "verbalizer.words")
    refused(given(task={"verbalizer": {"words": {"yes": " good", "no": "bad"}}}), "without blanks")
    refused(given(task={"verbalizer": {"words": {"yes": ["a", "a"], "no": "b"}}}), "a word twice")
    refused(given(task={"metrics": ["bleu"]}), "`bleu` measures a text")
    text = {"format": "jsonl", "train": "x", "dev": "y"}
    refused(recipe(text, tiny, task={"input": "{a}", "verbalizer": words}), "give `data.label`")
    span = {"format": "squad", "train": "x", "dev": "y"}
    refused(recipe(span, tiny, task={"input": "{soft} {a}"}), "`input` is not read")
    refused(
        recipe(text, tiny, task={"input": "{a} {mask}"}, training={"best_by": "bleu"}),
        "`bleu` measures a text, but this task asks for a missing word",
    )


def test_a_label_without_a_word_is_an_error_with_its_line(
    tiny: Backbone, rated: Path, tmp_path: Path
) -> None:
    given = labelled(
        rated, tiny, task={"verbalizer": {"words": {"yes": "good", "perhaps": "maybe"}}}
    )
    with pytest.raises(DataError, match=r"train\.tsv, line \d+: the label 'no'"):
        start(given, tiny, tmp_path / "run")


def seen(given: dict[str, Any], backbone: Backbone, **options: Any) -> dict[str, Any]:
    found = preview(parse_recipe(given), backbone=backbone, device="cpu", **options)
    return json.loads(json.dumps(found.as_json()))


def test_a_measured_label_without_a_word_is_an_error(tiny: Backbone, rated: Path) -> None:
    """No answer could ever be right."""
    data = {"format": "tsv", "dev": str(rated), "label": "answer"}
    given = recipe(data, tiny)
    given["method"] = "hard-prompt"
    given["task"]["input"] = "{sentence} It was {mask}"
    given["task"]["verbalizer"] = {"words": {"yes": "good", "non": "bad"}}
    with pytest.raises(RecipeError, match="has no word for the label 'no' of the dev examples"):
        train(given, backbone=tiny, device="cpu")


def test_a_preview_of_label_words(masked: Backbone, rated: Path) -> None:
    given = labelled(rated, masked, task={"input": f"{SLOTS} .", "max_tokens": 16})
    shown = seen(given, masked)
    assert shown["label_words"] == {
        "yes": {"good": ["Ġgood"], "very fine": ["Ġvery", "Ġfine"]},
        "no": {"bad": ["Ġbad"]},
    }
    assert (shown["virtual_tokens_in_front"], shown["most_tokens"]) == (0, 16)
    assert len(shown["examples"]) == 3
    first = shown["examples"][0]
    (row,) = first["rows"]
    assert re.search(r"train\.tsv, line \d+$", first["where"])
    assert first["text"].startswith("{soft:2} a good day in the ")
    assert first["text"].endswith(" It was{soft} {mask} .")
    assert row["tokens"][:3] == ["<soft1>", "<soft2>", "Ġa"]
    assert row["tokens"][-4:] == ["<soft3>", "[MASK]", "[MASK]", "Ġ."]
    assert (row["read_at"], row["says"]) == (["[MASK]", "[MASK]"], ["yes"])
    assert first["tokens_cut"] == 0
    short = seen(labelled(rated, masked, task={"max_tokens": 9}), masked)["examples"][0]
    assert (short["tokens_cut"] > 0, short["cut_in"]) == (True, ["sentence"])
    assert len(short["rows"][0]["tokens"]) <= 9


def test_a_preview_of_every_kind_of_task(
    masked: Backbone, tiny: Backbone, rated: Path, facts: Path, tmp_path: Path
) -> None:
    head = seen(labelled(rated, masked, task={"input": "{sentence}", "verbalizer": None}), masked)
    (row,) = head["examples"][0]["rows"]
    assert (row["says"], row["read_at"]) == (["yes"], row["tokens"][:1])

    data = {"format": "jsonl", "train": str(facts), "dev": str(facts), "references": "object"}
    text = recipe(data, tiny, task={"input": "{subject} is"}, method={"name": "prefix-tuning"})
    written = seen(text, tiny, count=1)
    assert written["virtual_tokens_in_front"] > 0
    assert written["examples"][0]["rows"][0]["target"][-1] == tiny.tokens.tokenizer.eos_token
    asked = seen(recipe(data, tiny, task={"input": "{subject} is {mask}"}), tiny)
    assert asked["examples"][0]["rows"][0]["says"] == ["Ġgreen"]

    tags = tmp_path / "tags.conll"
    tags.write_text("Ana B-PER\nwent O\n\nBo B-PER\nran O\n", encoding="utf-8")
    data = {"format": "conll", "train": str(tags), "dev": str(tags)}
    tagged = seen(recipe(data, masked, method={"name": "head-only"}), masked)
    (row,) = tagged["examples"][0]["rows"]
    assert row["says"] == ["B-PER", "O"]
    assert len(row["read_at"]) == 2

    answer = {"text": "Bo", "answer_start": 8}
    asked = [{"id": "1", "question": "Whom?", "answers": [answer]}]
    file = tmp_path / "squad.json"
    paragraphs = [{"context": "Ana saw Bo.", "qas": asked}]
    file.write_text(json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]}))
    data = {"format": "squad", "train": str(file), "dev": str(file)}
    task = {"max_tokens": 40, "stride": 4}
    span = seen(recipe(data, masked, task=task, method={"name": "head-only"}), masked)
    assert "".join(span["examples"][0]["rows"][0]["read_at"]) == "ĠBo"

    chatting = copy.deepcopy(tiny.tokens.tokenizer)
    chatting.chat_template = CHAT
    other = replace(tiny, tokens=replace(tiny.tokens, tokenizer=chatting))
    data = {"format": "jsonl", "train": str(facts), "dev": str(facts), "references": "object"}
    messages = [{"role": "user", "content": "What is {subject:cut}?"}]
    chat = seen(recipe(data, other, task={"input": messages, "max_tokens": 60}), other, count=1)
    assert chat["examples"][0]["text"] == "[user] What is grass?\n[assistant] "


def test_a_preview_where_nothing_is_trained(tiny: Backbone, rated: Path) -> None:
    task = {"input": "{sentence} It was {mask}"}
    given = labelled(rated, tiny, task=task, method={"name": "hard-prompt"})
    shown = seen(given, tiny)
    assert len(shown["examples"]) == 3
    assert all("says" not in row for one in shown["examples"] for row in one["rows"])


def test_an_artifact_whose_labels_and_words_part_is_refused(
    tiny: Backbone, rated: Path, tmp_path: Path
) -> None:
    run = start(labelled(rated, tiny, training={"steps": 1}), tiny, tmp_path / "run")
    file = run.artifact / MANIFEST
    stated = json.loads(file.read_text(encoding="utf-8"))
    stated["task"]["labels"] = ["yes", "maybe"]
    file.write_text(json.dumps(stated), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"task\.verbalizer\.words: has words for"):
        foreword.load(run.folder, backbone=tiny, device="cpu")
