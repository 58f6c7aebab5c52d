"""Outputs and references from every format, and what is said of malformed ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from foreword.errors import DataError
from foreword.scoring import read_pairs

PUB, CAFE = "name[The Vaults], eatType[pub]", "name[Aromi], near[Café Adriatic]"
OUTPUTS = ["The Vaults is a pub.", "Aromi is near Café Adriatic."]
REFERENCES = [("A pub: The Vaults.", "The Vaults, a pub."), ("Aromi lies by Café Adriatic.",)]
MR_OUTPUTS = f"MR\toutput\n{CAFE}\t{OUTPUTS[1]}\n{PUB}\t{OUTPUTS[0]}\n"
E2E = "mr,ref\n" + "".join(
    f'"{mr}","{text}"\n'
    for mr, texts in zip((PUB, CAFE), REFERENCES, strict=True)
    for text in texts
)
BLOCKS = "\n\n".join("\n".join(texts) for texts in REFERENCES) + "\n"
ROWS = [
    {"input": "x", "output": output, "references": list(texts)}
    for output, texts in zip(OUTPUTS, REFERENCES, strict=True)
]

Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.chdir(tmp_path)

    def make(name: str, content: str | bytes) -> Path:
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return Path(name)

    return make


def lines(rows: object) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("o.txt", "\n".join(OUTPUTS) + "\n"),
        ("o.txt", "\r\n".join(OUTPUTS)),
        ("o.txt", b"\xef\xbb\xbf" + "\n".join(OUTPUTS).encode()),
        ("o.out", "\n".join(OUTPUTS) + "\n"),
        ("o.jsonl", lines(ROWS)),
        ("o.out", lines(ROWS)),
        ("o.tsv", "output\n" + "\n".join(OUTPUTS)),
        ("o.csv", "id,output\n" + "".join(f'{i},"{o}"\n' for i, o in enumerate(OUTPUTS))),
    ],
)
@pytest.mark.parametrize(
    ("other", "references"),
    [
        ("r.txt", BLOCKS),
        ("r.txt", f"\n\n{BLOCKS}\n\n".lstrip()),
        ("r", BLOCKS.replace("\n", "\r\n")),
        ("r.csv", E2E),
        ("r.tsv", E2E.replace('","', '"\t"').replace("mr,ref", "mr\tref")),
        ("r.jsonl", lines({"references": row["references"]} for row in ROWS)),
    ],
)
def test_by_order(
    name: str, outputs: str | bytes, other: str, references: str, write: Write
) -> None:
    assert read_pairs(write(name, outputs), write(other, references)) == (OUTPUTS, REFERENCES)


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("o.tsv", MR_OUTPUTS),
        ("o.tsv", MR_OUTPUTS.partition("\n")[2]),
        ("o.system", MR_OUTPUTS),
        ("o.tsv", MR_OUTPUTS.replace("\toutput", "\twhatever")),
        ("o.tsv", "".join(f'"{c}"\t"{o}"\r\n' for c, o in [(CAFE, OUTPUTS[1]), (PUB, OUTPUTS[0])])),
        ("o.csv", f'output,MR\n{OUTPUTS[1]},"{CAFE}"\n{OUTPUTS[0]},"{PUB}"\n'),
        (
            "o.jsonl",
            lines({"mr": m, "output": o} for m, o in [(CAFE, OUTPUTS[1]), (PUB, OUTPUTS[0])]),
        ),
    ],
)
def test_by_mr_in_whatever_order(name: str, outputs: str, write: Write) -> None:
    assert read_pairs(write(name, outputs), write("r.csv", E2E)) == (OUTPUTS, REFERENCES)
    rows = E2E.splitlines()
    apart = "\n".join([rows[0], rows[1], rows[3], rows[2]])
    assert read_pairs(Path(name), write("r.csv", apart)) == (OUTPUTS, REFERENCES)


def test_references_in_the_outputs_own_rows(write: Write) -> None:
    assert read_pairs(write("answers.jsonl", lines(ROWS))) == (OUTPUTS, REFERENCES)
    table = "output\tref\n" + "".join(
        f"{o}\t{r[0]}\n" for o, r in zip(OUTPUTS, REFERENCES, strict=True)
    )
    assert read_pairs(write("o.tsv", table)) == (OUTPUTS, [r[:1] for r in REFERENCES])
    one = lines([{"output": "x", "reference": "y"}])
    assert read_pairs(write("o.jsonl", one)) == (["x"], [("y",)])


def test_a_file_without_empty_lines_has_one_reference_a_line(write: Write) -> None:
    found = read_pairs(write("o.txt", "a\nb\n"), write("r.txt", "c\nd\n"))
    assert found == (["a", "b"], [("c",), ("d",)])


def test_empty_outputs_are_outputs(write: Write) -> None:
    assert read_pairs(write("o.txt", "\nb\n"), write("r.txt", "c\nd\n"))[0] == ["", "b"]
    rows = lines([{"output": "", "references": "c"}])
    assert read_pairs(write("o.jsonl", rows))[0] == [""]


def test_signs_in_a_wrong_encoding_are_mended_in_tables(write: Write) -> None:
    wrong = f"MR\toutput\n{PUB}\tcosts Ł20, Â£5\n{CAFE.replace('é', 'Ã©')}\tby CafÃ© Adriatic\n"
    found, _ = read_pairs(write("o.tsv", wrong), write("r.csv", E2E))
    assert found == ["costs £20, £5", "by Café Adriatic"]


@pytest.mark.parametrize(
    ("name", "outputs", "other", "references", "message"),
    [
        ("o.txt", "a\n", "r.txt", BLOCKS, r"o\.txt has 1 outputs .*line 1.* r\.txt has 2 records"),
        ("o.txt", "", "r.txt", BLOCKS, r"o\.txt: is empty"),
        ("o.jsonl", "\n", "r.txt", BLOCKS, r"o\.jsonl: is empty"),
        ("o.tsv", "", "r.txt", BLOCKS, r"o\.tsv: is empty"),
        ("o.tsv", "MR\toutput\n", "r.txt", BLOCKS, r"o\.tsv: is empty"),
        ("o.txt", "a\nb\n", "r.txt", "", r"r\.txt: is empty"),
        ("o.txt", "a\nb\n", "r.txt", " \n\n", r"r\.txt: is empty"),
        ("o.txt", "a\nb\n", "r.txt", "a\n\n\nb\n", r"r\.txt, line 3: an empty line where"),
        ("o.txt", "a\nb\n", "r.txt", "\na\n\nb\n", r"r\.txt, line 1: an empty line where"),
        ("o.txt", b"a\n\xff\n", "r.txt", BLOCKS, r"o\.txt, line 2: not UTF-8"),
        ("o.txt", "a\nb\n", "r.csv", b"mr,ref\n\xff,x\n", r"r\.csv, line 2: not UTF-8"),
        ("o.txt", "a\0\n", "r.txt", BLOCKS, r"o\.txt, line 1: holds a NUL"),
        ("o.txt", None, "r.txt", BLOCKS, r"o\.txt: no such file"),
        ("o.txt", "a\nb\n", "r.txt", None, r"r\.txt: no such file"),
        ("o.jsonl", "nothing\n", "r.txt", BLOCKS, r"o\.jsonl, line 1, column 1: not valid JSON"),
        ("o.jsonl", '{"answer": "x"}\n', "r.txt", BLOCKS, r"line 1: field 'output' is missing"),
        ("o.jsonl", '{"output": null}\n', "r.txt", BLOCKS, r"field 'output': expected a text"),
        ("o.jsonl", '{"output": "x", "mr": 3}\n', "r.txt", BLOCKS, r"field 'mr': expected a text"),
        (
            "o.jsonl",
            '{"output": "x", "mr": "a[b]"}\n{"output": "y"}\n',
            "r.csv",
            E2E,
            r"line 2: field 'mr' is missing",
        ),
        ("o.txt", "a\n", "r.jsonl", '{"references": []}\n', r"r\.jsonl, line 1: expected a ref"),
        ("o.txt", "a\n", "r.jsonl", '{"references": ["x", " "]}\n', r"line 1: expected a ref"),
        ("o.txt", "a\n", "r.jsonl", '{"references": 7}\n', r"line 1: expected a reference"),
        ("o.txt", "a\n", "r.jsonl", '{"refs": "x"}\n', r"'references' is missing \(known: refs\)"),
        ("o.txt", "a\n", "r.csv", f'mr,ref\n"{PUB}",\n', r"r\.csv, line 2: expected a reference"),
        ("o.tsv", f"{MR_OUTPUTS}only one\n", "r.csv", E2E, r"o\.tsv, line 4: expected 2 fields"),
        ("o.tsv", "id\ttext\tmore\n", "r.csv", E2E, r"line 1: expected the columns mr and output"),
        ("o.tsv", "just text\n", "r.csv", E2E, r"o\.tsv, line 1: expected the columns"),
        ("o.csv", 'output\n"open\n', "r.txt", BLOCKS, r"o\.csv, line 2: not valid CSV"),
        (
            "o.tsv",
            f"{MR_OUTPUTS}{PUB}\tagain\n",
            "r.csv",
            E2E,
            r"o\.tsv, line 4: a second output for the MR 'name\[The Vaults\].*line 3",
        ),
        (
            "o.tsv",
            f"{MR_OUTPUTS}name[Else]\tx\n",
            "r.csv",
            E2E,
            r"o\.tsv, line 4: r\.csv has no record with the MR 'name\[Else\]'",
        ),
        (
            "o.tsv",
            f"MR\toutput\n{PUB}\tx\n",
            "r.csv",
            E2E,
            r"o\.tsv: no output for the MR 'name\[Aromi\].*' of r\.csv, line 4",
        ),
        ("o.tsv", "MR\toutput\tref\n", None, None, r"o\.tsv: is empty"),
        ("o.txt", "a\n", None, None, r"o\.txt: is plain text, which holds no references"),
        ("o.jsonl", '{"output": "x"}\n', None, None, r"line 1: field 'references' is missing"),
        ("o.tsv", MR_OUTPUTS, None, None, r"expected the columns mr and output and references"),
    ],
)
def test_mistakes_are_named(
    name: str,
    outputs: str | bytes | None,
    other: str | None,
    references: str | bytes | None,
    message: str,
    write: Write,
) -> None:
    for file, content in ((name, outputs), (other, references)):
        if file is not None and content is not None:
            write(file, content)
    with pytest.raises(DataError, match=message):
        read_pairs(Path(name), None if other is None else Path(other))


def test_a_folder_is_no_file(write: Write, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_pairs(tmp_path, write("r.txt", BLOCKS))


def test_files_in_another_encoding(tmp_path: Path) -> None:
    for name, text in (("o.txt", "café\n"), ("r.txt", "thé\n")):
        (tmp_path / name).write_text(text, encoding="latin-1")
    (tmp_path / "o.csv").write_text("mr,output,ref\na,café,thé\n", encoding="latin-1")
    pairs = read_pairs(tmp_path / "o.txt", tmp_path / "r.txt", encoding="latin-1")
    assert pairs == (["café"], [("thé",)])
    assert read_pairs(tmp_path / "o.csv", encoding="latin-1") == pairs
    with pytest.raises(DataError, match=r"o\.txt, line 1: .*UTF-8"):
        read_pairs(tmp_path / "o.txt", tmp_path / "r.txt")
