"""The teacher answers a data file's own inputs, where an instruction is to be compressed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from foreword.common import files
from foreword.common.json_text import parse_json
from foreword.data import Example
from foreword.data.conversation import Turn
from foreword.data.lines import text_lines
from foreword.errors import RunError, UserError
from foreword.procedures.distilling.study import answers_of
from foreword.procedures.distilling.teacher import Teacher
from foreword.recipe.teacher import TeacherSpec
from foreword.tasks import Task


def answered(
    teacher: Teacher,
    task: Task,
    examples: Sequence[Example],
    spec: TeacherSpec,
    seed: str,
    file: Path,
    advance: Callable[[int], None] = lambda _: None,
    *,
    stop: tuple[str, ...] = (),
) -> list[Example]:
    """Examples with what a teacher answers in place of their references; those to which it answers
    nothing are left out.

    Args:
        teacher: has read the instruction.
        task: one that writes.
        examples: their references are not looked at.
        spec: the recipe's section.
        seed: of everything that is drawn.
        file: JSONL, where answers are kept; those that are there are not written again. A person
            may edit them.
        advance: called with the number of examples that are done.
        stop: words before which an answer ends.

    Raises:
        UserError: the file holds answers to other inputs.
        RunError: nothing is answered, or the file cannot be written.
    """
    lines = [task.input_line(example) for example in examples]
    rows = _read(file) if file.exists() else []
    if [row["input"] for row in rows] != lines[: len(rows)]:
        raise UserError(
            f"{file}: holds answers to other inputs than the data gives now, so the run cannot go "
            "on; put the old data back, or start a new run"
        )
    advance(len(rows))
    while len(rows) < len(examples):
        start = len(rows)
        some = examples[start : start + spec.together]
        seeds = [
            random.Random(f"{seed}/{number}").getrandbits(31)
            for number in range(start, start + len(some))
        ]
        texts = answers_of(teacher, [unanswered(one) for one in some], seeds, spec, stop)
        inputs = lines[start : start + len(some)]
        rows += [{"input": line, "answer": text} for line, text in zip(inputs, texts, strict=True)]
        written = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        files.write_text(file, written)
        advance(len(some))
    pairs = [(one, row["answer"]) for one, row in zip(examples, rows, strict=True) if row["answer"]]
    if examples and not pairs:
        raise RunError(f"{file}: the teacher answers nothing to any input; look at teacher.prompt")
    return [_with_answer(example, answer) for example, answer in pairs]


def unanswered(example: Example) -> Example:
    """An example of a conversation up to its last answer; others as they are."""
    conversation = example.conversation
    if conversation is None:
        return example
    return replace(example, conversation=conversation.asked)


def _with_answer(example: Example, answer: str) -> Example:
    conversation = example.conversation
    if conversation is not None:
        before = conversation.asked
        earlier = tuple(replace(turn, trained=False) for turn in before.turns)
        conversation = replace(before, turns=(*earlier, Turn("assistant", answer)))
    return replace(example, references=(answer,), conversation=conversation)


def _read(file: Path) -> list[dict[str, str]]:
    rows = []
    for number, line in text_lines(file):
        try:
            row = parse_json(line)
            rows.append({"input": str(row["input"]), "answer": str(row["answer"])})
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{file}, line {number}: expected an object with `input` and `answer`; put the file"
                " back, or start a new run"
            ) from error
    return rows
