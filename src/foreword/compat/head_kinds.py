"""The heads that PEFT trains beside a prompt or LoRA, by task type."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Answer = Literal["label", "labels", "number", "tags", "span"]

POOLED = ("bert", "albert")
"""Their sequence heads read the base model's pooler."""
DENSE = ("roberta", "xlm-roberta", "camembert")
"""Their sequence heads bring a layer with tanh of their own."""
PLAIN = (*POOLED, *DENSE, "electra", "distilbert")
"""Encoders whose token and span heads are one linear layer on the states, as all decoders' are."""


@dataclass(frozen=True)
class HeadKind:
    """A kind of head.

    Attributes:
        answer: what it tells.
        modules: what transformers' classes call it.
        encoders: the encoders whose head of this kind is known.
        of_one_state: whether it reads one state for the whole text, of which families have their
            own way, instead of every token's.
        of_places: whether its answers are places in the text; it has no labels then, and what joins
            two texts does not tell them apart in PEFT.
    """

    answer: Answer
    modules: tuple[str, ...] = ("classifier", "score")
    encoders: tuple[str, ...] = PLAIN
    of_one_state: bool = False
    of_places: bool = False

    def reads_pooler(self, family: str) -> bool:
        """Whether an encoder's head of this kind reads the base model's pooler."""
        return self.of_one_state and family in POOLED

    def is_dense(self, family: str) -> bool:
        """Whether an encoder's head of this kind brings a layer with tanh of its own."""
        return self.of_one_state and family in DENSE


SEQUENCES = HeadKind("label", encoders=(*POOLED, *DENSE), of_one_state=True)
PROBLEMS = {
    "single_label_classification": SEQUENCES,
    "multi_label_classification": replace(SEQUENCES, answer="labels"),
    "regression": replace(SEQUENCES, answer="number"),
}
"""What transformers calls the problem of a sequence classifier (`problem_type`) -> its head."""
TOKENS = HeadKind("tags")
SPANS = HeadKind("span", ("qa_outputs",), of_places=True)
HEADS = {"SEQ_CLS": SEQUENCES, "TOKEN_CLS": TOKENS, "QUESTION_ANS": SPANS}
"""Task type -> the head that PEFT trains beside all else."""


def of_problem(problem: str | None, outputs: int) -> HeadKind:
    """A sequence classifier's head, as transformers decides it: one output is a number, of several
    one label is right, unless the config says otherwise.

    Args:
        problem: `problem_type` of the model's config.
        outputs: of the head.

    Raises:
        ValueError: no head does that.
    """
    usual = "single_label_classification" if outputs > 1 else "regression"
    kind = PROBLEMS[problem or usual]
    if (kind.answer == "number") != (outputs == 1):
        count = f"{outputs} outputs" if outputs > 1 else "1 output"
        raise ValueError(f"its problem type is {problem}, but its head has {count}")
    return kind


def modules_of(task_type: str) -> tuple[str, ...]:
    """The modules that PEFT trains and stores beside all else, by their names."""
    kind = HEADS.get(task_type)
    return () if kind is None else kind.modules
