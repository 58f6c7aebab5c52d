"""Prompts for the tests with vLLM, and what foreword answers with them. Run with foreword's Python.

    python cases.py FOLDER

Nothing is trained: a prompt is what the model makes of a text, shaken a little, so that each says
something else. FOLDER gets two base models, below each a folder of prompts as `foreword export
vllm` writes it, and in `cases.json` the greedy answer to every input.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import foreword
from foreword.artifacts.artifact import save_artifact
from foreword.backbone import Backbone, bundled_backbones, load_backbone
from foreword.cli import main as command
from foreword.methods import PrefixTuning, PromptTuning, axes
from foreword.recipe import DecodingSpec, TaskId
from foreword.tuned.compose import compose

NEW = 24
TEXTS = (
    "The robin is a small red bird of the garden.",
    "In winter the old fisherman mends his nets by the fire and tells of the sea and of storms",
    "Dear Sir, I have the honour to inform you that",
    "name : Silver Piper | type : bird | colour : grey -> The Silver Piper is a bird. name : Oak",
)
INPUTS = (
    "name : Silver Piper | type : bird",
    "name : Oak Tanner | type : tree | height : 20 m",
    "The",
    "name : Juniper Vargill | type : fish | colour : steel blue | edible : yes | near : Eastwick",
    "colour : red",
    "name : Lattice Baldle | type : fish | edible : no | season : winter | length : 6 cm",
)
CHAT = (
    "{% for m in messages %}{{ m.role }} : {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant :{% endif %}"
)


def make(
    folder: Path,
    backbone: Backbone,
    text: str,
    length: int,
    *,
    soft: bool = False,
    positions: str = "shift",
    task: TaskId,
    decoding: DecodingSpec,
) -> Path:
    """An artifact whose virtual tokens are those of a text, shaken."""
    table = axes.Table()
    method: Any = (
        PromptTuning(name="prompt-tuning", length=length)
        if soft
        else PrefixTuning(
            name="prefix-tuning",
            length=length,
            reparameterization=table,
            positions=positions,  # type: ignore[arg-type]
        )
    )
    model = compose(backbone, method)
    ids = (backbone.tokens.plain(text) * length)[:length]
    named = model.injection.real(backbone, ids)
    generator = torch.Generator().manual_seed(len(text))
    shaken = {
        name: one + 0.3 * one.std() * torch.randn(one.shape, generator=generator)
        for name, one in named.items()
    }
    save_artifact(
        folder,
        model.with_tensors(shaken),
        name=folder.name,
        method=method,
        task=task,
        decoding=decoding,
    )
    return folder


def llama(folder: Path) -> Path:
    """A random Llama with grouped heads, wide enough for vLLM's attention on CPUs."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.15,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(bundled_backbones()["foreword/mini"])
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    return folder


def answers(backbone: Backbone, artifacts: dict[str, Path], prompts: Path) -> dict[str, Any]:
    """For each prompt what foreword makes of each input: its tokens, and its greedy answer; and
    what the bare backbone answers to the tokens that stand for it in vLLM, as tokens."""
    told: dict[str, Any] = {}
    for name, artifact in artifacts.items():
        prompt = foreword.load(artifact, backbone=backbone)
        templates = prompt.task.task.text
        assert templates is not None
        sources = [
            templates.source(backbone.tokens, prompt.example(text, ""))[1] for text in INPUTS
        ]
        penalty = prompt.manifest.decoding.repetition_penalty
        fronts = [source[:1] * prompt.manifest.method.length + source for source in sources]
        told[name] = {
            "sources": sources,
            "answers": [whole(text) for text in prompt.generate(INPUTS)],
            "penalty": None if penalty == 1.0 else penalty,
            "impostors": [[front, alone(backbone, front)] for front in fronts],
            "sha256": json.loads((prompts / name / "prompt.json").read_text())["sha256"],
        }
    sources = [backbone.tokens.source(text) for text in INPUTS]
    told["bare"] = {"sources": sources, "answers": [alone(backbone, one) for one in sources]}
    return told


def alone(backbone: Backbone, ids: list[int]) -> str:
    """What transformers itself writes after some tokens, greedily."""
    output = backbone.model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        do_sample=False,
        max_new_tokens=NEW,
        pad_token_id=0,
        eos_token_id=backbone.tokens.eos_id,
    )
    return whole(backbone.tokens.text(output[0, len(ids) :].tolist()).strip())


def whole(text: str) -> str:
    """An answer without the part of a character that it may end in: vLLM waits for the rest."""
    return text.rstrip("\ufffd").strip()


def base(folder: Path, where: Path, kinds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Artifacts on a base model, exported, and their answers."""
    backbone = load_backbone(str(where), device="cpu")
    plain = TaskId(input="{record} ->", target=" {reference}")
    how = DecodingSpec(max_new_tokens=NEW)
    artifacts = {}
    for kind in kinds:
        name = kind.pop("name")
        settings = {"task": plain, "decoding": how, **kind}
        artifacts[name] = make(folder / "artifacts" / name, backbone, **settings)
    sys.argv = [
        *("foreword", "export", "vllm"),
        *map(str, artifacts.values()),
        *(str(folder / "prompts"), "--backbone", str(where), "--device", "cpu"),
    ]
    with suppress(SystemExit):
        command()
    assert sorted(place.name for place in (folder / "prompts").iterdir()) == sorted(artifacts)
    return {
        "model": str(where),
        "prompts": str(folder / "prompts"),
        "rows": answers(backbone, artifacts, folder / "prompts"),
    }


def main(folder: Path) -> None:
    """Write everything."""
    chat = TaskId(
        input=[
            {"role": "system", "content": "Say what it is."},
            {"role": "user", "content": "{record}"},
        ],
        target="{reference}",
    )
    mini = bundled_backbones()["foreword/mini"]
    penalised = DecodingSpec(max_new_tokens=NEW, repetition_penalty=1.3)
    told = {
        "inputs": INPUTS,
        "new": NEW,
        "gpt2": base(
            folder / "gpt2",
            mini,
            [
                {"name": "p40", "text": TEXTS[0], "length": 40},
                {"name": "p20", "text": TEXTS[1], "length": 20, "decoding": penalised},
                {"name": "p7", "text": TEXTS[2], "length": 7},
                {"name": "soft12", "text": TEXTS[3], "length": 12, "soft": True},
            ],
        ),
        "llama": base(
            folder / "llama",
            llama(folder / "llama" / "model"),
            [
                {"name": "p33", "text": TEXTS[0], "length": 33},
                {"name": "keeps", "text": TEXTS[1], "length": 9, "positions": "keep"},
                {"name": "chat", "text": TEXTS[2], "length": 5, "task": chat},
                {"name": "soft", "text": TEXTS[3], "length": 16, "soft": True},
            ],
        ),
    }
    (folder / "cases.json").write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
