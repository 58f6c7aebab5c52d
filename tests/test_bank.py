"""Many prompts on one backbone, by name, answered in one batch."""

from __future__ import annotations

import gc
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

import foreword
from conftest import make_backbone, mini_tokens
from families.catalogue import plain_model
from foreword.backbone import Backbone, Tokens, bundled_backbones
from foreword.bank import PromptBank
from foreword.data import Example
from foreword.errors import ArtifactError, DataError, UserError
from foreword.methods import HardPrompt, LoRA, PTuningV2
from foreword.session import LoadedPrompt
from stored_prompts import (
    EMBEDDERS,
    KINDS,
    TABLE,
    TELLERS,
    WORDS,
    WRITERS,
    labels,
    prefix,
    soft,
    store,
    store_all,
    writes,
)

TEXTS = ("a film", "it rained all day, and then it rained again", "so")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return make_backbone("gpt2", torch.float64)


@pytest.fixture(scope="module")
def folders(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return store_all(tmp_path_factory.mktemp("prompts"), backbone)


@pytest.fixture
def bank(backbone: Backbone, folders: dict[str, Path]) -> PromptBank:
    bank = foreword.prompts(backbone)
    for name, folder in folders.items():
        bank.add(name, folder)
    return bank


def rows(names: Any, **more: Any) -> list[dict[str, Any]]:
    return [{"prompt": name, "text": text, **more} for text in TEXTS for name in names]


def alone(folders: dict[str, Path], backbone: Backbone) -> dict[str, LoadedPrompt]:
    return {name: foreword.load(folder, backbone=backbone) for name, folder in folders.items()}


def test_a_mixed_batch_writes_as_each_prompt_alone(
    bank: PromptBank, backbone: Backbone, folders: dict[str, Path]
) -> None:
    prompts = alone(folders, backbone)
    asked = rows(WRITERS)
    expected = [prompts[row["prompt"]].generate([row["text"]])[0] for row in asked]
    assert len(set(expected)) > len(TEXTS)
    assert bank.generate(asked) == bank.generate(asked, batch_size=3) == expected


def test_a_mixed_batch_tells_as_each_prompt_alone(
    bank: PromptBank, backbone: Backbone, folders: dict[str, Path]
) -> None:
    """Heads, and label words of several tokens."""
    prompts = alone(folders, backbone)
    asked = rows(TELLERS)
    expected = [prompts[row["prompt"]].predict([row["text"]])[0] for row in asked]
    for size in (32, 2):
        for found, own in zip(bank.predict(asked, batch_size=size), expected, strict=True):
            assert found.answer == own.answer
            assert found.probabilities == pytest.approx(own.probabilities, abs=1e-6)


@pytest.mark.parametrize("paired", [False, True])
def test_a_mixed_batch_embeds_as_each_prompt_alone(
    bank: PromptBank, backbone: Backbone, folders: dict[str, Path], paired: bool
) -> None:
    """Vectors by prefixes and by slots, of either side."""
    prompts = alone(folders, backbone)
    field = "other" if paired else "text"
    asked = [{"prompt": name, field: text} for text in TEXTS for name in EMBEDDERS]
    expected = np.concatenate(
        [prompts[row["prompt"]].embed([row[field]], paired=paired) for row in asked]
    )
    assert len(np.unique(expected.round(6), axis=0)) == len(asked)
    done: list[int] = []
    for size in (32, 2):
        found = bank.embed(asked, paired=paired, batch_size=size, advance=done.append)
        assert found.shape == (len(asked), backbone.hidden_width)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    assert sum(done) == 2 * len(asked)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_encoder_decoders(family: str, tmp_path: Path) -> None:
    made = AutoTokenizer.from_pretrained(bundled_backbones()["foreword/mini"])
    made.add_tokens(["<extra_id_0>"], special_tokens=True)
    model = plain_model(family, vocab_size=len(made))
    backbone = Backbone.wrap(model, Tokens(made))
    folders = {
        "soft": store(tmp_path / "soft", backbone, soft(), writes()),
        "deep": store(tmp_path / "deep", backbone, prefix(), writes(), seed=1),
        "deeper": store(tmp_path / "deeper", backbone, prefix(5), writes("Q {text}"), seed=2),
    }
    bank = foreword.prompts(backbone)
    for name, folder in folders.items():
        bank.add(name, folder)
    prompts = alone(folders, backbone)
    asked = [*rows(folders), {"prompt": None, "text": "a film"}]
    expected = [prompts[row["prompt"]].generate([row["text"]])[0] for row in asked[:-1]]
    assert bank.generate(asked, max_new_tokens=6)[:-1] == expected


def test_an_encoder_tells_and_writes_nothing(masked: Backbone, tmp_path: Path) -> None:
    v2 = PTuningV2(name="p-tuning-v2", length=3, reparameterization=TABLE)
    bank = foreword.prompts(masked)
    head = bank.add("head", store(tmp_path / "head", masked, v2, labels()))
    words = bank.add(
        "words", store(tmp_path / "words", masked, prefix(), labels("{text} {mask}", WORDS))
    )
    asked = rows(("head", "words"))
    expected = [
        {"head": head, "words": words}[row["prompt"]].predict([row["text"]])[0] for row in asked
    ]
    for found, own in zip(bank.predict(asked), expected, strict=True):
        assert found.probabilities == pytest.approx(own.probabilities, abs=1e-5)
    with pytest.raises(UserError, match=r"^row 1: prompt: null, the backbone alone: .* is an enc"):
        bank.generate([{"prompt": None, "text": "a"}])


def test_the_backbone_alone(bank: PromptBank, backbone: Backbone, tmp_path: Path) -> None:
    """It goes on with the text, beside rows that have prompts."""
    own = foreword.load(
        store(tmp_path / "bare", backbone, HardPrompt(name="hard-prompt"), writes("{text}")),
        backbone=backbone,
    )
    asked = [{"prompt": name, "text": TEXTS[1]} for name in (None, "soft", None)]
    found = bank.generate(asked, max_new_tokens=5)
    assert found[0] == found[2] == own.generate([TEXTS[1]], max_new_tokens=5)[0] != found[1]


def test_settings_and_seeds_of_rows(bank: PromptBank) -> None:
    """The row's word is later than the call's, and that later than the artifact's."""
    draw = {"do_sample": True, "temperature": 5.0}
    row = {"prompt": "soft", "text": "a film"}
    longer, short, greedy = bank.answer(
        [{**row, "decoding": {"max_new_tokens": 9}}, row, {**row, "decoding": {}}], max_new_tokens=1
    )
    assert len(longer.text) > len(short.text) > 0
    assert short == greedy
    drawn = bank.generate([{**row, "seed": s, "decoding": draw} for s in (3, 4, 3)])
    assert drawn[0] == drawn[2] != drawn[1]
    assert bank.generate([row, row], seed=3, **draw) == drawn[:2]
    assert bank["soft"].generate(["a film"], seed=4, **draw) == [drawn[1]]
    assert bank.generate([row, {**row, "seed": 3}], seed=8, **draw)[1] == drawn[0]
    assert bank.generate([{**row, "seed": None, "decoding": None}]) == bank.generate([row])


def test_inputs_that_were_cut_are_named(
    bank: PromptBank, backbone: Backbone, tmp_path: Path
) -> None:
    task = writes().model_copy(update={"truncate": "text"})
    bank.add("cuts", store(tmp_path / "cuts", backbone, soft(), task))
    answers = bank.answer(
        [{"prompt": "cuts", "text": "word " * 400}, {"prompt": "cuts", "text": "so"}]
    )
    assert [answer.truncated for answer in answers] == [True, False]


def test_names_come_and_go(bank: PromptBank, folders: dict[str, Path]) -> None:
    assert len(bank) == len(KINDS)
    assert list(bank) == list(KINDS)
    first = bank.generate(rows(["soft"]))
    bank.add("soft", folders["other soft"])
    assert len(bank) == len(KINDS)
    assert bank.generate(rows(["soft"])) == bank.generate(rows(["other soft"])) != first
    bank.remove("soft")
    assert "soft" not in bank
    with pytest.raises(
        UserError, match=r"^prompt: there is no 'soft' among 8 \(did you mean 'slots'"
    ):
        bank.remove("soft")
    with pytest.raises(
        UserError, match=r"^row 2: prompt: there is no 'deeq' .*did you mean 'deep'"
    ):
        bank.generate(rows(["deep", "deeq"]))


def test_a_call_that_runs_ends_with_what_it_began_with(
    bank: PromptBank, folders: dict[str, Path]
) -> None:
    """Prompts that are replaced or removed meanwhile."""
    asked = rows(["soft", "deep"])
    expected = bank.generate(asked)
    done: list[int] = []

    def change(count: int) -> None:
        if not done:
            bank.add("soft", folders["other soft"])
            bank.remove("deep")
        done.append(count)

    assert bank.generate(asked, batch_size=2, advance=change) == expected
    assert sum(done) == len(asked)
    with pytest.raises(UserError, match="there is no 'deep'"):
        bank.generate(asked)


def test_two_thousand_names_of_one_prompt(bank: PromptBank) -> None:
    loaded = bank["deep"]
    gc.collect()
    before = len(gc.get_objects())
    started = time.perf_counter()
    for number in range(2000):
        bank.add(f"name {number}", loaded)
    gc.collect()
    assert len(gc.get_objects()) - before < 100
    asked = [{"prompt": f"name {number}", "text": "so"} for number in range(0, 2000, 100)]
    assert set(bank.generate(asked, max_new_tokens=2)) == set(
        loaded.generate(["so"], max_new_tokens=2)
    )
    with pytest.raises(
        UserError, match=r"there is no 'nome 7' among 2,009 \(did you mean 'name 7'"
    ) as caught:
        bank["nome 7"]
    assert len(str(caught.value)) < 100
    with pytest.raises(UserError, match=r"among 2,009 \(known: deep, head, name 0, "):
        bank["?"]
    assert time.perf_counter() - started < 10


def test_a_delta_is_refused(bank: PromptBank, backbone: Backbone, tmp_path: Path) -> None:
    folder = store(tmp_path / "lora", backbone, LoRA(name="lora", rank=2), writes())
    said = rf"^{re.escape(str(folder))}: has weights .* \(delta: lora\).*; use foreword.load"
    with pytest.raises(ArtifactError, match=said):
        bank.add("lora", folder)
    assert "lora" not in bank


def test_a_prompt_of_another_backbone_is_refused(bank: PromptBank, tmp_path: Path) -> None:
    other = make_backbone("gpt2", torch.float64, seed=1)
    folder = store(tmp_path / "other", other, soft(), writes())
    with pytest.raises(ArtifactError, match=r"was trained on .* whose weights have sha256"):
        bank.add("other", folder)
    with pytest.raises(ArtifactError, match=r"^other: is loaded on another backbone; load it with"):
        bank.add("other", foreword.load(folder, backbone=other))
    assert bank.add("other", folder, other_backbone=True) is bank["other"]


@pytest.mark.parametrize("field", ["prompt", "seed", "decoding"])
def test_reserved_fields_of_templates(
    field: str, bank: PromptBank, backbone: Backbone, tmp_path: Path
) -> None:
    folder = store(tmp_path / "it", backbone, soft(), writes("{text} {" + field + "}"))
    with pytest.raises(ArtifactError, match=f"its template has the field '{field}'.*rename"):
        bank.add("it", folder)


ROW = {"prompt": "soft", "text": "a"}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a", r"row 2: expected named values, found 'a'; give \{\"prompt\": name"),
        ({"text": "a"}, r"row 2: has no field 'prompt'; give \{\"prompt\": name"),
        ({**ROW, "prompt": 3}, "row 2: prompt: expected a name or null, found 3"),
        ({**ROW, "prompt": ["soft"]}, "row 2: prompt: expected a name or null, found"),
        ({**ROW, "prompt": ""}, r"row 2: prompt: there is no '' among 9 \(known: deep, "),
        ({**ROW, "prompt": "head"}, "row 2: prompt: 'head' tells a label and .* use `predict`"),
        ({"prompt": "soft"}, r"row 2: .*the data has no field 'text'"),
        ({**ROW, "text": None}, "row 2, field 'text': is null; expected a text"),
        ({"prompt": None, "text": None}, "row 2, field 'text': is null; expected a text"),
        ({"prompt": None, "it": "a"}, r"row 2: .*the data has no field 'text'"),
        ({**ROW, "text": "\ud800"}, "row 2, field 'text': is no text that can be read"),
        ({**ROW, "text": "word " * 400}, "row 2: the input has .* tokens, but"),
        ({**ROW, "seed": -1}, "row 2: seed: must be at least 0, found -1"),
        ({**ROW, "seed": 2**70}, "row 2: seed: "),
        ({**ROW, "seed": "1"}, "row 2: seed: expected a whole number from 0, found '1'"),
        ({**ROW, "seed": True}, "row 2: seed: expected a whole number from 0, found True"),
        ({**ROW, "decoding": [1]}, r"row 2: decoding: expected settings by name, found \[1\]"),
        ({**ROW, "decoding": {1: 2}}, "row 2: decoding: expected settings by name"),
        ({**ROW, "decoding": {"beams": 2}}, r"row 2: decoding\.beams"),
        ({**ROW, "decoding": {"temperature": 0}}, r"row 2: decoding\.temperature"),
    ],
)
def test_rows_that_are_wrong(row: Any, said: str, bank: PromptBank) -> None:
    for ask in (bank.generate, bank.answer, bank.check):
        with pytest.raises(UserError, match=f"^{said}"):
            ask([ROW, row])
    with pytest.raises(UserError, match=f"^{said.replace('row 2', 'f, line 7')}"):
        bank.check([ROW, row], where=["f, line 6", "f, line 7"])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (ROW, "row 1: prompt: 'soft' writes texts .*; use `generate`"),
        (
            {"prompt": None, "text": "a"},
            "row 1: prompt: null, the backbone alone, writes texts .* use `generate`",
        ),
        ({"prompt": "head"}, r"row 1: .*the data has no field 'text'"),
        ({"prompt": "head", "text": "word " * 400}, "row 1: the input has .* tokens, but"),
        (
            {"prompt": "head", "text": "a", "seed": 1},
            "row 1: seed: 1, but 'head' writes no text; leave the field out",
        ),
    ],
)
def test_rows_that_are_wrong_to_predict(row: Any, said: str, bank: PromptBank) -> None:
    for ask in (bank.predict, lambda asked: bank.check(asked, verb="predict")):
        with pytest.raises(UserError, match=f"^{said}"):
            ask([row])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (ROW, "row 1: prompt: 'soft' writes texts .*; use `generate`"),
        ({**ROW, "prompt": "head"}, "row 1: prompt: 'head' .*; use `predict`"),
        ({"prompt": "vectors", "text": "word " * 400}, "row 1: the input has .* tokens, but"),
        ({"prompt": "vectors"}, r"row 1: .*the data has no field 'text'"),
        (
            {"prompt": "vectors", "text": "a", "decoding": {"num_beams": 2}},
            "row 1: decoding: .*, but 'vectors' writes no text; leave the field out",
        ),
    ],
)
def test_rows_that_are_wrong_to_embed(row: Any, said: str, bank: PromptBank) -> None:
    for ask in (bank.embed, lambda asked: bank.check(asked, verb="embed")):
        with pytest.raises(UserError, match=f"^{said}"):
            ask([row])
    with pytest.raises(UserError, match="use `embed`"):
        bank.predict([{"prompt": "vectors", "text": "a"}])


def test_calls_that_are_wrong(bank: PromptBank) -> None:
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: bank.generate([ROW], batch_size=0), "^batch_size"),
        (lambda: bank.predict([], batch_size=-1), "^batch_size"),
        (lambda: bank.generate([ROW], seed=-1), "^seed"),
        (lambda: bank.generate([ROW], beams=2), r"^decoding\.beams"),
        (lambda: bank.generate(ROW), "^rows: expected a list, found one mapping"),  # type: ignore[arg-type]
        (lambda: bank.add("", "nowhere"), "^prompt: expected a name, found ''"),
        (lambda: bank.add(None, "nowhere"), "^prompt: expected a name, found None"),  # type: ignore[arg-type]
    ]
    for call, said in calls:
        with pytest.raises(UserError, match=said):
            call()


def test_nothing_is_asked(bank: PromptBank) -> None:
    assert bank.generate([]) == []
    assert bank.embed([]).shape == (0, bank.backbone.hidden_width)
    assert bank.predict([]) == []


def test_by_the_name_of_a_backbone(tmp_path: Path, mini: Backbone) -> None:
    bank = foreword.prompts("foreword/mini", device="cpu")
    bank.add("soft", store(tmp_path / "soft", mini, soft(), writes()))
    assert bank.backbone.sha256 == mini.sha256
    assert len(bank.generate([{"prompt": "soft", "text": "a"}])) == 1
    assert isinstance(bank["soft"].example("a"), Example)
    assert mini_tokens().sha256 == bank.backbone.tokens.sha256
    with pytest.raises(DataError):
        bank["soft"].generate([None])  # type: ignore[list-item]
