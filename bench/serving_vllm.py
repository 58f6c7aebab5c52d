"""Throughput of vLLM with prompts through foreword-vllm, beside the same vLLM without.

    .venv-vllm/bin/python bench/serving_vllm.py                      # GPT-2's 124M shape
    .venv-vllm/bin/python bench/serving_vllm.py --model FOLDER --requests 64 --length 20

Runs in the environment that `make test-vllm` sets up; foreword is not needed. One engine in this
process answers the same requests (random tokens, so many of source and of answer as stated; ends
are ignored) in turns: with one of N prompts each, all with one prompt, bare, and bare with as many
tokens more in front as a prompt has virtual ones, found in the cache like them. That last one tells
what limits the others: keys that are attended to, by whatever way they came. Prompts are random
numbers of the size of the model's own keys and values. Requests arrive together; a figure is the
median over rounds of new tokens for each second, divided by that of the bare requests of the same
round. With `--clock cpu` seconds are those of the process, of one thread.

`--engine FILE` is a report of `bench/serving.py --even SOURCE ANSWER` of the same requests; the
embedded engine's tokens a second are then divided by vLLM's.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
BARE = "bare"
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
SHAPES: dict[str, dict[str, int]] = {
    "gpt2": {"n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257},
    "34m": {"n_embd": 512, "n_layer": 8, "n_head": 8, "vocab_size": 16384},
    "tiny": {"n_embd": 64, "n_layer": 2, "n_head": 2, "vocab_size": 512},
}
"""GPT-2's architecture at several sizes; random weights."""


def random_model(shape: str, folder: Path) -> str:
    """Save a model of a shape."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(**SHAPES[shape])).save_pretrained(folder)
    return str(folder)


def write_prompts(folder: Path, model: str, number: int, length: int) -> list[str]:
    """Write prompts for a base model, as `foreword export vllm` does."""
    import hashlib

    import torch
    from safetensors.torch import save
    from transformers import AutoConfig

    from foreword_vllm.weights import sha256_of

    config = AutoConfig.from_pretrained(model)
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    layers, weights = config.num_hidden_layers, sha256_of(model)
    names = [f"p{i:02d}" for i in range(number)]
    for i, name in enumerate(names):
        generator = torch.Generator().manual_seed(i)
        shape = (2, layers, length, kv_heads, head_dim)
        keys, values = torch.randn(shape, generator=generator)
        content = save(
            {"decoder.keys": keys.contiguous(), "decoder.values": values.contiguous()},
            metadata={"backbone": weights},
        )
        sha256 = hashlib.sha256(content).hexdigest()
        stated = {
            "format": "1.0",
            "length": length,
            "sha256": sha256,
            "backbone": {"name": model, "sha256": weights},
            "input": [{"field": "text"}],
            "tokens": {"leading": [], "drops_blank": False},
            "sample": {"fields": {"text": ""}, "tokens": []},
            "chat_options": {},
            "decoding": {
                "max_tokens": 1,
                "temperature": 0.0,
                "top_p": 1.0,
                "top_k": 0,
                "repetition_penalty": 1.0,
                "stop": [],
            },
        }
        (folder / name).mkdir(parents=True)
        (folder / name / f"{sha256[:16]}.safetensors").write_bytes(content)
        (folder / name / "prompt.json").write_text(json.dumps(stated))
    return names


def variants(
    engine: Any, names: list[str], options: argparse.Namespace, vocabulary: int
) -> dict[str, Callable[[], int]]:
    """What takes turns; each returns how many tokens were written."""
    import torch
    from vllm import SamplingParams

    generator = torch.Generator().manual_seed(0)
    shape = (options.requests, options.source)
    sources = torch.randint(1, vocabulary, shape, generator=generator).tolist()
    front = torch.randint(1, vocabulary, (options.length,), generator=generator).tolist()

    def run(prompts: list[str | None], before: list[int]) -> Callable[[], int]:
        inputs = [{"prompt_token_ids": before + source} for source in sources]
        settings = [
            SamplingParams(
                temperature=0,
                max_tokens=options.answer,
                ignore_eos=True,
                extra_args=name and {"kv_transfer_params": {"foreword": name}},
            )
            for name in prompts
        ]

        def answer() -> int:
            outputs = engine.generate(inputs, settings, use_tqdm=False)
            return sum(len(output.outputs[0].token_ids) for output in outputs)

        return answer

    mixed: list[str | None] = [names[i % len(names)] for i in range(options.requests)]
    none: list[str | None] = [None] * options.requests
    return {
        BARE: run(none, []),
        "bare, again": run(none, []),
        f"{len(names)} prompts": run(mixed, []),
        "one prompt": run([names[0]] * options.requests, []),
        f"bare, {options.length} tokens more": run(none, front),
    }


def measured(runs: dict[str, Callable[[], int]], options: argparse.Namespace) -> dict[str, Any]:
    """Tokens for each second of every variant, round by round; the first round is left out."""
    clock = CLOCKS[options.clock]
    seen: dict[str, list[float]] = {name: [] for name in runs}
    order = list(runs)
    for number in range(options.rounds + 1):
        order = order[1:] + order[:1]
        for name in order:
            start = clock()
            tokens = runs[name]()
            if number:
                seen[name].append(tokens / (clock() - start))
    figures_by_name = {}
    for name, rates in seen.items():
        ratios = [rate / bare for rate, bare in zip(rates, seen[BARE], strict=True)]
        figures_by_name[name] = {
            "tokens per second": statistics.median(rates),
            "beside bare, median of ratios": statistics.median(ratios),
            "ratios": ratios,
        }
    return figures_by_name


def _engine(file: Path, figures: dict[str, Any], mixed: str) -> dict[str, float]:
    """The embedded engine's tokens a second divided by vLLM's."""
    speeds = json.loads(file.read_text())["tokens a second"]
    pairs = (("engine, prompts mixed", mixed), ("engine, no prompt", BARE))
    return {
        f"{own} ÷ vLLM, {other}": statistics.median(speeds[own])
        / figures[other]["tokens per second"]
        for own, other in pairs
    }


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", help="a folder; a random model of --shape if not given")
    parser.add_argument("--shape", choices=SHAPES, default="gpt2")
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--length", type=int, default=10, help="virtual tokens")
    parser.add_argument("--source", type=int, default=32)
    parser.add_argument("--answer", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--clock", choices=CLOCKS, default="cpu")
    parser.add_argument("--no-caching", action="store_true", help="without vLLM's prefix cache")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    parser.add_argument("--engine", type=Path, help="a report of bench/serving.py")
    options = parser.parse_args()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from vllm import LLM

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = options.model or random_model(options.shape, folder / "model")
        names = write_prompts(folder / "prompts", model, options.prompts, options.length)
        engine = LLM(
            model=model,
            dtype="float32",
            enforce_eager=True,
            skip_tokenizer_init=True,
            max_model_len=512,
            max_num_seqs=options.requests,
            enable_prefix_caching=not options.no_caching,
            kv_transfer_config={
                "kv_connector": "ForewordConnector",
                "kv_role": "kv_consumer",
                "kv_connector_extra_config": {"prompts": str(folder / "prompts")},
            },
        )
        vocabulary = engine.llm_engine.model_config.get_vocab_size()
        figures = measured(variants(engine, names, options, vocabulary), options)
    rounds = f"of {options.rounds} rounds"
    print(f"{'variant':28s} tokens/s  beside bare  ({rounds})")
    for name, measured_figures in figures.items():
        low, high = min(measured_figures["ratios"]), max(measured_figures["ratios"])
        print(
            f"{name:28s} {measured_figures['tokens per second']:8.0f}  "
            f"{measured_figures['beside bare, median of ratios']:.2f}  ({low:.2f} to {high:.2f})"
        )
    beside = _engine(options.engine, figures, f"{len(names)} prompts") if options.engine else {}
    for name, ratio in beside.items():
        print(f"{name}: {ratio:.2f}")
    if options.out:
        stated = {
            "command": shlex.join(["python", *sys.argv]),
            "model": Path(options.model).name if options.model else options.shape,
            "requests": options.requests,
            "virtual tokens": options.length,
            "source tokens": options.source,
            "new tokens": options.answer,
            "clock": options.clock,
            "versions": {
                "python": sys.version.split()[0],
                **{name: version(name) for name in ("foreword-vllm", "torch", "vllm-cpu")},
            },
            "variants": figures,
            "embedded engine beside vLLM": beside,
        }
        options.out.write_text(json.dumps(stated, indent=2) + "\n")


if __name__ == "__main__":
    main()
