"""A span of each request, below the one that it came with."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from asking import decoder_world
from running import BASE, named, running

from foreword.errors import UserError
from foreword.serving.http import tracing
from foreword.serving.http.tracing import Tracing

trace = pytest.importorskip("opentelemetry.sdk.trace")
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_each_request_is_a_span(tmp_path: Path) -> None:
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept = InMemorySpanExporter()
    provider = trace.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    backbone, folders = decoder_world(tmp_path)
    keys = [{"name": "tenant", "key": "key-of-tenant"}]
    with running(backbone, prompt=named(folders), keys=keys) as client:
        client.served.tracing = Tracing(provider.get_tracer("foreword"))
        asked = {"model": "deep", "prompt": "so", "max_tokens": 3}
        for body, headers in ((asked, {"traceparent": PARENT}), ({**asked, "stream": True}, {})):
            path = "/v1/completions"
            client.ask("POST", path, body, key="key-of-tenant", headers=headers)
        client.complete(BASE, prompt="so", temperature=-1, key="key-of-tenant")
        client.complete("deep", prompt="so", key="nobody's-key")
    spans = kept.get_finished_spans()
    assert [span.name for span in spans] == ["/v1/completions"] * 4
    statuses = [span.attributes["http.response.status_code"] for span in spans]
    assert statuses == [200, 200, 400, 401]
    first = spans[0]
    assert first.attributes["gen_ai.request.model"] == "deep"
    assert first.attributes["foreword.key"] == "tenant"
    assert format(first.context.trace_id, "032x") in PARENT
    assert format(first.parent.span_id, "016x") in PARENT
    assert spans[1].parent is None
    assert all(span.end_time > span.start_time for span in spans)
    assert "so" not in str([dict(span.attributes) for span in spans]).split("'")


def test_packages_that_traces_need(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(tracing, "version", missing)
    assert tracing.tracing(False).tracer is None
    with pytest.raises(UserError, match="traces: needs opentelemetry-sdk, which is not installed"):
        tracing.tracing(True)
