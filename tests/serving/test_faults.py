"""What goes wrong while a server runs: clients that leave or do not read, damage, too much work."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from asking import TEXTS, decoder_world
from running import BASE, Answer, Client, named, running

from foreword.backbone import Backbone, load_backbone
from foreword.serving import PromptStore
from stored_prompts import WRITERS, prefix, store, writes

World = tuple[Backbone, dict[str, Path]]
WRITER_NAMES = [name.replace(" ", "-") for name in WRITERS]
LONG = {"prompt": "so", "max_tokens": 220, "temperature": 0}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    backbone, folders = decoder_world(tmp_path_factory.mktemp("faults"))
    return backbone, named(folders)


@pytest.fixture(scope="module")
def client(world: World) -> Iterator[Client]:
    backbone, folders = world
    with running(backbone, prompt=folders) as found:
        yield found


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.002)


def sent(client: Client, body: dict[str, Any], buffer: int | None = None) -> socket.socket:
    """A request on a connection whose answer is not read yet."""
    line = socket.socket()
    if buffer is not None:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    line.settimeout(60)
    line.connect(("127.0.0.1", client.port))
    content = json.dumps({"model": BASE, **body}).encode()
    line.sendall(
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(content), content)
    )
    return line


def everything(line: socket.socket) -> bytes:
    parts = []
    while part := line.recv(2**16):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_rows(client: Client, stream: bool) -> None:
    engine = client.served.engine
    before = engine.counts.tokens
    line = sent(client, {**LONG, "stream": stream, "n": 4, "seed": 1, "temperature": 9})
    if stream:
        assert line.recv(12) == b"HTTP/1.1 200"
    until(lambda: engine.counts.tokens > before + 4)
    line.close()
    until(lambda: engine.active == 0)
    assert engine.counts.tokens - before < 4 * 220
    assert client.texts("soft", prompt="so")


def test_a_slow_reader_holds_up_nobody(world: World, client: Client) -> None:
    """Its answer is written at the usual speed and waits for it, and others are answered."""
    many = {**LONG, "n": 24, "seed": 3, "temperature": 9, "stream": True, "logprobs": 20}
    line = sent(client, many, buffer=4096)
    begun = time.monotonic()
    assert client.texts("soft", prompt="so")
    assert time.monotonic() - begun < 10
    until(lambda: client.served.engine.active == 0, 60)
    content = everything(line).decode()
    line.close()
    assert content.rstrip("\r\n0").endswith("data: [DONE]")
    assert (
        content.count('"finish_reason": "length"') + content.count('"finish_reason": "stop"') == 24
    )


def test_a_reader_that_never_reads_is_left(world: World) -> None:
    backbone, folders = world
    with running(backbone, prompt=folders, timeout=2.0) as client:
        many = {**LONG, "n": 24, "seed": 3, "temperature": 9, "stream": True, "logprobs": 20}
        line = sent(client, many, buffer=4096)
        until(lambda: client.served.engine.active > 0)
        until(lambda: client.served.engine.active == 0, 60)
        until(lambda: not client.server.server_state.tasks, 10)
        line.close()


def test_a_full_queue(world: World) -> None:
    backbone, folders = world
    with running(backbone, prompt=folders, rows=1, queue=1) as client:
        engine = client.served.engine
        first = sent(client, {**LONG, "stream": True})
        until(lambda: engine.active == 1 and engine.waiting == 0)
        second = sent(client, LONG)
        until(lambda: engine.waiting == 1)
        answer = client.complete("soft", prompt="so")
        assert answer.status == 429
        assert answer.error["code"] == "queue_full"
        assert int(answer.headers["retry-after"]) >= 1
        assert everything(first).count(b"data: ") > 2
        assert b"HTTP/1.1 200" in everything(second)
        assert client.complete("soft", prompt="so").status == 200
        several = client.complete("soft", prompt=["so"] * 3)
        assert several.status == 400
        assert "the request is for 3 answers" in several.error["message"]
        for line in (first, second):
            line.close()


def test_the_memory_of_prompts_is_full(world: World) -> None:
    """All are answered, those out of memory read again; what requests under way have is counted,
    and the next ones wait until there is room."""
    backbone, folders = world
    sizes = [PromptStore(backbone).add("x", folders[name]).bytes for name in WRITER_NAMES]
    with running(backbone, prompt=folders) as client:
        expected = {name: client.texts(name, prompt="so") for name in WRITER_NAMES}
    # memory for the largest alone
    with running(backbone, prompt=folders, memory=max(sizes)) as client:
        store = client.served.store
        most, asked = 0, WRITER_NAMES * 4
        with ThreadPoolExecutor(8) as pool:
            under_way = [pool.submit(client.texts, name, prompt="so") for name in asked]
            while not all(one.done() for one in under_way):
                most = max(most, store.in_memory[1])
        assert [one.result() for one in under_way] == [expected[name] for name in asked]
        assert 0 < most <= max(sizes)
        assert store.in_memory[0] < len(WRITER_NAMES)


def test_no_room_for_a_prompt_for_as_long_as_a_request_may_take(world: World) -> None:
    backbone, folders = world
    sizes = {name: PromptStore(backbone).add("x", folders[name]).bytes for name in folders}
    two = {name: folders[name] for name in ("deep", "soft")}
    most = max(sizes[name] for name in two)
    assert most < sum(sizes[name] for name in two)
    with running(backbone, prompt=two, timeout=0.2, memory=most) as client:
        held = client.served.store.get("deep")
        answer = client.complete("soft", prompt="so")
        assert answer.status == 429
        assert "no room for 'soft' beside the prompts of requests" in answer.error["message"]
        assert int(answer.headers["retry-after"]) >= 1
        assert client.complete("deep", prompt="so").status == 200
        del held
        until(lambda: client.complete("soft", prompt="so").status == 200)


def test_the_memory_of_answers_is_full(world: World) -> None:
    """They wait for each other, and no one that could never fit is taken on."""
    backbone, folders = world
    with running(backbone, prompt=folders, tokens=256, rows=8) as client:
        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(lambda _: client.texts(**LONG), range(6)))
        assert len({text for (text,) in found}) == 1
    with running(backbone, prompt=folders, tokens=100) as client:
        answer = client.complete(**LONG)
        assert answer.status == 400
        assert "there are 100; shorten one of them" in answer.error["message"]


def test_an_artifact_that_is_damaged_later(world: World, tmp_path: Path) -> None:
    """Its requests are refused, others are answered, and what lies on the disk is not told."""
    backbone, folders = world
    own = shutil.copytree(folders["deep"], tmp_path / "own")
    with running(backbone, prompt={**folders, "own": own}, memory=9_000) as client:
        assert client.complete("own", prompt="so").status == 200
        for name in WRITER_NAMES:
            client.texts(name, prompt="so")
        assert client.served.store.registered("own").loaded is None
        file = own / "prompt.safetensors"
        file.write_bytes(file.read_bytes()[:-1] + b"x")
        answer = client.complete("own", prompt="so")
        assert answer.status == 503
        assert answer.error["message"] == "model: 'own' cannot be read at the moment"
        assert client.complete("deep", prompt="so").status == 200


def test_a_crash_in_a_step(world: World, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """500 for those of the step, whole and streamed, and the next ones are answered."""
    backbone, _ = world
    forward, broken, alike = backbone.model.forward, [], 0
    engine = client.served.engine

    def crash(*args: Any, **given: Any) -> Any:
        nonlocal alike  # steps that write three tokens and read nothing beside them
        alike = alike + 1 if engine.active == given["input_ids"].numel() == 3 else 0
        if alike == 3 and not broken:
            broken.append(True)
            raise RuntimeError("secret of the device")
        return forward(*args, **given)

    monkeypatch.setattr(backbone.model, "forward", crash)
    with ThreadPoolExecutor(3) as pool:
        answers: list[Answer] = list(
            pool.map(lambda stream: client.complete(**LONG, stream=stream), [False, False, True])
        )
    assert broken
    assert [answer.status for answer in answers] == [500, 500, 200]
    assert answers[0].error["type"] == "server_error"
    last = answers[2].content.decode().rstrip().split("\n\n")[-1]
    assert json.loads(last.removeprefix("data: "))["error"]["type"] == "server_error"
    for answer in answers:
        assert b"secret" not in answer.content
    counted = client.ask("GET", "/metrics").content.decode()
    assert f'foreword_requests_total{{model="{BASE}",status="500"}} 3.0' in counted
    assert client.complete("soft", prompt="so").status == 200
    assert client.ask("GET", "/health").status == 200


def test_a_body_that_does_not_come(world: World) -> None:
    """It is refused after a while, and its key is free again."""
    backbone, folders = world
    with running(backbone, prompt=folders, timeout=0.3) as client:
        line = socket.create_connection(("127.0.0.1", client.port), 30)
        line.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b'Content-Type: application/json\r\nContent-Length: 500\r\n\r\n{"model": '
        )
        begun = time.monotonic()
        answer = everything(line).decode()
        assert 0.2 < time.monotonic() - begun < 20
        assert answer.startswith("HTTP/1.1 408")
        assert "the body of a request was not here after 0.3 seconds" in answer
        line.close()
        assert client.complete("soft", prompt="so", max_tokens=1).status == 200


def test_a_request_that_takes_too_long(world: World) -> None:
    backbone, folders = world
    with running(backbone, prompt=folders, timeout=0.05, rows=1) as client:
        answer = client.complete(**LONG, n=8)
        assert (answer.status, answer.error["code"]) == (503, "timeout")
        streamed = client.complete(**LONG, n=8, stream=True)
        assert b'"code": "timeout"' in streamed.content
        assert b"[DONE]" not in streamed.content
        until(lambda: client.served.engine.active == 0)


def test_stopping_finishes_what_was_taken_on(world: World) -> None:
    backbone, folders = world
    with running(backbone, prompt=folders, rows=2) as client:
        with ThreadPoolExecutor(5) as pool:
            asked = [pool.submit(client.complete, **LONG, stream=n % 2 == 0) for n in range(5)]
            until(lambda: client.served.engine.active == 2 and client.served.engine.waiting == 3)
            client.server.stop()
            answers = [one.result() for one in asked]
        assert [answer.status for answer in answers] == [200] * 5
        for number, answer in enumerate(answers):
            if number % 2 == 0:
                assert answer.events
        with pytest.raises(OSError, match="refused"):
            client.ask("GET", "/ready")


def test_stopping_ends_what_takes_too_long(world: World) -> None:
    """In OpenAI's form, whole and streamed; nobody is left waiting."""
    backbone, folders = world
    endless = {**LONG, "n": 64, "seed": 1, "temperature": 9}
    with running(backbone, prompt=folders, rows=1, queue=200, drain=0.3) as client:
        streamed, whole = sent(client, {**endless, "stream": True}), sent(client, endless)
        assert streamed.recv(12) == b"HTTP/1.1 200"
        until(lambda: client.served.engine.waiting > 64)
        client.server.stop()
        last = everything(streamed).decode().rstrip("\r\n0").split("\r\n")[-1]
        answer = everything(whole).decode()
        for line in (streamed, whole):
            line.close()
    error = json.loads(last.removeprefix("data: "))["error"]
    assert (error["code"], error["type"]) == ("server_stopping", "server_error")
    assert answer.startswith("HTTP/1.1 503")
    assert '"code": "server_stopping"' in answer


@pytest.mark.slow
def test_sigterm_under_load(world: World, tmp_path: Path) -> None:
    """The command: it says where it listens, answers `--try`, and at SIGTERM finishes what it has
    begun and ends with status 0."""
    backbone, _ = world
    place = tmp_path / "backbone"
    backbone.model.save_pretrained(place)
    backbone.tokens.tokenizer.save_pretrained(place)
    loaded = load_backbone(str(place), dtype="float64", device="cpu")
    deep = store(tmp_path / "deep", loaded, prefix(), writes())
    command = [
        *(sys.executable, "-m", "foreword", "serve", str(place), "--prompt"),
        *(f"deep={deep}", "--port", "0", "--dtype", "float64", "--try", TEXTS[0]),
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    try:
        assert process.stderr is not None
        assert process.stdout is not None
        line = process.stderr.readline()
        assert "serving 'backbone' with 1 prompt on http://127.0.0.1:" in line, line
        port = int(line.split("127.0.0.1:")[1].split()[0])
        tried = json.loads(process.stdout.readline())
        assert tried["output"]
        assert 0 < tried["seconds_to_first_token"] <= tried["seconds"]
        client = Client(None, port, None)  # type: ignore[arg-type]
        with ThreadPoolExecutor(4) as pool:
            asked = [
                pool.submit(client.complete, "deep", **LONG, stream=True, key=None)
                for _ in range(4)
            ]
            opened = sent_to(port, "deep")
            assert opened.recv(12) == b"HTTP/1.1 200"
            process.send_signal(signal.SIGTERM)
            answers = [one.result() for one in asked]
        assert all(answer.events for answer in answers)
        assert everything(opened).rstrip(b"\r\n0").endswith(b"data: [DONE]")
        opened.close()
        assert process.wait(30) == 0
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def sent_to(port: int, model: str) -> socket.socket:
    return sent(Client(None, port, None), {**LONG, "model": model, "stream": True})  # type: ignore[arg-type]
