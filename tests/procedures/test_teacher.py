"""The teacher beside the same text in the context, and what it says as it is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conftest import FAMILIES, make_backbone, mini_tokens, random_ids
from foreword.axes.readout.divergence import likeliest
from foreword.backbone import Backbone, Call, load_backbone
from foreword.backbone.layout import Layout, Pair, Taught
from foreword.data import Example
from foreword.data.conversation import spoken_by_user
from foreword.errors import DataError, UserError
from foreword.procedures.distilling import distributions
from foreword.procedures.distilling.distributions import Lesson, taught
from foreword.procedures.distilling.teacher import Fronts, Teacher, check_can_teach
from foreword.procedures.distilling.texts import chunks_of, known, read_text
from foreword.tasks.turns import Turns

TASK = Turns("messages", chat_template="plain")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_teacher_says_what_the_backbone_says_with_the_text_in_its_context(family: str) -> None:
    backbone = make_backbone(family, torch.float64)
    front, *sources = random_ids([9, 4, 7], seed=3)
    targets = random_ids([3, 5], seed=4)
    teacher = Teacher(backbone, tuple(front))
    layout = teacher.model.lay_out([Pair(s, t) for s, t in zip(sources, targets, strict=True)])
    ours = backbone.logits(teacher.model.call(layout), layout.reading_positions())
    theirs = []
    for source, target in zip(sources, targets, strict=True):
        g = backbone.geometry
        whole = Layout.of([[*front, *source]], [target], first_position=g.first_position)
        theirs.append(backbone.logits(Call(whole), whole.reading_positions()))
    torch.testing.assert_close(ours, torch.cat(theirs), rtol=0, atol=1e-9)


def test_a_text_stands_as_the_systems_message_before_a_conversation() -> None:
    backbone = make_backbone("llama", torch.float64)
    fronts = Fronts(backbone, TASK, introduced=False)
    ids = fronts.ids("A heron stands in the water.")
    assert backbone.tokens.text(ids) == "System: A heron stands in the water.\n"
    told = Fronts(backbone, TASK, introduced=True).ids("A heron stands.")
    assert "A heron stands.\n\nAnswer questions" in backbone.tokens.text(told)


def test_a_beginning_token_stands_once() -> None:
    tokens = replace(mini_tokens(), bos="always")
    backbone = make_backbone("llama")
    backbone = replace(backbone, tokens=replace(backbone.tokens, bos="always"))
    assert tokens.bos_id is not None
    teacher = Fronts(backbone, TASK, introduced=False).teacher("A text.")
    example = Example({}, conversation=spoken_by_user("Why?"))
    source = teacher.source(TASK, example, 4)
    assert teacher.front[0] == tokens.bos_id
    assert tokens.bos_id not in source
    assert teacher.pair(Pair([tokens.bos_id, 5], [6])) == Pair([5], [6])


def test_a_row_that_does_not_fit_behind_the_text_is_refused() -> None:
    teacher = Teacher(make_backbone("llama"), tuple(random_ids([250])[0]))
    with pytest.raises(DataError, match=r"row 3: has 9 tokens, and 6 fit .* behind the text's 250"):
        teacher.check(Pair([1] * 4, [2] * 5), "row 3")


def test_an_encoder_teaches_nothing(masked: Backbone) -> None:
    with pytest.raises(UserError, match="is an encoder; a text's keys and values teach a decoder"):
        check_can_teach(masked)


def lessons() -> list[Lesson]:
    pairs = [Pair(s, t) for s, t in zip(random_ids([3, 5, 4]), random_ids([2, 4, 3]), strict=True)]
    return [Lesson(pair, reads) for pair, reads in zip(pairs, [(0,), (1,), (0,)], strict=True)]


def test_what_is_kept_is_what_the_teachers_say(tmp_path: Path) -> None:
    backbone = make_backbone("llama", torch.float64)
    fronts = random_ids([6, 8], seed=5)

    def teacher(reads: tuple[int, ...]) -> Teacher:
        return Teacher(backbone, tuple(fronts[reads[0]]))

    file = tmp_path / "said.safetensors"
    pairs = taught(lessons(), teacher, 20, file)
    for pair, lesson in zip(pairs, lessons(), strict=True):
        model = teacher(lesson.reads).model
        layout = model.lay_out([lesson.pair])
        alone = likeliest(backbone.logits(model.call(layout), layout.reading_positions()), 20)
        assert pair.taught is not None
        assert torch.equal(pair.taught.tokens.long(), alone.tokens)
        torch.testing.assert_close(pair.taught.logs, alone.logs, rtol=0, atol=1e-9)
        torch.testing.assert_close(pair.taught.rest, alone.rest, rtol=0, atol=1e-9)
        assert replace(pair, taught=None) == lesson.pair


def test_rows_that_are_known_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = make_backbone("llama")
    front = tuple(random_ids([6], seed=5)[0])
    file = tmp_path / "said.safetensors"
    read: list[int] = []
    said = distributions._said

    def counted(teacher: Teacher, rows: list[Pair], k: int) -> list[Taught]:
        read.append(len(rows))
        return said(teacher, rows, k)

    monkeypatch.setattr(distributions, "_said", counted)
    first = taught(lessons(), lambda _: Teacher(backbone, front), 4, file)
    again = taught(lessons(), lambda _: Teacher(backbone, front), 4, file)
    assert len(read) == 2
    assert all(
        torch.equal(a.taught.logs, b.taught.logs)  # type: ignore[union-attr]
        for a, b in zip(first, again, strict=True)
    )
    changed = [*lessons()[:2], Lesson(Pair([1, 2], [3]), (0,))]
    taught(changed, lambda _: Teacher(backbone, front), 4, file)
    assert len(read) == 3  # the batch of the changed row alone
    file.write_bytes(b"damaged")
    taught(lessons(), lambda _: Teacher(backbone, front), 4, file)
    assert len(read) == 5
    other = Teacher(backbone, (*front, 7))
    taught(lessons(), lambda _: other, 4, file)
    assert len(read) == 7


def test_chunks_end_where_paragraphs_or_sentences_do() -> None:
    tokens = mini_tokens()
    text = "\n\n".join(f"Bird {i} lives here. It eats fish and sleeps at night." for i in range(6))
    chunks = chunks_of(tokens, text, 40)
    assert len(chunks) > 1
    assert "\n\n".join(chunks) == text
    assert all(len(tokens.plain(chunk)) <= 40 for chunk in chunks)
    assert all(chunk.endswith(".") for chunk in chunks)
    sentences = chunks_of(tokens, "One bird sings here. " * 20, 30)
    assert all(chunk.endswith(".") for chunk in sentences)
    assert chunks_of(tokens, "a" * 5, 1)[0]
    assert "".join(chunks_of(tokens, "x" * 300, 20)) == "x" * 300


def test_a_script_that_the_vocabulary_does_not_know_is_noticed() -> None:
    tokens = mini_tokens()
    assert known(tokens, "A heron stands in the water.").note is None
    note = known(tokens, "鹭站在水里。" * 5).note
    assert note is not None
    assert "parts of characters" in note


def test_texts_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    empty, other = tmp_path / "empty.txt", tmp_path / "other.txt"
    empty.write_text(" \n", encoding="utf-8")
    other.write_bytes("caf\xe9 noir".encode("latin-1"))
    with pytest.raises(DataError, match=r"empty\.txt: is empty"):
        read_text(str(empty))
    with pytest.raises(DataError, match=r"other\.txt, line 1"):
        read_text(str(other))
    with pytest.raises(DataError, match="no such file"):
        read_text(str(tmp_path / "absent.txt"))


def test_the_bundled_backbone_teaches(tmp_path: Path) -> None:
    backbone = load_backbone("foreword/mini", device="cpu")
    teacher = Fronts(backbone, TASK, introduced=True).teacher("The heron is grey.")
    (pair,) = taught([Lesson(Pair([5, 6], [7, 8]), (0,))], lambda _: teacher, 5, tmp_path / "x")
    assert pair.taught is not None
    assert pair.taught.tokens.shape == (2, 5)
