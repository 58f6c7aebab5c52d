"""Some 500 damaged PEFT folders end in a clear error or in a prompt that works.

With `test_mutated_artifacts.py` and `make soak` that is more than a thousand. The folders come from
somebody else: a pickle in them is never read, no link out of them is followed, no name in them is a
way out.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from mutators import damaged_bytes, damaged_tree, seeds
from safetensors.torch import load_file, save, save_file
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from conftest import make_backbone
from foreword.backbone import Backbone
from foreword.compat import export_peft, import_peft
from foreword.errors import UserError
from foreword.session import load

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)
CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
KINDS = {
    "prefix": (peft.PrefixTuningConfig, {"prefix_projection": True, "encoder_hidden_size": 8}),
    "prompt": (
        peft.PromptTuningConfig,
        {
            "prompt_tuning_init": "TEXT",
            "prompt_tuning_init_text": "A",
            "tokenizer_name_or_path": ".",
        },
    ),
    "p-tuning": (peft.PromptEncoderConfig, {"encoder_reparameterization_type": "LSTM"}),
}
LENGTH = 3


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return make_backbone("llama")


@pytest.fixture(scope="module")
def sound(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder of each kind that nothing is wrong with: PEFT's own configuration, random rows."""
    g = backbone.geometry
    folders = {}
    for kind, (config, options) in KINDS.items():
        keys_values = config is peft.PrefixTuningConfig
        folder = tmp_path_factory.mktemp("adapters") / kind
        config(
            task_type="CAUSAL_LM",
            inference_mode=True,
            base_model_name_or_path="models/tiny-llama",
            num_virtual_tokens=LENGTH,
            token_dim=g.main.heads[0].kv_heads * g.main.head_dim if keys_values else g.width,
            num_transformer_submodules=1,
            num_attention_heads=g.main.heads[0].kv_heads if keys_values else 4,
            num_layers=g.main.layers,
            **{"encoder_hidden_size": 16, **options} if kind == "p-tuning" else options,
        ).save_pretrained(str(folder))
        width = g.main.width if keys_values else g.width
        save_file({"prompt_embeddings": torch.randn(LENGTH, width)}, folder / WEIGHTS)
        folders[kind] = folder
    return folders


@pytest.fixture
def copy(sound: dict[str, Path], tmp_path: Path) -> Callable[[int], Path]:
    """`copy(seed)`: a folder to damage; the kinds take turns."""

    def make(seed: int) -> Path:
        kind = list(KINDS)[seed % len(KINDS)]
        return Path(shutil.copytree(sound[kind], tmp_path / "damaged"))

    return make


def verdict(folder: Path, backbone: Backbone | None) -> str:
    """What was said in refusal, or nothing; fails unless that was clear and left nothing behind."""
    out = folder.parent / "imported"
    try:
        manifest = import_peft(folder, out, backbone=backbone)
    except UserError as error:
        said = str(error)
        assert 20 < len(said) < 3000
        for word in ("pydantic", "nput should", "instance of", "Traceback", "tuple[", "literal["):
            assert word not in said
        assert not out.exists()
        assert [place.name for place in folder.parent.glob(".*")] == []
        return said
    rows = load(out, backbone=backbone).model.rows()
    assert rows.shape[0] == manifest.method.length
    assert torch.isfinite(rows).all()
    shutil.rmtree(out)
    return ""


def config_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return found


def set_config(folder: Path, **changes: Any) -> None:
    (folder / CONFIG).write_text(json.dumps({**config_of(folder), **changes}), encoding="utf-8")


@pytest.mark.parametrize("seed", range(len(KINDS)))
def test_the_sound_ones_are_imported(seed: int, copy: Any, backbone: Backbone) -> None:
    assert verdict(copy(seed), backbone) == ""


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds(300))
def test_config_trees(seed: int, copy: Any, backbone: Backbone) -> None:
    folder = copy(seed)
    tree = damaged_tree(seed, config_of(folder))
    (folder / CONFIG).write_text(json.dumps(tree), encoding="utf-8")
    verdict(folder, backbone)


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds(150))
def test_config_bytes(seed: int, copy: Any, backbone: Backbone) -> None:
    folder = copy(seed)
    (folder / CONFIG).write_bytes(damaged_bytes(seed, (folder / CONFIG).read_bytes()))
    verdict(folder, backbone)


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds(100))
def test_tensor_bytes(seed: int, copy: Any, backbone: Backbone) -> None:
    """Where the damage hit numbers alone there is nothing to notice: PEFT's format has no hash."""
    folder = copy(seed)
    (folder / WEIGHTS).write_bytes(damaged_bytes(seed, (folder / WEIGHTS).read_bytes()))
    verdict(folder, backbone)


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds(150))
def test_tensor_headers(seed: int, copy: Any, backbone: Backbone) -> None:
    folder = copy(seed)
    raw = (folder / WEIGHTS).read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header, data = raw[8 : 8 + size], raw[8 + size :]
    if seed % 2:
        header = damaged_bytes(seed, header)
    else:
        header = json.dumps(damaged_tree(seed, json.loads(header))).encode()
    length = len(header) if seed % 5 else random.Random(seed).choice((0, 2**20, 2**63, 2**64 - 1))
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", length) + header + data)
    verdict(folder, backbone)


@pytest.mark.parametrize("cut", range(0, 100, 5))
def test_truncated_files(cut: int, copy: Any, backbone: Backbone) -> None:
    for name in (CONFIG, WEIGHTS):
        folder = copy(cut)
        raw = (folder / name).read_bytes()
        (folder / name).write_bytes(raw[: len(raw) * cut // 100])
        assert verdict(folder, backbone)
        shutil.rmtree(folder)


ROWS: dict[str, Callable[[torch.Tensor], dict[str, torch.Tensor]]] = {
    **{
        str(dtype): lambda rows, dtype=dtype: {"prompt_embeddings": rows.to(dtype)}
        for dtype in (
            torch.int8,
            torch.int64,
            torch.uint8,
            torch.bool,
            torch.complex64,
            torch.float8_e4m3fn,
            torch.float8_e5m2,
        )
    },
    "none": lambda rows: {},
    "another name": lambda rows: {"prompt_embedding": rows},
    "with an adapter's name": lambda rows: {"prompt_embeddings.default": rows},
    "one too many": lambda rows: {"prompt_embeddings": rows, "extra": rows.clone()},
    "modules to save": lambda rows: {
        "prompt_embeddings": rows,
        "base_model.model.score.weight": torch.zeros(2, 2),
    },
    "lora": lambda rows: {"base_model.model.q_proj.lora_A.weight": rows},
    "unfolded": lambda rows: {"embedding.weight": rows, "transform.0.weight": rows.clone()},
    "too few": lambda rows: {"prompt_embeddings": rows[:2].clone()},
    "too many": lambda rows: {"prompt_embeddings": rows.repeat(2, 1)},
    "too narrow": lambda rows: {"prompt_embeddings": rows[:, :-1].contiguous()},
    "too wide": lambda rows: {"prompt_embeddings": rows.repeat(1, 2)},
    "turned": lambda rows: {"prompt_embeddings": rows.T.contiguous()},
    "flat": lambda rows: {"prompt_embeddings": rows.flatten()},
    "batched": lambda rows: {"prompt_embeddings": rows[None]},
    "a number": lambda rows: {"prompt_embeddings": torch.tensor(1.0)},
    "empty": lambda rows: {"prompt_embeddings": torch.zeros(3, 0)},
    "not a number": lambda rows: {"prompt_embeddings": rows * float("nan")},
    "infinite": lambda rows: {"prompt_embeddings": rows / 0},
}


@pytest.mark.parametrize("kind", range(len(KINDS)))
@pytest.mark.parametrize("name", ROWS)
def test_other_tensors(name: str, kind: int, copy: Any, backbone: Backbone) -> None:
    folder = copy(kind)
    rows = load_file(folder / WEIGHTS)["prompt_embeddings"].clone()
    (folder / WEIGHTS).write_bytes(save(ROWS[name](rows)))
    assert WEIGHTS in verdict(folder, backbone)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_are_taken(dtype: torch.dtype, copy: Any, backbone: Backbone) -> None:
    folder = copy(1)
    rows = load_file(folder / WEIGHTS)["prompt_embeddings"]
    (folder / WEIGHTS).write_bytes(save({"prompt_embeddings": rows.to(dtype)}))
    assert verdict(folder, backbone) == ""


OTHER_CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "lora": ({"peft_type": "LORA"}, "num_virtual_tokens: no such name"),
    "no method": ({"peft_type": "FOO"}, "'FOO' is not known"),
    "a class": ({"peft_type": "os.system"}, "is not known"),
    "nothing": ({"peft_type": None}, "found nothing"),
    "features": ({"task_type": "FEATURE_EXTRACTION"}, "'FEATURE_EXTRACTION' is not known"),
    "classes": ({"task_type": "SEQ_CLS"}, "holds no head (classifier or score)"),
    "spans": ({"task_type": "QUESTION_ANS"}, "holds no head (qa_outputs)"),
    "no task": ({"task_type": None}, "task_type: is missing; set it to one of CAUSAL_LM, "),
    "no task, by a class": (
        {
            "task_type": None,
            "auto_mapping": {
                "base_model_class": "LlamaForCausalLM",
                "parent_library": "transformers.models.llama.modeling_llama",
            },
        },
        "task_type: is missing: it was trained without one",
    ),
    "a flag as a text": ({"inference_mode": "yes"}, "inference_mode: expected true or false"),
    "modules": ({"modules_to_save": ["lm_head"]}, "modules_to_save: it trained further modules"),
    "mapping": (
        {"auto_mapping": {"base_model_class": "Evil", "parent_library": "evil"}},
        "auto_mapping: it names code",
    ),
    "mapping of a look-alike": (
        {"auto_mapping": {"base_model_class": "Evil", "parent_library": "transformers_evil"}},
        "auto_mapping: it names code",
    ),
    "odd mapping": ({"auto_mapping": ["transformers."]}, "auto_mapping: it names code"),
    "auto_map": ({"auto_map": {"AutoModel": "evil.Evil"}}, "auto_map: no such name"),
    "custom code": ({"custom_code": "import os"}, "custom_code: no such name"),
    "remote code": ({"trust_remote_code": True}, "trust_remote_code: no such name"),
    "run-time": ({"runtime_config": {"x": 1}}, "runtime_config: no such name"),
    "two submodules": ({"num_transformer_submodules": 2}, "num_transformer_submodules"),
    "layers": ({"num_layers": 3}, "num_layers is 3"),
    "width": ({"token_dim": 24}, "token_dim is 24"),
    "more tokens": ({"num_virtual_tokens": 4}, "expected [4, width]"),
    "many tokens": ({"num_virtual_tokens": 10**9}, "at most 4096"),
    "no tokens": ({"num_virtual_tokens": 0}, "at least 1"),
    "tokens as a text": ({"num_virtual_tokens": "3"}, "whole number"),
    "other words": ({"prompt_tunning_init": "TEXT"}, "no such name"),
}


@pytest.mark.parametrize("kind", range(len(KINDS)))
@pytest.mark.parametrize("name", OTHER_CONFIGS)
def test_other_configs(name: str, kind: int, copy: Any, backbone: Backbone) -> None:
    changes, said = OTHER_CONFIGS[name]
    folder = copy(kind)
    set_config(folder, **changes)
    assert said in verdict(folder, backbone)


def test_fields_that_say_nothing_are_passed_over(copy: Any, backbone: Backbone) -> None:
    folder = copy(0)
    set_config(folder, auto_map=None, later_field=None, later_flag=False, later_list=[])
    assert verdict(folder, backbone) == ""


@pytest.mark.parametrize(
    "name",
    [
        "../..",
        "../../etc",
        "models/../../../etc/passwd",
        "..\\..\\windows",
        "/etc",
        "/etc/passwd",
        "/nowhere/at/all",
        "/dev/zero",
        "/proc/self",
        "~/model",
        "file:///etc/passwd",
        "https://example.org/model",
        "foreword/nothing",
        "foreword/../../x",
        "a/b/c/d",
        "a\0b",
        "a\nb",
        "$(touch x)",
        "x" * 5000,
        "",
        " ",
        ".",
    ],
)
def test_base_models_that_go_astray(name: str, copy: Any, monkeypatch: Any) -> None:
    """Nobody named a backbone, so the name in the folder is all there is."""
    folder = copy(0)
    monkeypatch.chdir(folder)
    set_config(folder, base_model_name_or_path=name)
    assert "base_model_name_or_path" in (said := verdict(folder, None)) or "`backbone`" in said


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (Path.touch, (self.file,))


def pickled(file: Path, how: str) -> bytes:
    content = {"prompt_embeddings": Payload(file)}
    if how == "pickle":
        return pickle.dumps(content)
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=how == "zip")
    return buffer.getvalue()


@pytest.mark.parametrize("how", ["pickle", "zip", "legacy"])
@pytest.mark.parametrize("place", ["alone", "renamed", "beside", "as configuration"])
def test_pickles_are_never_read(
    how: str, place: str, copy: Any, backbone: Backbone, tmp_path: Path
) -> None:
    made = tmp_path / "made-by-a-pickle"
    folder, raw = copy(0), pickled(made, how)
    pickle.loads(pickle.dumps(Payload(made)))
    assert made.exists(), "the payload works"
    made.unlink()
    if place == "alone":
        (folder / WEIGHTS).unlink()
    name = {"renamed": WEIGHTS, "as configuration": CONFIG}.get(place, PICKLE)
    (folder / name).write_bytes(raw)
    said = verdict(folder, backbone)
    expected = {
        "alone": "pickle (adapter_model.bin), which can run code and is never read",
        "renamed": "cannot be read as safetensors",
        "beside": "",
        "as configuration": "cannot be read as JSON",
    }
    assert (said == "") if place == "beside" else (expected[place] in said)
    assert not made.exists()


@pytest.mark.parametrize("target", ["/etc/passwd", "../elsewhere", "{}/elsewhere", "inside/it"])
@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_links_out_of_the_folder(
    name: str, target: str, copy: Any, backbone: Backbone, tmp_path: Path
) -> None:
    folder = copy(0)
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / "inside").symlink_to(tmp_path)
    (tmp_path / "it").write_bytes((tmp_path / "elsewhere").read_bytes())
    (folder / name).symlink_to(target.format(tmp_path))
    assert "is a link out of its folder" in verdict(folder, backbone)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_what_is_no_file(name: str, copy: Any, backbone: Backbone, tmp_path: Path) -> None:
    folder = copy(0)
    (folder / name).unlink()
    assert "has no" in verdict(folder, backbone)
    (folder / name).mkdir()
    assert "is no regular file" in verdict(folder, backbone)
    (folder / name).rmdir()
    os.mkfifo(folder / name)
    assert "is no regular file" in verdict(folder, backbone)
    (folder / name).unlink()
    (folder / name).symlink_to("/nowhere")
    assert "has no" in verdict(folder, backbone)
    (folder / name).unlink()
    (folder / name).symlink_to(name)
    assert verdict(folder, backbone)
    file = tmp_path / "file"
    file.write_text("x", encoding="utf-8")
    assert "no such folder" in verdict(file, backbone)


def test_a_link_inside_the_folder_is_followed(copy: Any, backbone: Backbone) -> None:
    folder = copy(0)
    (folder / WEIGHTS).replace(folder / "rows")
    (folder / WEIGHTS).symlink_to("rows")
    assert verdict(folder, backbone) == ""


def test_several_adapters(copy: Any, backbone: Backbone) -> None:
    folder = copy(0)
    shutil.copytree(folder, folder.parent / "checkpoint-20")
    (folder.parent / "checkpoint-20").replace(folder / "checkpoint-20")
    assert verdict(folder, backbone) == "", "a trainer's checkpoints are no other adapters"
    (folder / "checkpoint-20").replace(folder / "other")
    assert "holds several adapters (other" in verdict(folder, backbone)


@pytest.fixture(scope="module")
def artifacts(
    sound: dict[str, Path], backbone: Backbone, tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    root = tmp_path_factory.mktemp("artifacts")
    for kind, folder in sound.items():
        import_peft(folder, root / kind, backbone=backbone)
    return [root / kind for kind in sound]


@pytest.mark.parametrize("seed", seeds(60))
def test_exports_of_damaged_artifacts(seed: int, artifacts: list[Path], tmp_path: Path) -> None:
    """Export reads an artifact without its backbone, so nothing but the file says its shapes."""
    folder = Path(shutil.copytree(artifacts[seed % 3], tmp_path / "damaged"))
    file = folder / "foreword.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    if seed % 2:
        manifest = damaged_tree(seed, manifest)
    else:
        raw = (folder / "prompt.safetensors").read_bytes()
        size = struct.unpack("<Q", raw[:8])[0]
        header = json.dumps(damaged_tree(seed, json.loads(raw[8 : 8 + size]))).encode()
        raw = struct.pack("<Q", len(header)) + header + raw[8 + size :]
        (folder / "prompt.safetensors").write_bytes(raw)
        manifest["prompt_sha256"] = hashlib.sha256(raw).hexdigest()
    file.write_text(json.dumps(manifest), encoding="utf-8")
    said = ""
    try:
        config = export_peft(folder, tmp_path / "exported")
    except UserError as error:
        said = str(error)
    if said:
        assert 20 < len(said) < 3000
        assert not (tmp_path / "exported").exists()
        return
    rows = load_file(tmp_path / "exported" / WEIGHTS)["prompt_embeddings"]
    assert rows.shape[0] == config.num_virtual_tokens
    assert torch.isfinite(rows).all()


def test_a_huge_configuration(copy: Any, backbone: Backbone) -> None:
    folder = copy(0)
    set_config(folder, later_field="x" * 2**20)
    assert "has more than" in verdict(folder, backbone)
    (folder / CONFIG).write_text("[" * 100_000, encoding="utf-8")
    assert "cannot be read as JSON" in verdict(folder, backbone)


def test_code_in_the_folder_is_not_run(
    copy: Any, backbone: Backbone, tmp_path: Path, monkeypatch: Any
) -> None:
    """A base model inside the adapter's folder that comes with code of its own."""
    folder = copy(0)
    made = tmp_path / "made-by-code"
    model = folder / "model"
    CONFIG_MAPPING["llama"](hidden_size=32).save_pretrained(model)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config["model_type"] = "evil"
    config["auto_map"] = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (model / "evil.py").write_text(f"open({str(made)!r}, 'w')\n", encoding="utf-8")
    set_config(folder, base_model_name_or_path=str(model))
    assert "trust_remote_code" in verdict(folder, None)
    assert not made.exists()
