"""Heads go out to PEFT: it tells with them what the artifact tells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file

import foreword
from compat.with_heads import TASKS, WARNINGS, Bases, adapted, save
from conftest import assert_close, one_of_each
from foreword.artifacts.manifest import read_manifest
from foreword.backbone import head_of_decoders, load_backbone
from foreword.errors import UserError
from foreword.runs import train

pytestmark = [pytest.mark.filterwarnings(*WARNINGS), pytest.mark.usefixtures("loaded_once")]
WORDS = "The grey otter swims in a cold river near us"
LABELS = ("B-X", "I-X", "O")
WEIGHTS = "adapter_model.safetensors"
PROBLEMS = {"label": "single_label_classification", "labels": "multi_label_classification"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    return Bases(tmp_path_factory.mktemp("bases"))


def loaded(where: Path, adapter: Path, outputs: int) -> Any:
    """PEFT's model of an adapter's folder."""
    task = json.loads((adapter / "adapter_config.json").read_text("utf-8"))["task_type"]
    model = TASKS[task].from_pretrained(where, num_labels=outputs)
    return peft.PeftModel.from_pretrained(model, str(adapter)).eval()


def logits(model: Any, ids: list[int]) -> torch.Tensor:
    given = torch.tensor([ids])
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=given, attention_mask=torch.ones_like(given)).logits
    return found[0]


def told(prompt: foreword.LoadedPrompt, text: str) -> tuple[list[int], torch.Tensor]:
    (row,) = prompt.task.rows(prompt.example(text), labelled=False)
    return row.pair.source, prompt.model.read(prompt.model.lay_out([row.pair]))[0]


ROUND = [
    (name, kind, answer)
    for name, kinds in {
        "bert": ("prefix", "prompt"),
        "roberta": ("prefix", "p-tuning"),
        "albert": ("prompt",),
        "gpt2": ("prefix", "prompt"),
        "llama": ("prefix", "p-tuning"),
        "opt": ("prefix",),
        "bloom": ("prompt",),
    }.items()
    for kind in kinds
    for answer in ("label", "labels", "number", "tags")
    if not (answer == "tags" and name == "opt")
]


@pytest.mark.parametrize(("name", "kind", "answer"), one_of_each(ROUND, 2))
def test_what_came_from_peft_goes_back_as_it_was(name, kind, answer, base, tmp_path) -> None:
    outputs = 1 if answer == "number" else 3
    task = "TOKEN_CLS" if answer == "tags" else "SEQ_CLS"
    theirs = adapted(base(name), task, kind, labels=outputs)
    adapter = save(theirs, tmp_path / "adapter")
    given: dict[str, Any] = {} if answer == "number" else {"labels": LABELS}
    foreword.import_peft(adapter, tmp_path / "it", problem_type=PROBLEMS.get(answer), **given)
    config = foreword.export_peft(tmp_path / "it", tmp_path / "back")
    assert config.task_type == task
    again = loaded(base(name), tmp_path / "back", outputs)
    ids = load_backbone(str(base(name)), device="cpu").tokens.source(WORDS)
    assert_close(logits(again, ids), logits(theirs, ids))
    before, after = (load_file(folder / WEIGHTS) for folder in (adapter, tmp_path / "back"))
    assert set(before) <= set(after)
    for key, tensor in after.items():
        assert torch.equal(tensor, before.get(key, torch.zeros_like(tensor))), key
    second = foreword.import_peft(
        tmp_path / "back", tmp_path / "second", problem_type=PROBLEMS.get(answer), **given
    )
    assert second.head_sha256 == read_manifest(tmp_path / "it").head_sha256
    card = (tmp_path / "back/README.md").read_text("utf-8")
    assert ("ForTokenClassification" if answer == "tags" else "problem_type=") in card
    assert "Decoding" not in card


@pytest.mark.parametrize("answer", ["label", "number"])
@pytest.mark.parametrize("name", ["bert", "llama"])
def test_low_rank_updates_go_back_with_their_head(name, answer, base, tmp_path) -> None:
    outputs = 1 if answer == "number" else 3
    torch.manual_seed(1)
    model = TASKS["SEQ_CLS"].from_pretrained(base(name), num_labels=outputs)
    layers = ["query", "value"] if name == "bert" else ["q_proj", "v_proj"]
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, lora_alpha=4, target_modules=layers)
    theirs = peft.get_peft_model(model, config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    adapter = save(theirs, tmp_path / "adapter")
    given = {} if answer == "number" else {"labels": LABELS}
    foreword.import_peft(adapter, tmp_path / "it", **given)
    foreword.export_peft(tmp_path / "it", tmp_path / "back")
    again = loaded(base(name), tmp_path / "back", outputs)
    ids = load_backbone(str(base(name)), device="cpu").tokens.source(WORDS)
    assert_close(logits(again, ids), logits(theirs, ids))


ROWS = [
    {
        "text": f"a {'grey' if i % 2 else 'large'} otter {i}",
        "kind": "x" if i % 2 else "y",
        "size": i,
    }
    for i in range(8)
]
TRAINED = [
    ("roberta", "number", {"hidden": 32}, {}),
    ("roberta", "label_list", {"hidden": 32}, {}),
    ("bert", "number", {"pooler": "frozen"}, {}),
    ("gpt2", "label", {"bias": False}, {}),
    ("llama", "number", {"bias": False}, {"standardise": False}),
]


def run(base: Bases, folder: Path, name: str, column: str, head: Any, more: Any) -> Path:
    file = folder / "rows.jsonl"
    rows = [{**row, "kind": [row["kind"]]} if column == "label_list" else row for row in ROWS]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = {"format": "jsonl", "train": str(file), "dev": str(file)}
    data[column] = "size" if column == "number" else "kind"
    recipe = {
        "version": 1,
        "name": "out",
        "backbone": str(base(name)),
        "task": {"data": data, "input": "{text}", "head": head, **more},
        "method": {"name": "prefix-tuning", "length": 2, "positions": "shift"},
        "training": {"steps": 3, "learning_rate": 0.1, "batch_size": 4},
    }
    return train(recipe, out=folder / "run", device="cpu").folder


@pytest.mark.parametrize(("name", "column", "head", "more"), TRAINED)
def test_what_was_trained_here_tells_the_same_in_peft(
    name, column, head, more, base, tmp_path
) -> None:
    folder = run(base, tmp_path, name, column, head, more)
    foreword.export_peft(folder, tmp_path / "out")
    prompt = foreword.load(folder, device="cpu")
    theirs = loaded(base(name), tmp_path / "out", 1 if column == "number" else 2)
    for row in ROWS[:3]:
        ids, found = told(prompt, row["text"])
        expected = logits(theirs, ids)
        if column == "number":
            task = prompt.manifest.task
            assert_close(found * task.deviation + task.mean, expected)
            (one,) = prompt.predict([row["text"]])
            assert one.answer == pytest.approx(expected.item(), rel=1e-4)
        else:
            assert_close(
                found, expected.sigmoid() if column == "label_list" else expected.softmax(0)
            )
    if column == "label_list":
        assert "From which probability" in (tmp_path / "out/README.md").read_text("utf-8")


REFUSED = [
    (
        "gpt2",
        "label",
        {},
        {},
        r"has no bias, but this one has; train with `head: {bias: false}` in",
    ),
    ("gpt2", "number", {}, {}, r"`head: {bias: false}`, `standardise: false` in `task`"),
    ("gpt2", "label", {"hidden": 8}, {}, "is one linear layer on the last token"),
    ("gpt2", "label", {"pooling": "mean"}, {}, "is one linear layer on the last token"),
    ("bert", "label", {}, {}, r"train with `task\.head\.pooler: frozen`"),
    ("roberta", "label", {}, {}, r"train with `task\.head\.hidden: 32`"),
    ("roberta", "label", {"hidden": 32, "pooling": "mean"}, {}, "its head reads mean, but"),
    ("electra", "label", {}, {}, "'electra' is none that an artifact has"),
]


@pytest.mark.parametrize(("name", "column", "head", "more", "said"), REFUSED)
def test_heads_that_transformers_classes_have_not(
    name, column, head, more, said, base, tmp_path
) -> None:
    folder = run(base, tmp_path, name, column, head, more)
    with pytest.raises(UserError, match=said):
        foreword.export_peft(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_transformers_calls_the_heads_of_decoders() -> None:
    assert head_of_decoders("gpt2", of_tokens=False) == ("score", False)
    assert head_of_decoders("gpt2", of_tokens=True) == ("classifier", True)
    assert head_of_decoders("llama", of_tokens=True) == ("score", True)
    assert head_of_decoders("opt", of_tokens=True) is None
    assert head_of_decoders("no-such-family", of_tokens=False) is None
