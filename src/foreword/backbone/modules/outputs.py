"""What an activation gives is not kept for the backward pass where what it takes is kept anyway.

A gated MLP (SwiGLU, GEGLU; Shazeer 2020) multiplies an activation's output by another tensor, and
so autograd keeps the output beside the activation's input: of a Llama's layer a fifth of all that
is kept. The output is one cheap operation away from the input, and so it is computed again.

No code of a family: autograd shows each tensor that it is about to keep. One that is the output of
an activation whose input it has kept is replaced by that input and the activation: beside those of
gated MLPs the ones that a norm takes (BERT's language-model head).
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from transformers import PreTrainedModel
from transformers.activations import GELUActivation, GELUTanh, QuickGELUActivation, SiLUActivation

from foreword.backbone.leaving_out import saves
from foreword.backbone.modules.forwards import Forward, Shared

KINDS = (nn.SiLU, nn.GELU, SiLUActivation, GELUActivation, GELUTanh, QuickGELUActivation)
"""Activations whose backward pass needs their input. (That of a ReLU needs its output.)"""
_activations, _owners = Shared(), Shared()


@dataclass(frozen=True, eq=False)
class _Modules:
    """What there is of them in a model.

    Attributes:
        activations: the modules.
        owners: those that call one.
        useless: owners that were run and have kept no output.
    """

    activations: tuple[nn.Module, ...]
    owners: tuple[nn.Module, ...]
    useless: set[nn.Module]

    @staticmethod
    def of(model: PreTrainedModel) -> _Modules:
        owners = [
            module
            for module in model.modules()
            if module is not model  # which would keep itself alive
            and any(isinstance(child, KINDS) for child in module.children())
        ]
        activations = dict.fromkeys(
            child for owner in owners for child in owner.children() if isinstance(child, KINDS)
        )
        return _Modules(tuple(activations), tuple(owners), set())


_modules: weakref.WeakKeyDictionary[PreTrainedModel, _Modules] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class _Kept:
    """A tensor that is kept: without its place in the graph, which would hold itself.

    Attributes:
        tensor: itself.
        version: how often it had been changed in place.
    """

    tensor: Tensor
    version: int

    def tensor_now(self) -> Tensor:
        """The tensor.

        Raises:
            RuntimeError: it was changed since, which autograd finds where nobody packs.
        """
        if self.tensor._version != self.version:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an "
                f"inplace operation: a tensor of shape {list(self.tensor.shape)}"
            )
        return self.tensor


@dataclass(frozen=True)
class _Again:
    """A tensor that is computed when the backward pass asks for it.

    Attributes:
        activation: gives it.
        kept: what it takes.
        version: of the tensor when it was there.
    """

    activation: Forward
    kept: _Kept
    version: int

    def tensor_now(self) -> Tensor:
        """The tensor, computed again."""
        with torch.no_grad():
            return cast(Tensor, self.activation(self.kept.tensor_now()))


@dataclass(eq=False)
class _Watch:
    """What the activation inside an owner that runs took and gave.

    Attributes:
        given: the activation's input, while it runs.
        kept: what autograd keeps of that input, once it does.
        output: the output, as long as somebody has it.
        again: how the output comes back.
        useful: whether it was about to be kept.
    """

    given: Tensor | None = None
    kept: _Kept | None = None
    output: Callable[[], Tensor | None] = lambda: None
    again: _Again | None = None
    useful: bool = False

    def pack(self, tensor: Tensor) -> _Kept | _Again:
        """What is kept of a tensor."""
        again = self.again
        if again and _alike(tensor, self.output()) and tensor._version == again.version:
            self.useful = True
            return again
        kept = _Kept(tensor.detach(), tensor._version)
        if _alike(tensor, self.given):
            self.kept = kept
        return kept

    @staticmethod
    def unpack(kept: _Kept | _Again) -> Tensor:
        """What was kept."""
        return kept.tensor_now()


class _Here(threading.local):
    """Whether this thread keeps no outputs, and the innermost owner that it runs."""

    on: bool = False
    watch: _Watch | None = None


_here = _Here()


def computed_again(model: PreTrainedModel) -> AbstractContextManager[None]:
    """While it lasts, forward passes of this thread keep no output of an activation beside its
    input. Where somebody else packs what is kept (`saved_tensors_hooks`: gradient checkpointing,
    `save_on_cpu`; an owner around an owner), that is left to them."""
    if not torch.is_grad_enabled() or not saves("outputs") or not _is_free():
        return nullcontext()
    if model not in _modules:
        _modules[model] = _Modules.of(model)
    modules = _modules[model]
    return nullcontext() if len(modules.useless) == len(modules.owners) else _noting(modules)


@contextmanager
def _noting(modules: _Modules) -> Iterator[None]:
    def watched(owner: nn.Module, forward: Forward) -> Forward:
        def run(*args: Any, **kwargs: Any) -> Any:
            if not _here.on or owner in modules.useless or not _is_free():
                return forward(*args, **kwargs)
            before, watch = _here.watch, _Watch()
            _here.watch = watch
            try:
                with saved_tensors_hooks(watch.pack, watch.unpack):
                    output = forward(*args, **kwargs)
            finally:
                _here.watch = before
            if watch.again is not None and not watch.useful:
                modules.useless.add(owner)
            return output

        return run

    with (
        _activations.on(modules.activations, _noted),
        _owners.on(modules.owners, watched),
    ):
        before, _here.on = _here.on, True
        try:
            yield
        finally:
            _here.on = before


def _noted(_: nn.Module, forward: Forward) -> Forward:
    """An activation whose input and output are noted."""

    def run(given: Tensor, *more: Any, **named: Any) -> Any:
        watch = _here.watch
        if watch is None or more or named or torch.compiler.is_compiling():
            return forward(given, *more, **named)
        watch.given, watch.kept = given, None
        try:
            output = forward(given)
            if watch.kept is not None and output.dtype == given.dtype:
                watch.again = _Again(forward, watch.kept, output._version)
                watch.output = weakref.ref(output)
        finally:
            watch.given = watch.kept = None
        return output

    return run


def _is_free() -> bool:
    """Whether nobody else packs what is kept, or forbids it (`torch.func`), and nobody compiles."""
    if torch.compiler.is_compiling():
        return False
    top = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    allowed = getattr(torch._C._autograd, "_saved_tensors_hooks_is_enabled", None)
    if top is None or allowed is None:  # a torch before 2.8 does not say
        return False
    return bool(allowed()) and top(True) is None


def _alike(one: Tensor, other: Tensor | None) -> bool:
    """Whether two tensors are views of the same numbers."""
    return (
        other is not None
        and one.data_ptr() == other.data_ptr() != 0
        and one.dtype == other.dtype
        and one.shape == other.shape
        and one.stride() == other.stride()
    )
