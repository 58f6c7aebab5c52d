"""What every one of PEFT's methods has: a configuration, tensors that come in and that go out.

A further one is a file beside this one, and its line in `adapters/__init__.py`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, TypeVar, get_args

from pydantic import BeforeValidator, Field
from torch import Tensor

from foreword.compat.head_kinds import modules_of
from foreword.compat.peft_types import PeftType, TaskType
from foreword.errors import ArtifactError
from foreword.methods.axes import Data, InjectionSpec

if TYPE_CHECKING:
    from foreword.artifacts.manifest import Manifest
    from foreword.axes.readout import Head
    from foreword.backbone import Backbone
    from foreword.compat.adapter_head import AdapterHead
    from foreword.methods import MethodChoice, MethodOptions
    from foreword.tuned import TunedModel

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BASE = "base_model.model."
"""Before the names of the base model's layers in files of methods that change them."""
FLOATS = ("torch.float16", "torch.bfloat16", "torch.float32", "torch.float64")
KnownTask = Literal["CAUSAL_LM", "SEQ_2_SEQ_LM", "SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS"]
TASK_TYPES: tuple[str, ...] = get_args(KnownTask)

Flag = Annotated[bool, Field(strict=True)]
Update = tuple[Tensor, Tensor, float]
"""A `[r, in]`, B `[out, r]` and what B A is multiplied by before it is added to a weight."""


class PeftConfig(Protocol):
    """A configuration of PEFT's, as an export gives it back."""

    kind: ClassVar[PeftType]
    base_model_name_or_path: str | None

    @property
    def size(self) -> str:
        """How large it is, in words."""

    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""


@dataclass(frozen=True, eq=False)
class Adapter:
    """A checked folder.

    Attributes:
        folder: where it lies.
        config: what `adapter_config.json` says.
        tensors: what the method trained, checked, by the names that its configuration gives them.
        head: the tensors of its head, named as in the base model; none where a text is written.
        sha256: of the file with all of them.
    """

    folder: Path
    config: AdapterConfig
    tensors: dict[str, Tensor]
    head: dict[str, Tensor]
    sha256: str


def _stated(value: Any) -> Any:
    if value is None:
        raise ValueError(f"is missing; set it to one of {', '.join(TASK_TYPES)}")
    return value


class AdapterConfig(Data):
    """Base of PEFT's methods: what is taken of `adapter_config.json` and of the tensors beside it,
    and what an artifact becomes.

    Fields of the file that say nothing are left out before.

    Attributes:
        what: what it trained beside a head.
        in_input: whether virtual tokens have columns in an encoder's input.
        methods: the methods here whose artifacts it holds.
        enters: where the virtual tokens enter of any other method whose artifacts it holds.
    """

    what: ClassVar[str] = "a prompt"
    in_input: ClassVar[bool] = False
    methods: ClassVar[tuple[type[MethodOptions], ...]] = ()
    enters: ClassVar[type[InjectionSpec] | None] = None

    task_type: Annotated[KnownTask, BeforeValidator(_stated)]
    base_model_name_or_path: str | None = Field(None, max_length=4096)
    revision: str | None = Field(None, max_length=300)
    peft_version: str | None = Field(None, max_length=100)
    inference_mode: Flag = True
    modules_to_save: tuple[str, ...] = ()

    @classmethod
    def refuse(cls, file: Path, raw: Mapping[str, Any]) -> None:
        """Raise ArtifactError for fields of the file that make PEFT compute something else."""

    def check(self, file: Path) -> None:
        """Raise ArtifactError for fields that do not go together."""
        heads = modules_of(self.task_type)
        others = sorted({*self.modules_to_save} - {*heads})
        if others:
            its_head = f"{self.what} and its head ({', '.join(heads)})" if heads else self.what
            raise ArtifactError(
                f"{file}: modules_to_save: it trained further modules of the base model "
                f"({', '.join(others)[:200]}); of {self.task_type} foreword takes {its_head}"
            )

    @abstractmethod
    def taken(
        self, file: Path, tensors: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The tensors of a file: what the method trained, and the head's.

        Raises:
            ArtifactError: one is missing, superfluous, of another shape, or holds no numbers.
        """

    def check_backbone(self, adapter: Adapter, backbone: Backbone) -> None:
        """Raise ArtifactError where PEFT computes on a backbone what is not computed here."""

    @abstractmethod
    def composed(
        self, adapter: Adapter, backbone: Backbone, readout: Head | None
    ) -> tuple[MethodChoice, TunedModel]:
        """The backbone with what the adapter holds, and the method that trains such a thing.

        Raises:
            UserError: the two do not go together.
        """

    def notes(
        self,
        adapter: Adapter,  # noqa: ARG002
        backbone: Backbone,  # noqa: ARG002
        head: AdapterHead | None,  # noqa: ARG002
    ) -> list[str]:
        """What somebody who trained the adapter should know of the import."""
        return []

    def updates_of(self, adapter: Adapter, chosen: Callable[[str], bool]) -> list[Update]:  # noqa: ARG002
        """The updates of layers of the base model, chosen by their names."""
        return []

    @classmethod
    @abstractmethod
    def written(cls, source: Path, manifest: Manifest) -> tuple[dict[str, Tensor], PeftConfig]:
        """An artifact's tensors as PEFT names them, and the configuration that goes with them.

        Raises:
            ArtifactError: the artifact is damaged.
            UserError: PEFT has no place for it.
        """


ADAPTERS: dict[str, type[AdapterConfig]] = {}
"""PEFT's type -> how its files come in and go out. Each file puts its own in with `@adapter`."""
Config = TypeVar("Config", bound=AdapterConfig)


def adapter(config: type[Config]) -> type[Config]:
    """Register a configuration by its `peft_type`, a `Literal` of one text."""
    (name,) = get_args(config.model_fields["peft_type"].annotation)
    ADAPTERS[name] = config
    return config


def common(manifest: Manifest) -> dict[str, Any]:
    """What the configurations of all methods say of an artifact."""
    name = manifest.backbone.name
    encodes = manifest.backbone.kind == "encoder-decoder"
    return {
        "task_type": TaskType.SEQ_2_SEQ_LM if encodes else TaskType.CAUSAL_LM,
        "inference_mode": True,
        # PEFT would look for our own names on the hub.
        "base_model_name_or_path": None if name.startswith("foreword/") else name,
        "revision": manifest.backbone.revision,
    }


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


def belongs(name: str, prefix: str, heads: tuple[str, ...]) -> bool:
    """Whether a tensor is a head's. PEFT saves every module whose name ends as it is told:
    DistilBERT's pre_classifier, too."""
    return name.startswith(prefix) and name.removeprefix(prefix).split(".")[0].endswith(heads)
