"""/v1/completions, /v1/chat/completions, /v1/classify and /v1/models, as OpenAI has them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from asking import TEXTS, decoder_world, encoder_decoder_world
from running import BASE, Client, named, running

from foreword.backbone import Backbone, Decoding
from foreword.methods.multitask_prompt_tuning import MultitaskPromptTuning
from foreword.recipe import TaskId
from foreword.serving import PromptStore
from foreword.session import LoadedPrompt
from foreword.tasks import write_rows
from stored_prompts import TELLERS, WRITERS, prefix, store, writes

CHAT = (
    "{% for m in messages %}<{{ m.role }}> {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Backbone, dict[str, Path]]:
    folder = tmp_path_factory.mktemp("served")
    backbone, folders = decoder_world(folder)
    two = store(folder / "two", backbone, prefix(5), writes("{title}: {text} ="), seed=9)
    tasks = MultitaskPromptTuning(
        name="multitask-prompt-tuning", length=4, task_column="task", tasks=("loud", "back")
    )
    several = store(folder / "several", backbone, tasks, writes(), seed=3)
    turns = TaskId(input="", target="", answer="turns", messages="messages", chat_template="plain")
    talks = store(folder / "talks", backbone, prefix(), turns, seed=3)
    return backbone, {**named(folders), "two": two, "several": several, "talks": talks}


@pytest.fixture(scope="module")
def client(world: Any) -> Iterator[Client]:
    backbone, folders = world
    with running(backbone, prompt=folders) as found:
        yield found


@pytest.fixture(scope="module")
def prompts(world: Any) -> dict[str, LoadedPrompt]:
    backbone, folders = world
    prompts = PromptStore(backbone)
    for name, folder in folders.items():
        prompts.add(name, folder)
    return {name: prompts.get(name) for name in folders}


def raw(backbone: Backbone, prompt: LoadedPrompt, text: str) -> str:
    """What a prompt writes for a text, as tokens have it."""
    from asking import writing

    how = prompt.decoding()
    (tokens,) = write_rows([writing(prompt.task, text, how)], batch_size=1)
    return backbone.tokens.text(tokens)


WRITER_NAMES = [name.replace(" ", "-") for name in WRITERS]
TELLER_NAMES = [name.replace(" ", "-") for name in TELLERS]


@pytest.mark.parametrize("name", WRITER_NAMES)
def test_a_text_fills_the_only_field(world: Any, client: Client, prompts: Any, name: str) -> None:
    backbone, _ = world
    answer = client.complete(name, prompt="a film")
    assert answer.status == 200
    body = answer.json
    (choice,) = body["choices"]
    assert choice["text"] == raw(backbone, prompts[name], "a film")
    assert choice["text"].strip() == prompts[name].generate(["a film"])[0]
    assert (body["object"], body["model"]) == ("text_completion", name)
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "length", None)
    (row,) = prompts[name].task.rows(prompts[name].example("a film"), labelled=False)
    vocabulary = backbone.geometry.vocabulary
    source = len([token for token in row.pair.source if token < vocabulary])
    assert (source < len(row.pair.source)) == (name == "slots")
    assert body["usage"] == {
        "prompt_tokens": source,
        "completion_tokens": 6,
        "total_tokens": source + 6,
    }


def test_requests_at_once_are_answered_as_alone(world: Any, client: Client, prompts: Any) -> None:
    backbone, _ = world
    asked = [(name, text) for name in WRITER_NAMES for text in TEXTS]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda one: client.texts(one[0], prompt=one[1]), asked))
    for (name, text), (answer,) in zip(asked, found, strict=True):
        assert answer == raw(backbone, prompts[name], text)
    assert len({answer for (answer,) in found}) > len(TEXTS)


def test_the_backbone_itself(world: Any, client: Client) -> None:
    """Drawn, and of 16 tokens, where nothing is said: OpenAI's defaults."""
    backbone, _ = world
    answer = client.complete(prompt="a film", temperature=0, max_tokens=5).json
    (greedy,) = [choice["text"] for choice in answer["choices"]]
    from asking import bare, writing

    work = writing(bare(backbone), "a film", Decoding(max_new_tokens=5))
    (expected,) = write_rows([work], batch_size=1)
    assert greedy == backbone.tokens.text(expected)
    drawn = client.complete(prompt="a film").json
    assert drawn["usage"]["completion_tokens"] == 16
    assert drawn["choices"][0]["text"] != client.texts(prompt="a film")[0]


def test_several_inputs_of_every_form(world: Any, client: Client) -> None:
    backbone, _ = world
    ids = [backbone.tokens.source(text) for text in TEXTS[:2]]
    settings = {"temperature": 0, "max_tokens": 5}
    texts = client.texts("soft", prompt=list(TEXTS[:2]), **settings)
    assert len(texts) == 2
    whole = [backbone.tokens.source(f"{text}\n") for text in TEXTS[:2]]
    assert client.texts("soft", prompt=whole, **settings) == texts
    assert client.texts("soft", prompt=whole[0], **settings) == texts[:1]
    assert client.texts(prompt=ids, **settings) == client.texts(prompt=list(TEXTS[:2]), **settings)


def test_fields(client: Client, prompts: Any) -> None:
    fields = [{"title": "On", "text": text} for text in TEXTS[:2]]
    texts = client.texts("two", fields=fields)
    assert [text.strip() for text in texts] == prompts["two"].generate(fields)
    assert client.texts("two", fields=fields[0]) == texts[:1]
    refused = client.complete("two", prompt="a film")
    assert refused.status == 400
    assert "has the fields title, text; give them by name" in refused.error["message"]


def test_a_row_takes_the_prompt_of_the_task_that_it_names(
    world: Any, client: Client, prompts: Any
) -> None:
    fields = [{"task": task, "text": text} for text in TEXTS[:2] for task in ("loud", "back")]
    texts = client.texts("several", fields=fields)
    assert [text.strip() for text in texts] == prompts["several"].generate(fields)
    assert texts[0] != texts[1]
    for prompt in ("so", world[0].tokens.source("so")):
        assert client.complete("several", prompt=prompt).status == 400
    assert (
        "a prompt for each value of 'task'"
        in client.complete("several", prompt=[5, 6]).error["message"]
    )


def test_seeds_and_several_answers(client: Client) -> None:
    settings = {"prompt": "a film", "temperature": 3.0, "max_tokens": 8}
    four = client.texts("soft", n=4, seed=7, **settings)
    assert len(set(four)) == 4
    assert client.texts("soft", n=4, seed=7, **settings) == four
    assert client.texts("soft", seed=8, **settings) == four[1:2]
    assert client.texts("soft", seed=7, **settings) != client.texts("soft", **settings)
    usage = client.complete("soft", n=4, seed=7, **settings).json["usage"]
    once = client.complete("soft", seed=7, **settings).json["usage"]
    assert usage["prompt_tokens"] == once["prompt_tokens"]
    assert usage["completion_tokens"] == 32


def test_stop_words(client: Client) -> None:
    (whole,) = client.texts("soft", prompt="a film", max_tokens=20)
    stop = whole[8:11]
    for given in (stop, [stop, "never"]):
        answer = client.complete("soft", prompt="a film", max_tokens=20, stop=given).json
        (choice,) = answer["choices"]
        assert choice["text"] == whole[: whole.find(stop)]
        assert choice["finish_reason"] == "stop"
        assert answer["usage"]["completion_tokens"] < 20


@pytest.mark.parametrize("settings", [{}, {"stop": "x"}, {"n": 3, "seed": 1, "temperature": 2}])
def test_a_stream_is_the_whole(client: Client, settings: dict[str, Any]) -> None:
    given = {"prompt": list(TEXTS[:2]), "max_tokens": 12, "logprobs": 1, **settings}
    whole = client.complete("deep", **given).json
    answer = client.complete("deep", stream=True, stream_options={"include_usage": True}, **given)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *pieces, last = answer.events
    assert last["choices"] == []
    assert last["usage"] == whole["usage"]
    assert all(piece["usage"] is None for piece in pieces)
    assert len({piece["id"] for piece in [*pieces, last]}) == 1
    for choice in whole["choices"]:
        own = [
            part
            for piece in pieces
            for part in piece["choices"]
            if part["index"] == choice["index"]
        ]
        assert "".join(part["text"] for part in own) == choice["text"]
        reasons = [part["finish_reason"] for part in own]
        assert reasons == [None] * (len(own) - 1) + [choice["finish_reason"]]
        for name in ("tokens", "token_logprobs", "text_offset", "top_logprobs"):
            parts = [part["logprobs"][name] for part in own if part["logprobs"]]
            assert [one for part in parts for one in part] == choice["logprobs"][name]


def test_a_stream_without_its_usage(client: Client) -> None:
    events = client.complete("deep", prompt="so", stream=True).events
    assert all("usage" not in event for event in events)


def test_echo_tells_the_input_and_its_log_probabilities(world: Any, client: Client) -> None:
    backbone, _ = world
    ids = backbone.tokens.source("The hill was green.")
    answer = client.complete(prompt=ids, echo=True, logprobs=2, max_tokens=3, temperature=0).json[
        "choices"
    ][0]
    logs = answer["logprobs"]
    assert answer["text"].startswith("The hill was green.")
    assert "".join(logs["tokens"]) == answer["text"]
    assert logs["text_offset"] == [
        len("".join(logs["tokens"][:n])) for n in range(len(logs["tokens"]))
    ]
    assert logs["token_logprobs"][0] is None
    new = backbone.tokens.plain(answer["text"])
    assert len(new) == len(logs["tokens"]) == len(ids) + 3
    with torch.no_grad():
        expected = backbone.model(torch.tensor([new])).logits[0].log_softmax(-1)
    for at, (log, best) in enumerate(
        zip(logs["token_logprobs"][1:], logs["top_logprobs"][1:], strict=True)
    ):
        assert log == pytest.approx(expected[at, new[at + 1]].item(), abs=1e-9)
        assert max(best.values()) == pytest.approx(expected[at].max().item(), abs=1e-9)
    only = client.complete(prompt=ids, echo=True, logprobs=2, max_tokens=0).json["choices"][0]
    assert only["text"] == "The hill was green."
    assert only["logprobs"]["token_logprobs"] == logs["token_logprobs"][: len(ids)]
    assert only["finish_reason"] == "length"
    plain = client.complete("deep", prompt="so", echo=True, max_tokens=2).json["choices"][0]
    assert plain["text"].startswith("Q: so A:")
    streamed = client.complete(
        prompt=ids, echo=True, logprobs=2, max_tokens=3, temperature=0, stream=True
    ).events
    assert "".join(event["choices"][0]["text"] for event in streamed) == answer["text"]
    parts = [event["choices"][0]["logprobs"] for event in streamed]
    told = [one for part in parts if part for one in part["token_logprobs"]]
    assert told == logs["token_logprobs"]


@pytest.mark.parametrize("stream", [False, True])
def test_an_end_token_has_its_log_probability(
    world: Any, client: Client, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    """As in vLLM. A client that asks for one token after an `echo` and drops the last entry, as
    lm-evaluation-harness does, would drop one of the input's own otherwise."""
    backbone, _ = world
    ids = backbone.tokens.source("The hill was green.")
    given = {"prompt": ids, "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}
    logs = client.complete(**given).json["choices"][0]["logprobs"]
    with torch.no_grad():
        likeliest = int(backbone.model(torch.tensor([ids])).logits[0, -1].argmax())
    monkeypatch.setattr(type(backbone.tokens), "eos_id", property(lambda _: likeliest))
    answer = client.complete(**given, stream=stream)
    if stream:
        parts = [event["choices"][0]["logprobs"] for event in answer.events]
        values = [one for part in parts if part for one in part["token_logprobs"]]
    else:
        (choice,) = answer.json["choices"]
        assert (choice["text"], choice["finish_reason"]) == ("The hill was green.", "stop")
        assert answer.json["usage"]["completion_tokens"] == 0
        values = choice["logprobs"]["token_logprobs"]
    assert values == logs["token_logprobs"]
    empty = client.complete(**{**given, "max_tokens": 0}).json["choices"][0]["logprobs"]
    assert empty["token_logprobs"] == logs["token_logprobs"][:-1]


def test_log_probabilities_do_not_depend_on_how_tokens_are_chosen(client: Client) -> None:
    given = {"prompt": "so", "max_tokens": 1, "logprobs": 3}
    greedy = client.complete("deep", **given).json["choices"][0]["logprobs"]
    drawn = client.complete("deep", temperature=5.0, **given).json["choices"][0]["logprobs"]
    first = dict(list(greedy["top_logprobs"][0].items())[:3])
    assert first.items() <= drawn["top_logprobs"][0].items()


def test_chat_needs_a_template(client: Client) -> None:
    answer = client.ask(
        "POST",
        "/v1/chat/completions",
        {"model": BASE, "messages": [{"role": "user", "content": "hi"}]},
    )
    assert answer.status == 400
    assert "the tokenizer of 'base' has no chat template" in answer.error["message"]
    assert answer.error["param"] == "messages"


def test_chat(world: Any, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, _ = world
    monkeypatch.setattr(backbone.tokens.tokenizer, "chat_template", CHAT)
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
    ]
    given = {"model": "deep", "messages": messages, "max_tokens": 7, "temperature": 0}
    whole = client.ask("POST", "/v1/chat/completions", given).json
    (choice,) = whole["choices"]
    assert whole["object"] == "chat.completion"
    assert choice["message"]["role"] == "assistant"
    text = "<system> be brief\n<user> hi\n<assistant>"
    ids = backbone.tokens.plain(text)
    (expected,) = client.texts("deep", prompt=ids, max_tokens=7, temperature=0)
    assert choice["message"]["content"] == expected
    given |= {"stream": True, "logprobs": True, "top_logprobs": 2}
    first, *rest = client.ask("POST", "/v1/chat/completions", given).events
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert first["object"] == "chat.completion.chunk"
    parts = [event["choices"][0] for event in rest]
    assert "".join(part["delta"].get("content", "") for part in parts) == expected
    assert parts[-1]["finish_reason"] == "length"
    logs = [one for part in parts if part["logprobs"] for one in part["logprobs"]["content"]]
    assert len(logs) == 7
    assert all(len(one["top_logprobs"]) == 2 for one in logs)
    assert "".join(one["token"] for one in logs) == expected


def test_a_prompt_for_conversations_brings_its_chat_template(client: Client, prompts: Any) -> None:
    messages = [{"role": "user", "content": "hi"}]
    given = {"model": "talks", "messages": messages, "max_tokens": 7, "temperature": 0}
    whole = client.ask("POST", "/v1/chat/completions", given).json
    (alone,) = prompts["talks"].generate(["hi"], max_new_tokens=7)
    assert whole["choices"][0]["message"]["content"].strip() == alone


def test_chat_without_a_number_fills_what_there_is(
    world: Any, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, _ = world
    monkeypatch.setattr(backbone.tokens.tokenizer, "chat_template", CHAT)
    given = {"model": BASE, "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
    whole = client.ask("POST", "/v1/chat/completions", given).json
    assert whole["usage"]["total_tokens"] <= 256
    assert whole["choices"][0]["finish_reason"] in ("stop", "length")


@pytest.mark.parametrize("name", TELLER_NAMES)
def test_classify(client: Client, prompts: Any, name: str) -> None:
    answer = client.ask("POST", "/v1/classify", {"model": name, "input": list(TEXTS[:3])})
    assert answer.status == 200
    for number, (one, expected) in enumerate(
        zip(answer.json["data"], prompts[name].predict(TEXTS[:3]), strict=True)
    ):
        assert (one["index"], one["label"]) == (number, expected.answer)
        assert one["probabilities"] == pytest.approx(expected.probabilities, abs=1e-6)
        assert one["num_classes"] == 2
    single = client.ask("POST", "/v1/classify", {"model": name, "fields": {"text": TEXTS[0]}})
    (alone,) = single.json["data"]
    assert alone["label"] == answer.json["data"][0]["label"]
    assert alone["probs"] == pytest.approx(answer.json["data"][0]["probs"], abs=1e-6)


def test_models(client: Client, prompts: Any) -> None:
    listed = client.ask("GET", "/v1/models").json
    assert listed["object"] == "list"
    found = {one["id"]: one for one in listed["data"]}
    assert set(found) == {BASE, *prompts}
    assert found[BASE]["parent"] is None
    assert found[BASE]["max_model_len"] == 256
    assert found["two"]["parent"] == BASE
    assert found["two"]["fields"] == ["title", "text"]
    assert found["two"]["max_model_len"] == 251
    assert found["head"]["answers"] == "classify"
    assert found["head"]["labels"] == ["yes", "no"]
    assert client.ask("GET", "/v1/models/two").json == found["two"]
    missing = client.ask("GET", "/v1/models/three")
    assert missing.status == 404
    assert missing.error["code"] == "model_not_found"


def test_an_encoder_decoder(tmp_path: Path) -> None:
    backbone, folders = encoder_decoder_world(tmp_path, "t5")
    with running(backbone, prompt=folders) as client:
        asked = [(name, text) for name in folders for text in TEXTS[:3]]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda one: client.texts(one[0], prompt=one[1]), asked))
        prompts = PromptStore(backbone)
        for (name, text), (answer,) in zip(asked, found, strict=True):
            prompts.add(name, folders[name])
            assert answer == raw(backbone, prompts.get(name), text)
        echo = client.complete("deep", prompt="so", echo=True, logprobs=1)
        assert echo.status == 400
        assert "its input is read by an encoder" in echo.error["message"]
        assert client.texts("deep", prompt="so", echo=True)[0].startswith("so")
