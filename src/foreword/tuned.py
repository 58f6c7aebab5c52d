"""One choice on each axis, composed: a backbone with its prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from foreword.backbone import Backbone, Decoding, PromptKeyValues
from foreword.deltas import Frozen
from foreword.errors import UserError
from foreword.injection import Embeddings, Injection, KeysValues, Text
from foreword.layout import Layout, Side
from foreword.methods import MethodOptions, axes
from foreword.placement import Prefix
from foreword.readout import Generation
from foreword.reparam import LSTM, MLP, ReluMLP, Reparameterization, Table


class TunedModel(nn.Module):
    """A frozen backbone and what conditions it.

    Its parameters are the trained ones alone: the backbone is no submodule, so `state_dict()`, an
    optimizer and distributed training see a few kilobytes.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        reparam: Reparameterization,
        injection: Injection,
        placement: Prefix,
        readout: Generation,
        delta: Frozen,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.reparam = reparam
        self.injection = injection
        self.placement = placement
        self.readout = readout
        self.delta = delta
        delta.apply(backbone)
        self.to(backbone.device)

    def forward(self, layout: Layout) -> Tensor:
        """Negative log-likelihood in nats of every target token of a batch: `[N]`."""
        logits = self.backbone.logits(layout, self.prompt(), layout.reading_positions())
        return self.readout.loss(logits, layout)

    def prompt(self) -> PromptKeyValues | None:
        """What the backbone takes; the reparameterization runs once for the whole batch."""
        return self.injection.prompt(self.reparam())

    def arrange(
        self,
        sources: Sequence[Sequence[int]],
        targets: Sequence[Sequence[int]] | None = None,
        *,
        side: Side = "right",
    ) -> Layout:
        """Lay out token lists on the backbone's device: left-padded to decode."""
        pad_id = self.backbone.tokens.pad_id
        layout = self.placement.layout(sources, targets, side=side, pad_id=pad_id)
        return layout.to(self.backbone.device)

    @torch.no_grad()
    def answers(self, layout: Layout, how: Decoding) -> list[str]:
        """Decode every row of a left-padded layout."""
        return self.readout.answers(self.backbone, layout, self.prompt(), how)

    @torch.no_grad()
    def fold(self) -> TunedModel:
        """The same model with its virtual tokens computed once and kept as a plain table."""
        return self.with_rows(self.reparam())

    def with_rows(self, rows: Tensor) -> TunedModel:
        """The same axes around given virtual tokens `[P, width]`."""
        table = Table(*rows.shape).to(torch.promote_types(rows.dtype, torch.float32))
        table.fit(rows)
        table.requires_grad_(False)
        return TunedModel(
            self.backbone,
            reparam=table,
            injection=self.injection,
            placement=self.placement,
            readout=self.readout,
            delta=self.delta,
        )

    def bare(self) -> TunedModel:
        """The backbone alone under the same token rule: what the prompt is compared with."""
        return TunedModel(
            self.backbone,
            reparam=Table(0, 0),
            injection=Text(),
            placement=Prefix(0, self.placement.positions),
            readout=self.readout,
            delta=self.delta,
        )

    @property
    def trained_parameters(self) -> int:
        """How many numbers are trained now."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


_INJECTIONS: dict[str, Callable[[Backbone], Injection]] = {
    "keys_values": lambda backbone: KeysValues(backbone.geometry),
    "embeddings": Embeddings,
    "text": lambda _: Text(),
}


def compose(backbone: Backbone, options: MethodOptions) -> TunedModel:
    """The model that a method's options name, its virtual tokens at their random start."""
    point = options.point
    context = backbone.geometry.context
    if context is not None and options.length >= context:
        raise UserError(
            f"method.length: {options.length} virtual tokens leave no room in the {context} "
            f"positions of '{backbone.name}'"
        )
    injection = _INJECTIONS[point.injection](backbone)
    return TunedModel(
        backbone,
        reparam=_reparam(options, injection.width, backbone.geometry.width),
        injection=injection,
        placement=Prefix(options.length, options.positions),
        readout=Generation(),
        delta=Frozen(),
    )


def _reparam(options: MethodOptions, width: int, d: int) -> Reparameterization:
    length = options.length
    match options.reparameterization:
        case axes.MLP() as mlp:
            return MLP(
                length,
                width,
                d,
                mlp.hidden,
                fit_steps=mlp.fit_steps,
                fit_learning_rate=mlp.fit_learning_rate,
            )
        case axes.LSTM() as lstm:
            return LSTM(
                length,
                width,
                d,
                lstm.hidden or max(1, d // 2),
                layers=lstm.layers,
                dropout=lstm.dropout,
                fit_steps=lstm.fit_steps,
                fit_learning_rate=lstm.fit_learning_rate,
            )
        case axes.ReluMLP() as relu:
            return ReluMLP(
                length,
                width,
                d,
                relu.hidden or d,
                fit_steps=relu.fit_steps,
                fit_learning_rate=relu.fit_learning_rate,
            )
        case axes.Table() as table:
            return Table(length, width, table.std)
