"""The commands: exit status, stdout for results alone, JSON, and mistakes without tracebacks."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from foreword.backbone import Backbone, bundled_backbones, has_units
from foreword.cli import main
from foreword.runs import Run, train

pytestmark = pytest.mark.usefixtures("loaded_once")

QUICKSTART = Path(__file__).resolve().parents[2] / "recipes" / "quickstart.yaml"
SMALL = [
    "training.steps=2",
    "training.batch_size=4",
    "training.evaluate_every=1",
    "task.limits.train=8",
    "task.limits.dev=2",
    "task.limits.test=2",
    "decoding.max_new_tokens=4",
    "method.length=2",
    "method.reparameterization.kind=table",
    "evaluation.backbone_alone=false",
]
INPUT = "name : Silver Piper | type : bird | colour : grey"
RECORD = {"record": {"name": "Silver Piper", "type": "bird"}}


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str


Command = Callable[..., Done]


@pytest.fixture
def foreword(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    """`foreword("train", "recipe.yaml")`, run in this process in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["foreword", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
        return Done(int(end.value.code or 0), printed.out, printed.err)

    return run


@pytest.fixture(scope="module")
def run(mini: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run, so small that it learns nothing."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    return train(QUICKSTART, overrides=SMALL, out=folder, backbone=mini, device="cpu")


def small(*more: str) -> list[str]:
    return [part for override in (*SMALL, *more) for part in ("--set", override)]


def stdin(monkeypatch: pytest.MonkeyPatch, raw: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8"))


def refused(done: Done, *said: str) -> None:
    """Exit status 2, the reason on stderr, nothing on stdout."""
    assert done.status == 2
    assert done.out == ""
    for part in said:
        assert part in done.err


@pytest.mark.slow
def test_train_writes_results_to_stdout_and_progress_to_stderr(foreword: Command) -> None:
    done = foreword("train", QUICKSTART, "--device", "cpu", *small())
    assert done.status == 0
    for part in ("2 test records", "BLEU", "prefix-tuning", "artifact  runs/quickstart/artifact"):
        assert part in done.out
    assert not re.search(r"train \d+/\d+", done.out)
    assert re.search(
        r"^train 2/2 loss \d+\.\d+, dev loss \d+\.\d+ \[0:\d\d spent, 0:00 left\]$", done.err, re.M
    )
    assert re.search(r"^measure the prompt 2/2 ", done.err, re.M)
    assert "\x1b" not in done.out + done.err
    again = foreword("train", QUICKSTART, "--device", "cpu", "--json", *small())
    assert json.loads(again.out)["artifact"] == "runs/quickstart-2/artifact"
    assert Path("runs/quickstart-2/metrics.json").is_file()


def test_train_flags_say_what_set_says(foreword: Command) -> None:
    flags = ["--limit", 3, "--batch-size", 2, "--seed", 7, "--dtype", "float32", "--out", "out"]
    done = foreword("train", QUICKSTART, "--device", "cpu", "--json", *small(), *flags)
    assert done.status == 0
    printed = json.loads(done.out)
    assert printed["folder"] == "out"
    recipe = yaml.safe_load(Path("out/recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["seed"] == 7
    assert recipe["evaluation"]["batch_size"] == 32
    assert (recipe["training"]["batch_size"], printed["examples"]) == (4, 2), "--set is stronger"


def test_train_refuses_what_is_wrong(foreword: Command, tmp_path: Path) -> None:
    refused(foreword("train", "none.yaml"), "none.yaml: 1 problem", "no such file")
    done = foreword("train", QUICKSTART, "--set", "training.stps=1", "--set", "seed=-1")
    refused(done, "2 problems", "training.stps: no such name (did you mean 'steps'?)", "seed: must")
    refused(foreword("train"), "RECIPE.yaml")
    refused(foreword("train", QUICKSTART, "--device", "tpu"), "tpu")
    refused(foreword("train", QUICKSTART, "--set", 'task.input="{"'), "column 1")
    assert list(tmp_path.iterdir()) == []


def test_an_occupied_folder_is_refused(foreword: Command, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x", encoding="utf-8")
    done = foreword("train", QUICKSTART, "--device", "cpu", *small(), "--out", "out")
    refused(done, "out: is there already and is not empty")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine"]
    refused(foreword("train", QUICKSTART, "--device", "cpu", "--out", "out/mine"), "out/mine")


@pytest.mark.parametrize(
    ("name", "raw", "said"),
    [
        ("x.jsonl", b'{"references": "a"\n', "x.jsonl, line 1, column"),
        ("x.jsonl", b"", "x.jsonl: no examples in it"),
        ("x.jsonl", b'{"text": "a"}\n', "field 'references' is missing"),
        ("x.jsonl", b"\xff\n", "line 1: not UTF-8"),
        ("none.jsonl", b"", "none.jsonl: no such file"),
        ("x.jsonl", b'{"recrd": "a", "seen": 1, "references": "a"}\n', "did you mean 'recrd'?"),
    ],
)
def test_train_refuses_bad_data(
    name: str, raw: bytes, said: str, foreword: Command, tmp_path: Path
) -> None:
    Path("x.jsonl").write_bytes(raw)
    data = small(f"task.data.train={tmp_path / name}", "task.data.group=null")
    refused(foreword("train", QUICKSTART, "--device", "cpu", "--out", "out", *data), said)
    assert not [file for file in tmp_path.glob("out/**/*") if file.name != "recipe.yaml"]


def test_a_failed_run_ends_with_status_1(foreword: Command) -> None:
    done = foreword(
        *("train", QUICKSTART, "--device", "cpu", "--out", "o"),
        *small("training.learning_rate=1e3", "training.weight_decay=1e3", "training.steps=30"),
    )
    assert done.status == 1
    assert done.out == ""
    message = r"^foreword: the (development )?loss became (nan|inf) at step \d+"
    assert re.search(message, done.err, re.M)


def test_generate_from_texts(foreword: Command, run: Run) -> None:
    done = foreword("generate", run.artifact, "--text", INPUT, "--text", "x", "--device", "cpu")
    assert done.status == 0
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [list(row) for row in rows] == [["input", "output"]] * 2
    assert rows[0]["input"] == INPUT
    assert "generate 2/2" in done.err
    run_folder = foreword("generate", run.folder, "--text", INPUT, "--device", "cpu")
    assert json.loads(run_folder.out) == rows[0]


def test_generate_from_files_and_standard_input(
    foreword: Command, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = f"{INPUT}\r\n\r\nname : ünïcödé\r\n".encode()
    Path("in.txt").write_bytes(b"\xef\xbb\xbf" + lines)
    from_file = foreword("generate", run.artifact, "--input", "in.txt", "--out", "out.jsonl")
    assert (from_file.status, from_file.out) == (0, "")
    written = Path("out.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line)["input"] for line in written.splitlines()] == [
        INPUT,
        "name : ünïcödé",
    ]
    assert "ünïcödé" in written
    stdin(monkeypatch, lines)
    assert foreword("generate", run.artifact, "--input", "-").out == written
    assert len(foreword("generate", run.artifact, "--input", "in.txt", "--limit", 1).out) < len(
        written
    )


def test_generate_from_jsonl(foreword: Command, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, json.dumps({"id": 7, **RECORD}).encode() + b"\n")
    done = foreword("generate", run.artifact, "--input", "-")
    row = json.loads(done.out)
    assert (row["id"], row["record"]) == (7, RECORD["record"])
    text = foreword("generate", run.artifact, "--text", "name : Silver Piper | type : bird")
    assert row["output"] == json.loads(text.out)["output"]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "standard input: holds no input"),
        (b"\n \n", "standard input: holds no input"),
        (
            b"\xff\n",
            "standard input, line 1: not UTF-8 text (byte 1 of the line); save the file as",
        ),
        (b'{"record": "x"}\n\n{"record": \n', "standard input, line 3, column"),
        (b'{"record": "x"}\n[1]\n', "standard input, line 2: expected an object"),
        (
            b'{"recrd": "x"}\n',
            "standard input, line 1: template '{record} ->': the data has no field 'record'",
        ),
        (b'{"record": [1]}\n', "standard input, line 1, field 'record': expected a text"),
        (rb'{"record": "\ud800"}' + b"\n", "line 1: holds half of a surrogate pair"),
    ],
)
def test_generate_refuses_bad_input(
    raw: bytes, said: str, foreword: Command, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin(monkeypatch, raw)
    refused(foreword("generate", run.artifact, "--input", "-", "--out", "out.jsonl"), said)
    assert not Path("out.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "give inputs with --text"),
        (["--input", "none.txt"], "none.txt: no such file"),
        (
            ["--text", "x", "--temperature", 0],
            "decoding.temperature: must be at least 0.001, found 0",
        ),
        (["--text", "x", "--top-p", 0], "decoding.top_p: must be more than 0"),
        (["--text", "x", "--stop", ""], "decoding.stop: a stop word must not be empty"),
        (["--text", "x", "--max-new-tokens", 0], "--max-new-tokens"),
        (
            ["--text", "x", "--max-new-tokens", 100_000],
            "decoding.max_new_tokens: 100000 new tokens leave no room for an input",
        ),
        (["--text", "x " * 1000], "--text 1: the input has"),
    ],
)
def test_generate_refuses_wrong_options(
    options: list[object], said: str, foreword: Command, run: Run
) -> None:
    refused(foreword("generate", run.artifact, *options), said)


@pytest.mark.slow
def test_generate_obeys_its_options(foreword: Command, run: Run) -> None:
    def output(*options: object) -> str:
        done = foreword("generate", run.artifact, "--text", INPUT, *options)
        assert done.status == 0
        return str(json.loads(done.out)["output"])

    greedy = output("--max-new-tokens", 8)
    assert greedy.startswith(output("--max-new-tokens", 2))
    assert output("--max-new-tokens", 8, "--stop", greedy[3]) == greedy[:3].strip()
    sampled = ["--sample", "--temperature", 3, "--max-new-tokens", 8, "--seed"]
    assert output(*sampled, 1) == output(*sampled, 1)
    assert output(*sampled, 1) != output(*sampled, 2)
    output("--num-beams", 2, "--batch-size", 1)


def test_evaluate(foreword: Command, run: Run) -> None:
    data = ["--data", "foreword/fieldguide/test", "--limit", 2, "--device", "cpu"]
    done = foreword("evaluate", run.artifact, *data, "--json", "--out", "figures.json")
    assert done.status == 0
    printed = json.loads(done.out)
    assert printed["all"] == pytest.approx(run.metrics["prompt"]["all"])
    assert printed["examples"] == 2
    written = json.loads(Path("figures.json").read_text(encoding="utf-8"))
    assert {**printed, "answers": written["answers"]} == written
    assert [list(row) for row in written["answers"]] == [["input", "output"]] * 2
    assert "evaluate 2/2" in done.err
    table = foreword("evaluate", run.artifact, *data)
    assert "BLEU" in table.out
    assert "2 records of foreword/fieldguide/test" in " ".join(table.out.split())


def test_evaluate_refuses(foreword: Command, run: Run) -> None:
    Path("x.txt").write_text("a", encoding="utf-8")
    Path("x.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    for options, said in (
        (["--data", "x.txt"], "its format cannot be told from its name; give it with --format"),
        (["--data", "x.csv"], "x.csv, line 2: field 'references' is missing"),
        (["--data", "x.csv", "--format", "xml"], "xml"),
        (["--data", "none.jsonl"], "none.jsonl: no such file"),
        (["--data", "foreword/nothing"], "no such bundled data"),
        ([], "--data"),
    ):
        refused(foreword("evaluate", run.artifact, *options, "--out", "figures.json"), said)
    assert not Path("figures.json").exists()


def test_ls_and_show(foreword: Command, run: Run) -> None:
    shutil.copytree(run.folder, "runs/fine")
    shutil.copytree(run.folder, "runs/damaged")
    Path("runs/damaged/artifact/foreword.json").write_text("{", encoding="utf-8")
    listed = json.loads(foreword("ls", "--json").out)
    damaged, fine = listed["artifacts"]
    assert "cannot be read as JSON" in damaged["error"]
    assert fine["artifact"] == "runs/fine/artifact"
    assert (fine["method"], fine["length"]) == ("prefix-tuning", 2)
    assert fine["scores"] == run.metrics["prompt"]["all"]
    assert "foreword/mini" in listed["backbones"]
    assert "foreword/fieldguide/test" in listed["data"]
    table = foreword("ls").out
    assert "damaged" in table
    assert "foreword/mini" in table
    assert "no artifacts below nowhere" in foreword("ls", "nowhere").out
    shown = json.loads(foreword("show", "runs/fine", "--json").out)
    assert shown["backbone"]["name"] == "foreword/mini"
    assert shown["prompt_sha256"]
    text = foreword("show", "runs/fine/artifact").out
    assert "prefix-tuning, 2 virtual tokens" in text
    assert "BLEU" in text
    refused(foreword("show", "runs/damaged"), "cannot be read as JSON")
    refused(foreword("show", "nowhere", "--json"), "nowhere: is no artifact, there is no")


def test_ls_sorts_by_a_metric(foreword: Command, run: Run) -> None:
    for name, bleu, ter in (("a", 1.0, 90.0), ("b", None, None), ("c", 3.0, 80.0)):
        shutil.copytree(run.folder / "artifact", f"runs/{name}/artifact")
        file = Path(f"runs/{name}/artifact/foreword.json")
        manifest = json.loads(file.read_text(encoding="utf-8"))
        manifest["metrics"]["all"] = {"bleu": bleu, "ter": ter}
        file.write_text(json.dumps(manifest), encoding="utf-8")

    def order(*options: str) -> list[str]:
        artifacts = json.loads(foreword("ls", "--json", *options).out)["artifacts"]
        return [Path(entry["artifact"]).parent.name for entry in artifacts]

    assert order() == ["a", "b", "c"]
    assert order("--sort", "bleu") == ["c", "a", "b"]
    Path("runs/c/artifact/foreword.json").write_text("{", encoding="utf-8")
    assert order("--sort", "ter") == ["a", "b", "c"], "low is good; the damaged one is last"
    refused(foreword("ls", "--sort", "blue"), "--sort: 'blue' was not measured; choose among bleu")
    refused(foreword("ls", "--sort", "accuracy"), "'accuracy' was not measured")


def test_recipe_schema(foreword: Command) -> None:
    schema = json.loads(foreword("recipe-schema").out)
    assert "training" in schema["properties"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "foreword.json").write_text("[]", encoding="utf-8"), "an object"),
        (lambda folder: (folder / "prompt.safetensors").write_bytes(b"x"), "is damaged"),
        (lambda folder: (folder / "prompt.safetensors").unlink(), "cannot be read"),
        (lambda folder: (folder / "foreword.json").unlink(), "is no artifact"),
    ],
)
def test_damaged_artifacts(
    damage: Callable[[Path], object], said: str, foreword: Command, run: Run
) -> None:
    folder = Path(shutil.copytree(run.artifact, "copy"))
    damage(folder)
    refused(foreword("generate", "copy", "--text", "x", "--out", "out"), said)
    evaluate = ["--data", "foreword/fieldguide/test", "--limit", 1, "--out", "out"]
    refused(foreword("evaluate", "copy", *evaluate), said)
    assert not Path("out").exists()


def test_a_backbone_of_other_weights(foreword: Command, run: Run) -> None:
    shutil.copytree(bundled_backbones()["foreword/mini"], "same")
    shutil.copytree("same", "other")
    tensors = load_file("other/model.safetensors")
    name = next(name for name in tensors if name.endswith("ln_f.weight"))
    tensors[name] = -tensors[name]
    save_file(tensors, "other/model.safetensors", metadata={"format": "pt"})
    ask = ["generate", run.artifact, "--text", INPUT, "--backbone"]
    same = foreword(*ask, "same")
    assert same.status == 0
    refused(foreword(*ask, "other"), "was trained on 'foreword/mini' whose weights have sha256")
    other = foreword(*ask, "other", "--other-backbone")
    assert other.status == 0
    assert other.out != same.out
    refused(foreword(*ask, "nowhere/here"), "backbone 'nowhere/here' cannot be loaded")


def test_code_of_a_backbone_runs_by_an_explicit_flag_alone(
    foreword: Command, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "hf"))
    shutil.copytree(bundled_backbones()["foreword/mini"], "own")
    config = json.loads(Path("own/config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    Path("own/config.json").write_text(json.dumps(config), encoding="utf-8")
    Path("own/own.py").write_text(
        "import pathlib\nfrom transformers import GPT2Config, GPT2LMHeadModel\n\n"
        f"pathlib.Path({str(tmp_path / 'ran')!r}).touch()\n\n\n"
        "class Config(GPT2Config):\n    pass\n\n\n"
        "class Model(GPT2LMHeadModel):\n    config_class = Config\n",
        encoding="utf-8",
    )
    ask = ["generate", run.artifact, "--text", INPUT, "--device", "cpu"]
    plain = foreword(*ask, "--backbone", "own")
    assert plain.status == 0
    assert not Path("ran").exists()
    trusted = foreword(*ask, "--backbone", "own", "--trust-remote-code")
    assert trusted.out == plain.out, trusted.err
    assert Path("ran").exists()


@pytest.mark.filterwarnings("always:.*was trained on a backbone in float32:UserWarning")
@pytest.mark.parametrize("dtype", ["auto", "float64", "float16", "bfloat16"])
def test_every_type_answers(dtype: str, foreword: Command, run: Run) -> None:
    ask = ["generate", run.artifact, "--text", INPUT, "--device", "cpu", "--dtype", dtype]
    done = foreword(*ask)
    assert json.loads(done.out)["output"]
    same = dtype == "auto" and not has_units("float16", "cpu")  # which the bundled one is stored in
    assert ("was trained on a backbone in float32" in done.err) == (not same)


def test_an_artifact_downloads_nothing(
    foreword: Command, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    folder = Path(shutil.copytree(run.artifact, "copy"))
    manifest = json.loads((folder / "foreword.json").read_text(encoding="utf-8"))
    manifest["backbone"]["name"] = "some-owner/some-model-that-is-not-here"
    (folder / "foreword.json").write_text(json.dumps(manifest), encoding="utf-8")
    done = foreword("generate", "copy", "--text", "x")
    refused(done, "some-owner/some-model-that-is-not-here", "--backbone", "--download lets it")


def test_general_behaviour(foreword: Command) -> None:
    assert foreword("--version").out.startswith("foreword 0.")
    help_ = foreword("--help")
    assert help_.status == 0
    for verb in ("train", "generate", "evaluate", "ls", "show", "recipe-schema"):
        assert verb in help_.out
        assert foreword(verb, "--help").status == 0
    assert foreword("trian").status == 2
    assert foreword("train", "--nothing").status == 2


def test_a_closed_pipe_is_no_failure() -> None:
    done = subprocess.run(
        f"{sys.executable} -m foreword recipe-schema | head -1",
        shell=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "{\n"
    assert done.stderr == ""
