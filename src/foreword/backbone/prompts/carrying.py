"""What a forward pass brings to a model's shared modules: held by the thread that runs it.

The embedding table, the language-model head and the model itself each get one hook, once and for
all. The hook reads what the running thread holds and nothing else, so any number of threads may run
one model with different prompts, and an exception leaves nothing behind.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from foreword.backbone.prompts.prompt import Prompt

ARGUMENT = "foreword_prompt"
"""The keyword argument with which a prompt reaches an attention function."""
_MARK = "_foreword_hooked"
_installing = threading.Lock()


class _Held(threading.local):
    """What this thread's forward pass has with it."""

    embeddings: Tensor | None = None
    reading: Tensor | None = None
    carried: Prompt | None = None

    def __init__(self) -> None:
        self.ids: list[Tensor] = []


_held = _Held()


@contextmanager
def looking_up(
    tables: list[nn.Module],
    rows: Tensor | None,
    vocabulary: int,
    *,
    beside: Sequence[nn.Module] = (),
    pad_id: int = 0,
) -> Iterator[None]:
    """Ids from `vocabulary` on stand for the rows of a table `[n, width]`, in these modules.

    Args:
        tables: the modules.
        rows: the rows.
        vocabulary: the first such id.
        beside: modules that make something else of the same ids; there they are no word, which a
            model tells by the id of padding, as it does of pictures.
        pad_id: that id.
    """
    if rows is None:
        yield
        return
    for table in tables:
        _install(table, "table", vocabulary)
    for table in beside:
        _install(table, "beside", vocabulary, pad_id)
    before, _held.embeddings = _held.embeddings, rows
    try:
        yield
    finally:
        _held.embeddings = before
        _held.ids.clear()


@contextmanager
def reading_at(head: nn.Module, reading: Tensor | None) -> Iterator[None]:
    """Run a head at flat positions `[N]` alone; whatever the family does to its logits stays in
    place.

    The rows are gathered into a contiguous `[N, d]`: the head on a sliced, strided tensor is
    several times slower.
    """
    if reading is None:
        yield
        return
    _install(head, "head")
    before, _held.reading = _held.reading, reading
    try:
        yield
    finally:
        _held.reading = before


@contextmanager
def carrying(model: nn.Module, prompt: Prompt | None) -> Iterator[None]:
    """Every forward pass of a model has the prompt: for transformers' own loops around it."""
    if prompt is None:
        yield
        return
    _install(model, "model")
    before, _held.carried = _held.carried, prompt
    try:
        yield
    finally:
        _held.carried = before


def _install(module: nn.Module, role: str, vocabulary: int = 0, pad_id: int = 0) -> None:
    roles: frozenset[str] = getattr(module, _MARK, frozenset())
    if role in roles:
        return
    with _installing:
        if role in getattr(module, _MARK, frozenset()):
            return
        if role == "table":
            module.register_forward_pre_hook(partial(_without_virtual, vocabulary))
            module.register_forward_hook(partial(_with_virtual, vocabulary))
        elif role == "beside":
            module.register_forward_pre_hook(partial(_as_padding, vocabulary, pad_id))
        elif role == "head":
            module.register_forward_pre_hook(_gather)
        else:
            module.register_forward_pre_hook(_add, with_kwargs=True)
        setattr(module, _MARK, roles | {role})


def _without_virtual(
    vocabulary: int, _: nn.Module, given: tuple[Any, ...]
) -> tuple[Any, ...] | None:
    if _held.embeddings is None:
        return None
    ids: Tensor = given[0]
    _held.ids.append(ids)
    return (ids.masked_fill(ids >= vocabulary, 0), *given[1:])


def _as_padding(
    vocabulary: int, pad_id: int, _: nn.Module, given: tuple[Any, ...]
) -> tuple[Any, ...] | None:
    if _held.embeddings is None:
        return None
    ids: Tensor = given[0]
    return (ids.masked_fill(ids >= vocabulary, pad_id), *given[1:])


def _with_virtual(vocabulary: int, _: nn.Module, __: Any, own: Tensor) -> Tensor | None:
    rows = _held.embeddings
    if rows is None:
        return None
    ids = _held.ids.pop().to(own.device)
    virtual = rows.to(own.device, own.dtype)[(ids - vocabulary).clamp(min=0)]
    return torch.where((ids >= vocabulary)[..., None], virtual, own)


def _gather(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
    reading = _held.reading
    if reading is None:
        return None
    _held.reading = None  # the head may be a layer around another one that has the hook, too
    states: Tensor = given[0].flatten(0, 1)
    return (states.index_select(0, reading.to(states.device)), *given[1:])


def _add(
    _: nn.Module, given: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    if _held.carried is None:
        return None
    return given, {**kwargs, ARGUMENT: _held.carried}
