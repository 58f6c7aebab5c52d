"""Artifacts with a head and with moved weights: whole, they answer bit for bit as before; damaged,
they end in a clear error, and nothing in them is run."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mutators import damaged_bytes, damaged_tree
from safetensors.torch import load_file, save
from transformers import AutoModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from conftest import VOCABULARY, mini_tokens
from foreword.artifacts.artifact import save_artifact
from foreword.backbone import Backbone
from foreword.errors import ArtifactError, UserError
from foreword.methods import FineTuning, HeadOnly, MethodChoice, PTuningV2
from foreword.recipe import HeadSpec, TaskId
from foreword.session import LoadedPrompt, load
from foreword.tasks import task_of
from foreword.tuned.compose import compose

Tensors = dict[str, torch.Tensor]
HEAD, DELTA = "head.safetensors", "delta.safetensors"
WORDS = "The grey otter swims in a cold river near us"
LABEL = TaskId(
    input="{text}", target="{reference}", answer="label", labels=("a", "b", "c"), label="label"
)
TASKS: dict[str, tuple[MethodChoice, TaskId]] = {
    "label": (
        PTuningV2(name="p-tuning-v2", length=2),
        LABEL.model_copy(update={"head": HeadSpec(hidden=8)}),
    ),
    "tags": (
        HeadOnly(name="head-only"),
        TaskId(input="{text}", target="{reference}", answer="tags", labels=("O", "B-X", "I-X")),
    ),
    "span": (
        PTuningV2(name="p-tuning-v2", length=2),
        TaskId(input="{text}", target="{reference}", answer="span", stride=4),
    ),
    "moved": (FineTuning(name="fine-tuning"), LABEL),
}
ASKED: dict[str, Any] = {
    "label": WORDS,
    "tags": WORDS,
    "span": {"question": "What swims?", "context": WORDS},
    "moved": WORDS,
}
Made = dict[str, tuple[Path, Any]]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    config = CONFIG_MAPPING["bert"](
        vocab_size=VOCABULARY,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    return Backbone.wrap(AutoModel.from_config(config), mini_tokens())


@pytest.fixture(scope="module")
def sound(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """An artifact of each kind, and what its model answered before it was saved."""
    root, made = tmp_path_factory.mktemp("artifacts"), {}
    for kind, (method, stated) in TASKS.items():
        torch.manual_seed(1)
        task = task_of(stated)
        model = compose(backbone, method, task.readout(backbone))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) / 4)
        manifest = save_artifact(root / kind, model, name=kind, method=method, task=stated)
        answered = LoadedPrompt(manifest, task.on(model.eval())).predict([ASKED[kind]])
        made[kind] = (root / kind, answered)
    return made


@pytest.fixture
def copy(sound: Made, tmp_path: Path) -> Callable[[str], Path]:
    return lambda kind: Path(shutil.copytree(sound[kind][0], tmp_path / "damaged"))


def verdict(folder: Path, backbone: Backbone) -> str:
    """Why it was refused, "" if it was not; fails unless that was done clearly."""
    try:
        prompt = load(folder, backbone=backbone)
    except UserError as error:
        said = str(error)
        assert 20 < len(said) < 3000
        for word in ("pydantic", "nput should", "instance of", "Traceback"):
            assert word not in said
        return said
    kept = [*prompt.model.readout.parameters(), *prompt.model.delta.tensors().values()]
    assert all(tensor.isfinite().all() for tensor in kept)
    return ""


def put(folder: Path, name: str, raw: bytes) -> None:
    """Other bytes, with their right hash: whoever damages on purpose does that."""
    (folder / name).write_bytes(raw)
    state(folder, **{f"{name.split('.')[0]}_sha256": hashlib.sha256(raw).hexdigest()})


def state(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / "foreword.json").read_text(encoding="utf-8"))
    (folder / "foreword.json").write_text(json.dumps({**manifest, **changes}), encoding="utf-8")


@pytest.mark.parametrize("kind", TASKS)
def test_there_and_back(kind: str, sound: Made, backbone: Backbone) -> None:
    folder, answered = sound[kind]
    before = {name: p.clone() for name, p in backbone.model.named_parameters()}
    prompt = load(folder, backbone=backbone)
    assert prompt.predict([ASKED[kind]]) == answered
    assert (folder / HEAD).exists()
    assert (folder / DELTA).exists() == (kind == "moved")
    for name, parameter in backbone.model.named_parameters():
        assert torch.equal(parameter, before[name]), "the given backbone is left alone"


def _with(change: Callable[[Tensors, str], Any]) -> Callable[[Tensors], Tensors]:
    def apply(tensors: Tensors) -> Tensors:
        change(tensors, min(tensors))
        return tensors

    return apply


OTHER_TENSORS: dict[str, Callable[[Tensors], Tensors]] = {
    **{
        str(dtype): _with(lambda t, n, dtype=dtype: t.update({n: t[n].to(dtype)}))
        for dtype in (torch.int8, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn)
    },
    "none": lambda _: {},
    "one missing": _with(lambda t, n: t.pop(n)),
    "one too many": _with(lambda t, n: t.update(extra=torch.zeros(1))),
    "another name": _with(lambda t, n: t.update({f"{n}s": t.pop(n)})),
    "a path": _with(lambda t, n: t.update({"../../it": t.pop(n)})),
    "another shape": _with(lambda t, n: t.update({n: torch.zeros(*t[n].shape, 2)})),
    "turned": lambda t: {name: tensor.T for name, tensor in t.items()},
    "one longer": _with(lambda t, n: t.update({n: torch.cat([t[n], t[n][:1]])})),
    "no dimension": _with(lambda t, n: t.update({n: torch.tensor(1.0)})),
    "not a number": _with(lambda t, n: t[n].view(-1)[:1].fill_(float("nan"))),
    "infinite": _with(lambda t, n: t[n].view(-1)[-1:].fill_(float("-inf"))),
}
FILES = [("label", HEAD), ("tags", HEAD), ("span", HEAD), ("moved", HEAD), ("moved", DELTA)]


@pytest.mark.filterwarnings("ignore:The use of `x.T` on tensors:UserWarning")
@pytest.mark.parametrize("what", OTHER_TENSORS)
@pytest.mark.parametrize(("kind", "name"), FILES)
def test_other_tensors_with_the_right_hash(
    what: str, kind: str, name: str, copy: Any, backbone: Backbone
) -> None:
    folder = copy(kind)
    tensors = {k: v.clone() for k, v in load_file(folder / name).items()}
    changed = {k: v.contiguous() for k, v in OTHER_TENSORS[what](tensors).items()}
    put(folder, name, save(changed))
    assert name in verdict(folder, backbone)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("kind", "name"), FILES[-2:])
def test_other_float_types_are_taken(
    kind: str, name: str, dtype: torch.dtype, copy: Any, backbone: Backbone
) -> None:
    folder = copy(kind)
    put(folder, name, save({k: v.to(dtype) for k, v in load_file(folder / name).items()}))
    assert verdict(folder, backbone) == ""


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("kind", "name"), FILES[-2:])
def test_damaged_bytes(seed: int, kind: str, name: str, copy: Any, backbone: Backbone) -> None:
    folder = copy(kind)
    raw = (folder / name).read_bytes()
    damaged = damaged_bytes(seed, raw)
    (folder / name).write_bytes(damaged)
    said = verdict(folder, backbone)
    assert ("is damaged" in said) == (damaged != raw)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("kind", "name"), FILES[-2:])
def test_damaged_headers_with_the_right_hash(
    seed: int, kind: str, name: str, copy: Any, backbone: Backbone
) -> None:
    folder = copy(kind)
    raw = (folder / name).read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header, data = raw[8 : 8 + size], raw[8 + size :]
    if seed % 2:
        header = damaged_bytes(seed, header)
    else:
        header = json.dumps(damaged_tree(seed, json.loads(header))).encode()
    put(folder, name, struct.pack("<Q", len(header)) + header + data)
    verdict(folder, backbone)


@pytest.mark.parametrize(("kind", "name"), FILES[-2:])
def test_files_and_hashes_that_do_not_go_together(
    kind: str, name: str, copy: Any, backbone: Backbone, tmp_path: Path
) -> None:
    folder = copy(kind)
    field, raw = f"{name.split('.')[0]}_sha256", (folder / name).read_bytes()
    sha256 = hashlib.sha256(raw).hexdigest()
    for changes, said in (
        ({field: "0" * 64}, "is damaged: its sha256 is"),
        ({field: None}, name),
        ({field: "../../../etc/passwd"}, field),
        ({field: sha256.upper()}, field),
    ):
        state(folder, **changes)
        assert said in verdict(folder, backbone)
    state(folder, **{field: sha256})
    (folder / name).unlink()
    assert "cannot be read" in verdict(folder, backbone)
    (folder / name).mkdir()
    assert "cannot be read" in verdict(folder, backbone)
    (folder / name).rmdir()
    (folder / name).symlink_to(tmp_path / "nowhere")
    assert "cannot be read" in verdict(folder, backbone)


def test_a_head_where_none_belongs_and_another_tasks(copy: Any, sound: Made, backbone: Any) -> None:
    folder = copy("label")
    for kind, name in (("tags", HEAD), ("span", HEAD)):
        put(folder, HEAD, (sound[kind][0] / name).read_bytes())
        assert HEAD in verdict(folder, backbone)
    shutil.rmtree(folder)
    folder = copy("label")
    put(folder, DELTA, (sound["moved"][0] / DELTA).read_bytes())
    assert DELTA in verdict(folder, backbone)


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": ["a", "b"]},
        {"labels": []},
        {"labels": ["a", "b", "c", "d"]},
        {"head": {"hidden": 9}},
        {"head": {"hidden": None}},
        {"answer": "text"},
        {"answer": "span"},
    ],
)
def test_a_task_that_its_head_does_not_fit(changes: Any, copy: Any, backbone: Backbone) -> None:
    folder = copy("label")
    manifest = json.loads((folder / "foreword.json").read_text(encoding="utf-8"))
    state(folder, task={**manifest["task"], **changes})
    assert verdict(folder, backbone)


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (Path.touch, (self.file,))


@pytest.mark.parametrize("how", ["pickle", "zip", "legacy"])
@pytest.mark.parametrize(("kind", "name"), FILES[-2:])
def test_pickles_are_never_read(
    how: str, kind: str, name: str, copy: Any, backbone: Backbone, tmp_path: Path
) -> None:
    made = tmp_path / "made-by-a-pickle"
    content = {"layers.0.weight": Payload(made)}
    buffer = io.BytesIO()
    if how == "pickle":
        pickle.dump(content, buffer)
    else:
        torch.save(content, buffer, _use_new_zipfile_serialization=how == "zip")
    folder = copy(kind)
    put(folder, name, buffer.getvalue())
    assert f"{name}: cannot be read" in verdict(folder, backbone)
    assert not made.exists()
    shutil.rmtree(folder)
    folder = copy(kind)
    (folder / name.replace("safetensors", "bin")).write_bytes(buffer.getvalue())
    assert verdict(folder, backbone) == "", "what nobody names is not opened"
    assert not made.exists()


def test_no_message_is_a_page(copy: Any, backbone: Backbone) -> None:
    folder = copy("label")
    put(folder, HEAD, save({"x" * 5000: torch.zeros(1)}))
    with pytest.raises(ArtifactError) as refused:
        load(folder, backbone=backbone)
    assert len(str(refused.value)) < 1000
