"""Who may ask: keys, the models that each may use, and how much at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from foreword.serving.http.errors import Refusal
from foreword.serving.spec import KeySpec, digest_of


@dataclass(eq=False)
class Holder:
    """Who a request is from.

    Attributes:
        spec: what the holder of the key may do; None where the server has no keys.
        active: requests that are being answered.
        allowance: requests that may be made now; it grows to a minute's.
        at: when it was looked at last, in seconds of a clock that only goes forward.
    """

    spec: KeySpec | None = None
    active: int = 0
    allowance: float = 0.0
    at: float = field(default_factory=time.monotonic)

    @property
    def name(self) -> str:
        """What logs and metrics call it."""
        return "" if self.spec is None else self.spec.name

    @property
    def admin(self) -> bool:
        """Whether it may change prompts."""
        return self.spec is None or self.spec.admin

    @property
    def max_tokens(self) -> int | None:
        """Tokens of an answer."""
        return None if self.spec is None else self.spec.max_tokens

    def may_use(self, model: str) -> bool:
        """Whether a name is one of those that it may use; it need not be a model's."""
        return self.spec is None or any(fnmatchcase(model, one) for one in self.spec.models)


class Access:
    """The keys of a server.

    Args:
        keys: without any, everybody may ask everything.
    """

    def __init__(self, keys: Sequence[KeySpec]) -> None:
        self._everybody = None if keys else Holder()
        self._holders: dict[str, Holder] = {}
        self._changing = threading.Lock()
        for key in keys:
            self._holders[key.digest] = Holder(key, allowance=float(key.requests_per_minute or 0))

    @property
    def open(self) -> bool:
        """Whether there are no keys."""
        return self._everybody is not None

    def holder(self, authorization: str | None) -> Holder:
        """Who a request is from.

        Args:
            authorization: the header.

        Raises:
            Refusal: 401, there is no such key. Keys are compared by their hashes, so that the time
                it takes tells nothing of them.
        """
        if self._everybody is not None:
            return self._everybody
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise Refusal(401, "give a key: Authorization: Bearer KEY")
        known_holder = self._holders.get(digest_of(key.strip()))
        if known_holder is None:
            raise Refusal(401, "this key is not known here", code="invalid_api_key")
        return known_holder

    @contextmanager
    def counted(self, holder: Holder) -> Iterator[None]:
        """One request of a holder, as long as the block lasts.

        Raises:
            Refusal: 429, it asks too much at a time.
        """
        self._enter(holder)
        try:
            yield
        finally:
            with self._changing:
                holder.active -= 1

    def _enter(self, holder: Holder) -> None:
        spec = holder.spec
        with self._changing:
            if spec is not None and spec.concurrent and holder.active >= spec.concurrent:
                raise Refusal(
                    429,
                    f"this key may have {spec.concurrent} requests at the same time",
                    retry_after=1,
                )
            if spec is not None and spec.requests_per_minute:
                now, rate = time.monotonic(), spec.requests_per_minute / 60
                holder.allowance = min(
                    spec.requests_per_minute, holder.allowance + (now - holder.at) * rate
                )
                holder.at = now
                if holder.allowance < 1:
                    raise Refusal(
                        429,
                        f"this key may make {spec.requests_per_minute} requests a minute",
                        retry_after=(1 - holder.allowance) / rate,
                    )
                holder.allowance -= 1
            holder.active += 1
