"""A backbone whose weights are dealt out over processes trains the prompt that a whole one does."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, distributed

import sharded
from families.catalogue import wrapped
from foreword.errors import BackboneError, UserError
from foreword.methods import METHODS
from foreword.training.hardware import Hardware
from foreword.training.sharding import Sharding
from launching import Launcher
from sharded import CASES, LAUNCH, results


@pytest.fixture(scope="module")
def whole() -> dict[str, Tensor]:
    return results()


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch):
    """As `accelerate launch` starts a process for FSDP."""
    for name, value in LAUNCH.items():
        monkeypatch.setenv(name, value)
    yield monkeypatch
    if distributed.is_initialized():
        distributed.destroy_process_group()


def check(found: dict[str, Tensor], whole: dict[str, Tensor], tolerance: float) -> None:
    assert whole.keys() == {name for name in found if not name.endswith("/held")}
    for name, expected in whole.items():
        assert found[name].shape == expected.shape, name
        gap = (found[name] - expected).abs().max()
        assert gap < tolerance * max(1, expected.abs().max()), name


def test_one_process_trains_as_without(launched, whole) -> None:
    found = results()
    for case in CASES:
        here, all_of_it = found[f"{case}/held"].tolist()
        assert here == all_of_it
    check(found, whole, 1e-12)


@pytest.mark.slow
def test_two_processes_train_as_one(whole, launcher: Launcher, tmp_path: Path) -> None:
    """Each holds half of the layers, and the prompt is equal in both."""
    words = [str(tmp_path / "out")]
    both = launcher.together(tmp_path, words, program=str(Path(sharded.__file__)))
    assert [one.end() for one in both] == [0, 0], both[0].printed()
    first, second = (load_file(tmp_path / f"out-{rank}.safetensors") for rank in (0, 1))
    check(first, whole, 1e-6)  # norms are computed in float32, over other paddings
    check(second, whole, 1e-6)
    for case in CASES:
        here, all_of_it = first[f"{case}/held"].tolist()
        assert here < (0.55 if case.startswith("llama") else 0.8) * all_of_it
        for name, tensor in first.items():
            if "/trained" in name:
                assert torch.equal(tensor, second[name])


@pytest.mark.soak
def test_the_file_for_accelerate_launch_deals_a_backbone_out(
    launcher: Launcher, tmp_path: Path
) -> None:
    """launch/fsdp.yaml as it is, and its losses beside those of one process."""
    words = ("robin", "otter", "heron", "finch")
    rows = "".join(f"{word},{word[::-1]}\n" for word in words)
    (tmp_path / "rows.csv").write_text(f"text,answer\n{rows}", encoding="utf-8")
    data = {"format": "csv", "train": "rows.csv", "dev": "rows.csv", "references": "answer"}
    recipe = {
        "version": 1,
        "name": "dealt",
        "backbone": {"name": "foreword/mini", "dtype": "float64"},
        "task": {"data": data, "input": "{text} ->", "target": " {reference}"},
        "method": {"name": "prefix-tuning", "length": 3},
        "training": {"steps": 3, "batch_size": 4, "learning_rate": 0.05, "best_by": None},
        "evaluation": {"backbone_alone": False},
        "decoding": {"max_new_tokens": 2},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    file = Path(__file__).parents[2] / "launch" / "fsdp.yaml"
    launch = ["accelerate.commands.accelerate_cli", "launch", "--config_file", str(file)]
    command = ["train", "recipe.yaml", "--out"]
    alone = launcher.start(tmp_path, [*command, "whole"])
    assert alone.end() == 0, alone.printed()
    done = subprocess.run(
        [
            *(sys.executable, "-m", *launch, "--main_process_port", port, "-m", "foreword"),
            *(*command, "sharded"),
        ],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "dealt out" not in alone.printed()
    dealt = re.findall(r"dealt out: ([\d.]+) of its ([\d.]+) MB lie in this", done.stderr)
    assert len(dealt) == 1, done.stderr
    ((here, all_of_it),) = dealt
    assert float(here) < 0.7 * float(all_of_it)
    whole, together = (_logged(tmp_path / out / "log.jsonl") for out in ("whole", "sharded"))
    assert len(whole) == 3
    assert together[0]["loss"] == pytest.approx(whole[0]["loss"], rel=1e-12)
    for own, other in zip(whole, together, strict=True):
        # the prompt is float32, and Adam makes whole steps of gradients that are mere rounding
        assert other == pytest.approx(own, rel=1e-4)


def _logged(log: Path) -> list[dict[str, float]]:
    """What a run says of its steps."""
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [entry for entry in entries if "step" in entry]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"FSDP_VERSION": "1"}, r"fsdp_version: 1: .* set it to 2"),
        ({"FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}, r"fsdp_cpu_ram_efficient_loading: true: "),
        ({"FSDP_ACTIVATION_CHECKPOINTING": "true"}, r"training\.gradient_checkpointing"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, r"distributed_type: DEEPSPEED .* FSDP"),
    ],
    ids=str,
)
def test_what_is_not_done_is_refused(launched, variables, said) -> None:
    for name, value in variables.items():
        launched.setenv(name, value)
    with pytest.raises(UserError, match=f"accelerate's config: .*{said}"):
        Hardware.of("cpu")


def test_the_prompt_is_not_dealt_out(launched) -> None:
    """Accelerate sees processes with a model each, whatever it was launched with."""
    hardware = Hardware.of("cpu")
    assert hardware.sharding is not None
    assert hardware.accelerator.distributed_type == "NO"
    assert os.environ["ACCELERATE_USE_FSDP"] == "true"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lora", {}),
        ("fine-tuning", {}),
        ("llama-adapter", {}),
        ("multitask-prompt-tuning", {"task_column": "kind"}),
    ],
)
def test_methods_that_do_not_fit_are_refused(name, options) -> None:
    options = METHODS[name].model_validate({"name": name, **options})
    with pytest.raises(UserError, match=rf"^method: {name} .*start without FSDP"):
        Sharding(None).check(options)


def test_backbones_that_do_not_fit_are_refused(launched) -> None:
    hardware = Hardware.of("cpu")
    assert hardware.sharding is not None
    with pytest.raises(BackboneError, match=r"'albert' has no list of its layers"):
        hardware.sharding.deal_out(wrapped("albert"), hardware.device)
