"""The scheduler's side: which prompt a request has, and which of its blocks wait for it.

Knows vLLM's `Request` by its attributes alone. A request that cannot be served is refused by
itself: it gets a salt of its own and a load that fails, which ends it and no other.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from foreword_vllm import salts
from foreword_vllm.folder import PromptFolder
from foreword_vllm.loads import Load, Step
from foreword_vllm.prompts import PromptError, is_hash
from foreword_vllm.residents import Residents
from foreword_vllm.tensors import KeysValues, Shape, read_keys_values
from foreword_vllm.weights import OtherWeights, check_same

logger = logging.getLogger("vllm.foreword")
FIELD = "foreword"
"""Of `kv_transfer_params`: the prompt's name."""
FIELD_HASH = "foreword_sha256"
"""Of `kv_transfer_params`: which of the prompt's versions, where the request was made for one."""


class Refused(ValueError):
    """A request is not served, and why."""


@dataclass(frozen=True)
class Engine:
    """What of the engine a prompt depends on.

    Attributes:
        model: the base model's name, for messages.
        weights: the hash of its weights; None where any prompt is taken.
        shape: what it needs of a prompt.
        block_size: tokens of a block.
        context: tokens of a request.
    """

    model: str
    weights: str | None
    shape: Shape
    block_size: int
    context: int


@dataclass(frozen=True)
class _Served:
    """A request's prompt."""

    sha256: str
    length: int


class Scheduling:
    """Prompts of requests, from their arrival to their end.

    Args:
        folder: the prompts.
        engine: what serves them.
        budget: bytes of prompts in memory.
    """

    def __init__(self, folder: PromptFolder, engine: Engine, budget: int) -> None:
        self._folder, self._engine = folder, engine
        self._residents = Residents(budget)
        self._served: dict[str, _Served] = {}
        self._refused: set[str] = set()
        self._loads: list[Load] = []
        self._failed: list[int] = []

    def arrived(self, request: Any) -> None:
        """Settle a request's prompt, tokens and salt, whatever a client sent. Never raises."""
        params = request.kv_transfer_params
        named = params.get(FIELD) if isinstance(params, dict) else params
        if named is None:
            salt = salts.of_bare(request.cache_salt)
            if salt != request.cache_salt:
                _resalt(request, salt)
            return
        try:
            if not isinstance(params, dict):
                raise Refused(f"kv_transfer_params is {params!r:.60}, expected an object")
            keys_values, sha256 = self._prompt(named, params.get(FIELD_HASH))
            try:
                self._check(request, keys_values.length)
            except Refused:
                self._residents.let_go(sha256)
                raise
            self._serve(request, _Served(sha256, keys_values.length))
        except Exception as error:
            expected = isinstance(error, Refused | PromptError | OSError)
            if not expected:
                logger.exception("foreword: request %s", request.request_id)
            self._refuse(request, str(error))

    def _prompt(self, name: object, version: object) -> tuple[KeysValues, str]:
        """The keys and values that a request asks for, taken for it."""
        prompt = self._folder.get(name)
        if prompt is None:
            raise Refused(f"there is no prompt {name!r:.80}")
        sha256 = prompt.sha256 if version is None else str(version)
        if not is_hash(sha256):
            raise Refused(f"{FIELD_HASH} is {sha256!r:.80}, expected 64 hexadecimal digits")
        folder = prompt.folder

        def read() -> KeysValues:
            keys_values = read_keys_values(folder, sha256, self._engine.shape)
            if self._engine.weights is not None:
                check_same(
                    folder,
                    prompt.backbone,
                    keys_values.backbone_sha256,
                    self._engine.model,
                    self._engine.weights,
                )
            return keys_values

        return self._residents.take(sha256, read), sha256

    def _check(self, request: Any, length: int) -> None:
        ids = request.prompt_token_ids
        if ids is None or request.prompt_embeds is not None:
            raise Refused("a prompt stands before tokens, not before embeddings")
        if request.mm_features:
            raise Refused("a prompt stands before text alone, not before images or sound")
        if request.lora_request is not None:
            raise Refused("a prompt is served on the base model alone, not on an adapter")
        if request.resumable:
            raise Refused("a prompt is not served in sessions whose input goes on")
        if not ids:
            raise Refused("there is no text after the prompt")
        if len(ids) + length >= self._engine.context:
            raise Refused(
                f"{length} virtual tokens and {len(ids)} tokens of text leave no room for an "
                f"answer in a context of {self._engine.context}"
            )
        if request.skip_reading_prefix_cache:
            raise Refused("log-probabilities of the input (prompt_logprobs) are not served")

    def _serve(self, request: Any, served: _Served) -> None:
        """Put a token for each virtual one before the text: the text's own first token, which is
        in the vocabulary, and which penalties on read tokens count anyway."""
        ids = list(request.prompt_token_ids)
        front = ids[:1] * served.length
        request.prompt_token_ids = front + ids
        request._all_token_ids[:0] = front
        request.num_prompt_tokens += served.length
        self._served[request.request_id] = served
        _resalt(request, salts.of_prompt(served.sha256, request.cache_salt))

    def _refuse(self, request: Any, reason: str) -> None:
        logger.error("foreword: request %s is refused: %s", request.request_id, reason)
        self._refused.add(request.request_id)
        request.kv_transfer_params = None
        request.skip_reading_prefix_cache = False  # else nobody would look at the failed load
        if request.num_prompt_tokens == 1:  # a load fails before the last token, or not at all
            request.prompt_token_ids = list(request.prompt_token_ids or [0]) * 2
            request._all_token_ids[:0] = request._all_token_ids[:1]
            request.num_prompt_tokens += 1
        _resalt(request, salts.of_refused(request.request_id))

    def loadable(self, request: Any, computed: int) -> int:
        """How many tokens after the computed ones the workers are going to load."""
        if request.request_id in self._refused:
            before_the_last: int = request.num_tokens - 1
            return max(0, min(self._engine.block_size, before_the_last) - computed)
        served = self._served.get(request.request_id)
        return 0 if served is None else max(0, served.length - computed)

    def allocated(self, request: Any, blocks: Sequence[int], count: int) -> None:
        """A request has its blocks; so many tokens of them are to be loaded.

        Args:
            request: vLLM's.
            blocks: numbers of its blocks, in their order.
            count: what `loadable` said, or less.
        """
        if request.request_id in self._refused:
            self._failed += blocks[:1]
            return
        served = self._served.get(request.request_id)
        if served is None or count == 0:
            return
        size, first = self._engine.block_size, served.length - count
        slots = [blocks[at // size] * size + at % size for at in range(first, served.length)]
        self._loads.append(Load(served.sha256, first, slots))

    def step(self) -> Step:
        """What the workers are told before the next step."""
        loads, self._loads = self._loads, []
        failed, self._failed = self._failed, []
        new, gone = self._residents.to_send({load.sha256 for load in loads})
        return Step(loads, new, gone, failed)

    def finished(self, request: Any) -> None:
        """A request is at its end, whichever."""
        self._refused.discard(request.request_id)
        served = self._served.pop(request.request_id, None)
        if served is not None:
            self._residents.let_go(served.sha256)

    def check_all(self) -> list[str]:
        """Read every prompt of the folder, and name those that can be served; damaged ones are
        logged.

        Raises:
            OtherWeights: one was trained on another base model.
        """
        fine = []
        for name in self._folder.names():
            try:
                _, sha256 = self._prompt(name, None)
            except OtherWeights:
                raise
            except (PromptError, OSError) as error:
                logger.error("foreword: %s is left out: %s", name, error)
                continue
            self._residents.let_go(sha256)
            fine.append(name)
        return fine


def _resalt(request: Any, salt: str | None) -> None:
    """Give a request a salt, and its blocks the names that go with it."""
    request.cache_salt = salt
    request.block_hashes.clear()
    request.update_block_hashes()
