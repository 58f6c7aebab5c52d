"""How the flags of the command line say that a backbone is to be loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.cli import options as o
from foreword.cli.output import complain
from foreword.errors import UserError

if TYPE_CHECKING:
    from foreword.backbone import Backbone
    from foreword.session import LoadedPrompt


def loading_options(on: o.ArtifactFlags) -> dict[str, Any]:
    """The arguments of `foreword.load` and `foreword.prompts` that flags give.

    Raises:
        UserError: one of them is not what a recipe may say.
    """
    return {
        "device": on.device.value if on.device else None,
        "dtype": on.dtype.value if on.dtype else None,
        "quantization": quantization(on.quantization),
        "device_map": _said("device_map", on.device_map),
        "download": on.download,
        "trust_remote_code": on.trust_remote_code,
    }


def load_artifact(artifact: Path, on: o.ArtifactFlags) -> LoadedPrompt:
    """An artifact on its backbone, as flags say."""
    from foreword.session import load

    loaded = load(
        artifact, backbone=on.backbone, other_backbone=on.other_backbone, **loading_options(on)
    )
    complain_of_slowness(loaded.model.backbone)
    return loaded


def complain_of_slowness(backbone: Backbone) -> None:
    """Say where the device has no units for the type of a backbone's weights."""
    if backbone.slowness is not None:
        complain(f"note: {backbone.slowness}")


def quantization(text: str | None) -> Any:
    """How a flag says that a backbone is quantised; {} for not at all, None where it says nothing.

    Raises:
        UserError: it is not what a recipe may say.
    """
    return {} if text == "none" else _said("quantization", text)


def _said(field: str, text: str | None) -> Any:
    """What a flag says, as a recipe would say it in its section `backbone`."""
    if text is None:
        return None
    from pydantic import ValidationError

    from foreword.recipe import BackboneSpec
    from foreword.recipe.problems import explain
    from foreword.recipe.yaml_text import parse_yaml

    flag = f"--{field.replace('_', '-')}"
    try:
        section = BackboneSpec.model_validate({"name": "any", field: parse_yaml(text)})
    except ValidationError as error:
        (line, *_) = explain(error, BackboneSpec)
        raise UserError(f"{flag}{line.removeprefix(field)}") from error
    except ValueError as error:
        raise UserError(f"{flag}: is not valid YAML: {error}") from error
    return getattr(section, field)
