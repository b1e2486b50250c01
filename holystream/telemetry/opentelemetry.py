"""Spans and metrics for OpenTelemetry's API, an extra: ``holystream[opentelemetry]``.

The names are in `semconv`. Without an SDK that the program sets up, the API does
nothing. No prompt and no answer is told, whatever the environment asks for.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from holystream.errors import ConfigurationError
from holystream.telemetry.collecting import checked
from holystream.telemetry.records import StreamRecord
from holystream.telemetry.semconv import SECONDS, TOKENS, VERSIONS, Names, asked_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from holystream.telemetry.collecting import Telemetry
    from holystream.telemetry.records import AttemptRecord
    from holystream.telemetry.semconv import Semconv

    Attributes = dict[str, str | bool | int | float | tuple[str, ...]]

_SCOPE: Final = "holystream"
_NANOSECONDS: Final = 1_000_000_000


class OpenTelemetryExporter:
    """Tells OpenTelemetry of each stream of what it is attached to. Thread-safe.

    A span ``chat {model}`` begins when the stream was opened and ends when it ended;
    its parent is the span that is current where it ended. One exporter serves any
    number of clients; attached again, as by a notebook's cell that is run twice, it or
    another one with the same arguments takes the place of the first.

    Args:
        tracer_provider: Makes the tracer; the global one by default.
        meter_provider: Makes the meter; the global one by default.
        semconv: The version of the names, "1.36" or "latest"; by default what
            ``OTEL_SEMCONV_STABILITY_OPT_IN`` asks for.

    Raises:
        ConfigurationError: opentelemetry-api is not installed, or there is no such
            version.
    """

    __slots__ = ("_duration", "_first_chunk", "_key", "_names", "_tokens", "_tracer")

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        semconv: Semconv | None = None,
    ) -> None:
        try:
            from opentelemetry import metrics, trace  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ConfigurationError(
                "OpenTelemetryExporter needs opentelemetry-api: "
                "pip install 'holystream[opentelemetry]'"
            ) from error
        version = asked_for(os.environ) if semconv is None else semconv
        if version not in VERSIONS:
            raise ConfigurationError(
                f"semconv= is one of {', '.join(VERSIONS)}, not {version!r}"
            )
        self._key = (OpenTelemetryExporter, tracer_provider, meter_provider, version)
        self._names = names = VERSIONS[version]
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)
        meter = metrics.get_meter(_SCOPE, meter_provider=meter_provider)
        self._duration = meter.create_histogram(
            names.operation_duration,
            unit="s",
            description="Seconds from opening a stream to its end",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._first_chunk = meter.create_histogram(
            names.time_to_first_chunk,
            unit="s",
            description="Seconds from opening a stream to its first content",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._tokens = meter.create_histogram(
            names.token_usage,
            unit="{token}",
            description="Tokens of a stream, as its provider reported them",
            explicit_bucket_boundaries_advisory=TOKENS,
        )

    def attach(self, telemetry: Telemetry) -> Callable[[], None]:
        """Tell of what ``telemetry`` is told of from now on.

        Returns:
            Detaches it again.

        Raises:
            ConfigurationError: It is not a client's telemetry.
        """
        return checked(telemetry).set_hook(self._key, self._record)

    def _record(self, record: AttemptRecord | StreamRecord) -> None:
        if isinstance(record, StreamRecord):
            common = _common(self._names, record)
            self._span(record, common)
            self._measure(record, common)

    def _span(self, record: StreamRecord, common: Attributes) -> None:
        from opentelemetry.trace import (  # noqa: PLC0415 - an extra
            SpanKind,
            Status,
            StatusCode,
        )

        began = int(record.started_at * _NANOSECONDS)
        span = self._tracer.start_span(
            f"chat {record.model}",
            kind=SpanKind.CLIENT,
            attributes=common | _more(self._names, record),
            start_time=began,
        )
        if record.outcome == "error":
            span.set_status(Status(StatusCode.ERROR, record.error_type))
        span.end(end_time=began + int(record.duration * _NANOSECONDS))

    def _measure(self, record: StreamRecord, common: Attributes) -> None:
        self._duration.record(record.duration, common)
        if record.ttft is not None:
            self._first_chunk.record(record.ttft, common)
        # What all attempts used together if it is known, else what one reported.
        for usage in (record.total_usage, record.usage):
            if usage is not None and not usage.estimated:
                kind = self._names.token_type
                self._tokens.record(usage.prompt_tokens, {**common, kind: "input"})
                self._tokens.record(usage.completion_tokens, {**common, kind: "output"})
                break


def _common(names: Names, record: StreamRecord) -> Attributes:
    """Return the attributes of span and metrics alike."""
    found: Attributes = {
        names.operation: "chat",
        names.provider: names.providers.get(record.provider, record.provider),
        names.request_model: record.model,
    }
    if record.response_model is not None:
        found[names.response_model] = record.response_model
    if record.outcome == "error" and record.error_type is not None:
        found[names.error_type] = record.error_type
    return found


def _more(names: Names, record: StreamRecord) -> Attributes:
    """Return the attributes of the span alone."""
    found: Attributes = {
        names.stream: True,
        names.stream_id: record.stream_id,
        names.outcome: record.outcome,
        names.endpoint: record.endpoint,
        names.priority: record.priority,
        names.guarantee: record.guarantee,
        names.attempts: record.attempts,
        names.interruptions: record.interruptions,
        names.queued: record.queued,
    }
    if record.strategies:
        found[names.strategies] = record.strategies
    if record.finish_reason is not None:
        found[names.finish_reasons] = (record.finish_reason,)
    if record.ttft is not None:
        found[names.first_chunk] = record.ttft
    if record.request_id is not None:
        found[names.request_id] = record.request_id
    if record.usage is not None and not record.usage.estimated:
        found[names.input_tokens] = record.usage.prompt_tokens
        found[names.output_tokens] = record.usage.completion_tokens
        found[names.cached_tokens] = record.usage.cached_tokens
        found[names.reasoning_tokens] = record.usage.reasoning_tokens
    return found
