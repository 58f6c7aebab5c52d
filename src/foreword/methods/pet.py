"""PET (Schick & Schütze 2021, "Exploiting Cloze Questions for Few Shot Text Classification and
Natural Language Inference"): a procedure over patterns and label words.

Each pattern turns a text into a cloze question, and a language model is tuned on a few labelled
examples of it, several times. All of them together label examples that have no label, softly, and a
classifier with a head learns from these (sections 3.1 to 3.4). With `generations`, each model first
learns anew from what others have labelled, several times, from more examples each time (iPET,
section 3.5). The recipe's `task` and `training` say the classifier; what is here, the models that
teach it.

Defaults are the paper's (section 4 and its appendix B): three models a pattern, 1,000 steps where
masked words of unlabelled examples are predicted too, with a weight of 1e-4, batches of 4 labelled
and 12 unlabelled examples, a rate of 1e-5; patterns weighted by their accuracy before training;
temperature 2; the classifier 5,000 steps of 16. iPET: five times as many examples in each
generation, labelled by a quarter of the other models; as many generations as it takes until each
model learns from 1,000 examples, which are 3 for 10 labelled examples and 2 for 100 (the authors'
code: 3).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from foreword.common.bounds import Many, Rate, Rows, Some, Temperature
from foreword.methods.axes import Data, Full, LabelWords, RandomInit
from foreword.methods.base import DeltaOptions, method


class Pattern(Data):
    """A cloze question, and what its answers mean."""

    input: str = Field(min_length=1, description="template of it, or of its first text")
    second: str | None = Field(
        None, min_length=1, description="template of a second text; one of the two has the {mask}"
    )
    words: LabelWords | None = Field(
        None, min_length=2, description="label words of this pattern alone"
    )

    @property
    def texts(self) -> tuple[str, ...]:
        """Its templates."""
        return (self.input,) if self.second is None else (self.input, self.second)

    def __str__(self) -> str:
        return " | ".join(self.texts)


PatternChoice = Annotated[
    Pattern,
    BeforeValidator(
        lambda given: {"input": given} if isinstance(given, str) else given,
        json_schema_input_type=str | Pattern,
    ),
]
"""A pattern; a plain text is its template."""


@method
class PET(DeltaOptions):
    """Options of PET."""

    paper: ClassVar[str] = "Schick & Schütze 2021"
    training_defaults: ClassVar[dict[str, Any]] = {
        "steps": 5000,
        "batch_size": 16,
        "learning_rate": 1e-5,
        "schedule": "linear",
        "warmup": 0.0,
        "weight_decay": 0.01,
    }

    name: Literal["pet"]
    init: RandomInit = RandomInit()
    patterns: tuple[PatternChoice, ...] = Field(
        min_length=1,
        description="templates with a {mask}, where the label's word is read; or, of each, `input`,"
        " `second` and `words`",
    )
    words: LabelWords | None = Field(
        None,
        min_length=2,
        description="label -> the word that stands for it, or several; of patterns without words of"
        " their own",
    )
    models: int = Field(3, ge=1, le=1000, description="how many are tuned for each pattern")
    tuned: Literal["fine-tuning", "fine-tuning-top", "bitfit", "adapter", "lora"] = Field(
        "fine-tuning", description="what of a model moves"
    )
    steps: Many = Field(1000, description="optimizer steps of each model")
    batch_size: Rows = Field(4, description="labelled examples in each")
    learning_rate: Rate = Field(1e-5, description="of each model")
    mlm_weight: float = Field(
        1e-4, ge=0, lt=1, description="of the loss on masked words of unlabelled examples"
    )
    mlm_batch_size: Rows = Field(12, description="unlabelled examples in each step")
    weighting: Literal["accuracy", "uniform"] = Field(
        "accuracy",
        description="how much a pattern counts: its accuracy on the labelled examples before"
        " training, or all alike",
    )
    temperature: Temperature = Field(2.0, description="that softens what the classifier learns")
    unlabelled: Some = Field(10_000, description="most examples that are labelled softly")
    generations: int = Field(
        0, ge=0, le=1000, description="iPET's; the paper: until a model learns from 1,000 examples"
    )
    growth: float = Field(
        5.0, gt=1, le=1e6, description="by which a generation's training set grows"
    )
    teachers: float = Field(
        0.25, gt=0, le=1, description="share of the other models that label for one"
    )

    @field_validator(
        "patterns", mode="before", json_schema_input_type=str | tuple[PatternChoice, ...]
    )
    @classmethod
    def _one_or_several(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str | dict) else given

    @model_validator(mode="after")
    def _every_pattern_has_words(self) -> PET:
        labels = self.labels
        for pattern in self.patterns:
            words = pattern.words or self.words
            if words is None:
                raise ValueError(
                    f"`patterns`: {str(pattern)!r} has no words; give it `words`, or give them to "
                    "all as `method.words`"
                )
            if set(words) != set(labels):
                raise ValueError(
                    f"`patterns`: {str(pattern)!r} has words for {', '.join(words)}, others for "
                    f"{', '.join(labels)}; each pattern needs words for the same labels"
                )
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that have words, as the first pattern names them."""
        return tuple(self.words or self.patterns[0].words or ())

    @property
    def templates(self) -> tuple[str, ...]:
        """Those of the patterns."""
        return tuple(text for pattern in self.patterns for text in pattern.texts)

    def words_of(self, pattern: Pattern) -> dict[str, tuple[str, ...]]:
        """Label -> words, of a pattern."""
        return pattern.words or self.words or {}

    @property
    def moves(self) -> Full:
        """The classifier is tuned as a whole."""
        return Full()
