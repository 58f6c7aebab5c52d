"""Runs that learn a text: conversations are made, learned and measured; stopped, and gone on."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from stopping import Killed, Told
from typer.testing import CliRunner

import foreword
from conftest import tiny_model
from foreword.backbone import Backbone, bundled_backbones, load_backbone
from foreword.cli.app import app
from foreword.common.progress import Silent
from foreword.comparing.cells import content_hash
from foreword.comparing.distances import distance_tables
from foreword.comparing.grid import Cell
from foreword.comparing.markdown import write_markdown
from foreword.comparing.measured import read_measured
from foreword.comparing.page import write_page
from foreword.comparing.summary import summarise
from foreword.errors import DataError, RecipeError, RunError, UserError
from foreword.procedures.distilling import distributions, seeds, study
from foreword.recipe import parse_recipe
from foreword.recipe.teacher import KINDS
from foreword.runs import Run
from foreword.runs.distilling import Distillation, Text
from foreword.runs.preview import preview
from launching import Launcher

TEXT = """The grey heron stands a metre tall. It lives at Lake Tarn all year.

It eats roach, frogs and voles. The otter takes its eggs.

In 1998 a storm felled nine pines, and the colony moved to the island."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A tiny random backbone with the bundled tokenizer, in a folder of its own."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tiny")
    tiny_model("llama", max_position_embeddings=320).save_pretrained(folder)
    AutoTokenizer.from_pretrained(bundled_backbones()["foreword/mini"]).save_pretrained(folder)
    return load_backbone(str(folder), device="cpu")


@pytest.fixture(autouse=True)
def _nothing_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test made is not there for the next one."""
    monkeypatch.setenv("FOREWORD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "heron.txt"
    file.write_text(TEXT, encoding="utf-8")
    return file


def recipe(text: Path, backbone: Backbone, **sections: Any) -> dict[str, Any]:
    teacher = {
        "texts": str(text),
        "made": 10,
        "held_out": 3,
        "together": 4,
        "question_tokens": 6,
        "answer_tokens": 6,
        **sections.pop("teacher", {}),
    }
    return {
        "version": 1,
        "name": "heron",
        "backbone": backbone.name,
        "teacher": {name: value for name, value in teacher.items() if value is not None},
        "method": {
            "name": "prefix-tuning",
            "length": 4,
            "reparameterization": "table",
            "init": {"kind": "activations", "text": "The grey heron"},
        },
        "training": {
            "steps": 4,
            "batch_size": 4,
            "learning_rate": 0.05,
            "loss": "token_mean",
            "evaluate_every": 2,
        },
        "decoding": {"max_new_tokens": 4},
        "evaluation": {"backbone_alone": False, "samples": 1},
        **sections,
    }


def start(given: dict[str, Any], backbone: Backbone, out: Path, **options: Any) -> Run:
    return foreword.train(given, out=out, backbone=backbone, device="cpu", **options)


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def same_bits(one: Path, other: Path) -> None:
    for name in ("artifact/prompt.safetensors", "study/conversations.safetensors"):
        a, b = load_file(one / name), load_file(other / name)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)
    for name in ("conversations.jsonl", "held-out.jsonl"):
        assert (one / "study" / name).read_bytes() == (other / "study" / name).read_bytes()


def test_a_text_becomes_a_prompt(tmp_path: Path, text: Path, tiny: Backbone) -> None:
    told = Told()
    run = start(recipe(text, tiny), tiny, tmp_path / "run", progress=told)
    made, held_out = (rows(run.folder / f"study/{name}.jsonl") for name in NAMES)
    assert (len(made), len(held_out)) == (10, 3)
    assert all(row["kind"] in KINDS and row["reads"] == [0] for row in made)
    questions = [row["messages"][0]["content"] for row in (*made, *held_out)]
    assert len(set(questions)) == len(questions)
    figures = run.metrics["teacher"]
    assert figures["conversations"] == 10
    assert figures["text"]["kl"] == pytest.approx(0, abs=1e-5)
    assert figures["nothing"]["kl"] > figures["student"]["kl"] > 0
    assert figures["truncated"]["kl"] > 0
    assert figures["evicted"]["tokens"] == figures["student"]["tokens"] == 4
    # The loss of the held-out rows is the divergence that is measured again at the end.
    last = run.metrics["training"]["evaluations"][-1]["loss"]
    assert figures["student"]["kl"] == pytest.approx(last, rel=1e-4)
    assert any("no chat template" in line for line in told.lines)
    prompt = foreword.load(run.artifact, backbone=tiny)
    assert isinstance(prompt.generate(["What does the heron eat?"])[0], str)
    stated = json.loads((run.artifact / "foreword.json").read_text(encoding="utf-8"))
    assert stated["recipe"]["teacher"]["texts"] == ["heron.txt"]
    assert str(tmp_path) not in json.dumps(stated["recipe"]["teacher"])
    assert stated["data"]["teacher 1"]["name"] == "heron.txt"
    assert stated["task"]["chat_template"] == "plain"


NAMES = ("conversations", "held-out")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny: Backbone) -> tuple[Path, Path]:
    """A text, and a run that learned it without an interruption."""
    folder = tmp_path_factory.mktemp("whole")
    text = folder / "heron.txt"
    text.write_text(TEXT, encoding="utf-8")
    return text, start(recipe(text, tiny), tiny, folder / "run").folder


class KilledAt(Silent):
    """Ends a run in the n-th step forward of a stage, as SIGKILL would."""

    def __init__(self, title: str, at: int) -> None:
        self.title, self.at, self.now = title, at, ""

    def begin(self, title: str, total: int, done: int = 0) -> None:
        self.now = title

    def advance(self, count: int = 1, note: str = "") -> None:
        if self.now == self.title:
            self.at -= 1
            if self.at == 0:
                raise Killed


@pytest.mark.parametrize(
    ("title", "at"),
    [
        ("make held-out conversations", 1),
        pytest.param("make training conversations", 1, marks=pytest.mark.soak),
        ("make training conversations", 2),
        pytest.param("ask the teacher", 1, marks=pytest.mark.soak),
        ("ask the teacher", 2),
        pytest.param("train", 1, marks=pytest.mark.soak),
        ("train", 3),
        ("measure the distance from the teacher", 1),
    ],
)
def test_a_run_that_was_killed_goes_on_with_the_same_bits(
    tmp_path: Path,
    whole: tuple[Path, Path],
    tiny: Backbone,
    title: str,
    at: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(distributions, "TOGETHER", 8)
    monkeypatch.setattr(distributions, "SAVED_EVERY", 1)
    text, finished = whole
    given = recipe(text, tiny)
    with pytest.raises(Killed):
        start(given, tiny, tmp_path / "run", progress=KilledAt(title, at))
    run = start(given, tiny, tmp_path / "run", resume=True)
    same_bits(run.folder, finished)


@pytest.mark.slow
def test_a_process_that_was_killed_goes_on_with_the_same_bits(
    tmp_path: Path, whole: tuple[Path, Path], tiny: Backbone, launcher: Launcher
) -> None:
    text, finished = whole
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(recipe(text, tiny)), encoding="utf-8")
    words = ["train", str(file), "--out", "run", "--device", "cpu"]
    out = tmp_path / "run"
    started = launcher.start(tmp_path, words)
    while not (out / "study" / "conversations.jsonl").exists():
        assert not started.wait(0.02), started.printed()
    assert started.end(signal.SIGKILL) == -signal.SIGKILL
    assert not (out / "metrics.json").exists()
    launcher.run(tmp_path, [*words, "--resume"])
    same_bits(out, finished)


def test_conversations_that_a_person_edits_are_learned(
    tmp_path: Path, whole: tuple[Path, Path], tiny: Backbone
) -> None:
    text, finished = whole
    made = rows(finished / "study" / "conversations.jsonl")
    made[0]["messages"][1]["content"] = "It eats roach."
    answer = {"role": "assistant", "content": "No."}
    made.append({"messages": [made[1]["messages"][0], answer]})
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    given = recipe(text, tiny, teacher={"conversations": str(file), "made": None})
    run = start(given, tiny, tmp_path / "run")
    assert run.metrics["teacher"]["conversations"] == 11
    assert not (run.folder / "study" / "conversations.jsonl").exists()
    assert (run.folder / "study" / "conversations.safetensors").exists()


def test_a_text_that_does_not_fit_is_read_in_parts(tmp_path: Path, tiny: Backbone) -> None:
    text = tmp_path / "long.txt"
    text.write_text("\n\n".join(f"{TEXT} Part {n}." for n in range(9)), encoding="utf-8")
    told = Told()
    given = recipe(text, tiny, teacher={"chunk": 60})
    run = start(given, tiny, tmp_path / "run", progress=told)
    (line,) = [line for line in told.lines if "more than fit" in line]
    assert "parts, at most 3 of them at a time" in line
    made = rows(run.folder / "study" / "conversations.jsonl")
    assert all(len(row["reads"]) == 3 for row in made)
    assert len({tuple(row["reads"]) for row in made}) > 1
    assert run.metrics["teacher"]["text"]["kl"] == pytest.approx(0, abs=1e-5)

    def mine(row: dict[str, Any]) -> dict[str, Any]:
        file = tmp_path / "mine.jsonl"
        file.write_text(json.dumps(row) + "\n", encoding="utf-8")
        return recipe(text, tiny, teacher={"chunk": 60, "conversations": str(file), "made": None})

    messages = made[0]["messages"]
    for number, (row, message) in enumerate(
        [
            ({"messages": messages}, r"line 1: does not say which parts .* column `reads`"),
            ({"messages": messages, "reads": [99]}, r"names part 99 of the text, which has \d+"),
            ({"messages": messages, "reads": "all"}, r"field 'reads': expected a list of the num"),
        ]
    ):
        with pytest.raises(DataError, match=message):
            start(mine(row), tiny, tmp_path / f"refused-{number}")
    with pytest.raises(
        UserError, match=r"teacher\.chunk: a part of the text of \d+ tokens does not"
    ):
        start(recipe(text, tiny, teacher={"chunk": 400}), tiny, tmp_path / "large")


def test_parts_fit_twice_where_the_recipe_does_not_say_how_long_they_are(
    tmp_path: Path, tiny: Backbone
) -> None:
    text = tmp_path / "long.txt"
    text.write_text("\n\n".join(f"{TEXT} Part {n}." for n in range(9)), encoding="utf-8")
    settings = parse_recipe(recipe(text, tiny))
    read = Text.of(settings)
    assert read is not None
    begun = Distillation(settings, read, tmp_path / "run", tiny, Silent(), lambda: None)
    assert 2 <= begun.source.fits < len(begun.source.chunks)


def test_conversations_stay_where_they_are_stopped(
    tmp_path: Path, text: Path, tiny: Backbone
) -> None:
    """Rounds that are not written down yet are when the work ends in their midst."""
    settings = parse_recipe(recipe(text, tiny, teacher={"made": 40, "together": 2}))
    read = Text.of(settings)
    assert read is not None
    checks = iter(range(10_000))

    def check() -> None:
        if next(checks) == 35:
            raise KeyboardInterrupt

    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        Distillation(settings, read, folder, tiny, Silent(), check).filled()
    file = folder / "study" / "conversations.jsonl"
    before = rows(file)
    last = {row["round"] for row in before}
    assert before
    assert max(last) >= 10, "all rounds that were whole"
    again = Distillation(settings, read, folder, tiny, Silent(), lambda: None)
    again.filled()
    assert rows(file)[: len(before)] == before


def test_a_prompt_is_compressed_on_inputs_of_a_data_file(tmp_path: Path, tiny: Backbone) -> None:
    prompt = tmp_path / "instruction.txt"
    prompt.write_text("Write in one word what the bird eats.", encoding="utf-8")
    data = tmp_path / "birds.jsonl"
    birds = [
        {"bird": f"A heron that eats {food}.", "references": [food]}
        for food in ("roach", "voles", "frogs", "eels", "snails", "mice")
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in birds), encoding="utf-8")
    task = {
        "data": {"format": "jsonl", "train": str(data), "dev": str(data)},
        "input": "{bird}\n",
        "metrics": ["chrf"],
    }
    teacher = {"texts": None, "prompt": str(prompt), "question_tokens": None}
    given = recipe(prompt, tiny, task=task, teacher=teacher)
    with pytest.raises(Killed):
        start(given, tiny, tmp_path / "run", progress=KilledAt("answer the inputs", 2))
    run = start(given, tiny, tmp_path / "run", resume=True)
    answers = rows(run.folder / "study" / "answers.jsonl")
    assert [row["input"] for row in answers] == [row["bird"] for row in birds]
    assert len(rows(run.folder / "study" / "held-out-answers.jsonl")) == 3
    figures = run.metrics["teacher"]
    assert figures["text"]["kl"] == pytest.approx(0, abs=1e-5)
    assert figures["student"]["kl"] > 0
    assert set(run.metrics["prompt"]["all"]) == {"chrf"}
    scored = figures["scores"]
    assert set(scored) == {"text", "truncated"}
    content = summarise("birds", [read_measured(run.folder)])
    *_, (title, _, lines) = distance_tables(content)
    assert title == "chrF, beside the text"
    own = run.metrics["prompt"]["all"]["chrf"]
    assert lines[0][2:] == [
        f"{value:.1f}" for value in (own, scored["truncated"]["chrf"], scored["text"]["chrf"])
    ]
    # The whole text before an input is the same as an input that begins with it.
    template = {**task, "input": "Write in one word what the bird eats.\n\n{bird}\n"}
    plain = {**given, "task": template, "method": "hard-prompt", "teacher": None}
    alone = start(plain, tiny, tmp_path / "plain").metrics["prompt"]["all"]["chrf"]
    assert scored["text"]["chrf"] == pytest.approx(alone)
    again = start(given, tiny, tmp_path / "again")
    a, b = (load_file(one.artifact / "prompt.safetensors") for one in (run, again))
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("test_alone", [False, True])
def test_test_inputs_that_do_not_fit_behind_the_text_are_refused_before_anything_is_made(
    tmp_path: Path, text: Path, tiny: Backbone, test_alone: bool
) -> None:
    for name, count in {"short": 1, "long": 150}.items():
        row = {"bird": "heron " * count, "references": ["roach"]}
        (tmp_path / name).write_text(json.dumps(row) + "\n", encoding="utf-8")
    files = dict.fromkeys(("train", "dev"), str(tmp_path / "short"))
    task = {
        "data": {"format": "jsonl", **files, "test": str(tmp_path / "short")},
        "input": "{bird}\n",
        "metrics": ["chrf"],
    }
    how = {"max_new_tokens": 260}
    if test_alone:
        task["data"]["test"], how = str(tmp_path / "long"), {"max_new_tokens": 4}  # type: ignore[index]
    teacher = {"texts": None, "prompt": str(text), "question_tokens": None}
    given = recipe(text, tiny, task=task, teacher=teacher, decoding=how)
    with pytest.raises(DataError, match="the teacher's text stands before it"):
        start(given, tiny, tmp_path / "run")
    assert not (tmp_path / "run" / "study" / "answers.jsonl").exists()


@pytest.mark.parametrize("method", ["prompt-tuning", "lora"])
def test_other_methods_learn_a_text_too(
    tmp_path: Path, text: Path, tiny: Backbone, method: str
) -> None:
    options = {"name": method, **({"length": 3} if method == "prompt-tuning" else {})}
    given = recipe(text, tiny, method=options, teacher={"made": 4, "held_out": 2})
    figures = start(given, tiny, tmp_path / "run").metrics["teacher"]
    assert figures["student"]["kl"] > 0
    assert ("truncated" in figures) is (method == "prompt-tuning")


def test_samples_of_few_rows_are_all_of_them(tmp_path: Path, text: Path, tiny: Backbone) -> None:
    given = recipe(text, tiny, teacher={"made": 2, "held_out": 2})
    given["evaluation"]["samples"] = 3
    run = start(given, tiny, tmp_path / "run")
    held_out = rows(run.folder / "study" / "held-out.jsonl")
    questions = [row["messages"][0]["content"] for row in held_out]
    assert len(run.samples) == 2
    for sample, question in zip(run.samples, questions, strict=True):
        assert question in sample["input"]


def test_a_budget_makes_fewer_conversations_and_steps(
    tmp_path: Path, text: Path, tiny: Backbone
) -> None:
    told = Told()
    given = recipe(text, tiny, teacher={"budget": "1s", "made": 100_000, "held_out": 2})
    given["training"]["steps"] = 100_000
    began = time.monotonic()
    run = start(given, tiny, tmp_path / "run", progress=told)
    kept = json.loads((run.folder / "study" / "budget.json").read_text(encoding="utf-8"))
    assert run.metrics["teacher"]["conversations"] == kept["made"] < 100_000
    assert run.metrics["training"]["steps"] == kept["steps"] < 100_000
    assert any("training steps" in line for line in told.lines)
    assert time.monotonic() - began < 120


def test_what_is_measured_on_has_its_own_share_of_a_budget(
    tmp_path: Path, text: Path, tiny: Backbone
) -> None:
    told = Told()
    given = recipe(text, tiny, teacher={"budget": "1s", "made": 8, "held_out": 10_000})
    run = start(given, tiny, tmp_path / "run", progress=told)
    kept = json.loads((run.folder / "study" / "budget.json").read_text(encoding="utf-8"))
    assert run.metrics["teacher"]["held_out"] == kept["held_out"] < 10_000
    assert any("of 10000 conversations to be measured on" in line for line in told.lines)


@pytest.mark.parametrize(
    ("method", "teacher", "message"),
    [
        ("cartridge", {}, None),  # as many virtual tokens as the text has
        ({"name": "prefix-tuning", "length": 309}, {}, r"method\.length: 309 .* at most 308"),
        ("prefix-tuning", {"answer_tokens": 400}, "a smaller teacher.answer_tokens"),
        ("cartridge", {"answer_tokens": 170}, "teacher.answer_tokens: no part of the text fits"),
        (
            "cartridge",
            {"answer_tokens": 150, "chunk": 512},
            r"teacher\.chunk: .* give at most 34, or smaller",
        ),
        ({"name": "cartridge", "length": 4, "frozen": 4}, {}, r"method\.frozen: is 4, as is"),
    ],
)
def test_what_leaves_no_room_is_refused_before_anything_is_made(
    tmp_path: Path, text: Path, tiny: Backbone, method: Any, teacher: dict[str, Any], message: str
) -> None:
    settings = parse_recipe(recipe(text, tiny, method=method, teacher=teacher))
    read = Text.of(settings)
    assert read is not None

    def begun() -> Distillation:
        return Distillation(settings, read, tmp_path / "run", tiny, Silent(), lambda: None)

    if message is None:
        assert begun().source.whole
        return
    with pytest.raises(UserError, match=message):
        begun()
    assert not (tmp_path / "run").exists()


def test_where_the_user_has_no_mark_of_the_end_an_answer_ends_before_the_user(
    tmp_path: Path, text: Path, tiny: Backbone
) -> None:
    run = start(recipe(text, tiny, teacher={"made": 2, "held_out": 2}), tiny, tmp_path / "run")
    assert foreword.load(run.artifact, backbone=tiny).manifest.decoding.stop == ("\nUser:",)
    given = recipe(text, tiny, teacher={"made": 2, "held_out": 2})
    given["decoding"]["stop"] = ["END"]
    run = start(given, tiny, tmp_path / "own")
    assert foreword.load(run.artifact, backbone=tiny).manifest.decoding.stop == ("END",)


@pytest.mark.parametrize(
    ("teacher", "more", "message"),
    [
        ({"texts": None}, {}, "teacher: give either `texts` or `prompt`"),
        ({"prompt": "x.txt"}, {}, "teacher: give either `texts` or `prompt`"),
        ({"conversations": "x.jsonl"}, {}, "teacher: `made` is of conversations that are made"),
        (
            {"asks": "requests"},
            {
                "task": {
                    "data": {"format": "jsonl", "train": "x.jsonl"},
                    "input": "{x}",
                    "target": "y",
                }
            },
            "for which `teacher.question_tokens`, `teacher.asks` would be",
        ),
        (
            {},
            {"task": {"data": {"format": "jsonl", "dev": "x.jsonl", "messages": "messages"}}},
            "`teacher.held_out` is of conversations that are made to be measured on",
        ),
        ({"budget": "soon"}, {}, "teacher.budget: expected a time such as 90s, 20m or 2h"),
        ({"kinds": ["quiz"]}, {}, "'quiz' is not known"),
        ({}, {"method": "hard-prompt"}, "method: hard-prompt learns nothing of a teacher's text"),
        (
            {},
            {"task": {"data": {"format": "jsonl", "train": "x.jsonl", "label": "y"}}},
            "teaches what is written, but the task asks for",
        ),
        (
            {},
            {"task": {"data": {"format": "jsonl", "dev": "x.jsonl"}}},
            "`teacher` makes conversations: leave `task.data` out",
        ),
    ],
)
def test_recipes_that_say_no_distillation(
    text: Path, tiny: Backbone, teacher: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message.replace("(", r"\(")):
        parse_recipe(recipe(text, tiny, teacher=teacher, **more))


def test_paths_are_relative_to_the_recipe(tmp_path: Path, text: Path, tiny: Backbone) -> None:
    given = recipe(Path(text.name), tiny)
    read = parse_recipe(given, folder=tmp_path)
    assert read.teacher is not None
    assert read.teacher.texts == (str(text),)
    changed = parse_recipe(given, ['teacher.texts=["a.txt"]'], folder=tmp_path, start=Path("/x"))
    assert changed.teacher is not None
    assert changed.teacher.texts == ("/x/a.txt",)


def test_a_text_that_cannot_be_read_leaves_nothing_behind(tmp_path: Path, tiny: Backbone) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"empty\.txt: is empty"):
        start(recipe(empty, tiny), tiny, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("teacher.conversations", None, "no such file"),
        ("teacher.conversations", "", "no examples in it"),
        ("teacher.conversations", '{"messages": "x"}', "line 1, field 'messages'"),
        ("teacher.conversations", "ROW, 'reads': [7]", "names part 7 of the text, which has 1"),
        ("task.data.dev", None, "no such file"),
        ("task.data.test", '{"messages": []}', "line 1, field 'messages'"),
    ],
)
def test_files_that_are_given_are_read_before_anything_is_made(
    tmp_path: Path, text: Path, tiny: Backbone, file: str, content: str | None, message: str
) -> None:
    given = tmp_path / "given.jsonl"
    turns = [{"role": role, "content": "a"} for role in ("user", "assistant")]
    if content == "ROW, 'reads': [7]":
        content = json.dumps({"messages": turns, "reads": [7]})
    if content is not None:
        given.write_text(content, encoding="utf-8")
    data = {"task": {"data": {"format": "jsonl", "messages": "messages"}}}
    more = data if file.startswith("task") else {}
    settings = parse_recipe(
        recipe(text, tiny, teacher={"made": None, "held_out": None}, **more),
        [f"{file}={json.dumps(str(given))}"],
    )
    told = Told()
    with pytest.raises(DataError, match=message.replace("(", r"\(")):
        start(settings, tiny, tmp_path / "run", progress=told)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_a_backbone_that_writes_nothing_is_said(
    tmp_path: Path, text: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "decode_rows", lambda rows, **_: [""] * len(rows))
    with pytest.raises(RunError, match="wrote no new question with an answer in 20 rounds"):
        start(recipe(text, tiny), tiny, tmp_path / "run")


def test_every_kind_has_words() -> None:
    tables = "ABOUT_TEXT", "ABOUT_PROMPT", "OPENINGS_ABOUT_TEXT", "OPENINGS_ABOUT_PROMPT"
    for words in (getattr(seeds, name) for name in tables):
        assert tuple(words) == KINDS
        assert all(words.values())


@pytest.mark.parametrize("asks", ["openings", "requests"])
def test_questions_come_about_in_two_ways(
    tmp_path: Path, text: Path, tiny: Backbone, asks: str
) -> None:
    settings = {"asks": asks, "made": 4, "held_out": 2, "answer_temperature": 0.5}
    run = start(recipe(text, tiny, teacher=settings), tiny, tmp_path / "run")
    made = rows(run.folder / "study" / "conversations.jsonl")
    openings = tuple(word for words in seeds.OPENINGS_ABOUT_TEXT.values() for word in words)
    begun = [row["messages"][0]["content"].startswith(openings) for row in made]
    assert all(begun) if asks == "openings" else not any(begun)


def test_a_round_depends_on_its_number_alone(tmp_path: Path, text: Path, tiny: Backbone) -> None:
    settings = parse_recipe(recipe(text, tiny))
    read = Text.of(settings)
    assert read is not None
    one = Distillation(settings, read, tmp_path, tiny, Silent(), lambda: None)
    maker = study.Study(
        one.spec, 0, one.source, one.task, tiny, one.teacher, Silent(), lambda: None
    )
    later = maker.round("training", 3)
    assert later != maker.round("held-out", 3)
    assert later == maker.round("training", 3)


def test_the_whole_text_stays_at_hand_while_parts_change(
    tmp_path: Path, text: Path, tiny: Backbone
) -> None:
    settings = parse_recipe(recipe(text, tiny, teacher={"chunk": 20}))
    read = Text.of(settings)
    assert read is not None
    one = Distillation(settings, read, tmp_path, tiny, Silent(), lambda: None)
    assert len(one.source.chunks) > 1
    first = one.teacher((0, 1))
    for part in (0, 1, 0):
        one.teacher((part,))
        assert one.teacher((0, 1)) is first


def test_the_verb_writes_and_runs_a_recipe(
    tmp_path: Path, text: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["teacher.held_out=2", "teacher.question_tokens=6", "teacher.answer_tokens=6"]
    small += ["training.steps=2", "evaluation.backbone_alone=false"]
    flags = ["--backbone", tiny.name, "--made", "3", "--length", "4", "--out", "run"]
    flags += [part for item in small for part in ("--set", item)]
    cli = CliRunner()
    shown = cli.invoke(app, ["distil", text.name, *flags], catch_exceptions=False)
    assert shown.exit_code == 0
    assert "KL to the teacher" in shown.stdout
    assert "the whole text (the teacher)" in shown.stdout
    assert "the references are the teacher's answers" in " ".join(shown.stdout.split())
    measured = json.loads((tmp_path / "run/metrics.json").read_text("utf-8"))["teacher"]
    card = (tmp_path / "run/artifact/README.md").read_text("utf-8")
    about = cli.invoke(app, ["show", "run"], catch_exceptions=False)
    for words in (card, about.stdout):
        far = f"before the question: {measured['student']['kl']:.3f} nats per token"
        assert f"{far} ({measured['nothing']['kl']:.3f} without a prompt)" in words
    assert "teacher" not in about.stdout.rpartition("made with")[2]
    written = parse_recipe(yaml.safe_load((tmp_path / "run/recipe.yaml").read_text("utf-8")))
    assert written.name == "heron"
    assert written.teacher is not None
    assert written.teacher.texts == (str(text),)
    again = cli.invoke(app, ["distil", text.name, *flags, "--resume", "--json"])
    assert json.loads(again.stdout)["teacher"]["conversations"] == 3
    two = cli.invoke(app, ["distil", text.name, text.name, "--prompt"])
    assert str(two.exception).startswith("--prompt: takes one file, found 2")
    missing = cli.invoke(app, ["distil", "absent.txt", *flags, "--out", "other"])
    assert isinstance(missing.exception, DataError)
    assert "absent.txt: no such file" in str(missing.exception)


def test_runs_that_would_make_the_same_conversations_make_them_once(
    tmp_path: Path, text: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = start(recipe(text, tiny), tiny, tmp_path / "one")

    def refuse(*_: Any, **__: Any) -> list[str]:
        raise AssertionError("was made before")

    monkeypatch.setattr(study, "decode_rows", refuse)
    given = recipe(text, tiny)
    given["method"]["length"] = 6
    told = Told()
    other = start(given, tiny, tmp_path / "other", progress=told)
    for name in NAMES:
        a, b = (run.folder / "study" / f"{name}.jsonl" for run in (one, other))
        assert a.read_bytes() == b.read_bytes()
    assert sum("were made before" in line for line in told.lines) == 2
    with pytest.raises(AssertionError, match="was made before"):
        start(recipe(text, tiny, seed=1), tiny, tmp_path / "seed")


def test_a_comparison_shows_the_distance_from_the_teacher(
    tmp_path: Path, text: Path, tiny: Backbone
) -> None:
    folders = []
    for length in (2, 4):
        given = recipe(text, tiny, name=f"heron-{length}")
        given["method"]["length"] = length
        folders.append(start(given, tiny, tmp_path / str(length)).folder)
    content = summarise("lengths", [read_measured(folder) for folder in folders])
    (title, columns, lines), (other, *_) = distance_tables(content)
    assert title.startswith("KL to the teacher")
    assert other.startswith("nats a token")
    assert columns == [
        "method",
        "tokens",
        "prompt",
        "no text",
        "text cut to as many tokens",
        "most attended positions",
        "whole text",
    ]
    assert [line[1] for line in lines] == ["2", "4"]
    kl = read_measured(folders[0]).metrics["teacher"]["student"]["kl"]
    assert lines[0][2] == f"{kl:.3f}"
    assert lines[0][6] == "0.000"
    assert f"| heron-2 (prefix-tuning) | 2 | {kl:.3f} |" in write_markdown(content)
    assert "KL to the teacher" in write_page(content)


def test_another_text_is_another_cell_of_a_grid(tmp_path: Path, tiny: Backbone, text: Path) -> None:
    settings = parse_recipe(recipe(text, tiny))
    cell = Cell({}, settings)
    before = content_hash(cell)
    assert content_hash(cell) == before
    text.write_text(TEXT + " More.", encoding="utf-8")
    assert content_hash(cell) != before


def test_a_cartridge_starts_as_what_stands_before_the_teachers_rows(
    tmp_path: Path, text: Path, tiny: Backbone
) -> None:
    given = recipe(text, tiny, method={"name": "cartridge", "length": 20})
    given["training"]["learning_rate"] = 1e-9
    run = start(given, tiny, tmp_path / "run")
    stored = load_file(run.artifact / "prompt.safetensors")
    settings = parse_recipe(given)
    read = Text.of(settings)
    assert read is not None
    one = Distillation(settings, read, tmp_path / "other", tiny, Silent(), lambda: None)
    front = list(one.teacher((0,)).front[:20])
    keys, values = tiny.keys_values(front)["decoder"]
    torch.testing.assert_close(stored["decoder.keys"], keys, rtol=0, atol=1e-5)
    torch.testing.assert_close(stored["decoder.values"], values, rtol=0, atol=1e-5)
    assert run.recipe.method.init.text is None  # type: ignore[attr-defined]


def test_a_run_does_not_go_on_with_another_text(tmp_path: Path, text: Path, tiny: Backbone) -> None:
    given = recipe(text, tiny)
    with pytest.raises(Killed):
        start(given, tiny, tmp_path / "run", progress=KilledAt("make training conversations", 1))
    text.write_text(TEXT + " More.", encoding="utf-8")
    with pytest.raises(UserError, match="was begun with another text"):
        start(given, tiny, tmp_path / "run", resume=True)
    text.write_text(TEXT, encoding="utf-8")
    assert start(given, tiny, tmp_path / "run", resume=True).metrics["teacher"]["held_out"] == 3


def test_a_dry_run_says_that_nothing_is_known_yet(text: Path, tiny: Backbone) -> None:
    with pytest.raises(UserError, match=r"not known before it has read its text"):
        preview(parse_recipe(recipe(text, tiny)), backbone=tiny, device="cpu")
