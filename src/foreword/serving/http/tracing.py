"""OpenTelemetry: a span for each request, if that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from foreword.errors import UserError

Note = Callable[[str, Any], None]
"""Gives a span an attribute."""


class Tracing:
    """Makes spans, or none.

    Args:
        tracer: OpenTelemetry's; None for none.
    """

    def __init__(self, tracer: Any = None) -> None:
        self.tracer = tracer

    @contextmanager
    def span(self, name: str, headers: Any) -> Iterator[Note]:
        """While a request is answered; a `traceparent` among its headers is the span's parent."""
        if self.tracer is None:
            yield lambda _, __: None
            return
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind

        span = self.tracer.start_span(name, context=extract(headers), kind=SpanKind.SERVER)
        try:
            yield span.set_attribute
        finally:
            span.end()


def tracing(wanted: bool) -> Tracing:
    """Spans as the variables OTEL_EXPORTER_OTLP_ENDPOINT and the like say.

    Raises:
        UserError: a package is missing.
    """
    if not wanted:
        return Tracing()
    for package in ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"):
        try:
            version(package)
        except PackageNotFoundError as error:
            raise UserError(
                f"traces: needs {package}, which is not installed; pip install "
                "opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
            ) from error
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # type: ignore[import-not-found]
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": "foreword"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider.get_tracer("foreword"))
