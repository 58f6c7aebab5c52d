"""One choice on each axis, composed: a backbone with its prompt."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from foreword.axes.deltas import Delta, Frozen
from foreword.axes.injection import Injection, Text
from foreword.axes.parts import Named
from foreword.axes.placement import Prefix
from foreword.axes.readout import Generation, Head, Predictor, Readout
from foreword.axes.reparam import ByPart, Reparameterization
from foreword.backbone import Backbone, Call, Decoding, Prompt
from foreword.backbone.layout import Layout, Pair, Side, Taught
from foreword.errors import DataError
from foreword.methods.choosing import PromptChoice


@dataclass(frozen=True)
class _Made:
    """Prompts that were made of tensors that nothing trains.

    Attributes:
        state: where they lay, and how often they had been written to.
        named: they themselves, so that no other tensors can lie there.
        prompts: what was made of them, by the numbers of the prompts.
    """

    state: tuple[tuple[Any, ...], ...]
    named: Named
    prompts: dict[int, Prompt | None]


class TrainingReuse(Protocol):
    """Work that training leaves out since it was done before."""

    @property
    def size(self) -> int:
        """Bytes that are kept for it."""

    def reuse(self, call: Call) -> Call:
        """The same call without that work."""


class TunedModel(nn.Module):
    """A frozen backbone and what conditions it.

    Its parameters are the trained ones alone: the backbone is no submodule, so `state_dict()`, an
    optimizer and distributed training see a few kilobytes.

    Attributes:
        choice: by what a row chooses its prompt, where there are several.
        reuses: work of earlier calls that is not done again while it is trained.
    """

    reuses: tuple[TrainingReuse, ...] = ()
    _made: _Made | None = None

    def __init__(
        self,
        backbone: Backbone,
        *,
        reparam: Reparameterization,
        injection: Injection,
        placement: Prefix,
        readout: Readout,
        delta: Delta,
        choice: PromptChoice | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.reparam = reparam
        self.injection = injection
        self.placement = placement
        self.readout = readout
        self.delta = delta
        self.choice = choice
        self.to(backbone.device)

    def forward(self, layout: Layout) -> Tensor:
        """Negative log-likelihood in nats of all that a batch should answer: `[N]`.

        In a training step that is also what the virtual tokens should predict, once for each row.
        """
        call = self.call(layout)
        for known in self.reuses:
            call = known.reuse(call)
        loss = self.readout.loss(self.backbone, call)
        own = None if call.prompt is None else call.prompt.own_loss
        return loss if own is None else torch.cat([loss, own.repeat(call.rows)])

    def call(self, layout: Layout) -> Call:
        """Rows that were laid out, with this model's prompt, or each with one of its prompts."""
        numbers = [0] if layout.prompts is None else layout.prompts.tolist()
        used = sorted(set(numbers))
        prompts = self.prompts(used)
        laid = replace(layout, prompts=None)
        if len(used) == 1:
            return Call(laid, prompts[0])
        of = [used.index(number) for number in numbers]
        several = [prompt for prompt in prompts if prompt is not None]
        return Call.choosing(laid, several, of, self.backbone.geometry.vocabulary)

    def prompt(self) -> Prompt | None:
        """What the backbone takes for one call whose rows all take the first prompt."""
        return self.prompts([0])[0]

    def prompts(self, numbers: Sequence[int]) -> list[Prompt | None]:
        """What the backbone takes for one call, of the prompts of these numbers; the
        reparameterization runs once for the whole batch, and once for all calls while nothing of
        it is trained."""
        named, make = self.reparam(), self.injection.prompt
        if any(tensor.requires_grad for tensor in named.values()):
            return [make(self.injection.one_of(named, number)) for number in numbers]
        state = tuple(
            (name, one.data_ptr(), one._version, one.device, one.dtype)
            for name, one in named.items()
        )
        made = self._made
        if made is None or made.state != state:
            made = self._made = _Made(state, named, {})
        for number in numbers:
            if number not in made.prompts:
                with torch.no_grad():
                    made.prompts[number] = make(self.injection.one_of(named, number))
        kept = [made.prompts[number] for number in numbers]
        return [None if one is None else Prompt(one.sites, one.embeddings) for one in kept]

    def arrange(
        self,
        sources: Sequence[Sequence[int]],
        targets: Sequence[Sequence[int]] | None = None,
        *,
        side: Side = "right",
        prompts: Sequence[int] = (),
    ) -> Layout:
        """Lay out token lists on the backbone's device: a decoder's left-padded to decode.

        Args:
            sources: one list for each row.
            targets: one list for each row, or none.
            side: where padding goes.
            prompts: the number of each row's prompt; all take the first if not given.
        """
        pad_id = self.backbone.tokens.pad_id
        layout = self.placement.layout(sources, targets, side=side, pad_id=pad_id)
        return self._taking(layout, prompts)

    def _taking(self, layout: Layout, prompts: Sequence[int]) -> Layout:
        """The layout on the backbone's device, its rows with their prompts' numbers."""
        numbered = self.injection.many > 1 and len(prompts) > 0
        numbers = torch.tensor(list(prompts)) if numbered else None
        return replace(layout, prompts=numbers).to(self.backbone.device)

    def lay_out(self, pairs: Sequence[Pair]) -> Layout:
        """Lay out examples with their answers, on the backbone's device; what stands beside a pair
        has rows of its own after it."""
        pairs = [row for pair in pairs for row in pair.rows]
        laid = self.placement.layout(
            [pair.source for pair in pairs],
            [pair.target for pair in pairs],
            pad_id=self.backbone.tokens.pad_id,
            marks=[pair.marks for pair in pairs] if any(p.marks for p in pairs) else [],
            labels=[pair.labels for pair in pairs] if any(p.labels for p in pairs) else [],
            segments=[pair.segments for pair in pairs],
            between=[pair.between for pair in pairs] if any(p.between for p in pairs) else [],
        )
        taught = [pair.taught for pair in pairs if pair.taught is not None]
        if taught:
            assert len(taught) == len(pairs), "a teacher says something of every row, or of none"
            laid = replace(laid, taught=Taught.joined(taught))
        return self._taking(laid, [pair.prompt for pair in pairs])

    def room(self, answer: int) -> int | None:
        """How many tokens of source fit beside an answer of so many tokens; None: any number.

        Raises:
            DataError: the answer alone is too long.
        """
        context = self.backbone.geometry.context
        room = self.placement.room(context)
        if self.backbone.geometry.kind == "decoder":
            return None if room is None else room - answer
        most = self.placement.answer_room(context)
        if most is not None and answer > most:
            raise DataError(
                f"an answer of {answer} tokens is longer than the {most} that the decoder's "
                "context leaves for it; shorten it, or lower decoding.max_new_tokens"
            )
        return room

    @torch.no_grad()
    def answers(self, layout: Layout, how: Decoding) -> list[str]:
        """Decode every row of a left-padded layout."""
        assert isinstance(self.readout, Generation), "a head writes nothing"
        return self.readout.answers(self.backbone, self.call(layout), how)

    @torch.no_grad()
    def read(self, layout: Layout) -> list[Tensor]:
        """What a head or label words say of every row (`Predictor.read`)."""
        assert isinstance(self.readout, Predictor), "a text is decoded"
        return self.readout.read(self.backbone, self.call(layout))

    @torch.no_grad()
    def fold(self) -> TunedModel:
        """The same model with its prompt's tensors computed once and kept as they are."""
        return self.with_tensors(self.reparam())

    def with_tensors(self, named: Named) -> TunedModel:
        """The same axes around given tensors of a prompt, by the names of the injection's parts."""
        parts = self.injection.parts(self.placement.length)
        return TunedModel(
            self.backbone,
            reparam=ByPart.fixed(parts, named),
            injection=self.injection,
            placement=self.placement,
            readout=copy.deepcopy(self.readout).requires_grad_(False),
            delta=self.delta,
            choice=self.choice,
        )

    def with_rows(self, rows: Tensor) -> TunedModel:
        """The same axes around virtual tokens `[P, width]`, each site's in PEFT's order."""
        return self.with_tensors({**self.reparam(), **self.injection.named(rows)})

    def rows(self) -> Tensor:
        """The virtual tokens as they are now, as such a matrix."""
        return self.injection.matrix(self.reparam())

    def bare(self) -> TunedModel:
        """The backbone alone under the same token rule: what the prompt is compared with."""
        return TunedModel(
            self.delta.origin or self.backbone,
            reparam=ByPart.fixed((), {}),
            injection=Text(),
            placement=replace(self.placement, length=0, columns={}),
            readout=self.readout,
            delta=Frozen(),
        )

    @property
    def differs_from_the_backbone(self) -> bool:
        """Whether the backbone alone could answer too, and would answer otherwise."""
        changed = bool(self.placement.length) or self.delta.backbone is not None
        return changed and not isinstance(self.readout, Head)

    @property
    def stored_parameters(self) -> int:
        """How many numbers an artifact keeps: virtual tokens, head, moved weights."""
        parts = self.reparam(), dict(self.readout.named_parameters()), self.delta.tensors()
        return sum(tensor.numel() for part in parts for tensor in part.values())

    @property
    def trained_parameters(self) -> int:
        """How many numbers are trained now."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    @property
    def trained_share(self) -> float:
        """How many numbers are trained now for each one of the backbone's."""
        return self.trained_parameters / (self.delta.origin or self.backbone).parameters
