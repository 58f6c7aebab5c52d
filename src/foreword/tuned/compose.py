"""From a method's options to a model: one choice on each axis, put together."""

from __future__ import annotations

from foreword.axes.injection import Injection
from foreword.axes.parts import Wanted
from foreword.axes.readout import Generation, Head, Readout
from foreword.axes.reparam.shifted import Shifted
from foreword.backbone import Backbone
from foreword.backbone.layout import PositionRule
from foreword.errors import UserError
from foreword.methods import MethodOptions
from foreword.methods.axes import InSlots, PlacementSpec
from foreword.tuned import TunedModel


def compose(
    backbone: Backbone,
    options: MethodOptions,
    readout: Readout | None = None,
    *,
    inside: bool = False,
) -> TunedModel:
    """The model that a method's options name, its virtual tokens at their random start.

    Args:
        backbone: what is tuned.
        options: the method's.
        readout: how the answer is read; by generation if not given.
        inside: whether the text has slots for the virtual tokens, which then stand nowhere else.

    Raises:
        UserError: the options do not go with this backbone.
    """
    readout = readout or Generation()
    delta = options.moves.build(backbone, head=isinstance(readout, Head))
    backbone = delta.backbone or backbone
    g = backbone.geometry
    writes = readout.continues
    if g.kind == "encoder" and writes:
        raise UserError(
            f"backbone: '{backbone.name}' ({backbone.model.config.model_type}) is an encoder, "
            "which writes no text; name a decoder or an encoder-decoder, or give a task with "
            "labels (task.data.label)"
        )
    if isinstance(readout, Head):
        backbone.check_takes_head()
    place = _place(options, inside=inside)
    place.check(backbone, writes=writes)
    injection = options.injection.build(backbone, stands=place.stands)
    columns = injection.columns(options.length)
    positions: PositionRule = "shift"
    if place.stands != "inside":
        positions = _positions(backbone, options, injection)
    if g.context is not None and positions == "shift" and options.length >= g.context:
        raise UserError(
            f"method.length: {options.length} virtual tokens leave no room in the {g.context} "
            f"positions of '{backbone.name}'; give fewer"
        )
    wanted = Wanted(injection.parts(options.length), options.length, g.width)
    reparam = options.making.build(wanted)
    if options.init.exact and not options.making.exact:
        reparam = Shifted(reparam, wanted.parts)
    return TunedModel(
        backbone,
        reparam=reparam,
        injection=injection,
        placement=place.build(backbone, options.length, positions, columns),
        readout=readout,
        delta=delta,
        choice=options.choice,
    )


def _place(options: MethodOptions, *, inside: bool) -> PlacementSpec:
    """Where virtual tokens stand: where the method says, or in the slots that the text has."""
    if not inside:
        return options.stands
    if options.stands.stands == "between":
        raise UserError(
            "method.placement: 'infix', but the virtual tokens stand in the slots of task.input; "
            "leave one of the two out"
        )
    return InSlots()


def _positions(backbone: Backbone, options: MethodOptions, injection: Injection) -> PositionRule:
    """The rule that a recipe names, or the one that suits."""
    columns = injection.columns(options.length)
    allowed = injection.position_rules(backbone.geometry, columns)
    if options.positions == "auto":
        return allowed[0]
    if options.positions not in allowed:
        raise UserError(
            f"method.positions: '{options.positions}' is not possible for {options.name} on "
            f"'{backbone.name}' ({backbone.model.config.model_type}); only '{allowed[0]}' is"
        )
    return options.positions
