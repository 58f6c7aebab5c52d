"""Two texts as prompts put together: what each loses, beside reading both as one text.

    python bench/composing.py BACKBONE docs/gpu.md docs/resume.md --tokens 256

The first tokens of two files become cartridges, untrained: each is the text itself. The two are
put together in the ways of `foreword.compose`, and what comes next in both files is predicted
behind them: Kullback-Leibler divergence from each cartridge alone, in nats per token. `read as one`
is what the backbone makes of both texts where the second sees the first, for comparison.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import foreword
from foreword.artifacts.artifact import save_artifact
from foreword.artifacts.lost import lost
from foreword.backbone import Backbone
from foreword.methods import Cartridge
from foreword.methods.axes import FirstTokensInit
from foreword.recipe import TaskId
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose
from foreword.tuned.initial import initialise

WAYS: dict[str, dict[str, Any]] = {
    "one behind the other": {},
    "keys as stored": {"as_stored": True},
    "mean": {"average": True},
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table and JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("backbone")
    parser.add_argument("texts", nargs=2, type=Path)
    parser.add_argument("--tokens", type=int, default=256, help="of each; default %(default)s")
    parser.add_argument("--after", type=int, default=64, help="tokens predicted; %(default)s")
    options = parser.parse_args(arguments)
    backbone = foreword.load_backbone(options.backbone)
    texts = [file.read_text(encoding="utf-8") for file in options.texts]
    ids = [backbone.tokens.plain(text) for text in texts]
    read = backbone.tokens.tokenizer
    starts = [read.decode(one[: options.tokens]) for one in ids]
    after = [read.decode(one[options.tokens :][: options.after]) for one in ids]
    rows: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as place:
        folders = []
        for number, start in enumerate(starts):
            folder = Path(place, options.texts[number].stem)
            method, model = cartridge(backbone, start)
            save_artifact(folder, model, name=folder.name, method=method, task=TASK)
            folders.append(folder)
        for way, how in WAYS.items():
            whole = foreword.compose(folders, backbone=backbone, **how)
            pairs = zip(whole.parts, after, strict=True)
            losses = [lost(p.manifest.name, p.model, whole.model, [t]) for p, t in pairs]
            rows[way] = [one.figures() for one in losses]
        _, together = cartridge(backbone, "".join(starts))
        pairs = zip(whole.parts, after, strict=True)
        losses = [lost(p.manifest.name, p.model, together, [t]) for p, t in pairs]
        rows["read as one"] = [one.figures() for one in losses]
    print("| both | " + " | ".join(f"KL, {file.stem} | lost" for file in options.texts) + " |")
    print("|---|" + "--:|--:|" * len(options.texts))
    for way, figures in rows.items():
        cells = (f"{one['divergence']:.3f} | {one['share']:.0%}" for one in figures)
        print(f"| {way} | {' | '.join(cells)} |")
    print(json.dumps({"backbone": options.backbone, "tokens": options.tokens, "rows": rows}))


TASK = TaskId(input="{text}", target="{reference}")


def cartridge(backbone: Backbone, text: str) -> tuple[Cartridge, TunedModel]:
    """A text as virtual tokens, all of it."""
    length = len(backbone.tokens.document(text))
    method = Cartridge(name="cartridge", length=length, init=FirstTokensInit(text=text))
    model = compose(backbone, method)
    with torch.no_grad():
        initialise(model, method.init, [])
    return method, model


if __name__ == "__main__":
    main()
