"""Answers that are written, row by row: each row with a model, settings and a seed of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from foreword.axes.readout import Generation
from foreword.backbone import Call, Decoding, columns_of, generate, kept_columns, write
from foreword.backbone.memory import bytes_of_position, resident, rows_that_fit
from foreword.names import MOST_TOGETHER, Together
from foreword.tuned import TunedModel

COPIES = 2
"""Of what rows hold while they are written, as many at once: it is moved where one grows."""


@dataclass(frozen=True, eq=False)
class Writing:
    """One answer that is to be written.

    Attributes:
        model: writes it; models of several rows may differ, but share one backbone.
        source: the input as tokens.
        how: decoding.
        seed: of its draws; from torch's random state if not given.
        prompt: the number of the prompt that it takes, where the model has several.
    """

    model: TunedModel
    source: list[int]
    how: Decoding
    seed: int | None = None
    prompt: int = 0

    @property
    def readout(self) -> Generation:
        """Makes text of what was written."""
        assert isinstance(self.model.readout, Generation), "a head writes nothing"
        return self.model.readout


def decode_rows(
    rows: Sequence[Writing],
    *,
    batch_size: Together,
    advance: Callable[[int], None] = lambda _: None,
) -> list[str]:
    """The answers as texts, in the order of the rows; see `write_rows`."""
    new = write_rows(rows, batch_size=batch_size, advance=advance)
    return [
        row.readout.text(row.model.backbone.tokens, ids, row.how.stop)
        for row, ids in zip(rows, new, strict=True)
    ]


@torch.no_grad()
def write_rows(
    rows: Sequence[Writing],
    *,
    batch_size: Together,
    advance: Callable[[int], None] = lambda _: None,
) -> list[list[int]]:
    """The answers as tokens, in the order of the rows, end tokens left off.

    A greedy answer does not depend on the others of its batch, but where two tokens are equally
    likely; a drawn one depends on its own seed.

    Args:
        rows: what is to be written.
        batch_size: rows that are written together, of similar lengths; a row that is at an end
            makes room for the next one. See `Together`.
        advance: called with the number of rows that are done.
    """
    if not rows:
        return []
    rows, backbone = _as_they_are(rows), rows[0].model.backbone
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i].source))
    new: dict[int, list[int]] = {}
    steps = [i for i in order if rows[i].how.num_beams == 1]

    def arrange(members: Sequence[int]) -> list[tuple[Call, list[int]]]:
        by_model: dict[int, list[int]] = {}
        for i in members:
            by_model.setdefault(id(rows[i].model), []).append(i)
        calls = []
        for own in by_model.values():
            model = rows[own[0]].model
            sources, numbers = [rows[i].source for i in own], [rows[i].prompt for i in own]
            layout = model.arrange(sources, side="left", prompts=numbers)
            calls.append((model.call(layout), own))
        return calls

    size = batch_size if batch_size != "auto" else _most_together(rows, order, arrange)
    if steps:
        at = {i: number for number, i in enumerate(steps)}
        written = write(
            backbone,
            lambda taken: [
                (call, [at[i] for i in own]) for call, own in arrange([steps[n] for n in taken])
            ],
            [rows[i].how for i in steps],
            [rows[i].seed for i in steps],
            rows=size,
            columns=_columns(rows, steps, arrange),
            advance=advance,
        )
        new.update(zip(steps, written, strict=True))
    searching: dict[tuple[int, Decoding], list[int]] = {}
    for i in order:
        if rows[i].how.num_beams > 1:
            searching.setdefault((id(rows[i].model), rows[i].how), []).append(i)
    for (_, how), members in searching.items():
        for start in range(0, len(members), size):
            (call, own), *_ = arrange(members[start : start + size])
            written = generate(backbone, call, how, rows[own[0]].seed)
            new.update(zip(own, written, strict=True))
            advance(len(own))
    return [new[i] for i in range(len(rows))]


@torch.no_grad()
def _as_they_are(rows: Sequence[Writing]) -> list[Writing]:
    """The same rows with prompts that nobody trains meanwhile: made once, whoever comes when, so
    that rows can share them."""
    models = {id(row.model): row.model for row in rows}
    kept = {
        key: model.fold() if any(one.requires_grad for one in model.reparam.parameters()) else model
        for key, model in models.items()
    }
    return [replace(row, model=kept[id(row.model)]) for row in rows]


def _most_together(
    rows: Sequence[Writing],
    order: Sequence[int],
    arrange: Callable[[Sequence[int]], list[tuple[Call, list[int]]]],
) -> int:
    """As many rows as memory has room for: the longest one is read for that."""
    longest = order[0]
    model = rows[longest].model
    backbone, beams = model.backbone, max(row.how.num_beams for row in rows)
    kept = _columns(rows, order, arrange, shares=beams == 1)
    positions = COPIES * bytes_of_position(backbone) * kept
    scores = COPIES * 4 * backbone.geometry.vocabulary  # in float32

    def read(count: int) -> None:
        (call, _), *_ = arrange([longest] * count)
        generate(backbone, call, Decoding(max_new_tokens=1))

    return rows_that_fit(
        read,
        [*resident(backbone.model), *model.parameters()],
        backbone.device,
        most=min(MOST_TOGETHER, len(rows)),
        beside=beams * (positions + scores),
    )


def _columns(
    rows: Sequence[Writing],
    members: Sequence[int],
    arrange: Callable[[Sequence[int]], list[tuple[Call, list[int]]]],
    *,
    shares: bool = True,
) -> int:
    """The most positions of a row: of each model's longest source, with its longest answer; without
    virtual tokens that rows share, if they do: beams do not."""
    longest: dict[int, int] = {}
    most: dict[int, int] = {}
    for i in members:
        own = id(rows[i].model)
        if own not in longest or len(rows[i].source) > len(rows[longest[own]].source):
            longest[own] = i
        most[own] = max(most.get(own, 0), rows[i].how.max_new_tokens)

    def columns(call: Call, model: TunedModel) -> int:
        answer = most[id(model)]
        return kept_columns(model.backbone, call, answer) if shares else columns_of(call, answer)

    return max(columns(call, rows[own[0]].model) for call, own in arrange(list(longest.values())))
