"""PEFT's configurations: the same fields in the same order, with the same defaults."""

import dataclasses
import json

import peft
import pytest
from peft.tuners.p_tuning import PromptEncoderReparameterizationType
from peft.tuners.prompt_tuning import PromptTuningInit

import foreword

CONFIGS = ["PromptTuningConfig", "PrefixTuningConfig", "PromptEncoderConfig"]


def fields(config: type) -> list[tuple[str, object]]:
    return [(field.name, field.default) for field in dataclasses.fields(config)]


@pytest.mark.parametrize("name", CONFIGS)
def test_fields_order_and_defaults(name) -> None:
    assert fields(getattr(foreword, name)) == fields(getattr(peft, name))


@pytest.mark.parametrize(
    "theirs",
    [peft.PeftType, peft.TaskType, PromptTuningInit, PromptEncoderReparameterizationType],
    ids=lambda enum: enum.__name__,
)
def test_enumerations(theirs) -> None:
    ours = getattr(foreword, theirs.__name__)
    assert {m.name: m.value for m in ours} == {m.name: m.value for m in theirs}
    assert all(ours(m.value) == m == m.value for m in theirs)


GIVEN = {
    "PromptTuningConfig": {
        "prompt_tuning_init": "TEXT",
        "prompt_tuning_init_text": "a text",
        "tokenizer_name_or_path": "t5-base",
        "tokenizer_kwargs": {"use_fast": True},
    },
    "PrefixTuningConfig": {
        "encoder_hidden_size": 24,
        "prefix_projection": True,
        "init_weights": "zero",
    },
    "PromptEncoderConfig": {
        "encoder_reparameterization_type": "LSTM",
        "encoder_hidden_size": 24,
        "encoder_num_layers": 3,
        "encoder_dropout": 0.1,
    },
}
COMMON = {
    "task_type": "CAUSAL_LM",
    "auto_mapping": {"base_model_class": "x"},
    "peft_version": "0.21.2",
    "base_model_name_or_path": "gpt2",
    "revision": "main",
    "inference_mode": True,
    "num_virtual_tokens": 20,
    "token_dim": 768,
    "num_transformer_submodules": 2,
    "num_attention_heads": 12,
    "num_layers": 12,
    "modules_to_save": ["score"],
}


@pytest.mark.parametrize("enums", [False, True], ids=["texts", "members"])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_field_is_taken_as_in_peft(name, enums) -> None:
    given = {**COMMON, **GIVEN[name]}
    theirs = getattr(peft, name)(**given)
    if enums:
        given["task_type"] = foreword.TaskType.CAUSAL_LM
        given["peft_type"] = foreword.PeftType(theirs.peft_type)
    ours = getattr(foreword, name)(**given)
    assert ours.to_dict() == theirs.to_dict()
    assert json.loads(json.dumps(ours.to_dict())) == json.loads(json.dumps(theirs.to_dict()))
    assert ours.is_prompt_learning is theirs.is_prompt_learning is True
    by_place = getattr(foreword, name)(*ours.to_dict().values())
    assert by_place == ours


@pytest.mark.parametrize("name", CONFIGS)
def test_unknown_fields_are_type_errors(name) -> None:
    for library in (peft, foreword):
        with pytest.raises(TypeError, match="num_virtual_token"):
            getattr(library, name)(num_virtual_token=20)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("PromptTuningConfig", {"task_type": "CAUSAL"}),
        ("PromptTuningConfig", {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "x"}),
        ("PromptTuningConfig", {"prompt_tuning_init": "TEXT", "tokenizer_name_or_path": "x"}),
        ("PromptTuningConfig", {"tokenizer_kwargs": {"use_fast": True}}),
    ],
)
def test_refused_by_both(name, given) -> None:
    for library in (peft, foreword):
        with pytest.raises(ValueError, match=r"(?i)task.type|tokenizer|init_text"):
            getattr(library, name)(**given)


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("PromptTuningConfig", {"num_virtual_tokens": 0}, "num_virtual_tokens.*at least 1.*0"),
        ("PromptTuningConfig", {"num_virtual_tokens": "20"}, "num_virtual_tokens.*found '20'"),
        ("PromptTuningConfig", {"num_virtual_tokens": True}, "num_virtual_tokens.*found True"),
        ("PromptTuningConfig", {"token_dim": 1.5}, "token_dim"),
        ("PromptTuningConfig", {"prompt_tuning_init": "RANDM"}, "did you mean 'RANDOM'"),
        ("PromptTuningConfig", {"prompt_tuning_init": None}, "prompt_tuning_init: None"),
        ("PromptTuningConfig", {"peft_type": "LORA"}, "PromptTuningConfig.peft_type: 'LORA'"),
        ("PrefixTuningConfig", {"init_weights": "ones"}, "init_weights"),
        ("PrefixTuningConfig", {"encoder_hidden_size": -1}, "encoder_hidden_size"),
        ("PromptEncoderConfig", {"encoder_reparameterization_type": "GRU"}, "known: LSTM, MLP"),
        ("PromptEncoderConfig", {"encoder_num_layers": None}, "encoder_num_layers"),
        ("PromptEncoderConfig", {"encoder_dropout": 2}, "encoder_dropout"),
        ("PromptEncoderConfig", {"encoder_dropout": "0.1"}, "encoder_dropout"),
    ],
)
def test_refused_here_though_peft_takes_it(name, given, said) -> None:
    """PEFT fails later, elsewhere, or starts at random in silence."""
    getattr(peft, name)(**given)
    with pytest.raises(ValueError, match=said):
        getattr(foreword, name)(**given)
