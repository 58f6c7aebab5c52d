"""LLaMA-Adapter (Zhang et al. 2023, "LLaMA-Adapter: Efficient Fine-tuning of Language Models with
Zero-init Attention").

Adaption prompts in the last layers: states that a layer's own frozen projections turn into keys and
values without a position. They have a softmax of their own, whose outcome is added with a gate that
starts at zero, so that training starts from the bare backbone. Defaults: the paper's (section 4.1)
and the authors' code: 10 virtual tokens, all layers but the first two (30 of LLaMA 7B's 32), a gate
of each head within tanh, 5 epochs with a warm-up of two, batches of 64, a rate of 9e-3 with cosine
decay, weight decay 0.02, Adam's betas 0.9 and 0.95; gradients are not clipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from foreword.axes.injection.options import AttentionSites, injection, known_sites
from foreword.errors import UserError
from foreword.methods.axes import (
    InjectionSpec,
    KeysValuesInit,
    Positions,
    RandomInit,
    Table,
    TableOnly,
)
from foreword.methods.base import PromptOptions, method

if TYPE_CHECKING:
    from foreword.axes.injection.base import Injection
    from foreword.backbone import Backbone


@injection
class Adaption(InjectionSpec):
    """States that a layer's projections turn into keys and values with their own softmax."""

    kind: ClassVar[str] = "adaption"
    lengths: ClassVar[tuple[tuple[str, ...], int] | None] = ((".prompts",), 1)
    runs_parts: ClassVar[bool] = True

    sites: AttentionSites = None
    layers: int | None = None
    gate: Literal["head", "layer"] = "head"
    tanh: bool = True

    def build(
        self, backbone: Backbone, *, stands: Literal["before", "between", "inside"] = "before"
    ) -> Injection:
        """For the last layers of the chosen sites."""
        from foreword.axes.injection.adaption import Adaption as Module
        from foreword.backbone import projections

        if stands == "inside":
            raise UserError(
                "task.input has {soft} slots, but adaption prompts stand in no text; use p-tuning "
                "or prompt-tuning"
            )
        backbone.check_takes_keys_values()
        known = backbone.geometry.sites
        sites = known_sites(backbone, self.sites) or tuple(known)
        for site in sites:
            if self.layers is not None and self.layers > known[site].layers:
                raise UserError(
                    f"method.layers: {self.layers}, but the {site} of '{backbone.name}' has "
                    f"{known[site].layers} layers; give at most so many"
                )
        by_site = projections.find(backbone, sites)
        last = {
            site: dict(list(enumerate(every))[-(self.layers or max(1, len(every) - 2)) :])
            for site, every in by_site.items()
        }
        return Module(last, each_head=self.gate == "head", bounded=self.tanh)


@method
class LLaMAAdapter(PromptOptions):
    """Options of LLaMA-Adapter."""

    enters: ClassVar[type[InjectionSpec]] = Adaption
    paper: ClassVar[str] = "Zhang et al. 2023"
    training_defaults: ClassVar[dict[str, Any]] = {
        "epochs": 5,
        "batch_size": 64,
        "learning_rate": 9e-3,
        "schedule": "cosine",
        "warmup": 0.4,
        "weight_decay": 0.02,
        "betas": (0.9, 0.95),
        "clip": None,
    }

    name: Literal["llama-adapter"]
    length: int = Field(10, ge=1, le=4096, description="virtual tokens of each layer")
    positions: Positions = "auto"
    sites: AttentionSites = None
    layers: int | None = Field(
        None,
        ge=1,
        le=10**4,
        description="how many layers carry a prompt, the last ones; all but the first two if left"
        " out",
    )
    gate: Literal["head", "layer"] = Field(
        "head",
        description="one gate for each head, as the paper's authors; or for each layer, as PEFT",
    )
    tanh: bool = Field(
        True, description="a gate counts as its tanh, as the paper's authors have it; PEFT has none"
    )
    reparameterization: TableOnly = Table(std=1.0)
    init: KeysValuesInit = RandomInit()
