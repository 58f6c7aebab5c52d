"""Answers in OpenAI's form: choices, pieces of a stream, log-probabilities, numbers of tokens."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from foreword.backbone import Likely, Tokens, Written
from foreword.serving.service import Asked

LEAST = -9999.0
"""Stands for the logarithm of no probability at all, for which JSON has no number."""
_REASONS = {"end": "stop", "stop": "stop", "length": "length"}


@dataclass(eq=False)
class Choice:
    """One answer, as far as it is told.

    Attributes:
        index: among the request's choices.
        asked: what is answered.
        text: what is known of it.
        written: how many tokens it has.
        likely: how likely they were, and the end token behind them.
        source: how likely those of the input were.
        offsets: characters of the answer before each of its tokens.
        reason: why it ended.
    """

    index: int
    asked: Asked
    text: str = ""
    written: int = 0
    likely: list[Likely] = field(default_factory=list)
    source: list[Likely | None] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    reason: str | None = None

    def take(self, event: Written) -> None:
        """Take the next thing that the engine tells."""
        self.source += event.source
        if event.token is not None:
            self.written += 1
        if event.likely is not None and self.tells(event):
            self.likely.append(event.likely)
            self.offsets.append(len(self.text))
        self.text += event.text
        if event.ended is not None:
            self.reason = _REASONS[event.ended]

    def tells(self, event: Written) -> bool:
        """Whether a token was chosen: one that was written, or the end token."""
        ended = event.ended == "end" and self.asked.writing.how.max_new_tokens > 0
        return event.token is not None or ended

    @property
    def prompt_tokens(self) -> int:
        """Tokens that were read, without virtual ones."""
        writing = self.asked.writing
        return writing.model.backbone.tokens.real(writing.source)


@dataclass(frozen=True)
class Form:
    """How answers to one request are told.

    Attributes:
        model: its name.
        kind: of the objects: "text_completion" or "chat.completion".
        fingerprint: of the backbone.
        tokens: name tokens.
        best: how many likeliest tokens stand beside each; None: no log-probabilities.
        echo: whether the input stands before the answer.
        usage: whether a stream ends with the numbers of tokens.
    """

    model: str
    kind: str
    fingerprint: str
    tokens: Tokens
    best: int | None = None
    echo: bool = False
    usage: bool = False
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def chat(self) -> bool:
        """Whether answers are messages."""
        return self.kind.startswith("chat")

    def whole(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """The answer in one piece."""
        return {
            **self._head(self.kind),
            "choices": [self._whole(choice) for choice in choices],
            "usage": usage_of(choices),
        }

    def piece(self, choice: Choice, event: Written | None) -> dict[str, Any] | None:
        """What a stream says of an event, which the choice has taken; None: nothing. The first
        piece has no event."""
        kind = "chat.completion.chunk" if self.chat else self.kind
        end = choice.reason if event is not None and event.ended is not None else None
        if self.chat:
            delta = {"role": "assistant", "content": ""}
            if event is not None:
                delta = {"content": event.text} if event.text else {}
            chosen: dict[str, Any] = {"delta": delta}
        else:
            echoed = choice.asked.text if event is None and self.echo else ""
            chosen = {"text": echoed if event is None else event.text}
        logs = self._of_event(choice, event)
        if not (event is None and (self.chat or self.echo)) and not (
            end or logs or (event is not None and event.text)
        ):
            return None
        chosen |= {"index": choice.index, "logprobs": logs, "finish_reason": end}
        return {**self._head(kind), "choices": [chosen], **({"usage": None} if self.usage else {})}

    def last(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """The last piece of a stream that tells numbers of tokens."""
        kind = "chat.completion.chunk" if self.chat else self.kind
        return {**self._head(kind), "choices": [], "usage": usage_of(choices)}

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"{'chatcmpl' if self.chat else 'cmpl'}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }

    def _whole(self, choice: Choice) -> dict[str, Any]:
        chosen: dict[str, Any] = {"index": choice.index, "finish_reason": choice.reason}
        if self.chat:
            message = {"role": "assistant", "content": choice.text, "refusal": None}
            chosen |= {
                "message": message,
                "logprobs": self._chat_logs(choice.likely[: choice.written]),
            }
        else:
            before = choice.asked.text if self.echo else ""
            chosen |= {
                "text": before + choice.text,
                "logprobs": self._logs(choice, 0, echo=self.echo),
            }
        if choice.asked.truncated:
            chosen["truncated"] = True
        return chosen

    def _of_event(self, choice: Choice, event: Written | None) -> dict[str, Any] | None:
        """The log-probabilities that belong to an event."""
        if self.best is None or event is None:
            return None
        counts = choice.tells(event)
        new = len(choice.likely) - counts
        if self.chat:
            return self._chat_logs(choice.likely[new:]) if event.token is not None else None
        first = self.echo and bool(event.source)
        if not (first or counts):
            return None
        return self._logs(choice, new, echo=first)

    def _chat_logs(self, likely: Sequence[Likely]) -> dict[str, Any] | None:
        if self.best is None:
            return None
        content = []
        for one in likely:
            best = [self._chat_log(token, log) for token, log in one.best[: self.best]]
            content.append({**self._chat_log(one.token, one.log), "top_logprobs": best})
        return {"content": content, "refusal": None}

    def _chat_log(self, token: int, log: float) -> dict[str, Any]:
        name = piece_of(self.tokens, token)
        return {"token": name, "logprob": max(log, LEAST), "bytes": list(name.encode())}

    def _logs(self, choice: Choice, first: int, *, echo: bool) -> dict[str, Any] | None:
        """Log-probabilities of the answer's tokens from one on, those of the input before them."""
        if self.best is None:
            return None
        names: list[str] = []
        logs: list[float | None] = []
        best: list[dict[str, float] | None] = []
        offsets: list[int] = []
        if echo:
            at = 0
            for token, one in zip(choice.asked.writing.source, choice.source, strict=True):
                names.append(piece_of(self.tokens, token))
                offsets.append(at)
                at += len(names[-1])
                logs.append(None if one is None else max(one.log, LEAST))
                best.append(None if one is None else self._best(one))
        before = len(choice.asked.text) if self.echo else 0
        for one, at in zip(choice.likely[first:], choice.offsets[first:], strict=True):
            names.append(piece_of(self.tokens, one.token))
            offsets.append(before + at)
            logs.append(max(one.log, LEAST))
            best.append(self._best(one))
        return {
            "tokens": names,
            "token_logprobs": logs,
            "top_logprobs": best,
            "text_offset": offsets,
        }

    def _best(self, one: Likely) -> dict[str, float]:
        """The likeliest tokens by their names, and the token itself; of tokens that are called the
        same, the likeliest."""
        by_piece: dict[str, float] = {}
        for token, log in (*one.best[: self.best], (one.token, one.log)):
            by_piece.setdefault(piece_of(self.tokens, token), max(log, LEAST))
        return by_piece


def usage_of(choices: Sequence[Choice]) -> dict[str, Any]:
    """Numbers of tokens; an input with several answers counts once."""
    read = {id(choice.asked): choice.prompt_tokens for choice in choices}
    written = sum(choice.written for choice in choices)
    before = sum(read.values())
    return {
        "prompt_tokens": before,
        "completion_tokens": written,
        "total_tokens": before + written,
    }


def spread(prompts: Sequence[Asked], n: int) -> Iterator[Choice]:
    """The choices of a request: so many for each input."""
    for number, one in enumerate(prompts):
        for choice in range(n):
            yield Choice(number * n + choice, one)


@lru_cache(maxsize=2**16)
def piece_of(tokens: Tokens, token: int) -> str:
    """What a token adds to the text before it; its own name where that is no whole character."""
    anchor = tokens.plain("a")
    before, both = tokens.text(anchor), tokens.text([*anchor, token])
    text = both[len(before) :] if both.startswith(before) else ""
    if not text or "\ufffd" in text:
        (text,) = tokens.names([token])
    return text
