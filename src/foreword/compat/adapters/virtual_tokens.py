"""What PEFT's methods with virtual tokens share: the one tensor `prompt_embeddings`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field
from torch import Tensor

from foreword.artifacts.manifest import TENSORS, Manifest
from foreword.artifacts.stored import read_parts
from foreword.axes.injection.base import expect_shapes
from foreword.axes.readout import Head
from foreword.backbone import Backbone
from foreword.compat.adapter import (
    CONFIG,
    WEIGHTS,
    Adapter,
    AdapterConfig,
    belongs,
    check_numbers,
    common,
)
from foreword.compat.configs import PromptLearningConfig
from foreword.compat.head_export import WrittenHead, written_head
from foreword.compat.head_kinds import modules_of
from foreword.errors import ArtifactError, UserError, argument
from foreword.methods import MethodChoice, axes
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose

if TYPE_CHECKING:
    from foreword.compat.adapter_head import AdapterHead

TENSOR, PREFIX = "prompt_embeddings", "base_model."


class VirtualTokens(AdapterConfig):
    """What the configurations of all prompts say.

    Attributes:
        stored: the tensors of a file, without a head's.
    """

    stored: ClassVar[tuple[str, ...]] = (TENSOR,)

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

    @abstractmethod
    def method(self, backbone: Backbone) -> MethodChoice:
        """The method here that trains such a prompt."""

    def check(self, file: Path) -> None:
        """Besides, that PEFT makes as many parts as its models have."""
        super().check(file)
        if self.submodules == 2 and self.task_type != "SEQ_2_SEQ_LM":
            self._refuse_submodules(file)

    def _refuse_submodules(self, file: Path) -> None:
        raise ArtifactError(
            f"{file}: num_transformer_submodules: is {self.submodules} for {self.task_type}, "
            "which PEFT itself does not write and cannot run"
        )

    def taken(
        self, file: Path, tensors: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The rows that PEFT reads, `[P, width]`, and the head's tensors."""
        own, head = self.sorted_out(file, tensors)
        rows = own[TENSOR]
        if rows.ndim != 2 or rows.shape[0] != self.stored_rows:
            raise ArtifactError(
                f"{file}: {TENSOR} has shape {list(rows.shape)}, but {CONFIG} says "
                f"num_virtual_tokens {self.num_virtual_tokens}: expected [{self.stored_rows}, "
                "width]"
            )
        return {TENSOR: rows[: self.num_virtual_tokens].contiguous()}, head

    def sorted_out(
        self, file: Path, tensors: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The prompt's tensors as they are stored, and the head's.

        Raises:
            ArtifactError: one is missing, superfluous, or holds no numbers.
        """
        heads = modules_of(self.task_type)
        missing = [name for name in self.stored if name not in tensors]
        others = [name for name in tensors if name not in self.stored]
        if missing or not all(belongs(name, PREFIX, heads) for name in others):
            one = len(self.stored) == 1
            expected = f"the {'one tensor' if one else 'tensors'} {', '.join(self.stored)}"
            if heads:
                expected += f" and those of {PREFIX}{' or '.join(heads)}"
            raise ArtifactError(f"{file}: expected {expected}; found {str(sorted(tensors))[:200]}")
        check_numbers(file, tensors)
        head = {name.removeprefix(PREFIX): tensors[name] for name in others}
        return {name: tensors[name] for name in self.stored}, head

    def check_backbone(self, adapter: Adapter, backbone: Backbone) -> None:
        """Refuse backbones where PEFT's prompt slides out of the window."""
        if backbone.geometry.slides:
            raise ArtifactError(
                f"{adapter.folder}: on '{backbone.name}' PEFT's prompt slides out of the attention "
                "window, here a prompt is always seen: the same numbers would give other answers"
            )

    def composed(
        self, adapter: Adapter, backbone: Backbone, readout: Head | None
    ) -> tuple[MethodChoice, TunedModel]:
        """The backbone with the rows."""
        method = self.method(backbone)
        self.check_sizes(adapter, backbone)
        # The stored tokens are folded: what made them in training is not built again.
        folded = method.model_copy(update={"reparameterization": axes.Table()})
        model = compose(backbone, folded, readout)
        rows = adapter.tensors[TENSOR]
        want_shape = [model.placement.length, model.injection.width]
        if list(rows.shape) != want_shape:
            raise ArtifactError(
                f"{adapter.folder / WEIGHTS}: {TENSOR} has shape {list(rows.shape)}, but "
                f"backbone '{backbone.name}' needs {want_shape}; name the right one with "
                f"{argument('--backbone')}"
            )
        return method, model.with_rows(self.as_read(rows, backbone).to(backbone.device))

    def check_sizes(self, adapter: Adapter, backbone: Backbone) -> None:
        """Raise ArtifactError where the configuration states other sizes than the backbone has."""
        for name, want in self.sizes(backbone).items():
            stated = getattr(self, name)
            if stated not in (None, want):
                raise ArtifactError(
                    f"{adapter.folder / CONFIG}: {name} is {stated}, but backbone "
                    f"'{backbone.name}' has {want}; name the right one with "
                    f"{argument('--backbone')}"
                )

    def sizes(self, backbone: Backbone) -> dict[str, int]:
        """Fields of the configuration that the backbone decides; PEFT takes the layers of an
        encoder-decoder from its encoder."""
        site = next(iter(backbone.geometry.sites.values()))
        return {"num_layers": site.layers, "token_dim": backbone.geometry.width}

    def as_read(self, rows: Tensor, backbone: Backbone) -> Tensor:  # noqa: ARG002
        """The rows `[P, width]` in the order in which PEFT reads what it stored."""
        return rows

    @classmethod
    def written(
        cls, source: Path, manifest: Manifest
    ) -> tuple[dict[str, Tensor], PromptLearningConfig]:
        """The virtual tokens, folded, and the head."""
        cls.refuse_artifact(source, manifest)
        tensors, config = cls.of(source, manifest, read_parts(source, manifest)[TENSORS])
        written = {name: tensor.contiguous() for name, tensor in tensors.items()}
        head = cls._head(source, manifest)
        if head is not None:
            config.task_type = head.task_type
            written |= {PREFIX + name: tensor for name, tensor in head.tensors.items()}
        return written, config

    @classmethod
    def _head(cls, source: Path, manifest: Manifest) -> WrittenHead | None:
        return written_head(source, manifest, in_input=cls.in_input)

    @classmethod
    @abstractmethod
    def of(
        cls, source: Path, manifest: Manifest, tensors: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], PromptLearningConfig]:
        """An artifact's tensors as PEFT names them, and the configuration for them."""

    @classmethod
    def refuse_artifact(cls, source: Path, manifest: Manifest) -> None:
        """Raise UserError for what PEFT's prompts have no place for."""
        method, stated = manifest.method, manifest.axes
        if method.moves.kind == "lora":
            raise UserError(
                f"{source}: is a prompt of {method.length} virtual tokens with LoRA beside it, and "
                "a folder of PEFT's holds one of them; train one alone to export it"
            )
        if stated.get("positions", "shift") != "shift":
            raise UserError(
                f"{source}: was trained with positions '{str(stated['positions'])[:60]}', but PEFT "
                "always puts the text at positions after the prompt's, where the answers would be "
                "others; train with `positions: shift` to export"
            )
        if stated.get("window") == "seen":
            raise UserError(
                f"{source}: its backbone attends through a sliding window, from beyond which the "
                "prompt is seen here, but not in PEFT, where the answers would be others"
            )
        cls.refuse_cache(source, stated)
        for axis, usual in (("delta", "none"), ("placement", "prefix")):
            if stated.get(axis, usual) != usual:
                raise UserError(
                    f"{source}: its {axis} is {str(stated[axis])[:60]}, for which a prompt in "
                    f"PEFT's format has no place here; only {usual} can be exported"
                )
        cls._head(source, manifest)
        cls.refuse_sites(source, manifest)

    @classmethod
    def refuse_cache(cls, source: Path, stated: Mapping[str, Any]) -> None:
        """Raise UserError where PEFT's prompt has no place in the backbone's cache."""

    @classmethod
    @abstractmethod
    def refuse_sites(cls, source: Path, manifest: Manifest) -> None:
        """Raise UserError where virtual tokens stand where PEFT has none."""


class InputTokens(VirtualTokens):
    """Base of the configurations of prompts in the input: `[P, d]`, or `[2 P, d]` on an
    encoder-decoder, of which PEFT reads the first half."""

    in_input = True

    def notes(
        self,
        adapter: Adapter,  # noqa: ARG002
        backbone: Backbone,  # noqa: ARG002
        head: AdapterHead | None,
    ) -> list[str]:
        """Of rows that nothing reads, and of heads that PEFT does not shift."""
        length = self.num_virtual_tokens
        if self.submodules == 2:
            return [
                f"PEFT stores {self.stored_rows} rows, of which it reads the first {length}; the "
                "others are left out"
            ]
        if head is not None and head.kind.of_places:
            return [
                f"PEFT keeps {length} columns of virtual tokens in its logits and does not shift "
                "start and end positions: unless the training script added them, this adapter's "
                f"answers are {length} tokens too early"
            ]
        if head is not None and head.spec.pooling == "prompt":
            return [
                "PEFT's head reads the state of the first virtual token, not of the text's first"
            ]
        return []

    @classmethod
    def of(
        cls, source: Path, manifest: Manifest, tensors: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], PromptLearningConfig]:
        """The embeddings `[P, d]`; any d, since no backbone is here to say it."""
        site = "decoder" if manifest.backbone.kind == "decoder" else "encoder"
        first, method = tensors.get(f"{site}.embeddings"), manifest.method
        d = first.shape[1] if first is not None and first.ndim == 2 and first.numel() else 1
        named = {f"{site}.{name}": name for name in cls.named(method, d)}
        expect_shapes(tensors, {f"{site}.{n}": s for n, s in cls.named(method, d).items()})
        for name in named:
            tensor = tensors[name]
            if not tensor.is_floating_point() or not tensor.isfinite().all():
                raise ArtifactError(
                    f"{source / TENSORS}: {name} must hold finite floating-point numbers"
                )
        taken = {own: tensors[name] for own, name in zip(cls.stored, named, strict=True)}
        return taken, cls.config_of(source, method, {**sizes_of(manifest), "token_dim": d})

    @classmethod
    def named(cls, method: MethodChoice, d: int) -> dict[str, tuple[int, ...]]:
        """What an artifact calls the stored tensors within their site, in the same order, and
        their shapes.

        Args:
            method: of the artifact.
            d: width of the backbone's embeddings.
        """
        return {"embeddings": (method.length, d)}

    @classmethod
    @abstractmethod
    def config_of(
        cls, source: Path, method: MethodChoice, sizes: dict[str, Any]
    ) -> PromptLearningConfig:
        """The configuration for an artifact's method.

        Args:
            source: the artifact.
            method: its method.
            sizes: the fields that every configuration of a prompt has.
        """

    @classmethod
    def refuse_sites(cls, source: Path, manifest: Manifest) -> None:
        """PEFT has them in the encoder's input, where there is one."""
        sites = manifest.axes.get("sites", ["decoder"])
        if manifest.backbone.kind == "encoder-decoder" and sites != ["encoder"]:
            raise UserError(
                f"{source}: its virtual tokens stand in the input of {str(sites)[:60]}; PEFT has "
                "them in the encoder's alone"
            )


def sizes_of(manifest: Manifest) -> dict[str, Any]:
    """What every configuration of a prompt says of an artifact."""
    return {
        **common(manifest),
        "num_virtual_tokens": manifest.method.length,
        "num_transformer_submodules": 1,  # PEFT's 2 would add rows that it never reads
    }
