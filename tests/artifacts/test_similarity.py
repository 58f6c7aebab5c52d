"""How alike prompts are: SPoT's two measures, written out by loops here."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import foreword
from foreword.artifacts.artifact import save_artifact
from foreword.backbone import Backbone
from foreword.cli import main
from foreword.errors import UserError
from foreword.methods import METHODS
from foreword.recipe import TaskId
from foreword.tuned.compose import compose

TABLE = {"kind": "table", "std": 1.0}
METHODS_OF: dict[str, dict[str, Any]] = {
    "prompt": {"name": "prompt-tuning", "reparameterization": TABLE},
    "prefix": {"name": "prefix-tuning", "reparameterization": TABLE},
    "adaption": {"name": "llama-adapter", "reparameterization": TABLE},
}


def store(
    folder: Path, backbone: Backbone, length: int = 3, *, seed: int = 0, **options: Any
) -> Path:
    method = METHODS[options["name"]].model_validate(
        {**options, **({"length": length} if length else {})}
    )
    torch.manual_seed(seed)
    task = TaskId(input="{text}", target="{reference}")
    save_artifact(folder, compose(backbone, method), name=folder.name, method=method, task=task)
    return folder


def layers_of(folder: Path) -> list[list[list[float]]]:
    """Every space that is compared, with a vector for each virtual token."""
    spaces: list[Tensor] = []
    for name, tensor in load_file(folder / "prompt.safetensors").items():
        if name.endswith(".embeddings"):
            spaces.append(tensor)
        elif name.endswith((".keys", ".values", ".prompts")):
            spaces += [layer.reshape(layer.shape[0], -1) for layer in tensor]
    return [space.double().tolist() for space in spaces]


def cosine(one: list[float], other: list[float]) -> float:
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / math.sqrt(sum(a * a for a in one)) / math.sqrt(sum(b * b for b in other))


def by_hand(first: Path, second: Path) -> tuple[float, float]:
    averages, tokens = [], []
    for one, other in zip(layers_of(first), layers_of(second), strict=True):
        means = [[sum(column) / len(space) for column in zip(*space, strict=True)]
                 for space in (one, other)]  # fmt: skip
        averages.append(cosine(*means))
        pairs = [cosine(a, b) for a in one for b in other]
        tokens.append(sum(pairs) / len(pairs))
    return sum(averages) / len(averages), sum(tokens) / len(tokens)


@pytest.mark.parametrize("kind", METHODS_OF)
def test_both_measures_by_hand(kind: str, tiny_backbone, tmp_path: Path) -> None:
    backbone = tiny_backbone("llama")
    folders = [
        store(tmp_path / str(length), backbone, length, seed=length, **METHODS_OF[kind])
        for length in (2, 5, 3)
    ]
    pairs = foreword.similar(folders)
    assert len(pairs) == 3
    assert pairs == sorted(pairs, key=lambda pair: -pair.average_tokens)
    for pair in pairs:
        expected = by_hand(Path(pair.first), Path(pair.second))
        assert (pair.average_tokens, pair.per_token) == pytest.approx(expected, abs=1e-12)


def test_scale_and_order_do_not_count(mini: Backbone, tmp_path: Path) -> None:
    """A prompt and the same one louder, its tokens turned round, point the same way."""
    first = store(tmp_path / "first", mini, **METHODS_OF["prompt"])
    second = store(tmp_path / "second", mini, **METHODS_OF["prompt"])
    rows = load_file(first / "prompt.safetensors")["decoder.embeddings"]
    save_file({"decoder.embeddings": 3 * rows.flip(0)}, second / "prompt.safetensors")
    manifest = json.loads((second / "foreword.json").read_text("utf-8"))
    from foreword.common import files

    manifest["prompt_sha256"] = files.sha256(second / "prompt.safetensors")
    (second / "foreword.json").write_text(json.dumps(manifest), encoding="utf-8")
    (pair,) = foreword.similar([first, second])
    assert pair.average_tokens == pytest.approx(1, abs=1e-7)
    assert pair.per_token == pytest.approx(by_hand(first, first)[1], abs=1e-7)


def test_what_cannot_be_compared_is_refused(tiny_backbone, mini: Backbone, tmp_path: Path) -> None:
    llama = tiny_backbone("llama")
    prompt = store(tmp_path / "prompt", llama, **METHODS_OF["prompt"])
    prefix = store(tmp_path / "prefix", llama, **METHODS_OF["prefix"])
    upper = store(tmp_path / "upper", llama, **METHODS_OF["prefix"], layers=[1])
    other = store(tmp_path / "other", mini, **METHODS_OF["prompt"])
    hard = store(tmp_path / "hard", llama, 0, name="hard-prompt")
    for second, said in (
        (other, "they are of two backbones, 'llama' (sha256 "),
        (prefix, "one holds decoder.embeddings (prompt-tuning), the other decoder.keys, "
         "decoder.values (prefix-tuning); compare prompts that enter alike"),
        (hard, "holds no trained virtual tokens (hard-prompt)"),
    ):  # fmt: skip
        with pytest.raises(UserError) as caught:
            foreword.similar([prompt, second])
        assert said in str(caught.value)
    with pytest.raises(UserError, match="they enter at other layers"):
        foreword.similar([prefix, upper])
    with pytest.raises(UserError, match="1 given; a comparison takes two or more"):
        foreword.similar([prompt])
    with pytest.raises(UserError, match="expected a list, found one text"):
        foreword.similar(str(prompt))


def command(capsys, monkeypatch, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["foreword", "similar", *words])
    with pytest.raises(SystemExit) as end:
        main()
    output = capsys.readouterr()
    return int(end.value.code or 0), output.out, output.err


def test_the_command(mini: Backbone, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in (1, 2):
        store(Path(f"p{seed}"), mini, seed=seed, **METHODS_OF["prompt"])
    status, out, _ = command(capsys, monkeypatch, "p1", "p2", "--json")
    (pair,) = json.loads(out)["pairs"]
    assert (status, pair["first"], pair["second"]) == (0, "p1", "p2")
    expected = by_hand(Path("p1"), Path("p2"))
    assert (pair["average_tokens"], pair["per_token"]) == pytest.approx(expected)
    status, out, _ = command(capsys, monkeypatch, "p1", "p2")
    assert status == 0
    assert f"{expected[0]:.3f}" in out
    assert "average tokens" in out
    status, _, err = command(capsys, monkeypatch, "p1")
    assert (status, err) == (2, "foreword: artifacts: 1 given; a comparison takes two or more\n")
    status, _, err = command(capsys, monkeypatch, "p1", "none")
    assert (status, err) == (2, "foreword: none: is no artifact, there is no such folder\n")
