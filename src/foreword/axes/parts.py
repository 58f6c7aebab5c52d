"""What an injection asks a reparameterization for: named tensors, in parts.

A part is what one site takes. Its tensors have the names that an artifact stores them by.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from foreword.common.sites import Site

Named = Mapping[str, Tensor]
"""The tensors of a prompt by their names."""


class Part(ABC):
    """Named tensors that belong together: what one site takes."""

    site: Site

    @property
    @abstractmethod
    def name(self) -> str:
        """Unique in a prompt."""

    @property
    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The tensors' names and shapes."""


class VirtualTokens(Part):
    """A part that says all of its site's P virtual tokens, `width` numbers each.

    Seen as a matrix `[P, width]`, the numbers stand in PEFT's order.
    """

    length: int

    @property
    @abstractmethod
    def width(self) -> int:
        """Numbers per virtual token."""

    @abstractmethod
    def split(self, rows: Tensor) -> dict[str, Tensor]:
        """The named tensors of a matrix `[P, width]`."""

    @abstractmethod
    def join(self, named: Named) -> Tensor:
        """The inverse of `split`."""


@dataclass(frozen=True)
class KeysValuesPart(VirtualTokens):
    """Keys and values of P virtual tokens for chosen layers of a site.

    Attributes:
        site: where they enter.
        length: P.
        layers: the numbers of the layers that take some.
        kv_heads: heads of keys and values.
        key_dim: width of one head's key.
        value_dim: width of one head's value.
        shape: the number of this shape of heads, where the site's layers have several.
    """

    site: Site
    length: int
    layers: tuple[int, ...]
    kv_heads: int
    key_dim: int
    value_dim: int
    shape: int | None = None

    @property
    def within(self) -> str:
        """What the names of its tensors begin with: `<site>`, or `<site>.shape<n>`."""
        return self.site if self.shape is None else f"{self.site}.shape{self.shape}"

    @property
    def name(self) -> str:
        """`<site>.keys_values`."""
        return f"{self.within}.keys_values"

    @property
    def width(self) -> int:
        """A key and a value of every head and layer."""
        return len(self.layers) * self.kv_heads * (self.key_dim + self.value_dim)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """`<site>.keys` and `<site>.values`, `[layers, P, kv_heads, dim]`."""
        every = (len(self.layers), self.length, self.kv_heads)
        return {
            f"{self.within}.keys": (*every, self.key_dim),
            f"{self.within}.values": (*every, self.value_dim),
        }

    def split(self, rows: Tensor) -> dict[str, Tensor]:
        """Layer by layer stand a token's keys, then its values."""
        dims = self.key_dim, self.value_dim
        widths = [self.kv_heads * dim for dim in dims]
        layers = len(self.layers)
        sides = torch.split(rows.view(-1, layers, sum(widths)), widths, dim=2)
        return {
            name: side.reshape(-1, layers, self.kv_heads, dim).transpose(0, 1)
            for name, side, dim in zip(self.shapes, sides, dims, strict=True)
        }

    def join(self, named: Named) -> Tensor:
        """The inverse of `split`."""
        sides = [named[name].flatten(2) for name in self.shapes]
        return torch.cat(sides, dim=2).transpose(0, 1).flatten(1)


@dataclass(frozen=True)
class EmbeddingsPart(VirtualTokens):
    """Input embeddings of P virtual tokens: `<site>.embeddings` `[P, width]`.

    Attributes:
        site: whose input they stand in.
        length: P.
        dim: of the backbone's input embeddings.
    """

    site: Site
    length: int
    dim: int

    @property
    def name(self) -> str:
        """`<site>.embeddings`."""
        return f"{self.site}.embeddings"

    @property
    def width(self) -> int:
        """That of the backbone's input embeddings."""
        return self.dim

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """`[P, width]`."""
        return {self.name: (self.length, self.dim)}

    def split(self, rows: Tensor) -> dict[str, Tensor]:
        """The matrix is the tensor."""
        return {self.name: rows}

    def join(self, named: Named) -> Tensor:
        """The tensor is the matrix."""
        return named[self.name]


@dataclass(frozen=True)
class FreePart(Part):
    """One tensor that no virtual token has a row of, such as a gate for each layer and head.

    Attributes:
        site: where it enters.
        label: its name within the site.
        shape: its shape.
        start: the number that it is filled with before training.
        std: standard deviation of the random numbers that are added to it.
    """

    site: Site
    label: str
    shape: tuple[int, ...]
    start: float = 0.0
    std: float = 0.0

    @property
    def name(self) -> str:
        """`<site>.<label>`."""
        return f"{self.site}.{self.label}"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The one tensor."""
        return {self.name: self.shape}


@dataclass(frozen=True)
class Wanted:
    """What a reparameterization is to make.

    Attributes:
        parts: the parts of the prompt.
        length: P.
        d: the backbone's width, the usual one of a smaller table.
    """

    parts: tuple[Part, ...]
    length: int
    d: int


def matrix(parts: tuple[Part, ...], named: Named) -> Tensor:
    """All virtual tokens as one matrix `[P, width]`, site after site; `[0, 0]` where none are."""
    rows = [part.join(named) for part in parts if isinstance(part, VirtualTokens)]
    return torch.cat(rows, dim=1) if rows else torch.zeros(0, 0)


def split(parts: tuple[Part, ...], rows: Tensor) -> dict[str, Tensor]:
    """The named tensors of a matrix `[P, width]`; the inverse of `matrix`."""
    tokens = [part for part in parts if isinstance(part, VirtualTokens)]
    shares = torch.split(rows, [part.width for part in tokens], dim=1) if tokens else ()
    named: dict[str, Tensor] = {}
    for part, share in zip(tokens, shares, strict=True):
        named |= part.split(share)
    return named
