"""No two kinds of requests ever have the same salt, whatever clients send."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from foreword_vllm import salts

HASHES = st.text("0123456789abcdef", min_size=64, max_size=64)
CLIENTS = (
    st.none()
    | st.text(max_size=8)
    | st.builds(lambda h, s: f"foreword:{h}:{s}", HASHES, st.text(max_size=3))
    | st.builds(lambda s: f"foreword:refused:{s}", st.text(max_size=3))
    | st.builds(lambda s: f"client:{s}", st.text(max_size=8) | st.just("foreword:x"))
)
"""What a client may send, guesses of ours included."""


@given(HASHES, CLIENTS, CLIENTS, st.text(max_size=8))
def test_kinds_are_apart(sha256, one, other, request_id) -> None:
    kinds = [
        salts.of_prompt(sha256, one),
        salts.of_refused(request_id),
        salts.of_bare(other),
    ]
    assert len(set(kinds)) == 3


@given(HASHES, HASHES, CLIENTS, CLIENTS)
def test_prompts_are_apart(first, second, one, other) -> None:
    if first != second:
        assert salts.of_prompt(first, one) != salts.of_prompt(second, other)


@given(HASHES, CLIENTS, CLIENTS)
def test_clients_of_a_prompt_are_as_apart_as_their_salts(sha256, one, other) -> None:
    same = (one or "") == (other or "")
    assert (salts.of_prompt(sha256, one) == salts.of_prompt(sha256, other)) is same


@given(CLIENTS, CLIENTS)
def test_bare_requests_are_as_apart_as_their_salts(one, other) -> None:
    assert (salts.of_bare(one) == salts.of_bare(other)) is (one == other)


def test_usual_salts_stay_as_they_are() -> None:
    assert [salts.of_bare(one) for one in (None, "", "mine")] == [None, "", "mine"]
