"""Many threads on one backbone answer as one thread does, and leave nothing behind."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers.utils import logging

import foreword
from conftest import make_backbone, mini_tokens, random_rows
from foreword.backbone import Backbone, Call, Prompt, seeding
from foreword.backbone.layout import Layout
from foreword.backbone.silence import quiet
from foreword.backbone.turns import changes_itself
from foreword.errors import UserError
from foreword.methods import LoRA
from foreword.session import LoadedPrompt
from foreword.tuned.compose import compose
from stored_prompts import TELLERS, WRITERS, store_all

THREADS = 8
CALLS = [32, pytest.param(200, marks=pytest.mark.soak)]
TEXTS = [f"{word} number {n}" * (1 + n % 3) for n, word in enumerate(["a", "on"] * 3)]
Ask = Callable[[int], Any]


@pytest.fixture(autouse=True)
def _switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return make_backbone("gpt2", torch.float64)


@pytest.fixture(scope="module")
def folders(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return store_all(tmp_path_factory.mktemp("prompts"), backbone)


@pytest.fixture(scope="module")
def prompts(backbone: Backbone, folders: dict[str, Path]) -> dict[str, LoadedPrompt]:
    return {name: foreword.load(folder, backbone=backbone) for name, folder in folders.items()}


def together(asks: Sequence[Ask], calls: int) -> None:
    """Each call of 8 threads gives what it gives in one thread."""
    assert all(asks)
    rounds = [(ask, number) for number in range(calls) for ask in asks][:calls]
    known = {}
    for ask, number in rounds:
        if (id(ask), number % len(TEXTS)) not in known:
            known[id(ask), number % len(TEXTS)] = ask(number)

    def answer(start: int) -> None:
        for at in range(len(rounds)):
            ask, number = rounds[(at + start * 13) % len(rounds)]
            assert ask(number) == known[id(ask), number % len(TEXTS)]

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(answer, range(THREADS)))


def writing(prompt: LoadedPrompt, **options: Any) -> Ask:
    return lambda n: prompt.generate([TEXTS[n % len(TEXTS)]], max_new_tokens=2, **options)


def telling(prompt: LoadedPrompt) -> Ask:
    return lambda n: [
        (told.answer, round(told.probability, 9))
        for told in prompt.predict([TEXTS[n % len(TEXTS)]])
    ]


@pytest.mark.parametrize("calls", CALLS)
def test_soft_prompts_of_equal_length(calls: int, prompts: dict[str, LoadedPrompt]) -> None:
    one, other = prompts["soft"], prompts["other soft"]
    assert one.generate(TEXTS[:1]) != other.generate(TEXTS[:1])
    together([writing(one), writing(other)], calls)


def test_prompts_of_all_kinds_that_write(prompts: dict[str, LoadedPrompt]) -> None:
    together([writing(prompts[name]) for name in WRITERS], calls=40)


def test_label_words_and_heads(prompts: dict[str, LoadedPrompt]) -> None:
    together([telling(prompts[name]) for name in TELLERS], calls=60)


def test_rows_that_draw(prompts: dict[str, LoadedPrompt]) -> None:
    """Step by step and in a beam search, from seeds of their own."""
    steps = writing(prompts["soft"], do_sample=True, temperature=3.0, seed=5)
    beams = writing(prompts["deep"], do_sample=True, temperature=3.0, num_beams=2, seed=5)
    state = torch.get_rng_state()
    beam = {"do_sample": True, "num_beams": 2}
    drawn = {tuple(writing(prompts["deep"], seed=seed, **beam)(0)) for seed in range(6)}
    assert len(drawn) > 1
    together([steps, beams], calls=24)
    assert torch.equal(torch.get_rng_state(), state)


def test_mixed_calls_while_prompts_come_and_go(
    backbone: Backbone, folders: dict[str, Path], prompts: dict[str, LoadedPrompt]
) -> None:
    bank = foreword.prompts(backbone)
    for name, prompt in prompts.items():
        bank.add(name, prompt)
    written = [{"prompt": n, "text": t} for n, t in zip((*WRITERS, None), TEXTS, strict=False)]
    told = [{"prompt": n, "text": t} for n, t in zip(TELLERS, TEXTS, strict=False)]
    done = threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            bank.add("guest", folders["soft"])
            bank.add("soft", folders["soft"])
            bank.remove("guest")

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        together(
            [
                lambda _: bank.generate(written, max_new_tokens=2),
                lambda _: [(a.answer, round(a.probability, 9)) for a in bank.predict(told)],
            ],
            calls=20,
        )
    finally:
        done.set()
        thread.join()
    assert "guest" not in bank


def left_on(model: nn.Module) -> dict[str, tuple[int, int, bool]]:
    """Hooks of each module, and whether its forward is its class's."""
    return {
        name: (len(m._forward_pre_hooks), len(m._forward_hooks), "forward" in vars(m))
        for name, m in model.named_modules()
    }


def test_an_exception_leaves_nothing_behind(
    backbone: Backbone, prompts: dict[str, LoadedPrompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the midst of a forward pass of one thread, while others go on."""
    asks = [writing(prompts["soft"]), telling(prompts["words"]), writing(prompts["slots"])]
    before = [ask(0) for ask in asks]
    left = left_on(backbone.model)
    block = backbone.model.transformer.h[1]
    forward, failing = block.forward, threading.local()

    def fail(*given: Any, **named: Any) -> Any:
        if getattr(failing, "on", False):
            raise RuntimeError("in the midst")
        return forward(*given, **named)

    def broken(number: int) -> None:
        failing.on = True
        for ask in asks:
            with pytest.raises(RuntimeError, match="in the midst"):
                ask(number)
        failing.on = False
        with pytest.raises(UserError):
            prompts["soft"].generate([{"other": "field"}])
        assert [ask(0) for ask in asks] == before

    with monkeypatch.context() as patch:
        patch.setattr(block, "forward", fail)
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(broken, range(2 * THREADS)))
    vars(block).pop("forward", None)
    assert left_on(backbone.model) == left
    assert [ask(0) for ask in asks] == before


def test_recomputing_in_one_thread_is_of_that_thread(tiny_backbone: Any) -> None:
    """Two that overlap take off what they set, whoever leaves first; a third keeps everything."""
    backbone = tiny_backbone("llama")
    layers = list(backbone.model.model.layers)
    runs: list[int] = []

    def gradient() -> int:
        """How often layers run for one forward and backward pass."""
        runs.clear()
        rows = backbone.embeddings([1, 2]).requires_grad_()
        hooks = [m.self_attn.register_forward_hook(lambda *_: runs.append(1)) for m in layers]
        layout = Layout.of([[backbone.geometry.vocabulary, 3, 4]])
        backbone.logits(Call(layout, Prompt(embeddings=rows))).sum().backward()
        for hook in hooks:
            hook.remove()
        return len(runs)

    once = gradient()
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with backbone.recomputing():
            entered.set()
            assert leave.wait(30)

    thread = threading.Thread(target=other)
    with backbone.recomputing():
        thread.start()
        assert entered.wait(30)
        assert gradient() == 2 * once
        copied = backbone.copied()
        assert not any(at[2] for at in left_on(copied.model).values())
    assert gradient() == once
    leave.set()
    thread.join()
    assert not any(at[2] for at in left_on(backbone.model).values())


def test_a_copy_made_while_layers_are_recomputed_runs_its_own(tiny_backbone: Any) -> None:
    backbone = tiny_backbone("llama")
    layout = Layout.of([[3, 4, 5]])
    with backbone.recomputing():
        moved = compose(backbone, LoRA(name="lora", rank=2))
    with torch.no_grad():
        plain = backbone.logits(Call(layout))
        for parameter in moved.parameters():
            parameter.normal_()
        assert not torch.allclose(moved.backbone.logits(Call(layout)), plain)


def test_silence_is_counted() -> None:
    logging.set_verbosity_info()
    logging.enable_progress_bar()
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with quiet():
            inside.set()
            assert leave.wait(30)

    thread = threading.Thread(target=other)
    try:
        with quiet():
            thread.start()
            assert inside.wait(30)
        assert logging.get_verbosity() == logging.ERROR
        leave.set()
        thread.join()
        assert logging.get_verbosity() == logging.INFO
        assert logging.is_progress_bar_enabled()
    finally:
        logging.set_verbosity_warning()


def test_settings_of_a_tokenizer_are_taken_off_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left as they are, texts would be cut; taken off by transformers, while another thread reads,
    they raise "Already borrowed"."""
    tokens = mini_tokens()
    text = "a long text " * 200
    whole = tokens.plain(text)
    fast, kind = tokens.tokenizer.backend_tokenizer, type(tokens.tokenizer)
    own, seen = kind.set_truncation_and_padding, []

    def watched(self: Any, *given: Any, **named: Any) -> None:
        seen.append((fast.truncation, fast.padding))
        own(self, *given, **named)

    monkeypatch.setattr(kind, "set_truncation_and_padding", watched)
    for _ in range(5):
        fast.enable_truncation(3)
        fast.enable_padding(length=4000)
        with ThreadPoolExecutor(THREADS) as pool:
            assert all(pool.map(lambda _: tokens.plain(text) == whole, range(2 * THREADS)))
    assert set(seen) == {(None, None)}


ROPE = {"rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 8}


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "dynamic", **ROPE},
        {"rope_type": "longrope", **ROPE, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4},
    ],
    ids=lambda rope: rope["rope_type"],
)
def test_forward_passes_that_write_into_the_model_take_turns(rope: dict[str, Any]) -> None:
    """Rotary frequencies that follow the longest row stand in a buffer of the model."""
    backbone = make_backbone("llama", torch.float64, rope_parameters=rope)
    assert changes_itself(backbone.model)
    rows = [list(range(1, 7)), list(range(1, 40))]
    inside: list[int] = []
    most = []

    def enter(*_: Any) -> None:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.001)

    def leave(*_: Any) -> None:
        inside.pop()

    def read(number: int) -> list[float]:
        with torch.no_grad():
            logits = backbone.logits(Call(Layout.of([rows[number % 2]])))
        return [round(value, 9) for value in logits[0, -1, :5].tolist()]

    read(1)  # what grows with the longest row has grown
    known = [read(0), read(1)]
    backbone.model.model.register_forward_pre_hook(enter)
    backbone.model.model.register_forward_hook(leave)
    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(read, range(24))) == known * 12
    assert set(most) == {1}


def test_plain_models_take_no_turns(backbone: Backbone) -> None:
    assert not changes_itself(backbone.model)


def test_draws_of_a_seed_are_those_of_torchs() -> None:
    share = torch.rand(3, 50)
    torch.manual_seed(7)
    expected = [torch.multinomial(share, 4) for _ in range(3)]
    state = torch.get_rng_state()
    with seeding.drawing_from(7):
        found = [torch.multinomial(share, 4) for _ in range(3)]
    assert all(map(torch.equal, found, expected))
    assert torch.equal(torch.get_rng_state(), state)


def test_loading_in_threads(tmp_path: Path) -> None:
    """transformers sets torch's default type and more while it loads."""
    kinds = ["float64", "float32", "bfloat16", "float32"]

    def load(dtype: str) -> tuple[str, torch.dtype]:
        return foreword.load_backbone("foreword/mini", dtype=dtype).dtype, torch.zeros(1).dtype

    with ThreadPoolExecutor(4) as pool:
        assert [dtype for dtype, _ in pool.map(load, kinds)] == kinds
    assert torch.get_default_dtype() == torch.float32


def test_gradients_of_two_threads(tiny_backbone: Any) -> None:
    """Two prompts that are trained on one backbone, one of them with recomputed layers."""
    backbone = tiny_backbone("gpt2")
    prompts = [random_rows(backbone, 3, seed=s) for s in range(2)]

    def gradient(number: int) -> list[float]:
        g = backbone.geometry
        rows = prompts[number % 2].clone().requires_grad_()
        shape = (3, g.main.layers, 2, g.main.heads[0].kv_heads, -1)
        keys, values = rows.view(shape).permute(2, 1, 0, 3, 4)
        prompt = Prompt({"decoder": foreword.backbone.PromptKeyValues(keys, values)})
        layout = Layout.of([[3, 4, 5]], virtual=3)
        with backbone.recomputing(number % 3 == 0):
            loss = backbone.logits(Call(layout, prompt)).log_softmax(-1).square().mean()
        loss.backward()
        assert rows.grad is not None
        return [round(value, 6) for value in rows.grad[0, :8].tolist()]

    known = [gradient(0), gradient(1)]
    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(gradient, range(60))) == known * 30
    assert not any(at[2] for at in left_on(backbone.model).values())
