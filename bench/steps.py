"""Time and memory of a training step: methods x shapes of backbone, beside the floor and PEFT.

    python bench/steps.py --shape bert-base --threads 1 --clock cpu --out bench/results
    python bench/steps.py --table bench/results         # all that was measured, as Markdown
    python bench/steps.py --table bench/results --plot docs/images/steps.png

One row of the table is a method on a shape. In it take turns, on the same frozen weights, step by
step, each step in another order:

- floor: the backbone without a prompt, forward and gradient to its input embeddings, the head at
  the positions that predict something alone; the stricter one with foreword's activation kernel;
- foreword: the library's own step (`foreword.training.loop._one_step`), batches of similar length;
- PEFT: `model(**batch).loss`, AdamW, shuffled batches, as people run it; and on foreword's batches.

Figures are ratios: medians over rounds of the time of a round divided by the floor's in that round.
Memory is the most that a step holds beyond the backbone (bytes of live tensors), in one batch.
A row that is in the file of results already is not measured again, and `--minutes` ends before a
row that would begin later: the same command goes on. What PEFT cannot do says its error.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

import peft_steps
import training
from foreword.axes.readout import Generation, Readout, SequenceHead
from foreword.backbone import Backbone, has_units
from foreword.backbone.layout import Layout, Pair
from foreword.backbone.memory import Alive, resident
from foreword.backbone.modules.activations import fuse_activations
from foreword.common.pictures import new_figure, write_figure
from foreword.common.progress import Silent
from foreword.methods import (
    InfixTuning,
    LoRA,
    MethodOptions,
    PrefixTuning,
    PromptTuning,
    PTuningV2,
)
from foreword.methods.axes import MLP, Table
from foreword.recipe import TrainingSpec
from foreword.training.batching import POOL
from foreword.training.hardware import Hardware
from foreword.training.loop import _one_step
from foreword.training.reuse import Planned, kept_encodings
from foreword.training.signals import Stop
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose
from shapes import LABELS, SHAPES, Shape, make_model

FLOOR, STRICT, OURS = "floor", "floor, one kernel", "foreword"
PEFT, PEFT_SORTED = "PEFT", "PEFT, our batches"
LONG = 512
MANY = "P-Tuning v2 of 512"
KEPT = "prefix, decoder alone, sources kept"
"""A step after what the encoder reads was kept, which is done before the first one."""
Step = Callable[[list[int]], Tensor]


def methods_of(shape: Shape, model: PreTrainedModel, length: int) -> dict[str, MethodOptions]:
    """The methods that are measured on a shape, by their names in the table."""
    table: dict[str, Any] = {"length": length, "reparameterization": Table()}
    lora = LoRA(name="lora", rank=peft_steps.RANK, alpha=2.0 * peft_steps.RANK, dropout=0.0)
    prompt = PromptTuning(name="prompt-tuning", **table)
    if shape.answer == "label":
        deep = PTuningV2(name="p-tuning-v2", **table)
        many = deep.model_copy(update={"length": LONG})
        return {"P-Tuning v2": deep, "prompt": prompt, "LoRA": lora, MANY: many}
    mlp = PrefixTuning(
        name="prefix-tuning", length=length, reparameterization=MLP(hidden=peft_steps.HIDDEN)
    )
    prefix = PrefixTuning(name="prefix-tuning", **table)
    methods: dict[str, MethodOptions] = {
        "prefix, MLP": mlp,
        "prefix, table": prefix,
        "prompt": prompt,
        "LoRA": lora,
    }
    if model.config.is_encoder_decoder:  # all that PEFT's prefix is there
        alone = PrefixTuning(name="prefix-tuning", sites=("decoder",), **table)
        methods |= {"prefix, decoder alone": alone, KEPT: alone}
    else:
        methods["infix"] = InfixTuning(name="infix-tuning", **table)
    return {**methods, "prefix of 512": prefix.model_copy(update={"length": LONG})}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the rows of a shape that are not there yet, and print the table."""
    options = _options(arguments)
    transformers_logging.set_verbosity_error()
    if options.table:
        reports = stored(Path(options.table))
        print(table_of(reports))
        if options.plot:
            plot(reports, Path(options.plot))
        return 0
    if options.threads:
        torch.set_num_threads(options.threads)
    check_units(options)
    started, shape = time.monotonic(), SHAPES[options.shape]
    weights = make_model(options.shape, options.seed)
    weights = weights.to(options.device, getattr(torch, options.weights))
    pairs = shape.pairs(POOL * shape.rows, weights.config.vocab_size, options.seed)
    planned = training.plan(pairs, shape.rows, options.steps, options.seed)
    rounds = list(islice(planned, options.rounds))
    report = Report(options, sys.argv[1:] if arguments is None else arguments, weights)
    methods = methods_of(shape, weights, options.length)
    for name in options.methods or ():
        if name not in methods:
            sys.exit(f"--methods: {options.shape} has no row '{name}'; it has {', '.join(methods)}")
    for name, method in methods.items():
        if name in report.rows or (options.methods and name not in options.methods):
            continue
        if options.minutes and time.monotonic() - started > 60 * options.minutes:
            _say(f"{name} and what follows is for another time: the same command goes on")
            break
        report.keep(name, measured(name, method, shape, weights, pairs, rounds, options))
    print(table_of([report.figures()]))
    return 0


def check_units(options: argparse.Namespace) -> None:
    """End where bfloat16 is asked for and the device has no units for it: figures would tell of
    nothing else."""
    for name in ("precision", "weights"):
        if getattr(options, name) == "bfloat16" and not has_units("bfloat16", options.device):
            print(f"--{name} bfloat16: this device has no units for it; leave it out")
            sys.exit(2)


def measured(
    name: str,
    method: MethodOptions,
    shape: Shape,
    weights: PreTrainedModel,
    pairs: Sequence[Pair],
    rounds: Sequence[training.Round],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """One row: the ratios of its variants, and what each holds at most."""
    backbone = training.as_backbone(training.same_weights(weights))
    model = compose(backbone, method, readout_of(shape, backbone))
    plain = model.bare()
    layouts = {
        tuple(rows): plain.lay_out([pairs[i] for i in rows])
        for batches in rounds
        for rows in batches.sorted
    }
    strict = training.same_weights(weights)
    fuse_activations(strict)
    steps: dict[str, tuple[str, Step]] = {
        FLOOR: ("sorted", floor_step(training.same_weights(weights), layouts)),
        STRICT: ("sorted", floor_step(strict, layouts)),
        OURS: ("sorted", our_step(model, pairs, shape, options, kept=name == KEPT)),
    }
    failure = None
    try:
        theirs = peft_steps.step_of(
            training.same_weights(weights), pairs, name, method.length, shape.answer
        )
        if theirs is not None:
            theirs = _autocast(theirs, options)
            theirs(rounds[0].sorted[0])
            steps |= {PEFT: ("shuffled", theirs), PEFT_SORTED: ("sorted", theirs)}
    except Exception as error:  # of a library that says what it cannot do in any way
        failure = f"{type(error).__name__}: {str(error).splitlines()[0][:100]}"
    steps = {
        variant: (batches, _autocast(step, options) if variant in (FLOOR, STRICT) else step)
        for variant, (batches, step) in steps.items()
    }
    memory: dict[str, int] = {}
    widest = max(
        (one for batches in rounds for one in batches.sorted),
        key=lambda rows: sum(pairs[i].length for i in rows),
    )
    for variant, (_, step) in steps.items():
        step(widest)
        with Alive(resident(weights)) as alive:  # what is trained counts, ours as PEFT's
            step(widest)
        memory[variant] = alive.peak
    variants = [
        training.Variant(variant, batches, "targets", lambda rows, step=step: step(rows).item())
        for variant, (batches, step) in steps.items()
    ]
    ratios: dict[str, list[float]] = {variant: [] for variant in steps}
    for number, batches in enumerate(rounds):
        seconds = training.time_round(
            variants, batches, random.Random(number), weights.device, options.clock
        )
        for variant, value in seconds.items():
            ratios[variant].append(value / seconds[FLOOR])
        _say(
            f"{options.shape}, {name}, round {number + 1}/{len(rounds)}: "
            + "  ".join(f"{variant} {values[-1]:.2f}" for variant, values in ratios.items())
        )
    return {
        "virtual_tokens": method.length,
        "trained_parameters": model.trained_parameters,
        "time_over_floor": {
            variant: {
                "median": round(statistics.median(values), 4),
                "min": round(min(values), 4),
                "max": round(max(values), 4),
                "ratios": [round(value, 4) for value in values],
            }
            for variant, values in ratios.items()
        },
        "peak_over_floor": {
            variant: round(peak / memory[FLOOR], 4) for variant, peak in memory.items()
        },
        **({"peft_fails": failure} if failure else {}),
    }


def readout_of(shape: Shape, backbone: Backbone) -> Readout:
    """What the methods of a shape answer with."""
    if shape.answer == "text":
        return Generation()
    return SequenceHead(backbone.hidden_width, LABELS, dropout=0.0)


def our_step(
    model: TunedModel,
    pairs: Sequence[Pair],
    shape: Shape,
    options: argparse.Namespace,
    *,
    kept: bool = False,
) -> Step:
    """The library's own optimizer step, set up as `foreword.training.train` does."""
    spec = TrainingSpec(steps=1, batch_size=shape.rows, learning_rate=peft_steps.RATE)
    hardware = Hardware.of(model.backbone.device.type, options.precision)
    trained = [one for one in model.parameters() if one.requires_grad]
    if kept:
        planned = Planned(model, pairs, spec, 2 * len(pairs), hardware)
        known = kept_encodings(planned, Silent(), Stop())
        assert known is not None, "nothing enters the encoder"
        model.reuses = (known,)
    wrapped, optimizer = hardware.accelerator.prepare(
        model, torch.optim.AdamW(trained, lr=peft_steps.RATE, weight_decay=0.0, fused=True)
    )

    def step(rows: list[int]) -> Tensor:
        losses, _ = _one_step(wrapped, model, pairs, [rows], spec, hardware, optimizer)
        return torch.tensor(losses["loss"])

    return step


def _autocast(step: Step, options: argparse.Namespace) -> Step:
    kind, enabled = torch.device(options.device).type, options.precision == "bfloat16"

    def cast(rows: list[int]) -> Tensor:
        with torch.autocast(kind, torch.bfloat16, enabled=enabled):
            return step(rows)

    return cast


# The floor


def floor_step(model: PreTrainedModel, layouts: dict[tuple[int, ...], Layout]) -> Step:
    """Forward and backward of a frozen backbone for one batch; returns the mean loss.

    Args:
        model: gets input embeddings, and is not changed.
        layouts: by a batch's rows, without virtual tokens.
    """
    torch.manual_seed(0)
    head = nn.Linear(_width(model), LABELS).to(model.device, model.dtype).requires_grad_(False)

    def step(rows: list[int]) -> Tensor:
        return floor_loss(model, layouts[tuple(rows)], head)[0]

    return step


def floor_loss(
    model: PreTrainedModel, layout: Layout, head: nn.Linear
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The floor on one batch: the mean loss, and its gradients at the input embeddings (an
    encoder's and a decoder's, where there are both)."""

    def embedded(part: nn.Module, ids: Tensor) -> Tensor:
        embeddings: Tensor = part.get_input_embeddings()(ids)  # type: ignore[operator]
        return embeddings.detach().requires_grad_()

    if layout.source is None:
        given = embedded(model, layout.input_ids)
        places = {} if layout.marks is not None else {"position_ids": layout.position_ids}
        caches = {} if layout.marks is not None else {"use_cache": False}
        states = model.base_model(
            inputs_embeds=given, attention_mask=layout.attention_mask, **places, **caches
        ).last_hidden_state
        inputs: tuple[Tensor, ...] = (given,)
    else:
        encoder, decoder = model.get_encoder(), model.get_decoder()
        read = embedded(encoder, layout.source.input_ids)
        written = embedded(decoder, layout.input_ids)
        memory = encoder(
            inputs_embeds=read, attention_mask=layout.source.attention_mask
        ).last_hidden_state
        states = decoder(
            inputs_embeds=written,
            attention_mask=layout.attention_mask,
            encoder_hidden_states=memory,
            encoder_attention_mask=layout.source.attention_mask,
            use_cache=False,
        ).last_hidden_state
        inputs = (read, written)
    flat = states.flatten(0, 1)
    if layout.marks is not None:
        assert layout.labels is not None, "marked states tell labels"
        logits, right = head(flat[layout.marks.flatten()]), layout.labels
    else:
        taken = flat.index_select(0, layout.reading_positions())
        if model.config.is_encoder_decoder and getattr(
            model.config, "scale_decoder_outputs", False
        ):
            taken = taken * model.config.d_model**-0.5
        logits, right = model.get_output_embeddings()(taken), layout.target_ids()
    loss = nn.functional.cross_entropy(logits, right)
    return loss.detach(), torch.autograd.grad(loss, inputs)


def _width(model: PreTrainedModel) -> int:
    embeddings = model.get_input_embeddings()
    assert isinstance(embeddings, nn.Embedding)
    return embeddings.embedding_dim


# Results


class Report:
    """The rows of a shape, in a file where there is a folder: each is written when it is there."""

    def __init__(
        self, options: argparse.Namespace, arguments: Sequence[str], weights: PreTrainedModel
    ) -> None:
        half = "-bfloat16" if options.precision == "bfloat16" else ""
        own = "-weights-bfloat16" if options.weights == "bfloat16" else ""
        name = f"steps-{options.shape}-{options.device}{half}{own}.json"
        self.file = Path(options.out) / name if options.out else None
        self.about = {
            "command": shlex.join(["python", "bench/steps.py", *_of_all_rows(arguments)]),
            "shape": options.shape,
            "parameters": sum(one.numel() for one in weights.parameters()),
            "device": options.device,
            "precision": options.precision,
            **({"weights": options.weights} if own else {}),
            "threads": torch.get_num_threads(),
            "clock": options.clock,
            "rounds": options.rounds,
            "steps_per_round": options.steps,
            "versions": {
                one: version(one) for one in ("torch", "transformers", "peft", "foreword")
            },
        }
        self.rows: dict[str, Any] = {}
        if self.file is not None and self.file.is_file():
            before = json.loads(self.file.read_text(encoding="utf-8"))
            self.rows = before.pop("rows")
            for what in self.about:
                if what != "command" and before.get(what) != self.about[what]:
                    sys.exit(
                        f"{self.file}: was measured with {what} {before.get(what)}, and now it is "
                        f"{self.about[what]}; give the same, or another folder"
                    )

    def figures(self) -> dict[str, Any]:
        """All there is."""
        return {**self.about, "rows": self.rows}

    def keep(self, name: str, row: dict[str, Any]) -> None:
        """Add a row."""
        self.rows[name] = row
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(self.figures(), indent=1, ensure_ascii=False)
            self.file.write_text(text + "\n", encoding="utf-8")


def _of_all_rows(arguments: Sequence[str]) -> list[str]:
    """The command line that measures a shape whole, in however many parts it was measured."""
    kept, skip = [], False
    for argument in training.without_out(arguments):
        if argument.startswith("--"):
            skip = argument.partition("=")[0] in ("--methods", "--minutes")
        if not skip:
            kept.append(argument)
    return kept


def stored(folder: Path) -> list[dict[str, Any]]:
    """The reports of a folder."""
    files = sorted(folder.glob("steps-*.json"))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def name_of(report: dict[str, Any]) -> str:
    """A shape, and what of it is not float32: its arithmetic, or its weights too."""
    half = ", bfloat16" if report["precision"] == "bfloat16" else ""
    return report["shape"] + (", bfloat16 weights" if "weights" in report else half)


def plot(reports: Sequence[dict[str, Any]], file: Path) -> None:
    """The time of every row as a picture: a line from smallest to largest, a mark at the median."""
    rows = [
        (f"{name_of(report)}: {name}", row["time_over_floor"])
        for report in reports
        for name, row in report["rows"].items()
    ]
    figure, axes = new_figure(8, 1.2 + 0.34 * len(rows))
    marks = {OURS: ("o", "tab:blue"), PEFT: ("s", "tab:orange"), PEFT_SORTED: ("D", "tab:green")}
    for variant, (mark, color) in marks.items():
        there = [(-at, row[variant]) for at, (_, row) in enumerate(rows) if variant in row]
        places = [at for at, _ in there]
        axes.hlines(places, [o["min"] for _, o in there], [o["max"] for _, o in there], color=color)
        medians = [one["median"] for _, one in there]
        axes.plot(medians, places, mark, color=color, label=variant)
    axes.axvline(1, color="gray", linewidth=1)
    axes.margins(y=0.01)
    axes.set_yticks([-at for at in range(len(rows))], [name for name, _ in rows])
    axes.set_xlabel("time of a training step ÷ the bare backbone's (floor)")
    axes.legend()
    write_figure(figure, file)


def table_of(reports: Sequence[dict[str, Any]]) -> str:
    """Reports as a Markdown table: each ratio is to the floor or to PEFT, as its column says."""
    lines = [
        "| shape | method | ÷ floor | ÷ floor, one kernel | min–max | PEFT ÷ foreword | "
        "PEFT on our batches ÷ foreword | peak ÷ PEFT's |",
        "|---|---|--:|--:|---|--:|--:|--:|",
    ]
    for report in reports:
        shape = name_of(report)
        for name, row in report["rows"].items():
            times = {one: ratio["median"] for one, ratio in row["time_over_floor"].items()}
            peaks, ours = row["peak_over_floor"], row["time_over_floor"][OURS]
            own = times[OURS]
            theirs = [
                f"{times[one] / own:.2f}" if one in times else "–" for one in (PEFT, PEFT_SORTED)
            ]
            memory = f"{peaks[OURS] / peaks[PEFT]:.2f}" if {OURS, PEFT} <= peaks.keys() else "–"
            if "peft_fails" in row:
                theirs[0] = "fails"
            lines.append(
                f"| {shape} | {name} | {own:.2f} | {own / times[STRICT]:.2f} "
                f"| {ours['min']:.2f}–{ours['max']:.2f} | {' | '.join(theirs)} | {memory} |"
            )
    return "\n".join(lines)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--shape", choices=tuple(SHAPES), default="gpt2")
    parser.add_argument("--methods", nargs="*", help="names of rows; default: all of the shape")
    parser.add_argument("--rounds", type=int, default=5, help="default %(default)s")
    parser.add_argument("--steps", type=int, default=3, help="steps a round, default %(default)s")
    parser.add_argument("--length", type=int, default=10, help="virtual tokens, P = %(default)s")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument(
        "--weights",
        choices=("float32", "bfloat16"),
        default="float32",
        help="type of the backbone's weights, as large models are stored",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="of the CPU; default: torch's")
    parser.add_argument("--clock", choices=tuple(training.CLOCKS), default="wall")
    parser.add_argument("--minutes", type=float, help="begin no row later than that")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="folder for steps-<shape>-<device>.json")
    parser.add_argument("--table", help="folder of results: print them and measure nothing")
    parser.add_argument("--plot", help="with --table: the picture's file")
    return parser.parse_args(arguments)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
