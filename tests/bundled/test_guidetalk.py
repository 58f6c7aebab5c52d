"""The bundled conversations: reproducible to the byte, and conversations."""

from __future__ import annotations

from pathlib import Path

from foreword.bundled.guidetalk import generate
from foreword.data import read_data

FOLDER = Path(generate.__file__).parent


def test_packaged_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    assert generate.main([str(tmp_path)]) == 0
    for split in generate.SIZES:
        written = (tmp_path / f"{split}.jsonl").read_bytes()
        assert written == (FOLDER / f"{split}.jsonl").read_bytes(), split
    assert generate.build(1) != generate.build(2)


def test_answers_are_in_the_entry_or_say_that_it_is_not_there() -> None:
    for split, size in generate.SIZES.items():
        read = read_data(f"foreword/guidetalk/{split}", "jsonl", messages="messages", merge=False)
        assert len(read.examples) == size
        for example in read.examples:
            assert example.conversation is not None
            turns = [t for t in example.conversation.turns if t.role != "system"]
            entry = turns[0].content
            for asked, said in zip(turns[2::2], turns[3::2], strict=True):
                field = next(
                    name
                    for name, (texts, _) in generate.QUESTIONS.items()
                    if asked.content in texts
                )
                absent = said.content in generate.ABSENT
                assert absent == (f" {field} : " not in entry), (entry, asked, said)
