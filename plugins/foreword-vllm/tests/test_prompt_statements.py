"""A prompt's statement and tensors: what is read, and that damage is one kind of error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exported import SHAPE, WEIGHTS, tensors, write
from foreword_vllm import PromptError, read_prompt
from foreword_vllm.templates import InputError
from foreword_vllm.tensors import file_of, read_keys_values, unpacked

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


def stated(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "prompt.json").read_text())
    return content


def test_what_was_written_is_read(tmp_path) -> None:
    sha256 = write(tmp_path, "birds", 5)
    prompt = read_prompt(tmp_path / "birds")
    assert (prompt.name, prompt.length, prompt.sha256) == ("birds", 5, sha256)
    assert (prompt.leading, prompt.backbone_sha256) == ((1,), WEIGHTS)
    assert prompt.input.text({"record": "a b"}) == "a b ->"
    assert prompt.decoding["max_tokens"] == 9
    held = read_keys_values(tmp_path / "birds", sha256, SHAPE)
    assert (held.length, held.backbone_sha256) == (5, WEIGHTS)
    keys, values = unpacked(held.content)
    assert torch.equal(keys, tensors(5)["decoder.keys"])
    assert torch.equal(values, tensors(5)["decoder.values"])


def test_a_prompt_is_called_as_its_folder(tmp_path) -> None:
    write(tmp_path, "birds")
    (tmp_path / "birds").rename(tmp_path / "fish")
    assert read_prompt(tmp_path / "fish").name == "fish"


PLACES = [
    ("format",),
    ("length",),
    ("sha256",),
    ("backbone",),
    ("backbone", "sha256"),
    ("input",),
    ("tokens",),
    ("tokens", "leading"),
    ("tokens", "drops_blank"),
    ("sample",),
    ("sample", "fields"),
    ("sample", "tokens"),
    ("decoding",),
    ("decoding", "stop"),
    ("decoding", "top_k"),
]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.sampled_from(PLACES), value=JSON, gone=st.booleans())
def test_damage_is_one_kind_of_error(tmp_path, place, value, gone) -> None:
    write(tmp_path, "birds")
    whole = stated(tmp_path / "birds")
    node = whole
    for name in place[:-1]:
        node = node[name]
    if gone:
        del node[place[-1]]
    else:
        node[place[-1]] = value
    (tmp_path / "birds" / "prompt.json").write_text(json.dumps(whole))
    try:
        prompt = read_prompt(tmp_path / "birds")
    except PromptError:
        return
    assert not gone
    fields = dict.fromkeys(prompt.input.fields, "x")
    assert prompt.input.messages(fields) if prompt.input.is_chat else True


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_what_is_no_statement(content, tmp_path) -> None:
    write(tmp_path, "birds")
    (tmp_path / "birds" / "prompt.json").write_bytes(content)
    with pytest.raises(PromptError, match=r"prompt\.json"):
        read_prompt(tmp_path / "birds")


def test_a_later_format_is_refused(tmp_path) -> None:
    write(tmp_path, "birds", format="2.0")
    with pytest.raises(PromptError, match=r"format '2\.0' is not known"):
        read_prompt(tmp_path / "birds")


DAMAGED: dict[str, tuple[dict[str, torch.Tensor], str]] = {
    "not finite": (
        tensors(5, **{"decoder.keys": torch.full((2, 5, 4, 8), float("nan"))}),
        "not finite",
    ),
    "too large for the model's type": (
        tensors(5, **{"decoder.values": torch.full((2, 5, 4, 8), 1e300, dtype=torch.float64)}),
        "not finite in torch.float32",
    ),
    "whole numbers": (
        tensors(5, **{"decoder.keys": torch.ones(2, 5, 4, 8, dtype=torch.int64)}),
        "no",
    ),
    "another model": (tensors(5, **{"decoder.keys": torch.ones(3, 5, 4, 8)}), "another"),
    "one side longer": (tensors(5, **{"decoder.keys": torch.ones(2, 6, 4, 8)}), "shape"),
    "flat": (tensors(5, **{"decoder.keys": torch.ones(2, 5)}), "shape"),
    "a side missing": ({"decoder.keys": torch.ones(2, 5, 4, 8)}, "damaged"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_tensors_that_are_none(case, tmp_path) -> None:
    held, why = DAMAGED[case]
    sha256 = write(tmp_path, "birds", held=held)
    with pytest.raises(PromptError, match=why):
        read_keys_values(tmp_path / "birds", sha256, SHAPE)


def test_changed_bytes_are_noticed(tmp_path) -> None:
    sha256 = write(tmp_path, "birds")
    file = file_of(tmp_path / "birds", sha256)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(PromptError, match="is damaged: its sha256"):
        read_keys_values(tmp_path / "birds", sha256, SHAPE)


def test_links_out_of_the_folder_are_not_followed(tmp_path) -> None:
    root = tmp_path / "prompts"
    sha256 = write(root, "birds")
    file = file_of(root / "birds", sha256)
    elsewhere = file.rename(tmp_path / "elsewhere")
    file.symlink_to(elsewhere)
    with pytest.raises(PromptError, match="is a link out of"):
        read_keys_values(root / "birds", sha256, SHAPE)
    inside = elsewhere.rename(root / "inside")
    file.unlink()
    file.symlink_to(inside)
    assert read_keys_values(root / "birds", sha256, SHAPE).length == 5


def test_templates_say_what_is_missing(tmp_path) -> None:
    write(tmp_path, "birds", input=[{"field": "a"}, " and ", {"field": "b"}])
    template = read_prompt(tmp_path / "birds").input
    assert template.text({"a": "x", "b": "y"}) == "x and y"
    for fields, why in (({"a": "x"}, "'b' is missing"), ({"a": "", "b": "", "c": ""}, "no 'c'")):
        with pytest.raises(InputError, match=why):
            template.text(fields)
    with pytest.raises(InputError, match="expected a text"):
        template.text({"a": 1, "b": "y"})
    with pytest.raises(InputError, match="has the fields a, b"):
        template.only("x")


def test_messages_are_filled(tmp_path) -> None:
    chat = [{"role": "user", "content": ["Say ", {"field": "a"}]}]
    write(tmp_path, "birds", input=chat)
    template = read_prompt(tmp_path / "birds").input
    assert template.is_chat
    assert template.messages({"a": "{b}"}) == [{"role": "user", "content": "Say {b}"}]
