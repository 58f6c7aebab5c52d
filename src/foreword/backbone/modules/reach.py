"""A model's attention is made to take a prompt, or its cache where attention lets nothing in."""

from __future__ import annotations

from typing import Literal

from transformers import PreTrainedModel

from foreword.backbone import families, geometry
from foreword.backbone.prompts import attention
from foreword.backbone.prompts.attention import Attention
from foreword.backbone.shapes import Geometry, Kind, SiteGeometry
from foreword.backbone.silence import quiet
from foreword.common.sites import Site
from foreword.errors import BackboneError


def reach(
    model: PreTrainedModel, kind: Kind, how: Attention | None
) -> tuple[Geometry, Attention | Literal["own"]]:
    """Route a model's attention through ours, or find that its cache has to do, or that nothing
    does: then it takes no keys and values, and the geometry says why.

    Args:
        model: whose attention it is.
        kind: what the model is.
        how: by which function attention is computed; what suits the family if not given.

    Returns:
        The model's measures, and by which function attention is computed.

    Raises:
        BackboneError: the model does not run, or its attention cannot be computed by this function.
    """
    attention.register()
    own = model.config._attn_implementation
    sites: dict[Site, SiteGeometry] = {}
    # Families with soft caps or sinks raise under sdpa; as plain matrix products they work.
    choices: tuple[Attention, ...] = (how,) if how else ("sdpa", "eager")
    known = families.unfit(model.config)
    reason = known or ""
    for choice in () if known else choices:
        reason = "its attention does not go through transformers' attention interface"
        with quiet():
            try:
                model.set_attn_implementation(attention.implementation(choice))
            except (RuntimeError, ValueError) as error:
                reason = str(error).split(". ")[0]
            else:
                try:
                    sites = geometry.trace(model, kind)
                    if sites:
                        return geometry.measure(model, kind, sites, "interface"), choice
                except geometry.FAILURES as error:
                    reason = f"its forward pass fails ({geometry.first_line(error)})"
            model.set_attn_implementation(own)
    if how is not None:
        raise BackboneError(
            f"backbone.attention: family '{model.config.model_type}' cannot use '{how}': {reason}; "
            "leave it at auto"
        )
    if kind == "decoder" and not known:
        sites = geometry.cached_sites(model)
    if sites:
        return geometry.measure(model, kind, sites, "cache"), "own"
    geometry.check_runs(model, kind)
    sites = geometry.plain_sites(model, kind)
    return geometry.measure(model, kind, sites, "nothing", reason), "own"
