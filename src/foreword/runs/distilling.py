"""A run that learns a text: what its teacher makes before the training, and measures after it.

Below the run's folder `study/` holds the conversations that are learned and those that are held out
(`conversations.jsonl`, `held-out.jsonl`), or the teacher's answers to the recipe's own inputs
(`answers.jsonl`, `held-out-answers.jsonl`); what the teacher says at each of their tokens
(`.safetensors` of the same names); and with a budget how much of it is spent (`budget.json`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from foreword.artifacts.manifest import TEACHER
from foreword.backbone import Backbone, seed_all
from foreword.backbone.layout import Pair
from foreword.common.progress import Progress
from foreword.data import Example
from foreword.errors import DataError
from foreword.evaluation.evaluate import Scores
from foreword.procedures.distilling import study
from foreword.procedures.distilling.answering import answered
from foreword.procedures.distilling.clock import Clock, seconds_of_a_step
from foreword.procedures.distilling.distributions import Lesson, taught
from foreword.procedures.distilling.kept import key_of_study, made_once, place_of_lessons
from foreword.procedures.distilling.measuring import (
    ATTENDING,
    DISTANCES,
    Distance,
    Rows,
    check_scored,
    distances,
    scores,
)
from foreword.procedures.distilling.reading import read_whole, refuse_other_text
from foreword.procedures.distilling.source import source_of
from foreword.procedures.distilling.study import Study, conversation_key
from foreword.procedures.distilling.teacher import Fronts, Teacher, check_can_teach
from foreword.procedures.distilling.texts import beginning
from foreword.recipe import Recipe, TeacherSpec
from foreword.recipe.teacher import MESSAGES
from foreword.runs.data import RunExamples, check_given, state_task
from foreword.runs.demonstrations import Shown
from foreword.runs.preparing import Prepared
from foreword.runs.student import check_room, check_start, readable, started
from foreword.tasks import BoundTask, task_of
from foreword.training.amount import total_steps
from foreword.tuned import TunedModel

FOLDER = "study"
MAKING = 0.4
"""Share of a budget after which no more conversations are made."""
MEASURING = 0.2
"""Share of a budget after which no more conversations are made to be measured on."""
SAFE = 0.9
"""Share of what is left of a budget that is given to training steps."""


@dataclass(frozen=True)
class Text:
    """What a teacher reads, from its files."""

    spec: TeacherSpec
    whole: str

    @classmethod
    def of(cls, recipe: Recipe) -> Text | None:
        """What the recipe's teacher reads, if it has one.

        Raises:
            DataError: a file cannot be read, is empty or is not UTF-8.
        """
        spec = recipe.teacher
        return None if spec is None else cls(spec, read_whole(spec.learned))


@dataclass(frozen=True)
class HeldOut:
    """An example that is measured on.

    Attributes:
        example: with the teacher's answer.
        reads: the parts of the text that the teacher reads.
        pairs: its rows, with what the teacher says.
    """

    example: Example
    reads: tuple[int, ...]
    pairs: list[Pair]


class Distillation:
    """One run that learns a text.

    Args:
        recipe: with a teacher.
        text: what the teacher reads.
        folder: the run's.
        backbone: the pretrained one.
        progress: told what is done.
        check: called in the midst of the work; what it raises ends it.

    Raises:
        UserError: the backbone cannot teach, or not one part of the text fits its context.
    """

    def __init__(
        self,
        recipe: Recipe,
        text: Text,
        folder: Path,
        backbone: Backbone,
        progress: Progress,
        check: Callable[[], None],
    ) -> None:
        check_can_teach(backbone)
        self.spec, self.text, self.backbone = text.spec, text.whole, backbone
        self.progress, self.check = progress, check
        self.recipe = readable(recipe, backbone, progress.say)
        self.folder = folder / FOLDER
        self.clock = Clock(self.folder / "budget.json", self.spec.seconds)
        self.makes = self.recipe.task.data.train is None
        self.task = task_of(state_task(self.recipe, RunExamples([], [], [], "dev", [])))
        self.fronts = Fronts(backbone, self.task, introduced=self.spec.prompt is None)
        method = started(recipe.method, self.fronts, self.text)
        check_room(method, self.spec, backbone, makes=self.makes)
        check_start(method, Shown(self.task, backbone, [], recipe.seed))
        self.recipe = self.recipe.model_copy(update={"method": method})
        self.source = source_of(self.text, self.spec, backbone, makes=self.makes, say=progress.say)
        self.read: dict[str, tuple[int, ...]] = {}
        if self.makes:
            data = self.recipe.task.data.model_copy(update={"train": self.spec.conversations})
            task = self.recipe.task.model_copy(update={"data": data})
            check_given(self.recipe.model_copy(update={"task": task}))
            for given in (data.train, data.dev):
                self.read |= {} if given is None else self._parts_read(Path(given))
        # A round reads one part, and then all: of both the keys and values stay at hand.
        self.teacher = lru_cache(maxsize=2)(self._teacher)
        self.lessons: list[Lesson] = []
        self.held_out: list[HeldOut] = []

    def filled(self) -> Recipe:
        """The recipe with the files of conversations, which are made here where they are not there
        yet.

        Raises:
            UserError: the run was begun with another text.
        """
        refuse_other_text(self.folder / "text.json", self.text)
        if not self.makes:
            return self.recipe
        data, spec = self.recipe.task.data, self.spec
        maker = Study(
            spec,
            self.recipe.seed,
            self.source,
            self.task,
            self.backbone,
            self.teacher,
            self.progress,
            self.check,
        )
        paths = {}
        questions: list[str] = []
        if data.dev is None and data.hold_out is None:
            held_out = self.folder / "held-out.jsonl"
            most, until = self._amount("held_out", MEASURING)
            rows = self._once(
                "held-out",
                held_out,
                [],
                lambda: maker.make(held_out, "held-out", most, seconds=until, keep=self.clock.keep),
            )
            self._settle("held_out", len(rows), "conversations to be measured on")
            questions = [row[MESSAGES][0]["content"] for row in rows]
            paths["dev"] = str(held_out)
        if spec.conversations is None:
            file = self.folder / "conversations.jsonl"
            count, seconds = self._amount("made", MAKING)

            def make() -> list[dict[str, Any]]:
                return maker.make(
                    file,
                    "training",
                    count,
                    other_than=questions,
                    seconds=seconds,
                    keep=self.clock.keep,
                )

            rows = self._once("training", file, questions, make)
            self._settle("made", len(rows), "conversations")
            paths["train"] = str(file)
        else:
            paths["train"] = spec.conversations
        for path in paths.values():
            if path != spec.conversations:
                self.read |= self._parts_read(Path(path))
        task = self.recipe.task.model_copy(update={"data": data.model_copy(update=paths)})
        return self.recipe.model_copy(update={"task": task})

    def _amount(self, option: str, share: float) -> tuple[int, float | None]:
        """How many conversations an option of the teacher asks for, and for how many seconds they
        are made; as many as a part of the run that was stopped has settled."""
        wanted, kept = int(getattr(self.spec, option)), self.clock.kept
        if option in kept:
            return min(wanted, int(kept[option])), None
        return wanted, self.clock.left(share)

    def _settle(self, option: str, made: int, what: str) -> None:
        """Write down how many conversations the budget left time for."""
        if made < (wanted := int(getattr(self.spec, option))):
            self.progress.say(f"note: teacher.budget leaves time for {made} of {wanted} {what}")
        self.clock.keep(**{option: made})

    def _once(
        self,
        name: str,
        file: Path,
        others: Sequence[str],
        make: Callable[[], list[dict[str, Any]]],
    ) -> list[dict[str, Any]]:
        """The conversations of a set, made once for all runs that would make the same; with a
        budget each run makes its own."""
        if self.clock.budget is not None:
            return make()
        key = key_of_study(
            self.spec,
            self.backbone,
            self.text,
            set=name,
            seed=self.recipe.seed,
            others=list(others),
            chat=[self.recipe.task.chat_template, self.recipe.task.chat_options],
        )
        rows, known = made_once(key, file, make)
        if known:
            self.progress.say(f"the {name} conversations were made before, by the same: not again")
        return rows

    def learned(self, ready: Prepared) -> Prepared:
        """What is trained, its rows with what their teachers say, and as many steps as the budget
        leaves time for.

        Raises:
            DataError: an example is too long behind the text, one of the test's, too.
        """
        limits = ready.recipe.task.limits
        train, dev = ready.data.train, ready.data.dev
        if not self.makes:
            for teacher in self._beside(ready.model).values():
                check_scored(teacher, ready.data.test, ready.how)
            train = self._answered("answers", train[: limits.train][: self.spec.made])
            dev = self._answered("held-out-answers", dev[: self.spec.held_out])
        name = "conversations" if self.makes else "answers"
        held_out = "held-out" if self.makes else "held-out-answers"
        self.lessons = _flat(self._lessons(ready.task, train))[: limits.train]
        pairs = self._taught(self.lessons, f"{name}.safetensors")
        lessons = self._lessons(ready.task, dev)
        rows = _flat(lessons)
        dev_pairs = self._taught(rows, f"{held_out}.safetensors") if rows else []
        left = iter(dev_pairs)
        self.held_out = [
            HeldOut(example, own[0].reads, [next(left) for _ in own])
            for example, own in zip(dev, lessons, strict=True)
            if own
        ]
        data = replace(ready.data, train=train, pairs=pairs, dev_pairs=dev_pairs)
        recipe = self._in_time(ready, pairs)
        seed_all(recipe.seed)  # whether something was made just now, or is there already
        return replace(ready, recipe=recipe, data=data)

    def measured(self, student: TunedModel, ready: Prepared) -> dict[str, Any]:
        """How far the student is from its teacher, beside what needs no training; what the teacher
        read; and of inputs with answers of their own the scores with the text before them."""
        by_text: dict[tuple[int, ...], list[HeldOut]] = {}
        for one in self.held_out:
            by_text.setdefault(one.reads, []).append(one)
        groups = [
            Rows(
                [one.example for one in some],
                [pair for one in some for pair in one.pairs],
                self.teacher(reads),
                self.source.text(reads),
            )
            for reads, some in by_text.items()
        ]
        some = self.lessons[:ATTENDING] if self.source.whole else []
        attending = [lesson.behind for lesson in some]
        measured: dict[str, Distance] = {}
        if groups:
            rows = sum(len(group.pairs) for group in groups)
            self.progress.begin("measure the distance from the teacher", rows * len(DISTANCES))
            measured = distances(student, groups, attending, self.fronts, self._advance)
        return {
            "text_tokens": len(self.backbone.tokens.plain(self.text)),
            "chunks": len(self.source.chunks),
            "conversations": len(self.lessons),
            "held_out": len(self.held_out),
            "top_k": self.spec.top_k,
            **{name: one.figures() for name, one in measured.items()},
            **({} if self.makes else {"scores": self._scores(student, ready)}),
        }

    def _scores(self, student: TunedModel, ready: Prepared) -> dict[str, Scores]:
        """The task's scores of those that answer beside the student."""
        teachers = self._beside(student)
        test, recipe = ready.data.test, ready.recipe
        self.progress.begin("measure with the text before the inputs", len(teachers) * len(test))
        size = recipe.evaluation.batch_size
        return {
            name: scores(one, test, ready.how, recipe.task.measured, size, self._advance)
            for name, one in teachers.items()
        }

    def _beside(self, student: TunedModel) -> dict[str, Teacher]:
        """Who answers the test's inputs beside the student: all of the text before each, and as
        many of its tokens as the student has."""
        teachers = {"text": self.teacher(tuple(range(len(self.source.chunks))))}
        if length := student.placement.length:
            cut = beginning(self.backbone.tokens, self.text, length)
            teachers["truncated"] = self.fronts.teacher(cut)
        return teachers

    def _advance(self, count: int) -> None:
        """So many are done; where somebody asked for it, the work ends here."""
        self.progress.advance(count)
        self.check()

    def _teacher(self, reads: tuple[int, ...]) -> Teacher:
        """The backbone that reads some parts of the text."""
        return self.fronts.teacher(self.source.text(reads))

    def _parts_read(self, file: Path) -> dict[str, tuple[int, ...]]:
        """By conversation, the parts of the text that its teacher reads, where the file says so."""
        parts = {}
        column = self.recipe.task.data.messages or MESSAGES
        for where, key, reads in study.stated_reads(file, column):
            unknown = [number for number in reads if not 0 <= number < len(self.source.chunks)]
            if unknown:
                raise DataError(
                    f"{where}, field 'reads': names part {unknown[0]} of the text, which has "
                    f"{len(self.source.chunks)}, counted from 0; they depend on teacher.chunk"
                )
            parts[key] = reads
        return parts

    def _reads(self, example: Example) -> tuple[int, ...]:
        conversation = example.conversation
        stated = None if conversation is None else self.read.get(conversation_key(conversation))
        if stated is not None:
            return stated
        if not self.source.whole:
            raise DataError(
                f"{example.where}: does not say which parts of the text the teacher reads, and not "
                f"all {len(self.source.chunks)} fit; give the column `reads`, such as [0, 2]"
            )
        return tuple(range(len(self.source.chunks)))

    def _lessons(self, task: BoundTask, examples: Sequence[Example]) -> list[list[Lesson]]:
        """The rows of each example."""
        lessons = []
        for example in examples:
            reads = self._reads(example)
            own = [row.pair for row in task.rows(example)]
            behind = self.teacher(reads).pairs(example)
            if [pair.predicted for pair in own] != [pair.predicted for pair in behind]:
                raise DataError(
                    f"{example.where}: is read in other windows behind the teacher's text than "
                    "without it; shorten it"
                )
            pairs = zip(own, behind, strict=True)
            lessons.append([Lesson(pair, other, reads) for pair, other in pairs])
        return lessons

    def _taught(self, lessons: Sequence[Lesson], name: str) -> list[Pair]:
        self.progress.begin("ask the teacher", len(lessons))
        k = self.spec.top_k
        return taught(
            lessons,
            self.teacher,
            k,
            self.folder / name,
            self._advance,
            remembered=place_of_lessons(lessons, k, self.backbone.device.type),
        )

    def _answered(self, name: str, examples: Sequence[Example]) -> list[Example]:
        """Examples with the teacher's answers in place of their own."""
        self.progress.begin("answer the inputs", len(examples))
        return answered(
            self.teacher(tuple(range(len(self.source.chunks)))),
            self.task,
            examples,
            self.spec,
            f"{self.recipe.seed}/{name}",
            self.folder / f"{name}.jsonl",
            self._advance,
            stop=self.recipe.decoding.stop,
        )

    def _in_time(self, ready: Prepared, pairs: Sequence[Pair]) -> Recipe:
        """The recipe with as many steps as there is time for."""
        recipe = ready.recipe
        if self.clock.budget is None or not pairs:
            return recipe
        wanted = total_steps(recipe.training, len(pairs))
        steps = self.clock.kept.get("steps")
        if steps is None:
            seconds = seconds_of_a_step(ready.model, pairs, recipe.training)
            left = self.clock.left() or 0.0
            steps = max(1, min(wanted, int(SAFE * left / seconds)))
            self.clock.keep(steps=steps)
        if steps < wanted:
            self.progress.say(
                f"note: teacher.budget leaves time for {steps:,} of {wanted:,} training steps"
            )
        training = recipe.training.model_copy(update={"steps": int(steps), "epochs": None})
        return recipe.model_copy(update={"training": training})


def divergences(measured: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Of what was measured of a student what its artifact says of itself; nothing of other runs."""
    named = {name: one["kl"] for name, one in measured.items() if name in DISTANCES}
    return {TEACHER: named} if named else {}


def _flat(lessons: Sequence[Sequence[Lesson]]) -> list[Lesson]:
    return [lesson for own in lessons for lesson in own]
