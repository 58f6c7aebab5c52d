"""The KV connector: vLLM's calls, passed on to the scheduler's side and the workers' side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
)
from vllm.distributed.parallel_state import get_tensor_model_parallel_rank
from vllm.logger import init_logger
from vllm.model_executor.models.utils import extract_layer_index

from foreword_vllm.config import Config, check_cache, check_engine
from foreword_vllm.folder import PromptFolder
from foreword_vllm.loading import Loading, Share
from foreword_vllm.loads import Step
from foreword_vllm.prompts import PromptError
from foreword_vllm.scheduling import Engine, Scheduling
from foreword_vllm.tensors import Shape
from foreword_vllm.weights import sha256_of

logger = init_logger("vllm.foreword")


@dataclass
class StepMetadata(KVConnectorMetadata):  # type: ignore[misc]
    """A step in the type that vLLM passes on."""

    step: Step


class ForewordConnector(KVConnectorBase_V1):  # type: ignore[misc]
    """Serves prompts out of a folder; see `foreword_vllm`."""

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        config = Config.read(self._kv_transfer_config.kv_connector_extra_config)
        check_engine(vllm_config)
        self._failed: set[int] = set()
        self._layers: dict[str, int] = {}
        self._scheduling: Scheduling | None = None
        self._loading: Loading | None = None
        model = vllm_config.model_config
        if role == KVConnectorRole.WORKER:
            ranks = vllm_config.parallel_config.tensor_parallel_size
            self._loading = Loading(
                model.dtype, lambda: Share(get_tensor_model_parallel_rank(), ranks)
            )
            return
        check_cache([group.kv_cache_spec for group in kv_cache_config.kv_cache_groups])
        weights = None
        if not config.other_weights:
            weights = sha256_of(
                model.model,
                revision=model.revision,
                cache=vllm_config.load_config.download_dir,
            )
        engine = Engine(
            model=model.model,
            weights=weights,
            shape=Shape(
                model.get_total_num_hidden_layers(),
                model.get_total_num_kv_heads(),
                model.get_head_size(),
                model.dtype,
            ),
            block_size=vllm_config.cache_config.block_size,
            context=model.max_model_len,
        )
        self._scheduling = Scheduling(
            PromptFolder(config.prompts), engine, config.memory_mb * 1_000_000
        )
        names = self._scheduling.check_all()
        logger.info(
            "foreword: %d prompts in %s: %s%s",
            len(names),
            config.prompts,
            ", ".join(names[:20]) or "none",
            ", …" if len(names) > 20 else "",
        )

    @property
    def requires_kv_delivery(self) -> bool:
        """Nothing is handed on to another engine."""
        return False

    # ------------------------------------------------------------------ the scheduler's side

    @property
    def scheduling(self) -> Scheduling:
        """The scheduler's side."""
        assert self._scheduling is not None, "this is a worker"
        return self._scheduling

    def on_new_request(self, request: Any) -> None:
        """A request has arrived."""
        self.scheduling.arrived(request)

    def get_num_new_matched_tokens(
        self, request: Any, num_computed_tokens: int
    ) -> tuple[int, bool]:
        """How many tokens are loaded before the next step, and that no step waits for them."""
        return self.scheduling.loadable(request, num_computed_tokens), False

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        """A request has its blocks."""
        self.scheduling.allocated(request, blocks.get_block_ids()[0], num_external_tokens)

    def build_connector_meta(self, scheduler_output: Any) -> KVConnectorMetadata:  # noqa: ARG002
        """What the workers are told before the next step."""
        return StepMetadata(self.scheduling.step())

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, None]:  # noqa: ARG002
        """A request is at its end; its blocks may go at once."""
        self.scheduling.finished(request)
        return False, None

    # ------------------------------------------------------------------ the workers' side

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        """vLLM has made the cache of each layer."""
        self._layers = {name: extract_layer_index(name) for name in kv_caches}
        if len(set(self._layers.values())) != len(self._layers):
            raise PromptError(
                "the base model has several attentions in a layer, of which a prompt knows one"
            )

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Write what the step needs, in the order of the device, so that its forward pass sees
        it."""
        assert self._loading is not None, "this is the scheduler"
        metadata = self._get_connector_metadata()
        assert isinstance(metadata, StepMetadata)
        self._failed |= set(metadata.step.failed)
        layers = {
            number: forward_context.no_compile_layers[name] for name, number in self._layers.items()
        }
        self._loading.run(metadata.step, layers)

    def get_block_ids_with_load_errors(self) -> set[int]:
        """The blocks of refused requests."""
        failed, self._failed = self._failed, set()
        return failed

    def wait_for_layer_load(self, layer_name: str) -> None:
        """All is written before the first layer."""

    def save_kv_layer(
        self, layer_name: str, kv_layer: torch.Tensor, attn_metadata: Any, **kwargs: Any
    ) -> None:
        """Nothing is saved."""

    def wait_for_save(self) -> None:
        """Nothing is saved."""
