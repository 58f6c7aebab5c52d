"""PEFT's folder of one prompt or LoRA: `adapter_config.json` and `adapter_model.safetensors`.

The folder comes from somebody else. Only these two files are opened, and only as JSON and as
safetensors: no pickle is read, no class is looked up by a name in it, and no link out of it is
followed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

import torch
from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from foreword.common import files, opening
from foreword.common.json_text import parse_json
from foreword.compat.peft_types import PeftType
from foreword.errors import ArtifactError, did_you_mean
from foreword.methods.axes import Data
from foreword.recipe.problems import explain, found

if TYPE_CHECKING:
    from foreword.backbone import Backbone
    from foreword.methods import MethodChoice

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
TENSOR, PREFIX = "prompt_embeddings", "base_model."
BASE = "base_model.model."
"""Before the names of the base model's layers in files of LoRA."""
FACTORS = ("lora_A.weight", "lora_B.weight")
HEADS = {
    "SEQ_CLS": ("classifier", "score"),
    "TOKEN_CLS": ("classifier", "score"),
    "QUESTION_ANS": ("qa_outputs",),
}
"""Task type -> the modules that PEFT trains beside all else, and stores by their names."""
LARGEST_CONFIG = 2**20
FLOATS = ("torch.float16", "torch.bfloat16", "torch.float32", "torch.float64")
OUTPUTS = ("lm_head", "embed_out", "output_layer")
"""What transformers' classes call their output layer."""
TaskType = Literal["CAUSAL_LM", "SEQ_2_SEQ_LM", "SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS"]
TASK_TYPES: tuple[str, ...] = get_args(TaskType)


# A union's mistakes would be listed once for each of its members, by pydantic's names of them. So
# what may be one thing or another is checked before, with one message.


def _stated(value: Any) -> Any:
    if value is None:
        raise ValueError(f"is missing; set it to one of {', '.join(TASK_TYPES)}")
    return value


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


STARTS = ("gaussian", "eva", "orthogonal")
"""Starts of LoRA (`init_lora_weights`) by name that leave the base model's own weights alone."""
Names = Annotated[str | tuple[str, ...], BeforeValidator(_names)]
Numbers = Annotated[int | tuple[int, ...], BeforeValidator(_numbers)]
Start = Annotated[bool | Literal["gaussian", "eva", "orthogonal"], BeforeValidator(_start)]
Flag = Annotated[bool, Field(strict=True)]


class AdapterConfig(Data):
    """What foreword takes of `adapter_config.json`; fields that say nothing are left out before."""

    task_type: Annotated[TaskType, BeforeValidator(_stated)]
    base_model_name_or_path: str | None = Field(None, max_length=4096)
    revision: str | None = Field(None, max_length=300)
    peft_version: str | None = Field(None, max_length=100)
    inference_mode: Flag = True
    modules_to_save: tuple[str, ...] = ()


class NamedTensors(AdapterConfig):
    """Base of the configurations of methods whose tensors an injection here has by names."""

    def named(self, file: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a file by the injection's names.

        Raises:
            ArtifactError: one is missing, superfluous or of another shape.
        """
        raise NotImplementedError

    def method(self, backbone: Backbone) -> MethodChoice:
        """The method here that trains such tensors.

        Raises:
            UserError: PEFT computes something else on this backbone.
        """
        raise NotImplementedError


class VirtualTokens(AdapterConfig):
    """What the configurations of all prompts say."""

    num_virtual_tokens: int = Field(ge=1, le=4096, strict=True)
    token_dim: int | None = Field(None, ge=1, strict=True)
    num_transformer_submodules: int | None = Field(None, ge=1, le=2, strict=True)
    num_attention_heads: int | None = Field(None, ge=1, strict=True)
    num_layers: int | None = Field(None, ge=1, strict=True)

    @property
    def submodules(self) -> int:
        """How many parts of the model PEFT makes rows for: those after the first it never reads."""
        return self.num_transformer_submodules or (2 if self.task_type == "SEQ_2_SEQ_LM" else 1)

    @property
    def stored_rows(self) -> int:
        """Rows of `prompt_embeddings`."""
        return self.num_virtual_tokens * self.submodules


class PrefixAdapter(VirtualTokens):
    """`prompt_embeddings` is `[P, 2 · layers · kv_heads · head_dim]`, projected or not."""

    peft_type: Literal["PREFIX_TUNING"]
    prefix_projection: Flag = False
    encoder_hidden_size: int | None = Field(None, ge=1, le=65536, strict=True)
    init_weights: Literal["zero"] | None = None

    @property
    def stored_rows(self) -> int:
        """Rows of `prompt_embeddings`: an encoder-decoder's halves share them."""
        return self.num_virtual_tokens


class PromptAdapter(VirtualTokens):
    """`prompt_embeddings` is `[P, d]`, or `[2 P, d]` on an encoder-decoder."""

    peft_type: Literal["PROMPT_TUNING"]
    prompt_tuning_init: Literal["RANDOM", "SAMPLE_VOCAB", "TEXT"] = "RANDOM"
    prompt_tuning_init_text: str | None = Field(None, max_length=100_000)
    tokenizer_name_or_path: str | None = Field(None, max_length=4096)
    tokenizer_kwargs: dict[str, Any] | None = None


class PTuningAdapter(VirtualTokens):
    """`prompt_embeddings` is `[P, d]`, as the encoder made it; `[2 P, d]` on an encoder-decoder."""

    peft_type: Literal["P_TUNING"]
    encoder_reparameterization_type: Literal["MLP", "LSTM"] = "MLP"
    encoder_hidden_size: int | None = Field(None, ge=1, le=65536, strict=True)
    encoder_num_layers: int = Field(2, ge=1, le=64, strict=True)
    encoder_dropout: float = Field(0.0, ge=0, lt=1, strict=True)


Radius = Annotated[float, Field(ge=0, le=1e6, strict=True)]
TokenId = Annotated[int, Field(ge=0, le=2**31, strict=True)]


class CPTAdapter(VirtualTokens):
    """`prompt_embeddings` is `[P, d]`, the context's embeddings with what was added to them."""

    peft_type: Literal["CPT"]
    cpt_token_ids: tuple[TokenId, ...]
    cpt_mask: tuple[int, ...] = ()
    cpt_tokens_type_mask: tuple[Annotated[int, Field(ge=0, le=2**20, strict=True)], ...]
    opt_weighted_loss_type: Literal["none", "decay"] = "none"
    opt_loss_decay_factor: float = Field(1.0, ge=0, le=1, strict=True)
    opt_projection_epsilon: Radius = 0.1
    opt_projection_format_epsilon: Radius = 0.1
    tokenizer_name_or_path: str | None = Field(None, max_length=4096)

    @field_validator("cpt_token_ids", "cpt_tokens_type_mask")
    @classmethod
    def _one_each(cls, value: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        count = info.data.get("num_virtual_tokens")
        if count is not None and len(value) != count:
            raise ValueError(f"{len(value)} numbers, but num_virtual_tokens is {count}")
        return value


Alpha = Annotated[float, Field(ge=1e-9, le=1e9, strict=True)]
Rank = Annotated[int, Field(ge=1, le=65536, strict=True)]


class LowRankAdapter(AdapterConfig):
    """Of each updated layer `lora_A.weight` is `[r, in]` and `lora_B.weight` `[out, r]`.

    Which layers there are, the tensors say: of the fields that choose them none is evaluated.
    """

    peft_type: Literal["LORA"]
    r: Rank = 8
    lora_alpha: Alpha = 8.0
    lora_dropout: float = Field(0.0, ge=0, lt=1, strict=True)
    use_rslora: Flag = False
    rank_pattern: dict[str, Rank] = Field({})
    alpha_pattern: dict[str, Alpha] = Field({})
    bias: Literal["none"] = "none"
    fan_in_fan_out: Flag = False
    init_lora_weights: Start = True
    target_modules: Names | None = None
    exclude_modules: Names | None = None
    layers_to_transform: Numbers | None = None
    layers_pattern: Names | None = None
    ensure_weight_tying: Flag = False
    eva_config: dict[str, Any] | None = None
    megatron_core: str | None = None
    qalora_group_size: int | None = None


_CONFIGS: dict[str, type[AdapterConfig]] = {
    "PREFIX_TUNING": PrefixAdapter,
    "PROMPT_TUNING": PromptAdapter,
    "P_TUNING": PTuningAdapter,
    "CPT": CPTAdapter,
    "LORA": LowRankAdapter,
}
Config = TypeVar("Config", bound=AdapterConfig)


def adapter_config(config: type[Config]) -> type[Config]:
    """Register a configuration by its `peft_type`, a `Literal` of one text."""
    (name,) = get_args(config.model_fields["peft_type"].annotation)
    _CONFIGS[name] = config
    return config


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


@dataclass(frozen=True, eq=False)
class Adapter:
    """A checked folder.

    Attributes:
        rows: the virtual tokens that PEFT reads, `[P, width]`; LoRA has none.
        head: the tensors of its head, named as in the base model; none where a text is written.
        sha256: of the file with all of them.
        updates: of LoRA, by PEFT's names of the layers: A `[r, in]` and B `[out, r]`.
        alpha: an update B A counts alpha / r times.
        named: of methods whose tensors have names, these.
    """

    folder: Path
    config: AdapterConfig
    rows: Tensor
    head: dict[str, Tensor]
    sha256: str
    updates: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    alpha: float = 0.0
    named: dict[str, Tensor] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        """r of the updates, which is one for all."""
        return next(iter(self.updates.values()))[0].shape[0]


def read_adapter(folder: Path | str) -> Adapter:
    """Read a folder that PEFT's `save_pretrained` wrote for a prompt method, or for LoRA.

    Raises:
        ArtifactError: it is none, is damaged, or holds what foreword does not take.
    """
    folder = Path(folder)
    try:
        if not folder.is_dir():
            raise ArtifactError(
                f"{folder}: no such folder; give one that PEFT's save_pretrained wrote (a hub name "
                "is not downloaded)"
            )
        _refuse_several(folder)
        config = _read_config(_file(folder, CONFIG))
        if not (folder / WEIGHTS).exists() and (folder / PICKLE).exists():
            raise ArtifactError(
                f"{folder}: its weights are a pickle ({PICKLE}), which can run code and is never "
                "read; save them again from PEFT with safe_serialization=True"
            )
        file = _file(folder, WEIGHTS)
        tensors, sha256 = _load(file)
    except OSError as error:
        raise ArtifactError(f"{folder}: cannot be read: {error.strerror or error}") from error
    if isinstance(config, LowRankAdapter):
        updates, head = _updates(file, tensors, config)
        alpha = _alpha(folder / CONFIG, config, updates)
        return Adapter(folder, config, torch.empty(0, 0), head, sha256, updates, alpha)
    if isinstance(config, NamedTensors):
        check_numbers(file, tensors)
        named = config.named(file, tensors)
        return Adapter(folder, config, torch.empty(0, 0), {}, sha256, named=named)
    assert isinstance(config, VirtualTokens)
    rows, head = _rows(file, tensors, config)
    return Adapter(folder, config, rows, head, sha256)


def _refuse_several(folder: Path) -> None:
    """PEFT puts further adapters into folders inside; a trainer's checkpoints are none."""
    names = sorted(
        file.parent.name
        for file in folder.glob(f"*/{CONFIG}")
        if not re.fullmatch(r"checkpoint-\d+", file.parent.name)
    )
    if names:
        raise ArtifactError(
            f"{folder}: holds several adapters ({', '.join(names)[:200]} in folders of their own); "
            "import one of those folders, or move it out"
        )


def _file(folder: Path, name: str) -> Path:
    file = folder / name
    if not file.exists():
        raise ArtifactError(f"{folder}: is no PEFT adapter, it has no {name}")
    try:
        opening.check_regular(file, within=folder)
    except OSError as error:
        raise ArtifactError(f"{file}: {error.strerror}") from error
    return file


def _read_config(file: Path) -> AdapterConfig:
    try:
        raw = parse_json(opening.read_text(file, within=file.parent, most=LARGEST_CONFIG))
    except opening.Refused as error:
        raise ArtifactError(f"{file}: {error.strerror}") from error
    except ValueError as error:
        raise ArtifactError(f"{file}: cannot be read as JSON: {str(error)[:200]}") from error
    if not isinstance(raw, dict):
        raise ArtifactError(f"{file}: expected an object, found {type(raw).__name__}")
    peft_type = raw.get("peft_type")
    known = _CONFIGS.get(peft_type) if isinstance(peft_type, str) else None
    if known is None:
        raise ArtifactError(f"{file}: peft_type: {_other_type(peft_type)}")
    _refuse_code(file, raw)
    if known is LowRankAdapter:
        _refuse_variants(file, raw)
    stated = {"task_type": None} | {
        key: value
        for key, value in raw.items()
        if value is not None and (key in known.model_fields or value not in (False, [], {}))
    }
    try:
        config = known.model_validate(stated)
    except ValidationError as error:
        lines = [f"  - {line}" for line in explain(error, known, root=CONFIG)[:20]]
        raise ArtifactError("\n".join([f"{file}: cannot be imported:", *lines])) from error
    _refuse_odd_parts(file, config)
    return config


def _refuse_odd_parts(file: Path, config: AdapterConfig) -> None:
    heads = HEADS.get(config.task_type, ())
    others = sorted({*config.modules_to_save} - {*heads})
    if others:
        what = "a prompt" if isinstance(config, VirtualTokens) else "the updates"
        its_head = f"{what} and its head ({', '.join(heads)})" if heads else what
        raise ArtifactError(
            f"{file}: modules_to_save: it trained further modules of the base model "
            f"({', '.join(others)[:200]}); of {config.task_type} foreword takes {its_head}"
        )
    if not isinstance(config, VirtualTokens):
        return
    two = config.submodules == 2
    if two != (config.task_type == "SEQ_2_SEQ_LM") and (two or isinstance(config, PrefixAdapter)):
        raise ArtifactError(
            f"{file}: num_transformer_submodules: is {config.submodules} for {config.task_type}, "
            "which PEFT itself does not write and cannot run"
        )


def _other_type(peft_type: Any) -> str:
    names = ", ".join(_CONFIGS)
    if peft_type in [member.value for member in PeftType]:
        return f"{peft_type} is no method that foreword imports (it imports {names})"
    if isinstance(peft_type, str):
        return f"{found(peft_type)} is not known{did_you_mean(peft_type, _CONFIGS)}"
    return f"expected one of {names}, found {found(peft_type)}"


def _refuse_code(file: Path, raw: dict[str, Any]) -> None:
    mapping = raw.get("auto_mapping")
    if not mapping:
        return
    library = mapping.get("parent_library") if isinstance(mapping, Mapping) else None
    if not isinstance(library, str) or not library.startswith("transformers."):
        raise ArtifactError(
            f"{file}: auto_mapping: it names code of its own; foreword imports none from a folder"
        )
    its_class = found(mapping.get("base_model_class"))
    if not raw.get("task_type"):
        raise ArtifactError(
            f"{file}: task_type: is missing: it was trained without one, for which PEFT keeps "
            f"transformers' class ({its_class}) in auto_mapping. Set task_type to what that class "
            f"is for, one of {', '.join(TASK_TYPES)}, and auto_mapping to null"
        )
    raise ArtifactError(
        f"{file}: auto_mapping: it names {its_class} beside a task_type, which says it already; "
        "set auto_mapping to null"
    )


def _refuse_variants(file: Path, raw: Mapping[str, Any]) -> None:
    """LoRA that computes something else than W x + scale · B A x with the base model's own W."""
    lines = [
        f"{name}: {found(raw[name])} {what}"
        for name, what in NOT_HERE.items()
        if raw.get(name) not in (None, False, [], {}, "none")
    ]
    start = raw.get("init_lora_weights")
    if isinstance(start, str) and start not in STARTS:
        lines.append(
            f"init_lora_weights: {found(start)} changes the base model's own weights where "
            "training starts; save it again from PEFT with path_initial_model_for_weight_conversion"
        )
    if lines:
        listed = "\n".join(f"  - {line}" for line in lines)
        raise ArtifactError(f"{file}: cannot be imported:\n{listed}\nTrain without it, or {MERGE}")


def _load(file: Path) -> tuple[dict[str, Tensor], str]:
    """All tensors of a file, and its hash."""
    try:
        tensors = load_file(file)  # the header says how long the file is: before all is hashed
        return tensors, files.sha256(file)
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise ArtifactError(f"{file}: cannot be read as safetensors: {str(error)[:200]}") from error


def check_numbers(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise ArtifactError unless all tensors hold finite floating-point numbers."""
    for name, tensor in tensors.items():
        if str(tensor.dtype) not in FLOATS:
            raise ArtifactError(
                f"{file}: {name} is stored as {tensor.dtype}; expected float16, bfloat16, float32 "
                "or float64"
            )
        if not tensor.isfinite().all():
            raise ArtifactError(f"{file}: {name} must hold finite numbers")


def _rows(
    file: Path, tensors: dict[str, Tensor], config: VirtualTokens
) -> tuple[Tensor, dict[str, Tensor]]:
    """The rows that PEFT reads, and the head's tensors."""
    rows = tensors.pop(TENSOR, None)
    heads = HEADS.get(config.task_type, ())
    odd = sorted(name for name in tensors if not _belongs(name, PREFIX, heads))
    if rows is None or odd:
        expected = f"the one tensor {TENSOR}"
        if heads:
            expected += f" and those of {PREFIX}{' or '.join(heads)}"
        raise ArtifactError(
            f"{file}: expected {expected}; found "
            f"{str(sorted([*tensors, *([] if rows is None else [TENSOR])]))[:200]}"
        )
    check_numbers(file, {TENSOR: rows, **tensors})
    if rows.ndim != 2 or rows.shape[0] != config.stored_rows:
        raise ArtifactError(
            f"{file}: {TENSOR} has shape {list(rows.shape)}, but {CONFIG} says num_virtual_tokens "
            f"{config.num_virtual_tokens}: expected [{config.stored_rows}, width]"
        )
    head = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    return rows[: config.num_virtual_tokens].contiguous(), head


def _updates(
    file: Path, tensors: dict[str, Tensor], config: LowRankAdapter
) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, Tensor]]:
    """LoRA's pairs by the names of their layers, and the head's tensors."""
    heads = HEADS.get(config.task_type, ())
    factors: dict[str, dict[str, Tensor]] = {}
    head: dict[str, Tensor] = {}
    odd: list[str] = []
    for name, tensor in tensors.items():
        own = name.removeprefix(BASE)
        ending = next((part for part in FACTORS if own.endswith(f".{part}")), None)
        if own == name or not (ending or _belongs(name, BASE, heads)):
            odd.append(name)
        elif ending:
            factors.setdefault(own.removesuffix(f".{ending}"), {})[ending] = tensor
        else:
            head[own] = tensor
    if odd or not factors:
        expected = f"{BASE}LAYER.{' and '.join(FACTORS)} of linear layers"
        if heads:
            expected += f" and those of {BASE}{' or '.join(heads)}"
        raise ArtifactError(
            f"{file}: expected {expected} alone; found {str(sorted(odd) or sorted(tensors))[:200]}"
            f"{_vocabulary(odd)}"
        )
    check_numbers(file, tensors)
    known = sorted({config.r, *config.rank_pattern.values()})
    ranks: set[int] = set()
    for layer, pair in sorted(factors.items()):
        if len(pair) < len(FACTORS):
            missing = next(part for part in FACTORS if part not in pair)
            raise ArtifactError(f"{file}: {BASE}{layer} has no {missing}, only {next(iter(pair))}")
        a, b = (pair[part] for part in FACTORS)
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1] or a.shape[0] not in known:
            raise ArtifactError(
                f"{file}: {BASE}{layer} has A of shape {list(a.shape)} and B of shape "
                f"{list(b.shape)}, but {CONFIG} says r {' or '.join(map(str, known))[:100]}: "
                "expected [r, in] and [out, r]"
            )
        ranks.add(a.shape[0])
    if len(ranks) > 1:
        raise ArtifactError(
            f"{file}: rank_pattern: the updates have the ranks "
            f"{', '.join(map(str, sorted(ranks)))[:100]}, and LoRA here has one for all; {MERGE}"
        )
    updates = {layer: (p[FACTORS[0]], p[FACTORS[1]]) for layer, p in sorted(factors.items())}
    return updates, head


def _vocabulary(odd: Sequence[str]) -> str:
    """What is to be said where tensors are those of embeddings or of the output layer."""
    if any("lora_embedding" in name for name in odd):
        return f"; updates of embeddings are not computed here; {UNTIED}"
    outputs = sorted({part for name in odd for part in name.split(".") if part in OUTPUTS})
    if outputs:
        return (
            f"; it trained or resized the output layer ({', '.join(outputs)}), which LoRA here "
            f"leaves alone; {UNTIED}"
        )
    return ""


def _alpha(
    file: Path, config: LowRankAdapter, updates: Mapping[str, tuple[Tensor, Tensor]]
) -> float:
    """The alpha that makes alpha / r what PEFT multiplies each update by."""
    alphas = {alpha for alpha in config.alpha_pattern.values() if alpha != config.lora_alpha}
    used = {config.lora_alpha}
    if alphas:
        odd = [key for key in config.alpha_pattern if not re.fullmatch(r"\^?[\w.-]+", key)]
        if odd:
            raise ArtifactError(
                f"{file}: alpha_pattern: {found(odd[0])} is a regular expression, of which none "
                "out of a folder is run; name layers there"
            )
        used = {_own_alpha(config, layer) for layer in updates}
    if len(used) > 1:
        raise ArtifactError(
            f"{file}: alpha_pattern: the updates count with alpha "
            f"{', '.join(f'{alpha:g}' for alpha in sorted(used))[:100]}, and LoRA here has one for "
            f"all; {MERGE}"
        )
    (alpha,) = used
    rank = next(iter(updates.values()))[0].shape[0]
    return alpha / math.sqrt(rank) * rank if config.use_rslora else alpha


def _own_alpha(config: LowRankAdapter, layer: str) -> float:
    """A layer's own, by the first key that its name ends in."""
    for key, alpha in config.alpha_pattern.items():
        if re.match(rf"(.*\.)?({key})$", layer):
            return alpha
    return config.lora_alpha


def _belongs(name: str, prefix: str, heads: tuple[str, ...]) -> bool:
    """PEFT saves every module whose name ends as it is told: DistilBERT's pre_classifier, too."""
    return name.startswith(prefix) and name.removeprefix(prefix).split(".")[0].endswith(heads)
