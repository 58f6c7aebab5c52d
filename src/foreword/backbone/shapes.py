"""The numbers of a backbone that a prompt's shape depends on, as `geometry.py` finds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from foreword.common.sites import Site

Kind = Literal["decoder", "encoder", "encoder-decoder"]
Through = Literal["interface", "cache", "nothing"]


@dataclass(frozen=True)
class Heads:
    """The shape of one attention's keys and values.

    Attributes:
        kv_heads: heads of keys and values.
        key_dim: width of one head's key.
        value_dim: width of one head's value; latent attention (DeepSeek-V2) has another than for
            keys.
    """

    kv_heads: int
    key_dim: int
    value_dim: int

    @property
    def width(self) -> int:
        """Numbers per virtual token: its key and its value."""
        return self.kv_heads * (self.key_dim + self.value_dim)


@dataclass(frozen=True)
class SiteGeometry:
    """One site: how many attentions it has, and the shapes of their keys and values.

    Attributes:
        layers: how many attentions.
        heads: of each of them; empty where nothing can be put into them.
    """

    layers: int
    heads: tuple[Heads, ...] = ()

    @classmethod
    def even(cls, layers: int, kv_heads: int, key_dim: int, value_dim: int) -> SiteGeometry:
        """Layers of one shape."""
        return cls(layers, (Heads(kv_heads, key_dim, value_dim),) * layers)

    @property
    def shape(self) -> Heads | None:
        """The shape that all layers have; None where they differ, or have none."""
        return self.heads[0] if len(set(self.heads)) == 1 else None

    @property
    def width(self) -> int:
        """Numbers per virtual token, in all layers together."""
        return sum(one.width for one in self.heads)

    @property
    def head_dim(self) -> int | None:
        """Width of a head, where all layers, keys and values have the same one."""
        one = self.shape
        return one.key_dim if one is not None and one.key_dim == one.value_dim else None


@dataclass(frozen=True)
class Geometry:
    """The numbers of a backbone that a prompt's shape depends on.

    Attributes:
        kind: what the model is.
        sites: its attentions.
        width: of its input embeddings.
        context: how many positions it has; None where there is no limit.
        vocabulary: rows of its input embeddings; of the larger table where encoder and decoder each
            have one.
        first_position: the id of its first position.
        takes_positions: whether it can be told position ids.
        through: how keys and values enter: through the attention interface or the cache, or not at
            all ("nothing").
        unfit: why they do not enter; empty where they do.
        slides: whether some of its layers see a window alone, and its own cache forgets the rest.
        cache: what a decoder's own cache holds: "heads", each layer's keys and values as its
            attention gets them, so that a prompt can lie there; "latents", which latent attention
            makes both from; "shared", no keys and values of layers that take those of another
            (Gemma 3n).
    """

    kind: Kind
    sites: Mapping[Site, SiteGeometry]
    width: int
    context: int | None
    vocabulary: int
    first_position: int = 0
    takes_positions: bool = True
    through: Through = "interface"
    slides: bool = False
    cache: Literal["heads", "latents", "shared"] = "heads"
    unfit: str = ""

    @property
    def main(self) -> SiteGeometry:
        """The site of a model that has one; the decoder's of an encoder-decoder."""
        return self.sites["encoder" if self.kind == "encoder" else "decoder"]

    @property
    def caches_heads(self) -> bool:
        """Whether a prompt can lie in the model's own cache."""
        return self.cache == "heads"

    @property
    def keeps_embeddings(self) -> bool:
        """Whether a decoder reads embeddings in front of all text once, and keeps their keys and
        values; in other models they have columns of the input."""
        return self.kind == "decoder" and self.through != "nothing"
