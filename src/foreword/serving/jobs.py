"""What an engine is asked, and what it tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pydantic import Field

from foreword.backbone import Call, Telling, Written
from foreword.common.bounds import Rows, Tokens
from foreword.common.choices import Data
from foreword.tasks import Prediction, Request, Row, Writing


class EngineOptions(Data):
    """How much an engine does at a time."""

    rows: Rows = Field(32, description="answers that are written at the same time")
    tokens: Tokens | None = Field(
        None,
        description="positions (virtual tokens, input and answer; those that rows share left out)"
        " that all of them may take together; null: what fits into a quarter of the memory",
    )
    longest: Tokens | None = Field(
        None, description="positions of one of them; null: the backbone's context, at most 8192"
    )
    chunk: Tokens = Field(
        256, description="tokens of inputs that are read in a step, so that long ones stall nobody"
    )
    packed: bool = Field(
        True,
        description="whether a CPU's float32 weights are laid out a second time, for steps of few"
        " rows: faster, and as much memory again; only where that is no more than a quarter of it",
    )
    queue: Rows = Field(256, description="requests that may wait; more are refused")


@dataclass(frozen=True)
class Told:
    """What an engine tells of a request that is read, in one piece.

    Attributes:
        prediction: the answer; None where it failed.
        error: what it failed by.
    """

    prediction: Prediction | None
    error: Exception | None = None


Listener = Callable[[Written | Told], None]
"""Is called from the engine's thread, and must not wait. `Written.ended`, and every `Told`, is the
last word on a request."""


@dataclass(frozen=True, eq=False)
class Job:
    """One request to an engine.

    Attributes:
        work: an answer that is to be written, or an example whose answer is to be read.
        listener: is told of the answer.
        telling: what is told of an answer that is written.
    """

    work: Writing | Request
    listener: Listener
    telling: Telling = field(default_factory=Telling)


@dataclass(eq=False)
class Ticket:
    """A job that was taken on.

    Attributes:
        number: of the job.
        job: what is asked.
        call: the input of an answer that is written, laid out.
        columns: positions that it may take.
        rows: the rows of an example that is read.
    """

    number: int
    job: Job
    call: Call | None = None
    columns: int = 0
    rows: list[Row] = field(default_factory=list)


@dataclass
class Counts:
    """What an engine has done since it began.

    Attributes:
        steps: forward passes that wrote tokens.
        rows: answers in all of these steps; by `steps` it is how full they were.
        tokens: that were written.
        failed_steps: steps that failed.
        seconds: that steps took.
        read: rows of examples that were read.
    """

    steps: int = 0
    rows: int = 0
    tokens: int = 0
    failed_steps: int = 0
    seconds: float = 0.0
    read: int = 0
