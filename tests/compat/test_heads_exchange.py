"""Adapters with heads, and on encoder-decoders: imported, they answer as they do in PEFT.

One row at a time and without padding, where PEFT is right (`tests/parity/`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import foreword
from compat.with_heads import BASES, KINDS, LENGTH, WARNINGS, Bases, adapted, save, save_base
from conftest import assert_close, one_of_each
from foreword.artifacts.manifest import read_manifest
from foreword.backbone import Call, load_backbone
from foreword.errors import ArtifactError, UserError

pytestmark = [pytest.mark.filterwarnings(*WARNINGS), pytest.mark.usefixtures("loaded_once")]
WORDS = ["The", "grey", "otter", "swims", "in", "a", "cold", "river", "near", "us"]
LABELS = ("B-X", "I-X", "O")
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    return Bases(tmp_path_factory.mktemp("bases"))


def asked(task: str) -> Any:
    """What a model is asked."""
    if task == "QUESTION_ANS":
        return {"question": " ".join(WORDS[:3]), "context": " ".join(WORDS[3:])}
    return " ".join(WORDS)


def told(prompt: foreword.LoadedPrompt, task: str) -> tuple[Any, torch.Tensor]:
    """The row that is read, and what is read of it."""
    example = prompt.example(asked(task))
    (window,) = prompt.task.rows(example, labelled=False)
    return window.pair, prompt.model.read(prompt.model.lay_out([window.pair]))[0]


def expected(model: Any, task: str, pair: Any) -> torch.Tensor:
    """The same from PEFT's logits for this row alone."""
    ids = torch.tensor([pair.source])
    with torch.no_grad():
        output = model(input_ids=ids, attention_mask=torch.ones_like(ids))
    if task == "SEQ_CLS":
        return output.logits[0].softmax(-1)
    marks = torch.tensor(pair.marks) - len(pair.source)
    if task == "TOKEN_CLS":
        return output.logits[0][marks].softmax(-1)
    return torch.stack([output.start_logits[0][marks], output.end_logits[0][marks]]).log_softmax(-1)


HELD = [
    (name, task, kind)
    for name in (
        "bert",
        "roberta",
        "albert",
        "electra",
        "distilbert",
        "gpt2",
        "llama",
        "opt",
        "bloom",
    )
    for task in ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")
    for kind in KINDS
    if not (kind == "prefix" and name in ("albert", "distilbert"))
    and not (task == "SEQ_CLS" and name in ("electra", "distilbert"))
    and (task, name) not in {("QUESTION_ANS", "llama"), ("TOKEN_CLS", "opt")}
]


@pytest.mark.parametrize(("name", "task", "kind"), one_of_each(HELD, 2))
def test_a_head_tells_what_it_tells_in_peft(name, task, kind, base, tmp_path) -> None:
    span = task == "QUESTION_ANS"
    theirs = adapted(base(name), task, kind, labels=2 if span else 3)
    adapter = save(theirs, tmp_path / "adapter")
    labels = None if span else LABELS
    manifest = foreword.import_peft(adapter, tmp_path / "it", labels=labels)
    prompt = foreword.load(tmp_path / "it", device="cpu")
    pair, found = told(prompt, task)
    reference = expected(theirs, task, pair)
    assert_close(found, reference)
    assert manifest.task.labels == (labels or ())
    assert manifest.method.positions == "shift"
    (answered,) = prompt.predict([asked(task)])
    if task == "SEQ_CLS":
        assert answered.answer == LABELS[int(reference.argmax())]
    elif task == "TOKEN_CLS":
        assert answered.answer == tuple(LABELS[i] for i in reference.argmax(-1))
    else:
        context = asked(task)["context"]
        assert answered.answer
        assert context[answered.start :].startswith(answered.answer)


def test_a_pooler_that_was_left_out_is_found_in_the_checkpoint(base, tmp_path) -> None:
    """bert-base-uncased has one, and its config calls it a masked language model."""
    where = save_base("bert", tmp_path / "bert")
    config = json.loads((where / "config.json").read_text(encoding="utf-8"))
    config["architectures"] = ["BertForMaskedLM"]
    (where / "config.json").write_text(json.dumps(config), encoding="utf-8")
    theirs = adapted(where, "SEQ_CLS", "prefix")
    adapter = save(theirs, tmp_path / "adapter")
    foreword.import_peft(adapter, tmp_path / "it", labels=LABELS)
    prompt = foreword.load(tmp_path / "it", device="cpu")
    assert type(prompt.model.backbone.model).__name__ == "BertForMaskedLM"
    pair, found = told(prompt, "SEQ_CLS")
    assert_close(found, expected(theirs, "SEQ_CLS", pair))


def test_a_span_of_peft_is_its_likeliest(base, tmp_path) -> None:
    theirs = adapted(base("bert"), "QUESTION_ANS", "prefix", labels=2)
    foreword.import_peft(save(theirs, tmp_path / "adapter"), tmp_path / "it")
    prompt = foreword.load(tmp_path / "it", device="cpu")
    pair, _ = told(prompt, "QUESTION_ANS")
    begins, ends = expected(theirs, "QUESTION_ANS", pair)[:, 1:]
    spans = [
        (float(begins[i] + ends[j]), i, j) for i in range(len(begins)) for j in range(i, len(ends))
    ]
    score, first, last = max(spans)
    (window,) = prompt.task.rows(prompt.example(asked("QUESTION_ANS")))
    (answered,) = prompt.predict([asked("QUESTION_ANS")])
    start, end = window.at[first + 1][0], window.at[last + 1][1]
    assert answered.answer == asked("QUESTION_ANS")["context"][start:end]
    assert answered.probability == pytest.approx(float(torch.tensor(score).exp()), rel=1e-4)


def test_two_texts_and_their_segments(base, tmp_path) -> None:
    theirs = adapted(base("bert"), "SEQ_CLS", "prompt", labels=2)
    adapter = save(theirs, tmp_path / "adapter")
    foreword.import_peft(adapter, tmp_path / "it", input="{one}", second="{two}")
    prompt = foreword.load(tmp_path / "it", device="cpu")
    fields = {"one": " ".join(WORDS[:4]), "two": " ".join(WORDS[4:])}
    tokenizer = AutoTokenizer.from_pretrained(base("bert"))
    given = tokenizer(fields["one"], fields["two"], return_tensors="pt", return_token_type_ids=True)
    assert given["token_type_ids"].any()
    with torch.no_grad():
        reference = theirs(**given).logits[0].softmax(-1)
    (answered,) = prompt.predict([fields])
    assert_close(torch.tensor(list(answered.probabilities.values())), reference)
    assert list(answered.probabilities) == ["LABEL_0", "LABEL_1"], "the config's own names"


def test_what_an_import_notes(base, tmp_path) -> None:
    for name, task, kind, said in (
        ("bert", "SEQ_CLS", "prompt", "reads the state of the first virtual token"),
        ("bert", "QUESTION_ANS", "prompt", "does not shift start and end positions"),
        ("bert", "QUESTION_ANS", "prefix", "drops token_type_ids"),
        ("t5", "SEQ_2_SEQ_LM", "prompt", f"stores {2 * LENGTH} rows, of which it reads"),
        ("t5", "SEQ_2_SEQ_LM", "prefix", "layers i and i + 2 share one; half of the stored"),
        ("bart of three", "SEQ_2_SEQ_LM", "prefix", "in another order"),
        ("bert", "SEQ_CLS", "prefix", None),
        ("bert", "TOKEN_CLS", "prompt", None),
    ):
        place = tmp_path / f"{name}-{task}-{kind}"
        adapter = save(adapted(base(name), task, kind, labels=2), place / "adapter")
        manifest = foreword.import_peft(adapter, place / "it")
        notes = manifest.data["peft"].get("notes", [])
        assert any(said in note for note in notes) if said else not notes
        assert read_manifest(place / "it").data["peft"].get("notes", []) == notes


ENCODER_DECODERS = ("t5", "bart", "bart of three")
TEXTS = ("The grey otter", "A cold river", "Once upon a time there was", "x")


def generated(model: Any, where: Path, *, beams: int = 1) -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(where)
    answers = []
    for text in TEXTS:
        given = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            output = model.generate(
                **given, max_new_tokens=12, do_sample=False, num_beams=beams, pad_token_id=0
            )
        answers.append(tokenizer.decode(output[0][1:], skip_special_tokens=True).strip())
    return answers


WRITERS = [(name, kind) for name in ENCODER_DECODERS for kind in KINDS]


@pytest.mark.parametrize(("name", "kind"), one_of_each(WRITERS, 1))
def test_an_encoder_decoder_writes_what_it_writes_in_peft(name, kind, base, tmp_path) -> None:
    where = base(name)
    theirs = adapted(where, "SEQ_2_SEQ_LM", kind)
    adapter = save(theirs, tmp_path / "adapter")
    reference = generated(theirs, where)
    manifest = foreword.import_peft(adapter, tmp_path / "it")
    prompt = foreword.load(tmp_path / "it", device="cpu")
    assert prompt.generate(TEXTS, max_new_tokens=12) == reference, "together, with padding"
    assert prompt.generate(TEXTS, max_new_tokens=12, batch_size=1) == reference
    assert prompt.generate(TEXTS, max_new_tokens=12, num_beams=3) == generated(
        theirs, where, beams=3
    )
    bare = generated(AutoModelForSeq2SeqLM.from_pretrained(where), where)
    assert bare != reference, "the prompt must tell"
    assert manifest.backbone.kind == "encoder-decoder"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_an_encoder_decoders_logits_are_pefts(name, kind, base, tmp_path) -> None:
    theirs = adapted(base(name), "SEQ_2_SEQ_LM", kind)
    foreword.import_peft(save(theirs, tmp_path / "adapter"), tmp_path / "it")
    model = foreword.load(tmp_path / "it", device="cpu").model
    source, target = [5, 81, 300, 27, 9], [40, 7, 1200]
    given = torch.tensor([source])
    with torch.no_grad():
        reference = theirs(
            input_ids=given,
            attention_mask=torch.ones_like(given),
            decoder_input_ids=torch.tensor([[0, *target]]),
        ).logits[0]
        layout = model.arrange([source, source[:2]], [target, target[:1]])
        found = model.backbone.logits(Call(layout, model.prompt()))[0]
    assert_close(found, reference)


def test_half_of_a_shared_prefix_is_left_out(base, tmp_path) -> None:
    """The numbers that nothing reads can be anything."""
    theirs = adapted(base("t5"), "SEQ_2_SEQ_LM", "prefix")
    adapter = save(theirs, tmp_path / "adapter")
    rows = load_file(adapter / WEIGHTS)["prompt_embeddings"]
    first = foreword.import_peft(adapter, tmp_path / "first")
    dead = rows.unflatten(1, (4, -1)).clone()
    dead[:, 1::2] = 7.0
    save_file({"prompt_embeddings": dead.flatten(1)}, adapter / WEIGHTS)
    second = foreword.import_peft(adapter, tmp_path / "second")
    assert first.prompt_sha256 == second.prompt_sha256
    stored = load_file(tmp_path / "first" / "prompt.safetensors")
    assert set(stored) == {"decoder.keys", "decoder.values", "decoder.layers"}
    assert torch.equal(stored["decoder.keys"][0], stored["decoder.keys"][2])


@pytest.mark.parametrize("kind", ["prompt", "p-tuning"])
def test_an_encoders_prompt_goes_back_to_peft(kind, base, tmp_path) -> None:
    where = base("t5")
    theirs = adapted(where, "SEQ_2_SEQ_LM", kind)
    foreword.import_peft(save(theirs, tmp_path / "adapter"), tmp_path / "it")
    config = foreword.export_peft(tmp_path / "it", tmp_path / "back")
    assert (config.task_type, config.num_transformer_submodules) == ("SEQ_2_SEQ_LM", 1)
    rows = load_file(tmp_path / "back" / WEIGHTS)["prompt_embeddings"]
    stored = load_file(tmp_path / "adapter" / WEIGHTS)["prompt_embeddings"]
    assert torch.equal(rows, stored[:LENGTH])
    again = peft.PeftModel.from_pretrained(
        AutoModelForSeq2SeqLM.from_pretrained(where), str(tmp_path / "back")
    ).eval()
    assert generated(again, where) == generated(theirs, where)
    second = foreword.import_peft(tmp_path / "back", tmp_path / "second")
    assert second.prompt_sha256 == read_manifest(tmp_path / "it").prompt_sha256


def test_what_is_not_exported(base, tmp_path) -> None:
    for name, task, kind, said in (
        ("bert", "QUESTION_ANS", "prefix", "its readout is span_head"),
        ("t5", "SEQ_2_SEQ_LM", "prefix", "is a prefix on an encoder-decoder"),
    ):
        place = tmp_path / name
        adapter = save(adapted(base(name), task, kind, labels=2), place / "adapter")
        foreword.import_peft(adapter, place / "it")
        with pytest.raises(UserError, match=said):
            foreword.export_peft(place / "it", place / "out")
        assert not (place / "out").exists()


REFUSED = {
    "gelu": ("electra", "SEQ_CLS", "prompt", {}, "'electra' has a layer with GELU before"),
    "relu": ("distilbert", "SEQ_CLS", "prompt", {}, "'distilbert' has a layer with ReLU before"),
    "gelu and norm": (
        "modernbert",
        "TOKEN_CLS",
        "prompt",
        {},
        "'modernbert' has a layer with GELU",
    ),
    "albert": ("albert", "TOKEN_CLS", "prefix", {"labels": LABELS}, "cannot run a prefix on"),
    "random body": ("llama", "QUESTION_ANS", "prefix", {}, "does not load the weights of"),
    "pooler": (
        "bert without pooler",
        "SEQ_CLS",
        "prefix",
        {},
        "holds none: transformers made one up at random",
    ),
    "labels": (
        "bert",
        "SEQ_CLS",
        "prefix",
        {"labels": ("a", "b")},
        "3 outputs, but `labels` has 2",
    ),
    "same labels": ("bert", "SEQ_CLS", "prefix", {"labels": ("a", "b", "a")}, "not all different"),
    "no labels": ("bert", "SEQ_CLS", "prefix", {}, "config of .* names 2 labels"),
    "a span's": ("bert", "QUESTION_ANS", "prefix", {"labels": ("a",)}, "leave `labels` out"),
    "a text's": ("t5", "SEQ_2_SEQ_LM", "prompt", {"labels": ("a",)}, "leave `labels` out"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_held(what, base, tmp_path) -> None:
    name, task, kind, options, said = REFUSED[what]
    theirs = adapted(base(name), task, kind, labels=2 if task == "QUESTION_ANS" else 3)
    with pytest.raises(ArtifactError, match=said):
        foreword.import_peft(save(theirs, tmp_path / "adapter"), tmp_path / "it", **options)
    assert not (tmp_path / "it").exists()


PROBLEMS = [
    (problem, name, kind)
    for problem in ("regression", "multi_label_classification")
    for name in ("bert", "roberta", "llama")
    for kind in ("prefix", "prompt")
]


@pytest.mark.parametrize(("problem", "name", "kind"), one_of_each(PROBLEMS, 2))
def test_numbers_and_several_labels_are_those_of_peft(problem, name, kind, base, tmp_path) -> None:
    number = problem == "regression"
    theirs = adapted(base(name), "SEQ_CLS", kind, labels=1 if number else 3)
    adapter = save(theirs, tmp_path / "adapter")
    given = {} if number else {"labels": LABELS, "problem_type": problem}
    manifest = foreword.import_peft(adapter, tmp_path / "it", **given)
    assert manifest.task.answer == ("number" if number else "labels")
    assert (manifest.task.number, manifest.task.label_list) == (
        ("number", None) if number else (None, "label_list")
    )
    prompt = foreword.load(tmp_path / "it", device="cpu")
    pair, found = told(prompt, "SEQ_CLS")
    ids = torch.tensor([pair.source])
    with torch.no_grad():
        logits = theirs(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
    assert_close(found, logits if number else logits.sigmoid())
    (answered,) = prompt.predict([asked("SEQ_CLS")])
    if number:
        assert answered.answer == pytest.approx(logits.item(), rel=1e-5)
    else:
        assert answered.answer == tuple(LABELS[i] for i in range(3) if logits[i] >= 0)


def test_a_problem_is_that_of_the_config_or_of_the_call(base, tmp_path) -> None:
    where = save_base("bert", tmp_path / "bert", problem_type="multi_label_classification")
    adapter = save(adapted(where, "SEQ_CLS", "prefix"), tmp_path / "adapter")
    assert foreword.import_peft(adapter, tmp_path / "a", labels=LABELS).task.answer == "labels"
    usual = "single_label_classification"
    manifest = foreword.import_peft(adapter, tmp_path / "b", labels=LABELS, problem_type=usual)
    assert manifest.task.answer == "label"


@pytest.mark.parametrize(
    ("task", "outputs", "given", "said"),
    [
        ("SEQ_CLS", 3, {"problem_type": "regression"}, "regression, but its head has 3 outputs"),
        ("SEQ_CLS", 1, {"problem_type": "single_label_classification"}, "its head has 1 output;"),
        (
            "SEQ_CLS",
            3,
            {"problem_type": "multi_label_clasification"},
            "did you mean .multi_label_class",
        ),
        ("SEQ_CLS", 1, {"labels": ("a",)}, "tells a number and has no labels"),
        ("TOKEN_CLS", 3, {"problem_type": "regression"}, "TOKEN_CLS is no sequence classifier"),
        ("TOKEN_CLS", 1, {"labels": ("a",)}, "one output, which tells no tags apart"),
    ],
)
def test_problems_that_no_head_has(task, outputs, given, said, base, tmp_path) -> None:
    adapter = save(adapted(base("bert"), task, "prefix", labels=outputs), tmp_path / "adapter")
    with pytest.raises(ArtifactError, match=said):
        foreword.import_peft(adapter, tmp_path / "it", **given)
    assert not (tmp_path / "it").exists()


OTHER_HEADS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "none": (lambda t: [t.pop(n) for n in list(t) if "classifier" in n], "holds no head"),
    "no weight": (lambda t: t.pop("base_model.classifier.weight"), "expected the weight"),
    "a third": (
        lambda t: t.update({"base_model.classifier.scale": torch.ones(3)}),
        "expected the weight",
    ),
    "elsewhere": (lambda t: t.update({"base_model.bert.x": torch.ones(3)}), "expected the one"),
    "not of PEFT": (lambda t: t.update({"classifier.weight": torch.ones(3)}), "expected the one"),
    "wider": (
        lambda t: t.update({"base_model.classifier.weight": torch.ones(3, 5)}),
        "states of .* are 32 wide",
    ),
    "flat": (lambda t: t.update({"base_model.classifier.weight": torch.ones(3)}), "expected the"),
    "other bias": (lambda t: t.update({"base_model.classifier.bias": torch.ones(4)}), "its head"),
    "nan": (lambda t: t["base_model.classifier.bias"].fill_(float("nan")), "finite"),
    "infinite": (lambda t: t["base_model.classifier.weight"].fill_(float("inf")), "finite"),
    "whole": (
        lambda t: t.update({"base_model.classifier.bias": torch.ones(3, dtype=torch.long)}),
        "is stored as torch.int64",
    ),
}


@pytest.mark.parametrize("what", OTHER_HEADS)
def test_damaged_heads(what, base, tmp_path) -> None:
    change, said = OTHER_HEADS[what]
    adapter = save(adapted(base("bert"), "TOKEN_CLS", "prefix"), tmp_path / "adapter")
    tensors = load_file(adapter / WEIGHTS)
    change(tensors)
    save_file(tensors, adapter / WEIGHTS)
    with pytest.raises(ArtifactError, match=said):
        foreword.import_peft(adapter, tmp_path / "it", labels=LABELS)
    assert not (tmp_path / "it").exists()


def test_other_task_types_and_modules(base, tmp_path) -> None:
    adapter = save(adapted(base("bert"), "TOKEN_CLS", "prefix"), tmp_path / "adapter")
    config = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    t5 = load_backbone(str(base("t5")))
    for changes, backbone, said in (
        ({"task_type": "FEATURE_EXTRACTION"}, None, "'FEATURE_EXTRACTION' is not known"),
        ({"modules_to_save": ["pooler"]}, None, r"further modules .* \(pooler\); of TOKEN_CLS"),
        ({"num_transformer_submodules": 2}, None, "is 2 for TOKEN_CLS"),
        ({}, t5, "no place on an encoder-decoder"),
    ):
        (adapter / CONFIG).write_text(json.dumps({**config, **changes}), encoding="utf-8")
        with pytest.raises(ArtifactError, match=said):
            foreword.import_peft(adapter, tmp_path / "it", labels=LABELS, backbone=backbone)
    text = save(adapted(base("t5"), "SEQ_2_SEQ_LM", "prompt"), tmp_path / "text")
    gpt2 = load_backbone(str(base("gpt2")))
    with pytest.raises(ArtifactError, match=r"was trained on an encoder-decoder .* is a decoder"):
        foreword.import_peft(text, tmp_path / "it", backbone=gpt2)
    assert not (tmp_path / "it").exists()


def test_every_base_is_used() -> None:
    used = {name for name, *_ in HELD} | {REFUSED[what][0] for what in REFUSED}
    assert used | set(ENCODER_DECODERS) == set(BASES)
