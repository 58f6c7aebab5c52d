"""Where virtual tokens may enter, as data. No torch until a model is composed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, Field

from foreword.common.bounds import Layer
from foreword.common.choices import Data
from foreword.common.registry import Registry
from foreword.common.sites import Site
from foreword.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from foreword.axes.injection.base import Injection
    from foreword.axes.injection.embeddings import Embeddings as EmbeddingsModule
    from foreword.axes.injection.keys_values import KeysValues as KeysValuesModule
    from foreword.backbone import Backbone

Layers = tuple[Layer, ...] | dict[Site, tuple[Layer, ...]] | None


def some(chosen: tuple[Site, ...] | None) -> tuple[Site, ...] | None:
    """Check a list of sites: not empty, and none twice."""
    if chosen is not None and (not chosen or len(set(chosen)) < len(chosen)):
        raise ValueError("name each site at most once, and at least one; or leave it out")
    return chosen


PromptDropout = Annotated[
    float,
    Field(
        ge=0,
        lt=1,
        description="on the virtual tokens' keys and values, in training steps, drawn for each row",
    ),
]
SomeSites = Annotated[tuple[Site, ...] | None, AfterValidator(some)]
AttentionSites = Annotated[
    SomeSites,
    Field(description="which attentions carry a prompt: encoder, decoder, cross; all if left out"),
]
InputSites = Annotated[
    SomeSites,
    Field(
        description="whose input they stand in: encoder, decoder; an encoder's, where there is one,"
        " if left out"
    ),
]
ChosenLayers = Annotated[
    Layers,
    Field(
        description="which layers carry one: numbers from 0, negative from the last; or such a list"
        " for each site; all if left out"
    ),
]


class InjectionSpec(Data):
    """Base of the options of all injections.

    Attributes:
        kind: the name by which artifacts call it, that of its module.
        trains: whether there are virtual tokens at all.
        has_slots: whether they can stand in slots of the text.
        predicted: whether training has a loss of the virtual tokens themselves.
        lengths: in an artifact, the ends of the names of tensors that have one of their sizes for
            each virtual token, and which size that is.
        runs_parts: whether parts of the backbone's layers are run apart from them.
    """

    kind: ClassVar[str]
    trains: ClassVar[bool] = True
    has_slots: ClassVar[bool] = False
    predicted: ClassVar[bool] = False
    lengths: ClassVar[tuple[tuple[str, ...], int] | None] = None
    runs_parts: ClassVar[bool] = False

    def sizes(self, length: int) -> list[tuple[str, int, tuple[str, ...], int]]:
        """What the options say of the sizes of an artifact's tensors: the field that says it, the
        size, the ends of the tensors' names, and which of their sizes it is.

        Args:
            length: P.
        """
        return [] if self.lengths is None else [("method.length", length, *self.lengths)]

    def build(
        self, backbone: Backbone, *, stands: Literal["before", "between", "inside"] = "before"
    ) -> Injection:
        """What turns virtual tokens into what a backbone takes.

        Args:
            backbone: what takes them.
            stands: where in the sequence they stand.

        Raises:
            UserError: this backbone does not take them so.
        """
        raise NotImplementedError


INJECTIONS: Registry[type[InjectionSpec]] = Registry("injection")
"""Name -> options."""

Options = TypeVar("Options", bound=InjectionSpec)


def injection(options: type[Options]) -> type[Options]:
    """Register an injection's options by their `kind`."""
    INJECTIONS.add(options.kind, options)
    return options


@injection
class KeysValues(InjectionSpec):
    """Keys and values before every layer's own (Li & Liang 2021, section 4.1)."""

    kind: ClassVar[str] = "keys_values"
    lengths: ClassVar[tuple[tuple[str, ...], int] | None] = ((".keys", ".values"), 1)

    sites: AttentionSites = None
    layers: ChosenLayers = None
    dropout: PromptDropout = 0.0

    def build(
        self, backbone: Backbone, *, stands: Literal["before", "between", "inside"] = "before"
    ) -> KeysValuesModule:
        """For the chosen layers of the chosen sites."""
        from foreword.axes.injection.keys_values import KeysValues as Module

        if stands == "inside":
            raise UserError(
                "task.input has {soft} slots, but keys and values stand in no text; use p-tuning "
                "or prompt-tuning"
            )
        backbone.check_takes_keys_values()
        g = backbone.geometry
        if stands == "between" and g.slides and not g.caches_heads:
            family = backbone.model.config.model_type
            raise UserError(
                f"method.placement: layers of '{backbone.name}' ({family}) "
                "see a window of positions alone, and its cache has no place for keys and values "
                "between two texts, so that they would take none of those positions; use "
                "prefix-tuning, or prompt-tuning with `placement: infix`"
            )
        whole = backbone.caches_a_prefix and (self.sites, self.layers) == (("decoder",), None)
        return Module(g, self.by_site(backbone), keeps_positions=whole, dropout=self.dropout)

    def by_site(self, backbone: Backbone) -> dict[Site, tuple[int, ...]]:
        """The layers that carry virtual tokens, by site.

        Raises:
            UserError: the backbone has no such site or layer.
        """
        known = backbone.geometry.sites
        sites = known_sites(backbone, self.sites) or tuple(known)
        chosen = self.layers
        named = chosen if isinstance(chosen, Mapping) else dict.fromkeys(sites, chosen)
        for site in named:
            if site not in sites:
                raise UserError(f"method.layers: '{site}' is none of the sites {', '.join(sites)}")
        return {
            site: _layers(backbone, site, named.get(site), known[site].layers) for site in sites
        }


@injection
class Embeddings(InjectionSpec):
    """Vectors among the input's embeddings (Lester et al. 2021, section 3)."""

    kind: ClassVar[str] = "embeddings"
    has_slots: ClassVar[bool] = True
    lengths: ClassVar[tuple[tuple[str, ...], int] | None] = ((".embeddings",), 0)

    sites: InputSites = None

    def build(
        self, backbone: Backbone, *, stands: Literal["before", "between", "inside"] = "before"
    ) -> EmbeddingsModule:
        """In the input of the chosen sites."""
        from foreword.axes.injection.embeddings import Embeddings as Module

        sites = known_input(backbone, self.sites, stands)
        return Module(backbone, sites, inside=stands != "before", between=stands == "between")


@injection
class Text(InjectionSpec):
    """No trained vector enters."""

    kind: ClassVar[str] = "text"
    trains: ClassVar[bool] = False

    def build(
        self,
        backbone: Backbone,  # noqa: ARG002
        *,
        stands: Literal["before", "between", "inside"] = "before",  # noqa: ARG002
    ) -> Injection:
        """Nothing."""
        from foreword.axes.injection.text import Text as Module

        return Module()


def known_input(
    backbone: Backbone,
    chosen: tuple[Site, ...] | None,
    stands: Literal["before", "between", "inside"],
) -> tuple[Site, ...] | None:
    """The chosen sites, in whose input embeddings can stand.

    Raises:
        UserError: one has no input, the backbone has it not, or the text has slots elsewhere.
    """
    if "cross" in (chosen or ()):
        raise UserError(
            "method.sites: 'cross' has no input of its own, so no embeddings can stand in it; "
            "choose among encoder and decoder"
        )
    sites = known_sites(backbone, chosen)
    usual = (None, ("encoder",), ("decoder",)[: backbone.begin is None])
    if stands != "before" and sites not in usual:
        raise UserError(
            f"method.sites: {', '.join(sites or ())}, but the virtual tokens stand in the "
            "slots of task.input; leave `sites` out"
        )
    return sites


def known_sites(backbone: Backbone, chosen: tuple[Site, ...] | None) -> tuple[Site, ...] | None:
    """The chosen sites, each of which the backbone has.

    Raises:
        UserError: it has one of them not.
    """
    known = backbone.geometry.sites
    for site in chosen or ():
        if site not in known:
            raise UserError(
                f"method.sites: '{backbone.name}' ({backbone.model.config.model_type}) has no "
                f"'{site}'{did_you_mean(site, known)}; its sites: {', '.join(known)}"
            )
    return chosen


def _layers(
    backbone: Backbone, site: Site, chosen: tuple[int, ...] | None, count: int
) -> tuple[int, ...]:
    if chosen is None:
        return tuple(range(count))
    named = sorted({layer % count for layer in chosen if -count <= layer < count})
    if not named or len(named) != len(chosen):
        raise UserError(
            f"method.layers: {list(chosen)} must name at least one layer of the {site} of "
            f"'{backbone.name}', each once, from 0 to {count - 1} or from -{count} to -1"
        )
    if len(named) < count and backbone.geometry.through == "cache":
        raise UserError(
            f"method.layers: '{backbone.name}' ({backbone.model.config.model_type}) takes a prompt "
            "through its cache alone, at all layers; leave `layers` out"
        )
    return tuple(named)
