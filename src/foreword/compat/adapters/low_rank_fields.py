"""Fields of LoRA's configuration in PEFT: what is taken, and what is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from foreword.errors import ArtifactError
from foreword.recipe.problems import found

STARTS = ("gaussian", "eva", "orthogonal")
"""Starts of LoRA (`init_lora_weights`) by name that leave the base model's own weights alone."""
MERGE = (
    "put the updates into the weights with PEFT's merge_and_unload and take that model as a "
    "backbone"
)
"""What goes with every LoRA of PEFT's."""
UNTIED = (
    f"{MERGE}; if it ties its output layer to its embeddings, untie them before (a weight of its "
    "own, tie_word_embeddings=False), or merging moves both"
)
"""What goes with one that updates the output layer or the embeddings."""
VARIANT = "is a variant of LoRA that is not here"
NOT_HERE = {
    "use_dora": "scales the updated weights by trained magnitudes (DoRA), which are not here",
    "bias": "lets biases of the base model move, too, which LoRA here does not",
    "lora_bias": "gives the updates biases, which they have not here",
    "layer_replication": "runs layers of the base model several times, which is not done here",
    "trainable_token_indices": "trains embeddings of tokens, too, which LoRA here does not",
    "target_parameters": "updates what is no linear layer, which LoRA here does not",
    "alora_invocation_tokens": "updates tokens after a certain text alone (aLoRA); it is not here",
    "megatron_config": "is for Megatron's layers, which are not here",
    "loftq_config": "starts from quantised weights of the base model (LoftQ), not from its own",
    "use_qalora": VARIANT,
    "use_bdlora": VARIANT,
    "arrow_config": VARIANT,
    "kasa_config": VARIANT,
    "velora_config": VARIANT,
    "monteclora_config": VARIANT,
}
"""Fields of a LoRA's configuration -> what they do to the answers, where they say something."""


# A union's mistakes would be listed once for each of its members, by pydantic's names of them. So
# what may be one thing or another is checked before, with one message.


def _names(value: Any) -> Any:
    return _one_or_several(value, _is_text, "a text or a list of texts")


def _numbers(value: Any) -> Any:
    whole = "a whole number or a list of whole numbers"
    return _one_or_several(value, lambda item: type(item) is int, whole)


def _start(value: Any) -> Any:
    if not isinstance(value, bool) and value not in STARTS:
        raise ValueError(
            f"expected true, false, {', '.join(STARTS[:-1])} or {STARTS[-1]}, found {found(value)}"
        )
    return value


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.encode("utf-8", "replace").decode() == value


def _one_or_several(value: Any, fits: Callable[[Any], bool], expected: str) -> Any:
    several = isinstance(value, list | tuple)
    for item in value if several else (value,):
        if not fits(item):
            raise ValueError(
                f"expected {expected}, found {'a list with ' if several else ''}{found(item)}"
            )
    return value


Names = Annotated[str | tuple[str, ...], BeforeValidator(_names)]
Numbers = Annotated[int | tuple[int, ...], BeforeValidator(_numbers)]
Start = Annotated[bool | Literal["gaussian", "eva", "orthogonal"], BeforeValidator(_start)]
Alpha = Annotated[float, Field(ge=1e-9, le=1e9, strict=True)]
Rank = Annotated[int, Field(ge=1, le=65536, strict=True)]


def refuse_variants(file: Path, raw: Mapping[str, Any]) -> None:
    """Raise ArtifactError for LoRA that computes something else than W x + scale · B A x with the
    base model's own W."""
    lines = [
        f"{name}: {found(raw[name])} {what}"
        for name, what in NOT_HERE.items()
        if raw.get(name) not in (None, False, [], {}, "none")
    ]
    start = raw.get("init_lora_weights")
    if isinstance(start, str) and start not in STARTS:
        lines.append(
            f"init_lora_weights: {found(start)} changes the base model's own weights where "
            "training starts; save it again from PEFT with "
            "path_initial_model_for_weight_conversion"
        )
    if lines:
        listed = "\n".join(f"  - {line}" for line in lines)
        raise ArtifactError(f"{file}: cannot be imported:\n{listed}\nTrain without it, or {MERGE}")
