"""`A+B` in a server: prompts put together of others, and what becomes of them when those change."""

from __future__ import annotations

import base64
import json
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from running import BASE, Client, running

import foreword
from conftest import make_backbone
from foreword.artifacts.manifest import read_manifest
from foreword.backbone import Backbone
from foreword.cli import main
from foreword.errors import ArtifactError, BackboneError, UserError
from foreword.serving import PromptStore
from foreword.serving.compositions import Compositions
from foreword.serving.spec import read_spec
from foreword.serving.versions import Versions
from stored_prompts import labels, prefix, soft, store, writes

TEXTS = ["a film", "so"]
GREEDY = {"prompt": "so", "temperature": 0}


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return make_backbone("llama", torch.float64)


@pytest.fixture(scope="module")
def made(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A text's prompts, a task's, and some that stand with none of them."""
    folder = tmp_path_factory.mktemp("made")
    return {
        "manual": store(folder / "manual", backbone, prefix(4), writes(), seed=1),
        "revised": store(folder / "revised", backbone, prefix(5), writes(), seed=2),
        "support": store(folder / "support", backbone, prefix(3), writes("Q: {text} A:"), seed=3),
        "soft": store(folder / "soft", backbone, soft(), writes(), seed=4),
        "head": store(folder / "head", backbone, prefix(), labels(), seed=5),
    }


@pytest.fixture
def kept(backbone: Backbone, made: dict[str, Path]) -> PromptStore:
    prompts = PromptStore(backbone, reserved=(BASE,))
    for name in ("manual", "support"):
        prompts.add(name, made[name])
    return prompts


@pytest.fixture
def compositions(kept: PromptStore, tmp_path: Path) -> Compositions:
    return Compositions(Versions(kept, tmp_path / "kept"))


def right(backbone: Backbone, *folders: Path) -> list[str]:
    """What prompts that are loaded together from where they were made answer."""
    return foreword.load("+".join(map(str, folders)), backbone=backbone).generate(TEXTS)


def written(kept: PromptStore, name: str) -> list[str]:
    return kept.get(name).generate(TEXTS)


def together(made: dict[str, Path], *names: str) -> str:
    return "+".join(str(made[name]) for name in names)


def test_it_is_the_artifact_that_compose_writes(
    compositions: Compositions,
    kept: PromptStore,
    backbone: Backbone,
    made: dict[str, Path],
    tmp_path: Path,
) -> None:
    """By names or folders, to the bit, and read again when it was out of memory."""
    folders = [made["manual"], made["support"]]
    foreword.compose(folders, backbone=backbone).save(tmp_path / "written")
    reference = read_manifest(tmp_path / "written")
    for name, parts in (("named", ["manual", "support"]), ("folders", folders)):
        entry = compositions.add(name, parts)
        assert entry.manifest.prompt_sha256 == reference.prompt_sha256
        assert entry.manifest == reference
        assert compositions.parts(name) == ("manual", "support")
    expected = right(backbone, *folders)
    assert expected not in (right(backbone, made["support"]), right(backbone, made["manual"]))
    assert written(kept, "named") == written(kept, "folders") == expected
    kept.memory = kept.registered("named").bytes
    for name in ("manual", "named", "folders", "named"):
        kept.get(name)
    assert written(kept, "named") == expected
    assert compositions.parts("manual") is None


def test_it_is_made_anew_when_a_part_is_replaced(
    compositions: Compositions, kept: PromptStore, backbone: Backbone, made: dict[str, Path]
) -> None:
    compositions.add("help", ["manual", "support"])
    compositions.add("still", [made["manual"], made["support"]])
    before = kept.find("help")
    compositions.renew()
    assert kept.find("help") is before, "nothing was replaced"
    kept.add("manual", made["revised"])
    compositions.renew()
    assert written(kept, "help") == right(backbone, made["revised"], made["support"])
    assert written(kept, "still") == right(backbone, made["manual"], made["support"])
    kept_folders = sorted(one.name for one in compositions.versions.folder.glob("*/*"))
    assert len(kept_folders) == 2, "one version of each"


def test_it_stays_when_a_part_is_removed(
    compositions: Compositions,
    kept: PromptStore,
    backbone: Backbone,
    made: dict[str, Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And is made anew when the part comes again."""
    compositions.add("help", ["manual", "support"])
    before = kept.find("help")
    kept.remove("manual")
    with caplog.at_level(logging.WARNING, "foreword.serving"):
        compositions.renew()
    assert not caplog.records
    assert kept.find("help") is before
    assert written(kept, "help") == right(backbone, made["manual"], made["support"])
    kept.add("manual", made["revised"])
    compositions.renew()
    assert written(kept, "help") == right(backbone, made["revised"], made["support"])


def test_it_stays_where_the_new_part_does_not_go_with_the_others(
    compositions: Compositions,
    kept: PromptStore,
    backbone: Backbone,
    made: dict[str, Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    compositions.add("help", ["manual", "support"])
    kept.add("manual", made["soft"])
    with caplog.at_level(logging.WARNING, "foreword.serving"):
        compositions.renew()
        compositions.renew()
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("the prompt 'help' stays as it was: support: its injection is ")
    memory, kept.memory = kept.memory, kept.registered("help").bytes
    kept.get("support")
    assert written(kept, "help") == right(backbone, made["manual"], made["support"])
    kept.memory = memory
    kept.add("manual", made["revised"])
    compositions.renew()
    assert written(kept, "help") == right(backbone, made["revised"], made["support"])


def test_a_name_that_something_else_has_taken_is_left_to_it(
    compositions: Compositions, kept: PromptStore, made: dict[str, Path]
) -> None:
    compositions.add("help", ["manual", "support"])
    own = kept.add("help", made["support"])
    kept.add("manual", made["revised"])
    compositions.renew()
    assert kept.find("help") is own
    assert compositions.parts("help") is None
    kept.remove("help")
    kept.add("manual", made["manual"])
    compositions.renew()
    assert "help" not in kept
    compositions.add("help", ["manual", "support"])
    compositions.add("help", ["support", "manual"])
    assert compositions.parts("help") == ("support", "manual")


def test_what_is_refused(
    compositions: Compositions, kept: PromptStore, backbone: Backbone, made: dict[str, Path]
) -> None:
    """With the errors of `foreword.compose`, where that has some; all stays as it was."""
    kept.add("soft", made["soft"])
    kept.add("head", made["head"])
    compositions.add("help", ["manual", "support"])
    before = {name: kept.find(name) for name in kept}
    for name, parts, kind, reason in (
        ("new", ["manual", "none"], UserError, "parts: there is no prompt 'none' here"),
        ("new", ["help", "support"], UserError, "parts: 'help' is put together itself"),
        ("new", ["new", "support"], UserError, "parts: 'new' cannot be a part of itself"),
        ("support", ["manual", "soft"], UserError, "name: 'support' is a part of another prompt"),
        ("../x", ["manual", "support"], UserError, "is no name of a prompt"),
        (BASE, ["manual", "support"], UserError, "is the backbone's"),
        ("new", [made["manual"] / "none", "support"], ArtifactError, "there is no such folder"),
    ):
        with pytest.raises(kind, match=reason):
            compositions.add(name, parts)
    for other, reason in (("soft", "support: its injection is"), ("head", "head: has a head")):
        with pytest.raises(ArtifactError, match=reason) as raised:
            compositions.add("new", [other, "support"])
        with pytest.raises(ArtifactError) as elsewhere:
            foreword.compose([made[other], made["support"]], backbone=backbone)
        folders = str(elsewhere.value)
        for one in (other, "support"):
            folders = folders.replace(str(made[one]), one)
        assert str(raised.value) == folders
    assert {name: kept.find(name) for name in kept} == before
    compositions.store.largest = 100
    with pytest.raises(ArtifactError, match="more than the 100 that a prompt may have"):
        compositions.add("new", ["manual", "support"])
    assert [one.name for one in compositions.versions.folder.iterdir()] == ["help"]


def test_keys_that_cannot_be_moved(tmp_path: Path) -> None:
    gpt2 = make_backbone("gpt2")
    prompts = PromptStore(gpt2)
    for seed, name in enumerate(("a", "b")):
        prompts.add(name, store(tmp_path / name, gpt2, prefix(), writes(), seed=seed))
    with pytest.raises(BackboneError, match=r"^b: its keys stand at positions 0 to 2"):
        Compositions(Versions(prompts, tmp_path / "kept")).add("new", ["a", "b"])


def test_a_file_names_parts_beside_itself(tmp_path: Path, made: dict[str, Path]) -> None:
    """Folders are those beside the file, what is none is a name; a folder may have a plus."""
    for name in ("manual", "runs/a+b"):
        shutil.copytree(made["manual"], tmp_path / name)
    (tmp_path / "empty").mkdir()
    file = tmp_path / "serve.yaml"
    settings = {
        "backbone": "x",
        "prompt": {
            "one": "manual+support",
            "two": "runs/a+b+manual",
            "three": "runs/a+b",
            "four": "empty+support+manual",
            "five": "s3://bucket/a+b",
        },
    }
    file.write_text(json.dumps(settings), encoding="utf-8")
    assert read_spec(file, {"prompt": {"six": "here+there"}}).prompt == {
        "one": Path(f"{tmp_path}/manual+support"),
        "two": Path(f"{tmp_path}/runs/a+b+{tmp_path}/manual"),
        "three": tmp_path / "runs/a+b",
        "four": Path(f"empty+support+{tmp_path}/manual"),
        "five": "s3://bucket/a+b",
        "six": Path("here+there"),
    }
    file.write_text("backbone: x\nprompt: {a: b++c}", encoding="utf-8")
    with pytest.raises(UserError, match=r"b\+\+c: no artifact stands on one side of a plus"):
        read_spec(file, {})


def test_a_server_is_told_them_by_names_and_folders(
    backbone: Backbone, made: dict[str, Path], tmp_path: Path
) -> None:
    there = tmp_path / "there"
    shutil.copytree(made["manual"], there / "manual")
    prompt: dict[str, Any] = {
        "named": Path("manual+support"),
        "folders": Path(together(made, "manual", "support")),
        "mixed": Path(f"manual+{made['support']}"),
        "support": made["support"],
        "written": tmp_path / "written",
    }
    foreword.compose([made["manual"], made["support"]], backbone=backbone).save(prompt["written"])
    with running(backbone, prompt=prompt, prompts=there) as client:
        expected = client.texts("written", **GREEDY)
        for name in ("named", "folders", "mixed"):
            assert client.texts(name, **GREEDY) == expected
        assert expected != client.texts("support", **GREEDY)
        listed = {one["id"]: one for one in client.ask("GET", "/v1/prompts").json["data"]}
        assert listed["mixed"]["parts"] == ["manual", "support"]
        assert (listed["mixed"]["length"], listed["mixed"]["artifact"]) == (7, "manual+support")
        assert "parts" not in listed["support"]
    for given, reason in (
        ("manul+support", r"prompt.x: 'manul' of 'manul\+support' is neither a folder with an"),
        ("manul+support", r"did you mean 'manual'\?"),
        ("manual+", "no artifact stands on one side of a plus"),
        (together(made, "soft", "support"), "its injection is"),
    ):
        wrong = {"support": made["support"], "x": Path(given)}
        with pytest.raises(UserError, match=reason), running(backbone, prompt=wrong, prompts=there):
            pass


def test_a_server_answers_with_the_tokens_of_generate(
    mini: Backbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for seed, (name, length) in enumerate({"text": 5, "task": 3}.items()):
        store(tmp_path / name, mini, soft(length), writes(), seed=seed, max_new_tokens=12)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "sys.argv", ["foreword", "generate", "text+task", "--text", "an otter", "--device", "cpu"]
    )
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code in (0, None)
    answer = json.loads(capsys.readouterr().out)["output"]
    parts = {"text": Path("text"), "task": Path("task")}
    for both in ("text+task", "a+b"):
        named = {"a": parts["text"], "b": parts["task"], "both": Path(both)}
        with running(mini, prompt=named) as client:
            (text,) = client.texts("both", prompt="an otter", temperature=0)
            assert text.strip() == answer
            (alone,) = client.texts("b", prompt="an otter", temperature=0)
            assert alone.strip() != answer


def add(client: Client, name: str, key: str | None = None, **source: Any) -> Any:
    return client.ask("POST", "/v1/prompts", {"name": name, **source}, key=key)


def encoded(folder: Path) -> dict[str, str]:
    return {
        file.name: base64.b64encode(file.read_bytes()).decode()
        for file in folder.iterdir()
        if file.name != "README.md"
    }


def test_over_http(backbone: Backbone, made: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("manual", "support", "a+b"):
        shutil.copytree(made["manual" if name == "a+b" else name], root / name)
    expected: dict[str, list[str]] = {}
    reference = {name: Path(together(made, name, "support")) for name in ("manual", "revised")} | {
        "alone": made["manual"]
    }
    with running(backbone, prompt=reference) as client:
        expected = {name: client.texts(name, **GREEDY) for name in reference}
    prompt = {name: made[name] for name in ("manual", "support", "soft")}
    with running(backbone, prompt=prompt, roots=(root,), uploads=tmp_path / "up") as client:
        answer = add(client, "help", parts=["manual", "support"])
        assert (answer.status, answer.json["parts"]) == (201, ["manual", "support"])
        assert client.texts("help", **GREEDY) == expected["manual"]
        assert add(client, "folders", folder="manual+support").status == 201
        assert add(client, "plus", folder="a+b").status == 201
        assert add(client, "three", folder=f"{root}/a+b+support").status == 201
        assert client.texts("folders", **GREEDY) == expected["manual"]
        assert client.texts("plus", **GREEDY) == expected["alone"]
        assert client.texts("three", **GREEDY) == expected["manual"]
        answer = add(client, "manual", files=encoded(made["revised"]))
        assert (answer.status, answer.json["replaced"]) == (200, True)
        assert client.texts("help", **GREEDY) == expected["revised"]
        assert client.texts("folders", **GREEDY) == expected["manual"]
        assert client.ask("DELETE", "/v1/prompts/manual").status == 200
        assert client.texts("help", **GREEDY) == expected["revised"]
        for source, param, reason in (
            ({"parts": ["gone", "support"]}, "parts", "there is no prompt 'gone' here"),
            ({"parts": [BASE, "support"]}, "parts", f"there is no prompt '{BASE}' here"),
            ({"parts": ["soft", "support"]}, "parts", "its injection is"),
            ({"parts": ["support"]}, "parts", "at least 2"),
            ({"parts": ["a"] * 65}, "parts", "at most 64"),
            ({"parts": ["a", "b"], "folder": "manual"}, None, "give one of"),
            ({"folder": f"manual+{made['support']}"}, "folder", "below the server's roots"),
            ({"folder": "manual+../root2"}, "folder", "below the server's roots"),
            ({"folder": "manual+"}, "folder", "no artifact stands on one side of a plus"),
        ):
            refused = add(client, "new", **source)
            assert refused.status == 400, source
            assert reason in refused.error["message"]
            assert param is None or refused.error["param"] == param
        folder = client.served.versions.folder
        assert client.ask("DELETE", "/v1/prompts/help").status == 200
        assert client.complete("help", **GREEDY).status == 404
        assert sorted(one.name for one in folder.iterdir()) == ["folders", "three"]
        assert sorted(client.served.store) == ["folders", "plus", "soft", "support", "three"]
    with running(backbone, prompt=prompt) as client:
        assert add(client, "help", parts=["manual", "support"]).status == 403


def test_a_key_makes_nothing_of_what_it_may_not_use(
    backbone: Backbone, made: dict[str, Path], tmp_path: Path
) -> None:
    keys = [
        {"name": "a", "key": "key-of-a-tenant", "models": ["a-*"], "admin": True},
        {"name": "all", "key": "key-of-all-of-it", "admin": True},
    ]
    prompt = {"a-task": made["support"], "b-text": made["manual"], "a-text": made["manual"]}
    with running(backbone, prompt=prompt, uploads=tmp_path / "up", keys=keys) as client:
        for part in ("b-text", "b-none"):
            answer = add(client, "a-new", "key-of-a-tenant", parts=[part, "a-task"])
            assert (answer.status, answer.error["param"]) == (403, "parts")
        assert add(client, "a-new", "key-of-a-tenant", parts=["a-text", "a-task"]).status == 201
        assert add(client, "a-of-b", "key-of-all-of-it", parts=["b-text", "a-task"]).status == 201
        for key, shown in (("key-of-a-tenant", False), ("key-of-all-of-it", True)):
            data = client.ask("GET", "/v1/prompts", key=key).json["data"]
            listed = {one["id"]: one for one in data}
            assert listed["a-new"]["parts"] == ["a-text", "a-task"]
            assert ("parts" in listed["a-of-b"]) is shown


def test_what_was_uploaded_is_there_after_a_restart(
    backbone: Backbone, made: dict[str, Path], tmp_path: Path
) -> None:
    """Where a composition of this name is among the settings, as with any prompt there."""
    prompt = {"manual": made["manual"], "help": Path(f"manual+{made['support']}")}
    with running(backbone, prompt=prompt, uploads=tmp_path / "up") as client:
        before = client.texts("help", **GREEDY)
        assert add(client, "help", files=encoded(made["revised"])).status == 200
        uploaded = client.texts("help", **GREEDY)
        assert uploaded != before
        assert add(client, "text", files=encoded(made["manual"])).status == 201
    prompt["of"] = Path(f"text+{made['support']}")
    with running(backbone, prompt=prompt, uploads=tmp_path / "up") as client:
        assert client.texts("help", **GREEDY) == uploaded
        assert client.texts("of", **GREEDY) == before


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


def test_a_part_that_changes_in_the_folder_that_is_followed(
    backbone: Backbone, made: dict[str, Path], tmp_path: Path
) -> None:
    there = tmp_path / "there"
    for name in ("manual", "support"):
        shutil.copytree(made[name], there / name)
    reference = {name: Path(together(made, name, "support")) for name in ("manual", "revised")}
    with running(backbone, prompt=reference) as client:
        first, second = (client.texts(name, **GREEDY) for name in reference)
    assert first != second
    prompt = {"help": Path("manual+support")}
    with running(backbone, prompt=prompt, prompts=there, refresh=0.02) as client:
        assert client.texts("help", **GREEDY) == first
        shutil.copytree(made["revised"], tmp_path / "new")
        (there / "manual").rename(tmp_path / "old")
        (tmp_path / "new").rename(there / "manual")
        until(lambda: client.texts("help", **GREEDY) == second)
        shutil.rmtree(there / "manual")
        until(lambda: client.complete("manual", **GREEDY).status == 404)
        assert client.texts("help", **GREEDY) == second
