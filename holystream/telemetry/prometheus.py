"""Metrics for prometheus_client, which must be installed: ``holystream[prometheus]``.

They are its own counters and histograms, not a collector that looks at our numbers:
only so do they work with `PROMETHEUS_MULTIPROC_DIR`, where the processes of one server
add up. The gauge alone is set to what telemetry knows: counted up and down by hooks, it
would be wrong for good once a Ctrl-C kept one of them from being called.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any, Final

from holystream.errors import ConfigurationError
from holystream.telemetry import names
from holystream.telemetry.collecting import checked
from holystream.telemetry.metrics import BUCKETS
from holystream.telemetry.names import FAMILIES, Family
from holystream.telemetry.records import AttemptRecord
from holystream.telemetry.tally import MOST_MODELS, OTHER, label

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

    from holystream.telemetry.collecting import Telemetry
    from holystream.telemetry.records import StreamRecord

_LOOKS: Final = 10
"""Times that one stream sets the gauge at most, while others come and go."""


class PrometheusExporter:
    """Shows what it is attached to by prometheus_client. Thread-safe.

    One exporter serves any number of clients; a registry takes only one exporter. A
    forked child goes on with its parent's counters, as all of prometheus_client does
    unless `PROMETHEUS_MULTIPROC_DIR` is set.

    Args:
        registry: Where the metrics are registered; prometheus_client's own by default.

    Raises:
        ConfigurationError: prometheus_client is not installed, or the registry has
            metrics of these names.
    """

    __slots__ = ("_attached", "_causes", "_metrics", "_models", "_shown")

    def __init__(self, *, registry: CollectorRegistry | None = None) -> None:
        try:
            import prometheus_client  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ConfigurationError(
                "PrometheusExporter needs prometheus_client: "
                "pip install 'holystream[prometheus]'"
            ) from error
        registry = prometheus_client.REGISTRY if registry is None else registry
        kinds: dict[str, Callable[..., Any]] = {
            "counter": prometheus_client.Counter,
            "gauge": prometheus_client.Gauge,
            "histogram": prometheus_client.Histogram,
            "summary": prometheus_client.Summary,
        }
        options: dict[str, dict[str, Any]] = {
            "gauge": {"multiprocess_mode": "livesum"},
            "histogram": {"buckets": BUCKETS},
        }
        self._metrics: dict[str, Any] = {}
        try:
            for family in FAMILIES:
                self._metrics[family.name] = kinds[family.kind](
                    family.name,
                    family.help,
                    family.labels,
                    registry=registry,
                    **options.get(family.kind, {}),
                )
        except ValueError as error:
            for metric in self._metrics.values():
                registry.unregister(metric)
            raise ConfigurationError(
                f"the registry has such metrics already ({error}): attach the exporter "
                "that made them to each client's telemetry, or give this one a "
                "registry of its own, registry=CollectorRegistry()"
            ) from error
        # Of all these, each use is one step: a look-up, a setting, a copy, a removal.
        self._attached: dict[Telemetry, None] = {}
        self._shown: set[tuple[str, str]] = set()
        self._models: dict[tuple[str, str], tuple[str, str]] = {}
        self._causes: dict[str, str] = {}

    def attach(self, telemetry: Telemetry) -> Callable[[], None]:
        """Show what ``telemetry`` is told of from now on.

        Streams that are open already count as active. What it is attached to already
        stays so, once.

        Returns:
            Detaches it again.

        Raises:
            ConfigurationError: It is not a client's telemetry.
        """
        self._attached[checked(telemetry)] = None
        remove = telemetry.set_hook(self, self._record, opened=self._opened)
        self._show_active()

        def detach() -> None:
            remove()
            self._attached.pop(telemetry, None)
            self._show_active()

        return detach

    def _opened(self, _provider: str, _endpoint: str, _model: str) -> None:
        self._show_active()

    def _show_active(self) -> None:
        """Set the gauge, and again if that changed meanwhile: the last one is right."""
        shown: dict[tuple[str, str], int] | None = None
        for _ in range(_LOOKS):
            active = self._sum()
            if active == shown:
                return
            for who in self._shown.copy() | active.keys():
                self._shown.add(who)
                self._metrics[names.ACTIVE.name].labels(*who).set(active.get(who, 0))
            shown = active

    def _sum(self) -> dict[tuple[str, str], int]:
        found: collections.Counter[tuple[str, str]] = collections.Counter()
        for telemetry in self._attached.copy():
            for who, number in telemetry.active().items():
                found[self._who(*who)] += number
        return dict(found)

    def _record(self, record: AttemptRecord | StreamRecord) -> None:
        if isinstance(record, AttemptRecord):
            self._attempt(record)
        else:
            self._stream(record)

    def _attempt(self, record: AttemptRecord) -> None:
        who = (record.provider, record.model)
        self._metric(names.ATTEMPTS, *who, record.outcome).inc()
        cause = self._causes.pop(record.stream_id, "unknown")
        if record.number > 1:
            self._metric(names.RETRIES, *who, cause).inc()
        if record.outcome == "failed":
            self._causes[record.stream_id] = record.error_type or "unknown"
        if record.strategy is not None:
            self._metric(names.RESUMPTIONS, *who, record.strategy).inc()

    def _stream(self, record: StreamRecord) -> None:
        who = (record.provider, record.model)
        self._causes.pop(record.stream_id, None)
        self._show_active()
        self._metric(names.STREAMS, *who, record.outcome).inc()
        # What its caller ended has an error too, which is no fault.
        if record.error_type is not None and record.outcome == "error":
            self._metric(names.ERRORS, *who, record.error_type).inc()
        self._metric(names.DURATION, *who).observe(record.duration)
        self._metric(names.QUEUE_WAIT, *who).observe(record.queued)
        if record.ttft is not None:
            self._metric(names.TTFT, *who).observe(record.ttft)
        for seconds in record.recoveries:
            self._metric(names.RECOVERY, *who).observe(seconds)
        usage = record.total_usage or record.usage
        if usage is not None:
            self._metric(names.TOKENS, *who, "input").inc(usage.prompt_tokens)
            self._metric(names.TOKENS, *who, "output").inc(usage.completion_tokens)
        self._metric(names.INTERRUPTIONS, *who).inc(record.interruptions)
        self._metric(names.WASTED, *who).inc(record.wasted_tokens)
        self._metric(names.SAVED, *who).inc(record.saved_tokens)

    def _metric(self, family: Family, provider: str, model: str, *more: str) -> Any:
        return self._metrics[family.name].labels(*self._who(provider, model), *more)

    def _who(self, provider: str, model: str) -> tuple[str, str]:
        """Return by which labels they are shown."""
        who = self._models.get((provider, model))
        if who is None:
            if len(self._models) < MOST_MODELS:
                who = (label(provider), label(model))
                self._models[provider, model] = who
            else:
                who = (label(provider), OTHER)
        return who
