"""The teacher beside the same text in the context, and what it says as it is kept."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conftest import FAMILIES, make_backbone, mini_tokens, random_ids
from foreword.axes.readout.divergence import likeliest
from foreword.backbone import Backbone, Call, load_backbone
from foreword.backbone.layout import Layout, Pair, Taught
from foreword.data import Example
from foreword.data.conversation import Conversation, Turn
from foreword.errors import DataError, RecipeError, UserError
from foreword.methods import HardPrompt
from foreword.procedures.distilling import distributions
from foreword.procedures.distilling.distributions import Lesson, taught
from foreword.procedures.distilling.reading import read_text
from foreword.procedures.distilling.source import Source
from foreword.procedures.distilling.teacher import Fronts, Teacher, check_can_teach
from foreword.procedures.distilling.texts import chunks_of, known
from foreword.tasks.text import Templates
from foreword.tasks.turns import Turns
from foreword.tasks.write import TextGeneration
from foreword.tuned.compose import compose

TASK = Turns("messages", chat_template="plain")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_teacher_says_what_the_backbone_says_with_the_text_in_its_context(family: str) -> None:
    backbone = make_backbone(family, torch.float64)
    front, *sources = random_ids([9, 4, 7], seed=3)
    targets = random_ids([3, 5], seed=4)
    teacher = Teacher(backbone, TASK, tuple(front))
    layout = teacher.model.lay_out([Pair(s, t) for s, t in zip(sources, targets, strict=True)])
    ours = backbone.logits(teacher.model.call(layout), layout.reading_positions())
    theirs = []
    for source, target in zip(sources, targets, strict=True):
        g = backbone.geometry
        whole = Layout.of([[*front, *source]], [target], first_position=g.first_position)
        theirs.append(backbone.logits(Call(whole), whole.reading_positions()))
    torch.testing.assert_close(ours, torch.cat(theirs), rtol=0, atol=1e-9)


def talk(*contents: str) -> Example:
    roles = ("user", "assistant")
    turns = tuple(Turn(roles[n % 2], text) for n, text in enumerate(contents))
    return Example({}, where="row 3", conversation=Conversation(turns))


def test_a_text_stands_as_the_systems_message_before_a_conversation() -> None:
    backbone = make_backbone("llama")
    teacher = Fronts(backbone, TASK, introduced=True).teacher("A heron stands in the water.")
    read = backbone.tokens.text(list(teacher.front))
    assert read == (
        "System: You are a helpful assistant. You answer questions about this text.\n\n"
        "A heron stands in the water.\nUser:"
    )
    (pair,) = teacher.pairs(talk("Why?", "It fishes."))
    assert backbone.tokens.text(pair.source) == " Why?\nAssistant:"
    (own,) = TASK.rows(
        compose(backbone, HardPrompt(name="hard-prompt")), talk("Why?", "It fishes.")
    )
    assert pair.predicted == own.pair.predicted
    assert backbone.tokens.text(teacher.source(talk("Why?"), 4)) == " Why?\nAssistant:"
    assert backbone.tokens.text(teacher.continued("Where")) == " Where"


NO_SYSTEM = """{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no') }}
{% endif %}[{{ m['role'] }}] {{ m['content'] }}{% if m['role'] == 'assistant' %}{{ eos_token }}
{% endif %} {% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"""


def test_a_text_stands_in_the_users_message_where_the_template_has_no_system() -> None:
    backbone = make_backbone("llama")
    tokenizer = copy.deepcopy(backbone.tokens.tokenizer)
    tokenizer.chat_template = NO_SYSTEM
    backbone = replace(backbone, tokens=replace(backbone.tokens, tokenizer=tokenizer))
    teacher = Fronts(backbone, Turns("messages"), introduced=False).teacher("A heron.")
    assert teacher.place == "user"
    assert backbone.tokens.text(list(teacher.front)) == "[user] A heron.\n\n"
    (pair,) = teacher.pairs(talk("Why?", "It fishes."))
    assert backbone.tokens.text(pair.source) == "Why? [assistant]"


def test_inputs_that_are_messages_have_the_text_before_them() -> None:
    backbone = make_backbone("llama")
    task = TextGeneration(
        Templates.of([{"role": "user", "content": "{bird}?"}], chat_template="plain")
    )
    teacher = Fronts(backbone, task, introduced=False).teacher("Say {what} it eats.")
    source = teacher.source(Example({"bird": "heron"}), 3)
    whole = backbone.tokens.text([*teacher.front, *source])
    assert whole == "System: Say {what} it eats.\nUser: heron?\nAssistant:"
    with_system = [{"role": "system", "content": "x"}, {"role": "user", "content": "{bird}"}]
    other = TextGeneration(Templates.of(with_system, chat_template="plain"))
    with pytest.raises(RecipeError, match="whose place the teacher's text takes"):
        Fronts(backbone, other, introduced=False).teacher("Say.")


def test_a_conversation_with_a_system_of_its_own_is_refused() -> None:
    teacher = Fronts(make_backbone("llama"), TASK, introduced=False).teacher("A text.")
    turns = (Turn("system", "Be brief."), Turn("user", "Why?"), Turn("assistant", "So."))
    example = Example({}, where="row 3", conversation=Conversation(turns))
    with pytest.raises(DataError, match="row 3: has a system's message, whose place"):
        teacher.pairs(example)


def test_a_beginning_token_stands_once() -> None:
    backbone = make_backbone("llama")
    backbone = replace(backbone, tokens=replace(backbone.tokens, bos="always"))
    begin = backbone.tokens.bos_id
    plain = TextGeneration(Templates.of("{bird}"))
    for task, example in ((TASK, talk("Why?", "So.")), (plain, Example({"bird": "x"}, ("y",)))):
        teacher = Fronts(backbone, task, introduced=False).teacher("A text.")
        (pair,) = teacher.pairs(example)
        assert teacher.front[0] == begin
        assert begin not in (*teacher.front[1:], *pair.source)


def test_a_row_that_does_not_fit_behind_the_text_is_refused() -> None:
    backbone = make_backbone("llama", max_position_embeddings=40)
    task = TextGeneration(Templates.of("{bird}"))
    teacher = Fronts(backbone, task, introduced=False).teacher("A heron stands. " * 6)
    with pytest.raises(DataError, match=r"tokens"):
        teacher.pairs(Example({"bird": "heron " * 20}, ("roach",), where="row 3"))


def test_an_encoder_teaches_nothing(masked: Backbone) -> None:
    with pytest.raises(UserError, match="is an encoder; a text's keys and values teach a decoder"):
        check_can_teach(masked)


def lessons() -> list[Lesson]:
    pairs = [Pair(s, t) for s, t in zip(random_ids([3, 5, 4]), random_ids([2, 4, 3]), strict=True)]
    return [Lesson(p, p, reads) for p, reads in zip(pairs, [(0,), (1,), (0,)], strict=True)]


def test_what_is_kept_is_what_the_teachers_say(tmp_path: Path) -> None:
    backbone = make_backbone("llama", torch.float64)
    fronts = random_ids([6, 8], seed=5)

    def teacher(reads: tuple[int, ...]) -> Teacher:
        return Teacher(backbone, TASK, tuple(fronts[reads[0]]))

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
    first = taught(lessons(), lambda _: Teacher(backbone, TASK, front), 4, file)
    again = taught(lessons(), lambda _: Teacher(backbone, TASK, front), 4, file)
    assert len(read) == 2
    assert all(
        torch.equal(a.taught.logs, b.taught.logs)  # type: ignore[union-attr]
        for a, b in zip(first, again, strict=True)
    )
    changed = [*lessons()[:2], Lesson(Pair([1, 2], [3]), Pair([1, 2], [3]), (0,))]
    taught(changed, lambda _: Teacher(backbone, TASK, front), 4, file)
    assert len(read) == 3  # the batch of the changed row alone
    file.write_bytes(b"damaged")
    taught(lessons(), lambda _: Teacher(backbone, TASK, front), 4, file)
    assert len(read) == 5
    other = Teacher(backbone, TASK, (*front, 7))
    taught(lessons(), lambda _: other, 4, file)
    assert len(read) == 7


def test_rows_that_another_run_has_asked_about_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, front = make_backbone("llama"), tuple(random_ids([6], seed=5)[0])
    shared = tmp_path / "not there yet" / "said.safetensors"
    first, second, third = (tmp_path / f"{name}.safetensors" for name in "abc")

    def teacher(_: tuple[int, ...]) -> Teacher:
        return Teacher(backbone, TASK, front)

    expected = taught(lessons(), teacher, 4, first, remembered=shared)
    with monkeypatch.context() as patch:
        patch.setattr(distributions, "_said", None)
        own = taught(lessons(), teacher, 4, second, remembered=shared)
    assert all(
        torch.equal(a.taught.logs, b.taught.logs)  # type: ignore[union-attr]
        for a, b in zip(expected, own, strict=True)
    )
    assert list(distributions.read(first)) == list(distributions.read(second))
    before = list(distributions.read(shared))
    other = Teacher(backbone, TASK, (*front, 7))
    taught(lessons(), lambda _: other, 4, third, remembered=shared)  # another teacher's are not it
    assert not set(distributions.read(third)) & set(before)
    assert list(distributions.read(shared)) != before
    shared.unlink()
    shared.parent.rmdir()
    shared.parent.write_text("no folder")
    taught(lessons(), teacher, 4, tmp_path / "d.safetensors", remembered=shared)


def test_many_rows_are_not_written_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = Teacher(make_backbone("llama"), TASK, (7, 8, 9))
    monkeypatch.setattr(distributions, "TOGETHER", 1)
    monkeypatch.setattr(distributions, "SAVED_EVERY", 1)
    sizes: list[int] = []
    write = distributions.write

    def counted(file: Path, rows: list[tuple[str, Taught]]) -> None:
        sizes.append(len(rows))
        write(file, rows)

    monkeypatch.setattr(distributions, "write", counted)
    pairs = [Pair([1], [number]) for number in range(2, 66)]
    learned = [Lesson(pair, pair, (0,)) for pair in pairs]
    taught(learned, lambda _: teacher, 4, tmp_path / "said.safetensors")
    assert sizes[-1] == len(pairs)
    assert sum(sizes) < 7 * len(pairs)
    assert sizes[0] == 1
    sizes.clear()
    taught(learned, lambda _: teacher, 4, tmp_path / "said.safetensors")
    assert sizes == []


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


def test_parts_that_follow_each_other_are_read_as_they_stand_in_the_text() -> None:
    tokens = mini_tokens()
    text = "One bird sings here. Two birds sing there.\nThree sing.\n\n\n" * 6 + "The end."
    chunks = tuple(chunks_of(tokens, text, 24))
    source = Source(text, chunks, 3)
    assert len(chunks) > 4
    assert source.text(range(len(chunks))) == text
    start = text.index(chunks[1])
    assert source.text([1]) == chunks[1]
    assert source.text([0, 3]) == f"{chunks[0]}\n\n{chunks[3]}"
    assert source.text([1, 2, 4]).startswith(text[start : start + len(chunks[1]) + 1])
    assert source.text([1, 2, 4]).endswith(f"{chunks[2]}\n\n{chunks[4]}")


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
    with pytest.raises(DataError, match=r"other\.txt, line 1: .*; save the file as UTF-8$"):
        read_text(str(other))
    with pytest.raises(DataError, match="no such file"):
        read_text(str(tmp_path / "absent.txt"))


def test_the_bundled_backbone_teaches(tmp_path: Path) -> None:
    backbone = load_backbone("foreword/mini", device="cpu")
    teacher = Fronts(backbone, TASK, introduced=True).teacher("The heron is grey.")
    row = Pair([5, 6], [7, 8])
    (pair,) = taught([Lesson(row, row, (0,))], lambda _: teacher, 5, tmp_path / "x")
    assert pair.taught is not None
    assert pair.taught.tokens.shape == (2, 5)
