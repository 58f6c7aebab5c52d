"""What is asked by name becomes work for the engine: prompts and fields, settings, limits.

Knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from foreword.backbone import Backbone, Decoding
from foreword.backbone.text.chats import Chats
from foreword.data import Example
from foreword.errors import BackboneError, DataError, UserError
from foreword.methods import HardPrompt
from foreword.recipe import DecodingSpec
from foreword.serving.prompts import PromptStore
from foreword.session import LoadedPrompt, example_of
from foreword.tasks import BoundTask, Request, TextGeneration, Writing
from foreword.tasks.base import Verb
from foreword.tasks.text import Templates
from foreword.tuned.compose import compose

T = TypeVar("T")
ALONE = DecodingSpec(max_new_tokens=16, do_sample=True)
"""How the backbone alone decodes where a request does not say: OpenAI's defaults."""
LEAST_TEMPERATURE = 1e-3
"""Below it the likeliest token is taken in all but name, and logits may overflow."""
ADDRESSES: Mapping[Verb, str] = {
    "generate": "/v1/completions",
    "predict": "/v1/classify",
    "embed": "/v1/embeddings",
}
"""Where what a verb gives is asked for."""
Given = str | Sequence[int] | Mapping[str, Any]
"""An input: a text, token ids, or the fields of a template."""


@dataclass(frozen=True)
class Settings:
    """How an answer is decoded, as far as a request says: names and meaning are OpenAI's.

    Attributes:
        most: tokens of an answer; None: the prompt's own number, or what fits where `fills`.
        fills: whether an answer without a number may be as long as fits.
        allowed: tokens that an answer may have for who asks; None: as many as for all.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    stop: tuple[str, ...] | None = None
    most: int | None = None
    fills: bool = False
    allowed: int | None = None


@dataclass(frozen=True, eq=False)
class Model:
    """The backbone, or a prompt on it.

    Attributes:
        name: by which it was asked for.
        task: answers.
        prompt: None where it is the backbone.
    """

    name: str
    task: BoundTask
    prompt: LoadedPrompt | None


@dataclass(frozen=True, eq=False)
class Asked:
    """An answer that is to be written.

    Attributes:
        writing: for the engine, without a seed.
        text: what is read, as text.
        truncated: whether it was cut to fit.
    """

    writing: Writing
    text: str
    truncated: bool = False


class Service:
    """A backbone and its prompts, by their names.

    Args:
        backbone: that all prompts share.
        name: the backbone's.
        store: the prompts.
        longest: positions of a row.
        most: tokens that an answer may have.
    """

    def __init__(
        self,
        backbone: Backbone,
        name: str,
        store: PromptStore,
        *,
        longest: int,
        most: int | None = None,
    ) -> None:
        self.backbone, self.name, self.store = backbone, name, store
        self.longest, self.most = longest, most
        self._alone: BoundTask | None = None

    def model(self, name: str) -> Model:
        """What is called so.

        Raises:
            UserError: nothing is.
            BackboneError: it is the backbone, which writes nothing.
            ArtifactError: a prompt cannot be read again.
        """
        if name == self.name:
            return Model(name, self._backbone_alone(), None)
        loaded = self.store.get(name)
        return Model(name, loaded.task, loaded)

    def _backbone_alone(self) -> BoundTask:
        if self._alone is None:
            try:
                model = compose(self.backbone, HardPrompt(name="hard-prompt"))
            except UserError as error:
                raise BackboneError(f"model: '{self.name}', the backbone alone: {error}") from error
            self._alone = TextGeneration(Templates.of("{text}")).on(model)
        return self._alone

    def written(self, model: Model, given: Given, settings: Settings, where: str) -> Asked:
        """An input whose answer is written.

        Args:
            model: what answers.
            given: the input.
            settings: how.
            where: what messages call the input.

        Raises:
            UserError: the prompt writes no text, or is not asked so.
            DataError: the input lacks a field, or is too long.
        """
        task = model.task
        task.task.check_verb("generate", f"model: '{model.name}'", ADDRESSES)
        if isinstance(given, str | Mapping):
            how = self._how(model, settings)
            example = example_of(task, given, where)
            self._check_room(model, how.max_new_tokens, where)
            (row,) = task.rows(example, labelled=False, reserve=how.max_new_tokens)
            writing = Writing(task.model, row.pair.source, how, prompt=row.pair.prompt)
            return Asked(writing, row.text, row.cut > 0)
        ids = list(given)
        self._check_ids(model, ids, where)
        how = self._how(model, settings, self._left(model, len(ids)))
        room = task.model.room(how.max_new_tokens)
        if room is not None and len(ids) > room:
            raise DataError(
                f"{where}: has {len(ids)} tokens, and the answer may have {how.max_new_tokens}, "
                f"but the context leaves {room} for the input; shorten one of them"
            )
        return Asked(Writing(task.model, ids, how), self.backbone.tokens.text(ids))

    def chat(self, model: Model, messages: list[dict[str, str]], settings: Settings) -> Asked:
        """Messages with the prompt in front, as the chat template of a prompt for conversations
        writes them, else the tokenizer's.

        Raises:
            BackboneError: there is no chat template, or it refuses the messages.
            DataError: they are too long.
        """
        model.task.task.check_verb("generate", f"model: '{model.name}'", ADDRESSES)
        if model.task.task.soft:
            raise UserError(
                f"model: '{model.name}' has virtual tokens among the words of its input, so it "
                "takes no messages; use /v1/completions with its fields"
            )
        kind, tokens = model.task.task, self.backbone.tokens
        chats = kind.chats(self.backbone) or Chats(tokens)
        if chats.template is None and not tokens.tokenizer.chat_template:
            raise BackboneError(
                f"messages: the tokenizer of '{self.name}' has no chat template; use "
                "/v1/completions"
            )
        try:
            text = chats.begun(messages)
        except BackboneError as error:
            raise BackboneError(f"messages: {str(error).removeprefix('task.input: ')}") from error
        work = self.written(model, chats.read(text), settings, "messages")
        return Asked(work.writing, text)

    def read(self, model: Model, given: str | Mapping[str, Any], where: str) -> Request:
        """An input whose answer is read by a head or label words.

        Raises:
            UserError: the prompt writes texts.
            DataError: the input lacks a field.
        """
        model.task.task.check_verb("predict", f"model: '{model.name}'", ADDRESSES)
        return Request(model.task, example_of(model.task, given, where))

    def vector(self, model: Model, given: Given, where: str, *, paired: bool = False) -> Request:
        """An input that is read as a vector, its rows made already.

        Args:
            model: what reads it.
            given: the input.
            where: what messages call the input.
            paired: whether it is a text of the other side; see `LoadedPrompt.embed`.

        Raises:
            UserError: the prompt gives no vectors.
            DataError: the input lacks a field, or is too long.
        """
        model.task.task.check_verb("embed", f"model: '{model.name}'", ADDRESSES)
        assert model.prompt is not None, "the backbone alone writes"
        task = model.prompt.side(paired)
        if isinstance(given, str | Mapping):
            request = Request(task, example_of(task, given, where))
            return replace(request, made=request.rows())
        ids = list(given)
        self._check_ids(model, ids, where)
        return Request(task, Example({}, where=where), made=task.rows_of_tokens(ids, where))

    def read_tokens(self, request: Request) -> int:
        """How many tokens a request's rows have, without virtual ones."""
        return sum(self.backbone.tokens.real(row.pair.source) for row in request.rows())

    def _check_ids(self, model: Model, ids: Sequence[int], where: str) -> None:
        """Raise DataError where token ids are none that the backbone reads."""
        if model.task.task.soft:
            raise DataError(
                f"{where}: '{model.name}' has virtual tokens among the words of its input, so it "
                "takes no token ids; give a text or fields"
            )
        choice = model.task.model.choice
        if choice is not None:
            raise DataError(
                f"{where}: '{model.name}' has a prompt for each value of '{choice.field}', which "
                "token ids and messages do not say; give fields"
            )
        if not ids:
            raise DataError(f"{where}: is empty; it needs at least one token")
        size = self.backbone.geometry.vocabulary
        wrong = next((token for token in ids if not 0 <= token < size), None)
        if wrong is not None:
            shown = str(wrong)[:20]
            raise DataError(
                f"{where}: {shown} is no token of this backbone, which has 0 to {size - 1}"
            )

    def _left(self, model: Model, length: int) -> int:
        """How many tokens may follow an input of so many; at least one."""
        place = model.task.model.placement
        rooms = (model.task.model.room(0), self.longest - place.outside)
        fit = min(room for room in rooms if room is not None)
        return max(1, fit if self.backbone.geometry.kind != "decoder" else fit - length)

    def _how(self, model: Model, settings: Settings, fills: int | None = None) -> Decoding:
        """How an answer is decoded: the prompt's settings, then those of the request.

        Args:
            model: what answers.
            settings: the request's.
            fills: as many tokens as may follow the input, where that is known.
        """
        own = ALONE if model.prompt is None else model.prompt.manifest.decoding
        samples, temperature = own.do_sample, own.temperature
        if settings.temperature is not None:
            samples = settings.temperature > 0
            temperature = max(settings.temperature, LEAST_TEMPERATURE)
        most = settings.most
        limits = [limit for limit in (self.most, settings.allowed) if limit is not None]
        if most is None:
            filled = settings.fills and model.prompt is None and fills is not None
            most = min(fills if filled and fills else own.max_new_tokens, *limits, 10**9)
        if most > min(limits, default=most):
            raise DataError(
                f"max_tokens: {most} is more than the {min(limits)} that an answer may have here"
            )
        top_k = settings.top_k if settings.top_k is None else max(0, settings.top_k)
        return Decoding(
            max_new_tokens=most,
            do_sample=samples,
            temperature=temperature if samples else 1.0,
            top_p=_first(settings.top_p, own.top_p) if samples else 1.0,
            top_k=_first(top_k, own.top_k) if samples else 0,
            repetition_penalty=_first(settings.repetition_penalty, own.repetition_penalty),
            no_repeat_ngram_size=own.no_repeat_ngram_size,
            stop=_first(settings.stop, own.stop),
        )

    def _check_room(self, model: Model, most: int, where: str) -> None:
        room = model.task.model.room(most)
        if room is not None and room < 1:
            raise DataError(
                f"{where}: an answer of {most} tokens leaves no room for the input; give a smaller "
                "max_tokens"
            )


def _first(given: T | None, otherwise: T) -> T:
    return otherwise if given is None else given
