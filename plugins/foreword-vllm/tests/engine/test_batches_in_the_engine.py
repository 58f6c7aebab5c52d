"""Prompts, the bare model and those who would be a prompt, in one batch of vLLM's engine: every
greedy text is the one that foreword gives."""

from __future__ import annotations

from typing import Any

import pytest
from forked import cases, engine, run

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "cached": {},
    "in chunks, preempted": {
        "max_num_batched_tokens": 48,
        "long_prefill_token_threshold": 12,
        "num_gpu_blocks_override": 24,
    },
    "without a cache": {"enable_prefix_caching": False, "block_size": 128},
}
ROUNDS = 2


def requests_of(case: dict[str, Any], new: int) -> list[tuple[str, Any, dict[str, Any], Any]]:
    """Kind, tokens, settings and expected text of each request, neighbours of different prompts.

    Impostors are requests without a prompt whose own tokens are those that stand for virtual ones,
    some with the salt of the prompt's blocks.
    """
    rows: list[tuple[str, Any, dict[str, Any], Any]] = []
    for number in range(len(case["rows"]["bare"]["sources"])):
        for name, row in case["rows"].items():
            settings = {} if name == "bare" else {"foreword": name}
            penalty = {"repetition_penalty": row["penalty"]} if row.get("penalty") else {}
            source, answer = row["sources"][number], row["answers"][number]
            rows.append((name, source, {"params": settings, **penalty}, answer))
            for guess in (None, f"foreword:{row.get('sha256')}:") if name != "bare" else ():
                tokens, expected = row["impostors"][number]
                rows.append(("impostor", tokens, {"salt": guess}, expected))
    return [(kind, tokens, {"max_tokens": new, **how}, text) for kind, tokens, how, text in rows]


def refused(case: dict[str, Any]) -> list[tuple[Any, dict[str, Any]]]:
    """Requests that cannot be served, to stand among the others."""
    name, row = next(iter(case["rows"].items()))
    source = row["sources"][0]
    return [
        (source, {"params": {"foreword": "nobody"}}),
        (source[:1], {"params": {"foreword": "../" + name}}),
        (source, {"params": {"foreword": name}, "prompt_logprobs": 1}),
        ([5] * 505, {"params": {"foreword": name}, "max_tokens": 2}),
    ]


def answers(
    case: dict[str, Any], new: int, settings: dict[str, Any], *, salted: bool = True
) -> dict[str, Any]:
    """For each kind of request how many texts are foreword's, of how many; run in a fork."""
    from vllm import SamplingParams

    from foreword_vllm import salts

    if not salted:  # the control: blocks are told apart by their tokens alone
        salts.of_prompt = lambda sha256, client: None  # type: ignore[assignment,return-value]
    llm = engine(case["model"], case["prompts"], **settings)
    scheduler = llm.llm_engine.engine_core.engine_core.scheduler
    preempt, preempted = scheduler._preempt_request, [0]

    def counted(*given: Any, **named: Any) -> Any:
        preempted[0] += 1
        return preempt(*given, **named)

    scheduler._preempt_request = counted

    def request(tokens: Any, how: dict[str, Any]) -> tuple[Any, Any]:
        prompt = {"prompt_token_ids": tokens}
        if how.get("salt"):
            prompt["cache_salt"] = how["salt"]
        others = {key: value for key, value in how.items() if key not in ("salt", "params")}
        extra = {"kv_transfer_params": how["params"]} if how.get("params") else None
        return prompt, SamplingParams(temperature=0, extra_args=extra, **others)

    rows = requests_of(case, new)
    wrong = refused(case)
    told: dict[str, Any] = {"kinds": {}, "ends": [], "differ": []}
    for _ in range(ROUNDS):
        made = [request(tokens, how) for _, tokens, how, _ in rows]
        for place, (tokens, how) in enumerate(wrong):
            made.insert(place * 5, request(tokens, how))
        outputs = llm.generate(*zip(*made, strict=True), use_tqdm=False)
        ends = [outputs.pop(place * 5) for place in reversed(range(len(wrong)))]
        told["ends"] += [one.outputs[0].finish_reason for one in ends]
        for (kind, _, _, expected), output in zip(rows, outputs, strict=True):
            text = output.outputs[0].text.strip()
            count = told["kinds"].setdefault(kind, [0, 0])
            count[0] += text == expected
            count[1] += 1
            if text != expected:
                told["differ"].append([kind, text, expected])
    told["preempted"] = preempted[0]
    return told


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_every_text_is_forewords(configuration) -> None:
    known = cases()
    case = known["gpt2"]
    told = run(answers, case, known["new"], CONFIGURATIONS[configuration])
    assert told["differ"] == []
    inputs = len(known["inputs"])
    expected = dict.fromkeys(case["rows"], [ROUNDS * inputs] * 2)
    expected["impostor"] = [ROUNDS * inputs * 2 * (len(case["rows"]) - 1)] * 2
    assert told["kinds"] == expected
    assert set(told["ends"]) == {"error"}
    assert bool(told["preempted"]) is (configuration == "in chunks, preempted")


def test_grouped_heads_shared_by_two_workers() -> None:
    known = cases()
    settings = {"tensor_parallel_size": 2, "distributed_executor_backend": "mp"}
    told = run(answers, known["llama"], known["new"], settings)
    assert told["differ"] == []
    assert set(told["ends"]) == {"error"}


def test_without_the_rule_for_salts_prompts_are_mixed_up() -> None:
    """The control: the same check fails where the cache is not told which prompt a block is of."""
    known = cases()
    told = run(lambda *given: answers(*given, salted=False), known["gpt2"], known["new"], {})
    right, many = told["kinds"]["impostor"]
    assert many - right >= len(known["inputs"])
