"""An attached prompt trained by loops of other packages: the losses and the prompt are those of
foreword's own loop, and of PEFT's model in the same loop."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import PrefixTuningConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainingArguments,
    get_scheduler,
)

import foreword
from conftest import make_backbone, mini_tokens, random_ids, tiny_model
from families.by_hand import exact
from foreword.attached import AttachedModel
from foreword.recipe import TrainingSpec
from foreword.training import LengthBatches, Pair, train
from foreword.tuned.compose import compose

TRL_SPEAKS = pytest.mark.filterwarnings(
    "ignore:`gradient_checkpointing` is deprecated:FutureWarning"
)
STEPS, SEED, PAD = 6, 3, 0
SOURCES = random_ids([5, 3, 8, 4, 6, 7, 3, 9], seed=1)
TARGETS = random_ids([4, 6, 2, 5, 3, 4, 7, 2], seed=2)
PAIRS = [Pair(*pair) for pair in zip(SOURCES, TARGETS, strict=True)]
METHOD: dict[str, dict[str, Any]] = {
    "prefix-tuning": {"reparameterization": {"kind": "mlp", "hidden": 16}},
    "prompt-tuning": {"init": "uniform"},
    "p-tuning": {"reparameterization": {"kind": "lstm", "hidden": 8}},
}
SPEC = TrainingSpec(steps=STEPS, batch_size=2, learning_rate=1e-2, best_by=None)


def attached(method: str = "prefix-tuning") -> AttachedModel:
    """A prompt of four virtual tokens on a tiny model in float64, the same one at every call."""
    model = tiny_model("llama", torch.float64)
    torch.manual_seed(SEED)
    made = foreword.attach(
        model, method, tokenizer=mini_tokens().tokenizer, length=4, **METHOD[method]
    )
    return made.double()


def own_loop(like: AttachedModel) -> tuple[list[float], Tensor]:
    """Losses of foreword's own loop from the same start, and the prompt at its end."""
    backbone = make_backbone("llama", torch.float64)
    model = compose(backbone, like.method).double()
    model.load_state_dict(like.prompt.state_dict())
    history = train(model, PAIRS, SPEC, seed=SEED)
    return [entry["loss"] for entry in history.steps], model.rows().detach()


def batches() -> Iterator[list[Pair]]:
    """The batches of that loop, in their order."""
    order = LengthBatches([pair.length for pair in PAIRS], SPEC.batch_size, seed=SEED)
    for ((*rows,),) in islice(order.steps(), STEPS):
        yield [PAIRS[row] for row in rows]


def collate(rows: list[dict[str, list[int]]], side: str = "right") -> dict[str, Tensor]:
    """Rows as transformers' loops have them."""
    width = max(len(row["input_ids"]) for row in rows)

    def padded(name: str, fill: int) -> Tensor:
        laid = []
        for row in rows:
            values = row.get(name) or [1] * len(row["input_ids"])
            idle = [fill] * (width - len(values))
            laid.append([*idle, *values] if side == "left" else [*values, *idle])
        return torch.tensor(laid)

    return {
        "input_ids": padded("input_ids", PAD),
        "attention_mask": padded("attention_mask", 0),
        "labels": padded("labels", -100),
    }


def row(pair: Pair) -> dict[str, list[int]]:
    """A row whose source is not predicted."""
    return {
        "input_ids": pair.source + pair.target,
        "labels": [-100] * len(pair.source) + pair.target,
    }


def arguments(folder: Path, kind: Any = TrainingArguments, **settings: Any) -> Any:
    """What foreword's own loop does, in the words of transformers' trainers."""
    return kind(
        **{
            "output_dir": str(folder),
            "max_steps": STEPS,
            "per_device_train_batch_size": SPEC.batch_size,
            "learning_rate": SPEC.learning_rate,
            "weight_decay": SPEC.weight_decay,
            "lr_scheduler_type": SPEC.schedule,
            "max_grad_norm": SPEC.clip,
            "train_sampling_strategy": "sequential",
            "use_cpu": True,
            "report_to": [],
            "save_strategy": "no",
            "disable_tqdm": True,
            "logging_strategy": "no",
            "dataloader_pin_memory": False,
            **settings,
        }
    )


def losses_of(trainer: Any) -> list[float]:
    """Runs a trainer; the loss of each step, in full precision."""
    found: list[float] = []
    inner = trainer.training_step

    def step(*given: Any, **named: Any) -> Tensor:
        loss: Tensor = inner(*given, **named)
        found.append(loss.item())
        return loss

    trainer.training_step = step
    trainer.train()
    return found


def data() -> Dataset:
    """All batches, one after the other."""
    return Dataset.from_list([row(pair) for batch in batches() for pair in batch])


def assert_same(
    found: list[float],
    model: AttachedModel,
    expected: tuple[list[float], Tensor],
    gap: float = 1e-5,
) -> None:
    """The gap is that of float32, in which transformers computes every loss."""
    losses, rows = expected
    assert len(found) == len(losses) == STEPS
    assert losses[-1] < losses[0]
    assert found == pytest.approx(losses, rel=gap, abs=gap)
    assert (model.prompt.rows() - rows).abs().max().item() <= gap * max(1, rows.abs().max().item())


@pytest.fixture
def _exact() -> Iterator[None]:
    with exact(torch.float64):
        yield


@pytest.mark.usefixtures("_exact")
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("method", METHOD)
def test_plain_loop(method: str, side: str) -> None:
    model = attached(method)
    expected = own_loop(model)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=SPEC.learning_rate, weight_decay=SPEC.weight_decay
    )
    scheduler = get_scheduler("linear", optimizer, 0, STEPS)
    found = []
    model.train()
    for batch in batches():
        given = collate([row(pair) for pair in batch], side)
        labels = given.pop("labels")
        logits = model(**given).logits
        loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        assert model(**given, labels=labels).loss.item() == pytest.approx(loss.item(), rel=1e-6)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), SPEC.clip or 0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        found.append(loss.item())
    assert_same(found, model, expected, 1e-9)


@pytest.mark.parametrize("method", METHOD)
def test_trainer(method: str, tmp_path: Path) -> None:
    model = attached(method)
    expected = own_loop(model)
    trainer = Trainer(model, arguments(tmp_path), train_dataset=data(), data_collator=collate)
    assert_same(losses_of(trainer), model, expected)


def test_trainer_accumulates_batches_as_one(tmp_path: Path) -> None:
    model = attached()
    start = copy.deepcopy(model.prompt.state_dict())
    told = arguments(tmp_path, max_steps=STEPS // 2, gradient_accumulation_steps=2)
    trainer = Trainer(model, told, train_dataset=data(), data_collator=collate)
    parts = losses_of(trainer)
    own = compose(make_backbone("llama", torch.float64), model.method).double()
    own.load_state_dict(start)
    spec = SPEC.model_copy(update={"accumulation": 2, "steps": STEPS // 2})
    steps = train(own, PAIRS, spec, seed=SEED).steps
    found = [first + second for first, second in zip(parts[::2], parts[1::2], strict=True)]
    assert found == pytest.approx([entry["loss"] for entry in steps], rel=1e-5)
    assert (model.prompt.rows() - own.rows()).abs().max().item() <= 1e-5


def test_trainer_evaluates(tmp_path: Path) -> None:
    model = attached()
    told = arguments(tmp_path, per_device_eval_batch_size=3)
    rows = Dataset.from_list([row(pair) for pair in PAIRS])
    trainer = Trainer(model, told, eval_dataset=rows, data_collator=collate)
    every = collate([row(pair) for pair in PAIRS])
    with torch.no_grad():
        shares = model(**{k: v for k, v in every.items() if k != "labels"}).logits.log_softmax(-1)
    found = trainer.predict(rows)
    for number, pair in enumerate(PAIRS):
        own = torch.from_numpy(found.predictions[number, : pair.length]).log_softmax(-1)
        assert (own - shares[number, : pair.length]).abs().max().item() <= 1e-9
    assert found.metrics["test_loss"] > 0


def test_trainer_recomputes_layers(tmp_path: Path) -> None:
    model = attached()
    expected = own_loop(model)
    told = arguments(tmp_path, activation_checkpointing=True)
    trainer = Trainer(model, told, train_dataset=data(), data_collator=collate)
    assert_same(losses_of(trainer), model, expected)
    assert model.is_gradient_checkpointing


def test_trainer_smooths_labels(tmp_path: Path) -> None:
    model = attached()
    told = arguments(tmp_path, label_smoothing_factor=0.2, max_steps=1)
    trainer = Trainer(model, told, train_dataset=data(), data_collator=collate)
    first = collate([row(pair) for pair in next(batches())])
    with torch.no_grad():
        logits, labels = model(**first).logits[:, :-1], first["labels"][:, 1:]
    smoothed = nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), label_smoothing=0.2
    )
    assert losses_of(trainer) == pytest.approx([smoothed.item()], rel=1e-5)


def seq2seq_rows() -> Dataset:
    return Dataset.from_list(
        [{"input_ids": s, "labels": t} for s, t in zip(SOURCES, TARGETS, strict=True)]
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_encoder_decoder_in_its_trainer(smoothing: float, tmp_path: Path) -> None:
    """With smoothed labels the loop takes the labels out, and its collator has made of them what
    the decoder reads."""
    torch.manual_seed(SEED)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    config = T5Config(**sizes, vocab_size=8192, decoder_start_token_id=0, dropout_rate=0.0)
    tokenizer = copy.deepcopy(mini_tokens().tokenizer)
    model = foreword.attach(
        T5ForConditionalGeneration(config), "prefix-tuning", tokenizer=tokenizer, length=4
    )
    told = arguments(
        tmp_path,
        Seq2SeqTrainingArguments,
        label_smoothing_factor=smoothing,
        predict_with_generate=True,
        generation_max_length=6,
    )
    collator = DataCollatorForSeq2Seq(tokenizer, model=model)
    rows = seq2seq_rows()
    first = collator([rows[0], rows[1]])
    with torch.no_grad():
        logits = model(**first).logits
    loss = nn.functional.cross_entropy(
        logits.flatten(0, 1), first["labels"].flatten(), label_smoothing=smoothing
    )
    trainer = Seq2SeqTrainer(model, told, train_dataset=rows, data_collator=collator)
    losses = losses_of(trainer)
    assert losses[0] == pytest.approx(loss.item(), rel=1e-5)
    found = trainer.predict(rows.select(range(2))).predictions
    expected = model.generate(
        first["input_ids"], attention_mask=first["attention_mask"], max_length=6
    )
    assert found[:, : expected.shape[1]].tolist() == expected.tolist()


def test_trainer_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    def trained(model: AttachedModel, **settings: Any) -> Trainer:
        told = arguments(tmp_path / "run", save_strategy="steps", save_steps=3, **settings)
        return Trainer(model, told, train_dataset=data(), data_collator=collate)

    whole = attached()
    trained(whole).train()
    resumed = attached()
    trained(resumed).train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


@TRL_SPEAKS
def test_sft_trainer(tmp_path: Path) -> None:
    """TRL's trainer calls the body and the head of a model by themselves."""
    from trl import SFTConfig, SFTTrainer

    model = attached()
    expected = own_loop(model)
    told = arguments(tmp_path, SFTConfig, bf16=False, max_length=None)
    assert told.gradient_checkpointing, "TRL's own default"
    trainer = SFTTrainer(
        model,
        told,
        train_dataset=data(),
        processing_class=mini_tokens().tokenizer,
    )
    assert_same(losses_of(trainer), model, expected)


@TRL_SPEAKS
def test_sft_trainer_without_padding_is_refused(tmp_path: Path) -> None:
    from trl import SFTConfig, SFTTrainer

    told = arguments(tmp_path, SFTConfig, bf16=False, max_length=None, padding_free=True)
    trainer = SFTTrainer(
        attached(),
        told,
        train_dataset=data(),
        processing_class=mini_tokens().tokenizer,
    )
    with pytest.raises(foreword.errors.UserError, match="a prompt stands before the first"):
        trainer.train()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_peft_model_in_the_same_trainer(tmp_path: Path) -> None:
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    theirs = get_peft_model(tiny_model("llama"), config)
    matrix = theirs.prompt_encoder["default"].embedding.weight
    ours = foreword.attach(
        tiny_model("llama"), "prefix-tuning", length=4, reparameterization="table"
    )
    ours.prompt.reparam.fit(ours.prompt.injection.named(matrix.detach()))
    found = [
        losses_of(Trainer(model, arguments(tmp_path), train_dataset=data(), data_collator=collate))
        for model in (theirs, ours)
    ]
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    assert found[0][-1] < found[0][0]
