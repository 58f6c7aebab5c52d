"""Multitask prompts that PEFT trained: imported, they answer as they do in PEFT, task by task."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import foreword
from compat.exchanging import base_model, peft_answers, save
from compat.multitask import LENGTH, NAMES, RANK, adapted, config, louder
from compat.with_heads import WARNINGS, Bases
from conftest import assert_close
from foreword import compat
from foreword.backbone import load_backbone
from foreword.data import Example
from foreword.errors import ArtifactError

pytestmark = pytest.mark.filterwarnings(*WARNINGS)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    return Bases(tmp_path_factory.mktemp("bases"))


def told(prompt: foreword.LoadedPrompt, example: Example) -> tuple[list[int], Tensor]:
    """The row of an example as tokens, and what the head says of it."""
    (row,) = prompt.task.rows(example, labelled=False)
    return row.pair.source, prompt.model.read(prompt.model.lay_out([row.pair]))[0]


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2"])
def test_a_head_tells_what_it_tells_in_peft(name, base, tmp_path) -> None:
    theirs = adapted(base(name), "SEQ_CLS")
    adapter = save(theirs, tmp_path / "adapter")
    labels = ("yes", "no", "maybe")
    foreword.import_peft(adapter, tmp_path / "it", labels=labels)
    prompt = foreword.load(tmp_path / "it", device="cpu")
    rows = [{"text": "The grey otter swims", "task": str(task)} for task in range(len(NAMES))]
    told_apart = set()
    for task, row in enumerate(rows):
        ids, found = told(prompt, prompt.example(row))
        given = torch.tensor([ids])
        with torch.no_grad():
            logits = theirs(
                input_ids=given,
                attention_mask=torch.ones_like(given),
                task_ids=torch.tensor([task]),
            ).logits[0]
        assert_close(found, logits.softmax(-1))
        told_apart.add(tuple(found.tolist()))
    assert len(told_apart) == len(NAMES)
    together = prompt.predict(rows)
    for row, prediction in zip(rows, together, strict=True):
        (alone,) = prompt.predict([row])
        assert prediction.answer == alone.answer
        assert prediction.probability == pytest.approx(alone.probability, abs=1e-6)


def test_peft_asks_no_question_with_it(base, tmp_path) -> None:
    """PEFT's question answering gives its prompt encoder no task, without which it fails."""
    theirs = adapted(base("bert"), "QUESTION_ANS")
    given = torch.tensor([[5, 6, 7]])
    with pytest.raises(ValueError, match="task_ids cannot be None"):
        theirs(input_ids=given, attention_mask=given * 0 + 1, task_ids=torch.tensor([0]))
    adapter = save(theirs, tmp_path / "adapter")
    with pytest.raises(ArtifactError, match="gives this prompt no task in question answering"):
        foreword.import_peft(adapter, tmp_path / "it")


TEXTS = ["Once upon a time", "The dog", "Lily was a girl who", "A"]


class WithTask:
    """PEFT's model, which generates for one task."""

    def __init__(self, model: Any, task: int) -> None:
        self.model, self.task = model, task

    def generate(self, **given: Any) -> Any:
        return self.model.generate(**given, task_ids=torch.tensor([self.task]))


@pytest.mark.parametrize("many", [1, 3])
def test_pefts_files_come_in_and_go_out(many, shared, tmp_path) -> None:
    where = str(shared("models/stories260K"))
    torch.manual_seed(0)
    theirs = louder(peft.get_peft_model(base_model(where), config("CAUSAL_LM", num_tasks=many)))
    expected = [peft_answers(WithTask(theirs.eval(), k), where, TEXTS, 12) for k in range(many)]
    adapter = save(theirs, tmp_path / "adapter")
    manifest = foreword.import_peft(adapter, tmp_path / "imported")
    method = manifest.method
    assert (method.length, method.rank, len(method.tasks)) == (
        LENGTH,
        RANK,
        many if many > 1 else 0,
    )
    prompt = foreword.load(tmp_path / "imported", backbone=load_backbone(where))
    rows: list[Any] = TEXTS
    if many > 1:
        rows = [{"text": text, "task": str(k)} for k in range(many) for text in TEXTS]
        assert len({tuple(answers) for answers in expected}) == many
    assert prompt.generate(rows, max_new_tokens=12) == [a for answers in expected for a in answers]

    foreword.export_peft(tmp_path / "imported", tmp_path / "exported")
    again = peft.PeftModel.from_pretrained(base_model(where), str(tmp_path / "exported")).eval()
    assert peft_answers(WithTask(again, many - 1), where, TEXTS, 12) == expected[-1]
    written, given = (
        load_file(tmp_path / folder / "adapter_model.safetensors")
        for folder in ("exported", "adapter")
    )
    assert written.keys() == given.keys()
    for name, tensor in given.items():
        assert torch.equal(written[name], tensor), name


def test_of_two_parts_of_the_model_the_first_comes_in(base, tmp_path) -> None:
    """As with prompt tuning: what PEFT generates with are the rows of the encoder."""
    theirs = adapted(base("t5"), "SEQ_2_SEQ_LM", num_transformer_submodules=2)
    adapter = save(theirs, tmp_path / "adapter")
    manifest = foreword.import_peft(adapter, tmp_path / "it")
    assert "PEFT stores 10 rows, of which it reads the first 5" in manifest.data["peft"]["notes"][0]
    prompt = foreword.load(tmp_path / "it", device="cpu")
    tokenizer = prompt.model.backbone.tokens.tokenizer
    given = tokenizer("The grey otter swims", return_tensors="pt")
    for task in range(len(NAMES)):
        output = theirs.generate(
            input_ids=given["input_ids"],
            attention_mask=given["attention_mask"],
            task_ids=torch.tensor([task]),
            max_new_tokens=8,
            do_sample=False,
        )
        expected = tokenizer.decode(output[0, 1:], skip_special_tokens=True).strip()
        row = {"text": "The grey otter swims", "task": str(task)}
        assert prompt.generate([row], max_new_tokens=8) == [expected]


def test_a_damaged_file_is_refused(base, tmp_path) -> None:
    theirs = adapted(base("bert"), "SEQ_CLS")
    adapter = save(theirs, tmp_path / "adapter")
    file = adapter / "adapter_config.json"
    stated = json.loads(file.read_text(encoding="utf-8"))
    for field, value, said in (
        ("num_tasks", 2, "prefix_task_cols has shape"),
        ("num_ranks", 3, "prefix_task_cols has shape"),
        ("num_virtual_tokens", 4, "prompt_embeddings has shape"),
        ("num_tasks", 10**9, "num_tasks: must be at most 1024"),
        ("prompt_tuning_init", "SAMPLE_VOCAB", "prompt_tuning_init"),
    ):
        file.write_text(json.dumps({**stated, field: value}), encoding="utf-8")
        with pytest.raises(ArtifactError, match=said):
            foreword.import_peft(adapter, tmp_path / "it", labels=("a", "b", "c"))
    assert not (tmp_path / "it").exists()


def test_pefts_configuration() -> None:
    ours, theirs = (
        [(field.name, field.default) for field in dataclasses.fields(config)]
        for config in (compat.MultitaskPromptTuningConfig, peft.MultitaskPromptTuningConfig)
    )
    assert ours == theirs
    with pytest.raises(
        ValueError, match=r"MultitaskPromptTuningConfig.num_tasks: expected a whole"
    ):
        compat.MultitaskPromptTuningConfig(num_tasks=0)
    with pytest.raises(ValueError, match=r"prompt_tuning_init: 'SAMPLE_VOCAB' is not known"):
        compat.MultitaskPromptTuningConfig(prompt_tuning_init="SAMPLE_VOCAB")
    assert [str(start) for start in compat.MultitaskPromptTuningInit] == [
        start.value for start in peft.MultitaskPromptTuningInit
    ]
