"""The `backbone` section of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import (
    Field,
    JsonValue,
    field_validator,
    model_validator,
)

from foreword.common.bounds import GPU
from foreword.common.choices import Data
from foreword.common.paths import GGUF, checked_path
from foreword.errors import did_you_mean

DEVICE_RULES = ("auto", "balanced", "balanced_low_0", "sequential")


class BackboneSpec(Data):
    """Which backbone, and how it is loaded. A plain string is its name."""

    name: str = Field(
        min_length=1,
        description="foreword/... name, folder, hub name, or a GGUF file (its path, or"
        " owner/repository/file.gguf)",
    )
    gguf_file: str | None = Field(
        None,
        min_length=1,
        description="a GGUF file in the folder or hub repository `name`; read as name/gguf_file",
    )
    revision: str | None = Field(None, description="branch, tag or commit of a hub name")
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = Field(
        "float32",
        description="of weights and arithmetic; auto: as they are stored, but float32 for a type of"
        " 16 bits that the device has no units for",
    )
    bos: Literal["auto", "always", "never"] = Field(
        "auto",
        description="beginning token (its bos_token or cls_token) before what is read: as the"
        " tokenizer does it, always one, or never",
    )
    attention: Literal["auto", "sdpa", "eager", "flex"] = Field(
        "auto", description="how attention is computed; auto: what suits the family"
    )
    quantization: dict[str, JsonValue] | None = Field(
        None,
        description="weights of 4 or 8 bits: `quant_method` and that method's options, as"
        " transformers' own quantisation config has them",
    )
    device_map: str | dict[str, str | GPU] | None = Field(
        None,
        description=f"a model spread over devices: {', '.join(DEVICE_RULES)}, or by module a GPU's"
        " number, cpu or disk",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_name(cls, given: Any) -> Any:
        """`name` and `gguf_file` are one name: it says everywhere which backbone is meant."""
        if not isinstance(given, Mapping) or given.get("gguf_file") is None:
            return given
        name, file = given.get("name"), given["gguf_file"]
        if not isinstance(name, str) or not isinstance(file, str):
            return given  # refused by the fields themselves
        if not file.lower().endswith(GGUF):
            raise ValueError(f"`gguf_file` is {file!r}; expected the name of a {GGUF} file")
        return {**given, "name": f"{name.rstrip('/')}/{file}", "gguf_file": None}

    @field_validator("name")
    @classmethod
    def _a_path(cls, name: str) -> str:
        return checked_path(name)

    @field_validator("quantization", mode="before")
    @classmethod
    def _names_its_method(cls, given: Any) -> Any:
        if given is None:
            return given
        if not isinstance(given, Mapping) or not isinstance(given.get("quant_method"), str):
            raise ValueError("expected a mapping with `quant_method` and that method's options")
        return given

    @field_validator("device_map", mode="before")
    @classmethod
    def _devices(cls, given: Any) -> Any:
        if given is None or given in DEVICE_RULES:
            return given
        if not isinstance(given, Mapping) or not given:
            what = did_you_mean(given if isinstance(given, str) else "", DEVICE_RULES)
            raise ValueError(f"expected a rule, or a mapping of modules to devices{what}")
        for module, place in given.items():
            number = isinstance(place, int) and not isinstance(place, bool) and 0 <= place < 1024
            if not isinstance(module, str) or not (number or isinstance(place, str)):
                raise ValueError("expected for each module a GPU's number, or the text of a device")
        return given
