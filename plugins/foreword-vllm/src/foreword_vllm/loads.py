"""What the scheduler tells the workers before a step: pure data, which vLLM pickles."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Load:
    """Virtual tokens `first` to P - 1 of a prompt go to these slots of the cache.

    Attributes:
        sha256: of the prompt's file.
        first: the first virtual token that is written.
        slots: where each goes, by its number in the whole cache.
    """

    sha256: str
    first: int
    slots: list[int]


@dataclass
class Step:
    """All that one step needs.

    Attributes:
        loads: what is written before the forward pass.
        new: files of prompts that the workers do not hold yet, by hash.
        gone: hashes of prompts that they forget.
        failed: blocks of refused requests, whose failure ends these requests.
    """

    loads: list[Load] = field(default_factory=list)
    new: dict[str, bytes] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
