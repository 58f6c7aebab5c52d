"""The `task` section of a recipe: what goes in, and what is asked."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from foreword import names
from foreword.common.bounds import Setting, Share, Tokens
from foreword.common.choices import Data
from foreword.errors import TemplateError
from foreword.methods.axes import LabelWords
from foreword.recipe.data import DataSpec, Limits
from foreword.recipe.heads import HeadSpec
from foreword.recipe.vectors import OF_SCORES, VectorSpec, metric_rule
from foreword.templates.named import CHAT_TEMPLATES, ChatTemplateName
from foreword.templates.template import Template


class MessageSpec(Data):
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str = Field(description="template, with {field} slots")


InputSpec = Annotated[
    Annotated[str, Tag("<text>")]
    | Annotated[tuple[MessageSpec, ...], Field(min_length=1), Tag("<messages>")],
    Discriminator(lambda value: "<messages>" if isinstance(value, list | tuple) else "<text>"),
]


Threshold = Annotated[
    Annotated[Literal["per_label", "shared"], Tag("<name>")] | Annotated[Share, Tag("<number>")],
    Discriminator(lambda value: "<name>" if isinstance(value, str) else "<number>"),
]


WindowPool = Literal["mean", "max"]


def answers_by_head(
    answer: names.Answer, verbalizer: VerbalizerSpec | None, choice: ChoiceSpec
) -> bool:
    """Whether a trained layer answers."""
    chosen = answer == "choice" and choice.by == "head"
    return verbalizer is None and (names.ANSWERS[answer].head or chosen)


def written_input(spec: InputSpec) -> str | list[dict[str, str]]:
    """An input as it stands in YAML: a text, or messages as plain mappings."""
    return spec if isinstance(spec, str) else [message.model_dump() for message in spec]


CHOICE = "choice"
"""The field of an input that stands for one of a row's choices."""
RIGHT_WRONG = ("right", "wrong")
"""What label words tell of a choice."""


class ChoiceSpec(Data):
    """How one of a row's own choices is chosen."""

    by: Literal["likelihood", "head"] = Field(
        "likelihood",
        description="what scores a choice: how likely the backbone finds it after the input, or a"
        " head that reads the input with it; `task.verbalizer` takes their place where it is given",
    )
    normalise: Literal["none", "tokens", "characters"] = Field(
        "none", description="what a log-likelihood is divided by"
    )
    objective: Literal["discriminative", "generative"] = Field(
        "discriminative",
        description="what is trained by likelihood: the right choice's share among all of a row, or"
        " its own tokens alone",
    )
    select: Literal["one", "several"] = Field(
        "one", description="whether one choice of a row is right, or any number of them"
    )


class VerbalizerSpec(Data):
    """Which words of the backbone's vocabulary stand for the labels, and how they are read."""

    words: LabelWords = Field(
        min_length=2, description="label -> the word that stands for it, or several"
    )
    order: Literal["joint", "max-first"] = Field(
        "joint",
        description="how a masked model reads a word of several tokens: all masks at once, or the"
        " surest token first and then the others again",
    )
    calibration: Literal["none", "content-free", "examples"] = Field(
        "none",
        description="what tells how probable each label is before anything is read, which is then"
        " taken off: inputs without content (N/A), or the training inputs",
    )


class TaskSpec(Data):
    """What goes in, what comes out, how it is measured."""

    data: DataSpec
    input: InputSpec = Field(
        "{record}\n",
        description="template of the source, with {field} slots; or messages for the tokenizer's"
        " chat template",
    )
    target: str = Field("{reference}", description="template of the target")
    chat_template: ChatTemplateName | None = Field(
        None,
        description="how messages become text, by name instead of by the tokenizer's own chat"
        " template; " + "; ".join(f"{name}: {one.what}" for name, one in CHAT_TEMPLATES.items()),
    )
    chat_options: dict[str, Setting] = Field(
        {},
        description="what the chat template is told beside the messages, such as"
        " `enable_thinking: false`",
    )
    limits: Limits = Limits()
    second: str | None = Field(
        None,
        min_length=1,
        description="template of a second text to classify with the first (a hypothesis); of"
        " `data.paired`: of the text that belongs to the first, by itself",
    )
    truncate: str | None = Field(
        None,
        description="field that is cut where an example is too long; without it: an error. Of a"
        " conversation: what is not the assistant's, where the last question is too long",
    )
    max_tokens: Tokens | None = Field(
        None,
        description="longest input, or of squad, conll and conversations the longest window of it,"
        " special tokens included; null: what the context holds",
    )
    labels: tuple[str, ...] | None = Field(
        None,
        min_length=2,
        description="all labels in their order; null: those of the training data",
    )
    head: HeadSpec = HeadSpec()
    choice: ChoiceSpec = ChoiceSpec()
    vector: VectorSpec = VectorSpec()
    threshold: Threshold = Field(
        "per_label",
        description="from which probability a label, or a choice, is told, where a row may have"
        " several: what is best for the F1 of the dev examples, of each label or shared by all; or"
        " a number between 0 and 1",
    )
    standardise: bool = Field(
        True,
        description="whether a head learns numbers less their mean, divided by their standard"
        " deviation, both of the training examples; answers are numbers as they stand in the data",
    )
    verbalizer: VerbalizerSpec | None = Field(
        None, description="label words, read where the input leaves room, instead of a head"
    )
    stride: Tokens = Field(
        128,
        description="tokens that neighbouring windows of a long context, sentence or text share (of"
        " a sentence or text at most half a window)",
    )
    windows: WindowPool | None = Field(
        None,
        description="labels: how windows of a text that is too long are told together, by the mean"
        " of their logarithms of probability or by the highest probability; null: the text is cut",
    )
    longest_answer: Tokens = Field(30, description="squad: most tokens of an answer")
    metrics: tuple[names.Metric, ...] | None = Field(
        None, description="what is measured; null: what is usual for the kind of task"
    )

    @property
    def measured(self) -> tuple[str, ...]:
        """The metrics, the usual ones where none are named."""
        if self.metrics is not None:
            return self.metrics
        if self.data.similarity is not None:
            return OF_SCORES
        return names.ANSWERS[self.answer].metrics

    @property
    def answer(self) -> names.Answer:
        """What the task asks for: a pattern with a mask and no label asks for the missing word."""
        stated = self.data.answer
        return "word" if stated == "text" and any(t.mask for t in self.templates) else stated

    @property
    def has_head(self) -> bool:
        """Whether a trained layer answers."""
        return answers_by_head(self.answer, self.verbalizer, self.choice)

    @property
    def loss_unit(self) -> str:
        """What a loss is a mean over, and what it is measured in."""
        kind = names.ANSWERS[self.answer]
        generative = self.choice.objective == "generative" and not self.has_head
        written = self.answer == "choice" and generative and self.verbalizer is None
        return f"{kind.loss} per {names.ANSWERS['text'].unit if written else kind.unit}"

    @property
    def templates(self) -> tuple[Template, ...]:
        """The texts of the input; none where they do not parse, or are messages."""
        second = None if names.ANSWERS[self.data.answer].apart else self.second
        return _parsed(self.input, second)

    @property
    def soft(self) -> int:
        """How many virtual tokens the input has slots for."""
        return sum(template.soft for template in self.templates)

    @model_validator(mode="after")
    def _rules(self) -> TaskSpec:
        answer = self.answer
        for metric in self.metrics or ():
            if (wrong := names.mismatch(metric, answer)) is not None:
                raise ValueError(f"metric {wrong}")
        kind = names.ANSWERS[answer]
        if not kind.labelled and self.labels is not None:
            raise ValueError("`labels` are for tasks with labels or tags")
        if not kind.whole and answer != "word" and self.second is not None:
            raise ValueError("`second` is for tasks with labels: give `data.label`")
        if self.limits.per_label is not None and answer != "label":
            raise ValueError("`limits.per_label` is for tasks with labels: give `data.label`")
        if self.head.pooler != "none" and not kind.whole:
            raise ValueError("`head.pooler` is for tasks with labels: give `data.label`")
        several = answer == "labels" or self.choice.select == "several"
        if self.threshold != "per_label" and not several:
            raise ValueError("`threshold` is for several labels a row: give `data.label_list`")
        if not self.standardise and answer != "number":
            raise ValueError("`standardise` is for numbers: give `data.number`")
        if isinstance(self.threshold, float) and not 0 < self.threshold < 1:
            raise ValueError(
                f"`threshold` is {self.threshold:g}; give a number between 0 and 1, `per_label` or "
                "`shared`"
            )
        if kind.apart:
            self._check_vector()
        elif self.vector != VectorSpec():
            raise ValueError("`vector` is for texts with others beside them: give `data.paired`")
        self._check_verbalizer()
        if answer == "choice":
            self._check_choice()
        elif self.choice != ChoiceSpec():
            raise ValueError("`choice` is for rows with choices: give `data.choices`")
        if self.windows is not None and answer not in ("label", "labels"):
            raise ValueError(
                "`windows` is for labels: give `data.label`; spans, tags and conversations are "
                "read in windows anyway"
            )
        self._check_messages()
        for name in ("messages", "tools", "documents", "add_generation_prompt"):
            if name in self.chat_options:
                raise ValueError(f"`chat_options` has {name!r}, which is set here; leave it out")
        return self

    def _check_messages(self) -> None:
        """Raise ValueError where what is of messages stands beside what is not."""
        if self.answer != "turns":
            for name in ("chat_template", "chat_options"):
                if getattr(self, name) and isinstance(self.input, str):
                    raise ValueError(
                        f"`{name}` is for messages: give `data.messages`, or `input` as a list of"
                        " messages"
                    )
            return
        for name in ("input", "target"):
            if getattr(self, name) != TaskSpec.model_fields[name].default:
                raise ValueError(
                    f"`{name}` is not read beside `data.messages`, whose column holds all that is"
                    " read and answered; leave it out"
                )
        if self.truncate not in (None, self.data.messages):
            raise ValueError(
                f"`truncate` is {self.truncate!r}, but a conversation is cut in the column of"
                f" `data.messages`: give {self.data.messages!r}, or leave it out"
            )

    def _check_vector(self) -> None:
        if (wrong := self.vector.broken(self.data.similarity)) is not None:
            raise ValueError(wrong)
        for metric in self.metrics or ():
            rule = metric_rule(metric, self.data.paired, self.data.similarity)
            if rule is not None:
                raise ValueError(f"metric {rule}")
        if self.head != HeadSpec():
            raise ValueError("`head` is not read where vectors are asked for: give `vector`")
        if self.target != TaskSpec.model_fields["target"].default:
            raise ValueError(
                "`target` is not read beside `data.paired`; `second` says how such a text is read"
            )
        if any(one.mask for one in _parsed(self.input, self.second)):
            raise ValueError("{mask} has no meaning where vectors are asked for; leave it out")
        softs = [sum(one.soft for one in _parsed(text)) for text in (self.input, self.second)]
        if softs[0] != softs[1]:
            raise ValueError(
                f"`input` has {softs[0]} {{soft}} slots and `second` {softs[1]}; both texts are "
                f"read with the same prompt, so give both as many"
            )

    def _check_choice(self) -> None:
        by_words, by_head = self.verbalizer is not None, self.has_head
        if self.head != HeadSpec() and not by_head:
            raise ValueError("`head` is not read where choices are scored by another: leave it out")
        if by_words or by_head:
            slots = {slot for template in self.templates for slot in template.slots}
            if isinstance(self.input, str) and self.templates and CHOICE not in slots:
                raise ValueError(
                    "`input` does not name {choice}, so all choices of a row would read the same; "
                    "put it into `input` or `second`"
                )
            if self.choice.normalise != "none" or self.choice.objective != "discriminative":
                raise ValueError(
                    "`choice.normalise` and `choice.objective` are for choices that are scored by "
                    "likelihood; leave them out"
                )
            return
        if self.choice.select == "several":
            raise ValueError(
                "`choice.select: several` needs choices to be judged one by one: give "
                "`choice.by: head`, or `verbalizer.words` for right and wrong"
            )
        if self.second is not None:
            raise ValueError(
                "`second` has no place where choices are scored by likelihood; put both texts into "
                "`input`"
            )

    def _check_verbalizer(self) -> None:
        masked = any(template.mask for template in self.templates)
        if not names.ANSWERS[self.data.answer].templates and (masked or self.soft):
            raise ValueError(
                f"`input` is not read for `format: {self.data.format}`, so it has no place for "
                "{soft} or {mask}; leave it out"
            )
        if self.verbalizer is None:
            if masked and names.ANSWERS[self.answer].whole:
                raise ValueError(
                    "`input` has a {mask}, but nothing says which words stand for the labels; give "
                    "`verbalizer.words`, or leave {mask} out and a head answers"
                )
            return
        if self.answer == "choice":
            if set(self.verbalizer.words) != set(RIGHT_WRONG) or self.choice.by == "head":
                raise ValueError(
                    "`verbalizer.words` of choices are of `right` and `wrong`, and take the place "
                    "of `choice.by`"
                )
            if self.verbalizer.calibration != "none":
                raise ValueError("`verbalizer.calibration` is for labels; leave it out")
        elif self.answer != "label":
            raise ValueError("`verbalizer` is for tasks with one label a row: give `data.label`")
        if "head" in self.model_fields_set and self.head != HeadSpec():
            raise ValueError("give either `verbalizer` or `head`")
        if self.labels is not None and set(self.labels) != set(self.verbalizer.words):
            raise ValueError(
                f"`labels` are {', '.join(self.labels)}, but `verbalizer.words` has words for "
                f"{', '.join(self.verbalizer.words)}; name the same, or leave `labels` out"
            )


def _parsed(*texts: InputSpec | None) -> tuple[Template, ...]:
    """Texts with slots; none where they do not parse, or are messages."""
    try:
        return tuple(Template.parse(text) for text in texts if isinstance(text, str))
    except TemplateError:
        return ()
