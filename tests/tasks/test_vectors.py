"""Vectors of texts: pooled as by hand, learned with sentence-transformers' losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from conftest import make_backbone, saved_bert
from families import by_hand
from foreword.axes.readout.vectors import cosent, info_nce
from foreword.backbone import Backbone
from foreword.data import Example
from foreword.errors import ArtifactError, DataError, UserError
from foreword.methods import HardPrompt, PrefixTuning, PromptTuning, PTuning
from foreword.methods.axes import Table, UniformInit
from foreword.recipe import TaskId
from foreword.tasks import BoundTask, task_of
from foreword.tuned.compose import compose

ROWS = [
    ("the grey otter", "swims in a cold river", 0.25),
    ("a heron", "stands", 0.75),
    ("the old town near us", "it was late, so they left", -0.5),
    ("a toad", "sings to the old town", 0.5),
]
TABLE = Table(std=1.0)
METHODS: dict[str, Any] = {
    "none": HardPrompt(name="hard-prompt"),
    "prefix": PrefixTuning(name="prefix-tuning", length=3, reparameterization=TABLE),
    "soft": PromptTuning(
        name="prompt-tuning", length=2, reparameterization=TABLE, init=UniformInit()
    ),
    "slots": PTuning(name="p-tuning", length=2),
}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    from transformers import BertModel

    backbone = saved_bert(tmp_path_factory.mktemp("bert"), BertModel, positions=64)
    return Backbone.wrap(backbone.model.double(), backbone.tokens)


@pytest.fixture(scope="module")
def gpt2() -> Backbone:
    return make_backbone("gpt2", torch.float64)


def bound(backbone: Backbone, method: str = "none", **stated: Any) -> BoundTask:
    torch.manual_seed(3)
    soft = "{soft:2} " if method == "slots" else ""
    usual = {
        "input": soft + "{text}",
        "second": soft + "{other}",
        "target": "{reference}",
        "answer": "vector",
        "paired": "other",
    }
    task = task_of(TaskId(**{**usual, **stated}))
    model = compose(backbone, METHODS[method], task.readout(backbone), inside=task.soft > 0)
    model = model.double()
    with torch.no_grad():
        for parameter in model.reparam.parameters():
            parameter.normal_()
    return task.on(model)


def examples(scored: bool = False) -> list[Example]:
    return [
        Example({"text": text}, where=f"row {n}", paired=(other,), number=score if scored else None)
        for n, (text, other, score) in enumerate(ROWS)
    ]


def by_backbone(backbone: Backbone, text: str, pooling: str) -> torch.Tensor:
    """A vector from transformers' own states, one text at a time."""
    ids = torch.tensor([backbone.tokens.source(text)])
    with torch.no_grad():
        states = backbone.model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0]
    return {"mean": states.mean(0), "first": states[0], "last": states[-1]}[pooling]


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
@pytest.mark.parametrize("normalised", [True, False])
def test_a_vector_is_the_pooled_states(
    bert: Backbone, gpt2: Backbone, pooling: str, normalised: bool
) -> None:
    for backbone in (bert, gpt2):
        task = bound(backbone, vector={"pooling": pooling, "normalise": normalised})
        found = task.answers(examples(), batch_size=3)
        for (text, other, _), one in zip(ROWS, found, strict=True):
            for said, vector in ((text, one.answer), (other, one.beside[0])):
                expected = by_backbone(backbone, said, pooling)
                expected = normalize(expected, dim=0) if normalised else expected
                assert vector == pytest.approx(expected.tolist(), abs=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_losses_are_those_of_the_definitions(bert: Backbone, method: str) -> None:
    with by_hand.ExactFloat64():
        task = bound(bert, method)
        first, second = (
            torch.tensor(side, dtype=torch.float64)
            for side in zip(
                *[(one.answer, one.beside[0]) for one in task.answers(examples())], strict=True
            )
        )
        pairs, _ = task.pairs(examples())
        assert [pair.answers for pair in pairs] == [1] * len(ROWS)
        expected = cross_entropy(20 * first @ second.T, torch.arange(len(ROWS)), reduction="none")
        torch.testing.assert_close(
            task.model(task.model.lay_out(pairs)), expected, atol=1e-9, rtol=0
        )
        cosines, scores = (first * second).sum(1), torch.tensor([score for *_, score in ROWS])
        total = sum(
            torch.exp(5 * (cosines[i] - cosines[j]))
            for i in range(len(ROWS))
            for j in range(len(ROWS))
            if scores[i] < scores[j]
        )
        by_loss = {
            "cosent": torch.log(1 + total).expand(len(ROWS)),
            "cosine": (cosines - scores) ** 2,
        }
        for loss, expected in by_loss.items():
            vector = {"loss": loss, "scale": 5}
            scored = bound(bert, method, similarity="score", vector=vector)
            pairs, _ = scored.pairs(examples(scored=True))
            found = scored.model(scored.model.lay_out(pairs))
            torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)


def test_losses_are_those_of_sentence_transformers() -> None:
    losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 6, 8, generator=generator, dtype=torch.float64)
    scores = torch.tensor([0.1, 0.9, 0.4, 0.4, 0.0, 0.7], dtype=torch.float64)
    ranking = losses.MultipleNegativesRankingLoss(None, scale=20.0)
    expected = ranking.compute_loss_from_embeddings([first, second], None)
    torch.testing.assert_close(info_nce(first, second).mean(), expected, atol=1e-9, rtol=0)
    expected = losses.CoSENTLoss(None, scale=20.0).compute_loss_from_embeddings(
        [first, second], scores
    )
    cosines = torch.nn.functional.cosine_similarity(first, second)
    torch.testing.assert_close(cosent(cosines, scores), expected, atol=1e-9, rtol=0)


def test_pairs_that_share_a_text_are_no_negatives_of_each_other(bert: Backbone) -> None:
    task = bound(bert)
    again = [*examples(), Example({"text": "a hawk"}, where="x", paired=(ROWS[1][1],))]
    model = task.model

    def losses(given: list[Example]) -> torch.Tensor:
        return model(model.lay_out(task.pairs(given)[0])).detach()

    alone, together = losses(examples()), losses(again)
    assert together[1] == pytest.approx(alone[1].item(), abs=1e-9)
    assert together[0] > alone[0] + 1e-6, "the same text counts twice for whom it does not belong"


def test_a_batch_trains_the_prompt_and_nothing_else(bert: Backbone) -> None:
    task = bound(bert, "prefix")
    names = [name for name, p in task.model.named_parameters() if p.requires_grad]
    assert names
    assert all(name.startswith("reparam.") for name in names)
    loss = task.model(task.model.lay_out(task.pairs(examples())[0])).sum()
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in task.model.parameters())


def test_each_of_several_paired_texts_is_trained(bert: Backbone) -> None:
    task = bound(bert)
    several = Example({"text": "a"}, paired=("b c", "d"))
    pairs, _ = task.pairs([several])
    assert [pair.beside[0].source for pair in pairs] == [
        bert.tokens.source("b c"),
        bert.tokens.source("d"),
    ]
    (found,) = task.answers([several])
    assert len(found.beside) == 2


def test_long_texts_are_cut_where_the_template_says(bert: Backbone) -> None:
    task = bound(bert, input="{text:cut}", second=None, max_tokens=6)
    (row, other) = task.rows(Example({"text": "w " * 30}, paired=("v " * 30,)), labelled=False)
    assert (len(row.pair.source), len(other.pair.source)) == (6, 6)
    assert row.cut > 0
    assert other.cut > 0
    with pytest.raises(DataError, match="row: the input has"):
        bound(bert, max_tokens=6).rows(
            Example({"text": "w " * 30}, where="row", paired=("v",)), labelled=False
        )


def test_what_cannot_be_learned(bert: Backbone) -> None:
    with pytest.raises(DataError, match="row: has no paired text"):
        bound(bert).rows(Example({"text": "a"}, where="row"))
    scored = bound(bert, similarity="score", vector={"loss": "cosine"})
    with pytest.raises(DataError, match="row: does not say how alike"):
        scored.rows(Example({"text": "a"}, where="row", paired=("b",)))
    with pytest.raises(DataError, match=r"row: how alike its texts are is 4, but a cosine lies"):
        scored.rows(Example({"text": "a"}, where="row", paired=("b",), number=4))
    with pytest.raises(ArtifactError, match=r"task\.paired: is missing"):
        bound(bert, paired=None)
    with pytest.raises(ArtifactError, match=r"task\.second: has 0 \{soft\} slots"):
        bound(bert, input="{soft:2} {text}")
    with pytest.raises(UserError, match="pairs no texts"):
        task_of(TaskId(input="{a}", target="{reference}")).of_paired()
