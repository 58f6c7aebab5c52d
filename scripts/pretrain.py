"""Pretrain a small model from scratch on a JSONL of texts: a decoder, an encoder, or both.

    python scripts/pretrain.py masked --data pretraining.jsonl.xz --out runs/mini-mlm --minutes 120

Objectives: `causal` (GPT-2), `masked` (BERT; whole words, 15 %, of these 80 % mask, 10 % random,
10 % kept) and `denoising` (T5; 15 % of the tokens in spans of 3 on average, each replaced by a
sentinel). All use the byte-level BPE of foreword/mini: its ids stay as they are, what an objective
needs besides ([MASK], <extra_id_0>, ...) is added behind them. With --vocabulary characters,
`masked` has a vocabulary of the characters in the training text (see pretrain_characters.py).

The data is a JSONL file, plain, .xz or .gz, of objects with `kind` and `text`. Lines in the record
notations of the sample tasks (`name : X | type : Y`, `name[X], type[Y]`) are taken out first, and
documents that begin with one are dropped (--drop-lines names other patterns). Of each kind, the
documents with the smallest SHA-256 are held out. The rest is one stream of tokens, cut into windows
of equal length, which are read in a shuffled order.

With --start-from, `denoising` trains no T5 from random weights but an encoder-decoder whose layers,
embeddings and positions are those of a trained GPT-2 model (Rothe et al. 2020): Blenderbot's
architecture, which is GPT-2's with cross-attention. --encoder-layers and --decoder-layers say which
layers each stack takes; --width, --layers and --heads are then the model's, not the options'. With
--rewritten, in so large a share of the first batches the decoder writes the whole text, each span
after its sentinel: it has the words before a span as a language model has them, and cross-attention
learns from every word that is only to be copied. The share falls to zero at the end.

The learning rate rises over --warmup steps, stays, and falls to zero over the last --decay of the
budget. With --early-share another share than 15 % of the text is hidden until the rate begins to
fall (Wettig et al. 2023; Ankner et al. 2024). The budget is --tokens, --minutes or --until,
whichever is spent first; with --tokens alone a run depends on its seed only. The last --long-share
of it reads windows of --long-length.

OUT holds:

    run.json             the settings and what the corpus was
    log.jsonl            losses, rates, held-out evaluations
    curve.png            the same as a picture
    checkpoints/         one every few minutes; a killed run goes on with --resume
    tokens.safetensors   the tokenized text; may be copied into the empty folder of a next run
    before-decay/        the checkpoint at which the rate began to fall
    model/               at the end: float16 weights, tokenizer, model card

`--resume` goes on from the newest checkpoint. `--resume before-decay` with a larger budget trains
on at the full rate from where it began to fall. Weights, optimizer, position in the data and random
choices are as if the run had never stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import shutil
import signal
import sys
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from datetime import time as dt_time
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from pretrain_card import draw_curve, write_card
from pretrain_characters import characters_of
from pretrain_objectives import (
    NOISE,
    OBJECTIVES,
    POSITIONS,
    Batch,
    Denoising,
    Masked,
    Objective,
    vocabulary_of,
)
from pretrain_start import DenoisingFrom
from pretrain_text import NOTATIONS, Corpus, Filter, Stream, load_corpus, read_split
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.utils import logging as transformers_logging

from foreword.common import files
from foreword.common.progress import PlainLog
from foreword.errors import ForewordError, RunError, UserError
from foreword.training.log import Log, read_log
from foreword.training.storage import Checkpoint, Storage, read_checkpoint

BUNDLED = Path(__file__).resolve().parents[1] / "src" / "foreword" / "bundled"
LOG_EVERY = 20
BEFORE_DECAY, TOKENS = "before-decay", "tokens.safetensors"
CHARACTERS = "characters"
RESERVE = 60.0
"""Seconds kept back from --until for the last evaluation, the model folder and the card."""


@dataclass(frozen=True)
class Settings:
    """What makes a run what it is; a resumed run has the same."""

    objective: str
    length: int
    long_length: int
    long_share: float
    rows: int
    rate: float
    warmup: int
    decay: float
    weight_decay: float
    held_out_share: float
    seed: int
    width: int
    layers: int
    heads: int
    embeddings: str | None
    float32: bool
    compile: bool
    early_share: float = NOISE
    start_from: str | None = None
    encoder_layers: str = ""
    decoder_layers: str = ""
    positions: int = POSITIONS
    rewritten: float = 0.0
    vocabulary: str = ""

    def relevant(self) -> Settings:
        """Without the layers of a model that the run does not start from."""
        if self.start_from is not None:
            return self
        return replace(self, encoder_layers="", decoder_layers="")


@dataclass
class Position:
    """How far a run is."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    windows: int = 0
    long_windows: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0


@dataclass(frozen=True)
class Budget:
    """How much a run may spend in all, what was spent before a resume included."""

    tokens: float
    seconds: float

    def spent(self, position: Position) -> float:
        """From 0 to 1 and over."""
        return max(position.tokens / self.tokens, position.seconds / self.seconds)


class Training:
    """A run in a folder.

    Args:
        out: the folder.
        settings: what makes the run what it is.
        objective: what is learned.
        corpus: from what.
        budget: how long.
    """

    def __init__(
        self, out: Path, settings: Settings, objective: Objective, corpus: Corpus, budget: Budget
    ) -> None:
        self.out, self.settings, self.objective = out, settings, objective
        self.corpus, self.budget, self.at = corpus, budget, Position()
        self.storage = Storage(out / "checkpoints")
        self.before_decay = Storage(out / BEFORE_DECAY)
        self.progress = PlainLog(every=60.0)
        self.stopping = False
        torch.manual_seed(settings.seed)
        self.model = objective.model()
        if settings.embeddings is not None:
            copy_embeddings(Path(settings.embeddings), self.model)
        self.model.set_attn_implementation("eager")
        self.model.train()
        self.optimizer = optimizer_of(self.model, objective, settings)
        self.summed: Any = lambda batch: objective.loss(self.model, batch).sum()
        if settings.compile:
            self.summed = torch.compile(self.summed, dynamic=False)

    def run(self, log: Log, *, save_every: float, evaluate_every: float) -> bool:
        """Train until the budget is spent; False if a signal came first."""
        self.mark_before_decay(log)
        saved = evaluated = time.monotonic()
        earlier, begun = self.at.seconds, time.monotonic()
        tokens_then, seconds_then = self.at.tokens, self.at.seconds
        while self.budget.spent(self.at) < 1 and not self.stopping:
            loss, rate = self.step()
            self.at.seconds = earlier + time.monotonic() - begun
            self.at.loss_sum += loss
            self.at.loss_count += 1
            if self.at.step % LOG_EVERY == 0:
                per_second = (self.at.tokens - tokens_then) / (self.at.seconds - seconds_then)
                tokens_then, seconds_then = self.at.tokens, self.at.seconds
                mean = self.at.loss_sum / self.at.loss_count
                self.at.loss_sum, self.at.loss_count = 0.0, 0
                self.log(log, loss=mean, rate=rate, tokens_per_second=round(per_second, 1))
                if not math.isfinite(mean):
                    raise RunError(f"step {self.at.step}: the loss is {mean}; lower --rate")
            now = time.monotonic()
            if now - evaluated >= evaluate_every:
                self.log(log, evaluation=self.evaluate())
                evaluated = time.monotonic()
            if now - saved >= save_every:
                self.save(self.storage, log)
                saved = time.monotonic()
            self.mark_before_decay(log)
        self.save(self.storage, log)
        return not self.stopping

    def step(self) -> tuple[float, float]:
        """One optimizer step: its loss and its learning rate."""
        length = self.current_length()
        rows = max(1, self.settings.rows * self.settings.length // length)
        share = self.share()
        batch = self.next_batch(length, rows, share, rewritten=self.rewrites())
        rate = self.rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        count = self.objective.predicted(batch)
        with self.autocast():
            loss = self.summed(batch) / count
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.at.step += 1
        self.at.tokens += rows * self.objective.taken(length, share)
        return float(loss.detach()), rate

    def current_length(self) -> int:
        """Short windows, and long ones for the last part of the budget."""
        late = self.budget.spent(self.at) >= 1 - self.settings.long_share
        return self.settings.long_length if late else self.settings.length

    def share(self) -> float:
        """How much of the text is hidden: --early-share until the rate falls, then 15 %."""
        decaying = self.budget.spent(self.at) >= 1 - self.settings.decay
        return NOISE if decaying else self.settings.early_share

    def rewrites(self) -> bool:
        """Whether the next step writes whole texts: fewer and fewer do."""
        early = 1 - self.budget.spent(self.at)
        dice = np.random.default_rng([self.settings.seed, self.at.step, 1])
        return bool(dice.random() < self.settings.rewritten * early)

    def rate(self) -> float:
        """The learning rate of the next step."""
        up = min(1.0, (self.at.step + 1) / max(1, self.settings.warmup))
        left = max(0.0, 1 - self.budget.spent(self.at))
        down = min(1.0, left / self.settings.decay) if self.settings.decay else 1.0
        return self.settings.rate * min(up, down)

    def next_batch(self, length: int, rows: int, share: float, *, rewritten: bool = False) -> Batch:
        """The next windows of the shuffled stream; every pass has its own order."""
        stream, seed = self.corpus.training, self.settings.seed
        count = stream.windows(self.objective.taken(length, share))
        if not count:
            raise UserError(f"the training text is shorter than one window of {length}")
        is_long = length != self.settings.length
        begin = self.at.long_windows if is_long else self.at.windows
        chosen = [
            order_of(seed, length, number // count, count)[number % count]
            for number in range(begin, begin + rows)
        ]
        if is_long:
            self.at.long_windows += rows
        else:
            self.at.windows += rows
        objective = self.objective
        if rewritten:
            assert isinstance(objective, Denoising)
            objective = objective.rewriting
        return objective.batch(stream, np.array(chosen), length, [seed, self.at.step], share)

    def evaluate(self, windows: int = 128) -> dict[str, float]:
        """Held-out loss of each kind, in nats per predicted token."""
        self.model.eval()
        with self.autocast():
            found = evaluate(self.model, self.objective, self.corpus, self.settings.length, windows)
        self.model.train()
        return found

    def autocast(self) -> torch.autocast:
        """bfloat16, unless float32 was asked for."""
        return torch.autocast("cpu", torch.bfloat16, enabled=not self.settings.float32)

    def log(self, log: Log, **values: Any) -> None:
        """An entry with the position in front."""
        at = {"step": self.at.step, "tokens": self.at.tokens, "seconds": round(self.at.seconds, 1)}
        log({**at, **values})
        if "evaluation" in values:
            losses = ", ".join(f"{kind} {loss:.3f}" for kind, loss in values["evaluation"].items())
            self.progress.say(f"step {self.at.step}, held out: {losses}")
        elif self.at.step % (5 * LOG_EVERY) == 0:
            self.progress.say(
                f"step {self.at.step}, {self.at.tokens / 1e6:.2f} M tokens, loss "
                f"{values['loss']:.3f}, rate {values['rate']:.2e}, "
                f"{values['tokens_per_second']:.0f} tokens/s, "
                f"{100 * self.budget.spent(self.at):.1f} % of the budget"
            )

    def mark_before_decay(self, log: Log) -> None:
        """Keep a checkpoint of the moment at which the rate begins to fall."""
        decaying = self.budget.spent(self.at) >= 1 - self.settings.decay
        if decaying and self.at.step and not self.before_decay.candidates():
            self.save(self.before_decay, log)

    def save(self, storage: Storage, log: Log) -> None:
        """Write a checkpoint."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.model.named_parameters():
            tensors[f"model.{name}"] = parameter.detach()
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = value
        values = {
            "settings": asdict(self.settings),
            "position": asdict(self.at),
            "log": log.mark(),
        }
        storage.save(self.at.step, tensors, values)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a checkpoint.

        Raises:
            UserError: it belongs to a run with other settings.
        """
        theirs = asdict(Settings(**checkpoint.values["settings"]).relevant())
        ours = asdict(self.settings.relevant())
        if other := [name for name in ours if theirs[name] != ours[name]]:
            raise UserError(
                f"{self.out}: the run was started with other settings: "
                + ", ".join(f"{name} {theirs[name]}, now {ours[name]}" for name in other)
            )
        self.at = Position(**checkpoint.values["position"])
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(checkpoint.tensors[f"model.{name}"])
                self.optimizer.state[parameter] = {
                    key: checkpoint.tensors[f"optimizer.{key}.{name}"].clone()
                    for key in ("step", "exp_avg", "exp_avg_sq")
                    if f"optimizer.{key}.{name}" in checkpoint.tensors
                }


_orders: dict[tuple[int, int], tuple[int, np.ndarray]] = {}


def order_of(seed: int, length: int, epoch: int, count: int) -> np.ndarray:
    """The order of the windows in one pass over the text."""
    at, order = _orders.get((length, count), (-1, np.zeros(0)))
    if at != epoch:
        order = np.random.default_rng([seed, length, epoch]).permutation(count)
        _orders[length, count] = (epoch, order)
    return order


def optimizer_of(
    model: PreTrainedModel, objective: Objective, settings: Settings
) -> torch.optim.AdamW:
    """AdamW; decay on matrices only, and the embeddings' rate times the objective's factor."""
    table = model.get_input_embeddings().weight
    matrices, rest = [], []
    for parameter in model.parameters():
        if parameter is not table:
            (matrices if parameter.dim() > 1 else rest).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": settings.weight_decay, "factor": 1.0},
            {"params": rest, "weight_decay": 0.0, "factor": 1.0},
            {"params": [table], "weight_decay": 0.0, "factor": objective.embedding_rate},
        ],
        lr=settings.rate,
        betas=(0.9, 0.98),
        eps=1e-8,
        fused=True,
    )


def copy_embeddings(folder: Path, model: PreTrainedModel) -> None:
    """Start the word embeddings from another model's of the same ids, at the new model's scale."""
    other = AutoModel.from_pretrained(folder, dtype=torch.float32).get_input_embeddings().weight
    table = model.get_input_embeddings().weight
    with torch.no_grad():
        free = table[: len(other)].abs().amax(0) > 0
        copy = (other - other.mean(0)) * (table.std() / other.std())
        table[: len(other), free] = copy[:, free]


def evaluate(
    model: nn.Module, objective: Objective, corpus: Corpus, length: int, windows: int
) -> dict[str, float]:
    """Mean loss per predicted token on windows spread over each kind's held-out documents."""
    losses = {}
    for kind, stream in corpus.held_out.items():
        total, count = 0.0, 0
        for batch in held_out_batches(objective, stream, length, windows):
            with torch.no_grad():
                total += float(objective.loss(model, batch).sum())
            count += objective.predicted(batch)
        losses[kind] = total / count if count else math.nan
    return losses


def held_out_batches(
    objective: Objective, stream: Stream, length: int, windows: int, rows: int = 32
) -> list[Batch]:
    """The same windows with the same choices every time."""
    available = stream.windows(objective.taken(length))
    chosen = np.unique(np.linspace(0, available - 1, min(windows, available)).astype(int))
    return [
        objective.batch(stream, chosen[at : at + rows], length, [2**31, at])
        for at in range(0, len(chosen), rows)
    ]


def newest(storage: Storage) -> Checkpoint:
    """The newest checkpoint that is whole.

    Raises:
        UserError: there is none.
    """
    for folder in storage.candidates():
        try:
            return read_checkpoint(folder)
        except ValueError as error:
            print(f"{folder} is passed over: {error}", file=sys.stderr)
    raise UserError(f"{storage.folder}: there is no checkpoint to go on from")


def save_model(training: Training) -> Path:
    """Write `model/`: float16 weights and the tokenizer; the folder changes in one move."""
    model = training.objective.model()
    model.load_state_dict(training.model.state_dict())
    training.objective.finish(model)
    if any(not p.isfinite().all() for p in model.half().parameters()):
        raise RunError("a weight is too large for float16")
    target = training.out / "model"
    temporary = training.out / ".model.new"
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    training.objective.saved_tokenizer().save_pretrained(temporary)
    for file in temporary.iterdir():
        file.chmod(0o644)
    shutil.rmtree(target, ignore_errors=True)
    temporary.replace(target)
    return target


def read_budget(options: argparse.Namespace, spent: float, started: datetime) -> Budget:
    """The smallest of the limits that were given.

    Raises:
        UserError: none was.
    """
    seconds = math.inf
    if options.minutes is not None:
        seconds = 60.0 * options.minutes
    if options.until is not None:
        end = started.replace(
            hour=options.until.hour, minute=options.until.minute, second=0, microsecond=0
        )
        if end <= started:
            end += timedelta(days=1)
        left = (end - datetime.now(UTC)).total_seconds() - RESERVE
        seconds = min(seconds, spent + max(1.0, left))
    tokens = math.inf if options.tokens is None else options.tokens
    if math.isinf(seconds) and math.isinf(tokens):
        raise UserError("say how long: --tokens, --minutes or --until")
    return Budget(tokens=tokens, seconds=seconds)


def clock(text: str) -> dt_time:
    """A time of day."""
    return datetime.strptime(text, "%H:%M").time()


def read_options(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("objective", choices=sorted(OBJECTIVES))
    add("--data", type=Path, required=True, metavar="FILE", help="JSONL, plain, .xz or .gz")
    add("--out", type=Path, required=True, metavar="FOLDER")
    add(
        "--vocabulary",
        type=Path,
        default=BUNDLED / "mini" / "tokenizer.json",
        metavar="FILE",
        help="a tokenizer.json, or the word characters: made of those of the training text",
    )
    add("--embeddings", metavar="FOLDER", help="start the word embeddings from this model's")
    add("--start-from", metavar="FOLDER", help="denoising: a GPT-2 model whose layers it takes")
    add("--encoder-layers", default="0,3,4", metavar="N,N,...", help="of it (%(default)s)")
    add("--decoder-layers", default="0,1,3,4,5", metavar="N,N,...", help="of it (%(default)s)")
    add("--positions", type=int, default=POSITIONS, help="masked, --start-from (%(default)s)")
    add("--rewritten", type=float, default=0.0, help="share of the first batches (%(default)s)")
    add("--tokens", type=float, help="tokens of text to read in all")
    add("--minutes", type=float, help="minutes of training in all, earlier sessions included")
    add("--until", type=clock, metavar="HH:MM", help="the time of day (UTC) at which all is done")
    add("--resume", nargs="?", const="newest", choices=["newest", BEFORE_DECAY])
    add("--length", type=int, default=128, help="positions of a window (%(default)s)")
    add("--long-length", type=int, default=512, help="of the last windows (%(default)s)")
    add("--long-share", type=float, default=0.1, help="of the budget (%(default)s)")
    add("--rows", type=int, default=32, help="windows of --length in a batch (%(default)s)")
    add("--rate", type=float, default=1e-3, help="peak learning rate (%(default)s)")
    add("--warmup", type=int, default=300, help="steps (%(default)s)")
    add("--decay", type=float, default=0.3, help="share of the budget (%(default)s)")
    add("--early-share", type=float, default=NOISE, help="hidden before it (%(default)s)")
    add("--weight-decay", type=float, default=0.01)
    add("--held-out-share", type=float, default=0.01, help="of each kind (%(default)s)")
    add("--drop-lines", action="append", metavar="REGEX", help="instead of the known notations")
    add("--width", type=int, default=256)
    add("--layers", type=int, help="of each stack (6; denoising 4)")
    add("--heads", type=int, default=8)
    add("--seed", type=int, default=0)
    add("--threads", type=int, help="of torch")
    add("--float32", action="store_true", help="no bfloat16 autocast")
    add("--no-compile", action="store_true", help="no torch.compile")
    add("--save-every", type=float, default=3.0, metavar="MINUTES")
    add("--evaluate-every", type=float, default=10.0, metavar="MINUTES")
    add("--name", help="of the model, for the card (the name of OUT)")
    add("--attribution", default="not stated", help="source and licence of the text, for the card")
    return parser.parse_args(arguments)


def settings_of(options: argparse.Namespace) -> Settings:
    """The options that make a run what it is."""
    layers = options.layers or (4 if options.objective == "denoising" else 6)
    values = {**vars(options), "layers": layers, "compile": not options.no_compile}
    values["vocabulary"] = CHARACTERS if options.vocabulary == Path(CHARACTERS) else ""
    return Settings(**{name: values[name] for name in Settings.__dataclass_fields__}).relevant()


def vocabulary_for(settings: Settings, options: argparse.Namespace) -> Tokenizer:
    """The tokenizer of a file, or the characters of the training text."""
    if settings.vocabulary != CHARACTERS:
        return vocabulary_of(options.vocabulary.read_text(encoding="utf-8"))
    keep = Filter(options.drop_lines or NOTATIONS)
    training, _ = read_split(options.data, settings.held_out_share, keep)
    return characters_of(document.text for document in training)


def check_options(settings: Settings) -> None:
    """Make sure that the options go together.

    Raises:
        UserError: an option of another objective, or a window that is too long.
    """
    masked, denoising = (settings.objective == one.name for one in (Masked, Denoising))
    if not denoising and (settings.start_from is not None or settings.rewritten):
        raise UserError("--start-from and --rewritten are for the objective denoising")
    if not masked and settings.vocabulary:
        raise UserError("--vocabulary characters is for the objective masked")
    if settings.vocabulary and settings.embeddings is not None:
        raise UserError("--embeddings has other ids than --vocabulary characters")
    if max(settings.length, settings.long_length) > settings.positions:
        raise UserError(f"a window does not fit into {settings.positions} positions")


def objective_of(settings: Settings, tokenizer: Tokenizer) -> Objective:
    """What is learned, by random weights or by those of --start-from."""
    shape = {name: getattr(settings, name) for name in ("width", "layers", "heads")}
    if settings.objective == Masked.name:
        return Masked(tokenizer, shape, settings.positions)
    if settings.start_from is None:
        return OBJECTIVES[settings.objective](tokenizer, shape)
    stacks = (settings.encoder_layers, settings.decoder_layers)
    encoder, decoder = ([int(word) for word in stack.split(",")] for stack in stacks)
    return DenoisingFrom(tokenizer, Path(settings.start_from), encoder, decoder, settings.positions)


def command_of(arguments: list[str]) -> str:
    """The command that repeats a run, absolute paths cut to their last part."""
    shown = [Path(word).name if word.startswith("/") else word for word in arguments]
    return shlex.join(["python", "scripts/pretrain.py", *shown])


def train(options: argparse.Namespace, arguments: list[str]) -> int:
    """One run, from its start or from a checkpoint."""
    started = datetime.now(UTC)
    if options.threads:
        torch.set_num_threads(options.threads)
    transformers_logging.set_verbosity_error()
    out: Path = options.out
    if not options.data.is_file():
        raise UserError(f"--data {options.data}: no such file")
    if options.resume is None and not (
        out.is_dir() and [place.name for place in out.iterdir()] == [TOKENS]
    ):
        files.refuse_occupied(out)
    out.mkdir(parents=True, exist_ok=True)
    with files.locked(out):
        settings = settings_of(options)
        check_options(settings)
        tokenizer = vocabulary_for(settings, options)
        objective = objective_of(settings, tokenizer)
        corpus = load_corpus(
            options.data,
            tokenizer,
            share=settings.held_out_share,
            patterns=options.drop_lines or NOTATIONS,
            cache=out / TOKENS,
        )
        checkpoint = None
        if options.resume is not None:
            folder = BEFORE_DECAY if options.resume == BEFORE_DECAY else "checkpoints"
            checkpoint = newest(Storage(out / folder))
        spent = checkpoint.values["position"]["seconds"] if checkpoint else 0.0
        budget = read_budget(options, spent, started)
        training = Training(out, settings, objective, corpus, budget)
        mark = None
        if checkpoint is not None:
            training.restore(checkpoint)
            mark = checkpoint.values["log"]
            read_log(out / "log.jsonl", mark)
        else:
            about = {"settings": asdict(settings), "corpus": corpus.about}
            about["versions"] = {"torch": torch.__version__}
            about["parameters"] = sum(p.numel() for p in training.model.parameters())
            about["command"] = command_of(arguments)
            files.write_text(out / "run.json", json.dumps(about, indent=1) + "\n")

        def stop(number: int, frame: FrameType | None) -> None:
            del number, frame
            training.stopping = True

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            with Log(out / "log.jsonl", mark) as log:
                if options.resume == BEFORE_DECAY:
                    training.save(training.storage, log)
                    training.before_decay.remove()
                done = training.run(
                    log,
                    save_every=60 * options.save_every,
                    evaluate_every=60 * options.evaluate_every,
                )
                if not done:
                    training.progress.say(
                        f"stopped at step {training.at.step}; go on with --resume"
                    )
                    return 1
                training.log(log, evaluation=training.evaluate(512))
                read = log.mark()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        finish(training, options, read_log(out / "log.jsonl", read))
    return 0


def finish(training: Training, options: argparse.Namespace, entries: list[dict[str, Any]]) -> None:
    """The model folder, measured as it is read back, its card and the curve."""
    folder = save_model(training)
    model = type(training.model).from_pretrained(folder, dtype=torch.float32).eval()
    objective, corpus = training.objective, training.corpus
    losses = evaluate(model, objective, corpus, training.settings.length, 512)
    about = json.loads((training.out / "run.json").read_text(encoding="utf-8"))
    about |= {"position": asdict(training.at), "held_out": losses}
    files.write_text(training.out / "run.json", json.dumps(about, indent=1) + "\n")
    draw_curve(training.out / "curve.png", entries)
    shutil.copyfile(training.out / "curve.png", folder / "curve.png")
    name = options.name or training.out.name
    write_card(folder, name, options.attribution, about, objective, corpus)
    training.progress.say(f"{folder}: " + json.dumps(losses))


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 stopped or failed, 2 the input is wrong."""
    options = read_options(arguments)
    try:
        return train(options, sys.argv[1:] if arguments is None else arguments)
    except (UserError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    except (ForewordError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
