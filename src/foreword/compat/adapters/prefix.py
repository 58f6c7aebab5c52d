"""Prefix-Tuning in PEFT's format."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from foreword.artifacts.manifest import TENSORS, Manifest
from foreword.axes.injection import KeysValues
from foreword.backbone import Backbone, Geometry, SiteGeometry
from foreword.compat.adapter import Adapter, adapter
from foreword.compat.adapters.virtual_tokens import TENSOR, VirtualTokens, sizes_of
from foreword.compat.configs import PromptLearningConfig
from foreword.compat.peft_types import PeftType
from foreword.errors import ArtifactError, UserError
from foreword.methods import MethodChoice, PrefixTuning, axes

if TYPE_CHECKING:
    from foreword.compat.adapter_head import AdapterHead


@dataclass
class PrefixTuningConfig(PromptLearningConfig):
    """Configuration of a `PrefixEncoder` (Li & Liang 2021).

    Attributes:
        init_weights: "zero": keys and values start at zero; None: at random.
        encoder_hidden_size: width of the projection's hidden layer; PEFT's models take `token_dim`.
        prefix_projection: make the prefix of a smaller table by an MLP.
    """

    kind: ClassVar[PeftType] = PeftType.PREFIX_TUNING

    init_weights: Literal["zero"] | None = None
    encoder_hidden_size: int | None = None
    prefix_projection: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._count("encoder_hidden_size")
        if self.init_weights not in (None, "zero"):
            raise ValueError(
                "PrefixTuningConfig.init_weights: expected 'zero' or None, found "
                f"{self.init_weights!r}"
            )


class KeysValuesRows(VirtualTokens):
    """Base of the configurations whose `prompt_embeddings` is keys and values of every layer,
    `[P, 2 · layers · kv_heads · head_dim]`.

    PEFT puts the stored keys and values of all layers of an encoder-decoder twice, one after the
    other, and deals them out by four to a layer, of which the last two are thrown away.
    """

    @property
    def stored_rows(self) -> int:
        """Rows of `prompt_embeddings`: an encoder-decoder's halves share them."""
        return self.num_virtual_tokens

    def check(self, file: Path) -> None:
        """Besides, that an encoder-decoder has two halves."""
        super().check(file)
        if self.submodules == 1 and self.task_type == "SEQ_2_SEQ_LM":
            self._refuse_submodules(file)

    def check_backbone(self, adapter: Adapter, backbone: Backbone) -> None:
        """Besides, refuse backbones whose cache holds no keys and values."""
        super().check_backbone(adapter, backbone)
        g, family = backbone.geometry, backbone.model.config.model_type
        backbone.check_takes_keys_values()
        if g.cache == "shared" or g.main.shape is None:
            raise ArtifactError(
                f"{adapter.folder}: PEFT puts keys and values of one shape into the cache of all "
                f"layers, and the layers of '{backbone.name}' ({family}) differ in theirs, or take "
                "those of others; there is no answer that an import could keep"
            )
        if not g.caches_heads or g.main.head_dim is None:
            raise ArtifactError(
                f"{adapter.folder}: PEFT puts a prefix into the cache, and that of "
                f"'{backbone.name}' ({family}) holds latents from which keys and values are made; "
                "there is no answer that an import could keep"
            )
        if g.kind == "encoder" and not backbone.takes_cache:
            raise ArtifactError(
                f"{adapter.folder}: PEFT cannot run a prefix on '{backbone.name}' ({family}), "
                "which takes no keys and values; there is no answer that an import could keep"
            )

    def where(self, backbone: Backbone) -> dict[str, Any]:
        """Options of the method that say where its virtual tokens are: all of them, or on an
        encoder-decoder those of its decoder."""
        alone = ("decoder",) if backbone.geometry.kind == "encoder-decoder" else None
        return {"length": self.num_virtual_tokens, "positions": "shift", "sites": alone}

    def sizes(self, backbone: Backbone) -> dict[str, int]:
        """Those of the attention that has the prefix."""
        site = backbone.geometry.main
        return {
            "num_layers": site.layers,
            "token_dim": self._width(site),
            "num_attention_heads": site.heads[0].kv_heads,
        }

    @staticmethod
    def _width(site: SiteGeometry) -> int:
        """PEFT's token_dim: numbers of a layer's key."""
        return site.heads[0].kv_heads * site.heads[0].key_dim

    def as_read(self, rows: Tensor, backbone: Backbone) -> Tensor:
        """In the order of the decoder's layers, where the stored order is another."""
        if backbone.geometry.kind != "encoder-decoder":
            return rows
        layers = backbone.geometry.main.layers
        stored = rows.view(rows.shape[0], layers, -1)
        return stored[:, [2 * layer % layers for layer in range(layers)]].flatten(1)

    def notes(
        self,
        adapter: Adapter,  # noqa: ARG002
        backbone: Backbone,
        head: AdapterHead | None,  # noqa: ARG002
    ) -> list[str]:
        """Of what PEFT makes of a prefix on an encoder-decoder."""
        if self.task_type != "SEQ_2_SEQ_LM":
            return []
        layers = backbone.geometry.main.layers
        encoder = (
            "PEFT gives the encoder and the attention over it no prefix: only the decoder has one"
        )
        if layers % 2:
            return [
                f"{encoder}, its layers in another order than they are stored in (layer i has what "
                f"stands at 2 i modulo {layers})"
            ]
        return [
            f"{encoder}, whose layers i and i + {layers // 2} share one; half of the stored "
            "numbers are read by nothing and are left out"
        ]

    @classmethod
    def of(
        cls, source: Path, manifest: Manifest, tensors: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], PromptLearningConfig]:
        """Keys and values, folded."""
        geometry = _geometry(source, manifest, tensors)
        prefix = KeysValues(geometry)
        rows = prefix.matrix(prefix.stored(tensors, manifest.method.length))
        sizes = {
            **sizes_of(manifest),
            "token_dim": geometry.width,
            "num_layers": geometry.main.layers,
            "num_attention_heads": geometry.main.heads[0].kv_heads,
        }
        return {TENSOR: rows}, cls.config_of(manifest.method, sizes)

    @classmethod
    @abstractmethod
    def config_of(cls, method: MethodChoice, sizes: dict[str, Any]) -> PromptLearningConfig:
        """The configuration for an artifact's method.

        Args:
            method: of the artifact.
            sizes: the fields that the configuration of every prefix has.
        """

    @classmethod
    def refuse_cache(cls, source: Path, stated: Mapping[str, Any]) -> None:
        """PEFT puts a prefix into the cache."""
        kept = {
            "latents": "holds latents from which keys and values are made (latent attention)",
            "shared": "holds no keys and values of the layers that take those of others",
        }.get(stated.get("cache", ""))
        if kept is not None:
            raise UserError(
                f"{source}: its backbone's cache {kept}, and PEFT puts a prefix into the cache; "
                "prompt tuning and P-Tuning can be exported"
            )

    @classmethod
    def refuse_sites(cls, source: Path, manifest: Manifest) -> None:
        """PEFT has a prefix in all layers of a decoder."""
        sites = manifest.axes.get("sites", ["decoder"])
        if manifest.backbone.kind == "encoder-decoder":
            raise UserError(
                f"{source}: is a prefix on an encoder-decoder ({', '.join(map(str, sites))[:60]}): "
                "PEFT gives its encoder and the attention over it none, and lets layers of the "
                "decoder share theirs; prompt tuning and P-Tuning on the encoder can be exported"
            )
        if getattr(manifest.method, "layers", None) is not None:
            raise UserError(
                f"{source}: carries a prefix in chosen layers alone (method.layers); PEFT has it "
                "in all"
            )


@adapter
class PrefixAdapter(KeysValuesRows):
    """A prefix, projected or not."""

    enters = axes.KeysValues

    peft_type: Literal["PREFIX_TUNING"]
    prefix_projection: bool = Field(False, strict=True)
    encoder_hidden_size: int | None = Field(None, ge=1, le=65536, strict=True)
    init_weights: Literal["zero"] | None = None

    def method(self, backbone: Backbone) -> MethodChoice:
        """Prefix-tuning; on an encoder-decoder, of its decoder alone."""
        made_by: axes.ReparameterizationSpec = axes.Table()
        if self.prefix_projection:
            hidden = self.encoder_hidden_size or self._width(backbone.geometry.main)
            made_by = axes.MLP(hidden=hidden)
        return PrefixTuning(
            name="prefix-tuning", reparameterization=made_by, **self.where(backbone)
        )

    @classmethod
    def config_of(cls, method: MethodChoice, sizes: dict[str, Any]) -> PrefixTuningConfig:  # noqa: ARG003
        """Not projected: the artifact is folded."""
        return PrefixTuningConfig(**sizes, encoder_hidden_size=sizes["token_dim"])


def _geometry(source: Path, manifest: Manifest, tensors: Mapping[str, Tensor]) -> Geometry:
    """As much of the backbone's geometry as the keys show; `width` is PEFT's token_dim."""
    main: Literal["encoder", "decoder"] = "decoder"
    if manifest.backbone.kind == "encoder":
        main = "encoder"
    keys = tensors.get(f"{main}.keys")
    if keys is None or keys.ndim != 4 or not keys.numel():
        raise ArtifactError(
            f"{source / TENSORS}: expected {main}.keys [layers, P, kv_heads, head_dim]"
        )
    layers, _, kv_heads, head_dim = keys.shape
    site = SiteGeometry.even(layers, kv_heads, head_dim, head_dim)
    return Geometry(main, {main: site}, kv_heads * head_dim, None, 0)
