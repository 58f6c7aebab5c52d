"""Bytes of a frozen backbone's weights in each of several processes that share it (FSDP, and
DeepSpeed's ZeRO-3).

    python bench/sharding.py                     # a Llama of 162M parameters, one and two processes
    python bench/sharding.py --shape small --processes 1 2 4

Every process loads the same random Llama in float32, keeps its share, and takes three training
steps with a prefix of 10 on 4 rows of 32 + 26 tokens. Counted are the bytes of the tensors
themselves, the same on every machine:

- held: what of the weights lies in a process between two steps;
- peak: the same with the layers that are gathered, the most at any layer's forward or backward
  pass.

The first line is of a process that holds the backbone whole.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch.distributed.fsdp import FSDPModule
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from foreword.backbone import Backbone
from foreword.backbone.layout import Pair
from foreword.backbone.modules.sharding import held
from foreword.backbone.text.tokens import Tokens
from foreword.methods import PrefixTuning
from foreword.methods.axes import Table
from foreword.training.hardware import Hardware
from foreword.tuned.compose import compose
from memory import SHAPES, SOURCE, TARGET

PACKAGES = ("torch", "transformers", "accelerate", "deepspeed")
LAUNCH = {
    "FSDP": {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_RESHARD_AFTER_FORWARD": "true",
    },
    "DeepSpeed": {
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3",
        "ACCELERATE_DEEPSPEED_ZERO3_INIT": "false",
    },
}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="base")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.worker is not None:
        measured = measure(given.shape)
        if int(os.environ.get("RANK", "0")) == 0:
            given.worker.write_text(json.dumps(measured), encoding="utf-8")
        return
    rows = [{"by": "", "processes": 1, **launched(given.shape, "", 1)}]
    rows += [
        {"by": kind, "processes": n, **launched(given.shape, kind, n)}
        for kind in LAUNCH
        for n in given.processes
    ]
    print("| processes | held | peak |\n|---|--:|--:|")
    for row in rows:
        what = f"{row['processes']}, {row['by'] or 'backbone whole'}"
        share = (f"{row[name] / row['whole']:.2f}" for name in ("held", "peak"))
        print(f"| {what} | {' | '.join(share)} |")
    result = {
        "command": shlex.join(["python", "bench/sharding.py", *sys.argv[1:]]),
        "versions": {name: version(name) for name in PACKAGES},
        "shape": {**SHAPES[given.shape]},
        "bytes": rows,
    }
    given.out.mkdir(exist_ok=True)
    text = json.dumps(result, indent=2) + "\n"
    (given.out / "sharding-cpu.json").write_text(text, encoding="utf-8")


def launched(shape: str, kind: str, processes: int) -> dict[str, int]:
    """What the first of several processes measured; "": of one that has all."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        out = Path(folder) / "measured.json"
        own = [str(Path(__file__).resolve()), "--shape", shape, "--worker", str(out)]
        run = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}"]
        start = [*run, f"--master_port={port}"] if kind else []
        environment = {**os.environ, **LAUNCH.get(kind, {}), "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, *start, *own], check=True, env=environment)
        found: dict[str, int] = json.loads(out.read_text(encoding="utf-8"))
        return found


def measure(shape: str) -> dict[str, int]:
    """Bytes of weights in this process."""
    numbers = SHAPES[shape]
    heads = numbers["heads"]
    torch.manual_seed(0)
    config = LlamaConfig(
        **{name: value for name, value in numbers.items() if name != "heads"},
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=4 * numbers["hidden_size"],
        tie_word_embeddings=False,
    )
    words = {f"w{i}": i for i in range(64)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="w0")), eos_token="w1", pad_token="w2"
    )
    backbone = Backbone.wrap(LlamaForCausalLM(config), Tokens(tokenizer), sha256="0" * 64)
    hardware = Hardware.of("cpu")
    if hardware.sharding is not None:
        hardware.sharding.deal_out(backbone, hardware.device)
    options = PrefixTuning(name="prefix-tuning", length=10, reparameterization=Table())
    model = compose(backbone, options)
    here = held(backbone.model)
    peak = here.here

    def look(*_: Any) -> None:
        nonlocal peak
        peak = max(peak, here.here + gathered(backbone.model))

    for module in backbone.model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(look)
            module.register_full_backward_hook(look)
    ids = list(range(3, 3 + SOURCE + TARGET))
    for _ in range(3):  # DeepSpeed gathers in advance what it has seen to be needed
        model(model.lay_out([Pair(ids[:SOURCE], ids[SOURCE:])] * 4)).sum().backward()
    return {"held": here.here, "peak": peak, "whole": here.whole}


def gathered(model: PreTrainedModel) -> int:
    """Bytes of the weights that are gathered now; neither has a public name for them."""
    groups = [
        module._get_fsdp_state()._fsdp_param_group
        for module in model.modules()
        if isinstance(module, FSDPModule)
    ]
    whole = [
        part
        for group in groups
        if group is not None
        for parameter in group.fsdp_params
        for part in parameter.all_gather_outputs
    ]
    whole += [one.data for one in model.parameters() if hasattr(one, "ds_tensor")]
    return sum(part.untyped_storage().nbytes() for part in whole)


if __name__ == "__main__":
    main()
