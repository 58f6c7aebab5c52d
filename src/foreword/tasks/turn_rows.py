"""Conversations as rows of tokens: the assistant's turns are predicted, all else is read.

Every turn is read after exactly what the backbone reads before it when it answers. Turns whose
text, with all before it, begins the text of a later one share its row; the others (a template that
drops earlier thoughts) have rows of their own.

A conversation that is too long is read in windows of whole exchanges, the system's message in
each. An exchange is a message of the user and all that follows it, up to the next one. Neighbouring
windows share the exchanges that fit into half of one, and each turn is trained once.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from foreword.backbone import Chats, Spoken
from foreword.backbone.layout import Pair
from foreword.common.json_text import parse_json
from foreword.data.conversation import Conversation, Turn
from foreword.errors import BackboneError, DataError
from foreword.tasks.rows import Row
from foreword.tasks.stating import limited
from foreword.tuned import TunedModel

Stretch = tuple[int, int]


@dataclass(frozen=True)
class TurnRows:
    """Makes rows of conversations, for one model.

    Attributes:
        model: reads them; its context says how many tokens fit.
        chats: renders them.
        column: what holds them, as messages name it.
        max_tokens: of a window; what the context holds if not given.
        cuts: whether a message that is too long by itself is cut.
    """

    model: TunedModel
    chats: Chats
    column: str
    max_tokens: int | None = None
    cuts: bool = False

    def trained(self, conversation: Conversation) -> list[Row]:
        """Rows in which each turn of the assistant that is learned is predicted once.

        Raises:
            DataError: an exchange is too long.
            BackboneError: the chat template refuses the messages, or hides where a turn begins.
        """
        pairs = self._pairs(conversation)
        if self._excess(pairs) <= 0:
            return [Row(pair) for pair in pairs]
        parts, rows = _Parts.of(conversation), []
        begin = done = 0
        while done < len(parts.exchanges):
            end = self._end(parts, begin, done)
            if end == done and begin < done:
                begin += 1
                continue
            end = max(end, done + 1)
            window, cut = self._fitting(parts.window(begin, end, done), self._pairs, self._excess)
            rows += [Row(pair, cut) for pair in self._pairs(window)]
            done = end
            begin = self._shared(parts, begin, done)
        return rows

    def asked(self, conversation: Conversation, reserve: int) -> Row:
        """The row that is answered: as many of the latest exchanges as fit.

        Args:
            conversation: ends where the assistant begins.
            reserve: tokens that are kept free for its turn.

        Raises:
            DataError: the last exchange is too long.
            BackboneError: as `trained`.
        """
        most = limited(self.model.room(reserve), self.max_tokens)

        def excess(read: tuple[str, list[int]]) -> int:
            return 0 if most is None else len(read[1]) - most

        whole = self._begun(conversation)
        window, parts = conversation, _Parts.of(conversation)
        if excess(whole) > 0:
            count = len(parts.exchanges)
            kept = bisect_left(
                range(count - 1),
                0,
                key=lambda begin: -max(0, excess(self._begun(parts.window(begin, count)))),
            )
            window, _ = self._fitting(parts.window(kept, count), self._begun, excess)
        text, ids = self._begun(window)
        return Row(Pair(ids), len(whole[1]) - len(ids), text=text)

    def _begun(self, conversation: Conversation) -> tuple[str, list[int]]:
        text = self.chats.begun(*messages_of(self.chats, conversation))
        return text, self.chats.read(text)

    def _end(self, parts: _Parts, begin: int, done: int) -> int:
        """The exchange up to which a window fits; `done` where not even the next one does."""
        ends = range(done + 1, len(parts.exchanges) + 1)
        fit = bisect_right(
            ends, 0, key=lambda end: self._excess(self._pairs(parts.window(begin, end, done)))
        )
        return done + fit

    def _shared(self, parts: _Parts, begin: int, done: int) -> int:
        """Where the next window begins, so that what it shares fits into half of one."""
        most = limited(self.model.room(0), self.max_tokens)
        assert most is not None, "all fits where there is no limit"
        while begin < done:
            shared = self.chats.whole(*messages_of(self.chats, parts.window(begin, done)))
            if 2 * len(self.chats.read(shared)) <= most:
                break
            begin += 1
        return begin

    def _fitting(
        self,
        window: Conversation,
        read: Callable[[Conversation], Any],
        excess: Callable[[Any], int],
    ) -> tuple[Conversation, int]:
        """A window with its longest messages cut until it fits, and how many tokens were cut."""
        cut = 0
        while (over := excess(read(window))) > 0:
            spelt = {
                at: self.chats.tokens.plain(turn.content)
                for at, turn in enumerate(window.turns)
                if turn.role in ("user", "tool")
            }
            at = max(spelt, key=lambda at: len(spelt[at]))
            keep = len(spelt[at]) - over
            if not self.cuts or keep < 1:
                raise DataError(self._too_long(window, over))
            turn = replace(window.turns[at], content=self.chats.tokens.text(spelt[at][:keep]))
            window = replace(window, turns=(*window.turns[:at], turn, *window.turns[at + 1 :]))
            cut += over
        return window, cut

    def _too_long(self, window: Conversation, over: int) -> str:
        first = next(turn.content for turn in window.turns if turn.role == "user")
        system = ", with the system's message," if window.turns[0].role == "system" else ""
        mend = f"shorten it, or cut what is not the assistant's with `task.truncate: {self.column}`"
        if self.cuts:
            mend = "more than may be cut of it; shorten the assistant's or the system's message"
        return (
            f"the exchange that begins with {first[:40]!r}{system} has {over} tokens more than fit "
            f"into a window; {mend}"
        )

    def _excess(self, pairs: Sequence[Pair]) -> int:
        """How many tokens are too many in the longest of some rows; none where that is not
        positive."""
        decodes = self.model.backbone.geometry.kind == "decoder"
        over = []
        for pair in pairs:
            room = self.model.room(len(pair.target))
            own = self.max_tokens
            if own is not None and decodes:
                own -= len(pair.target)
            most = limited(room, own)
            over.append(0 if most is None else len(pair.source) - most)
        return max(over, default=0)

    def _pairs(self, conversation: Conversation) -> list[Pair]:
        """Rows of a conversation, however long."""
        messages, tools = messages_of(self.chats, conversation)
        spoken = {
            number: self.chats.spoken(messages[: number + 1], tools)
            for number in conversation.answered
        }
        rows: list[tuple[int, Pair]] = []
        left = list(spoken)
        while left:
            pair, members = self._row({number: spoken[number] for number in left})
            rows.append((members[0], pair))
            left = [number for number in left if number not in members]
        return [pair for _, pair in sorted(rows, key=lambda row: row[0])]

    def _row(self, spoken: Mapping[int, Spoken]) -> tuple[Pair, list[int]]:
        """The last of some turns, with those of the others that stand in its text as they are."""
        *others, last = spoken
        chats, final = self.chats, spoken[last]
        if not final.closed or not self.model.placement.holds_turns:
            return _alone(chats, final), [last]
        try:
            ids, spans = chats.aligned(final.text)
        except (DataError, NotImplementedError):  # it cannot be told where tokens stand
            return _alone(chats, final), [last]
        begins = [begin for begin, _ in spans]
        starts = {}
        for number in (last, *others):
            turn = spoken[number]
            at = _at(spans, begins, turn) if final.text.startswith(turn.text) else None
            if at is not None and turn.closed and ids[:at] == chats.read(turn.before):
                starts[number] = at
        if last not in starts:
            return _alone(chats, final), [last]
        members, first = sorted(starts), min(starts.values())
        stretches = [piece for number in members for piece in spoken[number].stretches]
        pair = Pair(ids[:first], ids[first:], between=_unpredicted(spans[first:], stretches))
        return pair, members


@dataclass(frozen=True)
class _Parts:
    """A conversation in exchanges, each begun by the user, behind the system's message."""

    conversation: Conversation
    system: tuple[Turn, ...]
    exchanges: tuple[tuple[Turn, ...], ...]

    @classmethod
    def of(cls, conversation: Conversation) -> _Parts:
        turns = conversation.turns
        begins = [at for at, turn in enumerate(turns) if turn.role == "user"]
        ends = [*begins[1:], len(turns)]
        pieces = zip(begins, ends, strict=True)
        return cls(
            conversation,
            turns[: begins[0]],
            tuple(turns[begin:end] for begin, end in pieces),
        )

    def window(self, begin: int, end: int, done: int = 0) -> Conversation:
        """Some exchanges behind the system's message; those before `done` were trained before."""
        turns = list(self.system)
        for number in range(begin, end):
            own = self.exchanges[number]
            turns += [replace(turn, trained=False) for turn in own] if number < done else own
        return replace(self.conversation, turns=tuple(turns))


def messages_of(chats: Chats, conversation: Conversation) -> tuple[list[dict[str, Any]], list[Any]]:
    """Messages and tools as a chat template takes them; calls as text where it shows none.

    Raises:
        BackboneError: there are tools, of which the template shows nothing.
    """
    tools = parse_json(conversation.tools) if conversation.tools else []
    source = chats.source(tools)
    if tools and "tools" not in source:
        raise BackboneError(
            "task.data.tools: the chat template shows no tools; leave the column out, or say in "
            "the system's message what may be called"
        )
    shows_calls = "tool_calls" in source
    return [_message(turn, shows_calls) for turn in conversation.turns], tools


def _message(turn: Turn, shows_calls: bool) -> dict[str, Any]:
    others = turn.others
    if shows_calls or "tool_calls" not in others:
        return {"role": turn.role, "content": turn.content, **others}
    del others["tool_calls"]
    return {"role": turn.role, "content": turn.text, **others}


def _alone(chats: Chats, spoken: Spoken) -> Pair:
    """A turn in a row of its own, tokenised as it is written: after all that is read before it."""
    source, target = chats.read(spoken.before), chats.written(spoken)
    if len(spoken.stretches) == 1:
        return Pair(source, target)
    start = spoken.stretches[0][0]
    own = [(begin - start, end - start) for begin, end in spoken.stretches]
    return Pair(source, target, between=_unpredicted(chats.tokens.spans(spoken.turn, target), own))


def _at(spans: Sequence[Stretch], begins: Sequence[int], spoken: Spoken) -> int | None:
    """The token with which a turn begins; None where one stands across its beginning or end."""
    places = [_boundary(spans, begins, char) for char in (spoken.stretches[0][0], len(spoken.text))]
    return None if None in places else places[0]


def _boundary(spans: Sequence[Stretch], begins: Sequence[int], char: int) -> int | None:
    at = bisect_left(begins, char)
    return at if at == 0 or spans[at - 1][1] <= char else None


def _unpredicted(spans: Sequence[Stretch], stretches: Sequence[Stretch]) -> tuple[Stretch, ...]:
    """Stretches of tokens that cover no character of what is predicted."""
    ranges: list[list[int]] = []
    for at, (begin, end) in enumerate(spans):
        if any(begin < last and end > first for first, last in stretches):
            continue
        if ranges and ranges[-1][1] == at:
            ranges[-1][1] = at + 1
        else:
            ranges.append([at, at + 1])
    return tuple((begin, end) for begin, end in ranges)
