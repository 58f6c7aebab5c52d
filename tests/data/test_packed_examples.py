"""Packed examples: what is read, counted, parted and drawn of them is what lists of them give."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import before
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foreword.common import packed as packing
from foreword.common.packed import Packed, packed, write_packed
from foreword.data import (
    Example,
    Span,
    by_what_was_left_out,
    few_shot,
    hold_out,
    leave_out,
    merged,
    read_data,
    shuffled,
    stored,
    take_census,
)
from foreword.data import once as reading
from foreword.data.conversation import Conversation, Turn
from foreword.data.example import Unusable
from foreword.data.stored import ExampleCodec, example_as_json, example_of_json
from foreword.errors import DataError, UserError

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
WORDS = st.lists(TEXT, max_size=3).map(tuple)
FIELD = st.one_of(TEXT, st.dictionaries(TEXT, TEXT, max_size=3), st.builds(Unusable, TEXT, TEXT))
TURNS = st.builds(Turn, st.sampled_from(["user", "assistant"]), TEXT, TEXT, st.booleans())
ANY = st.builds(
    Example,
    st.dictionaries(TEXT, FIELD, max_size=3),
    references=WORDS,
    group=st.none() | TEXT,
    where=TEXT,
    label=st.none() | TEXT,
    labels=st.none() | WORDS,
    number=st.none() | st.floats(allow_nan=False),
    choices=st.none() | WORDS,
    right=st.none() | st.lists(st.integers(0, 5), max_size=2).map(tuple),
    words=st.none() | WORDS,
    tags=st.none() | WORDS,
    spans=st.none() | st.lists(st.builds(Span, TEXT, st.integers(0, 9)), max_size=2).map(tuple),
    paired=st.none() | WORDS,
    conversation=st.none()
    | st.builds(
        Conversation,
        st.lists(TURNS, min_size=1, max_size=3).map(tuple),
        TEXT,
        st.sampled_from(["last", "each"]),
    ),
)
FEW = st.sampled_from(["a", "a b", "b", "c a b d", "b  a", " ", ""])
LABEL = st.sampled_from(["yes", "no", "perhaps"])
KINDS = {
    "texts": st.builds(
        Example,
        st.fixed_dictionaries({"t": FEW, "r": st.sampled_from([{"a": "b"}, {"a": "c"}])}),
        references=WORDS,
        group=st.none() | LABEL,
    ),
    "labels": st.builds(Example, st.fixed_dictionaries({"t": FEW}), label=LABEL),
    "several": st.builds(
        Example, st.fixed_dictionaries({"t": FEW}), labels=st.lists(LABEL, max_size=2).map(tuple)
    ),
    "numbers": st.builds(
        Example, st.fixed_dictionaries({"t": FEW}), number=st.sampled_from([0.0, -0.0, 1.5])
    ),
    "choices": st.builds(
        Example,
        st.fixed_dictionaries({"t": FEW}),
        choices=WORDS,
        right=st.none() | st.lists(st.integers(0, 2), max_size=2).map(tuple),
    ),
    "tags": st.builds(
        Example,
        st.fixed_dictionaries({"t": FEW}),
        words=st.just(("a", "b")),
        tags=st.lists(st.sampled_from(["O", "B-X", "N"]), min_size=2, max_size=2).map(tuple),
    ),
    "spans": st.builds(
        Example,
        st.fixed_dictionaries({"question": FEW, "context": FEW}),
        spans=st.lists(st.builds(Span, FEW, st.integers(0, 1)), max_size=1).map(tuple),
    ),
}
EXAMPLES = st.sampled_from(sorted(KINDS)).flatmap(
    lambda kind: st.lists(KINDS[kind], min_size=1, max_size=12)
)
BOTH = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def pack(examples: Sequence[Example], folder: Path, key: str | None = None) -> Packed[Example]:
    file = folder / "rows.arrow"
    write_packed(file, ExampleCodec(), examples)
    return Packed(file, ExampleCodec(), key)


def numbered(examples: Sequence[Example]) -> list[Example]:
    """The same, each with its line."""
    return [Example(**{**vars(e), "where": f"line {i}"}) for i, e in enumerate(examples)]


def exactly(example: Example) -> str:
    """All of an example, what its equality passes over, too."""
    return repr(example)


@given(ANY)
@settings(max_examples=50, deadline=None)
def test_an_example_comes_back_as_it_was(example: Example) -> None:
    assert exactly(example_of_json(example_as_json(example))) == exactly(example)


def test_half_a_character_comes_back() -> None:
    example = Example({"t": "a\ud800"}, ("\udc00",))
    assert example_of_json(example_as_json(example)) == example


@given(st.lists(KINDS["texts"], max_size=9), st.integers(1, 4), st.data())
@BOTH
def test_a_packed_sequence_is_a_sequence(
    tmp_path: Path, examples: list[Example], block: int, data: st.DataObject
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "BLOCK", block)
        both: list[Sequence[Example]] = [examples, pack(examples, tmp_path, "key")]
    bounds = st.none() | st.integers(-12, 12)
    for _ in range(3):
        plain, rows = both
        assert list(rows) == plain
        assert len(rows) == len(plain)
        assert bool(rows) is bool(plain)
        for at in range(-len(plain), len(plain)):
            assert rows[at] == plain[at]
        with pytest.raises(IndexError):
            rows[len(plain)]
        part = data.draw(st.slices(9) | st.builds(slice, bounds, bounds))
        numbers = data.draw(
            st.lists(st.integers(0, len(plain) - 1), max_size=5) if plain else st.just([])
        )
        both = [[plain[n] for n in numbers], packing.pick(rows, numbers)]
        if data.draw(st.booleans()):
            both = [plain[part], rows[part]]


def test_each_part_has_a_key_of_its_own(tmp_path: Path) -> None:
    rows = pack([Example({"t": f"{i}"}) for i in range(6)], tmp_path, "key")
    parts = [rows, rows[1:], rows[:3], rows[::2], rows.picked([2, 1]), rows.picked([1, 2])]
    assert len({part.key for part in parts}) == len(parts)
    assert rows[:].key == rows.key == "key"
    assert rows[2:][1:].key == rows[3:].key
    assert rows.picked([1, 2]).key == rows.picked([0, 1, 2])[1:].key
    assert pack([Example({})], tmp_path)[:0].key is None


@pytest.mark.parametrize("packs", [False, True], ids=["lists", "packed"])
@given(EXAMPLES, st.data())
@BOTH
def test_what_becomes_of_examples_is_what_became_of_them_before(
    tmp_path: Path, packs: bool, given: list[Example], data: st.DataObject
) -> None:
    plain = numbered(given)
    rows: Sequence[Example] = plain
    if packs:
        rows = pack(plain, tmp_path)
    names = data.draw(st.none() | st.just(["t"]))
    if plain[0].spans is not None and names is not None:
        names = ["context"]
    assert take_census(rows, inputs=names) == before.census(plain, names)
    assert list(merged(rows)) == before.merged(plain)
    seed = data.draw(st.integers(0, 3))
    assert list(shuffled(rows, seed)) == before.shuffled(plain, seed)
    amount = data.draw(st.sampled_from([0.2, 0.5, 1, 2, 5]))
    whole = data.draw(st.booleans())
    parted = before.hold_out(plain, amount, seed, whole)
    if parted is None:
        with pytest.raises(UserError, match="hold_out"):
            hold_out(rows, amount, seed=seed, whole=whole)
    else:
        assert tuple(map(list, hold_out(rows, amount, seed=seed, whole=whole))) == parted
    count, most = data.draw(st.integers(1, 2)), data.draw(st.none() | st.integers(1, 4))
    drawn = before.few_shot(plain, count, seed, most)
    if isinstance(drawn, str):
        with pytest.raises(UserError, match=f"the label '{drawn}' has"):
            few_shot(rows, count, seed=seed, most=most)
    else:
        assert tuple(map(list, few_shot(rows, count, seed=seed, most=most))) == drawn
    field = next(iter(plain[0].fields))
    values = data.draw(st.lists(FEW, min_size=1, max_size=2))
    kept, left = leave_out(rows, {field: values})
    groups = before.grouped(plain, field, values)
    assert list(by_what_was_left_out(rows, {field: values})) == groups
    assert [e.where for e in kept] == [e.where for e in groups if e.group == "seen"]
    assert [e.where for e in left] == [e.where for e in groups if e.group == "not seen"]


def test_conversations_are_parted_by_the_turns_that_are_measured(tmp_path: Path) -> None:
    turns = tuple(Turn(role, role) for role in ("user", "assistant", "user", "assistant"))
    talks = [
        Example({}, ("assistant",), conversation=Conversation(turns, measured=measured))
        for measured in ("each", "last", "each")
    ]
    apart = [
        Example({}, part.references, conversation=part)
        for talk in talks
        if talk.conversation is not None
        for part in talk.conversation.each_measured()
    ]
    assert list(merged(talks)) == list(merged(pack(talks, tmp_path))) == apart
    assert len(apart) == 5


LINES = [
    *({"t": f"text {i}", "references": [f"answer {i}", "ö\u2028"]} for i in range(40)),
    {"t": "  ", "references": ["x"]},
    {"t": "text 3", "references": ["another"]},
]


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """All data are large; the cache is this test's."""
    monkeypatch.setattr(stored, "LARGE_BYTES", 0)
    monkeypatch.setattr(packing, "BLOCK", 7)
    monkeypatch.setenv("FOREWORD_CACHE", str(tmp_path / "cache"))
    return tmp_path


def in_memory(path: Path, format: str, **options: Any) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored, "LARGE_BYTES", 2**60)
        return read_data(path, format, **options)


def rows_file(folder: Path, lines: Sequence[Any] = LINES) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return file


@pytest.mark.parametrize("shares", [1, 3])
@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("column", [{}, {"label": "references"}])
def test_a_large_file_is_read_as_a_small_one(
    large: Path, monkeypatch: pytest.MonkeyPatch, shares: int, merge: bool, column: dict[str, str]
) -> None:
    lines = [{**line, "references": str(line["references"])} for line in LINES] if column else LINES
    file = rows_file(large, lines)
    monkeypatch.setattr(reading, "processes", lambda items: shares)
    read = read_data(file, "jsonl", merge=merge, inputs=["t"], **column)
    assert isinstance(read.examples, Packed)
    plain = in_memory(file, "jsonl", merge=merge, inputs=["t"], **column)
    assert list(map(exactly, read.examples)) == list(map(exactly, plain.examples))
    assert (read.empty, read.notes) == (plain.empty, plain.notes)
    assert len(read.empty) == len(column)
    # the second time nothing is read
    monkeypatch.setattr(reading, "write_in_shares", None)
    again = read_data(file, "jsonl", merge=merge, inputs=["t"], **column)
    assert list(map(exactly, again.examples)) == list(map(exactly, plain.examples))
    assert (again.empty, again.notes) == (plain.empty, plain.notes)


@pytest.mark.parametrize("shares", [1, 3])
@pytest.mark.parametrize("wrong", [(3, 20), (20, 3), (39, 39), (14, 27)])
def test_the_first_mistake_is_told(
    large: Path, monkeypatch: pytest.MonkeyPatch, shares: int, wrong: tuple[int, int]
) -> None:
    monkeypatch.setattr(reading, "processes", lambda items: shares)
    lines: list[Any] = list(LINES)
    for number in wrong:
        lines[number] = {"t": f"{number}"}
    file = rows_file(large, lines)
    with pytest.raises(DataError) as plain:
        in_memory(file, "jsonl")
    with pytest.raises(DataError) as packed_one:
        read_data(file, "jsonl")
    assert str(packed_one.value) == str(plain.value)
    assert f"line {min(wrong) + 1}:" in str(plain.value)
    assert not list((large / "cache").rglob("rows.arrow*"))


def test_another_content_option_or_name_is_read_anew(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = rows_file(large, [line for line in LINES if str(line["t"]).strip()])
    first = read_data(file, "jsonl", merge=False)
    assert read_data(file, "jsonl", merge=False).examples.key == first.examples.key
    keys = {first.examples.key}
    keys.add(read_data(file, "jsonl", merge=False, references="t").examples.key)
    keys.add(read_data(file, "jsonl", merge=False, inputs=["t"]).examples.key)
    keys.add(read_data(file, "jsonl", merge=False, need_references=False).examples.key)
    keys.add(read_data(file.rename(large / "other.jsonl"), "jsonl", merge=False).examples.key)
    other = rows_file(large, [*LINES[1:], LINES[0]])
    read = read_data(other, "jsonl", merge=False)
    assert read.examples[0].fields["t"] == "text 1"
    keys.add(read.examples.key)
    assert None not in keys
    assert len(keys) == 6


def test_a_file_that_changes_while_it_is_read(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = rows_file(large)
    write = reading.write_in_shares

    def slowly(*given: Any) -> Any:
        written = write(*given)
        rows_file(large, LINES[:-1])
        return written

    monkeypatch.setattr(reading, "write_in_shares", slowly)
    with pytest.raises(DataError, match="changed while it was read"):
        read_data(file, "jsonl")


def test_formats_of_others_are_packed_and_not_kept(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import foreword.extensions as extend
    from foreword import names
    from foreword.data.rows import Request, Row

    def lines(request: Request) -> Any:
        for number, line in enumerate(Path(request.path).read_text("utf-8").split()):
            yield Row(f"row {number}", {"t": line, "references": line})

    monkeypatch.setattr(names.FORMATS, "_entries", dict(names.FORMATS._entries))
    extend.data_format("words", "a word a row", table=True)(lines)
    (large / "words.txt").write_text("a b c", "utf-8")
    read = read_data(large / "words.txt", "words")
    assert isinstance(read.examples, Packed)
    assert read.examples.key is None
    assert [example.fields["t"] for example in read.examples] == ["a", "b", "c"]
    assert not (large / "cache").exists()


def test_rows_of_the_hub_are_packed_where_they_are_many(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from foreword.data import readers

    def rows(name: str) -> Any:
        return ((f"{name}, row {i}", {"t": f"{i}", "references": "x"}) for i in range(9))

    monkeypatch.setattr(readers, "hub_rows", rows)
    monkeypatch.setattr(stored, "LARGE_ROWS", 9)
    few = read_data("hub:a/b:train", "jsonl").examples
    monkeypatch.setattr(stored, "LARGE_ROWS", 8)
    many = read_data("hub:a/b:train", "jsonl").examples
    assert isinstance(few, list)
    assert isinstance(many, Packed)
    assert list(many) == few


def test_a_broken_file_is_made_again(large: Path) -> None:
    made: list[str] = []

    def make(file: Path) -> dict[str, Any]:
        made.append(file.name)
        return {"count": write_packed(file, ExampleCodec(), [Example({"t": "x"})])}

    def rows() -> list[Example]:
        items, about = packed("0" * 64, ExampleCodec(), make)
        assert about == {"count": 1}
        return list(items)

    assert rows() == rows() == [Example({"t": "x"})]
    assert len(made) == 1
    (file,) = (large / "cache").rglob("rows.arrow")
    content = file.read_bytes()
    for broken in (content[:-9], b"\0" * len(content), content[: len(content) // 2] + b"x" * 20):
        file.write_bytes(broken)
        assert rows() == [Example({"t": "x"})]
        assert file.read_bytes() == content
    assert len(made) == 4
