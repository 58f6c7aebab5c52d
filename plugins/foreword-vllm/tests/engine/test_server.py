"""vLLM's server with the plug-in, asked by the `openai` package: a prompt's name is a model's."""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
import requests
from forked import ENVIRONMENT, cases

KEY = "a-key"
STARTS_WITHIN = 600


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Attributes:
        address: of its API.
        prompts: its folder of prompts.
        case: the answers that are expected of it.
        inputs: what is asked.
    """

    address: str
    prompts: Path
    case: dict[str, Any]
    inputs: list[str]

    def client(self, key: str = KEY) -> openai.OpenAI:
        """A client as any program has it."""
        return openai.OpenAI(base_url=self.address, api_key=key, max_retries=0)

    def rows(self) -> list[tuple[str, int, str]]:
        """Prompt, number of the input, expected answer; neighbours of different prompts."""
        return [
            (name, number, row["answers"][number])
            for number in range(len(self.inputs))
            for name, row in self.case["rows"].items()
            if name != "bare"
        ]


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    """Started once; its folder of prompts is a copy."""
    known = cases()
    case = known["llama"]
    folder = tmp_path_factory.mktemp("server")
    shutil.copytree(case["prompts"], folder / "prompts")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "foreword_vllm", case["model"]]
    command += ["--prompts", str(folder / "prompts"), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--served-model-name", "base", "--api-key", KEY, "--dtype", "float32"]
    command += ["--enforce-eager", "--max-model-len", "512", "--max-num-seqs", "32"]
    command += ["--block-size", "32", "--enable-prompt-tokens-details"]
    environment = {**os.environ, **ENVIRONMENT, "VLLM_LOGGING_LEVEL": "INFO"}
    del environment["VLLM_ENABLE_V1_MULTIPROCESSING"]
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process, log)
        address = f"http://127.0.0.1:{port}/v1"
        yield Server(address, folder / "prompts", case, known["inputs"])
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5)
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"the server did not start:\n{log.read_text()[-4000:]}")


def test_prompts_are_models(server) -> None:
    models = {model.id: model for model in server.client().models.list()}
    names = [name for name in server.case["rows"] if name != "bare"]
    assert set(models) == {"base", *names}
    assert models["p33"].max_model_len == 512 - 33
    assert models["p33"].parent == "base"
    assert server.client().models.retrieve("p33").id == "p33"


async def _text(client: openai.AsyncOpenAI, name: str, text: str, *, stream: bool) -> str:
    if not stream:
        answer = await client.completions.create(model=name, prompt=text)
        assert answer.model == name
        return answer.choices[0].text
    parts = []
    async for event in await client.completions.create(model=name, prompt=text, stream=True):
        assert event.model == name
        parts.append(event.choices[0].text)
    return "".join(parts)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_all_at_once(server, stream) -> None:
    """With no settings of its own a request is answered as `foreword generate` answers it."""

    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=server.address, api_key=KEY) as client:
            asked = [
                _text(client, name, server.inputs[number], stream=stream)
                for name, number, _ in server.rows()
            ]
            bare = [
                client.completions.create(model="base", prompt=text, temperature=0, max_tokens=24)
                for text in server.inputs
            ]
            answers = await asyncio.gather(*asked, *bare)
            return [one if isinstance(one, str) else one.choices[0].text for one in answers]

    expected = [answer for *_, answer in server.rows()] + server.case["rows"]["bare"]["answers"]
    assert [text.strip() for text in asyncio.run(ask())] == expected


def test_a_program_that_asks_foreword_too(server) -> None:
    """What `tests/serving/test_clients.py` runs, from the core's tests, as it is."""
    place = Path(__file__).parents[4] / "tests" / "client_program.py"
    program = runpy.run_path(str(place))
    answers = server.case["rows"]["chat"]["answers"]
    found = program["run"](server.address, KEY, "chat", "chat", server.inputs)
    assert [text.strip() for text in found["texts"]] == answers
    assert found["listed"] == found["texts"]
    assert found["streamed"] == found["texts"][0]
    assert found["texts"][0].startswith(found["short"])
    assert found["stranger"] == "refused"


def test_lm_eval_writes(server, tmp_path, caplog, monkeypatch) -> None:
    """lm-evaluation-harness, unmodified, by its `local-completions`; what scores choices asks with
    `echo`, and its first request ends with 400."""
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not here")
    from lm_eval import simple_evaluate
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in server.inputs), "utf-8")
    data: dict[str, Any] = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file)}},
        "test_split": "test",
        "doc_to_text": "{{text}}",
        "target_delimiter": "",
        "num_fewshot": 0,
    }
    written = {
        **data,
        "task": "written",
        "output_type": "generate_until",
        "doc_to_target": "{{text}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 24, "temperature": 0},
        "metric_list": [{"metric": "exact_match"}],
    }
    chosen = {
        **data,
        "task": "chosen",
        "output_type": "multiple_choice",
        "doc_to_choice": ["a", "b"],
        "doc_to_target": 0,
    }
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    model = LocalCompletionsAPI(
        base_url=f"{server.address}/completions",
        model="p33",
        tokenizer=server.case["model"],
        tokenizer_backend="huggingface",
        batch_size=2,
        max_length=400,
        max_retries=1,
    )
    found: Any = simple_evaluate(
        model=model, tasks=[written], log_samples=True, bootstrap_iters=0, random_seed=None
    )
    samples = found["samples"]["written"]
    assert len(samples) == len(server.inputs)
    for sample in samples:
        ids = model.tok_encode(sample["doc"]["text"])
        own = server.client().completions.create(
            model="p33", prompt=ids, max_tokens=24, temperature=0, stop=["\n"]
        )
        assert sample["resps"][0][0] == own.choices[0].text
    with pytest.raises(requests.HTTPError, match="400 Client Error"):
        simple_evaluate(model=model, tasks=[chosen], bootstrap_iters=0)
    assert "echo: is not served with the prompt 'p33'" in caplog.text


def test_lists_tokens_and_fields(server) -> None:
    client, row = server.client(), server.case["rows"]["p33"]
    asked: list[dict[str, Any]] = [
        {"prompt": server.inputs},
        {"prompt": row["sources"]},
        {"prompt": None, "extra_body": {"fields": [{"record": one} for one in server.inputs]}},
    ]
    for how in asked:
        answer = client.completions.create(model="p33", **how)
        texts = [choice.text.strip() for choice in answer.choices]
        assert texts == row["answers"]
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == sum(map(len, row["sources"]))


def test_usage_counts_the_text_alone(server) -> None:
    client, sources = server.client(), server.case["rows"]["keeps"]["sources"]
    for _ in range(2):  # the second time from the cache
        usage = client.completions.create(model="keeps", prompt=server.inputs[3]).usage
        assert usage is not None
        assert usage.prompt_tokens == len(sources[3])
        details = usage.prompt_tokens_details
        assert details is None or 0 <= (details.cached_tokens or 0) <= len(sources[3])
    *_, last = client.completions.create(
        model="keeps",
        prompt=server.inputs[3],
        stream=True,
        stream_options={"include_usage": True},
    )
    assert last.usage is not None
    assert last.usage.prompt_tokens == len(sources[3])


def test_chats(server) -> None:
    client, answers = server.client(), server.case["rows"]["chat"]["answers"]
    for text, expected in zip(server.inputs, answers, strict=True):
        messages: Any = [
            {"role": "system", "content": "Say what it is."},
            {"role": "user", "content": text},
        ]
        answer = client.chat.completions.create(model="chat", messages=messages)
        assert (answer.model, answer.choices[0].message.content.strip()) == ("chat", expected)
        streamed = client.chat.completions.create(model="chat", messages=messages, stream=True)
        parts = [event.choices[0].delta.content or "" for event in streamed]
        assert "".join(parts).strip() == expected
        by_field = client.completions.create(model="chat", prompt=text)
        assert by_field.choices[0].text.strip() == expected
    bare = client.chat.completions.create(model="base", messages=messages, max_tokens=3)
    assert bare.model == "base"


def test_settings_of_a_request_go_before_the_prompts(server) -> None:
    client = server.client()
    short = client.completions.create(model="soft", prompt="The", max_tokens=2)
    assert short.usage is not None
    assert short.usage.completion_tokens == 2
    how: dict[str, Any] = {"model": "soft", "prompt": "The", "temperature": 1.0, "n": 3}
    one, again = (
        [choice.text for choice in client.completions.create(seed=seed, **how).choices]
        for seed in (5, 5)
    )
    assert one == again
    assert len(set(one)) > 1


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("echo", {"echo": True}),
    ("prompt_logprobs", {"extra_body": {"prompt_logprobs": 1}}),
    ("use_beam_search", {"extra_body": {"use_beam_search": True}}),
    ("kv_transfer_params", {"extra_body": {"kv_transfer_params": {"foreword": "soft"}}}),
    ("vllm_xargs", {"extra_body": {"vllm_xargs": {"kv_transfer_params": "soft"}}}),
    ("max_tokens", {"max_tokens": 500}),
    ("fields", {"extra_body": {"fields": {"record": "x"}}}),
]


@pytest.mark.parametrize(("field", "how"), REFUSED, ids=[field for field, _ in REFUSED])
def test_what_is_not_served_is_refused_with_400(field, how, server) -> None:
    with pytest.raises(openai.BadRequestError):
        server.client().completions.create(model="p33", prompt="The", **how)


def test_nobody_else_chooses_a_prompt(server) -> None:
    client = server.client()
    for name in ("base", "soft"):
        with pytest.raises(openai.BadRequestError):
            client.completions.create(
                model=name, prompt="The", extra_body={"kv_transfer_params": {"foreword": "p33"}}
            )
    for name in ("nobody", "../p33", "p33/", "P33"):
        with pytest.raises(openai.NotFoundError):
            client.completions.create(model=name, prompt="The")
    for model in ("p33", "nobody"):
        with pytest.raises(openai.AuthenticationError):
            server.client("another-key").completions.create(model=model, prompt="x", echo=True)


def test_the_cache_of_a_prompt_is_nobody_elses(server) -> None:
    """The tokens that stand for virtual ones, sent as text's, with the salt of the prompt's."""
    client, row = server.client(), server.case["rows"]["p33"]
    client.completions.create(model="p33", prompt=server.inputs)
    for salt in (None, f"foreword:{row['sha256']}:", f"foreword:{row['sha256']}"):
        extra = {"cache_salt": salt} if salt else {}
        for tokens, expected in row["impostors"]:
            answer = client.completions.create(
                model="base", prompt=tokens, temperature=0, max_tokens=24, extra_body=extra
            )
            assert answer.choices[0].text.strip() == expected


def test_prompts_come_and_go_while_others_are_answered(server) -> None:
    """No request for another prompt fails, and each has its own prompt's answer."""
    rows = server.case["rows"]
    place = server.prompts / "late"

    def put(name: str) -> None:
        """As `foreword export vllm --overwrite` does: the tensors, then the statement."""
        place.mkdir(exist_ok=True)
        for file in (server.prompts / name).glob("*.safetensors"):
            shutil.copy(file, place / file.name)
        shutil.copy(server.prompts / name / "prompt.json", place / ".new")
        (place / ".new").replace(place / "prompt.json")

    async def ask(client: openai.AsyncOpenAI, name: str, number: int = 0) -> str:
        return (await _text(client, name, server.inputs[number], stream=False)).strip()

    async def others(client: openai.AsyncOpenAI, until: asyncio.Event) -> int:
        asked = 0
        while not until.is_set():
            texts = await asyncio.gather(*(ask(client, "p33", number) for number in range(3)))
            assert texts == rows["p33"]["answers"][:3]
            asked += 3
        return asked

    async def change() -> int:
        async with openai.AsyncOpenAI(base_url=server.address, api_key=KEY) as client:
            done = asyncio.Event()
            beside = asyncio.create_task(others(client, done))
            for _ in range(2):
                with pytest.raises(openai.NotFoundError):
                    await ask(client, "late")
                for name in ("soft", "keeps", "soft"):
                    put(name)
                    for number in range(2):
                        assert await ask(client, "late", number) == rows[name]["answers"][number]
                shutil.rmtree(place)
            done.set()
            return await beside

    assert asyncio.run(change()) > 0


def test_a_damaged_prompt_fails_alone(server) -> None:
    place = server.prompts / "broken"
    shutil.copytree(server.prompts / "soft", place)
    (file,) = place.glob("*.safetensors")
    file.rename(place / f"{'0' * 16}.safetensors")
    statement = (place / "prompt.json").read_text()
    sha256 = server.case["rows"]["soft"]["sha256"]
    (place / "prompt.json").write_text(statement.replace(sha256, "0" * 64))

    async def ask() -> list[Any]:
        async with openai.AsyncOpenAI(
            base_url=server.address, api_key=KEY, max_retries=0
        ) as client:
            asked = [
                _text(client, name, server.inputs[number], stream=False)
                for number in range(3)
                for name in ("soft", "broken", "p33")
            ]
            return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(ask())
    shutil.rmtree(place)
    rows = server.case["rows"]
    assert all(isinstance(one, openai.InternalServerError) for one in answers[1::3])
    assert [one.strip() for one in answers[0::3]] == rows["soft"]["answers"][:3]
    assert [one.strip() for one in answers[2::3]] == rows["p33"]["answers"][:3]
