"""Where training starts, for each choice."""

import pytest
import torch

from foreword.errors import UserError
from foreword.methods import PromptTuning, axes
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose
from foreword.tuned.initial import initialise, vocabulary_tokens

LENGTH = 12


def started(mini, init: axes.Init) -> TunedModel:
    torch.manual_seed(0)
    model = compose(mini, PromptTuning(name="prompt-tuning", length=LENGTH, init=init))
    assert initialise(model, init, []) == 0.0
    return model


def table(mini) -> torch.Tensor:
    return mini.model.get_input_embeddings().weight


def rows_of(mini, rows: torch.Tensor) -> list[int]:
    """Which vocabulary entries these are."""
    found = (rows[:, None] == table(mini)[None]).all(-1)
    assert found.any(1).all()
    return found.int().argmax(1).tolist()


def test_uniform(mini) -> None:
    rows = started(mini, axes.UniformInit()).rows()
    assert rows.abs().max() <= 0.5
    assert rows.abs().max() > 0.45
    assert abs(rows.mean()) < 0.05


def test_vocabulary_draws_distinct_common_entries(mini) -> None:
    rows = started(mini, axes.VocabularyInit(most_common=300)).rows()
    ids = rows_of(mini, rows)
    assert len(set(ids)) == LENGTH
    assert max(ids) <= 300  # the special token 0 is left out
    assert 0 not in ids


def test_few_common_entries_repeat_only_when_all_are_used(mini) -> None:
    ids = vocabulary_tokens(mini, most_common=5, count=12)
    assert sorted(ids[:5]) == sorted(ids[5:10]) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("text", ["a robin", "a very long text about a robin in the old wall"])
def test_text_is_repeated_or_cut(mini, text) -> None:
    tokens = mini.tokens.plain(text)
    rows = started(mini, axes.TextInit(text=text)).rows()
    assert rows_of(mini, rows) == (tokens * LENGTH)[:LENGTH]


def test_labels_are_means_and_the_rest_is_vocabulary(mini) -> None:
    labels = ("positive", "negative")
    rows = started(mini, axes.LabelsInit(labels=labels)).rows()
    for row, label in zip(rows, labels, strict=False):
        torch.testing.assert_close(row, table(mini)[mini.tokens.plain(label)].mean(0))
    assert len(set(rows_of(mini, rows[2:]))) == LENGTH - 2


def test_more_labels_than_positions(mini) -> None:
    labels = tuple("abcdefghijklmnop")
    rows = started(mini, axes.LabelsInit(labels=labels)).rows()
    assert rows_of(mini, rows) == [mini.tokens.plain(label)[0] for label in labels[:LENGTH]]


def test_a_label_without_tokens_is_named(mini) -> None:
    with pytest.raises(UserError, match=r"method\.init\.labels: ''"):
        started(mini, axes.LabelsInit(labels=("yes", "")))


def test_labels_that_are_not_named_are_the_tasks(mini) -> None:
    init, labels = PromptTuning(name="prompt-tuning").init, ("positive", "negative")
    assert init == axes.LabelsInit()  # the paper's start, section 3.2
    named = started(mini, axes.LabelsInit(labels=labels)).rows()
    torch.manual_seed(0)
    model = compose(mini, PromptTuning(name="prompt-tuning", length=LENGTH))
    initialise(model, init, [], labels)
    assert torch.equal(model.rows(), named)


def test_without_labels_all_is_vocabulary(mini) -> None:
    assert torch.equal(
        started(mini, axes.LabelsInit()).rows(), started(mini, axes.VocabularyInit()).rows()
    )
