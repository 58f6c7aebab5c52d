"""What requests may say: OpenAI's fields, and those that prompts with several fields need."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    StringConstraints,
    model_validator,
)

from foreword.common.choices import Data as AnyData
from foreword.recipe.problems import kind

T = TypeVar("T")
MOST_CHOICES, MOST_PROMPTS, MOST_LOGPROBS, MOST_PARTS = 128, 2048, 20, 64


class Data(AnyData):
    """What is said in JSON, which has numbers, texts and truth values of its own."""

    model_config = ConfigDict(strict=True)


Name = Annotated[str, StringConstraints(min_length=1, max_length=512)]
"""A model's name."""
Fields = dict[str, Any]
"""The fields of a prompt's template, by their names."""


def _prompt(value: Any) -> Any:
    """One message for a union that has four."""
    many = isinstance(value, list) and bool(value)
    lists = many and all(isinstance(one, list) and one for one in value)
    if isinstance(value, str) or (many and all(isinstance(one, str) for one in value)):
        return value
    for ids in value if lists else [value] if many else []:
        if not all(isinstance(one, int) and not isinstance(one, bool) for one in ids):
            break
    else:
        if many:
            return value
    raise ValueError(
        f"expected a text, texts, token ids, or lists of token ids, found {kind(value)}"
    )


PromptInput = Annotated[
    str | list[str] | list[StrictInt] | list[list[StrictInt]],
    BeforeValidator(_prompt),
    Field(description="text, texts, token ids, or lists of token ids"),
]
Several = Fields | Annotated[list[Fields], Field(min_length=1, max_length=MOST_PROMPTS)]
"""Fields of one input, or of several."""
FieldsInput = Annotated[
    Several | None, Field(description="fields of the prompt's template, or of several inputs")
]
StopInput = str | Annotated[list[str], Field(max_length=16)]


class StreamOptions(Data):
    """What a stream tells beside the answer."""

    include_usage: bool = Field(False, description="a last piece with the numbers of tokens")
    include_obfuscation: bool | None = Field(None, description="not supported; only false")

    @model_validator(mode="after")
    def _supported(self) -> StreamOptions:
        _refuse(self, include_obfuscation=(None, False))
        return self


class DecodingRequest(Data):
    """How answers are decoded. What is not given is the prompt's own setting, and OpenAI's default
    for the backbone."""

    model: Name = Field(description="the backbone's name or a prompt's")
    temperature: float | None = Field(None, ge=0, le=100, description="0: the likeliest token")
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=10**7, description="0 or -1: all")
    repetition_penalty: float | None = Field(None, ge=0.01, le=100)
    stop: StopInput | None = Field(None, description="the answer ends before the first of these")
    seed: int | None = Field(None, ge=-(2**63), lt=2**63, description="of what is drawn")
    n: int | None = Field(None, ge=1, le=MOST_CHOICES, description="answers to each input")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = Field(None, description="not looked at")
    presence_penalty: float | None = Field(None, description="not supported; only 0")
    frequency_penalty: float | None = Field(None, description="not supported; only 0")
    logit_bias: dict[str, float] | None = Field(None, description="not supported; only {}")

    @property
    def stops(self) -> tuple[str, ...] | None:
        """Stop words, if any are given."""
        if self.stop is None:
            return None
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @model_validator(mode="after")
    def _supported(self) -> DecodingRequest:
        _refuse(
            self,
            presence_penalty=(None, 0),
            frequency_penalty=(None, 0),
            logit_bias=(None, {}),
        )
        if "" in (self.stops or ()):
            raise ValueError("`stop`: a stop word must not be empty")
        if self.stream_options is not None and not self.stream:
            raise ValueError("`stream_options` is for `stream: true`")
        return self


class CompletionRequest(DecodingRequest):
    """POST /v1/completions."""

    prompt: PromptInput | None = None
    fields: FieldsInput = None
    max_tokens: int | None = Field(None, ge=0, le=10**7)
    logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS)
    echo: bool | None = Field(None, description="tell the input before the answer")
    best_of: int | None = Field(None, description="not supported; only n")
    suffix: str | None = Field(None, description="not supported; only nothing")

    @model_validator(mode="after")
    def _one_input(self) -> CompletionRequest:
        _refuse(self, best_of=(None, self.n or 1), suffix=(None, ""))
        if (self.prompt is None) == (self.fields is None):
            raise ValueError("give one of `prompt` and `fields`")
        _check_few("prompt", self.prompt)
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("`max_tokens`: 0 tells nothing without `echo: true`")
        return self


class TextPart(Data):
    """A part of a message."""

    type: Literal["text"]
    text: str


class Message(Data):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = Field(None, description="not looked at")

    @property
    def text(self) -> str:
        """What it says."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content)


class ChatRequest(DecodingRequest):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1, max_length=MOST_PROMPTS)
    max_tokens: int | None = Field(None, ge=1, le=10**7)
    max_completion_tokens: int | None = Field(None, ge=1, le=10**7)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS)
    tools: list[Any] | None = Field(None, description="not supported; only []")
    response_format: dict[str, Any] | None = Field(
        None, description='not supported; only {"type": "text"}'
    )

    @model_validator(mode="after")
    def _chat_rules(self) -> ChatRequest:
        _refuse(self, tools=(None, []), response_format=(None, {"type": "text"}))
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("`top_logprobs` is for `logprobs: true`")
        return self


class ClassifyRequest(Data):
    """POST /v1/classify."""

    model: Name = Field(description="the name of a prompt that tells labels, tags, spans or words")
    input: str | Annotated[list[str], Field(min_length=1, max_length=MOST_PROMPTS)] | None = None
    fields: FieldsInput = None
    user: str | None = Field(None, description="not looked at")

    @model_validator(mode="after")
    def _one_input(self) -> ClassifyRequest:
        if (self.input is None) == (self.fields is None):
            raise ValueError("give one of `input` and `fields`")
        return self


class EmbeddingRequest(Data):
    """POST /v1/embeddings."""

    model: Name = Field(description="the name of a prompt that gives vectors")
    input: PromptInput | None = None
    fields: FieldsInput = None
    paired: bool = Field(
        False, description="whether they are texts of the other side (task.data.paired)"
    )
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="numbers, or their little-endian float32 in base64; null: numbers"
    )
    dimensions: int | None = Field(None, description="not supported; only the vectors' own")
    user: str | None = Field(None, description="not looked at")

    @model_validator(mode="after")
    def _one_input(self) -> EmbeddingRequest:
        if (self.input is None) == (self.fields is None):
            raise ValueError("give one of `input` and `fields`")
        _check_few("input", self.input)
        return self


class PromptRequest(Data):
    """POST /v1/prompts."""

    name: Name
    folder: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="an artifact below the server's `roots`, or A+B, which stand together",
    )
    files: dict[str, str] | None = Field(
        None, max_length=8, description="an artifact's files by name, each in base64"
    )

    parts: list[Name] | None = Field(
        None,
        min_length=2,
        max_length=MOST_PARTS,
        description="prompts that are served here, which stand together in this order",
    )

    @model_validator(mode="after")
    def _one_source(self) -> PromptRequest:
        given = [one for one in (self.folder, self.files, self.parts) if one is not None]
        if len(given) != 1:
            raise ValueError("give one of `folder`, `files` and `parts`")
        return self


class ErrorBody(Data):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(Data):
    """OpenAI's form of an error."""

    error: ErrorBody


def each_of(
    name: str, inputs: list[T] | None, fields: Several | None
) -> list[tuple[str, T | Fields]]:
    """The inputs of a request, each with what messages call it.

    Args:
        name: of the field that holds `inputs`.
        inputs: texts or token ids; None where fields are given instead.
        fields: of one input, or of several.
    """
    given: list[T | Fields]
    if fields is not None:
        name, given = "fields", list(fields) if isinstance(fields, list) else [fields]
    else:
        assert inputs is not None, "one of the two is given"
        given = list(inputs)
    if len(given) == 1:
        return [(name, given[0])]
    return [(f"{name}.{number}", one) for number, one in enumerate(given)]


def apart(inputs: PromptInput | None) -> list[str | list[int]] | None:
    """Texts, or lists of token ids, each by itself."""
    if inputs is None or isinstance(inputs, str):
        return inputs if inputs is None else [inputs]
    ids = [token for token in inputs if isinstance(token, int)]
    return [ids] if ids else [one for one in inputs if not isinstance(one, int)]


def _check_few(name: str, inputs: PromptInput | None) -> None:
    """Raise ValueError where a request has too many inputs."""
    if len(apart(inputs) or ()) > MOST_PROMPTS:
        raise ValueError(f"`{name}`: expected at most {MOST_PROMPTS} inputs")


def _refuse(given: Data, **allowed: tuple[Any, ...]) -> None:
    """Raise ValueError where a field that is known and not supported asks for something."""
    for name, values in allowed.items():
        value = getattr(given, name)
        if not any(type(value) is type(one) and value == one for one in values) and not (
            isinstance(value, float) and value == 0 and 0 in values
        ):
            raise ValueError(f"`{name}` is not supported by this server; leave it out")
