"""What tests of sharding share: trainings of tiny models in float64, with the backbone whole or
dealt out; run by itself in each of several processes, where the first writes what came out.

    python -m torch.distributed.run --nproc_per_node=2 tests/sharded.py OUT FSDP
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent))

from families.catalogue import wrapped
from foreword.axes.readout import Readout, SequenceHead
from foreword.backbone import Backbone, Call
from foreword.backbone.layout import Pair
from foreword.methods import METHODS
from foreword.recipe import TrainingSpec
from foreword.training import train
from foreword.training.hardware import Hardware
from foreword.training.sharding import FSDP
from foreword.tuned.compose import compose
from foreword.tuned.initial import initialise

LAUNCH = {
    "FSDP": {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_RESHARD_AFTER_FORWARD": "true",
        "FSDP_OFFLOAD_PARAMS": "false",
        "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
    },
    "DeepSpeed": {
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3",
        "ACCELERATE_DEEPSPEED_ZERO3_INIT": "false",
        "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "none",
        "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "none",
        "ACCELERATE_DEEPSPEED_CONFIG_FILE": "none",
    },
}
"""What `accelerate launch` puts into the environment for a config of each."""
CASES = {
    "llama prefix-tuning": {},
    "llama prompt-tuning": {"gradient_checkpointing": True},
    "gpt2 prefix-tuning": {"accumulation": 2},
    "bert p-tuning-v2": {},
    "t5 prompt-tuning": {},
    "llama prefix-tuning activations": {},
    "llama prompt-tuning vocabulary": {},
}
"""A family, a method and how it starts, and what of the training is another than usual."""
STARTS = {
    "activations": {
        "reparameterization": {"kind": "table"},
        "init": {"kind": "activations", "examples": 2},
    },
    "vocabulary": {"init": {"kind": "vocabulary", "most_common": 100}},
}
WITHOUT_LAYERS = {"albert p-tuning-v2": {}}
"""Those whose layers are no list, which FSDP does not deal out."""
SOURCES = [[3 + (7 * row + at) % 500 for at in range(4 + row)] for row in range(6)]


def results() -> dict[str, Tensor]:
    """For each case the losses and gradient norms of its steps, the trained tensors, and the logits
    or states after them."""
    found: dict[str, Tensor] = {}
    for case, options in {**CASES, **WITHOUT_LAYERS}.items():
        family, name, *start = case.split()
        hardware = Hardware.of("cpu")
        if case in WITHOUT_LAYERS and isinstance(hardware.sharding, FSDP):
            continue
        torch.manual_seed(0)
        backbone = wrapped(family)
        if hardware.sharding is not None:
            held = hardware.sharding.deal_out(backbone, hardware.device)
            found[f"{case}/held"] = torch.tensor([held.here, held.whole])
        method = {"name": name, **(STARTS[start[0]] if start else {})}
        of_it = _of(backbone, method, options, hardware)
        found |= {f"{case}/{key}": value for key, value in of_it}
        found |= {f"{case}/{key}": value for key, value in _left(backbone)}
    return found


def _left(backbone: Backbone) -> list[tuple[str, Tensor]]:
    """Of a backbone that DeepSpeed parted, the numbers that stayed gathered without having to, and
    those of the largest weight."""
    weights = [one for one in backbone.model.parameters() if hasattr(one, "ds_tensor")]
    stayed = sum(one.data.numel() for one in weights if not one.ds_persist)
    largest = max((one.ds_numel for one in weights), default=0)
    return [("left", torch.tensor([stayed, largest]))] if weights else []


def _of(
    backbone: Backbone, method: dict[str, Any], options: dict[str, object], hardware: Hardware
) -> list[tuple[str, Tensor]]:
    encodes = backbone.geometry.kind == "encoder"
    readout: Readout | None = (
        SequenceHead(backbone.hidden_width, 2, dropout=0.0) if encodes else None
    )
    chosen = METHODS[method["name"]].model_validate({"length": 3, **method})
    torch.manual_seed(1)
    model = compose(backbone, chosen, readout).double()
    initialise(model, chosen.init, SOURCES)
    pairs = [
        Pair(ids, [], marks=(-1,), labels=(row % 2,)) if encodes else Pair(ids, [5 + row, 6])
        for row, ids in enumerate(SOURCES)
    ]
    spec = TrainingSpec.model_validate(
        {
            "steps": 3,
            "batch_size": 3,
            "learning_rate": 1e-2,
            "loss": "token_mean",
            "savings": {"last_layer": False},  # which a sharded backbone does not have
            **options,
        }
    )
    history = train(model, pairs, spec, dev=pairs[:2], seed=0, hardware=hardware)
    layout = model.lay_out(pairs)
    call = Call(layout, model.prompt())
    with torch.no_grad():
        after = backbone.hidden(call) if encodes else backbone.logits(call)
    steps = [[entry["loss"], entry["gradient_norm"]] for entry in history.steps]
    dev = [entry["loss"] for entry in history.evaluations]
    return [
        ("steps", torch.tensor(steps, dtype=torch.float64)),
        ("dev", torch.tensor(dev, dtype=torch.float64)),
        ("logits", after[layout.attention_mask]),
        *((f"trained {n}", p.detach().clone()) for n, p in model.named_parameters()),
    ]


if __name__ == "__main__":
    os.environ.update(LAUNCH[sys.argv[2]])
    torch.set_num_threads(1)
    tensors = results()
    save_file(tensors, f"{sys.argv[1]}-{os.environ['RANK']}.safetensors")
