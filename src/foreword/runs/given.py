"""A loaded backbone, given from Python, in the place of the one that a recipe names."""

from __future__ import annotations

import re
from pathlib import Path

from foreword.backbone import Backbone
from foreword.backbone.weights.quantization import is_stored
from foreword.common.paths import is_backbone
from foreword.errors import RecipeError, UserError
from foreword.recipe import BackboneSpec


def as_the_recipe_says(backbone: Backbone, spec: BackboneSpec, device: str | None) -> Backbone:
    """The backbone under the recipe's rule for the beginning token.

    A run folder says what was run, so what cannot be set here must agree.

    Raises:
        RecipeError: the recipe names another backbone, revision or type.
        UserError: another device is asked for than it lies on.
    """
    if device is not None and device != backbone.device.type:
        raise UserError(
            f"device: '{device}' is asked for, but the backbone given lies on "
            f"'{backbone.device.type}'; load it there, or leave `device` out"
        )
    lines = []
    if not _same_name(spec.name, backbone.name):
        lines.append(_differs("name", spec.name, backbone.name))
    elif spec.revision and backbone.revision and _other_commit(spec.revision, backbone.revision):
        lines.append(_differs("revision", spec.revision, backbone.revision))
    if spec.dtype not in ("auto", backbone.dtype):
        lines.append(_differs("dtype", spec.dtype, backbone.dtype))
    if spec.attention not in ("auto", backbone.attention):
        lines.append(_differs("attention", spec.attention, backbone.attention))
    own = None if is_stored(backbone.model) and not spec.quantization else backbone.quantization
    if spec.quantization != own:
        lines.append(
            f"backbone.quantization: the recipe says {spec.quantization or 'nothing'}, the backbone"
            f" given has {own or 'none'}; load what the recipe says, or say there what it has"
        )
    if lines:
        raise RecipeError("recipe", lines)
    return backbone.with_bos(spec.bos)


def _differs(field: str, named: str, loaded: str) -> str:
    return (
        f"backbone.{field}: the recipe says '{named}', the backbone given has '{loaded}'; load "
        f"what the recipe says, or override it with 'backbone.{field}={loaded}'"
    )


def _same_name(one: str, other: str) -> bool:
    if one == other:
        return True
    one_place, other_place = Path(one).expanduser(), Path(other).expanduser()
    return is_backbone(one_place) and one_place.resolve() == other_place.resolve()


def _other_commit(named: str, loaded: str) -> bool:
    """A branch or a tag may well be this commit; another commit is not."""
    return bool(re.fullmatch("[0-9a-f]{7,40}", named)) and not loaded.startswith(named)
