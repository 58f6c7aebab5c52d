"""Self-study: the backbone asks itself about a text, and answers with the text before it.

Conversations are made in rounds. In each the teacher reads a part of the text, drawn at random, and
writes several questions of kinds drawn at random; then it reads all of the text, or as many parts
as fit, and answers them. A round depends on the recipe's seed and its own number alone, and the
file is written after each: a run that was stopped goes on with the next one.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from foreword.backbone import Backbone, Decoding
from foreword.common import files
from foreword.common.json_text import parse_json
from foreword.common.progress import Progress
from foreword.data.conversation import Conversation, spoken_by_user
from foreword.data.example import Example
from foreword.data.lines import json_row, show, text_lines
from foreword.data.messages import conversation_of
from foreword.errors import DataError, RunError
from foreword.procedures.distilling.seeds import (
    ABOUT_PROMPT,
    ABOUT_TEXT,
    OPENINGS_ABOUT_PROMPT,
    OPENINGS_ABOUT_TEXT,
)
from foreword.procedures.distilling.source import Source
from foreword.procedures.distilling.teacher import Teacher
from foreword.recipe.teacher import MESSAGES, Kind, TeacherSpec
from foreword.tasks import Task
from foreword.tasks.decoding import Writing, decode_rows

FORMAT = 1
"""Of what a round makes: another number where the same recipe makes other conversations."""
SAVED_EVERY, GROWTH = 60.0, 16
"""The file is written whole: each minute, or once a sixteenth of it is to be added. A run that is
killed makes the rounds since then again, with the same bits."""
EMPTY_ROUNDS = 20
"""Rounds without a conversation, one after the other, after which no more are made."""
_PROBE = "foreword"


class Study:
    """Makes conversations about a text.

    Args:
        spec: the recipe's section.
        seed: the recipe's.
        source: the text.
        task: of conversations.
        backbone: asks and answers.
        teacher: from parts of the text to the backbone that has read them.
        progress: told what is done.
        check: called between passes; what it raises ends the work.
    """

    def __init__(
        self,
        spec: TeacherSpec,
        seed: int,
        source: Source,
        task: Task,
        backbone: Backbone,
        teacher: Callable[[tuple[int, ...]], Teacher],
        progress: Progress,
        check: Callable[[], None],
    ) -> None:
        self.spec, self.seed, self.source, self.teacher = spec, seed, source, teacher
        self.progress, self.check = progress, check
        chats = task.chats(backbone)
        assert chats is not None, "the recipe's rules say so"
        self.chats, self.ends = chats, chats.template is None

    def make(
        self,
        file: Path,
        name: str,
        count: int,
        *,
        other_than: Sequence[str] = (),
        seconds: float | None = None,
        keep: Callable[[], None] = lambda: None,
    ) -> list[dict[str, Any]]:
        """Write a file of conversations, or go on with one.

        Args:
            file: JSONL, a conversation a line; see `row_of`.
            name: of the set; its rounds have seeds of their own.
            count: how many conversations.
            other_than: questions that are left out.
            seconds: after so many no further round is begun, once there is one.
            keep: called after each round.

        Raises:
            RunError: the backbone writes no questions, or no answers.
        """
        rows = read_rows(file) if file.exists() else []
        number = 1 + max((int(row["round"]) for row in rows), default=-1)
        before = {*other_than, *(row[MESSAGES][0]["content"] for row in rows)}
        began, empty = time.monotonic(), 0
        saved, at = len(rows), began
        self.progress.begin(f"make {name} conversations", count, len(rows))
        try:
            while len(rows) < count:
                if rows and seconds is not None and time.monotonic() - began >= seconds:
                    break
                self.check()
                new = _unasked(self.round(name, number), before, count - len(rows))
                empty = 0 if new else empty + 1
                if empty == EMPTY_ROUNDS:
                    raise self._nothing_new(len(rows), count)
                rows += new
                number += 1
                now = time.monotonic()
                if len(rows) - saved >= max(1, saved // GROWTH) or now - at >= SAVED_EVERY:
                    files.write_text(file, lines_of(rows))
                    saved, at = len(rows), now
                keep()
                self.progress.advance(len(new))
        finally:
            if len(rows) > saved:
                files.write_text(file, lines_of(rows))
        return rows

    def _nothing_new(self, made: int, count: int) -> RunError:
        return RunError(
            f"teacher: the backbone wrote no new question with an answer in {EMPTY_ROUNDS} rounds "
            f"of {self.spec.together}; {made} conversations were made of {count}. Ask for fewer "
            "(teacher.made), or give conversations in a file (teacher.conversations)"
        )

    def round(self, name: str, number: int) -> list[dict[str, Any]]:
        """The conversations of one round, those without a question or an answer left out."""
        rng = random.Random(f"{self.seed}/{name}/{number}")
        focus = rng.randrange(len(self.source.chunks))
        kinds = [rng.choice(self.spec.kinds) for _ in range(self.spec.together)]
        teacher = self.teacher((focus,))
        begun = [self._asking(teacher, kind, rng) for kind in kinds]
        texts = decode_rows([writing for writing, _ in begun], batch_size=self.spec.together)
        questions = [
            (kind, question)
            for kind, (_, opening), text in zip(kinds, begun, texts, strict=True)
            if (question := _question(opening, text))
        ]
        self.check()
        reads = self.source.read(focus, rng)
        answers = self.answers(
            self.teacher(reads),
            [Example({}, conversation=spoken_by_user(question)) for _, question in questions],
            [rng.getrandbits(31) for _ in questions],
        )
        return [
            row_of(question, answer, kind=kind, reads=reads, round=number)
            for (kind, question), answer in zip(questions, answers, strict=True)
            if answer
        ]

    def answers(
        self, teacher: Teacher, examples: Sequence[Example], seeds: Sequence[int]
    ) -> list[str]:
        """What a teacher answers."""
        # A model that knows no conversations does not end a turn: the user's next one does.
        stop = () if self.ends else (f"\n{self._user().strip()}",)
        return answers_of(teacher, examples, seeds, self.spec, stop)

    def _asking(self, teacher: Teacher, kind: Kind, rng: random.Random) -> tuple[Writing, str]:
        """What makes a model write a question, and the words that the question begins with."""
        spec, learns = self.spec, self.spec.prompt is None
        if spec.asks == "requests":
            request = rng.choice((ABOUT_TEXT if learns else ABOUT_PROMPT)[kind])
            example = Example({}, conversation=spoken_by_user(request))
            source = teacher.source(example, spec.question_tokens)
            how = drawn(spec.question_tokens, spec.temperature)
            return Writing(teacher.model, source, how, rng.getrandbits(31)), ""
        opening = rng.choice((OPENINGS_ABOUT_TEXT if learns else OPENINGS_ABOUT_PROMPT)[kind])
        how = drawn(spec.question_tokens, spec.temperature, stop=("\n",))
        return Writing(teacher.model, teacher.continued(opening), how, rng.getrandbits(31)), opening

    def _user(self) -> str:
        """What the chat template puts before what a user says."""
        begun = self.chats.begun([{"role": "user", "content": _PROBE}])
        return begun[: begun.index(_PROBE)]


def _unasked(made: Sequence[dict[str, Any]], before: set[str], most: int) -> list[dict[str, Any]]:
    """The first conversations whose questions did not stand before; they do from now on."""
    new: list[dict[str, Any]] = []
    for row in made:
        question = row[MESSAGES][0]["content"]
        if question not in before and len(new) < most:
            before.add(question)
            new.append(row)
    return new


def answers_of(
    teacher: Teacher,
    examples: Sequence[Example],
    seeds: Sequence[int],
    spec: TeacherSpec,
    stop: tuple[str, ...] = (),
) -> list[str]:
    """What a teacher answers to examples of a task that writes, each drawn by a seed of its own."""
    how = drawn(spec.answer_tokens, spec.answer_temperature, stop)
    writings = [
        Writing(teacher.model, teacher.source(example, spec.answer_tokens), how, seed)
        for example, seed in zip(examples, seeds, strict=True)
    ]
    texts = decode_rows(writings, batch_size=spec.together)
    return [teacher.task.bare_answer(text).strip() for text in texts]


def drawn(tokens: int, temperature: float, stop: tuple[str, ...] = ()) -> Decoding:
    """How the teacher writes so many tokens; the likeliest ones at a temperature of 0."""
    if not temperature:
        return Decoding(max_new_tokens=tokens, stop=stop)
    return Decoding(max_new_tokens=tokens, do_sample=True, temperature=temperature, stop=stop)


def row_of(
    question: str, answer: str, *, kind: str, reads: Sequence[int], round: int
) -> dict[str, Any]:
    """A line of a file of conversations: the messages, the parts of the text that the teacher reads
    (counted from 0), the kind of the question, and the round in which it was made."""
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]
    return {MESSAGES: messages, "kind": kind, "reads": list(reads), "round": round}


def lines_of(rows: Sequence[dict[str, Any]]) -> str:
    """Conversations as JSONL."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The conversations of a file that a run has begun.

    Raises:
        DataError: a line is no conversation that was made.
    """
    rows = []
    for number, line in text_lines(file):
        try:
            row = parse_json(line)
            row[MESSAGES][0]["content"], int(row["round"])
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise DataError(
                f"{file}, line {number}: is no conversation that was made; put the file back as it "
                "was, or start a new run with it as teacher.conversations"
            ) from error
        rows.append(row)
    return rows


def stated_reads(file: Path, column: str) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """The conversations of a file that say which parts of the text their teacher reads: where each
    stands, its key, and the parts.

    Raises:
        DataError: a line is no JSON object, or its `reads` is no list of whole numbers.
    """
    for number, line in text_lines(file):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        row = json_row(where, line)
        if row.get("reads") is None:
            continue
        reads = row["reads"]
        if not isinstance(reads, list) or not reads or any(type(one) is not int for one in reads):
            raise DataError(
                f"{where}, field 'reads': expected a list of the numbers of parts of the text, "
                f"such as [0, 2], found {show(reads)}"
            )
        conversation = conversation_of(where, column, row)
        yield where, conversation_key(conversation), tuple(reads)


def conversation_key(conversation: Conversation) -> str:
    """What tells conversations apart: who says what."""
    return json.dumps([[turn.role, turn.content] for turn in conversation.turns])


def _question(opening: str, text: str) -> str:
    """A question as it is asked: in one piece, without the quotes around all of it."""
    question = f"{opening} {text}".strip() if opening else text.strip()
    if opening and not text.strip():
        return ""
    if len(question) > 1 and question[0] == question[-1] == '"':
        question = question[1:-1].strip()
    return question
