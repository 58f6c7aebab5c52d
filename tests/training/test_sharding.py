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
from foreword.training import sharding
from foreword.training.hardware import Hardware
from foreword.training.sharding import FSDP, DeepSpeed, Sharding
from launching import Launcher
from sharded import CASES, LAUNCH, results


@pytest.fixture(scope="module")
def whole() -> dict[str, Tensor]:
    return results()


@pytest.fixture(params=LAUNCH)
def launched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """As `accelerate launch` starts a process for one of both."""
    needed(request.param)
    for name, value in LAUNCH[request.param].items():
        monkeypatch.setenv(name, value)
    yield monkeypatch
    if distributed.is_initialized():
        distributed.destroy_process_group()


def needed(kind: str) -> None:
    """Skip where what deals out is not installed."""
    if kind == "DeepSpeed":
        pytest.importorskip("deepspeed", reason="pip install 'foreword[deepspeed]'")


def check(found: dict[str, Tensor], whole: dict[str, Tensor], tolerance: float) -> None:
    cases = {name.split("/")[0] for name in found}
    assert cases >= CASES.keys()
    for name, expected in whole.items():
        if name.split("/")[0] in cases:
            assert found[name].shape == expected.shape, name
            gap = (found[name] - expected).abs().max()
            assert gap < tolerance * max(1, expected.abs().max()), name


def shares(found: dict[str, Tensor]) -> dict[str, float]:
    """How much of each case's backbone lies in a process."""
    held = {name.split("/")[0]: pair.tolist() for name, pair in found.items() if "/held" in name}
    assert held.keys() >= CASES.keys()
    return {case: here / all_of_it for case, (here, all_of_it) in held.items()}


@pytest.mark.parametrize("kind", LAUNCH)
def test_one_process_trains_as_without(kind, whole, launcher: Launcher, tmp_path: Path) -> None:
    needed(kind)
    words = [str(tmp_path / "out"), kind]
    (one,) = launcher.together(tmp_path, words, processes=1, program=str(Path(sharded.__file__)))
    assert one.end() == 0, one.printed()
    found = load_file(tmp_path / "out-0.safetensors")
    assert set(shares(found).values()) == {1.0}
    check(found, whole, 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("kind", LAUNCH)
def test_two_processes_train_as_one(kind, whole, launcher: Launcher, tmp_path: Path) -> None:
    """Each holds half of the layers, and the prompt is equal in both."""
    needed(kind)
    words = [str(tmp_path / "out"), kind]
    both = launcher.together(tmp_path, words, program=str(Path(sharded.__file__)))
    assert [one.end() for one in both] == [0, 0], both[0].printed()
    first, second = (load_file(tmp_path / f"out-{rank}.safetensors") for rank in (0, 1))
    check(first, whole, 1e-6)  # norms are computed in float32, over other paddings
    check(second, whole, 1e-6)
    for case, share in shares(first).items():
        assert share < (0.55 if kind == "DeepSpeed" or case.startswith("llama") else 0.8), case
    for name, tensor in first.items():
        if "/trained" in name:
            assert torch.equal(tensor, second[name])
    left = [tensor.tolist() for name, tensor in first.items() if name.endswith("/left")]
    assert bool(left) == (kind == "DeepSpeed")
    for stayed, largest in left:  # DeepSpeed gathers in advance, as much as the largest weight
        assert stayed <= largest


@pytest.mark.soak
@pytest.mark.parametrize("kind", LAUNCH)
def test_the_file_for_accelerate_launch_deals_a_backbone_out(
    kind, launcher: Launcher, tmp_path: Path
) -> None:
    """launch/fsdp.yaml and launch/deepspeed.yaml as they are, and their losses beside those of one
    process."""
    needed(kind)
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
    file = Path(__file__).parents[2] / "launch" / f"{kind.lower()}.yaml"
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
    ("kind", "variables", "said"),
    [
        ("FSDP", {"FSDP_VERSION": "1"}, r"fsdp_version: 1: .* set it to 2"),
        (
            "FSDP",
            {"FSDP_CPU_RAM_EFFICIENT_LOADING": "true"},
            r"fsdp_cpu_ram_efficient_loading: true: ",
        ),
        (
            "FSDP",
            {"FSDP_ACTIVATION_CHECKPOINTING": "true"},
            r"training\.gradient_checkpointing",
        ),
        ("FSDP", {"ACCELERATE_USE_MEGATRON_LM": "true"}, r"type: MEGATRON_LM .* FSDP"),
        ("DeepSpeed", {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}, r"zero_stage: 2: .* set it to 3"),
        ("DeepSpeed", {"ACCELERATE_DEEPSPEED_ZERO3_INIT": "true"}, r"zero3_init_flag: .* to false"),
        (
            "DeepSpeed",
            {"ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu"},
            r"offload_optimizer_device: cpu: .* set it to none",
        ),
        (
            "DeepSpeed",
            {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"},
            r"gradient_accumulation_steps: 4: set training\.accumulation",
        ),
        (
            "DeepSpeed",
            {"ACCELERATE_GRADIENT_CLIPPING": "0.5"},
            r"gradient_clipping: 0\.5: set training\.clip",
        ),
        ("DeepSpeed", {"ACCELERATE_DEEPSPEED_CONFIG_FILE": "nowhere.json"}, "nowhere.json"),
    ],
    ids=str,
)
def test_what_is_not_done_is_refused(monkeypatch, kind, variables, said) -> None:
    needed(kind)
    for name, value in {**LAUNCH[kind], **variables}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"accelerate's config: .*{said}"):
        Hardware.of("cpu")


@pytest.mark.parametrize(
    ("of_it", "said"),
    [
        ({"optimizer": {"type": "Adam"}}, r"optimizer: .*: set training\.learning_rate"),
        ({"scheduler": {"type": "WarmupLR"}}, r"scheduler: .*: set training\.schedule"),
        ({"bf16": {"enabled": True}}, r"bf16\.enabled: True: set backbone\.dtype"),
        ({"zero_optimization": {"stage": 1}}, r"zero_stage: 1: "),
        ({"zero_optimization": None}, r"Please specify the ZeRO"),
    ],
    ids=str,
)
def test_what_a_file_of_deepspeed_says_is_refused(monkeypatch, tmp_path, of_it, said) -> None:
    needed("DeepSpeed")
    config = {"zero_optimization": {"stage": 3}, **of_it}
    config = {name: part for name, part in config.items() if part is not None}
    file = tmp_path / "zero.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    variables = {**LAUNCH["DeepSpeed"], "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(file)}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=rf"accelerate's config: deepspeed_config.*{said}"):
        Hardware.of("cpu")


def test_a_file_of_deepspeed_is_read(monkeypatch, tmp_path) -> None:
    """`auto` is left to DeepSpeed."""
    needed("DeepSpeed")
    offload = {"device": "cpu", "pin_memory": "auto"}
    zero = {
        "stage": 3,
        "stage3_prefetch_bucket_size": 7,
        "reduce_bucket_size": "auto",
        "offload_param": offload,
    }
    config = {"zero_optimization": zero, "bf16": {"enabled": "auto"}, "gradient_clipping": "auto"}
    file = tmp_path / "zero.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO3_INIT", "false")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(file))
    read = Sharding.asked()
    assert isinstance(read, DeepSpeed)
    assert dict(read.zero) == {
        "stage": 3,
        "stage3_prefetch_bucket_size": 7,
        "offload_param": {"device": "cpu"},
    }


def test_deepspeed_that_is_not_installed_is_told(monkeypatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setattr(sharding, "find_spec", lambda _name: None)
    with pytest.raises(UserError, match=r"DEEPSPEED: .* pip install 'foreword\[deepspeed\]'"):
        Hardware.of("cpu")


def test_the_prompt_is_not_dealt_out(launched) -> None:
    """Accelerate sees processes with a model each, whatever it was launched with."""
    hardware = Hardware.of("cpu")
    assert hardware.sharding is not None
    assert hardware.accelerator.distributed_type == "NO"
    assert os.environ[hardware.sharding.variable] == "true"


@pytest.mark.parametrize("kind", [FSDP(None), DeepSpeed({})], ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lora", {}),
        ("fine-tuning", {}),
        ("llama-adapter", {}),
        ("multitask-prompt-tuning", {"task_column": "kind"}),
    ],
)
def test_methods_that_do_not_fit_are_refused(name, options, kind) -> None:
    options = METHODS[name].model_validate({"name": name, **options})
    with pytest.raises(UserError, match=rf"^method: {name} .*start without {kind.name}$"):
        kind.check(options)


def test_backbones_that_do_not_fit_are_refused(launched) -> None:
    """DeepSpeed deals weights out, not layers, and albert is among its cases above."""
    hardware = Hardware.of("cpu")
    if isinstance(hardware.sharding, FSDP):
        with pytest.raises(BackboneError, match=r"'albert' has no list of its layers"):
            hardware.sharding.deal_out(wrapped("albert"), hardware.device)
