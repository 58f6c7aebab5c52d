"""FIFOs, devices, links and huge files in the place of an artifact's, a run's and a data set's.

Whoever unpacks somebody else's folder meets them. Each ends at once in an error of ours.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from odd import become
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from foreword.artifacts.artifact import load_model, save_artifact
from foreword.artifacts.manifest import read_manifest, size_in_bytes
from foreword.axes.readout import SequenceHead
from foreword.backbone import Backbone
from foreword.cli.app import app
from foreword.common import files
from foreword.compat import export_peft
from foreword.data import read_examples
from foreword.data.sources import source_sha256
from foreword.errors import ArtifactError, DataError, ForewordError, RecipeError, UserError
from foreword.methods import LoRA, MethodChoice, PrefixTuning, PromptTuning, PTuningV2
from foreword.methods.axes import Bottlenecks, LowRank
from foreword.recipe import HeadSpec, TaskId, load_recipe, parse_recipe
from foreword.recipe.yaml_text import YAML_BYTES, parse_yaml
from foreword.runs import train
from foreword.runs.folder import read_run
from foreword.scoring import read_pairs
from foreword.session import load
from foreword.training.log import Log
from foreword.training.storage import Storage, read_checkpoint
from foreword.tuned.compose import compose

Swap = Callable[[Path], object]


def _moved_out(place: Path) -> None:
    outside = place.parent.parent / f"outside-{place.name}"
    if place.is_dir():
        shutil.move(place, outside)
    else:
        place.rename(outside)
    place.symlink_to(outside)


ODD: dict[str, tuple[Swap, str]] = {
    "fifo": (lambda place: (place.unlink(), os.mkfifo(place)), "a FIFO"),
    "device": (
        lambda place: (place.unlink(), place.symlink_to("/dev/zero")),
        "link out of its folder",
    ),
    "link": (_moved_out, "link out of its folder"),
}
"""How a file becomes an odd one, and what is said of that."""
odd = pytest.mark.parametrize("kind", ODD)


def sound(folder: Path, backbone: Backbone, method: MethodChoice, **task: Any) -> Path:
    """A small artifact; with labels it has a head."""
    stated = TaskId(input="{text}", target="{reference}", **task)
    head = None
    if stated.answer == "label":
        head = SequenceHead(backbone.hidden_width, 2, hidden=stated.head.hidden)
    model = compose(backbone, method, head)
    save_artifact(folder, model, name="it", method=method, task=stated)
    return folder


@pytest.fixture
def backbone(tiny_backbone: Callable[..., Backbone]) -> Backbone:
    return tiny_backbone("llama")


PREFIX = PrefixTuning(name="prefix-tuning", length=2)


@odd
@pytest.mark.parametrize("name", ["foreword.json", "prompt.safetensors"])
def test_artifact_files(name: str, kind: str, backbone: Backbone, tmp_path: Path) -> None:
    folder = sound(tmp_path / "it", backbone, PREFIX)
    swap, said = ODD[kind]
    swap(folder / name)
    for use in (lambda: load(folder, backbone=backbone), lambda: export_peft(folder, "out")):
        with pytest.raises(ArtifactError, match=f"{name}: .*{said}"):
            use()


def test_delta_and_head_files(backbone: Backbone, tmp_path: Path) -> None:
    swap, said = ODD["fifo"]
    for name in ("delta.safetensors", "head.safetensors"):
        folder = sound(
            tmp_path / name,
            backbone,
            LoRA(name="lora", rank=2),
            answer="label",
            labels=("a", "b"),
        )
        swap(folder / name)
        with pytest.raises(ArtifactError, match=f"{name}: .*{said}"):
            load_model(folder, backbone=backbone)


def test_ls_of_a_parent_folder_ends(backbone: Backbone, tmp_path: Path) -> None:
    """A manifest that is a FIFO was waited for without end, and a linked device read to no end."""
    for kind, (swap, _) in ODD.items():
        swap(sound(tmp_path / "all" / kind, backbone, PREFIX) / "foreword.json")
    sound(tmp_path / "all" / "sound", backbone, PREFIX)
    done = CliRunner().invoke(app, ["ls", str(tmp_path / "all"), "--json"])
    assert done.exit_code == 0
    found = {Path(one["artifact"]).name: one for one in json.loads(done.stdout)["artifacts"]}
    assert {name for name, one in found.items() if "error" in one} == {*ODD}
    assert "a FIFO" in found["fifo"]["error"]
    assert "link out of its folder" in found["device"]["error"]


def test_a_run_folder_whose_artifact_is_elsewhere(backbone: Backbone, tmp_path: Path) -> None:
    run = tmp_path / "run"
    sound(run / "artifact", backbone, PREFIX)
    assert load(run, backbone=backbone).manifest.name == "it"
    _moved_out(run / "artifact")
    with pytest.raises(ArtifactError, match=r"artifact: is a link out of its folder"):
        load(run, backbone=backbone)


def test_sizes_count_regular_files_alone(backbone: Backbone, tmp_path: Path) -> None:
    folder = sound(tmp_path / "it", backbone, PREFIX)
    size = size_in_bytes(folder)
    (tmp_path / "big").write_bytes(b"x" * 10_000)
    (folder / "link").symlink_to(tmp_path / "big")
    assert size_in_bytes(folder) == size


def test_a_manifest_of_terabytes(backbone: Backbone, tmp_path: Path) -> None:
    folder = sound(tmp_path / "it", backbone, PREFIX)
    os.truncate(folder / "foreword.json", 2**40)
    with pytest.raises(ArtifactError, match="has more than 16,777,216 bytes"):
        read_manifest(folder)


def test_tensors_of_terabytes(backbone: Backbone, tmp_path: Path) -> None:
    """The header says how long the file is; a longer one is not hashed to its end."""
    folder = sound(tmp_path / "it", backbone, PREFIX)
    os.truncate(folder / "prompt.safetensors", 2**40)
    with pytest.raises(ArtifactError, match=r"prompt\.safetensors: cannot be read, it is damaged"):
        load(folder, backbone=backbone)


DATA = {
    "jsonl": ("x.jsonl", "jsonl"),
    "csv": ("x.csv", "csv"),
    "parquet": ("x.parquet", "parquet"),
    "webnlg": ("x.xml", "webnlg"),
    "squad": ("x.json", "squad"),
    "conll": ("x.txt", "conll"),
    "dart": ("x.json", "dart"),
    "xsum": ("x.jsonl", "xsum"),
}


@pytest.mark.parametrize("what", DATA)
@pytest.mark.parametrize("device", [False, True])
def test_data_files(what: str, device: bool, tmp_path: Path) -> None:
    name, format = DATA[what]
    file = tmp_path / name
    if device:
        file.symlink_to("/dev/zero")
    else:
        os.mkfifo(file)
    said = "no regular file but a " + ("character device" if device else "FIFO")
    with pytest.raises(DataError, match=said):
        read_examples(file, format)
    with pytest.raises(DataError, match=said):
        source_sha256(file)
    with pytest.raises(DataError, match=said):
        read_pairs(file, file)


def test_data_may_be_a_link_that_the_user_names(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.jsonl").write_text('{"text": "a", "references": "b"}\n', "utf-8")
    (tmp_path / "link.jsonl").symlink_to("data/x.jsonl")
    assert len(read_examples(tmp_path / "link.jsonl", "jsonl")) == 1


@pytest.mark.parametrize(("name", "said"), [("pipe.xml", "a FIFO"), ("out.xml", "link out of its")])
def test_data_folders(name: str, said: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    if said == "a FIFO":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to("/etc/hostname")
    for format in ("webnlg", "parquet"):
        with pytest.raises(DataError, match=said):
            read_examples(folder, format)
    with pytest.raises(DataError, match=said):
        source_sha256(folder)


def test_a_line_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foreword.data.lines.LINE_BYTES", 20)
    file = tmp_path / "x.jsonl"
    file.write_text('{"references": "b"}\n' + "x" * 21, encoding="utf-8")
    with pytest.raises(DataError, match=r"x\.jsonl, line 2: has more than 20 bytes"):
        read_examples(file, "jsonl")


@odd
def test_recipes(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "recipes"
    folder.mkdir()
    file = folder / "recipe.yaml"
    file.write_text("version: 1\n", encoding="utf-8")
    swap, said = ODD[kind]
    swap(file)
    if kind == "link":
        said = "problems"  # whoever names a link means what it leads to
    if kind == "device":
        said = "no regular file but a character device"
    with pytest.raises(RecipeError, match=said):
        load_recipe(file)


def quick(**data: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "name": "it",
        "backbone": "foreword/mini",
        "task": {"input": "{text}", "data": {"format": "jsonl", **data}},
        "method": {"name": "prompt-tuning", "length": 1},
    }


@odd
@pytest.mark.parametrize("name", ["recipe.yaml", "log.jsonl", "checkpoints", "else"])
def test_runs_that_go_on(name: str, kind: str, mini: Backbone, tmp_path: Path) -> None:
    """A folder that is gone on with is written into, and a link in it would be written through."""
    data = tmp_path / "x.jsonl"
    data.write_text('{"text": "a", "references": "b"}\n', encoding="utf-8")
    recipe = parse_recipe(quick(train=str(data), dev=str(data), test=str(data)))
    out = tmp_path / "run"
    files.write_text(out / "recipe.yaml", recipe.to_yaml())
    (out / name).touch()
    swap, said = ODD[kind]
    swap(out / name)
    if name == "recipe.yaml" and kind != "link":
        name, said = "", "holds no run to resume"
    before = sorted(out.iterdir())
    with pytest.raises(UserError, match=f"{name}.*{said}"):
        train(recipe, out=out, resume=True, backbone=mini, device="cpu")
    assert sorted(out.iterdir()) == before


@pytest.mark.parametrize("kind", ["folder", "inside"])
def test_a_log_that_is_none(kind: str, mini: Backbone, tmp_path: Path) -> None:
    """That the folder is wrong was said when the training began, as of a failed run."""
    data = tmp_path / "x.jsonl"
    data.write_text('{"text": "a", "references": "b"}\n', encoding="utf-8")
    recipe = parse_recipe(quick(train=str(data), dev=str(data), test=str(data)))
    out = tmp_path / "run"
    files.write_text(out / "recipe.yaml", recipe.to_yaml())
    (out / "log.jsonl").touch()
    become(kind, out / "log.jsonl")
    before = sorted(out.iterdir())
    with pytest.raises(UserError, match=r"log\.jsonl: is no regular file but a (link|folder)"):
        train(recipe, out=out, resume=True, backbone=mini, device="cpu")
    assert sorted(out.iterdir()) == before


def test_a_log_is_never_cut_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("kept", encoding="utf-8")
    (tmp_path / "log.jsonl").symlink_to("own")
    with pytest.raises(ForewordError, match=r"log\.jsonl: cannot be written"):
        Log(tmp_path / "log.jsonl")
    assert (tmp_path / "own").read_text(encoding="utf-8") == "kept"


@odd
@pytest.mark.parametrize("name", ["metrics.json", "answers.jsonl"])
def test_finished_runs(name: str, kind: str, tmp_path: Path) -> None:
    recipe = parse_recipe(quick(train="x", dev="x", test="x"))
    out = tmp_path / "run"
    training = {"trained_parameters": 1}
    counts = {"examples": 0, "truncated": 0, "artifact_bytes": 0}
    metrics = {"split": "test", **counts, "prompt": {}, "training": training}
    files.write_text(out / "metrics.json", json.dumps(metrics))
    files.write_text(out / "answers.jsonl", "")
    assert read_run(out, recipe).metrics == metrics
    swap, said = ODD[kind]
    swap(out / name)
    with pytest.raises(ForewordError, match=said):
        read_run(out, recipe)


@odd
@pytest.mark.parametrize("name", ["checkpoint.json", "state.safetensors", "latest"])
def test_checkpoints(name: str, kind: str, tmp_path: Path) -> None:
    storage = Storage(tmp_path / "checkpoints")
    storage.folder.mkdir()
    folder = storage.save(1, {"x": torch.zeros(1)}, {})
    swap, said = ODD[kind]
    if name == "latest":
        swap(storage.folder / name)
        assert storage.pointed() is None
        return
    swap(folder / name)
    with pytest.raises(ValueError, match=said):
        read_checkpoint(folder)


def claim(folder: Path, **fields: Any) -> None:
    """Change the manifest: names with `__` for dots."""
    file = folder / "foreword.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    for path, value in fields.items():
        *parents, key = path.split("__")
        here = manifest
        for name in parents:
            here = here[name]
        here[key] = value
    file.write_text(json.dumps(manifest), encoding="utf-8")


def refuse_to_compose(*_: Any, **__: Any) -> None:
    raise AssertionError("a module of the stated size would be built")


@pytest.fixture
def nothing_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foreword.artifacts.artifact.compose", refuse_to_compose)


LORA = LoRA(name="lora", rank=2)
WITH_LORA = PrefixTuning(name="prefix-tuning", length=2, delta=LowRank(rank=2))
WITH_ADAPTER = PrefixTuning(name="prefix-tuning", length=2, delta=Bottlenecks(size=2))
BY_SHARE = PrefixTuning(name="prefix-tuning", length=2, delta=Bottlenecks(reduction=16.0))
LABELS = {"answer": "label", "labels": ("a", "b")}
HIDDEN = {**LABELS, "head": HeadSpec(hidden=4)}
CLAIMS: dict[str, tuple[MethodChoice, dict[str, Any], dict[str, Any], str]] = {
    "rank": (LORA, {}, {"method__rank": 65536}, r"method\.rank is 65,536.*lora_A.*\[2, 32\]"),
    "rank of a delta": (
        WITH_LORA,
        {},
        {"method__delta__rank": 65536},
        r"method\.delta\.rank is 65,536, but delta\.safetensors",
    ),
    "size": (WITH_ADAPTER, {}, {"method__delta__size": 65536}, r"method\.delta\.size is 65,536"),
    "reduction": (
        BY_SHARE,
        {},
        {"method__delta__reduction": 0.1},
        r"method\.delta\.reduction is 0\.1, but .* expected 320 in place of 2",
    ),
    "length": (PREFIX, {}, {"method__length": 4096}, r"method\.length is 4,096.*decoder\.keys"),
    "length of rows": (
        PromptTuning(name="prompt-tuning", length=2),
        {},
        {"method__length": 4096},
        r"method\.length is 4,096.*decoder\.embeddings",
    ),
    "hidden": (
        PTuningV2(name="p-tuning-v2", length=2),
        HIDDEN,
        {"task__head__hidden": 65536},
        r"task\.head\.hidden is 65,536, but head\.safetensors",
    ),
    "labels": (
        PTuningV2(name="p-tuning-v2", length=2),
        LABELS,
        {"task__labels": [str(i) for i in range(5000)]},
        r"the number of task\.labels is 5,000, but head\.safetensors",
    ),
    "no head": (
        PTuningV2(name="p-tuning-v2", length=2),
        LABELS,
        {"head_sha256": None},
        r"but head\.safetensors holds no tensor \*layers\.0\.weight",
    ),
    "no delta": (
        LORA,
        {},
        {"method__rank": 65536, "delta_sha256": None},
        r"method\.rank is 65,536, but delta\.safetensors holds no tensor \*\.lora_A\.weight",
    ),
}


@pytest.mark.parametrize("what", CLAIMS)
def test_sizes_are_held_against_headers_before_a_module_is_built(
    what: str, backbone: Backbone, tmp_path: Path, nothing_built: None
) -> None:
    method, task, stated, said = CLAIMS[what]
    folder = sound(tmp_path / "it", backbone, method, **task)
    claim(folder, **stated)
    with pytest.raises(ArtifactError, match=said):
        load_model(folder, backbone=backbone)


@pytest.mark.parametrize("what", ["rank", "size", "reduction", "length", "hidden", "labels"])
def test_true_sizes_load(what: str, backbone: Backbone, tmp_path: Path) -> None:
    method, task, _, _ = CLAIMS[what]
    folder = sound(tmp_path / "it", backbone, method, **task)
    manifest, _ = load_model(folder, backbone=backbone)
    assert manifest.method == method


def test_sizes_are_held_against_headers_on_export(backbone: Backbone, tmp_path: Path) -> None:
    folder = sound(tmp_path / "it", backbone, LORA)
    claim(folder, method__rank=8)
    with pytest.raises(ArtifactError, match=r"method\.rank is 8"):
        export_peft(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tensor_without_dimensions(backbone: Backbone, tmp_path: Path) -> None:
    folder = sound(tmp_path / "it", backbone, PREFIX)
    file = folder / "prompt.safetensors"
    tensors = {**load_file(file), "decoder.keys": torch.tensor(1.0)}
    save_file(tensors, file)
    claim(folder, prompt_sha256=files.sha256(file))
    with pytest.raises(ArtifactError, match=r"decoder\.keys has the shape \[\]"):
        load(folder, backbone=backbone)


def bomb(depth: int = 9) -> str:
    """YAML that says a list of 10^depth items in a few hundred letters."""
    lines = ['a0: &a0 ["x"]'] + [
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, depth)
    ]
    return "\n".join(lines)


TEXTS = {
    "aliases of lists": (bomb(), "an alias .* may stand for a text or a number alone"),
    "aliases of a long text": (
        f"a: &a {'x' * 10_000}\nb: [{', '.join(['*a'] * 200)}]",
        "aliases .* repeat more than",
    ),
    "too long": ("a: " + "x" * YAML_BYTES, "more than 524,288 (bytes|characters)"),
    "deep": ("[" * 5000, "line 1, column 65: it is nested more than 64 deep"),
}


@pytest.mark.parametrize("what", TEXTS)
def test_yaml_that_says_more_than_it_holds(what: str, mini: Backbone, tmp_path: Path) -> None:
    """In a recipe, in the recipe of a run that goes on, and after `--set`."""
    text, said = TEXTS[what]
    with pytest.raises(ValueError, match=said):
        parse_yaml(text)
    file = tmp_path / "run" / "recipe.yaml"
    files.write_text(file, text)
    with pytest.raises(RecipeError, match=said):
        load_recipe(file)
    recipe = parse_recipe(quick(train="x", dev="x", test="x"))
    with pytest.raises(UserError, match=said):
        train(recipe, out=file.parent, resume=True, backbone=mini, device="cpu")


@pytest.mark.parametrize("digits", [2, 50_000])
def test_a_text_with_colons_is_no_number_of_minutes(digits: int) -> None:
    """`1:30` was read as 90, and a longer one took minutes."""
    text = "1" + ":30" * digits
    assert parse_yaml(f"a: {text}\nb: {text}.5") == {"a": text, "b": f"{text}.5"}


def test_a_recipe_that_could_not_be_read_again_is_refused(mini: Backbone, tmp_path: Path) -> None:
    data = tmp_path / "x.jsonl"
    data.write_text('{"text": "a", "references": "b"}\n', encoding="utf-8")
    raw = quick(train=str(data), dev=str(data), test=str(data))
    recipe = parse_recipe({**raw, "decoding": {"stop": ["x" * YAML_BYTES]}})
    with pytest.raises(UserError, match=f"of which {YAML_BYTES:,} are read"):
        train(recipe, out=tmp_path / "run", backbone=mini, device="cpu")
    assert not (tmp_path / "run").exists()


def test_aliases_of_short_texts_are_read() -> None:
    assert parse_yaml("a: &a word\nb: [*a, *a]") == {"a": "word", "b": ["word", "word"]}
