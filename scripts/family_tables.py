"""Measures every family of tests/families/catalogue.py, and writes the tables of the docs.

    python scripts/family_tables.py

Tiny random models in float64, about a minute. Writes docs/parity.md, and the tables in
docs/families.md between their marks.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from transformers.utils import logging  # noqa: E402

from families import by_hand, measures  # noqa: E402
from families.catalogue import (  # noqa: E402
    DECODERS,
    ENCODER_DECODERS,
    ENCODERS,
    WITHOUT_KEYS_VALUES,
)
from families.measures import METHODS, TOLERANCE, backbone_of  # noqa: E402
from foreword.axes.injection import Embeddings, KeysValues  # noqa: E402
from foreword.backbone.prompts.attention import Attention  # noqa: E402
from foreword.errors import BackboneError  # noqa: E402

PARITY, TABLES = ROOT / "docs" / "parity.md", ROOT / "docs" / "families.md"
ATTENTIONS: tuple[Attention, ...] = ("sdpa", "eager", "flex")
HEAD = """# Parity, family by family

```
python scripts/family_tables.py
```

writes this page: the largest differences of logits, in float64, of tiny models with random weights
whose largest logit is about {logit:.0f}. Made with {versions}.

- **by hand**: all sites at once, in a padded batch of mixed lengths (decoders: padded on either
  side) and alone, against transformers' own model with the same prompt put in by hand: keys and
  values concatenated inside the family's own eager attention, or embeddings given as
  `inputs_embeds`, one row without padding. Families that take a prompt through their cache are
  compared with a cache that is filled by hand. The tests ask for less than {tolerance:.0e}.
- **PEFT**: against PEFT with the same numbers, one row without padding, by PEFT's rule for
  positions. Where PEFT takes the sizes of a prompt wrongly off a config, it is told them.
  - *not seen*: its logits are those without a prompt. *raises*: it does.
  - *off by*, on encoder-decoders: its prefix reaches the decoder alone, and half of it is dead.
  - *off by*, on decoders with a sliding window ({sliding}):
    its prompt slides out of the window, and here it is seen.

  `tests/parity/test_peft_mistakes.py` has these and others.

Prefix-tuning's columns are P-Tuning v2's too. Families that compute a norm, a softmax or rotations
in float32 whatever their weights are do it in float64 here, on both sides: a difference of one bit
is then not blown up to one of float32. In plain float32 (`tests/backbone/test_families.py`) all
come within 1e-5 of the largest logit, mT5 within 5e-5.

"""


def main() -> None:
    """Measure, and write both pages."""
    logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    parity, ways, logits, sliding = [], [], [0.0], []
    for family in in_order():
        print(family, file=sys.stderr)
        with by_hand.ExactFloat64():
            parity.append([f"`{family}`", *parity_of(family)])
            marks = ways_of(family)
            logits.append(measures.largest_logit(family))
        ways.append([f"`{family}`", *marks, "yes" if computes_again(family) else "no"])
        g = backbone_of(family).geometry
        if g.slides and g.kind == "decoder":
            sliding.append(f"`{family}`")
    packages = ("torch", "transformers", "peft")
    head = HEAD.format(
        logit=max(logits),
        versions=", ".join(f"{package} {version(package)}" for package in packages),
        tolerance=TOLERANCE,
        sliding=", ".join(sliding),
    )
    columns = [f"{method}, {against}" for method in METHODS for against in ("by hand", "PEFT")]
    PARITY.write_text(head + table(["family", *columns], parity), encoding="utf-8")
    put("families", table(["family", *WAYS], ways))
    without = []
    for family in WITHOUT_KEYS_VALUES:
        with by_hand.ExactFloat64():
            without.append([f"`{family}`", *without_of(family)])
    put("without", table(["family", *WITHOUT], without))


def in_order() -> list[str]:
    """The families by kind, then by name."""
    return [family for kind in (DECODERS, ENCODERS, ENCODER_DECODERS) for family in sorted(kind)]


def parity_of(family: str) -> list[str]:
    """For every method the gaps to both references."""
    cells = []
    for method in METHODS:
        cells.append(number(measures.gap_of_method(family, method)))
        theirs = measures.peft_beside(family, method)
        if theirs.gap is None:
            cells.append("raises")
        elif theirs.gap < TOLERANCE:
            cells.append(number(theirs.gap))
        else:
            cells.append(f"off by {theirs.gap:.1g}" if theirs.seen else "not seen")
    return cells


def number(gap: float) -> str:
    """Its magnitude."""
    return f"{gap:.0e}" if gap else "0"


WAYS = ("kind", "keys and values", "embeddings", "attention", "checkpointing")


def ways_of(family: str) -> list[str]:
    """What works on a family, found out by trying."""
    backbone = backbone_of(family)
    g = backbone.geometry
    through = "the cache" if g.through == "cache" else "the interface"
    return [
        g.kind,
        f"{', '.join(g.sites)}; through {through}",
        ", ".join(inputs_of(family)),
        ", ".join(attentions_of(family)),
    ]


def inputs_of(family: str) -> list[str]:
    """The sites in whose input soft prompts are right."""
    backbone = backbone_of(family)
    return [
        site
        for site in backbone.geometry.sites
        if site != "cross"
        and measures.gap_to_reference(family, Embeddings(backbone, [site])) < TOLERANCE
    ]


def attentions_of(family: str) -> Iterable[str]:
    """The implementations that agree; the one in use where none is asked for comes first."""
    backbone = backbone_of(family)
    if backbone.attention == "own":
        return ["the model's own"]
    attentions: list[str] = [backbone.attention]
    for attention in ATTENTIONS:
        try:
            gap = measures.gap_of_attention(family, attention)
        except BackboneError:
            continue
        assert gap < TOLERANCE, (family, attention, gap)
        if attention not in attentions:
            attentions.append(attention)
    return attentions


def computes_again(family: str) -> bool:
    """Whether gradient checkpointing gives the same gradients."""
    injection = KeysValues(backbone_of(family).geometry)
    kept = measures.gradient(family, injection, again=False)
    try:
        again = measures.gradient(family, injection, again=True)
    except BackboneError:
        return False
    return measures.largest(kept - again) < TOLERANCE


WITHOUT = ("kind", "embeddings", "why it takes no keys and values")


def without_of(family: str) -> list[str]:
    """What works on a family into whose attention nothing can be put, and why nothing can."""
    g = backbone_of(family).geometry
    assert g.through == "nothing", family
    return [g.kind, ", ".join(inputs_of(family)), g.unfit]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def put(mark: str, text: str) -> None:
    """Replace what stands between a page's marks."""
    page = TABLES.read_text(encoding="utf-8")
    pattern = rf"(<!-- {mark} -->\n).*?(<!-- end -->)"
    filled, count = re.subn(pattern, lambda m: m[1] + text + m[2], page, flags=re.S)
    assert count == 1, f"{TABLES} has no marks for {mark}"
    TABLES.write_text(filled, encoding="utf-8")


if __name__ == "__main__":
    main()
