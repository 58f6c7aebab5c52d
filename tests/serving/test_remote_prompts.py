"""Prompts of an object store: brought, checked, served, and looked at again."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem
from running import BASE, Client, running

import foreword
from conftest import make_backbone
from foreword.backbone import Backbone
from foreword.common.remote import Remote, RemoteFile
from foreword.errors import ArtifactError, UserError
from foreword.methods import LoRA
from foreword.serving import PromptStore
from foreword.serving.remote import RemotePrompts, add_remote
from foreword.serving.versions import Versions
from stored_prompts import labels, prefix, soft, store, writes

TEXTS = ["a film", "so"]
FILES = ("foreword.json", "prompt.safetensors")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return make_backbone("gpt2", torch.float64)


@pytest.fixture(scope="module")
def made(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("made")
    return {
        "soft": store(folder / "soft", backbone, soft(), writes()),
        "deep": store(folder / "deep", backbone, prefix(), writes(), seed=1),
        "soft again": store(folder / "sofa", backbone, soft(), writes(), seed=7),
        "head": store(folder / "head", backbone, prefix(), labels(), seed=2),
        "lora": store(folder / "lora", backbone, LoRA(name="lora"), writes()),
    }


@pytest.fixture(scope="module")
def right(backbone: Backbone, made: dict[str, Path]) -> dict[str, list[str]]:
    """What each answers when it is loaded from where it was made."""
    answers = {
        name: foreword.load(made[name], backbone=backbone).generate(TEXTS)
        for name in ("soft", "deep")
    }
    assert answers["soft"] != answers["deep"]
    return answers


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a store with one file that is no prompt."""
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    where = "memory://bucket/prompts" if request.param == "memory" else f"file://{tmp_path}/there"
    put(f"{where}/README", b"prompts")
    return where


def put(url: str, content: bytes) -> None:
    """An object of a store."""
    fs, path = fsspec.core.url_to_fs(url)
    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    fs.pipe_file(path, content)
    if isinstance(fs, LocalFileSystem):  # two of one size within a tick of the disk's clock
        put.ticks += 1
        os.utime(path, ns=(0, put.ticks))


put.ticks = 0


def upload(folder: Path, url: str, files: tuple[str, ...] = FILES) -> None:
    for name in files:
        put(f"{url}/{name}", (folder / name).read_bytes())


def remove(url: str) -> None:
    fs, path = fsspec.core.url_to_fs(url)
    fs.rm(path, recursive=True)


@pytest.fixture
def kept(backbone: Backbone) -> PromptStore:
    return PromptStore(backbone, reserved=(BASE,))


@pytest.fixture
def versions(kept: PromptStore, tmp_path: Path) -> Versions:
    return Versions(kept, tmp_path / "outer" / "here")


def files_of(versions: Versions) -> list[str]:
    """The files that are kept on this machine, without the key in their path."""
    found = (file for file in versions.folder.rglob("*") if file.is_file())
    parts = [file.relative_to(versions.folder).parts for file in found]
    return sorted(f"{name}/{file}" for name, _, file in parts)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were asked of the store."""
    asked: list[str] = []
    fetch = Remote.fetch

    def counted(remote: Remote, file: RemoteFile, target: Path) -> None:
        asked.append("/".join(file.path.rsplit("/", 2)[1:]))
        fetch(remote, file, target)

    monkeypatch.setattr(Remote, "fetch", counted)
    return asked


def test_prompts_come_change_and_go(
    url: str,
    kept: PromptStore,
    versions: Versions,
    made: dict[str, Path],
    right: dict[str, list[str]],
    fetched: list[str],
) -> None:
    followed, gone = RemotePrompts(url, kept, versions), []
    followed.look()
    assert list(kept) == []
    upload(made["soft"], f"{url}/a")
    upload(made["deep"], f"{url}/run/artifact")
    put(f"{url}/run/checkpoints/state.safetensors", b"no part of the artifact")
    put(f"{url}/notes/README.md", b"no prompt")
    upload(made["head"], f"{url}/told", (*FILES, "head.safetensors"))
    followed.look()
    assert sorted(kept) == ["a", "run", "told"]
    assert kept.get("a").generate(TEXTS) == right["soft"]
    assert kept.get("run").generate(TEXTS) == right["deep"]
    assert len(kept.get("told").predict(TEXTS)) == 2
    assert len(fetched) == 7
    fetched.clear()
    followed.look(gone.append)
    assert fetched == [], "what is as it was is not fetched again"
    upload(made["deep"], f"{url}/a")
    followed.look(gone.append)
    assert sorted(fetched) == ["a/foreword.json", "a/prompt.safetensors"]
    assert kept.get("a").generate(TEXTS) == right["deep"]
    remove(f"{url}/run")
    followed.look(gone.append)
    assert (sorted(kept), gone) == (["a", "told"], ["run"])
    assert files_of(versions) == [
        *("a/foreword.json", "a/prompt.safetensors"),
        *("told/foreword.json", "told/head.safetensors", "told/prompt.safetensors"),
    ]
    assert (followed.looks, followed.failures) == (5, 0)


def test_a_change_that_leaves_all_sizes(
    url: str, backbone: Backbone, kept: PromptStore, versions: Versions, made: dict[str, Path]
) -> None:
    first, second = (
        [(made[name] / file).stat().st_size for file in FILES] for name in ("soft", "soft again")
    )
    assert first == second
    followed = RemotePrompts(url, kept, versions)
    for name in ("soft", "soft again"):
        upload(made[name], f"{url}/a")
        followed.look()
        expected = foreword.load(made[name], backbone=backbone).generate(TEXTS)
        assert kept.get("a").generate(TEXTS) == expected


def test_hashes_of_a_listing_tell_more_than_times(monkeypatch: pytest.MonkeyPatch) -> None:
    MemoryFileSystem.store.clear()
    put("memory://bucket/prompts/a/foreword.json", b"{}")
    find, more = MemoryFileSystem.find, {}

    def finds(self: Any, path: str, **kwargs: Any) -> Any:
        return {one: {**info, **more} for one, info in find(self, path, **kwargs).items()}

    monkeypatch.setattr(MemoryFileSystem, "find", finds)
    remote = Remote("memory://bucket/prompts", "prompts")
    listings = []
    for stated in (
        {"ETag": "1", "LastModified": "monday"},
        {"ETag": "1", "LastModified": "tuesday"},
        {"ETag": "2", "LastModified": "tuesday"},
        {"LastModified": "monday", "created": None},
        {"LastModified": "tuesday", "created": None},
        {"created": None},
        {"created": None, "islink": True},
        {"created": None, "type": "other"},
    ):
        more.clear()
        more.update(stated)
        (file,) = remote.files().values()
        listings.append(file)
    assert listings[0] == listings[1], "the content is the same"
    assert len(set(listings[1:6])) == 5
    assert [one.regular for one in listings] == [True] * 6 + [False] * 2


def test_what_is_out_of_memory_is_read_again_from_here(
    url: str, backbone: Backbone, tmp_path: Path, made: dict[str, Path], right: dict[str, list[str]]
) -> None:
    """Without the store, which may be away."""
    size = max(PromptStore(backbone).add("x", made[name]).bytes for name in ("soft", "deep"))
    kept = PromptStore(backbone, memory=size)
    upload(made["soft"], f"{url}/a")
    upload(made["deep"], f"{url}/b")
    RemotePrompts(url, kept, Versions(kept, tmp_path / "here")).look()
    remove(url)
    for _ in range(2):
        assert kept.get("a").generate(TEXTS) == right["soft"]
        assert kept.get("b").generate(TEXTS) == right["deep"]
        assert kept.in_memory[0] == 1


def test_an_upload_that_is_not_whole_is_not_served(
    url: str,
    kept: PromptStore,
    versions: Versions,
    made: dict[str, Path],
    right: dict[str, list[str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whichever of its files comes first, and in whatever pieces; the one before stays."""
    followed = RemotePrompts(url, kept, versions)
    for name, answers in (("soft", None), ("deep", right["soft"])):
        for file in FILES:
            content = (made[name] / file).read_bytes()
            for part in (content[: len(content) // 2], content):
                assert answers is None or kept.get("a").generate(TEXTS) == answers
                assert ("a" in kept) is (answers is not None)
                put(f"{url}/a/{file}", part)
                followed.look()
        assert kept.get("a").generate(TEXTS) == right[name]
    caplog.clear()
    put(f"{url}/a/prompt.safetensors", b"damaged")
    with caplog.at_level(logging.WARNING, "foreword.serving"):
        followed.look()
        followed.look()
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("the prompt 'a' stays as it was: ")
    assert str(versions.folder) not in message
    assert kept.get("a").generate(TEXTS) == right["deep"]
    assert files_of(versions) == ["a/foreword.json", "a/prompt.safetensors"]
    assert followed.failures == 0, "the store was reached"


def test_a_store_that_goes_away_changes_nothing(
    url: str,
    kept: PromptStore,
    versions: Versions,
    made: dict[str, Path],
    right: dict[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    upload(made["soft"], f"{url}/a")
    followed = RemotePrompts(url, kept, versions)
    followed.look()
    fs = type(followed.remote.fs)

    def refuses(*_: Any, **__: Any) -> Any:
        raise PermissionError("the key has run out")

    for broken in ("info", "find"):
        with monkeypatch.context() as patch:
            patch.setattr(fs, broken, refuses)
            with pytest.raises(UserError, match="the key has run out") as raised:
                followed.look()
            assert url in str(raised.value)
    with monkeypatch.context() as patch:
        patch.setattr(fs, "find", lambda *_, **__: {})
        with pytest.raises(UserError, match="is there, but the listing is without it"):
            followed.look()
    remove(url)
    with pytest.raises(UserError, match="there is nothing of this name"):
        followed.look()
    assert followed.failures == 4
    assert kept.get("a").generate(TEXTS) == right["soft"]


def test_what_could_not_be_fetched_is_tried_again(
    url: str,
    kept: PromptStore,
    versions: Versions,
    made: dict[str, Path],
    right: dict[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Although it has not changed; the others are served."""
    upload(made["soft"], f"{url}/a")
    upload(made["deep"], f"{url}/b")
    followed = RemotePrompts(url, kept, versions)
    fs = type(followed.remote.fs)
    opens = fs.open

    def breaks(self: Any, path: str, *args: Any, **kwargs: Any) -> Any:
        if path.endswith("/a/prompt.safetensors"):
            raise ConnectionError("the line is down")
        return opens(self, path, *args, **kwargs)

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "foreword.serving"):
        patch.setattr(fs, "open", breaks)
        followed.look()
        followed.look()
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("the prompt 'a' is left out: ")
    assert "the line is down" in message
    assert (list(kept), followed.failures) == (["b"], 2)
    followed.look()
    assert kept.get("a").generate(TEXTS) == right["soft"]
    assert followed.failures == 2


def test_sizes_have_bounds_before_anything_is_fetched(
    url: str,
    backbone: Backbone,
    tmp_path: Path,
    made: dict[str, Path],
    fetched: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept = PromptStore(backbone, largest=50_000)
    upload(made["soft"], f"{url}/a")
    put(f"{url}/a/prompt.safetensors", bytes(50_000))
    with caplog.at_level(logging.WARNING, "foreword.serving"):
        RemotePrompts(url, kept, Versions(kept, tmp_path / "here")).look()
    (message,) = [record.getMessage() for record in caplog.records]
    assert "bytes, more than the 50,000 that a prompt may have" in message
    assert (list(kept), fetched) == ([], [])
    with pytest.raises(ArtifactError, match="more than the 50,000 that a prompt may have"):
        add_remote("x", f"{url}/a", Versions(kept, tmp_path / "here"))
    assert fetched == []


@pytest.mark.parametrize("stated", [0, 100, 10**6, None, -1])
def test_a_store_that_states_another_size(
    stated: int | None,
    kept: PromptStore,
    versions: Versions,
    made: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No byte more than it states is written."""
    url = "memory://bucket/prompts"
    MemoryFileSystem.store.clear()
    upload(made["soft"], f"{url}/a")
    find, written = MemoryFileSystem.find, []

    def lies(self: Any, path: str, **kwargs: Any) -> Any:
        found = find(self, path, **kwargs)
        found["/bucket/prompts/a/prompt.safetensors"]["size"] = stated
        return found

    drop = Versions.drop

    def weighed(self: Versions, new: Path) -> None:
        written.extend(file.stat().st_size for file in new.glob("*.safetensors"))
        drop(self, new)

    monkeypatch.setattr(MemoryFileSystem, "find", lies)
    monkeypatch.setattr(Versions, "drop", weighed)
    followed = RemotePrompts(url, kept, versions)
    followed.look()
    assert (list(kept), files_of(versions)) == ([], [])
    unknown = stated is None or stated < 0
    assert (not written) if unknown else (written[0] <= stated)
    assert followed.failures == (0 if unknown else 1)


HOSTILE = (
    *("../evil", "..", ".", ".hidden", "a b", "a\nb", "a\\..\\b", "ü", "a" * 129, "-a", "%2e%2e"),
    *("a\0b", "deep/er", "/rooted", "x/../../evil", "artifact/..", BASE),
)


def test_names_that_lead_elsewhere(
    kept: PromptStore,
    versions: Versions,
    made: dict[str, Path],
    fetched: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing of them is fetched, nothing is written outside, and each is said once at most."""
    url = "memory://bucket/prompts"
    MemoryFileSystem.store.clear()
    fs = fsspec.filesystem("memory")
    upload(made["soft"], f"{url}/good")
    for name in HOSTILE:
        for file in FILES:
            path = f"/bucket/prompts/{name}/{file}"
            fs.store[path] = MemoryFile(fs, path, (made["soft"] / file).read_bytes())
    for name in ("../x.safetensors", "prompt.bin", "delta.safetensors", "sub/prompt.safetensors"):
        path = f"/bucket/prompts/good/{name}"
        fs.store[path] = MemoryFile(fs, path, b"more")
    outer = versions.folder.parent
    followed = RemotePrompts(url, kept, versions)
    with caplog.at_level(logging.WARNING, "foreword.serving"):
        followed.look()
        followed.look()
    assert list(kept) == ["good"]
    assert sorted(fetched) == ["good/foreword.json", "good/prompt.safetensors"]
    assert [one.name for one in outer.iterdir()] == ["here"]
    assert [one.name for one in versions.folder.iterdir()] == ["good"]
    assert files_of(versions) == ["good/foreword.json", "good/prompt.safetensors"]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len(set(said)) == 12
    assert all("is no name of a prompt" in one or f"'{BASE}' is the" in one for one in said)
    assert not any("\n" in one or "\0" in one or len(one) > 500 for one in said)


def test_links_and_pipes_are_not_opened(
    kept: PromptStore, versions: Versions, made: dict[str, Path], tmp_path: Path
) -> None:
    there = tmp_path / "there"
    for name in ("good", "linked", "piped"):
        shutil.copytree(made["soft"], there / name)
    (there / "linked" / "prompt.safetensors").unlink()
    (there / "linked" / "prompt.safetensors").symlink_to(made["soft"] / "prompt.safetensors")
    (there / "piped" / "foreword.json").unlink()
    os.mkfifo(there / "piped" / "foreword.json")
    (there / "elsewhere").symlink_to(made["deep"])
    RemotePrompts(f"file://{there}", kept, versions).look()
    assert list(kept) == ["good"]
    with pytest.raises(ArtifactError, match=r"'prompt.safetensors' is no regular file"):
        add_remote("x", f"file://{there}/linked", versions)


def test_weights_of_the_backbone_that_moved_are_named(
    url: str, versions: Versions, made: dict[str, Path]
) -> None:
    upload(made["lora"], f"{url}/a", (*FILES, "delta.safetensors"))
    with pytest.raises(ArtifactError, match=r"trained too \(delta: lora\)"):
        add_remote("a", f"{url}/a", versions)


def test_names_of_others_are_left_to_them(
    url: str, kept: PromptStore, versions: Versions, made: dict[str, Path], fetched: list[str]
) -> None:
    own = kept.add("a", made["deep"])
    upload(made["soft"], f"{url}/a")
    followed = RemotePrompts(url, kept, versions)
    followed.look()
    assert (kept.find("a"), fetched) == (own, [])
    kept.remove("a")
    followed.look()
    taken = kept.find("a")
    assert taken is not None
    replaced = kept.add("a", made["deep"])
    remove(f"{url}/a")
    followed.look()
    assert kept.find("a") is replaced


def test_one_that_is_named(
    url: str, kept: PromptStore, versions: Versions, made: dict[str, Path], right: dict[str, Any]
) -> None:
    upload(made["soft"], f"{url}/a")
    upload(made["deep"], f"{url}/run/artifact")
    add_remote("one", f"{url}/a", versions)
    add_remote("two", f"{url}/run/", versions)
    assert kept.get("one").generate(TEXTS) == right["soft"]
    assert kept.get("two").generate(TEXTS) == right["deep"]
    for name, where, reason in (
        ("x", "nowhere", "nowhere: there is nothing of this name"),
        ("x", "a/foreword.json", "is no folder"),
        ("../x", "a", "is no name of a prompt"),
        (BASE, "a", f"'{BASE}' is the backbone's"),
    ):
        with pytest.raises(UserError, match=reason):
            add_remote(name, f"{url}/{where}", versions)
    put(f"{url}/empty/README.md", b"")
    with pytest.raises(ArtifactError, match=r"prompt.x: .*/empty: is no artifact, it has no"):
        add_remote("x", f"{url}/empty", versions)
    assert sorted(kept) == ["one", "two"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://bucket/prompts", "'s3://bucket/prompts' needs s3fs, which is not installed; pip"),
        ("gs://bucket/prompts", "needs gcsfs, which is not installed; pip install gcsfs"),
        ("nowhere://bucket", "'nowhere://bucket' cannot be used: Protocol not known: nowhere"),
        ("memory://not/there", "prompts: memory://not/there: there is nothing of this name"),
        ("file:///not/there", "prompts: file:///not/there: there is nothing of this name"),
    ],
)
def test_a_store_that_cannot_be_reached_at_the_start(
    url: str, message: str, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    MemoryFileSystem.store.clear()
    for package in ("s3fs", "gcsfs"):
        monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(UserError) as raised, running(backbone, prompts=url):
        pass
    assert message in str(raised.value)
    with pytest.raises(UserError) as raised, running(backbone, prompt={"a": url}):
        pass
    assert url in str(raised.value)
    assert str(raised.value).startswith("prompt.a: ")


def test_passwords_are_not_shown(kept: PromptStore, versions: Versions) -> None:
    with pytest.raises(UserError) as raised:
        RemotePrompts("nowhere://me:secret@host/prompts", kept, versions)
    assert "secret" not in str(raised.value)
    assert "nowhere://…@host/prompts" in str(raised.value)


@pytest.fixture
def client(backbone: Backbone, url: str) -> Iterator[Client]:
    with running(backbone, prompts=url, refresh=0.02) as found:
        yield found


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


def number(client: Client, name: str) -> float:
    """One of the server's."""
    lines = client.ask("GET", "/metrics").content.decode().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{name} ")]
    return float(line.split()[1])


def test_a_server_takes_what_comes_into_its_store(
    client: Client, url: str, made: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    with running(
        client.served.service.backbone, prompt={"s": made["soft"], "d": made["deep"]}
    ) as o:
        right = {name: o.texts(name, prompt="so", temperature=0) for name in ("s", "d")}
    body = {"prompt": "so", "temperature": 0}
    assert client.complete("a", **body).status == 404
    upload(made["soft"], f"{url}/a")
    until(lambda: client.complete("a", **body).status == 200)
    assert client.texts("a", **body) == right["s"]
    upload(made["deep"], f"{url}/a")
    until(lambda: client.texts("a", **body) == right["d"])
    with caplog.at_level(logging.WARNING, "foreword.serving"):
        put(f"{url}/a/prompt.safetensors", b"damaged")
        until(lambda: any("stays as it was" in r.getMessage() for r in caplog.records))
    assert client.texts("a", **body) == right["d"]
    failed = number(client, "foreword_failed_refreshes_total")
    moved = any("was changed while it was read" in r.getMessage() for r in caplog.records)
    assert failed == 0 or moved, "what is damaged fails no look; what is replaced meanwhile may"
    fs, path = fsspec.core.url_to_fs(url)
    fs.mv(path, f"{path}-away", recursive=True)
    until(lambda: number(client, "foreword_failed_refreshes_total") > failed + 2)
    away = [r for r in caplog.records if "prompts stay as they were" in r.getMessage()]
    assert len(away) == 1
    assert url in away[0].getMessage()
    assert client.texts("a", **body) == right["d"]
    fs.mv(f"{path}-away", path, recursive=True)
    remove(f"{url}/a")
    until(lambda: client.complete("a", **body).status == 404)
    until(lambda: b'model="a"' not in client.ask("GET", "/metrics").content)
    assert number(client, "foreword_refreshes_total") > 5


def test_what_was_brought_is_deleted_at_the_end(
    backbone: Backbone, url: str, made: dict[str, Path]
) -> None:
    upload(made["soft"], f"{url}/a")
    with running(backbone, prompts=url, prompt={"b": f"{url}/a"}) as client:
        folder = client.served.versions.folder
        assert files_of(client.served.versions) == [
            f"{name}/{file}" for name in "ab" for file in FILES
        ]
        assert client.texts("a", prompt="so") == client.texts("b", prompt="so")
    assert not folder.exists()
