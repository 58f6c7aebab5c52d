"""PET: its parts against their definitions, and the whole procedure, stopped and resumed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save

import foreword
from conftest import VOCABULARY
from foreword.axes.readout import SequenceHead
from foreword.backbone import Backbone, Call, load_backbone
from foreword.backbone.layout import Layout, Pair
from foreword.data import Example
from foreword.errors import RecipeError, RunError, UserError
from foreword.methods import HardPrompt
from foreword.recipe import load_recipe, parse_recipe
from foreword.runs import Run, train
from foreword.runs.preview import preview
from foreword.tasks import Cloze
from foreword.tasks.text import Templates
from foreword.training.hardware import Hardware
from foreword.training.masking import MaskedWords
from foreword.tuned.compose import compose

PATTERNS = ("{sentence:cut} It was {mask} .", "{sentence:cut} All {mask} !")
WORDS = {"yes": ("good", "fine"), "no": ("bad",)}


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        f"a {word} {thing} in the {place}\t{label}"
        for thing in ("day", "film", "meal", "song")
        for word, label in (("good", "yes"), ("bad", "no"))
        for place in ("north", "south", "east", "west", "middle")
    ]
    file = tmp_path_factory.mktemp("rated") / "train.tsv"
    file.write_text("\n".join(["sentence\tanswer", *rows]) + "\n", encoding="utf-8")
    return file


def recipe(rated: Path, backbone: Backbone, **method: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "name": "few",
        "backbone": backbone.name,
        "task": {
            "data": {"format": "tsv", "train": str(rated), "label": "answer", "hold_out": 8},
            "input": "{sentence}",
            "limits": {"per_label": 3},
            "head": {"pooling": "mean"},
        },
        "method": {
            "name": "pet",
            "patterns": list(PATTERNS),
            "words": {label: list(words) for label, words in WORDS.items()},
            "models": 2,
            "steps": 3,
            "learning_rate": 1e-3,
            "mlm_weight": 0.1,
            "unlabelled": 12,
            **method,
        },
        "training": {"steps": 4, "batch_size": 4, "learning_rate": 1e-3, "best_by": None},
    }


def start(given: dict[str, Any], backbone: Backbone, out: Path, **options: Any) -> Run:
    return train(given, out=out, backbone=backbone, device="cpu", **options)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def done(masked: Backbone, rated: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return start(
        recipe(rated, masked, generations=1, growth=2.0, teachers=0.5),
        masked,
        tmp_path_factory.mktemp("pet") / "run",
    )


def test_the_whole_procedure(done: Run, masked: Backbone) -> None:
    report = done.metrics["pet"]
    assert (report["labelled"], report["unlabelled"]) == (6, 12)
    named = {(row["generation"], row["pattern"], row["number"]) for row in report["patterns"]}
    assert named == {(1, pattern, model) for pattern in (0, 1) for model in (0, 1)}
    below = {place.name for place in (done.folder / "patterns").iterdir() if place.is_dir()}
    assert below == {f"g{g}-p{p}-m{m}" for g in (0, 1) for p in (0, 1) for m in (0, 1)}
    assert done.metrics["training"]["pairs"] == 6
    prompt = foreword.load(done.folder, backbone=masked, device="cpu")
    (told,) = prompt.predict(["a good day in the park"])
    assert set(told.probabilities) == {"no", "yes"}
    assert prompt.manifest.method.name == "pet"


def test_the_ensemble_is_the_weighted_mean_of_scores(done: Run) -> None:
    """Section 3.3: what each model says, times its pattern's weight, by the sum of weights."""
    report = done.metrics["pet"]
    gold = [row["answer"] for row in lines(done.folder / "patterns" / "dev.jsonl")]
    total = torch.zeros(len(gold), 2)
    for row in report["patterns"]:
        name = f"g{row['generation']}-p{row['pattern']}-m{row['number']}"
        said = load_file(done.folder / "patterns" / name / "said.safetensors")["dev"]
        right = [("no", "yes")[i] for i in said.argmax(-1).tolist()]
        hits = sum(a == b for a, b in zip(right, gold, strict=True))
        assert row["accuracy"] == pytest.approx(100 * hits / len(gold))
        total += row["weight"] * said
    both = [("no", "yes")[i] for i in total.argmax(-1).tolist()]
    hits = sum(a == b for a, b in zip(both, gold, strict=True))
    assert report["ensemble_accuracy"] == pytest.approx(100 * hits / len(gold))


def test_patterns_of_two_texts_and_words_of_their_own(
    masked: Backbone, rated: Path, tmp_path: Path
) -> None:
    """Each pattern's run is the recipe that says the same; words for all are not needed."""
    words = [{"yes": ["true"], "no": ["false"]}, {"yes": ["right"], "no": ["wrong"]}]
    patterns = [
        {"input": "{sentence}", "second": "{mask} .", "words": words[0]},
        {"input": "It was {mask} : {sentence}", "words": words[1]},
    ]
    given = recipe(rated, masked, models=1, steps=2, patterns=patterns, words=None)
    run = start(given, masked, tmp_path / "run")
    for number, (pattern, own) in enumerate(zip(patterns, words, strict=True)):
        made = load_recipe(run.folder / "patterns" / f"g0-p{number}-m0" / "recipe.yaml")
        assert made.task.input == pattern["input"]
        assert made.task.second == pattern.get("second")
        assert made.task.verbalizer is not None
        assert {k: list(v) for k, v in made.task.verbalizer.words.items()} == own
    texts = [row["text"] for row in run.metrics["pet"]["patterns"]]
    assert texts == ["{sentence} | {mask} .", "It was {mask} : {sentence}"]
    again = start(given, masked, tmp_path / "run", resume=True)
    assert again.metrics == run.metrics


def test_a_pattern_says_itself_what_gives_way(
    masked: Backbone, rated: Path, tmp_path: Path
) -> None:
    """The classifier's `truncate` is for patterns that have its field and no `cut` of their own."""
    patterns = ["{ sentence } It was {mask}", "{sentence:cut} was {mask}", "A { mask }"]
    given = recipe(rated, masked, models=1, steps=0, patterns=patterns)
    given["task"]["truncate"] = "sentence"
    run = start(given, masked, tmp_path / "run")
    made = [
        load_recipe(run.folder / "patterns" / f"g0-p{number}-m0" / "recipe.yaml").task.truncate
        for number in range(3)
    ]
    assert made == ["sentence", None, None]


def test_what_a_model_said_is_checked(masked: Backbone, rated: Path, tmp_path: Path) -> None:
    given = recipe(rated, masked, models=1, steps=1, patterns=PATTERNS[0])
    run = start(given, masked, tmp_path / "run")
    (run.folder / "metrics.json").unlink()
    file = run.folder / "patterns" / "g0-p0-m0" / "said.safetensors"
    whole = load_file(file)
    short = {name: rows[:-1].clone() for name, rows in whole.items()}
    for broken in (b"x" * 50, save({"dev": whole["dev"]}), save(short)):
        file.write_bytes(broken)
        with pytest.raises(
            RunError, match=r"said\.safetensors: .*delete .*g0-p0-m0, and this model"
        ):
            start(given, masked, run.folder, resume=True)


def test_an_encoder_decoder_takes_no_head(rated: Path, tmp_path: Path) -> None:
    backbone = load_backbone("foreword/mini-seq2seq", device="cpu")
    with pytest.raises(UserError, match="is an encoder-decoder, on which a head has no place"):
        start(recipe(rated, backbone), backbone, tmp_path / "run")


def test_patterns_weigh_what_they_know_before_training(done: Run, masked: Backbone) -> None:
    labelled = lines(done.folder / "patterns" / "train-g0-p0-m0.jsonl")
    examples = [Example({"sentence": row["sentence"]}) for row in labelled]
    for number, pattern in enumerate(PATTERNS):
        task = Cloze(Templates.of(pattern), ("no", "yes"), (WORDS["no"], WORDS["yes"]))
        bare = compose(masked, HardPrompt(name="hard-prompt"), task.readout(masked))
        said = task.on(bare).answers(examples)
        hits = sum(a.answer == row["answer"] for a, row in zip(said, labelled, strict=True))
        found = {
            row["weight"] for row in done.metrics["pet"]["patterns"] if row["pattern"] == number
        }
        assert found == {hits / len(labelled)}


def test_a_generation_grows_by_what_others_say(done: Run) -> None:
    """iPET: the labelled examples and as many again, each label's share kept (section 3.5)."""
    folder = done.folder / "patterns"
    labelled = lines(folder / "train-g0-p0-m0.jsonl")
    unlabelled = [row["sentence"] for row in lines(folder / "unlabelled.jsonl")]
    said = {p.name: load_file(p / "said.safetensors")["unlabelled"] for p in folder.glob("g0-*")}
    for member in ("p0-m0", "p0-m1", "p1-m0", "p1-m1"):
        grown = lines(folder / f"train-g1-{member}.jsonl")
        assert grown[:6] == labelled
        added = grown[6:]
        assert len(added) <= 6
        others = [logs for name, logs in said.items() if name != f"g0-{member}"]
        for row in added:
            at = unlabelled.index(row["sentence"])
            labels = {("no", "yes")[int(logs[at].argmax())] for logs in others}
            assert row["answer"] in labels


def test_the_same_seed_gives_the_same_run(
    done: Run, masked: Backbone, rated: Path, tmp_path: Path
) -> None:
    again = start(
        recipe(rated, masked, generations=1, growth=2.0, teachers=0.5), masked, tmp_path / "again"
    )
    assert again.metrics["pet"] == done.metrics["pet"]
    one, other = (load_file(r.artifact / "delta.safetensors") for r in (done, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_stopped_run_goes_on_with_the_next_model(
    masked: Backbone, rated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from foreword.procedures import pet

    given = recipe(rated, masked, models=1)
    whole = start(given, masked, tmp_path / "whole")
    real, taught = pet.Procedure._teach, []

    def teach(self: Any, member: Any, *rest: Any) -> None:
        if taught:
            raise KeyboardInterrupt
        taught.append(member.name)
        real(self, member, *rest)

    monkeypatch.setattr(pet.Procedure, "_teach", teach)
    with pytest.raises(KeyboardInterrupt):
        start(given, masked, tmp_path / "run")
    assert taught == ["g0-p0-m0"]
    monkeypatch.setattr(pet.Procedure, "_teach", real)
    resumed = start(given, masked, tmp_path / "run", resume=True)
    assert resumed.metrics["pet"] == whole.metrics["pet"]
    one, other = (load_file(r.artifact / "delta.safetensors") for r in (whole, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_a_limit_leaves_out_has_no_label(
    masked: Backbone, rated: Path, tmp_path: Path
) -> None:
    """`task.limits.train` leaves the first examples their labels, and no other."""
    given = recipe(rated, masked, models=1, patterns=PATTERNS[0])
    given["task"]["limits"] = {"train": 24}
    run = start(given, masked, tmp_path / "run")
    assert run.metrics["pet"]["labelled"] == 24
    below = run.folder / "patterns"
    labelled = [row["sentence"] for row in lines(below / "train-g0-p0-m0.jsonl")]
    unlabelled = {row["sentence"] for row in lines(below / "unlabelled.jsonl")}
    assert len(labelled) == 24
    assert len(unlabelled) == 40 - 8 - 24
    assert not unlabelled & set(labelled)


def stopped_before_the_classifier(
    given: dict[str, Any], backbone: Backbone, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from foreword.runs import run as runs

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(runs, "soft_pairs", stop)
        with pytest.raises(KeyboardInterrupt):
            start(given, backbone, out)


def test_a_run_stopped_before_the_classifier_ends_the_same(
    masked: Backbone, rated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head's dropout does not depend on which models were trained in this process."""
    given = recipe(rated, masked, models=1, patterns=PATTERNS[0])
    whole = start(given, masked, tmp_path / "whole")
    stopped_before_the_classifier(given, masked, tmp_path / "run", monkeypatch)
    resumed = start(given, masked, tmp_path / "run", resume=True)
    for name in ("delta.safetensors", "head.safetensors"):
        one, other = (load_file(r.artifact / name) for r in (whole, resumed))
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_run_does_not_go_on_with_other_data(
    masked: Backbone, rated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What models said before is of other examples."""
    data = tmp_path / "train.tsv"
    data.write_text(rated.read_text(encoding="utf-8"), encoding="utf-8")
    given = recipe(data, masked, models=1, patterns=PATTERNS[0], steps=1)
    stopped_before_the_classifier(given, masked, tmp_path / "run", monkeypatch)
    other = rated.read_text(encoding="utf-8").replace("the north", "the park")
    data.write_text(other, encoding="utf-8")
    with pytest.raises(UserError, match="holds other examples than the data gives now"):
        start(given, masked, tmp_path / "run", resume=True)


def test_the_classifier_keeps_its_precision(masked: Backbone, rated: Path, tmp_path: Path) -> None:
    """Though the models before it were trained in another one."""
    from accelerate.state import AcceleratorState

    given = recipe(rated, masked, models=1, patterns=PATTERNS[0], steps=1)
    given["training"]["precision"] = "bfloat16"
    start(given, masked, tmp_path / "run")
    assert AcceleratorState().mixed_precision == "bf16"


@pytest.mark.parametrize(
    ("task", "method", "message"),
    [
        ({"limits": {}}, {}, "task.data.unlabelled: pet labels examples that have no label"),
        ({}, {"words": {"yes": "good", "maybe": "so"}}, "has no word for the label 'no'"),
        ({}, {"words": {**WORDS, "maybe": "so"}}, "method.words: has a word for 'maybe', but"),
        ({}, {"patterns": ["{sentence}"]}, "needs one {mask}"),
        (
            {},
            {"patterns": {"input": "{sentence} {mask}", "second": "It was {mask}"}},
            "'{sentence} {mask} | It was {mask}' needs one {mask}",
        ),
        (
            {},
            {"patterns": {"input": "{sentence} {mask}", "second": ""}},
            "recipe: 1 problem\n  - method.patterns.0.second: expected at least 1 character",
        ),
        (
            {},
            {"patterns": [{"input": "{sentence} {mask}", "secnd": "x"}]},
            "recipe: 1 problem\n  - method.patterns.0.secnd: no such name (did you mean 'second'?)",
        ),
        ({}, {"patterns": [3]}, "recipe: 1 problem\n  - method.patterns.0: "),
        ({}, {"words": None}, "has no words; give it `words`"),
        (
            {},
            {"patterns": [PATTERNS[0], {"input": "{mask} {sentence}", "words": {"yes": "true"}}]},
            "at least 2",
        ),
        (
            {},
            {
                "patterns": [
                    PATTERNS[0],
                    {"input": "{mask} {sentence}", "words": {"yes": "good", "so": "bad"}},
                ]
            },
            "'{mask} {sentence}' has words for yes, so, others for yes, no",
        ),
        (
            {},
            {"patterns": ["{sentence} {mask}"], "words": {"yes": "good", "no": ["bad", "good"]}},
            "method.patterns: '{sentence} {mask}': task.verbalizer.words: 'good' says both",
        ),
        ({"max_tokens": 6}, {"patterns": ["{sentence} {mask}"]}, "but task.max_tokens is 6"),
        ({}, {"patterns": ["{mask} {"]}, "opens a slot that is not closed"),
        ({}, {"patterns": ["{mask} {sentense}"]}, "has no field 'sentense'"),
        (
            {"verbalizer": {"words": {"yes": "good", "no": "bad"}}, "head": {}},
            {},
            "pet ends in a classifier with a head",
        ),
        ({"labels": ["yes", "so"]}, {}, "name the same"),
        ({"limits": {"per_label": 50}}, {}, "task.limits.per_label: 50 are asked for"),
    ],
)
def test_mistakes(
    task: dict[str, Any],
    method: dict[str, Any],
    message: str,
    masked: Backbone,
    rated: Path,
    tmp_path: Path,
) -> None:
    given = recipe(rated, masked, **method)
    given["task"] |= task
    with pytest.raises(UserError) as caught:
        start(given, masked, tmp_path / "run")
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_one_process_writes_the_models(
    masked: Backbone, rated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hardware, "processes", property(lambda _: 2))
    with pytest.raises(UserError, match="start one process"):
        start(recipe(rated, masked), masked, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_soft_labels_are_learned_at_a_temperature() -> None:
    """Hinton et al. 2015: cross-entropy of both distributions at T, times its square."""
    head = SequenceHead(4, 3, dropout=0.0).double()
    head.temperature = 2.0
    states = torch.randn(2, 5, 4, dtype=torch.float64)
    shares = [(0.2, 0.5, 0.3), (0.9, 0.1, 0.0)]
    pairs = [Pair([1, 2, 3], marks=(0,), labels=s) for s in shares]
    assert [pair.answers for pair in pairs] == [1, 1]
    layout = Layout.of(
        [pair.source for pair in pairs],
        marks=[pair.marks for pair in pairs],
        labels=[pair.labels for pair in pairs],
    )

    class States:
        def hidden(self, _: Any, at: torch.Tensor) -> torch.Tensor:
            return states[:, :3].flatten(0, 1)[at]

    found = head.loss(States(), Call(layout))  # type: ignore[arg-type]
    logits = head.layers(states[:, 0]) / 2
    expected = [
        -4 * sum(s * (z[i] - z.exp().sum().log()).item() for i, s in enumerate(share))
        for z, share in zip(logits, shares, strict=True)
    ]
    assert found.tolist() == pytest.approx(expected)


def test_masked_words(masked: Backbone) -> None:
    """Of the words about 15 % are predicted; label masks and special tokens never are."""
    task = Cloze(Templates.of(PATTERNS[0]), ("no", "yes"), (WORDS["no"], WORDS["yes"]))
    model = compose(masked, HardPrompt(name="hard-prompt"), task.readout(masked))
    text = "a long day in the north of the land where the good people live and eat"
    (window,) = task.rows(model, Example({"sentence": text}), labelled=False)[-1:]
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    real = masked.logits

    class Watching:
        def __getattr__(self, name: str) -> Any:
            return getattr(masked, name)

        def logits(self, call: Call, reading: torch.Tensor) -> torch.Tensor:
            seen.append((call.layout.input_ids.clone(), reading))
            return real(call, reading)

    torch.manual_seed(0)
    words = MaskedWords(model, [window.pair], 16)
    model.backbone = Watching()  # type: ignore[assignment]
    losses = [float(words(None)) for _ in range(40)]
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    length = len(window.pair.source)
    special = {i for i, token in enumerate(window.pair.source) if token in (VOCABULARY,)}
    drawn = torch.cat([reading % length for _, reading in seen])
    assert not special & set(drawn.tolist())
    per_word = len(drawn) / (40 * 16 * (length - len(special)))
    assert 0.13 < per_word < 0.17
    hidden = torch.cat([ids.flatten()[reading] for ids, reading in seen])
    assert 0.76 < (hidden == VOCABULARY).float().mean() < 0.84


def test_masked_words_need_a_masked_model(mini: Backbone, rated: Path, tmp_path: Path) -> None:
    given = recipe(rated, mini)
    given["method"] = "fine-tuning"
    given["task"] |= {
        "input": "{sentence} It was {mask}",
        "verbalizer": {"words": {"yes": "good", "no": "bad"}},
        "head": {},
    }
    given["training"]["mlm_weight"] = 0.1
    with pytest.raises(UserError, match="is no masked model"):
        start(given, mini, tmp_path / "run")


def test_a_decoder_teaches_too(mini: Backbone, rated: Path, tmp_path: Path) -> None:
    """Its words are read at the end, and no masked words beside them."""
    given = recipe(rated, mini, patterns=["{sentence:cut} It was {mask}"], models=1, steps=2)
    run = start(given, mini, tmp_path / "run")
    assert len(run.metrics["pet"]["patterns"]) == 1


def test_few_shots_are_drawn_by_the_seed(rated: Path, masked: Backbone) -> None:
    from foreword.recipe import parse_recipe
    from foreword.runs.data import read_examples

    def drawn(seed: int) -> list[str | None]:
        given = {**recipe(rated, masked), "seed": seed}
        read = read_examples(parse_recipe(given))
        assert sorted(e.label or "" for e in read.train) == ["no"] * 3 + ["yes"] * 3
        assert len(read.unlabelled) == 40 - 8 - 6
        taken = {e.fields["sentence"] for e in read.train}
        assert not taken & {e.fields["sentence"] for e in (*read.unlabelled, *read.dev)}
        return [str(e.fields["sentence"]) for e in read.train]

    assert drawn(0) == drawn(0) != drawn(1)


def test_mlm_weight_needs_label_words(rated: Path, masked: Backbone) -> None:
    given = recipe(rated, masked)
    given["method"] = "fine-tuning"
    given["training"]["mlm_weight"] = 0.1
    with pytest.raises(RecipeError, match="mlm_weight"):
        train(given, backbone=masked)


def test_a_preview_shows_every_pattern(masked: Backbone, rated: Path) -> None:
    given = recipe(rated, masked, words={"yes": ["good", "very fine"], "no": ["\N{SNOWMAN}x"]})
    found = preview(parse_recipe(given), backbone=masked, device="cpu").as_json()
    found = json.loads(json.dumps(found))
    assert [pattern["pattern"] for pattern in found["patterns"]] == list(PATTERNS)
    assert "label_words" not in found
    for pattern, ending in zip(found["patterns"], ("It was {mask} .", "All {mask} !"), strict=True):
        assert pattern["label_words"]["yes"] == {"good": ["Ġgood"], "very fine": ["Ġvery", "Ġfine"]}
        assert "label word 'very fine' is 2 tokens here: Ġvery Ġfine" in pattern["notes"]
        assert len(pattern["notes"]) == 2
        masks = max(
            len(word) for words in pattern["label_words"].values() for word in words.values()
        )
        assert len(pattern["examples"]) == 3
        for shown, plain in zip(pattern["examples"], found["examples"], strict=True):
            assert shown["where"] == plain["where"]
            assert shown["text"] == f"{plain['text']} {ending}"
            (row,) = shown["rows"]
            assert row["read_at"] == ["[MASK]"] * masks
            assert row["says"] == plain["rows"][0]["says"]
            assert "[MASK]" not in plain["rows"][0]["tokens"]


def test_a_preview_says_what_is_cut_in_a_pattern(masked: Backbone, rated: Path) -> None:
    given = recipe(rated, masked)
    given["task"] |= {"input": "{sentence:cut}", "max_tokens": 7}
    found = preview(parse_recipe(given), count=1, backbone=masked, device="cpu")
    for pattern in found.patterns:
        (shown,) = pattern.examples
        assert pattern.most == 7
        assert len(shown.rows[0].tokens) <= 7
        assert (shown.cut > 0, shown.cut_fields) == (True, ("sentence",))


def test_a_preview_refuses_what_training_refuses(masked: Backbone, rated: Path) -> None:
    for method, said in (
        ({"patterns": ["{sentense} {mask}"]}, r"method\.patterns: .*no field 'sentense'"),
        ({"words": {"yes": "good", "perhaps": "bad"}}, r"method\.words: has no word for the label"),
    ):
        with pytest.raises(RecipeError, match=said):
            preview(parse_recipe(recipe(rated, masked, **method)), backbone=masked, device="cpu")
