"""The flags that verbs share: the same on each, from one place."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.models import OptionInfo

from foreword.backbone import loading
from foreword.cli import exchange, main, training, using
from foreword.cli.options import DType
from foreword.errors import UserError
from foreword.session import load

LOADING = {
    "train": training.train,
    "generate": using.generate,
    "evaluate": using.evaluate,
    "import peft": exchange.import_peft,
    "export model": exchange.export_model,
}
COMMON = {"--backbone", "--device", "--dtype", "--trust-remote-code"}
READING = {
    "--other-backbone",
    "--quantization",
    "--device-map",
    "--download",
    "--batch-size",
    "--limit",
    "--seed",
}


def options(verb: str) -> dict[str, tuple[Any, ...]]:
    """The options of a verb by their names: type, default, and all that typer is told."""
    found = {}
    for parameter in inspect.signature(LOADING[verb]).parameters.values():
        kind, *extras = get_args(parameter.annotation) or (None,)
        for extra in extras:
            if isinstance(extra, OptionInfo):
                found[str(extra.default)] = (kind, parameter.default, vars(extra))
    return found


@pytest.mark.parametrize("verb", LOADING)
def test_every_verb_that_loads_a_backbone_has_the_same_flags(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found, reference = options(verb), options("train")
    for name in COMMON:
        assert found[name] == reference[name]
    assert found["--dtype"][0] == DType | None
    monkeypatch.setattr(sys, "argv", ["foreword", *verb.split(), "--help"])
    with pytest.raises(SystemExit):
        main()
    printed = capsys.readouterr().out
    assert all(name in printed for name in COMMON), "typer shows them"


def test_every_verb_that_reads_an_artifact_has_the_same_flags() -> None:
    generate, evaluate = options("generate"), options("evaluate")
    for name in COMMON | READING:
        assert generate[name] == evaluate[name]


def test_a_type_for_every_type_that_a_backbone_may_have() -> None:
    assert {choice.value for choice in DType} == set(get_args(loading.DType))


def test_flags_arrive_where_they_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    class Loaded(Exception):
        pass

    def catch(artifact: Path, **flags: Any) -> None:
        given.update(flags)
        raise Loaded

    monkeypatch.setattr("foreword.session.load", catch)
    words = ["foreword", "generate", "a", "--text", "x", "--dtype", "float64", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", [*words, "--backbone", "b", "--trust-remote-code"])
    with pytest.raises(Loaded):
        main()
    assert given == {
        "backbone": "b",
        "device": "cpu",
        "dtype": "float64",
        "quantization": None,
        "device_map": None,
        "other_backbone": False,
        "download": False,
        "trust_remote_code": True,
    }


@pytest.mark.parametrize(
    "words",
    [
        ["generate", "nowhere", "--text", "x"],
        ["import", "peft", "nowhere"],
    ],
)
def test_code_that_only_an_artifact_names_is_never_run(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["foreword", *words, "--trust-remote-code"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "name the backbone whose code you trust" in printed.err
    with pytest.raises(UserError, match="name the backbone whose code you trust"):
        load("nowhere", trust_remote_code=True)
