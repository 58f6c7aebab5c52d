"""How a server is run: what a configuration file says, and the flags of `foreword serve`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, ValidationError, field_validator, model_validator

from foreword.artifacts.joined import JOIN, has_artifact, parts_of
from foreword.common import opening
from foreword.common.bounds import Numbers, Tokens
from foreword.common.choices import Data
from foreword.common.paths import is_backbone, is_url
from foreword.errors import UserError
from foreword.recipe.problems import explain
from foreword.recipe.yaml_text import parse_yaml
from foreword.serving.jobs import EngineOptions

Seconds = Annotated[float, Field(gt=0, le=1e6)]
HEX = "^[0-9a-f]{64}$"


def _place(given: Any) -> Path | str:
    if not isinstance(given, str | Path):
        raise ValueError(f"expected a folder or a URL, found {given!r:.80}")
    return given if is_url(given) else Path(given)


Place = Annotated[Path | str, PlainValidator(_place)]
"""A folder, or the URL of one, as fsspec writes it."""


def digest_of(key: str) -> str:
    """A key's sha256 in hex."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


class KeySpec(Data):
    """One key, and what its holder may do."""

    name: str = Field(min_length=1, max_length=128, description="what logs and metrics call it")
    key: str | None = Field(None, min_length=8, max_length=512, description="the key itself")
    sha256: str | None = Field(None, pattern=HEX, description="its sha256 in hex, instead of it")
    models: tuple[str, ...] = Field(
        ("*",), description="models it may use, the backbone's name among them; * stands for any"
    )
    admin: bool = Field(False, description="may change prompts, and read /metrics")
    requests_per_minute: int | None = Field(None, ge=1, le=10**9)
    concurrent: int | None = Field(None, ge=1, le=10**9, description="requests at the same time")
    max_tokens: Tokens | None = Field(None, description="tokens of an answer")

    @property
    def digest(self) -> str:
        """The key's sha256 in hex."""
        return self.sha256 or digest_of(self.key or "")

    @model_validator(mode="after")
    def _one_form(self) -> KeySpec:
        if (self.key is None) == (self.sha256 is None):
            raise ValueError("give one of `key` and `sha256`")
        return self


class ServeSpec(EngineOptions):
    """All that a server is told."""

    backbone: str = Field(description="a folder, a hub name, or foreword/…")
    name: str | None = Field(
        None, min_length=1, max_length=512, description="the backbone's name for clients"
    )
    prompt: dict[str, Place] = Field(
        default_factory=dict, description="artifacts by name, or A+B, which stand together"
    )
    prompts: Place | None = Field(
        None, description="a folder of artifacts, or its URL, each called as its own"
    )
    refresh: Seconds | None = Field(
        None,
        description="seconds after which the folder of `prompts` is looked at again; null: it is"
        " read when the server starts",
    )
    roots: tuple[Path, ...] = Field(
        (), description="folders from which prompts may be added over HTTP"
    )
    uploads: Path | None = Field(
        None, description="where prompts that are uploaded over HTTP are kept; null: none are taken"
    )
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535, description="0: any that is free")
    keys: tuple[KeySpec, ...] = Field((), description="without any, everybody may ask")
    memory: Numbers = Field(2**30, description="bytes that prompts may take in memory")
    largest: Numbers = Field(2**28, description="bytes that a prompt's files may have")
    body: Numbers = Field(2**25, description="bytes that the body of a request may have")
    max_tokens: Tokens | None = Field(None, description="tokens that an answer may have")
    timeout: Seconds = Field(600.0, description="seconds that a request may take")
    drain: Seconds = Field(30.0, description="seconds that answers may take after SIGTERM")
    traces: bool = Field(False, description="OpenTelemetry traces, as OTEL_… variables say")
    device: Literal["cpu", "cuda", "mps"] | None = Field(
        None, description="null: cuda, else mps, else cpu"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "float32"
    quantization: dict[str, Any] | None = Field(None, description="as in a recipe")
    device_map: str | dict[str, str | int] | None = Field(None, description="as in a recipe")
    download: bool = Field(False, description="let the backbone be downloaded from the hub")
    other_backbone: bool = Field(False, description="take prompts of other weights all the same")

    @field_validator("keys")
    @classmethod
    def _tell_holders_apart(cls, keys: tuple[KeySpec, ...]) -> tuple[KeySpec, ...]:
        if not keys:
            raise ValueError("holds no key; give one, or leave it out and everybody may ask all")
        names = [key.name for key in keys]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"the name '{twice}' is given to two keys")
        holders: dict[str, str] = {}
        for key in keys:
            other = holders.setdefault(key.digest, key.name)
            if other != key.name:
                raise ValueError(f"'{other}' and '{key.name}' have the same key; give each its own")
        return keys

    @model_validator(mode="after")
    def _refreshes_something(self) -> ServeSpec:
        if self.refresh is not None and self.prompts is None:
            raise ValueError("`refresh` is for a folder of `prompts`, which is not given")
        return self

    @property
    def backbone_name(self) -> str:
        """What clients call the backbone: its name, or that of its folder or file."""
        if self.name is not None:
            return self.name
        place = Path(self.backbone)
        if not is_backbone(place):
            return self.backbone
        return place.resolve().name if place.is_dir() else place.stem

    @property
    def engine(self) -> EngineOptions:
        """The engine's part."""
        return EngineOptions(**{name: getattr(self, name) for name in EngineOptions.model_fields})


def read_spec(file: Path | None, flags: Mapping[str, Any]) -> ServeSpec:
    """What a configuration file and flags say; flags are later words.

    Args:
        file: YAML; paths in it are relative to its folder.
        flags: by the same names, those that were given.

    Raises:
        UserError: the file cannot be read, or something in it or a flag is wrong.
    """
    stated: dict[str, Any] = {}
    if file is not None:
        try:
            raw = parse_yaml(opening.read_text(file))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{file}: cannot be read: {reason}") from error
        if not isinstance(raw, Mapping):
            raise UserError(f"{file}: expected settings by name, such as `backbone: foreword/mini`")
        stated = _relative(raw, file.parent)
    if flags.get("prompt") and isinstance(stated.get("prompt"), Mapping):
        flags = {**flags, "prompt": {**stated["prompt"], **flags["prompt"]}}
    try:
        return ServeSpec.model_validate({**stated, **flags})
    except ValidationError as error:
        lines = explain(error, ServeSpec, root="serve")
        where = "" if file is None else f"{file}: "
        raise UserError("\n".join(f"{where}{line}" for line in lines)) from error


def _relative(stated: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The same settings with paths as seen from here."""

    def path(given: Any) -> Any:
        return folder / given if isinstance(given, str) and not is_url(given) else given

    own = dict(stated)
    for name in ("prompts", "uploads"):
        own[name] = path(own.get(name))
    if isinstance(own.get("roots"), list):
        own["roots"] = [path(one) for one in own["roots"]]
    if isinstance(own.get("prompt"), Mapping):
        own["prompt"] = {name: _together(one, folder) for name, one in own["prompt"].items()}
    backbone = own.get("backbone")
    if isinstance(backbone, str) and is_backbone(folder / backbone):
        own["backbone"] = str(folder / backbone)
    return own


def _together(given: Any, folder: Path) -> Any:
    """An artifact as seen from here, or several of `A+B`; those that are no folders are names."""
    if not isinstance(given, str) or is_url(given):
        return given
    parts = parts_of(given, lambda one: has_artifact(folder / one))
    if len(parts) == 1:
        return folder / given
    return JOIN.join(str(folder / one if has_artifact(folder / one) else one) for one in parts)
