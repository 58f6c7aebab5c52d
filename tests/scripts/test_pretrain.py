"""The pretraining script: what its examples are made of, and that a run can be cut anywhere."""

import gzip
import json
import lzma
import os
import signal
import sys
import time
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
)
from transformers.utils import logging

from launching import Launcher

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
VOCABULARY = ROOT / "src" / "foreword" / "bundled" / "mini" / "tokenizer.json"
FIELD_GUIDE = ROOT / "src" / "foreword" / "bundled" / "fieldguide"
OBJECTIVES = ("causal", "masked", "denoising")
SOME = [OBJECTIVES[0], *(pytest.param(one, marks=pytest.mark.soak) for one in OBJECTIVES[1:])]
"""One of them in every run of the tests, all of them in the long one."""
MODULES = (
    "pretrain",
    "pretrain_card",
    "pretrain_characters",
    "pretrain_measure",
    "pretrain_objectives",
    "pretrain_start",
    "pretrain_text",
    "recipe_texts",
)
SETTINGS = (
    "--width 32 --layers 1 --heads 2 --length 32 --long-length 64 --long-share 0.3 --rows 4 "
    "--warmup 2 --decay 0.5 --held-out-share 0.1 --no-compile --threads 1"
)
TINY = SETTINGS.split()
SUBJECTS = ("The miller", "A tall woman", "My uncle", "The old ferryman", "Her sister")
VERBS = ("carried", "found", "described", "forgot", "bought", "repainted")
OBJECTS = ("the lantern", "an unremarkable umbrella", "three letters", "a blue kettle")
VARIED = (
    "The ferryman had never seen so much water, and he told his wife that the bridge at Stanwell "
    "would not stand until morning. She laughed, put three letters into her basket, took an old "
    "blue umbrella from behind the door and walked down to see how high it really was today."
)
OPINIONS = (
    "房间很大",
    "早餐不错",
    "服务员很热情",
    "隔音太差",
    "ADSL网速2M",
    "位置方便",
    "价格有点贵",
)
PLACES = ("by the river", "in the churchyard", "before breakfast", "near Stanwell", "at night")


@pytest.fixture(autouse=True)
def modules(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, ModuleType]]:
    """The script's modules, found as it finds them itself; process-wide settings are set back.

    A curve is drawn for tests `with_pictures` alone.
    """
    monkeypatch.syspath_prepend(str(SCRIPTS))
    threads, verbosity = torch.get_num_threads(), logging.get_verbosity()
    found = {name: import_module(name) for name in MODULES}
    if "with_pictures" not in request.fixturenames:
        monkeypatch.setattr(found["pretrain"], "draw_curve", lambda file, _: file.touch())
    yield found
    for name in MODULES:
        sys.modules.pop(name)
    torch.set_num_threads(threads)
    logging.set_verbosity(verbosity)


@pytest.fixture
def text(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["pretrain_text"]


@pytest.fixture
def learned(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["pretrain_objectives"]


@pytest.fixture
def vocabulary(learned: ModuleType) -> Any:
    return learned.vocabulary_of(VOCABULARY.read_text("utf-8"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows()), "utf-8")
    return file


@cache
def rows() -> list[dict[str, str]]:
    dice = np.random.default_rng(3)

    def sentence() -> str:
        return " ".join(str(dice.choice(part)) for part in (SUBJECTS, VERBS, OBJECTS, PLACES)) + "."

    books = [" ".join(sentence() for _ in range(40)) for _ in range(12)]
    talks = ["\n".join(f"User: {sentence()}" for _ in range(4)) for _ in range(40)]
    return [
        *({"kind": "book", "text": one} for one in books),
        *({"kind": "dialogue", "text": one} for one in talks),
    ]


def pretrain(modules: dict[str, ModuleType], *arguments: object) -> int:
    status = modules["pretrain"].main([str(argument) for argument in arguments])
    assert isinstance(status, int)
    return status


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def windows_of(text: ModuleType, vocabulary: Any, count: int, length: int) -> list[Any]:
    stream = text.encode(vocabulary, [text.Document(**row) for row in rows()])
    return [stream.window(index, length) for index in range(count)]


# ---- text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "pack"), [("", None), (".xz", lzma), (".gz", gzip)])
def test_plain_and_packed_files_read_the_same(
    text: ModuleType, data: Path, suffix: str, pack: Any
) -> None:
    file = data.with_name(data.name + suffix)
    if pack is not None:
        with pack.open(file, "wb") as handle:
            handle.write(data.read_bytes())
    assert [vars(d) for d in text.read_documents(file)] == rows()


def test_a_line_that_is_no_text_is_named(text: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('{"kind": "book", "text": "One."}\n{"kind": "book"}\n', "utf-8")
    with pytest.raises(ValueError, match=r"bad\.jsonl:2: no object with kind and text"):
        list(text.read_documents(file))


def test_the_notations_of_the_sample_tasks_are_filtered(text: ModuleType) -> None:
    from foreword.data.example import linearise

    records = [
        json.loads(line)["record"]
        for split in ("train", "dev", "test")
        for line in (FIELD_GUIDE / f"{split}.jsonl").read_text("utf-8").splitlines()
    ]
    keep = text.Filter()
    inputs = [text.Document("record", f"{linearise(record)} -> It is.") for record in records]
    inputs.append(text.Document("record", "name[Blue Spice], eatType[coffee shop] -> It is."))
    assert list(keep(inputs)) == []
    assert keep.documents == {"record": len(records) + 1}


def test_only_the_line_goes_where_the_document_is_none_of_these(text: ModuleType) -> None:
    said = (
        "He said: wait.\n [Illustration: The quay]\nA | B\nname : Fox | type : bird\nSo it ended."
    )
    keep = text.Filter()
    (found,) = keep([text.Document("book", said)])
    assert found.text == said.replace("name : Fox | type : bird\n", "")
    assert keep.lines == {"book": 1}


def test_held_out_documents_are_of_every_kind_and_never_trained_on(text: ModuleType) -> None:
    documents = [text.Document(**row) for row in rows()]
    training, held_out = text.split([*documents, *documents[:9]], 0.1)
    assert {kind: len(found) for kind, found in held_out.items()} == {"book": 1, "dialogue": 4}
    trained = {document.text for document in training}
    away = {document.text for found in held_out.values() for document in found}
    assert not trained & away
    assert trained | away == {row["text"] for row in rows()}
    assert len(training) == len(trained)
    again, _ = text.split(reversed(documents), 0.1)
    assert {document.text for document in again} == trained


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_batches_hold_training_text_only(
    modules: dict[str, ModuleType], learned: ModuleType, data: Path, tmp_path: Path, objective: str
) -> None:
    """The windows that a run reads are those of the training stream, each once in a pass."""
    seen: list[int] = []
    taught = learned.OBJECTIVES[objective]
    plain = taught.batch

    def watched(self: Any, stream: Any, windows: Any, length: int, *more: Any) -> Any:
        if stream is streams["training"] and length == 32:
            seen.extend(windows.tolist())
        return plain(self, stream, windows, length, *more)

    streams: dict[str, Any] = {}
    load = modules["pretrain"].load_corpus

    def loaded(*arguments: Any, **named: Any) -> Any:
        corpus = load(*arguments, **named)
        streams.update(training=corpus.training, held_out=corpus.held_out)
        return corpus

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(taught, "batch", watched)
        patch.setattr(modules["pretrain"], "load_corpus", loaded)
        options = ["--data", data, "--out", tmp_path / "run", *TINY, "--tokens", 2000]
        assert pretrain(modules, objective, *options) == 0
    training = set(_documents(streams["training"].ids))
    for stream in streams["held_out"].values():
        assert not training & set(_documents(stream.ids))
    assert seen
    assert len(set(seen)) == len(seen)


def _documents(ids: np.ndarray) -> list[tuple[int, ...]]:
    ends = np.flatnonzero(ids == 0)
    return [tuple(part.tolist()) for part in np.split(ids, ends + 1)[:-1]]


def test_what_held_out_text_shares_with_training_is_measured(
    text: ModuleType, vocabulary: Any
) -> None:
    said = " ".join(f"{word} {index}" for index, word in enumerate(VERBS * 8))
    new = " ".join(f"{word} {index}" for index, word in enumerate(PLACES * 8))
    training = text.encode(vocabulary, [text.Document("book", one) for one in ("A.", said)])
    shares = [
        text.repeated(training, text.encode(vocabulary, [text.Document("book", one)]))
        for one in (said, new, f"{said} {new}", "A.")
    ]
    assert shares[0] == 1
    assert shares[1] == shares[3] == 0
    assert 0.3 < shares[2] < 0.7


# ---- characters --------------------------------------------------------------------------------


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """A CSV of labelled reviews, one of them twice."""
    dice = np.random.default_rng(4)
    texts = [
        "，".join(str(dice.choice(OPINIONS)) for _ in range(6)) + f"。第{number}次住！"
        for number in range(80)
    ]
    file = tmp_path / "reviews.csv"
    lines = [f"{number % 2},{text}" for number, text in enumerate([*texts, texts[0]])]
    file.write_text("\n".join(["label,review", *lines]) + "\n", "utf-8")
    return file


@pytest.fixture
def recipe(reviews: Path) -> Path:
    """A recipe that holds a part of them out."""
    file = reviews.with_name("recipe.yaml")
    file.write_text(
        "version: 1\nname: reviews\nbackbone: foreword/mini\n"
        f"task:\n  data: {{format: csv, train: {reviews}, label: label, hold_out: 0.2}}\n"
        '  input: "{review}"\nmethod: {name: p-tuning-v2, length: 4}\n',
        "utf-8",
    )
    return file


def test_what_a_recipe_measures_on_is_not_written(
    modules: dict[str, ModuleType], recipe: Path, tmp_path: Path
) -> None:
    """Against the run's own reading of the recipe."""
    from foreword.recipe import load_recipe
    from foreword.runs.data import read_examples

    out = tmp_path / "texts.jsonl"
    assert modules["recipe_texts"].main([str(recipe), "--kind", "review", "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    written = [row["text"] for row in rows]
    examples = read_examples(load_recipe(recipe))
    measured = {str(example.fields["review"]) for example in examples.test}
    assert len(measured) + len(written) == 80
    assert not measured & set(written)
    assert set(written) == {str(example.fields["review"]) for example in examples.train}
    assert len(written) == len(set(written)) > 60
    assert all(row.keys() == {"kind", "text"} and row["kind"] == "review" for row in rows)


def test_the_two_recipes_of_the_reviews_hold_out_the_same() -> None:
    from foreword.recipe import load_recipe

    folder = ROOT / "recipes" / "understanding"
    first, second = (
        load_recipe(folder / f"{name}.yaml") for name in ("chnsenticorp", "chnsenticorp-mini")
    )
    assert first.task.data == second.task.data
    assert first.task.input == second.task.input
    assert first.seed == second.seed == 0


def test_texts_that_cannot_be_written_are_said(
    modules: dict[str, ModuleType],
    recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "texts.jsonl"
    options = [str(recipe), "--kind", "review", "--out", str(out)]
    assert modules["recipe_texts"].main([*options, "--set", "task.input=Good"]) == 2
    assert "task.input: names no field" in capsys.readouterr().err
    assert modules["recipe_texts"].main([*options, "--set", "task.data.train=none.csv"]) == 2
    assert "none.csv" in capsys.readouterr().err
    assert not out.exists()


def test_characters_are_bert_s_word_pieces(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    """The same ids as BERT's own tokenizer gives with that vocabulary."""
    from transformers import BertTokenizer

    seen = [*OPINIONS, *OPINIONS, "Café 2M", "cafe 2M", "孤"]
    ours = modules["pretrain_characters"].characters_of(seen)
    entries = sorted(ours.get_vocab(), key=ours.token_to_id)
    assert entries[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert "孤" not in entries
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join(entries) + "\n", "utf-8")
    theirs = BertTokenizer(vocab=str(file))
    for text in (*seen, "房间 2M大，CAFÉ！", "孤房"):
        ids = ours.encode(text, add_special_tokens=False).ids
        assert ids == theirs(text, add_special_tokens=False)["input_ids"], text
    assert ours.encode("Café").tokens == ["c", "##a", "##f", "##e"]
    assert ours.decode(ours.encode("房间大 有点贵 cafe").ids) == "房间大有点贵 cafe"


def test_a_run_on_characters_leaves_a_model_and_a_card(
    modules: dict[str, ModuleType],
    recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    texts, out = tmp_path / "texts.jsonl", tmp_path / "run"
    modules["recipe_texts"].main([str(recipe), "--kind", "review", "--out", str(texts)])
    options = ["masked", "--data", texts, "--out", out, *TINY, "--positions", 64]
    options += ["--vocabulary", "characters"]
    assert pretrain(modules, *options, "--tokens", 1500) == 0
    assert pretrain(modules, *options, "--tokens", 2500, "--resume", "before-decay") == 0
    folder = out / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model, report = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.max_position_embeddings == tokenizer.model_max_length == 64
    assert model.config.pad_token_id == tokenizer.pad_token_id == 0
    ids = tokenizer("房[MASK]很大", "早餐孤")["input_ids"]
    said = ["[CLS]", "房", "[MASK]", "很", "大", "[SEP]", "早", "餐", "[UNK]", "[SEP]"]
    assert tokenizer.convert_ids_to_tokens(ids) == said
    card = " ".join((folder / "README.md").read_text("utf-8").split())
    assert "masked language modelling of characters" in card
    assert "64 positions" in card
    assert "Byte-level" not in card
    assert card.count("(was: `") > 0
    capsys.readouterr()
    assert pretrain(modules, *options[:-2], "--tokens", 6000, "--resume") == 2
    assert "vocabulary characters, now" in capsys.readouterr().err


def test_a_replaced_character_is_one_of_text(
    modules: dict[str, ModuleType], learned: ModuleType, text: ModuleType
) -> None:
    tokenizer = modules["pretrain_characters"].characters_of([*OPINIONS, *OPINIONS])
    taught = learned.Masked(tokenizer)
    stream = text.encode(tokenizer, [text.Document("review", one) for one in OPINIONS * 4])
    dice, said = np.random.default_rng(0), set()
    for index in range(200):
        ids, starts = stream.window(index % 5, 30)
        example = taught.example(ids, starts, dice)
        found = example["labels"] != learned.IGNORED
        said |= set(example["input_ids"][example["positions"][found]].tolist())
        assert not (example["labels"][found] == 0).any()
    assert not said & {0, 1, taught.cls, taught.sep}
    assert taught.mask in said
    assert len(said) > 20


def test_characters_are_for_masks(
    modules: dict[str, ModuleType],
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--data", data, "--out", tmp_path / "run", *TINY, "--tokens", 500]
    options += ["--vocabulary", "characters"]
    assert pretrain(modules, "causal", *options) == 2
    assert "is for the objective masked" in capsys.readouterr().err
    assert pretrain(modules, "masked", *options, "--embeddings", VOCABULARY.parent) == 2
    assert "other ids than --vocabulary characters" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "hidden"), [("酒[MASK]的位置很好。", "店"), ("服[MASK]员态度很好，房间也干净。", "务")]
)
def test_the_bundled_encoder_fills_in_a_character(text: str, hidden: str) -> None:
    from foreword.backbone import bundled_backbones, load_backbone

    folder = bundled_backbones()["foreword/mini-mlm-zh"]
    assert (folder / "model.safetensors").stat().st_size <= 8e6
    backbone = load_backbone("foreword/mini-mlm-zh")
    assert sum(parameter.numel() for parameter in backbone.model.parameters()) <= 4e6
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(text, return_tensors="pt")
    at = encoded["input_ids"][0].tolist().index(tokenizer.mask_token_id)
    with torch.no_grad():
        best = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32)(**encoded).logits
    assert tokenizer.convert_ids_to_tokens(int(best[0, at].argmax())) == hidden


# ---- a trained decoder --------------------------------------------------------------------------


def test_a_file_that_is_not_there(
    modules: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data", tmp_path / "none.jsonl", "--out", tmp_path / "run", "--tokens", 3000]
    assert pretrain(modules, "masked", *options) == 2
    assert "none.jsonl: no such file" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_decoder_is_measured_on_what_a_run_holds_out(
    modules: dict[str, ModuleType],
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The losses that the run itself wrote down."""
    out = tmp_path / "run"
    options = ["--data", data, "--out", out, *TINY, "--long-share", 0, "--tokens", 1500]
    assert pretrain(modules, "causal", *options) == 0
    folder = out / "model"
    given = [str(folder), "--data", str(data), "--held-out-share", "0.1"]
    capsys.readouterr()
    assert modules["pretrain_measure"].main([*given, "--length", "32"]) == 0
    said = capsys.readouterr().out.splitlines()
    about = json.loads((out / "run.json").read_text("utf-8"))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in said[2:4]]
    assert {row[0]: float(row[1]) for row in rows} == pytest.approx(about["held_out"], abs=0.006)
    documents = about["corpus"]["held_out_documents"]
    assert {row[0]: int(row[3]) for row in rows} == documents
    card = (folder / "README.md").read_text("utf-8")
    examples = "\n".join(said[5:]).strip()
    assert examples.count("\n- ") == 4
    assert examples in card
    assert modules["pretrain_measure"].main([*given, "--length", "1024"]) == 2
    assert "fewer positions" in capsys.readouterr().err
    given[0] = str(FIELD_GUIDE.parent / "mini-mlm")
    assert modules["pretrain_measure"].main(given) == 2
    assert "is bert; this measures decoders" in capsys.readouterr().err


# ---- objectives ---------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_ids_of_the_vocabulary_stay(learned: ModuleType, vocabulary: Any, objective: str) -> None:
    taught = learned.OBJECTIVES[objective](vocabulary, {"width": 32, "layers": 1, "heads": 2})
    ours = taught.tokenizer.get_vocab(with_added_tokens=True)
    assert {token: ours[token] for token in vocabulary.get_vocab()} == vocabulary.get_vocab()
    assert sorted(ours.values()) == list(range(taught.vocabulary))
    assert taught.model().get_input_embeddings().num_embeddings == taught.vocabulary


def test_masks_hit_whole_words(learned: ModuleType, text: ModuleType, vocabulary: Any) -> None:
    taught = learned.Masked(vocabulary)
    dice = np.random.default_rng(0)
    for ids, starts in windows_of(text, vocabulary, 20, 126):
        example = taught.example(ids, starts, dice)
        given, labels = example["input_ids"], example["labels"]
        assert given[0] == taught.cls
        assert given[-1] == taught.sep
        chosen = example["positions"][labels != learned.IGNORED] - 1
        np.testing.assert_array_equal(ids[chosen], labels[labels != learned.IGNORED])
        assert len(labels) == round(0.15 * 126)
        word = np.cumsum(starts)
        whole = np.flatnonzero(np.isin(word, word[chosen]))
        np.testing.assert_array_equal(np.sort(chosen), whole)
        masked = given[1:-1] == taught.mask
        for one in np.unique(word[chosen]):
            assert len(set(masked[word == one])) == 1
        assert not (ids[chosen] == 0).any()
        others = np.setdiff1d(np.arange(126), chosen)
        shown = np.where(ids == 0, taught.sep, ids)
        np.testing.assert_array_equal(given[1:-1][others], shown[others])


def test_word_starts_are_those_of_the_pre_tokenizer(text: ModuleType, vocabulary: Any) -> None:
    line = "An unremarkable umbrella, wasn't it?"
    stream = text.encode(vocabulary, [text.Document("book", line)])
    begins = [*np.flatnonzero(stream.starts[:-1]).tolist(), len(stream) - 1]
    words = [vocabulary.decode(stream.ids[begin:end].tolist()) for begin, end in pairwise(begins)]
    assert words == ["An", " unremarkable", " umbrella", ",", " wasn", "'t", " it", "?"]


def test_of_the_hidden_words_most_are_masks_and_some_stay(
    learned: ModuleType, text: ModuleType, vocabulary: Any
) -> None:
    taught = learned.Masked(vocabulary)
    dice = np.random.default_rng(0)
    shares = np.zeros(3)
    hidden = tokens = 0
    for ids, starts in windows_of(text, vocabulary, 30, 126) * 20:
        example = taught.example(ids, starts, dice)
        found = example["labels"] != learned.IGNORED
        given = example["input_ids"][example["positions"][found]]
        kept = given == example["labels"][found]
        masks = given == taught.mask
        shares += [masks.sum(), (~kept & ~masks).sum(), kept.sum()]
        hidden, tokens = hidden + found.sum(), tokens + len(ids)
    np.testing.assert_allclose(shares / shares.sum(), [0.8, 0.1, 0.1], atol=0.02)
    assert hidden / tokens == pytest.approx(0.15, abs=0.005)


def test_spans_restore_the_text(learned: ModuleType, text: ModuleType, vocabulary: Any) -> None:
    taught = learned.Denoising(vocabulary)
    dice = np.random.default_rng(0)
    length = taught.taken(128)
    noise, spans = learned.noise_of(length)
    for ids, starts in windows_of(text, vocabulary, 20, length):
        example = taught.example(ids, starts, dice)
        given, said = example["input_ids"], example["labels"]
        assert len(given) in (127, 128)
        assert len(given) == length - noise + spans + 1
        assert len(said) == noise + spans + 1
        assert given[-1] == said[-1] == taught.end
        sentinels = given[given >= taught.sentinel]
        np.testing.assert_array_equal(sentinels, taught.sentinel + np.arange(spans))
        np.testing.assert_array_equal(said[said >= taught.sentinel], sentinels)
        np.testing.assert_array_equal(learned.restore_spans(given, said, taught.sentinel), ids)


@pytest.mark.parametrize("share", [0.15, 0.4])
@pytest.mark.parametrize("tokens", [2, 3, 7, 20, 141, 568])
def test_spans_are_of_the_right_number_and_length(
    learned: ModuleType, tokens: int, share: float
) -> None:
    dice = np.random.default_rng(0)
    noise, spans = learned.noise_of(tokens, share)
    found = np.stack([learned.choose_spans(tokens, dice, share) for _ in range(200)])
    assert (found.sum(1) == noise).all()
    padded = np.pad(found, ((0, 0), (1, 0)))
    assert ((padded[:, 1:] & ~padded[:, :-1]).sum(1) == spans).all()
    assert found.any(0).all()
    assert learned.noise_of(141) == (21, 7)


def test_the_head_is_read_where_words_are_hidden(
    learned: ModuleType, text: ModuleType, vocabulary: Any
) -> None:
    """The same as the model's own loss with labels at the hidden positions."""
    taught = learned.Masked(vocabulary, {"width": 32, "layers": 2, "heads": 2})
    torch.manual_seed(0)
    model = taught.model().eval()
    stream = text.encode(vocabulary, [text.Document(**row) for row in rows()])
    batch = taught.batch(stream, np.arange(4), 64, [0, 0])
    labels = torch.full_like(batch["input_ids"], learned.IGNORED)
    labels.scatter_(1, batch["positions"], batch["labels"])
    mine = taught.loss(model, batch).sum() / taught.predicted(batch)
    theirs = model(input_ids=batch["input_ids"], labels=labels).loss
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_the_decoder_learns_what_transformers_would_teach(
    learned: ModuleType, text: ModuleType, vocabulary: Any
) -> None:
    taught = learned.Denoising(vocabulary, {"width": 32, "layers": 2, "heads": 2})
    torch.manual_seed(0)
    model = taught.model().eval()
    stream = text.encode(vocabulary, [text.Document(**row) for row in rows()])
    batch = taught.batch(stream, np.arange(4), 64, [0, 0])
    mine = taught.loss(model, batch).sum() / taught.predicted(batch)
    theirs = model(input_ids=batch["input_ids"], labels=batch["labels"]).loss
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_heads_look_beside_a_token_before_training(learned: ModuleType, vocabulary: Any) -> None:
    ids = torch.arange(100, 164).unsqueeze(0)
    torch.manual_seed(0)
    encoder = learned.Masked(vocabulary).model().eval()
    encoder.set_attn_implementation("eager")
    with torch.no_grad():
        seen = encoder.bert(input_ids=ids, output_attentions=True).attentions
    for layer, offsets in enumerate(learned.OFFSETS):
        assert tuple((seen[layer][0, :, 30].argmax(-1) - 30).tolist()) == offsets
    both = learned.Denoising(vocabulary).model().eval()
    both.set_attn_implementation("eager")
    with torch.no_grad():
        found = both(input_ids=ids, decoder_input_ids=ids[:, 10:40], output_attentions=True)
    beside = found.encoder_attentions[0][0, :6, 30].argmax(-1) - 30
    assert beside.tolist() == [-1, 1, -2, 2, -3, 3]
    before = found.decoder_attentions[0][0, :6, 20].argmax(-1) - 20
    assert before.tolist() == [-1, -1, -2, -2, -3, -4]
    across = found.cross_attentions[0][0].argmax(-1) == torch.arange(10, 40)
    assert across.float().mean() > 0.8


# ---- starting from a decoder --------------------------------------------------------------------


@pytest.fixture
def decoder(learned: ModuleType, vocabulary: Any, tmp_path: Path) -> Path:
    """A GPT-2 whose weights are large enough that a mistake shows."""
    torch.manual_seed(5)
    model = learned.Causal(vocabulary, {"width": 32, "layers": 3, "heads": 2}).model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3)
    model.save_pretrained(tmp_path / "decoder")
    return tmp_path / "decoder"


def test_without_cross_attention_the_start_is_the_decoder(
    modules: dict[str, ModuleType], learned: ModuleType, vocabulary: Any, decoder: Path
) -> None:
    start = modules["pretrain_start"]
    model = start.DenoisingFrom(vocabulary, decoder, [0], [0, 2], 64).model().eval()
    given = AutoModelForCausalLM.from_pretrained(decoder).eval()
    layers = given.transformer.h
    given.transformer.h = torch.nn.ModuleList([layers[0], layers[2]])
    ids = torch.randint(0, 8192, (3, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for layer in model.model.decoder.layers:
            layer.encoder_attn.out_proj.weight.zero_()
        mine = model(input_ids=ids, decoder_input_ids=ids).logits[..., :8192]
        theirs = given(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    targets = ids[:, 1:].flatten()
    losses = [
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), targets)
        for logits in (mine, theirs)
    ]
    assert losses[0] == pytest.approx(float(losses[1]), rel=1e-5)


def test_both_stacks_take_the_layers_that_were_named(
    modules: dict[str, ModuleType],
    vocabulary: Any,
    decoder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(modules["pretrain_start"], "look_up", lambda model: None)
    model = modules["pretrain_start"].DenoisingFrom(vocabulary, decoder, [1, 0], [2], 64).model()
    body = AutoModelForCausalLM.from_pretrained(decoder).transformer
    pairs = [*zip(model.model.encoder.layers, (1, 0), strict=True)]
    pairs.append((model.model.decoder.layers[0], 2))
    for layer, index in pairs:
        own, fused = layer.self_attn, body.h[index].attn.c_attn.weight.T
        mine = torch.cat([own.q_proj.weight, own.k_proj.weight, own.v_proj.weight])
        assert torch.equal(mine, fused)
        assert torch.equal(layer.fc2.weight, body.h[index].mlp.c_proj.weight.T)
    cross = model.model.decoder.layers[0].encoder_attn
    states = torch.randn(1, 6, 32, generator=torch.Generator().manual_seed(0))
    plain = torch.nn.functional.layer_norm(states, [32])
    key = body.h[2].attn.c_attn(body.h[2].ln_1(states))[..., 32:64]
    torch.testing.assert_close(cross.k_proj(plain), key, rtol=1e-4, atol=1e-4)
    assert torch.equal(model.get_input_embeddings().weight[:8192], body.wte.weight)
    for stack in (model.model.encoder, model.model.decoder):
        assert torch.equal(stack.embed_positions.weight, body.wpe.weight[:64])
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_to_rewrite_the_decoder_says_everything(
    learned: ModuleType, text: ModuleType, vocabulary: Any
) -> None:
    hidden = learned.Denoising(vocabulary)
    for ids, starts in windows_of(text, vocabulary, 10, 100):
        first = hidden.example(ids, starts, np.random.default_rng(1), 0.3)
        second = hidden.rewriting.example(ids, starts, np.random.default_rng(1), 0.3)
        np.testing.assert_array_equal(first["input_ids"], second["input_ids"])
        said = second["labels"]
        marks = said[said >= hidden.sentinel]
        np.testing.assert_array_equal(marks, hidden.sentinel + np.arange(len(marks)))
        np.testing.assert_array_equal(said[said < hidden.pad], ids)
        spans = first["labels"].tolist()
        for at in np.flatnonzero(said >= hidden.sentinel):
            begin = spans.index(int(said[at]))
            assert said[at + 1] == spans[begin + 1]


def test_the_start_looks_up_what_follows_a_token(
    modules: dict[str, ModuleType], text: ModuleType, vocabulary: Any
) -> None:
    start = modules["pretrain_start"]
    taught = start.DenoisingFrom(vocabulary, VOCABULARY.parent, [0, 3, 4], [0, 1, 3, 4, 5], 128)
    model = taught.model().eval()
    model.set_attn_implementation("eager")
    stream = text.encode(vocabulary, [text.Document("book", VARIED)])
    ids = torch.from_numpy(stream.ids[:60].astype(np.int64)).unsqueeze(0)
    with torch.no_grad():
        seen = model(input_ids=ids, decoder_input_ids=ids[:, :-1], output_attentions=True)
    for head, offset in enumerate(start.OFFSETS):
        beside = seen.encoder_attentions[0][0, head].diagonal(offset)
        assert beside.mean() > 0.9
    follows = torch.stack([seen.cross_attentions[0][0, h].diagonal(1) for h in range(4)])
    assert follows.mean() > 0.4


def test_a_run_from_a_decoder_goes_on_and_says_so(
    modules: dict[str, ModuleType], data: Path, tmp_path: Path, decoder: Path
) -> None:
    def run(out: Path, *more: object) -> int:
        options = ["--data", data, "--out", out, *TINY, "--tokens", 2800, "--save-every", 0]
        options += ["--start-from", decoder, "--encoder-layers", 1, "--decoder-layers", "0,2"]
        options += ["--positions", 128, "--early-share", 0.3, "--rewritten", 0.8]
        return pretrain(modules, "denoising", *options, *more)

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run(whole, "--save-every", 60) == 0
    training = modules["pretrain"].Training
    plain, seen = training.step, []

    def interrupted(self: Any) -> tuple[float, float]:
        seen.append(self.rewrites())
        if len(seen) == 9:
            raise KeyboardInterrupt
        found: tuple[float, float] = plain(self)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(cut)
        assert run(cut, "--resume") == 0
        assert run(cut, "--resume", "--rewritten", 0.5) == 2
    assert sum(seen[:8]) > 2
    ours, theirs = stored(cut / "model"), stored(whole / "model")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    about = json.loads((cut / "run.json").read_text("utf-8"))
    assert about["settings"]["start_from"] == str(decoder)
    model, report = AutoModelForSeq2SeqLM.from_pretrained(cut / "model", output_loading_info=True)
    assert model.config.model_type == "blenderbot"
    assert not report["missing_keys"] or set(report["missing_keys"]) == {"final_logits_bias"}
    assert AutoTokenizer.from_pretrained(cut / "model").model_max_length == 128
    card = " ".join((cut / "model" / "README.md").read_text("utf-8").split())
    assert "1 layers in the encoder, 2 in the decoder" in card
    assert "from the layers of decoder (encoder: 1; decoder: 0,2" in card
    assert "random weights" not in card


def test_what_cannot_start_is_said(
    modules: dict[str, ModuleType],
    data: Path,
    tmp_path: Path,
    decoder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--data", data, "--out", tmp_path / "run", *TINY, "--tokens", 500]
    options += ["--start-from", decoder]
    assert pretrain(modules, "masked", *options) == 2
    assert "are for the objective denoising" in capsys.readouterr().err
    assert pretrain(modules, "denoising", *options, "--encoder-layers", "0,3") == 2
    assert "has 3 layers, none is number 3" in capsys.readouterr().err
    assert pretrain(modules, "denoising", *options, "--positions", 48) == 2
    assert "does not fit into 48 positions" in capsys.readouterr().err


# ---- runs ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("with_pictures")
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_run_leaves_a_model_that_plain_transformers_reads(
    modules: dict[str, ModuleType], data: Path, tmp_path: Path, objective: str
) -> None:
    out = tmp_path / "run"
    options = [objective, "--data", data, "--out", out, *TINY, "--evaluate-every", 0]
    assert pretrain(modules, *options, "--tokens", 1500, "--attribution", "Made up.") == 0
    folder = out / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    loader: Any = {
        "causal": AutoModelForCausalLM,
        "masked": AutoModelForMaskedLM,
        "denoising": AutoModelForSeq2SeqLM,
    }[objective]
    model, report = loader.from_pretrained(folder, output_loading_info=True)
    assert model.dtype == torch.float16
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    ids = tokenizer("The boat [MASK] x")["input_ids"]
    if objective == "masked":
        assert [tokenizer.convert_ids_to_tokens(ids)[i] for i in (0, 3, -1)] == [
            "[CLS]",
            "[MASK]",
            "[SEP]",
        ]
        pair = tokenizer("The boat", "the kettle")
        assert set(pair["token_type_ids"]) == {0, 1}
    if objective == "denoising":
        ids = tokenizer("The <extra_id_0> boat")["input_ids"]
        said = tokenizer.convert_ids_to_tokens(ids)
        assert said[1] == "<extra_id_0>"
        assert said[-1] == "</s>"
        assert "<extra_id_99>" in tokenizer.all_special_tokens
    log = [json.loads(line) for line in (out / "log.jsonl").read_text("utf-8").splitlines()]
    watched = [entry["evaluation"] for entry in log if "evaluation" in entry]
    assert set(watched[-1]) == {"book", "dialogue"}
    assert watched[-1]["book"] < watched[0]["book"]
    about = json.loads((out / "run.json").read_text("utf-8"))
    assert about["held_out"]["book"] == pytest.approx(watched[-1]["book"], abs=0.05)
    card = (folder / "README.md").read_text("utf-8")
    assert "Made up." in card
    assert str(tmp_path) not in card
    assert 1000 < (folder / "curve.png").stat().st_size < 60_000


@pytest.mark.parametrize("objective", SOME)
def test_a_resumed_run_ends_with_the_same_bits(
    modules: dict[str, ModuleType], data: Path, tmp_path: Path, objective: str
) -> None:
    def run(out: Path, *more: object) -> int:
        options = ["--data", data, "--out", out, *TINY, "--tokens", 2800, "--save-every", 0]
        options += ["--early-share", 0.3]
        return pretrain(modules, objective, *options, *more)

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run(whole, "--save-every", 60) == 0
    training = modules["pretrain"].Training
    plain, steps = training.step, []

    def interrupted(self: Any) -> tuple[float, float]:
        steps.append(self.at.step)
        if len(steps) in (7, 16):
            raise KeyboardInterrupt
        found: tuple[float, float] = plain(self)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "step", interrupted)
        for more in ((), ("--resume",)):
            with pytest.raises(KeyboardInterrupt):
                run(cut, *more)
        assert run(cut, "--resume") == 0
    assert len(steps) > len(set(steps)) > 16
    ours, theirs = stored(cut / "model"), stored(whole / "model")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    held_out = [json.loads((out / "run.json").read_text("utf-8")) for out in (whole, cut)]
    assert held_out[0]["held_out"] == held_out[1]["held_out"]


def test_a_finished_run_goes_on_from_before_the_decay(
    modules: dict[str, ModuleType], data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    options = ["masked", "--data", data, "--out", out, *TINY]
    assert pretrain(modules, *options, "--tokens", 1500) == 0
    first = stored(out / "model")
    assert pretrain(modules, *options, "--tokens", 3000, "--resume", "before-decay") == 0
    rates = [json.loads(line) for line in (out / "log.jsonl").read_text("utf-8").splitlines()]
    assert all(one["step"] < two["step"] for one, two in pairwise(rates))
    second = stored(out / "model")
    assert any(not torch.equal(first[name], second[name]) for name in first)
    straight = tmp_path / "straight"
    options[4] = straight
    assert pretrain(modules, *options, "--tokens", 3000) == 0
    third = stored(straight / "model")
    assert all(torch.equal(second[name], third[name]) for name in second)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--rate", "0.5"], "rate 0.001, now 0.5"),
        (["--seed", "3"], "seed 0, now 3"),
    ],
)
def test_other_settings_are_refused_on_resume(
    modules: dict[str, ModuleType],
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: list[str],
    said: str,
) -> None:
    options = ["causal", "--data", data, "--out", tmp_path / "run", *TINY, "--tokens", 500]
    assert pretrain(modules, *options) == 0
    assert pretrain(modules, *options, "--resume", *change) == 2
    assert said in capsys.readouterr().err


def test_a_run_from_before_an_option_goes_on(
    modules: dict[str, ModuleType], data: Path, tmp_path: Path
) -> None:
    """Checkpoints of older runs have no settings for newer options, or had the layers' defaults."""
    later = ("start_from", "positions", "rewritten", "vocabulary")
    layers = {"encoder_layers": "0,3,4", "decoder_layers": "0,1,3,4,5"}
    for name, given in {"without": {}, "with": layers}.items():
        out = tmp_path / name
        options = ["masked", "--data", data, "--out", out, *TINY]
        assert pretrain(modules, *options, "--tokens", 1000) == 0
        settings = json.loads((out / "run.json").read_text("utf-8"))["settings"]
        assert settings["encoder_layers"] == settings["decoder_layers"] == ""
        plain = modules["pretrain"].read_checkpoint

        def older(folder: Path, given: dict[str, str] = given, read: Any = plain) -> Any:
            checkpoint = read(folder)
            for option in (*later, *layers):
                checkpoint.values["settings"].pop(option)
            checkpoint.values["settings"].update(given)
            return checkpoint

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(modules["pretrain"], "read_checkpoint", older)
            assert pretrain(modules, *options, "--tokens", 1500, "--resume", "before-decay") == 0
        position = json.loads((out / "run.json").read_text("utf-8"))["position"]
        assert position["tokens"] >= 1500


def test_mistakes_are_said(
    modules: dict[str, ModuleType],
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["causal", "--data", data, "--out", tmp_path / "run", *TINY]
    assert pretrain(modules, *options) == 2
    assert "say how long" in capsys.readouterr().err
    assert pretrain(modules, *options, "--tokens", 500, "--resume") == 2
    assert "no checkpoint" in capsys.readouterr().err
    assert pretrain(modules, *options, "--tokens", 500) == 0
    assert pretrain(modules, *options, "--tokens", 500) == 2
    assert "not empty" in capsys.readouterr().err


def test_word_embeddings_may_start_from_another_model(
    modules: dict[str, ModuleType], data: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    options = ["--data", data, *TINY, "--tokens", 300]
    assert pretrain(modules, "causal", *options, "--out", first) == 0
    given = ["--embeddings", first / "model"]
    assert pretrain(modules, "masked", *options, "--out", second, *given, "--rate", 0) == 0
    mine = stored(second / "model")["bert.embeddings.word_embeddings.weight"].float()
    theirs = stored(first / "model")["transformer.wte.weight"].float()
    words = mine[:8192, 16:]
    alike = torch.nn.functional.cosine_similarity(words, (theirs - theirs.mean(0))[:, 16:])
    assert alike.min() > 0.99
    assert not mine[:8192, :16].any()


def test_the_rate_rises_stays_and_falls(modules: dict[str, ModuleType]) -> None:
    script = modules["pretrain"]
    training = script.Training.__new__(script.Training)
    training.settings = type("Settings", (), {"rate": 1.0, "warmup": 10, "decay": 0.25})()
    training.budget = script.Budget(tokens=1000, seconds=100)

    def rate(step: int, tokens: int, seconds: float) -> float:
        training.at = script.Position(step=step, tokens=tokens, seconds=seconds)
        return float(training.rate())

    assert [rate(step, 0, 0) for step in (0, 4, 9, 20)] == [0.1, 0.5, 1.0, 1.0]
    assert rate(50, 750, 0) == rate(50, 0, 75) == 1.0
    assert rate(50, 875, 10) == rate(50, 10, 87.5) == pytest.approx(0.5)
    assert rate(50, 1000, 0) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("objective", SOME)
def test_a_run_killed_at_any_moment_goes_on(
    modules: dict[str, ModuleType],
    data: Path,
    launcher: Launcher,
    tmp_path: Path,
    objective: str,
) -> None:
    """kill -9 as soon as the first checkpoints are there, three times; the bits are the same."""
    out, whole = tmp_path / "killed", tmp_path / "whole"

    def options(folder: Path) -> list[str]:
        words = [objective, "--data", data, "--out", folder, *TINY, "--tokens", 9000]
        return [str(word) for word in [*words, "--save-every", 0]]

    program = str(SCRIPTS / "pretrain.py")
    for turn in range(3):
        resume = ["--resume"] if turn else []
        before = _pointed(out)
        started = launcher.start(ROOT, [*options(out), *resume], program=program)
        end = time.monotonic() + 120
        while _pointed(out) == before and started.ended() is None and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.05 * turn)
        assert started.end(signal.SIGKILL) == -signal.SIGKILL, started.printed()
    seldom = ["--save-every", 60]
    assert pretrain(modules, *options(out), *seldom, "--resume") == 0
    assert pretrain(modules, *options(whole), *seldom) == 0
    ours, theirs = stored(out / "model"), stored(whole / "model")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def _pointed(out: Path) -> str:
    file = out / "checkpoints" / "latest"
    return file.read_text("utf-8") if file.exists() else ""


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_signal_ends_a_run_with_a_checkpoint(
    modules: dict[str, ModuleType], data: Path, tmp_path: Path, objective: str
) -> None:
    out = tmp_path / "run"
    training = modules["pretrain"].Training
    plain = training.step

    def signalled(self: Any) -> tuple[float, float]:
        if self.at.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        found: tuple[float, float] = plain(self)
        return found

    options = [objective, "--data", data, "--out", out, *TINY, "--tokens", 1500]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "step", signalled)
        assert pretrain(modules, *options) == 1
    assert _pointed(out).strip() == "step-000006"
    assert not (out / "model").exists()
    assert pretrain(modules, *options, "--resume") == 0
