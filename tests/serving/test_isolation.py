"""No prompt is reached but by its name and a key that may use it, whatever a client sends."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from asking import decoder_world
from running import BASE, Client, named, running

from foreword.backbone import Backbone

MINE = "key-of-tenant-a"
KEYS = [
    {"name": "a", "key": MINE, "models": ["soft", BASE]},
    {"name": "b", "key": "key-of-tenant-b", "models": ["*"]},
]
ODD = (
    *(
        "deep ",
        " deep",
        "Deep",
        "DEEP",
        "deep\x00",
        "deep\n",
        "soft\x00deep",
        "soft,deep",
        "*",
        "d*",
    ),
    *("soft/../deep", "../deep", "./deep", "deep/", "/deep", "soft/deep", "deep%00", "%64eep"),
    *(
        "ｄｅｅｐ",
        "d\u0435\u0435p",
        "deep\u200b",
        "dee\u0070\u0301",
        "deep;soft",
        "deep:soft",
        "a" * 512,
    ),
)
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 12}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Backbone, dict[str, Path]]:
    backbone, folders = decoder_world(tmp_path_factory.mktemp("isolation"))
    return backbone, named(folders)


@pytest.fixture(scope="module")
def client(world: Any) -> Iterator[Client]:
    backbone, folders = world
    with running(backbone, prompt=folders, keys=KEYS, rows=2) as found:
        yield found


@pytest.mark.parametrize("name", ODD)
def test_odd_names_reach_nothing(client: Client, name: str) -> None:
    """A key learns of no name that it may not use, in whatever way it is written."""
    answer = client.complete(name, prompt="so", key=MINE)
    assert answer.status in (400, 403), answer.content
    if answer.status == 403:
        assert answer.error["code"] == "model_not_allowed"
    shown = client.ask("GET", f"/v1/models/{quote(name, safe='')}", key=MINE)
    assert shown.status in (403, 404)
    free = client.complete(name, prompt="so", key="key-of-tenant-b")
    assert free.status in (400, 404), "no odd name is taken for the one that it looks like"


def test_virtual_tokens_are_nobodys_tokens(client: Client, world: Any) -> None:
    """Their ids come after the vocabulary's. Sent as real tokens while prompts that have them are
    answered, they are refused, and those answers are what they are alone."""
    vocabulary = world[0].geometry.vocabulary
    alone = client.complete("soft", prompt="so", key=MINE, **GREEDY).json["choices"][0]["text"]

    def ask(number: int) -> Any:
        if number % 2:
            ids = [5, vocabulary + number % 8, 6]
            name = (BASE, "soft")[number // 2 % 2]
            return client.complete(name, prompt=ids, key=MINE, **GREEDY).status
        return client.complete("soft", prompt="so", key=MINE, **GREEDY).json["choices"][0]["text"]

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, range(24)))
    assert answers == [400 if number % 2 else alone for number in range(24)]


def test_memory_of_a_row_tells_nothing_of_who_had_it(client: Client) -> None:
    """The backbone alone, asked between requests of prompts that others may use, in the very rows
    that those have left, answers as it does where nobody else ever asked."""
    quiet = [client.texts(BASE, prompt=text, key=MINE, **GREEDY) for text in ("so", "a film")]
    for name in ("deep", "soft", "slots"):
        for text, expected in zip(("so", "a film"), quiet, strict=True):
            client.complete(name, prompt=text, key="key-of-tenant-b", **GREEDY)
            ids = client.complete(BASE, prompt=text, key=MINE, **GREEDY, echo=True, logprobs=2)
            assert client.texts(BASE, prompt=text, key=MINE, **GREEDY) == expected
            assert ids.json["choices"][0]["text"].endswith(expected[0])


def test_no_field_but_the_name_chooses_a_prompt(client: Client) -> None:
    """Neither what vLLM takes for that, nor a body that names two."""
    for field in ("kv_transfer_params", "cache_salt", "lora", "adapter_names", "prompt_name"):
        answer = client.complete(BASE, prompt="so", key=MINE, **{field: {"foreword": "deep"}})
        assert answer.status == 400
    raw = b'{"model": "soft", "prompt": "so", "model": "deep"}'
    answer = client.ask("POST", "/v1/completions", key=MINE, raw=raw)
    assert answer.status in (400, 403)
