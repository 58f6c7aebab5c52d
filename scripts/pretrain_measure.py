"""Losses of a trained decoder by kind of text, and five texts it goes on with, as Markdown.

    python scripts/pretrain_measure.py src/foreword/bundled/mini --data pretraining.jsonl.xz

The text is what scripts/pretrain.py holds out of the same file with the same --held-out-share. That
a decoder has not read it is so only where it was pretrained by that script.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import torch
from pretrain import evaluate
from pretrain_card import examples
from pretrain_objectives import Causal, vocabulary_of
from pretrain_text import NOTATIONS, Corpus, Filter, encode, read_split
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from foreword.errors import ForewordError, UserError


def measured(
    folder: Path, corpus: Corpus, documents: dict[str, int], length: int, windows: int
) -> str:
    """A table of losses, and examples.

    Args:
        folder: of the model.
        corpus: with held-out text.
        documents: how many were held out, by kind.
        length: tokens in a window.
        windows: at most so many are measured of each kind.
    """
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if model.config.model_type != "gpt2":
        raise UserError(
            f"{folder}: is {model.config.model_type}; this measures decoders that "
            "`pretrain.py causal` makes (gpt2)"
        )
    if length > model.config.max_position_embeddings:
        raise UserError(f"--length {length}: the model has fewer positions")
    objective = Causal(corpus.tokenizer)
    losses = evaluate(model, objective, corpus, length, windows)
    rows = [
        f"| {kind} | {loss:.2f} | {math.exp(loss):.1f} | {documents[kind]:,} "
        f"| {min(windows, corpus.held_out[kind].windows(length)):,} |"
        for kind, loss in losses.items()
    ]
    head = ["| kind | loss | perplexity | documents | windows |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows, "", examples(folder, objective, corpus)])


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 it failed, 2 the input is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model", type=Path, metavar="FOLDER", help="a decoder with its tokenizer.json")
    add("--data", type=Path, required=True, metavar="FILE", help="JSONL, plain, .xz or .gz")
    add("--held-out-share", type=float, default=0.01, help="of each kind (%(default)s)")
    add("--drop-lines", action="append", metavar="REGEX", help="instead of the known notations")
    add("--length", type=int, default=512, help="tokens in a window (%(default)s)")
    add("--windows", type=int, default=512, help="at most, of each kind (%(default)s)")
    given = parser.parse_args(arguments)
    transformers_logging.set_verbosity_error()
    try:
        tokenizer = vocabulary_of((given.model / "tokenizer.json").read_text(encoding="utf-8"))
        keep = Filter(given.drop_lines or NOTATIONS)
        _, held_out = read_split(given.data, given.held_out_share, keep)
        streams = {kind: encode(tokenizer, documents) for kind, documents in held_out.items()}
        corpus = Corpus(tokenizer, encode(tokenizer, []), streams, {})
        counts = {kind: len(documents) for kind, documents in held_out.items()}
        print(measured(given.model, corpus, counts, given.length, given.windows))
    except (UserError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    except (ForewordError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
