"""/v1/prompts: added from folders and uploads, replaced and removed while others are answered."""

from __future__ import annotations

import base64
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from asking import decoder_world
from running import BASE, Client, named, running

from conftest import make_backbone
from foreword.backbone import Backbone
from foreword.methods import LoRA
from stored_prompts import prefix, store, writes

World = tuple[Backbone, dict[str, Path]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    backbone, folders = decoder_world(tmp_path_factory.mktemp("changing"))
    return backbone, named(folders)


def add(client: Client, name: str, folder: Path | str, **more: Any) -> Any:
    return client.ask("POST", "/v1/prompts", {"name": name, "folder": str(folder), **more})


def encoded(folder: Path) -> dict[str, str]:
    return {
        file.name: base64.b64encode(file.read_bytes()).decode()
        for file in folder.iterdir()
        if file.is_file()
    }


def upload(client: Client, name: str, files: dict[str, str]) -> Any:
    return client.ask("POST", "/v1/prompts", {"name": name, "files": files})


def test_added_replaced_and_removed(world: World, tmp_path: Path) -> None:
    backbone, folders = world
    root = tmp_path / "root"
    shutil.copytree(folders["deep"], root / "inner" / "deep")
    shutil.copytree(folders["soft"], root / "soft")
    with running(backbone, prompt=folders, roots=(root,)) as client:
        answer = add(client, "new", "inner/deep")
        assert answer.status == 201
        assert answer.json["replaced"] is False
        assert (answer.json["method"], answer.json["length"]) == ("prefix-tuning", 3)
        deep = client.texts("deep", prompt="so")
        assert client.texts("new", prompt="so") == deep
        answer = add(client, "new", root / "soft")
        assert (answer.status, answer.json["replaced"]) == (200, True)
        assert client.texts("new", prompt="so") == client.texts("soft", prompt="so") != deep
        listed = {one["id"]: one for one in client.ask("GET", "/v1/prompts").json["data"]}
        assert set(listed) == {*folders, "new"}
        assert listed["new"]["in_memory"] is True
        removed = client.ask("DELETE", "/v1/prompts/new")
        assert removed.json == {"id": "new", "object": "prompt", "deleted": True}
        assert client.complete("new", prompt="so").status == 404
        assert client.ask("DELETE", "/v1/prompts/new").status == 404
        assert client.ask("DELETE", f"/v1/prompts/{BASE}").status == 400
        metrics = client.ask("GET", "/metrics").content
        assert b'"new"' not in metrics
        assert b'"deep"' in metrics


def test_a_request_under_way_leaves_no_numbers_of_a_prompt_that_is_gone(
    world: World, tmp_path: Path
) -> None:
    backbone, folders = world
    with running(backbone, prompt=folders, uploads=tmp_path) as client:
        assert upload(client, "new", encoded(folders["deep"])).status == 201
        answers: list[int] = []

        def ask() -> None:
            long = {"prompt": "so", "max_tokens": 220, "temperature": 0}
            answers.append(client.complete("new", **long).status)

        thread = threading.Thread(target=ask)
        thread.start()
        while not client.served.engine.active:
            time.sleep(0.002)
        assert client.ask("DELETE", "/v1/prompts/new").status == 200
        thread.join(60)
        assert answers == [200]
        client.complete("deep", prompt="so")
        metrics = client.ask("GET", "/metrics").content
        assert b'model="new"' not in metrics
        assert b'model="deep"' in metrics


def test_folders_outside_the_roots(world: World, tmp_path: Path) -> None:
    backbone, folders = world
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(folders["deep"])
    run = root / "run"
    run.mkdir()
    (run / "artifact").symlink_to(folders["deep"])
    with running(backbone, prompt=folders, roots=(root,)) as client:
        for folder in (
            str(folders["deep"]),
            f"../{folders['deep'].name}",
            "link",
            "link/../link",
            "/etc",
            "no\0thing",
            "nothing",
            "a" * 4000,
            ".",
            "run",
        ):
            answer = add(client, "new", folder)
            assert answer.status == 400, folder
            assert answer.error["param"] == "folder"
        for name in ("../x", "a/b", "", BASE, "a" * 129, ".hidden", "a b"):
            assert add(client, name, "x").status == 400
        assert set(client.served.store) == set(folders)


def test_nothing_changes_unless_the_server_says_so(world: World) -> None:
    backbone, folders = world
    with running(backbone, prompt=folders) as client:
        for answer in (
            add(client, "new", folders["deep"]),
            upload(client, "new", encoded(folders["deep"])),
            client.ask("DELETE", "/v1/prompts/deep"),
        ):
            assert answer.status == 403
        assert set(client.served.store) == set(folders)


def test_uploads(world: World, tmp_path: Path) -> None:
    """They are kept, and there after a restart."""
    backbone, folders = world
    kept = tmp_path / "kept"
    with running(backbone, prompt=folders, uploads=kept) as client:
        assert upload(client, "mine", encoded(folders["deep"])).status == 201
        assert client.texts("mine", prompt="so") == client.texts("deep", prompt="so")
        assert upload(client, "mine", encoded(folders["soft"])).status == 200
        assert upload(client, "mine", encoded(folders["soft"])).status == 200
        expected = client.texts("soft", prompt="so")
        assert client.texts("mine", prompt="so") == expected
        assert len(list((kept / "mine").iterdir())) == 1
        assert upload(client, "heads", encoded(folders["head"])).status == 201
        asked = {"model": "heads", "input": "so"}
        assert client.ask("POST", "/v1/classify", asked).status == 200
    with running(backbone, prompt=folders, uploads=kept) as client:
        assert client.texts("mine", prompt="so") == expected
        assert client.ask("DELETE", "/v1/prompts/mine").status == 200
        assert not (kept / "mine").exists()


def test_uploads_that_are_refused(world: World, tmp_path: Path) -> None:
    """Nothing is left of them, and the prompt of the same name stays."""
    backbone, folders = world
    good = encoded(folders["deep"])
    strange = store(tmp_path / "strange", make_backbone("gpt2", seed=1), prefix(), writes())
    lora = store(tmp_path / "lora", backbone, LoRA(name="lora"), writes())
    tensors = base64.b64decode(good["prompt.safetensors"])
    changed = base64.b64encode(tensors[:-1] + b"x").decode()
    with running(backbone, prompt=folders, uploads=tmp_path / "kept", largest=50_000) as client:
        assert upload(client, "mine", good).status == 201
        before = client.texts("mine", prompt="so")
        for files, reason in (
            ({}, "has no 'foreword.json'"),
            ({**good, "../evil": "eA=="}, "'../evil' is none of"),
            ({**good, "prompt.bin": "eA=="}, "'prompt.bin' is none of"),
            ({**good, "foreword.json": "!"}, "is not in base64"),
            ({**good, "foreword.json": base64.b64encode(b"{}").decode()}, "foreword.json"),
            ({**good, "prompt.safetensors": changed}, "is damaged"),
            ({**good, "prompt.safetensors": "A" * 100_000}, "more than the 50,000 bytes"),
            ({n: c for n, c in good.items() if n != "prompt.safetensors"}, "cannot be read"),
            (encoded(strange), "whose weights have sha256"),
            (encoded(lora), "'delta.safetensors' is none of"),
            ({n: c for n, c in encoded(lora).items() if "delta" not in n}, "delta: lora"),
        ):
            answer = upload(client, "mine", files)
            assert answer.status == 400, reason
            assert reason in answer.error["message"]
            assert str(tmp_path) not in answer.error["message"]
        assert client.texts("mine", prompt="so") == before
        assert upload(client, "other", {**good, "prompt.safetensors": changed}).status == 400
        assert [one.name for one in (tmp_path / "kept").iterdir()] == ["mine"]
        assert len(list((tmp_path / "kept" / "mine").iterdir())) == 1


def test_prompts_come_and_go_under_load(world: World, tmp_path: Path) -> None:
    """No request fails, and each answer is one of the two that the name has had."""
    backbone, folders = world
    with running(backbone, prompt=folders, uploads=tmp_path / "kept") as client:
        right = {tuple(client.texts(name, prompt="so")) for name in ("deep", "soft")}
        assert len(right) == 2
        upload(client, "mine", encoded(folders["deep"]))
        found: list[tuple[str, ...]] = []
        wrong: list[bytes] = []
        done = threading.Event()

        def ask() -> None:
            while not done.is_set():
                answer = client.complete("mine", prompt="so")
                if answer.status != 200:
                    wrong.append(answer.content)
                    return
                found.append(tuple(choice["text"] for choice in answer.json["choices"]))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(10):
            files = encoded(folders["soft" if number % 2 == 0 else "deep"])
            assert upload(client, "mine", files).status == 200
            assert upload(client, f"p{number}", files).status == 201
        done.set()
        for thread in threads:
            thread.join()
        assert not wrong
        assert set(found) == right
