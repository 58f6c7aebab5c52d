"""Multitask prompt tuning here and with PEFT: the same prompts, training and files; each row by the
prompt of its task."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from typing import Any

import peft
import pytest
import torch
from torch import nn

import foreword
from compat.multitask import LENGTH, NAMES, RANK, adapted, config, louder
from compat.with_heads import Bases, save_base
from conftest import FAMILIES, assert_close, make_backbone, random_ids, row_logits, tiny_model
from foreword.artifacts.manifest import read_manifest
from foreword.backbone import Backbone, load_backbone
from foreword.backbone.layout import Layout, Pair
from foreword.errors import DataError, RecipeError, UserError
from foreword.methods import MultitaskPromptTuning
from foreword.recipe import parse_recipe
from foreword.runs import train as run
from foreword.training import LengthBatches, train
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose
from methods.several_tasks import STORED, recipe, rows_of_tasks
from parity.test_peft_training import SEED, STEPS, Training

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
    "ignore:Position ids are not supported for parameter efficient tuning:UserWarning",
)


def peft_model(family: str) -> Any:
    torch.manual_seed(3)
    model = peft.get_peft_model(tiny_model(family, torch.float64), config("CAUSAL_LM"))
    return louder(model).to(torch.float64)


def our_model(backbone: Backbone, **options: Any) -> TunedModel:
    given = {"length": LENGTH, "rank": RANK, "task_column": "task", "tasks": NAMES, **options}
    method = MultitaskPromptTuning(name="multitask-prompt-tuning", **given)
    return compose(backbone, method).to(backbone.model.dtype)


def with_their_numbers(ours: TunedModel, theirs: Any) -> TunedModel:
    """The same model, training from PEFT's numbers."""
    encoder = theirs.prompt_encoder["default"]
    site = ours.injection.sites[0]
    given = {f"{site}.{name}": encoder.get_parameter(other) for name, other in STORED.items()}
    ours.reparam.fit(given)
    return ours


def test_a_task_is_the_shared_prompt_times_its_factors() -> None:
    """The paper's equation, number by number."""
    model = our_model(make_backbone("gpt2", torch.float64))
    named = {name: tensor.normal_() for name, tensor in model.fold().reparam().items()}
    for task in range(len(NAMES)):
        found = model.injection.one_of(named, task)["decoder.embeddings"]
        for i in range(LENGTH):
            for j in range(found.shape[1]):
                low_rank = sum(
                    float(named["decoder.task_columns"][task, i, r])
                    * float(named["decoder.task_rows"][task, r, j])
                    for r in range(RANK)
                )
                shared = float(named["decoder.embeddings"][i, j])
                assert found[i, j].item() == pytest.approx(shared * low_rank, abs=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_several_tasks_have_pefts_logits(family) -> None:
    theirs = peft_model(family)
    ours = with_their_numbers(our_model(make_backbone(family, torch.float64)), theirs)
    ids, of = random_ids([9, 4, 6, 5]), [2, 0, 2, 1]
    layout = Layout.of(ids, virtual=LENGTH)
    with torch.no_grad():
        expected = theirs(
            input_ids=layout.input_ids,
            attention_mask=layout.attention_mask.long(),
            task_ids=torch.tensor(of),
        ).logits[:, LENGTH:]
        found = ours.backbone.logits(ours.call(replace(layout, prompts=torch.tensor(of))))
    for row in range(len(ids)):
        assert_close(row_logits(found, layout, row), row_logits(expected, layout, row))
    gaps = [(expected[0, 0] - expected[row, 0]).abs().max() for row in (1, 3)]
    assert min(gaps) > 0.01, "tasks hardly differ, so equality says little"


def train_with_peft(model: Any, training: Training) -> list[float]:
    """PEFT as its users train it, rows of several tasks in a batch."""
    spec, pairs = training.spec, training.pairs
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=spec.learning_rate,
        betas=spec.betas,
        weight_decay=spec.weight_decay,
    )
    batches = LengthBatches([p.length for p in pairs], spec.batch_size, seed=SEED)
    losses = []
    model.train()
    for (batch,) in islice(batches.steps(), STEPS):
        width = max(pairs[i].length for i in batch)
        ids, mask, labels = [], [], []
        for i in batch:
            row, pad = pairs[i].source + pairs[i].target, [0] * (width - pairs[i].length)
            ids.append(row + pad)
            mask.append([1] * len(row) + pad)
            labels.append([-100] * len(pairs[i].source) + pairs[i].target + [-100] * len(pad))
        logits = model(
            input_ids=torch.tensor(ids),
            attention_mask=torch.tensor(mask),
            task_ids=torch.tensor([pairs[i].prompt for i in batch]),
        ).logits
        # transformers casts logits to float32 for its own loss, which is too coarse in float64.
        loss = nn.functional.cross_entropy(
            logits[:, -width:-1].flatten(0, 1), torch.tensor(labels)[:, 1:].flatten()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def same_training(ours: TunedModel, theirs: Any, expected: list[float], training: Training) -> None:
    """Train ours, and compare every loss and number with PEFT's."""
    before = {name: tensor.detach().clone() for name, tensor in ours.reparam().items()}
    history = train(ours, training.pairs, training.spec, seed=SEED)
    losses = [step["loss"] for step in history.steps]
    assert len(losses) == STEPS
    assert max(abs(a - b) for a, b in zip(losses, expected, strict=True)) <= 1e-9
    assert min(losses[-5:]) < losses[0], "nothing was learned, so equality says little"
    site = ours.injection.sites[0]
    encoder, named = theirs.prompt_encoder["default"], ours.reparam()
    for name, other in STORED.items():
        found = named[f"{site}.{name}"]
        assert not torch.equal(found, before[f"{site}.{name}"])
        assert (found - encoder.get_parameter(other)).abs().max() <= 1e-8


def of_several_tasks(training: Training) -> Training:
    pairs = [
        replace(pair, prompt=number % len(NAMES)) for number, pair in enumerate(training.pairs)
    ]
    return Training(pairs, training.spec)


@pytest.mark.usefixtures("norms_in_float64")
@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_prompts_after_the_same_training(family) -> None:
    theirs = peft_model(family)
    ours = with_their_numbers(our_model(make_backbone(family, torch.float64)), theirs)
    training = of_several_tasks(Training.of(padded=True))
    expected = train_with_peft(theirs, training)
    same_training(ours, theirs, expected, training)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    made = Bases(tmp_path_factory.mktemp("bases"))
    made.made["t5"] = save_base("t5", made.folder / "t5", decoder_start_token_id=0)
    return made


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_an_encoder_decoder_trains_as_in_peft(name, base) -> None:
    """In the encoder's input, one part of the model: PEFT's two differ in training and writing."""
    theirs = adapted(base(name), "SEQ_2_SEQ_LM", torch.float64, num_transformer_submodules=1)
    backbone = load_backbone(str(base(name)), dtype="float64")
    ours = with_their_numbers(our_model(backbone), theirs)
    training = of_several_tasks(Training.of(padded=True))
    spec = training.spec
    optimizer = torch.optim.AdamW(
        [p for p in theirs.parameters() if p.requires_grad],
        lr=spec.learning_rate,
        betas=spec.betas,
        weight_decay=spec.weight_decay,
    )
    batches = LengthBatches([p.length for p in training.pairs], spec.batch_size, seed=SEED)
    expected = []
    for (batch,) in islice(batches.steps(), STEPS):
        pairs = [training.pairs[i] for i in batch]
        read = nn.utils.rnn.pad_sequence(
            [torch.tensor(pair.source) for pair in pairs], batch_first=True, padding_value=-1
        )
        labels = nn.utils.rnn.pad_sequence(
            [torch.tensor(pair.target) for pair in pairs], batch_first=True, padding_value=-100
        )
        logits = theirs(
            input_ids=read.clamp(min=0),
            attention_mask=(read >= 0).long(),
            labels=labels,
            task_ids=torch.tensor([pair.prompt for pair in pairs]),
        ).logits
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    same_training(ours, theirs, expected, training)


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_peft_drops_what_an_encoder_decoder_is_given_to_write(name, base) -> None:
    """PEFT passes `decoder_input_ids` on for prompt tuning and P-Tuning alone, and widens the
    decoder's mask by a prompt that stands in the encoder alone. Here the decoder reads them."""
    theirs = adapted(base(name), "SEQ_2_SEQ_LM", torch.float64, num_transformer_submodules=1)
    ids, written = torch.tensor([[5, 6, 7]]), torch.tensor([[0, 8, 9]])
    mask, task = torch.ones_like(ids), torch.tensor([1])
    given = {"input_ids": ids, "attention_mask": mask, "task_ids": task}
    with pytest.raises(ValueError, match=r"decoder_input_ids|You must specify exactly one of"):
        theirs(**given, decoder_input_ids=written)
    if name == "bart":  # T5 cuts the mask to what it reads
        with pytest.raises((ValueError, RuntimeError)):
            theirs(**given, labels=written, decoder_attention_mask=torch.ones_like(written))
    backbone = load_backbone(str(base(name)), dtype="float64")
    ours = with_their_numbers(our_model(backbone), theirs)
    layout = ours.lay_out([Pair([5, 6, 7], [8, 9, 3], prompt=1)])
    with torch.no_grad():
        expected = theirs(**given, labels=torch.tensor([[8, 9, 3]])).logits
        assert_close(ours.backbone.logits(ours.call(layout))[:, -4:-1], expected)


def test_a_run_learns_the_tasks_that_its_rows_name(mini, tmp_path) -> None:
    rows = rows_of_tasks(tmp_path)
    done = run(recipe(rows), backbone=mini, out=tmp_path / "run", device="cpu")
    method = read_manifest(done.artifact).method
    assert isinstance(method, MultitaskPromptTuning)
    assert method.tasks == ("back", "loud")
    assert {"all", "back", "loud"} <= done.metrics["prompt"].keys()
    assert '"task": "..."' in (done.artifact / "README.md").read_text(encoding="utf-8")
    prompt = foreword.load(done.artifact, backbone=mini)
    named = prompt.model.reparam()
    start = our_model(mini, length=4, rank=1, tasks=method.tasks).reparam()
    for name, tensor in named.items():
        assert tensor.shape == start[name].shape
    prompts = [prompt.model.injection.one_of(named, task) for task in (0, 1)]
    assert not torch.equal(*(each["decoder.embeddings"] for each in prompts))

    asked = [{"text": text, "task": task} for text in ("wren", "a tern") for task in method.tasks]
    together = prompt.generate(asked)
    assert together == [answer for row in asked for answer in prompt.generate([row])]
    bank = foreword.prompts(mini)
    bank.add("several", prompt)
    assert bank.generate([{"prompt": "several", **row} for row in asked]) == together
    reported = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    examples = foreword.read_examples(
        rows, "jsonl", references="answer", group="task", inputs=("text", "task")
    )
    again = prompt.evaluate(examples).figures()
    assert again["back"]["chrf"] == pytest.approx(reported["prompt"]["back"]["chrf"])

    for row, said in (
        ({"text": "wren"}, "input 1: has no field 'task', which names the prompt"),
        ({"text": "wren", "task": "lout"}, "'lout' is none of the prompts .did you mean 'loud'"),
        ("wren", "has the fields text, task; give them by name"),
    ):
        with pytest.raises(DataError, match=said):
            prompt.generate([row])


def test_what_tells_no_tasks_apart_is_refused(mini, tmp_path) -> None:
    rows = rows_of_tasks(tmp_path)
    other = tmp_path / "dev.jsonl"
    other.write_text('{"text": "owl", "task": "odd", "answer": "x"}\n', encoding="utf-8")
    given = recipe(rows)
    given["task"]["data"]["dev"] = str(other)
    with pytest.raises(DataError, match=r"dev.jsonl, line 1, field 'task': 'odd' is none of"):
        run(given, backbone=mini, out=tmp_path / "run", device="cpu")
    with pytest.raises(DataError, match="tusk"):
        run(
            recipe(rows, method={"task_column": "tusk"}),
            backbone=mini,
            out=tmp_path / "run",
            device="cpu",
        )
    assert not (tmp_path / "run").exists()
    with pytest.raises(RecipeError, match="are told apart by a column"):
        parse_recipe(recipe(rows, method={"task_column": None, "tasks": ["a", "b"]}))
    with pytest.raises(UserError, match="does not name the prompt that it takes"):
        foreword.attach(tiny_model("gpt2"), "multitask-prompt-tuning", task_column="task")


def test_one_task_needs_no_column(mini, tmp_path) -> None:
    given = recipe(rows_of_tasks(tmp_path), method={"task_column": None, "rank": 3})
    done = run(given, backbone=mini, out=tmp_path / "run", device="cpu")
    prompt = foreword.load(done.artifact, backbone=mini)
    assert prompt.model.reparam()["decoder.task_columns"].shape == (1, 4, 3)
    assert prompt.generate(["wren ->"])
    config = foreword.export_peft(done.artifact, tmp_path / "exported")
    assert (config.num_tasks, config.num_ranks) == (1, 3)
