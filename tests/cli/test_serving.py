"""What `foreword serve` makes of its flags and its configuration file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from foreword.cli.serving import KEY, ServeFlags, _flags
from foreword.errors import UserError
from foreword.serving.spec import ServeSpec, read_spec


def spec(config: Path | None = None, base: str | None = None, **flags: Any) -> ServeSpec:
    prompts, keys = flags.pop("prompt", None), flags.pop("keys", None)
    return read_spec(config, _flags(base, prompts, keys, ServeFlags(**flags)))


def test_defaults() -> None:
    found = spec(base="foreword/mini")
    assert (found.host, found.port, found.rows, found.chunk) == ("127.0.0.1", 8000, 32, 256)
    assert found.backbone_name == "foreword/mini"
    assert found.keys == ()
    assert spec(base="foreword/mini", port=0).port == 0
    assert found.packed
    assert not spec(base="foreword/mini", packed=False).packed


def test_a_flag_is_a_later_word_than_the_file(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    file = tmp_path / "serve.yaml"
    file.write_text(
        "backbone: model\nprompt: {a: runs/a, b: /else/b}\nroots: [in]\nrows: 4\nport: 9000\n"
        "keys: [{name: me, key: long-enough}]\n"
    )
    found = spec(file, rows=8, prompt=["b=c"])
    assert found.backbone == str(tmp_path / "model")
    assert found.backbone_name == "model"
    assert (found.rows, found.port) == (8, 9000)
    assert found.prompt == {"a": tmp_path / "runs/a", "b": Path("c")}
    assert found.roots == (tmp_path / "in",)
    assert found.keys[0].name == "me"


def test_urls_stay_as_they_are(tmp_path: Path) -> None:
    """Two slashes, and no folder before them."""
    file = tmp_path / "serve.yaml"
    file.write_text(
        "backbone: x\nprompts: s3://bucket/prompts\nprompt: {a: 'gs://other/a', b: b}\n"
    )
    found = spec(file)
    assert found.prompts == "s3://bucket/prompts"
    assert found.prompt == {"a": "gs://other/a", "b": tmp_path / "b"}
    found = spec(file, prompts="memory://m/p", prompt=["b=abfs://c/b"], refresh=2.0)
    assert found.prompts == "memory://m/p"
    assert found.prompt == {"a": "gs://other/a", "b": "abfs://c/b"}
    assert spec(file, prompts="here").prompts == Path("here")


def test_one_key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "a-key-of-mine")
    (key,) = spec(base="foreword/mini").keys
    assert (key.key, key.admin, key.models) == ("a-key-of-mine", True, ("*",))


def test_no_key_where_keys_are_meant_is_no_open_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys.yaml"
    for text, message in {"[]": "keys: holds no key", "": "keys: expected a list"}.items():
        file.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=message):
            spec(base="foreword/mini", keys=file)
    monkeypatch.setenv(KEY, "")
    with pytest.raises(UserError, match="FOREWORD_API_KEY: is set, and empty"):
        spec(base="foreword/mini")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "backbone: is missing"),
        ({"base": "a", "backbone": "b"}, "--backbone: 'b', but BACKBONE is given, too"),
        ({"base": "a", "prompt": ["x"]}, "--prompt: expected NAME=ARTIFACT, found 'x'"),
        ({"base": "a", "prompt": ["x=1", "x=2"]}, "--prompt: the name 'x' is given twice"),
        ({"base": "a", "timeout": -1.0}, "timeout: must be more than 0"),
        ({"base": "a", "quantization": "[1]"}, "--quantization: "),
        ({"base": "a", "keys": Path("nowhere.yaml")}, "--keys: nowhere.yaml: cannot be read"),
    ],
)
def test_wrong_flags(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as raised:
        spec(**flags)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", "expected settings by name"),
        ("rows: 0\nbackbone: x", "rows: must be at least 1, found 0"),
        ("rwos: 1\nbackbone: x", "rwos: no such name (did you mean 'rows'?)"),
        ("backbone: x\nkeys: [{name: a, key: short}]", "keys.0.key: expected at least 8 character"),
        ("backbone: x\nkeys: [{name: a}]", "give one of `key` and `sha256`"),
        (
            "backbone: x\nkeys: [{name: a, key: long-enough}, {name: a, key: long-enough-2}]",
            "the name 'a' is given to two keys",
        ),
        ("backbone: x\nkeys: []", "keys: holds no key"),
        (
            "backbone: x\nkeys: [{name: a, key: long-enough}, {name: b, sha256: "
            f"{hashlib.sha256(b'long-enough').hexdigest()}}}]",
            "'a' and 'b' have the same key",
        ),
        ("a: [", "cannot be read"),
        ("backbone: x\nprompts: 3", "prompts: expected a folder or a URL, found 3"),
        ("backbone: x\nprompt: {a: [b]}", "prompt.a: expected a folder or a URL, found ['b']"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as raised:
        spec(file)
    assert message in str(raised.value)
    assert str(file) in str(raised.value)
