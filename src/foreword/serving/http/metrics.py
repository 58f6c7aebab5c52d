"""What Prometheus reads: requests, tokens and times by model, and what the engine does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from foreword.serving.engine import Engine
from foreword.serving.following import Followed
from foreword.serving.prompts import PromptStore

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The numbers of one server. A model that is removed is counted no more.

    Args:
        engine: does the work.
        store: the prompts.
        backbone: the backbone's name.
        followed: where prompts come from and are looked at again; None where there is no such
            place.
    """

    def __init__(
        self,
        engine: Engine,
        store: PromptStore,
        backbone: str,
        followed: Followed[Any] | None = None,
    ) -> None:
        self.store, self.backbone = store, backbone
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "foreword_requests",
            "Requests that were answered",
            ["model", "status"],
            registry=self.registry,
        )
        self.read = Counter(
            "foreword_prompt_tokens", "Tokens that were read", ["model"], registry=self.registry
        )
        self.written = Counter(
            "foreword_completion_tokens",
            "Tokens that were written",
            ["model"],
            registry=self.registry,
        )
        self.first = Histogram(
            "foreword_time_to_first_token_seconds",
            "Time to the first token of a request's answer",
            ["model"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.whole = Histogram(
            "foreword_request_seconds",
            "Time of a request",
            ["model"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.registry.register(_Engine(engine, store))
        if followed is not None:
            self.registry.register(_Followed(followed))
        self._statuses: dict[str, set[str]] = {}

    def answered(self, model: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._statuses.setdefault(model, set()).add(str(status))
        self.requests.labels(model, str(status)).inc()
        self.whole.labels(model).observe(seconds)

    def forget(self, model: str) -> None:
        """Drop the numbers of a model that is gone."""
        for metric in self._by_model:
            metric.remove_by_labels({"model": model})

    def text(self) -> bytes:
        """In Prometheus' form; without what requests that were under way have left of models that
        are gone."""
        counted = {
            sample.labels["model"]
            for metric in self._by_model
            for family in metric.collect()
            for sample in family.samples
        }
        for model in counted - {self.backbone, *self.store}:
            self.forget(model)
        return generate_latest(self.registry)

    @property
    def _by_model(self) -> tuple[Counter | Histogram, ...]:
        return self.requests, self.read, self.written, self.first, self.whole


class _Engine(Collector):
    """Numbers that are looked up when they are asked for."""

    def __init__(self, engine: Engine, store: PromptStore) -> None:
        self.engine, self.store = engine, store

    def collect(self) -> Iterable[Metric]:
        """All of them."""
        counts, engine = self.engine.counts, self.engine
        loaded, taken = self.store.in_memory
        for name, title, value in (
            ("waiting", "Requests that wait", engine.waiting),
            ("active", "Requests that are being answered", engine.active),
            ("rows", "Answers that may be written at the same time", engine.options.rows),
            ("positions", "Positions that they may take together", engine.tokens),
            ("prompts", "Prompts that may be asked for", len(self.store)),
            ("prompts_in_memory", "Those of them in memory", loaded),
            ("prompt_memory_bytes", "Bytes that they take", taken),
        ):
            yield GaugeMetricFamily(f"foreword_{name}", title, value=value)
        for name, title, number in (
            ("steps", "Forward passes that wrote tokens", counts.steps),
            (
                "step_rows",
                "Answers in all of these; over foreword_steps: how full a batch was",
                counts.rows,
            ),
            ("tokens", "Tokens that were written", counts.tokens),
            ("step_seconds", "Seconds that steps took", counts.seconds),
            ("read_rows", "Rows that heads and label words have read", counts.read),
            ("failed_steps", "Steps in which an answer failed", counts.failed_steps),
        ):
            yield CounterMetricFamily(f"foreword_{name}", title, value=number)


class _Followed(Collector):
    """What following a place of prompts came to."""

    def __init__(self, followed: Followed[Any]) -> None:
        self.followed = followed

    def collect(self) -> Iterable[Metric]:
        """All of it."""
        for name, title, number in (
            ("refreshes", "Looks at the folder or store of prompts", self.followed.looks),
            (
                "failed_refreshes",
                "Looks that could not read it, or a prompt in it",
                self.followed.failures,
            ),
        ):
            yield CounterMetricFamily(f"foreword_{name}", title, value=number)
