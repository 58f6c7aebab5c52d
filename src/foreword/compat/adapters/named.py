"""Adapters whose tensors an injection here has under names of its own."""

from __future__ import annotations

from foreword.axes.parts import Named
from foreword.axes.readout import Head
from foreword.backbone import Backbone
from foreword.compat.adapter import WEIGHTS, Adapter
from foreword.errors import ArtifactError, argument
from foreword.methods import MethodChoice
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose


def with_named(
    adapter: Adapter,
    stored: Named,
    backbone: Backbone,
    method: MethodChoice,
    readout: Head | None,
) -> TunedModel:
    """A model of a method around an adapter's tensors.

    Args:
        adapter: where they are from.
        stored: they, by the names of the method's injection.
        backbone: what the adapter was trained on.
        method: the method here that trains such tensors.
        readout: the adapter's head; None where a text is written.

    Raises:
        ArtifactError: the backbone needs tensors of other shapes, or other whole numbers.
        UserError: the method does not go with the backbone.
    """
    model = compose(backbone, method, readout)
    parts, facts = model.injection.parts(method.length), model.injection.facts()
    shapes = {name: shape for part in parts for name, shape in part.shapes.items()}
    differ = [
        f"{name} {want}, found {got}"
        for name, want, got in (
            *((n, list(s), list(stored[n].shape)) for n, s in shapes.items()),
            *((n, fact.tolist(), stored[n].tolist()) for n, fact in facts.items()),
        )
        if want != got
    ]
    if differ:
        raise ArtifactError(
            f"{adapter.folder / WEIGHTS}: backbone '{backbone.name}' needs {'; '.join(differ)}; "
            f"name the right one with {argument('--backbone')}"
        )
    return model.with_tensors({name: stored[name].to(backbone.device) for name in shapes})
