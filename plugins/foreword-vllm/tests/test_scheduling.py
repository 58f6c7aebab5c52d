"""The scheduler's side: tokens, salts and blocks of requests, and who is refused."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exported import ENGINE, Request, asking, write
from foreword_vllm.folder import PromptFolder
from foreword_vllm.scheduling import Scheduling
from foreword_vllm.weights import OtherWeights

IDS = [7, 8, 9]


@pytest.fixture
def prompts(tmp_path):
    for seed, (name, length) in enumerate({"birds": 20, "fish": 5, "tree": 16}.items()):
        write(tmp_path, name, length, seed=seed)
    return tmp_path


@pytest.fixture
def scheduling(prompts) -> Scheduling:
    return Scheduling(PromptFolder(prompts), ENGINE, 10**6)


def is_refused(scheduling: Scheduling, request: Request) -> bool:
    """Whether its first block is going to fail, and it alone."""
    count = scheduling.loadable(request, 0)
    assert 0 <= count < max(2, request.num_tokens)
    scheduling.allocated(request, [40, 41, 42], count)
    step = scheduling.step()
    return step.failed == [40] and step.loads == [] and count > 0


def test_tokens_stand_before_the_text(scheduling) -> None:
    request = asking("r", IDS, "fish")
    scheduling.arrived(request)
    assert request.prompt_token_ids == [7] * 5 + IDS == request._all_token_ids
    assert (request.num_prompt_tokens, request.num_tokens) == (8, 8)


def test_the_tokens_are_the_texts_own(scheduling) -> None:
    """So that no penalty counts one that the text does not have, whatever its ids are."""
    for ids in ([0], [2, 0, 0], [99, 1]):
        request = asking(str(ids), list(ids), "birds")
        scheduling.arrived(request)
        assert set(request.prompt_token_ids) == set(ids)


def test_keys_and_values_go_where_the_prompt_lies(scheduling) -> None:
    request = asking("r", IDS, "birds")
    scheduling.arrived(request)
    assert scheduling.loadable(request, 0) == 20
    scheduling.allocated(request, [3, 9], 20)
    (load,) = scheduling.step().loads
    assert load.slots == [*range(3 * 16, 4 * 16), *range(9 * 16, 9 * 16 + 4)]
    assert load.first == 0


def test_a_cached_block_is_not_written_again(scheduling) -> None:
    request = asking("r", IDS, "birds")
    scheduling.arrived(request)
    assert scheduling.loadable(request, 16) == 4
    scheduling.allocated(request, [3, 9], 4)
    (load,) = scheduling.step().loads
    assert (load.first, load.slots) == (16, [144, 145, 146, 147])
    assert scheduling.loadable(request, 32) == 0
    scheduling.allocated(request, [3, 9], 0)
    assert scheduling.step().loads == []


def test_tensors_are_sent_once(scheduling) -> None:
    sent = []
    for number in range(3):
        request = asking(str(number), IDS, "fish")
        scheduling.arrived(request)
        scheduling.allocated(request, [number], scheduling.loadable(request, 0))
        sent.append(len(scheduling.step().new))
        scheduling.finished(request)
    assert sent == [1, 0, 0]


def test_a_preempted_request_is_loaded_again(scheduling, prompts) -> None:
    """Although its prompt has been replaced meanwhile, and then removed."""
    request = asking("r", IDS, "fish")
    scheduling.arrived(request)
    scheduling.allocated(request, [1], 5)
    (first,) = scheduling.step().loads
    write(prompts, "fish", 6, seed=9)
    shutil.rmtree(prompts / "fish")
    scheduling.allocated(request, [2], scheduling.loadable(request, 0))
    (second,) = scheduling.step().loads
    assert (second.sha256, second.slots) == (first.sha256, [32, 33, 34, 35, 36])
    scheduling.finished(request)


def test_new_requests_have_the_new_prompt(scheduling, prompts) -> None:
    before, after = asking("a", IDS, "fish"), asking("b", IDS, "fish")
    scheduling.arrived(before)
    write(prompts, "fish", 6, seed=9)
    scheduling.arrived(after)
    assert (before.num_tokens, after.num_tokens) == (8, 9)
    assert before.cache_salt != after.cache_salt


def test_a_request_made_for_a_replaced_prompt_has_that_one(prompts) -> None:
    old = write(prompts, "fish", 5, seed=1)
    write(prompts, "fish", 6, seed=9)
    request = asking("r", IDS, "fish")
    request.kv_transfer_params["foreword_sha256"] = old
    Scheduling(PromptFolder(prompts), ENGINE, 10**6).arrived(request)
    assert request.num_tokens == 8


CLIENT_SALTS = st.none() | st.sampled_from(["", "mine", "client:mine", "foreword:refused:r"])


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    one=st.sampled_from(["birds", "fish", "tree", "nobody", None]),
    other=st.sampled_from(["birds", "fish", "tree", "nobody", None]),
    ids=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    salts=st.tuples(CLIENT_SALTS, CLIENT_SALTS),
    guess=st.booleans(),
)
def test_blocks_are_shared_by_requests_of_one_prompt_alone(
    scheduling, prompts, one, other, ids, salts, guess
) -> None:
    """Though the other request has the first one's tokens for its text, and its salt."""
    first = asking("first", list(ids), one, cache_salt=salts[0])
    scheduling.arrived(first)
    same = list(ids) if one == other else list(first._all_token_ids)
    salt = first.cache_salt if guess else salts[1]
    second = asking("second", same, other, cache_salt=salt)
    scheduling.arrived(second)
    shared = set(first.block_hashes) & set(second.block_hashes)
    may = one == other != "nobody" and (first.cache_salt == second.cache_salt)
    assert may or not shared
    for request in (first, second):
        scheduling.finished(request)


REFUSED: dict[str, tuple[Request, str]] = {
    "unknown": (asking("r", IDS, "nobody"), "there is no prompt 'nobody'"),
    "a path": (asking("r", IDS, "../birds"), "there is no prompt"),
    "no name": (asking("r", IDS, ["birds"]), "there is no prompt"),
    "an empty name": (asking("r", IDS, ""), "there is no prompt"),
    "no object": (Request("r", IDS, kv_transfer_params="birds"), "expected an object"),
    "a list": (Request("r", IDS, kv_transfer_params=["birds"]), "expected an object"),
    "input log-probabilities": (
        asking("r", IDS, "birds", skip_reading_prefix_cache=True),
        "prompt_logprobs",
    ),
    "embeddings": (asking("r", IDS, "birds", prompt_embeds=object()), "before embeddings"),
    "images": (asking("r", IDS, "birds", mm_features=[object()]), "not before images"),
    "an adapter": (asking("r", IDS, "birds", lora_request=object()), "not on an adapter"),
    "a session": (asking("r", IDS, "birds", resumable=True), "sessions"),
    "too long": (asking("r", [5] * 108, "birds"), "leave no room"),
    "one token": (asking("r", [5], "nobody"), "there is no prompt"),
    "another version": (
        Request("r", IDS, kv_transfer_params={"foreword": "fish", "foreword_sha256": "b" * 64}),
        "No such file",
    ),
    "no version": (
        Request("r", IDS, kv_transfer_params={"foreword": "fish", "foreword_sha256": "../x"}),
        "expected 64",
    ),
    "something unforeseen": (
        asking("r", IDS, "birds", mm_features=None, lora_request=0),
        "adapter",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_requests_fail_alone(case, scheduling, caplog) -> None:
    request, why = REFUSED[case]
    salt = request.cache_salt
    with caplog.at_level(logging.ERROR, "vllm.foreword"):
        scheduling.arrived(request)
    assert why in caplog.text
    assert is_refused(scheduling, request)
    assert request.cache_salt == "foreword:refused:r" != salt
    assert not request.skip_reading_prefix_cache
    beside = asking("beside", IDS, "birds")
    scheduling.arrived(beside)
    assert not is_refused(scheduling, beside)
    scheduling.finished(request)
    scheduling.finished(beside)
    assert scheduling._residents._users == {}


@pytest.mark.parametrize("params", [0, [], "", {}, {"foreword": None}])
def test_what_asks_for_nothing_is_served_bare(params, scheduling) -> None:
    request = Request("r", IDS, kv_transfer_params=params)
    if params in ({}, {"foreword": None}):
        scheduling.arrived(request)
        assert (request._all_token_ids, request.cache_salt) == (IDS, None)
        assert scheduling.loadable(request, 0) == 0
    else:
        scheduling.arrived(request)
        assert is_refused(scheduling, request)


def test_longest_text(scheduling) -> None:
    for length, refused in ((107, False), (108, True)):
        request = asking(str(length), [5] * length, "birds")
        scheduling.arrived(request)
        assert is_refused(scheduling, request) is refused


def test_starting_up_reads_every_prompt(prompts, caplog) -> None:
    write(prompts, "damaged", length=0)
    scheduling = Scheduling(PromptFolder(prompts), ENGINE, 10**6)
    with caplog.at_level(logging.ERROR, "vllm.foreword"):
        assert scheduling.check_all() == ["birds", "fish", "tree"]
    assert "damaged is left out" in caplog.text


def test_starting_up_on_other_weights_is_refused(prompts) -> None:
    other = replace(ENGINE, weights="b" * 64)
    with pytest.raises(OtherWeights, match="was trained on 'base'"):
        Scheduling(PromptFolder(prompts), other, 10**6).check_all()
    asked_to = replace(ENGINE, weights=None)
    assert Scheduling(PromptFolder(prompts), asked_to, 10**6).check_all()


def test_a_prompt_of_other_weights_that_is_added_is_refused(scheduling, prompts, caplog) -> None:
    write(prompts, "late", weights="b" * 64)
    request: Any = asking("r", IDS, "late")
    with caplog.at_level(logging.ERROR, "vllm.foreword"):
        scheduling.arrived(request)
    assert "was trained on 'base' whose weights" in caplog.text
    assert is_refused(scheduling, request)
