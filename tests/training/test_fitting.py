"""What memory has room for: the parts of a batch, and whether layers are computed twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import make_backbone
from foreword.axes.readout import Vectors
from foreword.backbone import Backbone, memory
from foreword.common.progress import Silent
from foreword.errors import UserError
from foreword.methods import LoRA, PrefixTuning
from foreword.methods.axes import Table
from foreword.recipe import TrainingSpec
from foreword.training import History, Pair, fitting, train
from foreword.training.checkpoints import LOG, Checkpoints, newest
from foreword.training.hardware import Hardware
from foreword.training.log import Log
from foreword.training.loop import _shares
from foreword.training.signals import Stop, Stopped
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose

PREFIX = PrefixTuning(name="prefix-tuning", length=3, reparameterization=Table(std=0.5))


@cache
def backbone_of(family: str) -> Backbone:
    return make_backbone(family, torch.float64)


def build(method: Any = PREFIX, family: str = "gpt2") -> TunedModel:
    backbone = backbone_of(family)
    torch.manual_seed(0)
    return compose(backbone, method).double()


def make_pairs(count: int) -> list[Pair]:
    dice = torch.Generator().manual_seed(0)

    def ids(least: int, most: int) -> list[int]:
        length = int(torch.randint(least, most, (1,), generator=dice))
        return torch.randint(1, 8192, (length,), generator=dice).tolist()

    return [Pair(ids(2, 12), [*ids(1, 8), 0]) for _ in range(count)]


def spec(**given: Any) -> TrainingSpec:
    return TrainingSpec(**{"steps": 3, "batch_size": 8, "learning_rate": 1e-2, **given})


def losses(history: History) -> list[float]:
    return [entry["loss"] for entry in history.steps]


class Noted(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@given(
    st.integers(1, 9),
    st.integers(1, 10),
    st.integers(1, 3),
    st.sampled_from(["token_mean", "sequence_sum"]),
)
@settings(max_examples=12, deadline=None)
def test_a_batch_in_parts_gives_its_losses(
    batch: int, micro: int, accumulation: int, loss: str
) -> None:
    given_: dict[str, Any] = {"batch_size": batch, "accumulation": accumulation, "loss": loss}
    whole, cut = (
        train(build(), make_pairs(9), spec(micro_batch_size=size, **given_))
        for size in (None, micro)
    )
    assert losses(cut) == pytest.approx(losses(whole), rel=1e-9)
    norms = [[entry["gradient_norm"] for entry in history.steps] for history in (whole, cut)]
    assert norms[1] == pytest.approx(norms[0], rel=1e-8)


class Few:
    """Hardware of several processes, as `_shares` sees it."""

    def __init__(self, rank: int, processes: int) -> None:
        self.rank, self.processes = rank, processes


@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=4),
    st.integers(1, 4),
    st.none() | st.integers(1, 8),
)
def test_parts_hold_each_row_once(sizes: list[int], processes: int, most: int | None) -> None:
    step = [[100 * i + row for row in range(size)] for i, size in enumerate(sizes)]
    ranks = [list(_shares(step, Few(rank, processes), most)) for rank in range(processes)]  # type: ignore[arg-type]
    assert len({len(shares) for shares in ranks}) == 1
    for shares in ranks:
        assert [last for last, _ in shares] == [False] * (len(shares) - 1) + [True]
        assert all(share.rows for _, share in shares)
        assert most is None or all(len(share.rows) <= most for _, share in shares)
    counted = [row for shares in ranks for _, share in shares if share.weight for row in share.rows]
    assert sorted(counted) == sorted(row for batch in step for row in batch)


def affine(monkeypatch: pytest.MonkeyPatch, *, each: int, base: int, twice: int) -> list[Any]:
    """Steps take `base` and `each` for an example, or `twice` with checkpointing; what is tried."""
    tried: list[Any] = []

    def peak(_: Any, __: Any, rows: Any, ___: Any, recomputes: bool) -> float:
        tried.append((len(rows), recomputes))
        return base + len(rows) * (twice if recomputes else each)

    monkeypatch.setattr(fitting, "peak_of", peak)
    monkeypatch.setattr(fitting, "_fixed", lambda _: base)
    return tried


def chosen(room: int, monkeypatch: pytest.MonkeyPatch, **given: Any) -> fitting.Fit:
    monkeypatch.setattr(fitting, "_held", lambda *_: 0)
    return fitting.fitted(
        build(), make_pairs(20), spec(memory=room / 1e9, **given), Hardware.of("cpu")
    )


@pytest.mark.parametrize(
    ("room", "size", "twice"),
    [
        (10_000, None, False),
        (1_700, None, False),  # 100 + 16 · 100, and not a byte more
        (1_699, 8, False),
        (899, 4, False),
        (299, 1, False),
        (199, 4, True),  # 100 + 4 · 20
        (120, 1, True),
    ],
)
def test_the_largest_part_that_fits(
    monkeypatch: pytest.MonkeyPatch, room: int, size: int | None, twice: bool
) -> None:
    tried = affine(monkeypatch, each=100, base=100, twice=20)
    fit = chosen(
        room, monkeypatch, batch_size=16, micro_batch_size="auto", gradient_checkpointing="auto"
    )
    assert (fit.micro_batch_size, fit.gradient_checkpointing) == (size, twice)
    each = 20 if twice else 100
    assert fit.peak == 100 + each * (size or 16) <= room
    # None is tried that cannot fit but a single one.
    assert all(100 + (20 if again else 100) * rows <= room for rows, again in tried if rows > 1)


def test_a_batch_at_once_is_computed_twice_where_it_does_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    affine(monkeypatch, each=100, base=0, twice=20)
    given_: dict[str, Any] = {"batch_size": 16, "gradient_checkpointing": "auto"}
    assert chosen(1_600, monkeypatch, **given_).gradient_checkpointing is False
    fit = chosen(1_599, monkeypatch, **given_)
    assert (fit.micro_batch_size, fit.gradient_checkpointing) == (None, True)
    fit = chosen(600, monkeypatch, micro_batch_size=6, **given_)
    assert (fit.micro_batch_size, fit.gradient_checkpointing) == (6, False)
    with pytest.raises(UserError, match=r"training\.memory: 1e-07 GB are too few"):
        chosen(100, monkeypatch, **given_)


def test_without_a_budget_the_smallest_is_tried_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    affine(monkeypatch, each=100, base=0, twice=20)
    monkeypatch.setattr(memory, "free", lambda _: 10)
    fit = fitting.fitted(build(), make_pairs(20), spec(micro_batch_size="auto"), Hardware.of("cpu"))
    assert (fit.micro_batch_size, fit.gradient_checkpointing) == (1, False)


def test_a_family_that_computes_no_layer_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    affine(monkeypatch, each=100, base=0, twice=20)
    monkeypatch.setattr(fitting, "_ways", lambda _: [False])
    with pytest.raises(UserError, match="a step of 1 of the longest examples takes 1e-07 GB"):
        chosen(99, monkeypatch, micro_batch_size="auto", gradient_checkpointing="auto")


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_step_keeps_to_the_budget(family: str) -> None:
    """Measured for real: the more room, the larger the parts, and the budget holds."""
    pairs, hardware = make_pairs(16), Hardware.of("cpu")
    model = build(family=family)
    peaks = {
        (size, twice): fitting.peak_of(model, pairs, range(size), hardware, twice)
        for size in (1, 16)
        for twice in (False, True)
    }
    assert peaks[1, False] < peaks[16, False]
    assert peaks[16, True] < peaks[16, False]
    held = fitting._held(model, hardware)
    sizes = []
    for share in (0.3, 0.6, 1.5):
        room = share * peaks[16, False]
        given_: dict[str, Any] = {"batch_size": 16, "micro_batch_size": "auto"}
        fit = fitting.fitted(model, pairs, spec(memory=(held + room) / 1e9, **given_), hardware)
        sizes.append(fit.micro_batch_size or 16)
        longest = sorted(range(16), key=lambda i: -pairs[i].length)[: sizes[-1]]
        assert fitting.peak_of(model, pairs, longest, hardware, False) <= room
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == 16


def test_measuring_changes_nothing() -> None:
    """Dropout is drawn as without it, and no gradient stays."""
    lora = LoRA(name="lora", rank=2, dropout=0.5)
    plain, auto = build(lora), build(lora)
    torch.manual_seed(5)
    expected = train(plain, make_pairs(12), spec())
    torch.manual_seed(5)
    said = Noted()
    history = train(auto, make_pairs(12), spec(micro_batch_size="auto", memory=8), progress=said)
    assert history.fit is not None
    assert (history.fit.micro_batch_size, history.fit.gradient_checkpointing) == (None, False)
    assert losses(history) == losses(expected)
    (line,) = (line for line in said.lines if line.startswith("memory: "))
    assert line.startswith("memory: a batch at once, without gradient checkpointing; a step takes")


def test_a_run_goes_on_with_what_was_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit, whatever there is room for now."""
    affine(monkeypatch, each=100, base=0, twice=20)
    monkeypatch.setattr(fitting, "_held", lambda *_: 0)
    given_ = spec(micro_batch_size="auto", gradient_checkpointing="auto", memory=300 / 1e9)

    def run(folder: Path, on_step: Callable[[Any], None] = lambda _: None) -> Any:
        model, saved = build(), newest(folder)
        folder.mkdir(exist_ok=True)
        with Log(folder / LOG, None if saved is None else saved.checkpoint.values["log"]) as log:

            def logged(entry: dict[str, float]) -> None:
                log(entry)
                on_step(entry)

            history = train(
                model,
                make_pairs(12),
                given_,
                on_step=logged,
                checkpoints=Checkpoints(folder, log, every=1, saved=saved),
                stop=stop,
            )
        return history, model.rows().detach()

    stop = Stop()
    expected, rows = run(tmp_path / "whole")
    assert expected.fit.micro_batch_size == 2
    with pytest.raises(Stopped):
        run(tmp_path / "cut", lambda _: setattr(stop, "requested", 15))
    stop = Stop()
    affine(monkeypatch, each=1, base=0, twice=1)  # now a whole batch would fit
    history, again = run(tmp_path / "cut")
    assert history.fit == expected.fit
    assert torch.equal(again, rows)


def test_pairs_that_are_told_apart_from_each_other_are_not_cut() -> None:
    model = build()
    model.readout = Vectors()
    with pytest.raises(UserError, match=r"training\.micro_batch_size: each pair is learned agains"):
        fitting.fitted(model, make_pairs(4), spec(micro_batch_size=2), Hardware.of("cpu"))
    model.readout = Vectors("cosine")
    fit = fitting.fitted(model, make_pairs(4), spec(micro_batch_size=2), Hardware.of("cpu"))
    assert fit == fitting.Fit(2, False)


def test_all_processes_choose_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit in another process does not fit."""
    affine(monkeypatch, each=100, base=0, twice=20)
    hardware = Hardware.of("cpu")
    asked: list[int] = []

    def any_(_: Hardware, value: int | None) -> bool:
        asked.append(value or 0)
        return bool(value) or len(asked) > 4  # before and after 1 and 2 examples

    monkeypatch.setattr(Hardware, "any", any_)
    monkeypatch.setattr(fitting, "_held", lambda *_: 0)
    fit = fitting.fitted(
        build(), make_pairs(20), spec(memory=1, micro_batch_size="auto"), replace(hardware)
    )
    assert fit.micro_batch_size == 2
