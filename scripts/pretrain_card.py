"""What a pretraining leaves to read: the loss curve and the model card with examples."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pretrain_objectives import NOISE, POSITIONS, Objective
from pretrain_text import BOUNDARY, Corpus, repeated
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
)

from foreword.common import files

EXAMPLES = 5
SHORTEST, LONGEST = 50, 120
_LINES = {"characters": (15, 40)}
_SENTENCE_END = re.compile(r"(\. |[。！？](?=\S))")


def draw_curve(file: Path, entries: list[dict[str, Any]]) -> None:
    """Training loss (running mean) and the held-out loss of each kind against tokens read."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steps = [entry for entry in entries if "loss" in entry]
    losses = [entry["loss"] for entry in steps]
    smooth = [float(np.mean(losses[max(0, i - 9) : i + 1])) for i in range(len(losses))]
    axes.plot(_millions(steps), smooth, color="#2e5e8c", linewidth=1.0, label="training")
    watched = [entry for entry in entries if "evaluation" in entry]
    for kind in watched[0]["evaluation"] if watched else ():
        values = [entry["evaluation"][kind] for entry in watched]
        axes.plot(_millions(watched), values, marker="o", markersize=3, label=f"held out: {kind}")
    axes.set_xlabel("million tokens read")
    axes.set_ylabel("nats per predicted token")
    axes.grid(alpha=0.25)
    axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, dpi=90)
    files.write_bytes(file, picture.getvalue())


def _millions(entries: list[dict[str, Any]]) -> list[float]:
    return [entry["tokens"] / 1e6 for entry in entries]


def write_card(
    folder: Path,
    name: str,
    attribution: str,
    about: dict[str, Any],
    objective: Objective,
    corpus: Corpus,
) -> None:
    """Write README.md into a model folder; the model is read back by transformers' own names."""
    page = _PAGES[objective.page or objective.name]
    settings, counts, at = about["settings"], about["corpus"], about["position"]
    tokens, hours = at["tokens"], at["seconds"] / 3600
    filtered = sum(counts["filtered_documents"].values())
    lines = sum(counts["filtered_lines"].values())
    held_out = "\n".join(
        f"| {kind} | {loss:.3f} | {math.exp(loss):.1f} | {counts['held_out_documents'][kind]:,} "
        f"| {100 * repeated(corpus.training, corpus.held_out[kind]):.0f} % |"
        for kind, loss in about["held_out"].items()
    )
    patterns = "\n".join(f"    {pattern}" for pattern in counts["filter"])
    text = f"""# {name}: {page["title"]}

{page["architecture"].format(**_stacks(settings))},
{about["parameters"] / 1e6:.2f} M parameters, half precision. {_vocabulary(page, objective)}

Pretrained from {_start(settings)} on {tokens / 1e6:.1f} M tokens of text, which
is {tokens / counts["training_tokens"]:.2f} passes over {counts["training_tokens"] / 1e6:.1f} M
({_kinds(counts["training_documents"])}), by
{page["objective"]}{_early(settings)}.{_rewritten(settings)} AdamW, peak rate
{settings["rate"]:g}, {settings["warmup"]} steps of warm-up, the last
{100 * settings["decay"]:.0f} % falling to zero; batches of {settings["rows"]} ×
{settings["length"]} positions{_long(settings)}; {at["step"]:,} steps in {hours:.1f} hours.

![Loss curve](curve.png)

## Held out

{page["measure"]}, in nats and as perplexity, on documents that were never trained on (by the hash
of their text). Other documents may say the same sentences: the last column is the share of all runs
of 12 tokens in the held-out text that the training text holds as well. Where it is high, the figure
is kinder than that of new text.

| kind | loss | perplexity | documents held out | said elsewhere |
|---|---|---|---|---|
{held_out}

## Text

{attribution}

The notations in which the sample tasks write their records (`name : X | type : Y`,
`name[X], type[Y]`) are not in the training text: {filtered:,} documents that begin with such a line
were dropped, and {lines:,} such lines elsewhere. A line is taken out if one of these matches:

{patterns}

## Examples

Held-out text, not selected; greedy.

{examples(folder, objective, corpus)}

## What it can and cannot do

{page["limits"]}

## The command that repeats it

    {_command(about["command"], tokens)}

SHA-256 of the data: `{counts["data_sha256"]}`.

Licence of the weights: Apache-2.0; attribution of the text as above.
"""
    files.write_text(folder / "README.md", _wrapped(text))


def _wrapped(text: str) -> str:
    """Paragraphs at 100 columns; lists, tables and indented lines stay as they are."""
    parts = text.split("\n\n")
    return (
        "\n\n".join(
            part
            if part.lstrip("\n")[:1] in ("#", "|", "-", "!", " ")
            else textwrap.fill(part, 100, break_long_words=False, break_on_hyphens=False)
            for part in parts
        )
        + "\n"
    )


def _command(command: str, tokens: int) -> str:
    """A run by the clock is repeated by the amount of text that it read."""
    timed = re.sub(r" --(?:until|minutes|tokens|resume) \S+", "", command)
    return f"{timed} --tokens {tokens}"


def _start(settings: dict[str, Any]) -> str:
    if settings.get("start_from"):
        return (
            f"the layers of {Path(settings['start_from']).name} (encoder: "
            f"{settings['encoder_layers']}; decoder: {settings['decoder_layers']}, counted from "
            "0), its embeddings and its positions (Rothe et al. 2020); the first encoder "
            "layer and cross-attention were set to look words up (see `scripts/pretrain_start.py`),"
        )
    folder = settings["embeddings"]
    named = f" (word embeddings start from those of {Path(folder).name})" if folder else ""
    return f"random weights{named}"


def _long(settings: dict[str, Any]) -> str:
    share, length = settings["long_share"], settings["long_length"]
    return f", the last {100 * share:.0f} % of the budget in windows of {length}" if share else ""


def _stacks(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with the depth of each stack."""
    depths = {
        f"{stack}_depth": len(settings.get(f"{stack}_layers", "").split(","))
        for stack in ("encoder", "decoder")
    }
    return {"positions": POSITIONS, **settings, **depths}


def _rewritten(settings: dict[str, Any]) -> str:
    if not settings.get("rewritten"):
        return ""
    return (
        f" In {100 * settings['rewritten']:.0f} % of the batches at the start, fewer and fewer, "
        "none at the end, the decoder wrote the whole text, each span after its sentinel."
    )


def _early(settings: dict[str, Any]) -> str:
    if settings["objective"] == "causal" or settings["early_share"] == NOISE:
        return ""
    return f"; {100 * settings['early_share']:.0f} % until the rate began to fall"


def _vocabulary(page: dict[str, str], objective: Objective) -> str:
    if "added" in page:
        return (
            "Byte-level BPE of foreword/mini (8,192 entries, same ids) with "
            f"{page['added']} added behind."
        )
    return (
        f"{objective.vocabulary:,} entries: `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]`, `[MASK]`, and the "
        "characters that occur twice or more in the training text, the most frequent first. A "
        "Chinese character or a mark is a token; a word of letters or digits is its first "
        "character and the others with `##` in front (WordPiece; small letters)."
    )


def _kinds(counts: dict[str, int]) -> str:
    return ", ".join(f"{kind} {count:,} documents" for kind, count in counts.items())


def examples(folder: Path, objective: Objective, corpus: Corpus) -> str:
    """What the model in a folder makes of a few lines of held-out text, as a Markdown list."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = _CLASSES[objective.name].from_pretrained(folder, dtype=torch.float32).eval()
    dice = np.random.default_rng(7)
    page = objective.page or objective.name
    lines = _sentences(corpus, *_LINES.get(page, (SHORTEST, LONGEST)))
    pages = [_WRITERS[page](model, tokenizer, line, dice) for line in lines]
    return "\n".join(pages)


def _sentences(corpus: Corpus, shortest: int, longest: int) -> list[str]:
    """A few lines of held-out text, the kinds in turn."""
    tokenizer = corpus.tokenizer
    by_kind: dict[str, list[str]] = {}
    for kind, stream in corpus.held_out.items():
        ends = np.flatnonzero(stream.ids == BOUNDARY)
        parts = np.split(stream.ids, ends + 1)[:-1]
        lines = [
            line.strip()
            for part in parts
            for line in _SENTENCE_END.sub(r"\1\n", tokenizer.decode(part[:-1].tolist())).split("\n")
        ]
        fit = [line for line in lines if shortest <= len(line) <= longest and "  " not in line]
        spread = np.linspace(0, len(fit) - 1, EXAMPLES + 2).astype(int)[1:-1] if fit else ()
        by_kind[kind] = [fit[i] for i in spread]
    rows = [line for group in zip(*by_kind.values(), strict=True) for line in group]
    return list(dict.fromkeys(rows))[:EXAMPLES]


def _filled(model: Any, tokenizer: Any, line: str, dice: np.random.Generator) -> str:
    words = line.split(" ")
    index = int(dice.integers(1, len(words)))
    word = words[index].rstrip(".,;!?")
    masked = " ".join([*words[:index], "[MASK]" + words[index][len(word) :], *words[index + 1 :]])
    return _guessed(model, tokenizer, masked, word)


def _filled_character(model: Any, tokenizer: Any, line: str, dice: np.random.Generator) -> str:
    letters = [place for place, character in enumerate(line) if character.isalnum()]
    chinese = [place for place in letters if "\u4e00" <= line[place] <= "\u9fff"]
    place = int(dice.choice(chinese or letters))
    masked = f"{line[:place]}[MASK]{line[place + 1 :]}"
    return _guessed(model, tokenizer, masked, line[place])


def _guessed(model: Any, tokenizer: Any, masked: str, word: str) -> str:
    encoded = tokenizer(masked, return_tensors="pt")
    at = (encoded["input_ids"][0] == tokenizer.mask_token_id).nonzero()[0, 0]
    with torch.no_grad():
        best = model(**encoded).logits[0, at].softmax(-1).topk(3)
    guesses = ", ".join(
        f"`{tokenizer.decode([i]).strip()}` {100 * p:.0f} %"
        for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    )
    return f"- {masked}\n  {guesses} (was: `{word}`)"


def _infilled(model: Any, tokenizer: Any, line: str, dice: np.random.Generator) -> str:
    words = line.split(" ")
    count = min(3, len(words) - 2)
    begin = int(dice.integers(1, len(words) - count))
    shown = " ".join([*words[:begin], "<extra_id_0>", *words[begin + count :]])
    encoded = tokenizer(shown, return_tensors="pt")
    with torch.no_grad():
        ids = model.generate(**encoded, max_new_tokens=16, do_sample=False)[0]
    infilled = _first_span(tokenizer.decode(ids))
    return f"- {shown}\n  `{infilled}` (was: `{' '.join(words[begin : begin + count])}`)"


def _first_span(text: str) -> str:
    """What was written for the first sentinel."""
    span = text.partition("<extra_id_0>")[2].partition("<extra_id_")[0]
    return " ".join(span.replace("</s>", " ").replace("<pad>", " ").split())


def _continued(model: Any, tokenizer: Any, line: str, dice: np.random.Generator) -> str:
    del dice
    words = line.split(" ")
    shown = " ".join(words[: max(1, len(words) // 2)])
    encoded = tokenizer(shown, return_tensors="pt")
    with torch.no_grad():
        ids = model.generate(**encoded, max_new_tokens=20, do_sample=False)[0]
    continued = tokenizer.decode(ids[encoded["input_ids"].shape[1] :], skip_special_tokens=True)
    return f"- {shown}\n  `{' '.join(continued.split())}`"


_CLASSES: dict[str, Any] = {
    "causal": AutoModelForCausalLM,
    "masked": AutoModelForMaskedLM,
    "denoising": AutoModelForSeq2SeqLM,
}
_WRITERS: dict[str, Callable[..., str]] = {
    "causal": _continued,
    "masked": _filled,
    "characters": _filled_character,
    "denoising": _infilled,
    "started": _infilled,
}
_PAGES = {
    "causal": {
        "title": "a small decoder to tune prompts on",
        "architecture": "GPT-2 architecture: {layers} layers, width {width}, {heads} heads, "
        "512 positions, tied embeddings",
        "added": "nothing",
        "objective": "predicting the next token",
        "measure": "Loss per token in windows of text",
        "limits": "It continues text in the style of its corpus, mostly grammatically and without "
        "much sense. It knows no facts and follows no instructions; it is for learning, "
        "tests and demonstrations of prompt methods.",
    },
    "masked": {
        "title": "a small encoder with a masked-language-model head to tune prompts on",
        "architecture": "BERT architecture: {layers} layers, width {width}, {heads} heads, "
        "{positions} positions, tied embeddings",
        "added": "`[PAD]`, `[CLS]`, `[SEP]` and `[MASK]`",
        "objective": "masked language modelling of whole words (15 % of the tokens; of "
        "the words 80 % masked, 10 % replaced, 10 % kept)",
        "measure": "Loss per hidden token, where 15 % of the tokens are hidden",
        "limits": "It fills in a hidden word that grammar and its neighbours make likely. A "
        "`[MASK]` stands for one token, its leading space included: ` great` is one, a long "
        "word may be several. One segment only was trained; the second starts as a copy of "
        "it. It knows no facts; it is for learning, tests and demonstrations of prompt "
        "methods, and for classification only after tuning.",
    },
    "denoising": {
        "title": "a small encoder-decoder to tune prompts on",
        "architecture": "T5 architecture: {layers} + {layers} layers, width {width}, {heads} "
        "heads, relative positions, gated GELU, tied embeddings",
        "added": "`<pad>`, `</s>` and the sentinels `<extra_id_0>` … `<extra_id_99>`",
        "objective": "span corruption (15 % of the tokens, spans of 3 on average)",
        "measure": "Loss per token of the decoder (hidden spans, their sentinels and `</s>`)",
        "limits": "It fills short gaps with what grammar and the neighbours make likely. It was "
        "trained on nothing else: asked to answer, summarize or translate, it writes "
        "fragments until it is tuned. Decoding starts from `<pad>` and ends with `</s>`. It "
        "knows no facts; it is for learning, tests and demonstrations of prompt methods.",
    },
}
_PAGES["characters"] = {
    "title": "a small Chinese encoder with a masked-language-model head to tune prompts on",
    "architecture": _PAGES["masked"]["architecture"],
    "objective": "masked language modelling of characters (15 % of the tokens; of the "
    "characters 80 % masked, 10 % replaced, 10 % kept)",
    "measure": "Loss per hidden token, where 15 % of the tokens are hidden",
    "limits": "It fills in a hidden character that its neighbours make likely, in text like the "
    "one it read: little text of one kind. A `[MASK]` stands for one character, so a label word "
    "of a verbalizer is one character. One segment only was trained; the second starts as a copy "
    "of it. It knows no facts; it is for learning, tests and demonstrations of prompt methods, "
    "and for classification only after tuning.",
}
_PAGES["started"] = {
    **_PAGES["denoising"],
    "architecture": "Blenderbot architecture (layer norms before each part, learned positions): "
    "{encoder_depth} layers in the encoder, {decoder_depth} in the decoder, width {width}, "
    "{heads} heads, {positions} positions, tied embeddings",
    "limits": "What it writes keeps to its input: names, dates and phrases are found there and "
    "copied. It fills a gap with a word or two that fit what stands before it and often what "
    "stands after, seldom with a longer phrase. It also writes a text again from its beginning, "
    "`<extra_id_N>` before each span. Asked to answer, summarize or translate, it writes fragments "
    "until it is tuned. Decoding starts from `</s>` and ends with `</s>`. It knows no facts; it is "
    "for learning, tests and demonstrations of prompt methods.",
}
