"""Training that starts from an artifact: exactly there where all is alike, and said where not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import HealthCheck
from hypothesis import strategies as st
from torch import Tensor

from conftest import assert_close
from foreword.artifacts.artifact import load_model, save_artifact
from foreword.artifacts.starting import going_on, read_trained, settled, starts_from, without_folder
from foreword.axes.readout import Generation
from foreword.backbone import Backbone, Call
from foreword.errors import ArtifactError
from foreword.methods import METHODS, MethodOptions
from foreword.recipe import TaskId
from foreword.tasks import task_of
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose
from foreword.tuned.initial import initialise

SOURCES = [[5, 6, 7], [8, 9], [10, 11, 12, 13, 14, 15, 16]]
TARGETS = [[3, 4], [5], [6, 7, 8]]
WRITES = TaskId(input="{text}", target="{reference}")
TABLE = {"kind": "table", "std": 1.0}
PREFIX: dict[str, Any] = {"name": "prefix-tuning", "length": 4, "reparameterization": TABLE}
PROMPT: dict[str, Any] = {
    "name": "prompt-tuning",
    "length": 4,
    "reparameterization": TABLE,
    "init": {"kind": "uniform"},
}
MLP = {"kind": "mlp", "hidden": 8, "fit_steps": 5}
LSTM = {"kind": "lstm", "hidden": 6, "fit_steps": 5}


def labels(*names: str, **head: Any) -> TaskId:
    return TaskId(
        input="{text}", target="{reference}", answer="label", labels=names, label="k", head=head
    )


def options(given: dict[str, Any]) -> MethodOptions:
    return METHODS[given["name"]].model_validate(given)


def composed(backbone: Backbone, given: dict[str, Any], task: TaskId = WRITES) -> TunedModel:
    return compose(backbone, options(given), task_of(task).readout(backbone)).double()


def store(
    folder: Path, backbone: Backbone, given: dict[str, Any], task: TaskId = WRITES, *, seed: int = 1
) -> Path:
    """An artifact of numbers that say something."""
    torch.manual_seed(seed)
    model = composed(backbone, given, task)
    if given["name"] == "cpt":
        initialise(model, options(given).init, [])
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.01 if given["name"] == "cpt" else 0.3
            parameter.add_(torch.randn_like(parameter) * scale)
    save_artifact(folder, model, name=folder.name, method=options(given), task=task)
    return folder


def started(
    backbone: Backbone, folder: Path, given: dict[str, Any], task: TaskId = WRITES, **init: Any
) -> tuple[TunedModel, tuple[str, ...]]:
    """A model at its start, and what is said of it."""
    whole = {**given, "init": {"kind": "artifact", "path": str(folder), **init}}
    method = settled(options(whole))
    known = starts_from(method)
    assert known is not None
    method = going_on(method, known)
    torch.manual_seed(2)
    model = compose(backbone, method, task_of(task).readout(backbone)).double()
    trained = read_trained(known, model, method, task=task)
    initialise(model, method.init, [], trained=trained)
    return model, trained.notes


def answers(model: TunedModel) -> Tensor:
    """Losses of answers where a model writes, else what its head gives."""
    writes = isinstance(model.readout, Generation)
    layout = model.arrange(SOURCES, TARGETS if writes else None)
    with torch.no_grad():
        if writes:
            return model(layout)
        return model.backbone.hidden(Call(layout, model.prompt()))[layout.attention_mask]


def refusal(backbone: Backbone, folder: Path, given: dict[str, Any], **more: Any) -> str:
    with pytest.raises(ArtifactError) as caught:
        started(backbone, folder, given, **more)
    said = str(caught.value)
    assert said.startswith(("method.init: ", "method.init.path: "))
    return said


CONTEXT = {"tokens": [5, 6, 7, 8, 9, 10], "types": [1, 2, 3, 4, 5, 8]}
SAME = {
    "prefix": (PREFIX, PREFIX),
    "prefix, to an mlp": (PREFIX, {**PREFIX, "reparameterization": MLP}),
    "prefix, to p-tuning-v2": (PREFIX, {"name": "p-tuning-v2", "reparameterization": MLP}),
    "some layers": ({**PREFIX, "layers": [0, -1]}, {**PREFIX, "layers": [0, 2]}),
    "positions kept": ({**PREFIX, "positions": "keep"}, {**PREFIX, "positions": "keep"}),
    "infix": ({"name": "infix-tuning", "length": 3, "reparameterization": TABLE},) * 2,
    "prompt": (PROMPT, PROMPT),
    "prompt, to p-tuning": (PROMPT, {"name": "p-tuning", "reparameterization": LSTM}),
    "prompt, to p-tuning's mlp": (
        PROMPT,
        {"name": "p-tuning", "reparameterization": {"kind": "mlp", "fit_steps": 5}},
    ),
    "prompt, to residual": (
        PROMPT,
        {"name": "residual-prompt-tuning", "reparameterization": {"bottleneck": 8}},
    ),
    "prompt, to embedding-only": (PROMPT, {"name": "embedding-only", "reparameterization": MLP}),
    "prompt, to prefix": (PROMPT, PREFIX),
    "adaption": ({"name": "llama-adapter", "length": 3},) * 2,
    "cpt": ({"name": "cpt", "length": 6, "init": {"kind": "context", **CONTEXT}},) * 2,
    "lora": ({"name": "lora"},) * 2,
    "lora, another alpha": (
        {"name": "lora", "rank": 2},
        {"name": "lora", "rank": 2, "alpha": 5, "dropout": 0.0},
    ),
    "bitfit": ({"name": "bitfit"},) * 2,
    "adapter": ({"name": "adapter"},) * 2,
    "top": ({"name": "fine-tuning-top"},) * 2,
    "all": ({"name": "fine-tuning"},) * 2,
    "prefix and biases": ({**PREFIX, "delta": {"kind": "bitfit"}},) * 2,
}


@pytest.mark.parametrize("name", SAME)
def test_the_start_answers_as_the_artifact(name: str, tiny_backbone, tmp_path: Path) -> None:
    backbone = tiny_backbone("gpt2" if name != "lora" else "llama", torch.float64)
    before, after = SAME[name]
    folder = store(tmp_path / "a", backbone, before)
    _, expected = load_model(folder, backbone=backbone)
    model, notes = started(
        backbone,
        folder,
        {k: v for k, v in after.items() if k != "length"} if after["name"] != "cpt" else after,
    )
    assert notes == ()
    assert_close(answers(model), answers(expected))
    bare = composed(backbone, {"name": "hard-prompt"})
    assert (answers(expected) - answers(bare)).abs().max() > 1e-3
    if name != "cpt":
        assert all(p.requires_grad for p in model.reparam.parameters())


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_other_kinds_of_models(family: str, tmp_path: Path) -> None:
    from families.catalogue import wrapped

    backbone = wrapped(family)
    task = labels("x", "y") if family == "bert" else WRITES
    for given in (PREFIX, PROMPT):
        folder = store(tmp_path / given["name"], backbone, given, task)
        _, expected = load_model(folder, backbone=backbone)
        model, notes = started(backbone, folder, given, task)
        assert notes == ()
        assert_close(answers(model), answers(expected))


@pytest.mark.parametrize("made_by", [TABLE, MLP], ids=lambda given: given["kind"])
@hypothesis.settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@hypothesis.given(before=st.integers(1, 6), after=st.integers(1, 6))
def test_other_lengths(made_by, before: int, after: int, tiny_backbone, tmp_path_factory) -> None:
    """The artifact's virtual tokens come first; the others are those of a run without it."""
    backbone = tiny_backbone("gpt2", torch.float64)
    folder = store(tmp_path_factory.mktemp("a") / "a", backbone, {**PREFIX, "length": before})
    _, source = load_model(folder, backbone=backbone)
    given = {**PREFIX, "length": after, "reparameterization": made_by}
    model, notes = started(backbone, folder, given)
    common = min(before, after)
    with torch.no_grad():
        rows = model.rows()
        assert_close(rows[:common], source.rows()[:common])
        torch.manual_seed(2)
        anew = composed(backbone, given).rows()
        assert_close(rows[common:].sum(0), anew[common:].sum(0))
    words = {
        -1: f"holds {before} virtual tokens, of which the first {after} are taken",
        1: f"holds {before} virtual tokens, which come first; the other {after - before} start as"
        " by `init: random`",
    }
    expected = [words[(after > before) - (after < before)]] if after != before else []
    assert [note.split(": ", 2)[2] for note in notes] == expected


def test_what_is_missing_starts_as_the_method_does(mini: Backbone, tmp_path: Path) -> None:
    """Prompt tuning's default: the labels first, then words of the vocabulary."""
    folder = store(tmp_path / "a", mini, PROMPT)
    given = {"name": "prompt-tuning", "length": 9}
    method = options({**given, "init": {"kind": "artifact", "path": str(folder)}})
    model = compose(mini, method)
    trained = read_trained(method.init, model, method)
    initialise(model, method.init, [], ("bird", "fish"), trained)
    table = mini.model.get_input_embeddings().weight
    with torch.no_grad():
        added = model.rows()[4:]
    for row, label in zip(added, ("bird", "fish"), strict=False):
        torch.testing.assert_close(row, table[mini.tokens.plain(label)].mean(0))
    assert (added[2:, None] == table[None]).all(-1).any(1).all()


def test_the_length_is_the_artifacts_unless_it_is_given(mini: Backbone, tmp_path: Path) -> None:
    folder = store(tmp_path / "a", mini, PROMPT)
    init = {"kind": "artifact", "path": str(folder)}
    assert settled(options({"name": "prompt-tuning", "init": init})).length == 4
    assert settled(options({"name": "prompt-tuning", "length": 7, "init": init})).length == 7
    assert settled(options({"name": "lora", "init": init})).length == 0
    assert settled(options({"name": "prompt-tuning"})).length == 100


def test_a_network_under_the_table_is_trained_as_ever(tiny_backbone, tmp_path: Path) -> None:
    backbone = tiny_backbone("gpt2", torch.float64)
    folder = store(tmp_path / "a", backbone, PREFIX)
    given = {**PREFIX, "reparameterization": MLP}
    model, _ = started(backbone, folder, given)
    plain = composed(backbone, given)
    assert model.trained_parameters == plain.trained_parameters
    model(model.arrange(SOURCES, TARGETS)).mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).all(), name
    assert {name for name, _ in model.named_buffers()} == {"reparam.left/decoder/keys_values"}


def test_a_head_goes_on_where_it_tells_the_same_labels(mini: Backbone, tmp_path: Path) -> None:
    given = {"name": "p-tuning-v2", "length": 2}
    folder = store(tmp_path / "a", mini, given, labels("x", "y", "z", hidden=6))
    _, source = load_model(folder, backbone=mini)
    theirs = dict(source.readout.named_parameters())
    model, notes = started(mini, folder, given, labels("z", "x", "y", hidden=6))
    assert notes == ()
    for name, parameter in model.readout.named_parameters():
        expected = theirs[name][[2, 0, 1]] if name.startswith("layers.2.") else theirs[name]
        assert torch.equal(parameter.float(), expected), name
    for task, init, why in (
        (labels("x", "y", hidden=6), {}, "the artifact's tells x, y, z"),
        (labels("x", "y", "z"), {}, "the artifact's has other layers (task.head)"),
        (labels("x", "y", "z", hidden=6), {"head": "new"}, "method.init.head says so"),
    ):
        model, (note,) = started(mini, folder, given, task, **init)
        assert note.endswith(f": the head starts anew: {why}")
        assert all(
            not torch.equal(parameter.float(), theirs[name])
            for name, parameter in model.readout.named_parameters()
            if name.endswith("weight") and parameter.shape == theirs[name].shape
        )


def test_a_head_alone_goes_on(mini: Backbone, tmp_path: Path) -> None:
    given = {"name": "head-only"}
    folder = store(tmp_path / "a", mini, given, labels("x", "y"))
    model, notes = started(mini, folder, given, labels("y", "x"))
    assert notes == ()
    _, source = load_model(folder, backbone=mini)
    with torch.no_grad():
        states = torch.randn(3, mini.hidden_width)
        expected = source.readout.logits(states)
        assert_close(model.readout.float().logits(states), expected[:, [1, 0]])
    said = refusal(mini, folder, given, task=labels("x", "q"))
    assert "its head cannot go on: the artifact's tells x, y; so nothing of it can" in said


def test_what_makes_the_start_answer_otherwise_is_said(tiny_backbone, tmp_path: Path) -> None:
    backbone = tiny_backbone("gpt2", torch.float64)
    folder = store(tmp_path / "a", backbone, PREFIX)
    _, notes = started(backbone, folder, {"name": "infix-tuning"})
    assert any("its placement was 'prefix' and is 'infix' here" in note for note in notes)
    _, (note,) = started(backbone, folder, {**PREFIX, "positions": "keep"})
    assert "its positions was 'shift' and is 'keep' here" in note
    other = tiny_backbone("gpt2").with_bos("never")
    _, notes = started(other, folder, PREFIX, other_backbone=True)
    assert [note.split("trained on a backbone ")[1] for note in notes] == [
        "in float64, here it is in float32; the start may answer otherwise than the artifact does",
        "with `bos: auto`, here it is with `bos: never`; the start may answer otherwise than the"
        " artifact does",
    ]


def test_what_does_not_fit_is_refused(tiny_backbone, tmp_path: Path) -> None:
    gpt2 = tiny_backbone("gpt2", torch.float64)
    prefix = store(tmp_path / "prefix", gpt2, PREFIX)
    prompt = store(tmp_path / "prompt", gpt2, PROMPT)
    lora = store(tmp_path / "lora", gpt2, {"name": "lora", "rank": 2})
    biased = store(tmp_path / "biased", gpt2, {**PREFIX, "delta": {"kind": "bitfit"}})
    hard = store(tmp_path / "hard", gpt2, {"name": "hard-prompt"})
    other = tiny_backbone("gpt2", torch.float64, n_layer=2)
    for backbone, folder, given, said in (
        (gpt2, prefix, {"name": "prompt-tuning"},
         "holds keys and values of every layer (prefix-tuning), but prompt-tuning trains "
         "embeddings of the input; take a method whose prompts enter alike"),
        (gpt2, prompt, {"name": "llama-adapter"}, "trains states with gates at chosen layers"),
        (gpt2, prompt, {"name": "cpt"}, "was trained by prompt-tuning, but cpt goes on from cpt"),
        (gpt2, prefix, {**PREFIX, "layers": [0, 1]},
         "its virtual tokens enter at the layers [0, 1, 2] of the decoder, those of this run at "
         "[0, 1]; give method.layers: {decoder: [0, 1, 2]}"),
        (gpt2, lora, PREFIX, "holds no virtual tokens (lora), but prefix-tuning starts from some"),
        (gpt2, prefix, {"name": "lora"}, "holds 4 virtual tokens (prefix-tuning), but lora"),
        (gpt2, lora, {"name": "lora", "rank": 3}, "its `rank` is 2, that of this run 3; give the"),
        (gpt2, lora, {"name": "lora", "rank": 2, "targets": ["c_proj"]},
         "delta.safetensors: 18 tensors are missing, superfluous"),
        (gpt2, lora, {"name": "adapter"}, "moves the backbone's own weights (lora), where this run"
         " moves adapter"),
        (gpt2, biased, PREFIX, "(bitfit), where this run moves none; give the same method or "
         "method.delta, or write the artifact as a model (`foreword.export_model`)"),
        (gpt2, hard, {"name": "bitfit"}, "moves nothing of the backbone (hard-prompt), so bitfit"),
        (other, prefix, PREFIX, "was trained on 'gpt2' whose weights have sha256 "),
        (gpt2, tmp_path / "none", PREFIX, "there is no such folder"),
    ):  # fmt: skip
        assert said in refusal(backbone, folder, given), given
    said = refusal(other, prefix, PREFIX, other_backbone=True)
    assert "needs [2, 4, 4, 8]" in said.replace("need ", "needs ")


def test_sites_that_differ_are_named(tmp_path: Path) -> None:
    from families.catalogue import wrapped

    t5 = wrapped("t5")
    folder = store(tmp_path / "a", t5, {**PREFIX, "sites": ["decoder"]})
    assert "give method.sites: [decoder]" in refusal(t5, folder, PREFIX)
    model, notes = started(t5, folder, {**PREFIX, "sites": ["decoder"]})
    assert (model.injection.sites, notes) == (("decoder",), ())


def test_a_damaged_artifact_is_refused(mini: Backbone, tmp_path: Path) -> None:
    folder = store(tmp_path / "a", mini, PROMPT)
    tensors = folder / "prompt.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(ArtifactError, match="is damaged"):
        started(mini, folder, PROMPT)


def test_an_artifact_names_no_folder() -> None:
    for path, name in (("/home/me/runs/first/artifact", "first"), ("runs/first", "first")):
        method = options({**PROMPT, "init": {"kind": "artifact", "path": path}})
        assert without_folder(method).init.path == name
    assert without_folder(options(PROMPT)) == options(PROMPT)
