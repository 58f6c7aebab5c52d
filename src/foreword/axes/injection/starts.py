"""Where training starts, as data: random numbers, common words, a text, labels, real activations,
an artifact.

No torch at the top: recipes are read with these options, and training asks them for tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from foreword.common import opening
from foreword.common.bounds import Many, Scale, Tokens
from foreword.common.choices import Data
from foreword.common.paths import checked_path
from foreword.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from foreword.axes.injection.base import Injection
    from foreword.axes.parts import Named
    from foreword.backbone import Backbone


@dataclass(frozen=True, eq=False)
class Start:
    """What training starts on.

    Attributes:
        backbone: what is tuned.
        injection: where the virtual tokens enter.
        length: how many there are.
        examples: token lists of training examples, source and target.
        labels: the words of the task's classes.
        trained: the named tensors that an artifact gives, of as many virtual tokens.
    """

    backbone: Backbone
    injection: Injection
    length: int
    examples: Sequence[list[int]]
    labels: Sequence[str] = ()
    trained: Named | None = None

    def real(self, ids: list[int]) -> dict[str, Tensor]:
        """The named tensors of a text."""
        return self.injection.real(self.backbone, ids)


class InitSpec(Data):
    """Base of the options of all starts.

    Attributes:
        exact: whether training starts just there, whatever makes the virtual tokens.
        paths: fields that name a file or a folder, which is relative to the recipe.
    """

    exact: ClassVar[bool] = False
    paths: ClassVar[tuple[str, ...]] = ()

    kind: str

    def named_only(self) -> Self:
        """The same options, of what they lead to the names alone, as an artifact states them."""
        return self

    def named(self, start: Start) -> Named | None:
        """The named tensors to start from; None: as the reparameterization starts by itself.

        Raises:
            UserError: a text or a label has no tokens.
        """
        raise NotImplementedError


class RandomInit(InitSpec):
    """Start from random numbers."""

    kind: Literal["random"] = "random"

    def named(self, start: Start) -> None:
        """None: the reparameterization's own."""


class ActivationsInit(InitSpec):
    """Start from the backbone's own keys and values for real words (Li & Liang 2021, 7.4)."""

    kind: Literal["activations"] = "activations"
    text: str | None = Field(None, min_length=1, description="words to start from")
    examples: Many = Field(
        0, description="how many training examples, source and target, follow the text"
    )

    @model_validator(mode="after")
    def _says_something(self) -> ActivationsInit:
        if self.text is None and not self.examples:
            raise ValueError("give `text`, or `examples` of at least 1, or both")
        return self

    def named(self, start: Start) -> dict[str, Tensor]:
        """Those of the text and the examples."""
        return start.real(init_tokens(start.backbone, self, start.examples, start.length))


class UniformInit(InitSpec):
    """Start from uniform numbers (Lester et al. 2021, 3.1: from -0.5 to 0.5)."""

    kind: Literal["uniform"] = "uniform"
    range: Scale = Field(0.5, description="from -range to range")

    def named(self, start: Start) -> dict[str, Tensor]:
        """Uniform numbers."""
        import torch

        rows = torch.rand(start.length, start.injection.width)
        return start.injection.named((2 * rows - 1) * self.range)


class VocabularyInit(InitSpec):
    """Start from the embeddings of common words, drawn at random (Lester et al. 2021, 3.1)."""

    kind: Literal["vocabulary"] = "vocabulary"
    most_common: Tokens = Field(
        5000,
        description="how many entries to draw from; a vocabulary is ordered by frequency",
    )

    def named(self, start: Start) -> dict[str, Tensor]:
        """Those of the words."""
        return start.real(vocabulary_tokens(start.backbone, self.most_common, start.length))


class TextInit(InitSpec):
    """Start from the embeddings of a text, repeated or cut at its end to the prompt's length."""

    kind: Literal["text"] = "text"
    text: str = Field(min_length=1, description="words to start from")

    def named(self, start: Start) -> dict[str, Tensor]:
        """Those of the text."""
        tokens = _tokens(start.backbone, "text", self.text)
        return start.real((tokens * -(-start.length // len(tokens)))[: start.length])


class FirstTokensInit(InitSpec):
    """Start from the backbone's own keys and values for a text's first tokens, as many as there are
    virtual tokens (Eyuboglu et al. 2025: the best of their starts)."""

    paths: ClassVar[tuple[str, ...]] = ("file",)

    kind: Literal["text"] = "text"
    text: str | None = Field(None, min_length=1, description="the text itself")
    file: Annotated[str, AfterValidator(checked_path)] | None = Field(
        None, description="a UTF-8 file that holds it"
    )

    @model_validator(mode="after")
    def _one_text(self) -> FirstTokensInit:
        if self.text is not None and self.file is not None:
            raise ValueError("give `text` or `file`, not both")
        return self

    def named_only(self) -> FirstTokensInit:
        """With the file's name."""
        if self.file is None:
            return self
        return self.model_copy(update={"file": Path(self.file).name or "text"})

    def words(self) -> str:
        """The text.

        Raises:
            UserError: none is given, it is empty, or its file cannot be read.
        """
        if self.text is not None:
            return self.text
        if self.file is None:
            raise UserError(
                "method.init: cartridge starts from a text; give "
                "`init: {kind: text, file: manual.txt}`, or the text itself as `text`"
            )
        try:
            text = opening.read_text(Path(self.file))
        except UnicodeDecodeError as error:
            raise UserError(
                f"method.init.file: {self.file}: is no UTF-8 text (byte {error.start}); save it as "
                "UTF-8"
            ) from error
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(f"method.init.file: {self.file}: cannot be read: {reason}") from error
        if not text.strip():
            raise UserError(f"method.init.file: {self.file}: is empty; a start needs a text")
        return text

    def named(self, start: Start) -> dict[str, Tensor]:
        """Those of the text's first tokens.

        Raises:
            UserError: it has fewer tokens than there are virtual ones.
        """
        ids = start.backbone.tokens.document(self.words())
        if len(ids) < start.length:
            raise UserError(
                f"method.length: {start.length} virtual tokens, but the text has {len(ids)} tokens;"
                f" give a length of at most {len(ids)}, or a longer text"
            )
        return start.real(ids[: start.length])


class LabelsInit(InitSpec):
    """Start from the embeddings of class labels, the rest from common words (Lester et al. 2021).

    A label of several tokens gives the mean of their embeddings.
    """

    kind: Literal["labels"] = "labels"
    labels: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="the words of the classes; null: the task's label words or labels, and none"
        " where it asks for something else",
    )
    most_common: Tokens = Field(5000, description="for the positions after the labels")

    def named(self, start: Start) -> dict[str, Tensor]:
        """Those of the labels and the words."""
        import torch

        injection, backbone = start.injection, start.backbone

        def rows(ids: list[int]) -> Tensor:
            return injection.matrix(start.real(ids))

        means = [
            rows(_tokens(backbone, "labels", label)).mean(0)
            for label in (self.labels or start.labels)[: start.length]
        ]
        rest = vocabulary_tokens(backbone, self.most_common, start.length - len(means))
        filled = [rows(rest)] if rest else []
        return injection.named(torch.cat([*(mean[None] for mean in means), *filled]))


class ArtifactInit(InitSpec):
    """Start from a trained artifact (SPoT: Vu et al. 2022, section 2.2): from its virtual tokens,
    from its weights that moved, and from its head where that tells the same labels.

    Where the artifact has more virtual tokens, its first ones are taken; where it has fewer, they
    come first and the others start as the method starts by default.
    """

    exact: ClassVar[bool] = True
    paths: ClassVar[tuple[str, ...]] = ("path",)

    kind: Literal["artifact"] = "artifact"
    path: Annotated[str, AfterValidator(checked_path)] = Field(
        description="an artifact, or a run folder that has one"
    )
    head: Literal["auto", "new"] = Field(
        "auto",
        description="auto: the artifact's head, where it tells the same labels; new: never",
    )
    other_backbone: bool = Field(
        False, description="take an artifact of a backbone whose weights differ all the same"
    )

    def named_only(self) -> Self:
        """With the artifact's name, or its run folder's."""
        path = Path(self.path)
        name = path.parent.name if path.name == "artifact" and path.parent.name else path.name
        return self.model_copy(update={"path": name or "artifact"})

    def named(self, start: Start) -> Named:
        """Those of the artifact."""
        assert start.trained is not None, "whoever starts a training reads the artifact before"
        return start.trained


Init = InitSpec
PlainInit = Annotated[RandomInit | ArtifactInit, Field(discriminator="kind")]
KeysValuesInit = Annotated[RandomInit | ActivationsInit | ArtifactInit, Field(discriminator="kind")]
EmbeddingsInit = Annotated[
    UniformInit | VocabularyInit | TextInit | LabelsInit | ArtifactInit,
    Field(discriminator="kind"),
]
AnyEmbeddingsInit = Annotated[
    RandomInit | UniformInit | VocabularyInit | TextInit | LabelsInit | ArtifactInit,
    Field(discriminator="kind"),
]
"""The same, or as the reparameterization starts by itself."""


def init_tokens(
    backbone: Backbone, init: ActivationsInit, examples: Sequence[list[int]], length: int
) -> list[int]:
    """The real tokens a prefix of `length` starts from: the text, then whole examples.

    They are repeated where they are too few, and cut at their beginning where they are too many:
    the prefix ends where an example ends, and the real input starts a new one. (Cut at the end
    instead, the start is worse than no prefix: 4.87 nats per token against 4.39 on the field guide,
    and 4.29 as it is.) They begin with the beginning token where the tokenizer has one, as a
    document does.
    """
    text = [] if init.text is None else backbone.tokens.plain(init.text)
    begin = backbone.tokens.bos_id
    chosen = [
        token
        for example in examples[: init.examples]
        for i, token in enumerate(example)
        if i > 0 or token != begin
    ]
    ids = text + chosen
    if not ids:
        raise UserError(
            f"method.init: neither the text {init.text!r} nor the training examples have a token"
        )
    first = [] if begin is None else [begin]
    room = length - len(first)
    repeats = -(-length // len(ids))
    return [*first, *(ids * repeats)[len(ids) * repeats - room :]]


def vocabulary_tokens(backbone: Backbone, most_common: int, count: int) -> list[int]:
    """`count` tokens drawn, each at most once while they last, from the most common entries.

    A vocabulary is ordered by frequency, or by merges, which comes near it; special tokens are left
    out.
    """
    import torch

    special = set(backbone.tokens.tokenizer.all_special_ids)
    size = min(backbone.geometry.vocabulary, len(backbone.tokens.tokenizer))
    common = [token for token in range(size) if token not in special][:most_common]
    drawn: list[int] = []
    while len(drawn) < count:
        drawn += [common[i] for i in torch.randperm(len(common)).tolist()]
    return drawn[:count]


def _tokens(backbone: Backbone, field: str, text: str) -> list[int]:
    tokens = backbone.tokens.plain(text)
    if not tokens:
        raise UserError(f"method.init.{field}: {text!r} has no tokens in this vocabulary")
    return tokens
