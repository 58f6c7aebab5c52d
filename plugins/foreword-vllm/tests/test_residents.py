"""Workers hold just what the scheduler believes they hold, under a budget."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from foreword_vllm.residents import Residents
from foreword_vllm.tensors import KeysValues

SIZES = {"a": 10, "b": 20, "c": 30, "d": 40}
ACTIONS = st.lists(
    st.tuples(st.sampled_from(["take", "let go", "step"]), st.sampled_from(sorted(SIZES))),
    max_size=60,
)


def held(name: str) -> KeysValues:
    return KeysValues(name.encode() * SIZES[name], 1, "")


@settings(max_examples=300, deadline=None)
@given(ACTIONS, st.integers(0, 100))
def test_workers_and_scheduler_agree(actions, budget) -> None:
    """A worker that follows what it is told has each prompt of a step, and no others than the
    scheduler's; what runs is never sent twice without having gone between."""
    residents = Residents(budget)
    worker: dict[str, bytes] = {}
    running: list[str] = []
    for action, name in actions:
        if action == "take":
            residents.take(name, lambda name=name: held(name))
            running.append(name)
        elif action == "let go" and name in running:
            running.remove(name)
            residents.let_go(name)
        elif action == "step":
            needed = set(running[-3:])
            new, gone = residents.to_send(needed)
            for old in gone:
                del worker[old]
            assert not worker.keys() & new.keys()
            worker |= new
            assert needed <= worker.keys()
        sizes = sum(SIZES[one] for one in set(running))
        assert residents.size <= max(budget, sizes)
        assert len(worker) <= len(SIZES)


def test_what_is_used_least_recently_goes() -> None:
    residents, reads = Residents(50), []

    def read(name: str) -> KeysValues:
        reads.append(name)
        return held(name)

    gone = []
    for name in ("a", "b", "a", "c"):
        residents.take(name, lambda name=name: read(name))
        gone += residents.to_send({name})[1]
        residents.let_go(name)
    assert reads == ["a", "b", "c"]
    assert gone == ["b"]
    residents.take("a", lambda: read("a"))
    assert reads == ["a", "b", "c"]


def test_what_runs_stays_beyond_the_budget() -> None:
    residents = Residents(0)
    residents.take("a", lambda: held("a"))
    residents.take("a", lambda: held("a"))
    residents.let_go("a")
    assert residents.to_send({"a"}) == ({"a": b"a" * 10}, [])
    assert residents.to_send({"a"}) == ({}, [])
    residents.let_go("a")
    assert residents.size == 0
    assert residents.to_send(set()) == ({}, ["a"])


def test_a_failed_read_leaves_nothing() -> None:
    residents = Residents(10)

    def fail() -> KeysValues:
        raise FileNotFoundError

    for _ in range(2):
        try:
            residents.take("a", fail)
        except FileNotFoundError:
            assert residents.size == len(residents) == 0
