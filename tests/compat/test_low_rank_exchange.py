"""LoRA that PEFT trained: imported, it answers as it does in PEFT, and goes back the same."""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

import foreword
from axes.deltas.moving import louder, method
from compat.exchanging import peft_answers
from compat.with_heads import TASKS, WARNINGS, Bases, save, save_base
from conftest import LLAMA_LIKE, assert_close, make_backbone, tiny_model
from foreword.artifacts.artifact import save_artifact
from foreword.artifacts.manifest import read_manifest
from foreword.backbone import Backbone, Call, load_backbone
from foreword.backbone.layout import Layout
from foreword.compat.adapters.low_rank_fields import NOT_HERE
from foreword.errors import ArtifactError, BackboneError, UserError
from foreword.methods import LoRA
from foreword.recipe import TaskId
from foreword.tuned.compose import compose
from mutations.mutators import damaged_bytes, damaged_tree

pytestmark = [
    pytest.mark.filterwarnings(
        *WARNINGS, "ignore:fan_in_fan_out is set to:UserWarning", "ignore:Unsupported:UserWarning"
    ),
    pytest.mark.usefixtures("loaded_once"),
]
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
TEXTS = ("The grey otter swims", "A cold river", "Once upon a time there was", "x")
RANK, ALPHA = 3, 10
WRITERS = {"CAUSAL_LM": AutoModelForCausalLM, "SEQ_2_SEQ_LM": AutoModelForSeq2SeqLM}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    return Bases(tmp_path_factory.mktemp("bases"))


def kind_of(name: str) -> str:
    return "SEQ_2_SEQ_LM" if name in ("t5", "bart") else "CAUSAL_LM"


def updated(
    base: Path, task: str, *, dtype: torch.dtype = torch.float32, labels: int = 3, **options: Any
) -> Any:
    """PEFT's model, its updates and head random and loud."""
    heads = {} if task in WRITERS else {"num_labels": labels}
    model = {**TASKS, **WRITERS}[task].from_pretrained(base, dtype=dtype, **heads)
    given = {"r": RANK, "lora_alpha": ALPHA, "lora_dropout": 0.25, **options}
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type=task, **given)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.copy_(0.2 * noise)
    return adapted


def set_config(folder: Path, **changes: Any) -> None:
    file = folder / CONFIG
    found = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**found, **changes}), encoding="utf-8")


def logits(model: Any, kind: str) -> torch.Tensor:
    """PEFT's, for a row."""
    given = {"input_ids": torch.tensor([[5, 81, 300, 27, 9]])}
    if kind == "SEQ_2_SEQ_LM":
        given["decoder_input_ids"] = torch.tensor([[0, 40, 7, 1200]])
    with torch.no_grad():
        found: torch.Tensor = model(**given).logits[0]
    return found


def our_logits(folder: Path, kind: str, backbone: Backbone | None = None) -> torch.Tensor:
    """An artifact's, for the same row."""
    return logits_of(foreword.load(folder, device="cpu", backbone=backbone), kind)


def logits_of(prompt: foreword.LoadedPrompt, kind: str) -> torch.Tensor:
    """A loaded artifact's, for the same row."""
    layout = Layout.of([[5, 81, 300, 27, 9]])
    if kind == "SEQ_2_SEQ_LM":
        layout = Layout.of([[0, 40, 7, 1200]], source=layout)
    with torch.no_grad():
        return prompt.model.backbone.logits(Call(layout))[0]


WRITTEN: list[tuple[str, Any, tuple[str, ...] | None]] = [
    ("gpt2", None, ("c_attn",)),
    ("gpt2", ["attn.c_proj", "c_fc"], ("attn.c_proj", "c_fc")),
    ("gpt2", "all-linear", ("c_attn", "c_fc", "c_proj")),
    ("llama", None, ("q_proj", "v_proj")),
    ("llama", r".*layers\.0\..*(q|v)_proj", None),
    ("llama", "all-linear", None),
    ("opt", ["fc1"], ("fc1",)),
    ("bloom", None, ("query_key_value",)),
    ("t5", None, ("q", "v")),
    ("t5", ["encoder.block.0.layer.0.SelfAttention.q"], None),
    ("bart", ["q_proj", "fc2"], ("fc2", "q_proj")),
]


@pytest.mark.parametrize(("name", "targets", "stated"), WRITTEN)
def test_it_writes_what_it_writes_in_peft(name, targets, stated, base, tmp_path) -> None:
    where, kind = base(name), kind_of(name)
    theirs = updated(where, kind, dtype=torch.float64, target_modules=targets)
    adapter = save(theirs, tmp_path / "adapter")
    manifest = foreword.import_peft(adapter, tmp_path / "it", dtype="float64")
    prompt = foreword.load(tmp_path / "it", device="cpu")
    assert_close(logits_of(prompt, kind), logits(theirs, kind))
    options = manifest.method
    assert isinstance(options, LoRA)
    assert (options.rank, options.alpha, options.dropout) == (RANK, ALPHA, 0.25)
    layers = {n.removesuffix(".lora_A.weight") for n in load_file(adapter / WEIGHTS)}
    layers = {n.removeprefix("base_model.model.") for n in layers if "lora_B" not in n}
    assert set(manifest.axes["targets"]) == layers
    assert stated is None or options.targets == stated
    assert manifest.data["peft"]["config"]["lora_alpha"] == ALPHA
    assert "notes" not in manifest.data["peft"]

    # BLOOM in float64 gives rows with padding no numbers, in transformers, too.
    rows = 1 if name == "bloom" else len(TEXTS)
    answers = prompt.generate(TEXTS, max_new_tokens=8, batch_size=rows)
    if kind == "CAUSAL_LM":
        assert answers == peft_answers(theirs, str(where), TEXTS, 8)
    else:
        assert answers == written(theirs, where)

    with torch.no_grad():
        plain = prompt.model.bare().backbone.model
        assert not torch.allclose(logits(plain, kind), logits(theirs, kind), atol=1e-2)


def written(model: Any, where: Path) -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(where)
    answers = []
    for text in TEXTS:
        given = tokenizer(text, return_tensors="pt")
        output = model.generate(**given, max_new_tokens=8, do_sample=False, pad_token_id=0)
        answers.append(tokenizer.decode(output[0][1:], skip_special_tokens=True).strip())
    return answers


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5", "bart"])
def test_from_peft_and_back(name, base, tmp_path) -> None:
    """The same tensors, bit for bit, and then the same artifact."""
    where, kind = base(name), kind_of(name)
    theirs = updated(where, kind)
    adapter = save(theirs, tmp_path / "adapter")
    first = foreword.import_peft(adapter, tmp_path / "it")
    config = foreword.export_peft(tmp_path / "it", tmp_path / "back")
    given, back = (load_file(folder / WEIGHTS) for folder in (adapter, tmp_path / "back"))
    assert set(given) == set(back)
    for tensor in given:
        assert given[tensor].dtype == back[tensor].dtype
        assert torch.equal(given[tensor], back[tensor]), tensor
    loaded = peft.PeftConfig.from_pretrained(str(tmp_path / "back"))
    assert (loaded.r, loaded.lora_alpha, loaded.task_type) == (RANK, ALPHA, kind)
    assert (loaded.fan_in_fan_out, loaded.lora_dropout) == (name == "gpt2", 0.25)
    plain = WRITERS[kind].from_pretrained(where)
    again = peft.PeftModel.from_pretrained(plain, str(tmp_path / "back")).eval()
    assert torch.equal(logits(again, kind), logits(theirs, kind))
    assert config.r == RANK
    second = foreword.import_peft(tmp_path / "back", tmp_path / "again")
    assert same_artifact(first, second)


def same_artifact(one: Any, other: Any) -> bool:
    """But for where it came from."""
    return all(
        getattr(one, part) == getattr(other, part)
        for part in ("method", "axes", "backbone", "tokens", "delta_sha256", "prompt_sha256")
    )


@pytest.mark.parametrize("targets", [None, ["all"], ["mlp.c_proj"]])
def test_from_foreword_and_back(targets, base, tmp_path) -> None:
    backbone = load_backbone(str(base("gpt2")), device="cpu")
    options = method("lora", rank=2, alpha=5.0, targets=targets)
    model = compose(backbone, options)
    louder(model.delta)
    task = TaskId(input="{text}", target="{reference}", metrics=("bleu", "chrf", "ter"))
    ours = save_artifact(tmp_path / "ours", model, name="it", method=options, task=task)  # type: ignore[arg-type]
    foreword.export_peft(tmp_path / "ours", tmp_path / "adapter")
    back = foreword.import_peft(tmp_path / "adapter", tmp_path / "it", backbone=backbone)
    # The layers are named, where the options left them to PEFT.
    assert same_artifact(back, ours.model_copy(update={"method": back.method}))
    unnamed = {"targets": None}
    assert back.method.model_copy(update=unnamed) == options.model_copy(update=unnamed)
    assert back.task == ours.task
    assert torch.equal(
        our_logits(tmp_path / "it", "CAUSAL_LM", backbone),
        our_logits(tmp_path / "ours", "CAUSAL_LM", backbone),
    )


WORDS = ["The", "grey", "otter", "swims", "in", "a", "cold", "river", "near", "us"]
LABELS = ("B-X", "I-X", "O")
READ = [
    ("bert", "SEQ_CLS", "all-linear"),
    ("bert", "TOKEN_CLS", None),
    ("bert", "QUESTION_ANS", None),
    ("roberta", "SEQ_CLS", "all-linear"),
    ("albert", "SEQ_CLS", ["query", "pooler"]),
    ("electra", "TOKEN_CLS", ["query", "dense"]),
    ("distilbert", "TOKEN_CLS", ["q_lin"]),
    ("distilbert", "QUESTION_ANS", ["lin1"]),
    ("gpt2", "SEQ_CLS", None),
    ("llama", "SEQ_CLS", "all-linear"),
    ("llama", "TOKEN_CLS", None),
    ("bloom", "SEQ_CLS", None),
]


@pytest.mark.parametrize(("name", "task", "targets"), READ)
def test_a_head_tells_what_it_tells_in_peft(name, task, targets, base, tmp_path) -> None:
    span = task == "QUESTION_ANS"
    theirs = updated(base(name), task, labels=2 if span else 3, target_modules=targets)
    adapter = save(theirs, tmp_path / "adapter")
    manifest = foreword.import_peft(adapter, tmp_path / "it", labels=None if span else LABELS)
    prompt = foreword.load(tmp_path / "it", device="cpu")
    asked: Any = " ".join(WORDS)
    if span:
        asked = {"question": " ".join(WORDS[:3]), "context": " ".join(WORDS[3:])}
    (window,) = prompt.task.rows(prompt.example(asked), labelled=False)
    found = prompt.model.read(prompt.model.lay_out([window.pair]))[0]
    ids = torch.tensor([window.pair.source])
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if name == "bert" and span:
        given["token_type_ids"] = torch.tensor([[0] * 4 + [1] * (ids.shape[1] - 4)])
    with torch.no_grad():
        output = theirs(**given)
    marks = torch.tensor(window.pair.marks, dtype=torch.long)
    if task == "SEQ_CLS":
        expected = output.logits[0].softmax(-1)
    elif span:
        ends = torch.stack([output.start_logits[0][marks], output.end_logits[0][marks]])
        expected = ends.log_softmax(-1)
    else:
        expected = output.logits[0][marks].softmax(-1)
    assert_close(found, expected)
    pooler = any("pooler" in tensor for tensor in load_file(adapter / WEIGHTS))
    assert pooler == (targets is not None and name in ("bert", "albert"))
    said = "\n".join(manifest.data["peft"].get("notes", []))
    assert ("the update of the pooler is put into the head's first layer" in said) == pooler
    assert ("PEFT drops token_type_ids" in said) == (name == "bert" and span)
    assert bool(said) == (pooler or (name == "bert" and span))
    if span:
        with pytest.raises(UserError, match="its readout is"):
            foreword.export_peft(tmp_path / "it", tmp_path / "back")
    else:
        foreword.export_peft(tmp_path / "it", tmp_path / "back")
        assert (tmp_path / "back" / WEIGHTS).exists()


@pytest.mark.parametrize(
    ("name", "task"), [("bert", "TOKEN_CLS"), ("bert", "QUESTION_ANS"), ("roberta", "SEQ_CLS")]
)
def test_a_pooler_that_no_head_reads(name, task, base, tmp_path) -> None:
    """PEFT passes its update over; it is left out, and a note says so."""
    labels = None if task == "QUESTION_ANS" else LABELS
    plain = save(updated(base(name), task, labels=len(labels or "se")), tmp_path / "adapter")
    without = foreword.import_peft(plain, tmp_path / "without", labels=labels)
    tensors = load_file(plain / WEIGHTS)
    pooler = f"base_model.model.{name}.pooler.dense"
    pair = {f"{pooler}.lora_A.weight": (RANK, 32), f"{pooler}.lora_B.weight": (32, RANK)}
    save_file(tensors | {n: torch.ones(shape) for n, shape in pair.items()}, plain / WEIGHTS)
    model = TASKS[task].from_pretrained(base(name), num_labels=len(labels or "se"))
    theirs = peft.PeftModel.from_pretrained(model, str(plain))
    assert not any("pooler" in key for key in theirs.state_dict())
    manifest = foreword.import_peft(plain, tmp_path / "it", labels=labels)
    assert same_artifact(manifest, without)
    assert manifest.head_sha256 == without.head_sha256
    notes = manifest.data["peft"]["notes"]
    assert f"the update of the pooler is left out: no {task} head of this model" in notes[0]
    assert not any("head's first layer" in note for note in notes)


def test_the_roots_of_rank(base, tmp_path) -> None:
    theirs = updated(base("llama"), "CAUSAL_LM", dtype=torch.float64, use_rslora=True)
    adapter = save(theirs, tmp_path / "adapter")
    manifest = foreword.import_peft(adapter, tmp_path / "it", dtype="float64")
    assert manifest.method.alpha == pytest.approx(ALPHA * math.sqrt(RANK))
    assert "use_rslora: its updates count" in manifest.data["peft"]["notes"][0]
    assert_close(our_logits(tmp_path / "it", "CAUSAL_LM"), logits(theirs, "CAUSAL_LM"))


@pytest.mark.parametrize(
    "patterns",
    [
        {"rank_pattern": {"q_proj": 5, "v_proj": 5}, "alpha_pattern": {"[qv]_proj": ALPHA}},
        {"alpha_pattern": {"q_proj": 7, "self_attn.v_proj": 7}},
        {"rank_pattern": {"(q|v)_proj": 2}, "alpha_pattern": {"v_proj": 7, "self_attn.q_proj": 7}},
        {"alpha_pattern": {"^model.layers.0.self_attn.q_proj": ALPHA, ".*v_proj": ALPHA}},
        {"layers_to_transform": [1]},
        {"layers_to_transform": 0, "layers_pattern": "layers"},
        {"exclude_modules": r".*1.*v_proj"},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": False},
    ],
)
def test_patterns_that_say_the_same_of_all(patterns, base, tmp_path) -> None:
    targets = ["q_proj", "v_proj"]
    theirs = updated(
        base("llama"), "CAUSAL_LM", dtype=torch.float64, target_modules=targets, **patterns
    )
    adapter = save(theirs, tmp_path / "adapter")
    foreword.import_peft(adapter, tmp_path / "it", dtype="float64")
    assert_close(our_logits(tmp_path / "it", "CAUSAL_LM"), logits(theirs, "CAUSAL_LM"))


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_peft_and_foreword_look_how_a_layer_keeps_its_weight(name, base, tmp_path) -> None:
    """Where fan_in_fan_out says otherwise, PEFT warns and goes by the layer."""
    adapter = save(updated(base(name), "CAUSAL_LM"), tmp_path / "adapter")
    set_config(adapter, fan_in_fan_out=name != "gpt2")
    plain = AutoModelForCausalLM.from_pretrained(base(name))
    theirs = peft.PeftModel.from_pretrained(plain, str(adapter)).eval()
    foreword.import_peft(adapter, tmp_path / "it")
    assert_close(our_logits(tmp_path / "it", "CAUSAL_LM"), logits(theirs, "CAUSAL_LM"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_float_types_are_taken(dtype, base, tmp_path) -> None:
    adapter = save(updated(base("llama"), "CAUSAL_LM"), tmp_path / "adapter")
    tensors = {name: t.to(dtype) for name, t in load_file(adapter / WEIGHTS).items()}
    save_file(tensors, adapter / WEIGHTS)
    plain = AutoModelForCausalLM.from_pretrained(base("llama"))
    theirs = peft.PeftModel.from_pretrained(plain, str(adapter)).eval()
    foreword.import_peft(adapter, tmp_path / "it")
    assert_close(our_logits(tmp_path / "it", "CAUSAL_LM"), logits(theirs, "CAUSAL_LM"))
    for name, tensor in load_file(tmp_path / "it" / "delta.safetensors").items():
        assert torch.equal(tensor, tensors[f"base_model.model.{name}"].float())


@pytest.mark.parametrize("family", ["mistral", "qwen3"])
def test_on_a_backbone_in_memory(family, tmp_path) -> None:
    """Mistral's attention slides: PEFT's prompt would slide out of it, an update stays."""
    options = {**LLAMA_LIKE, "sliding_window": 4} if family == "mistral" else {}
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, init_lora_weights=False)
    theirs = peft.get_peft_model(tiny_model(family, torch.float64, **options), config).eval()
    backbone = make_backbone(family, torch.float64, **options)
    assert backbone.geometry.slides == (family == "mistral")
    adapter = save(theirs, tmp_path / "adapter")
    foreword.import_peft(adapter, tmp_path / "it", backbone=backbone)
    found = our_logits(tmp_path / "it", "CAUSAL_LM", backbone)
    assert_close(found, logits(theirs, "CAUSAL_LM"))


def refused(folder: Path, out: Path, said: str, **options: Any) -> None:
    with pytest.raises(ArtifactError, match=said) as raised:
        foreword.import_peft(folder, out, **options)
    assert 20 < len(str(raised.value)) < 3000
    assert not out.exists()
    assert not list(out.parent.glob(".*"))


@pytest.fixture(scope="module")
def sound(base, tmp_path_factory) -> Path:
    return save(updated(base("llama"), "CAUSAL_LM"), tmp_path_factory.mktemp("sound") / "adapter")


@pytest.fixture(scope="module")
def llama(base) -> Backbone:
    return load_backbone(str(base("llama")), device="cpu")


@pytest.fixture
def copy(sound, tmp_path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "adapter"))


FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    **{name: ({name: True}, rf"{name}: true {NOT_HERE[name][:8]}") for name in NOT_HERE},
    "dora": ({"use_dora": True}, r"use_dora: true scales .*\(DoRA\)[^$]*merge_and_unload"),
    "biases": ({"bias": "all"}, "bias: 'all' lets biases"),
    "several": ({"bias": "lora_only", "use_dora": True}, r"use_dora: [^$]*bias: 'lora_only'"),
    "pissa": ({"init_lora_weights": "pissa_niter_4"}, "'pissa_niter_4' changes the base model's"),
    "olora": ({"init_lora_weights": "olora"}, "path_initial_model_for_weight_conversion"),
    "modules": ({"modules_to_save": ["lm_head"]}, r"\(lm_head\); of CAUSAL_LM .* takes the upd"),
    "rank": ({"r": 5}, r"A of shape \[3, 32\] and B of shape .* says r 5"),
    "no rank": ({"r": 0}, "r: must be at least 1"),
    "alpha": ({"lora_alpha": -1}, "lora_alpha: must be at least 1e-09"),
    "alphas": ({"alpha_pattern": {"q_proj": 7}}, "with alpha 7, 10, and LoRA here has one"),
    "expression": ({"alpha_pattern": {"(a+)+b": 7}}, r"'\(a\+\)\+b' is a regular expression"),
    "unknown": ({"use_xlora": True}, "use_xlora: no such name"),
    "features": ({"task_type": "FEATURE_EXTRACTION"}, "'FEATURE_EXTRACTION' is not known"),
    "no task": (
        {"task_type": None},
        "task_type: is missing; set it to one of CAUSAL_LM, SEQ_2_SEQ_LM, SEQ_CLS, TOKEN_CLS, QUES",
    ),
    "a class beside the task": (
        {"auto_mapping": {"base_model_class": "A", "parent_library": "transformers.models.llama"}},
        "auto_mapping: it names 'A' beside a task_type, .* set auto_mapping to null",
    ),
    "code beside it": (
        {"auto_mapping": {"base_model_class": "Evil", "parent_library": "evil"}},
        "auto_mapping: it names code of its own",
    ),
    "loftq": ({"loftq_config": {"loftq_bits": 4}}, "loftq_config: a mapping starts from quantised"),
    "no ranks": ({"rank_pattern": {"q_proj": 0}}, "rank_pattern.q_proj: must be at least 1, fo"),
    "half ranks": ({"rank_pattern": {"q_proj": 1.5}}, "rank_pattern.q_proj: expected a whole numb"),
    "another kind": ({"task_type": "SEQ_2_SEQ_LM"}, "was trained on an encoder-decoder"),
    "a head": ({"task_type": "SEQ_CLS"}, "holds no head"),
    "another method": ({"peft_type": "LOHA"}, "LOHA is no method that foreword imports"),
    "prompt": ({"peft_type": "PREFIX_TUNING"}, "r: no such name"),
}


@pytest.mark.parametrize("what", FIELDS)
def test_what_is_not_computed_here(what, copy, llama, tmp_path) -> None:
    changes, said = FIELDS[what]
    set_config(copy, **changes)
    refused(copy, tmp_path / "it", said, backbone=llama)


NAMES = "expected a text or a list of texts, found"
NUMBERS = "expected a whole number or a list of whole numbers, found"
START = "expected true, false, gaussian, eva or orthogonal, found"
UNIONS: list[tuple[str, Any, str]] = [
    *((name, {}, f"{NAMES} a mapping") for name in ("target_modules", "exclude_modules")),
    ("target_modules", 3, f"{NAMES} 3"),
    ("target_modules", ["q_proj", 3, None], f"{NAMES} a list with 3"),
    ("target_modules", "\ud800", f"{NAMES} '\\ud800'"),
    ("layers_pattern", True, f"{NAMES} true"),
    ("layers_to_transform", "all", f"{NUMBERS} 'all'"),
    ("layers_to_transform", [1, "x"], f"{NUMBERS} a list with 'x'"),
    ("layers_to_transform", True, f"{NUMBERS} true"),
    ("init_lora_weights", 3, f"{START} 3"),
    ("init_lora_weights", [], f"{START} a list"),
    *(
        (name, "yes", "expected true or false, found 'yes'")
        for name in ("use_rslora", "fan_in_fan_out", "ensure_weight_tying", "inference_mode")
    ),
]


@pytest.mark.parametrize(("name", "value", "said"), UNIONS)
def test_a_value_of_the_wrong_sort_is_one_line(name, value, said, copy, llama, tmp_path) -> None:
    """However many sorts the field takes."""
    set_config(copy, **{name: value})
    with pytest.raises(ArtifactError) as raised:
        foreword.import_peft(copy, tmp_path / "it", backbone=llama)
    assert str(raised.value) == f"{copy / CONFIG}: cannot be imported:\n  - {name}: {said}"
    assert not (tmp_path / "it").exists()


def test_trained_without_a_task_type(base, tmp_path) -> None:
    """PEFT names the model's class instead; said, it is imported."""
    options = {"r": RANK, "init_lora_weights": False}
    model = AutoModelForCausalLM.from_pretrained(base("llama"))
    theirs = peft.get_peft_model(model, peft.LoraConfig(**options)).eval()
    adapter = save(theirs, tmp_path / "adapter")
    stated = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    assert stated["auto_mapping"]["parent_library"].startswith("transformers.models.llama")
    said = (
        r"task_type: is missing: .*\('LlamaForCausalLM'\) in auto_mapping. Set task_type .* one of "
        "CAUSAL_LM, SEQ_2_SEQ_LM, .* and auto_mapping to null"
    )
    refused(adapter, tmp_path / "it", said)
    set_config(adapter, task_type="CAUSAL_LM", auto_mapping=None)
    foreword.import_peft(adapter, tmp_path / "it")
    assert_close(our_logits(tmp_path / "it", "CAUSAL_LM"), logits(theirs, "CAUSAL_LM"))


Q = "base_model.model.model.layers.0.self_attn.q_proj"


def moved(tensors: dict[str, torch.Tensor], name: str, to: str) -> None:
    for part in ("lora_A", "lora_B"):
        tensors[f"{to}.{part}.weight"] = tensors.pop(f"{name}.{part}.weight")


TENSORS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], Any], str]] = {
    "none": (lambda t: t.clear(), "found \\[\\]"),
    "no A": (lambda t: t.pop(f"{Q}.lora_A.weight"), "q_proj has no lora_A.weight, only lora_B"),
    "no B": (lambda t: t.pop(f"{Q}.lora_B.weight"), "q_proj has no lora_B.weight, only lora_A"),
    "bias": (lambda t: t.update({f"{Q}.lora_B.bias": torch.ones(32)}), "expected .*lora_B.bias"),
    "dora": (lambda t: t.update({f"{Q}.lora_magnitude_vector": torch.ones(32)}), "expected .* al"),
    "embedding": (
        lambda t: t.update({"base_model.model.model.embed_tokens.lora_embedding_A": torch.ones(2)}),
        "updates of embeddings are not computed here",
    ),
    "head": (lambda t: t.update({"base_model.model.lm_head.weight": torch.ones(2)}), "expected .*"),
    "a prompt": (lambda t: t.update(prompt_embeddings=torch.ones(2, 2)), "expected .*prompt_emb"),
    "no prefix": (lambda t: moved(t, Q, Q.removeprefix("base_model.model.")), "expected .* alone"),
    "named": (
        lambda t: t.update({f"{Q}.lora_A.default.weight": t.pop(f"{Q}.lora_A.weight")}),
        "expected .* alone",
    ),
    "other name": (lambda t: moved(t, Q, f"{Q}s"), "q_projs is no linear layer of .*`backbone`"),
    "output": (lambda t: moved(t, Q, "base_model.model.lm_head"), "lm_head is the output layer"),
    "no layer": (lambda t: moved(t, Q, "base_model.model.model.norm"), "norm is no linear layer"),
    "narrow": (
        lambda t: t.update({f"{Q}.lora_A.weight": torch.ones(RANK, 31)}),
        "update of 32 outputs and 31 inputs, .* has 32 and 32",
    ),
    "turned": (lambda t: t.update({f"{Q}.lora_A.weight": torch.ones(32, RANK)}), "A of shape"),
    "flat": (lambda t: t.update({f"{Q}.lora_B.weight": torch.ones(32)}), r"B of shape \[32\]"),
    "another rank": (
        lambda t: t.update(
            {f"{Q}.lora_A.weight": torch.ones(4, 32), f"{Q}.lora_B.weight": torch.ones(32, 4)}
        ),
        r"A of shape \[4, 32\] .* says r 3: expected",
    ),
    "whole": (lambda t: t.update({f"{Q}.lora_A.weight": torch.ones(3, 32).long()}), "torch.int64"),
    "nan": (lambda t: t[f"{Q}.lora_A.weight"].fill_(math.nan), "must hold finite numbers"),
}


@pytest.mark.parametrize("what", TENSORS)
def test_damaged_tensors(what, copy, llama, tmp_path) -> None:
    change, said = TENSORS[what]
    tensors = load_file(copy / WEIGHTS)
    change(tensors)
    save_file(tensors, copy / WEIGHTS)
    refused(copy, tmp_path / "it", said, backbone=llama)


@pytest.mark.filterwarnings("ignore")
def test_ranks_and_layers_that_peft_can_have(base, tmp_path) -> None:
    """What is no damage, but more than LoRA here has."""
    where = base("llama")
    for number, (options, said) in enumerate(
        (
            ({"rank_pattern": {"q_proj": 5}}, "rank_pattern: the updates have the ranks 3, 5, and"),
            ({"alpha_pattern": {"q_proj": 5}}, "alpha_pattern: the updates count with alpha 5, 10"),
            ({"use_dora": True}, "use_dora"),
            ({"lora_bias": True}, "lora_bias"),
            ({"target_modules": ["q_proj", "embed_tokens"]}, "updates of embeddings are not"),
            (
                {"target_modules": ["q_proj", "lm_head"]},
                r"trained or resized the output layer \(lm_head\), .*merge_and_unload",
            ),
            ({"modules_to_save": ["embed_tokens"]}, r"further modules .*\(embed_tokens\)"),
        )
    ):
        model = updated(where, "CAUSAL_LM", **options)
        adapter = save(model, tmp_path / f"adapter-{number}")
        refused(adapter, tmp_path / "it", said)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layer", ["lm_head", "wte"])
def test_the_way_out_for_a_layer_of_the_vocabulary(layer, base, tmp_path) -> None:
    """Untied and merged it is a backbone that answers the same; merged alone it is another."""
    where, options = base("gpt2"), {"target_modules": ["c_attn", layer], "fan_in_fan_out": True}
    theirs = updated(where, "CAUSAL_LM", **options)
    expected = logits(theirs, "CAUSAL_LM")
    adapter = save(theirs, tmp_path / "adapter")
    refused(adapter, tmp_path / "it", "merge_and_unload and .* untie them before .* moves both")
    found = []
    for untied in (False, True):
        model = AutoModelForCausalLM.from_pretrained(where)
        assert model.config.tie_word_embeddings
        if untied:
            model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
            model.config.tie_word_embeddings = False
        merged = peft.PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
        AutoTokenizer.from_pretrained(where).save_pretrained(tmp_path / f"merged-{untied}")
        merged.save_pretrained(tmp_path / f"merged-{untied}")
        backbone = load_backbone(str(tmp_path / f"merged-{untied}"), device="cpu")
        with torch.no_grad():
            found.append(backbone.logits(Call(Layout.of([[5, 81, 300, 27, 9]])))[0])
    torch.testing.assert_close(found[1], expected, rtol=0, atol=1e-3)
    assert (found[0] - expected).abs().max() > 0.1


def test_another_backbone(copy, base, tmp_path) -> None:
    for name, said in (("opt", "is no linear layer"), ("bert", "is an encoder;")):
        other = load_backbone(str(base(name)), device="cpu")
        refused(copy, tmp_path / "it", said, backbone=other)
    wider = save_base(
        "llama", tmp_path / "wider", hidden_size=64, num_key_value_heads=2, intermediate_size=32
    )
    refused(
        copy, tmp_path / "it", "32 inputs, but in .* the layer has 64 and 64", backbone=str(wider)
    )
    with pytest.raises(BackboneError, match="cannot be loaded"):
        foreword.import_peft(copy, tmp_path / "it", backbone=str(tmp_path / "none"))
    assert not (tmp_path / "it").exists()


def test_without_peft_the_extra_is_named(copy, llama, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("foreword.axes.deltas.lora.find_spec", lambda name: None)
    refused(copy, tmp_path / "it", r"pip install 'foreword\[lora\]'", backbone=llama)


def verdict(folder: Path, out: Path, backbone: Backbone) -> None:
    """Fails unless an import refuses clearly and leaves nothing, or gives an artifact that runs."""
    said = ""
    try:
        manifest = foreword.import_peft(folder, out, backbone=backbone)
    except UserError as error:
        said = str(error)
    if said:
        assert 20 < len(said) < 3000
        odd = ("pydantic", "nput should", "Traceback", "tuple[", "literal[")
        assert not any(word in said for word in odd)
        assert not out.exists()
    else:
        assert read_manifest(out) == manifest
        assert our_logits(out, "CAUSAL_LM", backbone).isfinite().all()


@pytest.mark.parametrize("seed", range(60))
def test_damaged_configurations(seed, copy, llama, tmp_path) -> None:
    config = json.loads((copy / CONFIG).read_text(encoding="utf-8"))
    damaged = damaged_tree(seed, config)
    (copy / CONFIG).write_text(json.dumps(damaged), encoding="utf-8")
    verdict(copy, tmp_path / "it", llama)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_headers(seed, copy, llama, tmp_path) -> None:
    """Names, shapes and types of the tensors, as the file states them."""
    raw = (copy / WEIGHTS).read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header, data = raw[8 : 8 + size], raw[8 + size :]
    if seed % 2:
        header = damaged_bytes(seed, header)
    else:
        header = json.dumps(damaged_tree(seed, json.loads(header))).encode()
    (copy / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header + data)
    verdict(copy, tmp_path / "it", llama)


@pytest.mark.filterwarnings("ignore:.*changes the base weights of the model:UserWarning")
@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_a_start_that_peft_converted(start, base, tmp_path) -> None:
    """PEFT takes its change of the base model's weights into the updates, of twice the rank."""
    where = base("llama")
    model = AutoModelForCausalLM.from_pretrained(where)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=RANK, init_lora_weights=start)
    theirs = peft.get_peft_model(model, config)
    theirs.peft_config["default"].init_lora_weights = True
    save(theirs, tmp_path / "start")
    theirs.peft_config["default"].init_lora_weights = start
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape))
    expected = logits(theirs.eval(), "CAUSAL_LM")
    save(theirs, tmp_path / "adapter")
    refused(tmp_path / "adapter", tmp_path / "it", f"'{start}' changes the base model's own")
    theirs.save_pretrained(
        tmp_path / "converted", path_initial_model_for_weight_conversion=str(tmp_path / "start")
    )
    manifest = foreword.import_peft(tmp_path / "converted", tmp_path / "it")
    assert manifest.method.rank == 2 * RANK
    found = our_logits(tmp_path / "it", "CAUSAL_LM")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
