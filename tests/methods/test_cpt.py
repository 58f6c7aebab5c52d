"""CPT here and with PEFT: the same prompt, training and files."""

import dataclasses
import json
from collections.abc import Sequence
from itertools import islice
from typing import Any

import peft
import pytest
import torch
from peft import CPTConfig, get_peft_model
from safetensors.torch import load_file
from torch import Tensor

import foreword
from compat.exchanging import base_model, peft_answers, save
from conftest import FAMILIES, VOCABULARY, make_backbone, tiny_model
from foreword import compat
from foreword.backbone import load_backbone
from foreword.backbone.layout import Layout
from foreword.errors import ArtifactError, UserError
from foreword.methods import CPT
from foreword.training import LengthBatches, train
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose
from foreword.tuned.initial import initialise
from parity.test_peft_training import SEED, STEPS, Training

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
    "ignore:Position ids are not supported for parameter efficient tuning:UserWarning",
)
TYPES = [0, 1, 2, 2, 1, 3, 4, 0, 5, 6, 6, 7, 8, 8, 0, 9, 10, 11, 12]
TOKENS = [(7 * i + 3) % VOCABULARY for i in range(len(TYPES))]
EPSILON, FORMAT_EPSILON, DECAY = 0.5, 0.25, 0.75
"""Exact in PEFT's float32."""


def peft_model(family: str) -> Any:
    config = CPTConfig(
        task_type="CAUSAL_LM",
        cpt_token_ids=TOKENS,
        cpt_mask=[1] * len(TOKENS),
        cpt_tokens_type_mask=TYPES,
        opt_weighted_loss_type="decay",
        opt_loss_decay_factor=DECAY,
        opt_projection_epsilon=EPSILON,
        opt_projection_format_epsilon=FORMAT_EPSILON,
    )
    return get_peft_model(tiny_model(family, torch.float64), config).to(torch.float64)


def our_model(family: str, types: Sequence[int] = TYPES) -> TunedModel:
    method = CPT(
        name="cpt",
        length=len(TOKENS),
        init={"tokens": TOKENS, "types": types},
        reparameterization={
            "epsilon": EPSILON,
            "format_epsilon": FORMAT_EPSILON,
            "decay": DECAY,
        },
    )
    model = compose(make_backbone(family, torch.float64), method).double()
    assert initialise(model, method.init, []) == 0.0
    return model


def train_with_peft(model: Any, training: Training) -> list[float]:
    """PEFT as its users train it; the loss is PEFT's own."""
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
            row, pad = pairs[i].source + pairs[i].target, width - pairs[i].length
            ids.append(row + [0] * pad)
            mask.append([1] * len(row) + [0] * pad)
            labels.append([-100] * len(pairs[i].source) + pairs[i].target + [-100] * pad)
        loss = model(
            input_ids=torch.tensor(ids),
            attention_mask=torch.tensor(mask),
            labels=torch.tensor(labels),
        ).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def their_rows(model: Any) -> Tensor:
    return model.get_prompt_embedding_to_save("default")


@pytest.mark.usefixtures("norms_in_float64")
@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_prompt_after_the_same_training(family) -> None:
    theirs, ours = peft_model(family), our_model(family)
    start = ours.rows().detach()
    assert (start - their_rows(theirs)).abs().max() <= 1e-9
    training = Training.of(padded=True)
    expected = train_with_peft(theirs, training)
    history = train(ours, training.pairs, training.spec, seed=SEED)
    losses = [step["loss"] for step in history.steps]
    assert len(losses) == STEPS
    assert max(abs(a - b) for a, b in zip(losses, expected, strict=True)) <= 1e-9
    assert min(losses[-5:]) < losses[0]
    rows = ours.fold().rows()
    assert (rows - their_rows(theirs)).abs().max() <= 1e-9

    moved = (rows - start).norm(dim=1) / (start.shape[1] / 2048) ** 0.5
    kind = torch.tensor([(t - 1) % 4 + 1 if t else 0 for t in TYPES])
    assert (moved[(kind == 0) | (kind == 4)] == 0).all()
    for kinds, bound in (((2,), EPSILON), ((1, 3), FORMAT_EPSILON)):
        ours_here = moved[torch.isin(kind, torch.tensor(kinds))]
        assert ours_here.max() <= bound * (1 + 1e-12)
        assert ours_here.max() > 0.9 * bound, "no bound was reached, so it was not tested"


def test_the_context_is_learnt_from_in_training_steps_alone() -> None:
    model = our_model("gpt2")
    layout = Layout.of([[5, 6]], [[7, 8, 9]], virtual=len(TOKENS))
    own = model.reparam.own_answers
    assert own == 4  # of the types 4, 8, 8 and 12
    assert model(layout).shape == (3 + own,)
    with torch.no_grad():
        assert model(layout).shape == (3,)
    assert model.eval()(layout).shape == (3,)
    assert model.fold()(layout).shape == (3,)


@pytest.mark.parametrize("types", [[*TYPES[:-1], 11], [1] * len(TYPES)])
def test_a_row_is_learnt_from_whatever_the_last_type_of_the_context_is(types) -> None:
    """PEFT counts a row's labels by the largest type of the context: where that is no label's, it
    leaves the row's labels out, and its mean over none is NaN where the context has none either."""
    model = our_model("gpt2", types)
    layout = Layout.of([[5, 6]], [[7, 8, 9]], virtual=len(TOKENS))
    own = model.reparam.own_answers
    assert own == sum(kind > 0 and kind % 4 == 0 for kind in types)
    with torch.no_grad():
        alone = model.fold()(layout)
    assert alone.shape == (3,)
    losses = model(layout)
    assert losses.shape == (3 + own,)
    assert (losses[:3] - alone).abs().max() <= 1e-9


def test_measuring_leaves_what_is_trained() -> None:
    model = our_model("gpt2")
    with torch.no_grad():
        model.reparam.moved.fill_(1.0)
        rows = model.rows()
        assert (model.reparam.moved == 1.0).all()
    assert torch.equal(rows, model.rows().detach())  # within its bounds all the same
    assert model.reparam.moved.max() < 1.0


def test_a_state_holds_all_that_a_run_goes_on_from() -> None:
    model, fresh = our_model("gpt2"), our_model("gpt2")
    with torch.no_grad():
        model.reparam.moved.normal_()
        fresh.reparam.start.zero_()
        fresh.reparam.types.zero_()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.rows(), model.rows())
    assert fresh.reparam.own_answers == model.reparam.own_answers


@pytest.mark.parametrize("name", ["foreword/mini", "stories260K"])
def test_each_token_of_an_answer_covers_its_characters(name, shared) -> None:
    """Byte-level BPE, and SentencePiece, whose mark of a beginning is not set again."""
    tokens = load_backbone(name if "/" in name else str(shared(f"models/{name}"))).tokens
    for text in (" It was good.", "so: It was  good", "1, 2"):
        spans = tokens.spans(text, tokens.target(text)[:-1])
        covered = sorted({at for begin, end in spans for at in range(begin, end)})
        missing = [text[at] for at in range(len(text)) if at not in covered]
        assert all(letter == " " for letter in missing)
        assert spans == sorted(spans)
        assert spans[-1][1] == len(text)


def test_only_a_decoder_carries_it() -> None:
    backbone = load_backbone("foreword/mini-seq2seq")
    with pytest.raises(UserError, match=r"before a decoder's text, but .* is an encoder-decoder"):
        compose(backbone, CPT(name="cpt", length=3))


TEXTS = ["Once upon a time", "The dog", "Lily was a girl who", "A"]
CONTEXT = "A dog ran. It was happy. Lily saw a red ball."


def stories_with_peft(where: str) -> Any:
    backbone = load_backbone(where)
    tokens = backbone.tokens.plain(CONTEXT)
    types = [kind + 4 * example for example in range(9) for kind in (1, 2, 3, 4)][: len(tokens)]
    config = CPTConfig(
        task_type="CAUSAL_LM", cpt_token_ids=tokens, cpt_tokens_type_mask=types, **EXAMPLE
    )
    torch.manual_seed(0)
    model = get_peft_model(base_model(where), config).eval()
    with torch.no_grad():
        delta = model.prompt_encoder["default"].delta_embedding.weight
        delta.copy_(torch.randn_like(delta))
    return model


EXAMPLE = {
    "opt_weighted_loss_type": "decay",
    "opt_loss_decay_factor": 0.9,
    "opt_projection_epsilon": 9.0,
    "opt_projection_format_epsilon": 7.0,
}


def test_pefts_files_come_in_and_go_out(shared, tmp_path) -> None:
    where = str(shared("models/stories260K"))
    theirs = stories_with_peft(where)
    expected = peft_answers(theirs, where, TEXTS, 16)
    adapter = save(theirs, tmp_path / "adapter")
    manifest = foreword.import_peft(adapter, tmp_path / "imported")
    backbone = load_backbone(where)
    prompt = foreword.load(tmp_path / "imported", backbone=backbone)
    assert prompt.generate(TEXTS, max_new_tokens=16) == expected
    assert peft_answers(base_model(where), where, TEXTS, 16) != expected
    made_by = manifest.method.reparameterization
    assert (made_by.epsilon, made_by.format_epsilon, made_by.decay) == (9.0, 7.0, 0.9)

    foreword.export_peft(tmp_path / "imported", tmp_path / "exported")
    again = peft.PeftModel.from_pretrained(base_model(where), str(tmp_path / "exported")).eval()
    assert peft_answers(again, where, TEXTS, 16) == expected
    mine, other = (
        json.loads((tmp_path / folder / "adapter_config.json").read_text(encoding="utf-8"))
        for folder in ("exported", "adapter")
    )
    for name in ("cpt_token_ids", "cpt_tokens_type_mask", *EXAMPLE):
        assert mine[name] == other[name], name
    rows = [
        load_file(tmp_path / folder / "adapter_model.safetensors")["prompt_embeddings"]
        for folder in ("exported", "adapter")
    ]
    assert torch.equal(*rows)


def test_pefts_configuration() -> None:
    """Fields, order and defaults; values without a sense are refused at once."""
    ours, theirs = (
        [(field.name, field.default) for field in dataclasses.fields(config)]
        for config in (compat.CPTConfig, CPTConfig)
    )
    assert ours == theirs
    given = {"task_type": "CAUSAL_LM", "cpt_token_ids": [3, 4]}
    filled, expected = compat.CPTConfig(**given), CPTConfig(**given)
    for name in ("num_virtual_tokens", "cpt_mask", "cpt_tokens_type_mask"):
        assert getattr(filled, name) == getattr(expected, name)
    with pytest.raises(ValueError, match=r"CPTConfig.cpt_mask: 1 numbers for 2 tokens"):
        compat.CPTConfig(**given, cpt_mask=[1])
    with pytest.raises(ValueError, match=r"CPTConfig.task_type: expected 'CAUSAL_LM'"):
        compat.CPTConfig(**{**given, "task_type": "SEQ_CLS"})
    with pytest.raises(ValueError, match="opt_weighted_loss_type: expected 'none' or 'decay'"):
        compat.CPTConfig(**given, opt_weighted_loss_type="linear")


def test_a_damaged_configuration_is_refused(shared, tmp_path) -> None:
    adapter = save(stories_with_peft(str(shared("models/stories260K"))), tmp_path / "adapter")
    file = adapter / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["cpt_tokens_type_mask"] = [1, 2]
    file.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ArtifactError, match="cpt_tokens_type_mask: 2 numbers, but"):
        foreword.import_peft(adapter, tmp_path / "imported")
