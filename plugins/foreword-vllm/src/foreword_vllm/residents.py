"""Which prompts lie in the workers' memory.

The scheduler decides, so that all workers hold the same ones: what is needed and not there is sent
with the step that first needs it, and what was used least recently goes where a budget of bytes is
reached. A prompt of a request that still runs never goes: the request may be preempted, and then
needs it again, although its file may be another by now.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable

from foreword_vllm.tensors import KeysValues


class Residents:
    """Keys and values by their hash, under a budget.

    Attributes:
        size: bytes of all that is held.

    Args:
        budget: bytes; the prompts of running requests stay beyond it.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._held: OrderedDict[str, KeysValues] = OrderedDict()
        self._users: Counter[str] = Counter()
        self._sent: set[str] = set()
        self._gone: list[str] = []
        self.size = 0

    def __len__(self) -> int:
        return len(self._held)

    def take(self, sha256: str, read: Callable[[], KeysValues]) -> KeysValues:
        """The keys and values of a hash for one more request, until it `lets go`.

        Args:
            sha256: of their file.
            read: reads them where they are not held; what it raises is raised.
        """
        resident = self._held.get(sha256)
        if resident is None:
            resident = read()
            self._held[sha256] = resident
            self.size += len(resident.content)
        self._held.move_to_end(sha256)
        self._users[sha256] += 1
        self._make_room()
        return resident

    def let_go(self, sha256: str) -> None:
        """One request that has taken them is done."""
        self._users[sha256] -= 1
        if self._users[sha256] <= 0:
            del self._users[sha256]
        self._make_room()

    def to_send(self, needed: set[str]) -> tuple[dict[str, bytes], list[str]]:
        """What workers must get before a step, and what they are to forget.

        Args:
            needed: hashes that the step loads; each was taken by a request that still runs.
        """
        new = {one: self._held[one].content for one in sorted(needed - self._sent)}
        self._sent |= needed
        gone, self._gone = self._gone, []
        return new, gone

    def _make_room(self) -> None:
        if self.size <= self._budget:
            return
        for sha256 in list(self._held):
            if self.size <= self._budget:
                return
            if sha256 in self._users:
                continue
            self.size -= len(self._held.pop(sha256).content)
            if sha256 in self._sent:
                self._sent.remove(sha256)
                self._gone.append(sha256)
