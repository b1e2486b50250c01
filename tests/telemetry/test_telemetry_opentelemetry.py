"""What a real OpenTelemetry SDK gets: the names of the conventions, and no content."""

from __future__ import annotations

import re
import sys

import pytest
from made_records import attempt, stream
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as released
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics as metrics_released
from opentelemetry.trace import SpanKind, StatusCode

from holystream.errors import ConfigurationError
from holystream.events import Usage
from holystream.telemetry import Telemetry
from holystream.telemetry.opentelemetry import OpenTelemetryExporter
from holystream.telemetry.semconv import LATEST, OPT_IN, VERSIONS, asked_for


class Sdk:
    """An SDK that keeps all in memory, and telemetry that is attached to it."""

    def __init__(self, **options):
        self._spans = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader])
        self.telemetry = Telemetry()
        self.detach = OpenTelemetryExporter(
            tracer_provider=self.tracers, meter_provider=self.meters, **options
        ).attach(self.telemetry)

    @property
    def spans(self):
        return self._spans.get_finished_spans()

    @property
    def points(self):
        """The points of all metrics, by name."""
        data = self._reader.get_metrics_data()
        return {
            metric.name: (metric.unit, list(metric.data.data_points))
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def sdk():
    made = Sdk(semconv="latest")
    yield made
    made.tracers.shutdown()
    made.meters.shutdown()


def test_a_span_of_a_stream(sdk):
    usage = Usage(
        prompt_tokens=7, completion_tokens=30, reasoning_tokens=3, cached_tokens=2
    )
    sdk.telemetry.attempt(attempt())
    sdk.telemetry.stream(stream(provider="azure", strategies=("prefill",), usage=usage))
    (span,) = sdk.spans
    assert span.name == "chat gpt-5"
    assert span.kind is SpanKind.CLIENT
    assert span.start_time == 1_790_000_000 * 10**9
    assert span.end_time - span.start_time == 1_500_000_000
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "azure.ai.openai",
        "gen_ai.request.model": "gpt-5",
        "gen_ai.request.stream": True,
        "gen_ai.response.model": "gpt-5-2026-08-01",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.25,
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 30,
        "gen_ai.usage.cache_read.input_tokens": 2,
        "gen_ai.usage.reasoning.output_tokens": 3,
        "holystream.stream.id": "s-1",
        "holystream.stream.outcome": "done",
        "holystream.endpoint": "eu",
        "holystream.priority": "NORMAL",
        "holystream.guarantee": "SINGLE",
        "holystream.attempts": 1,
        "holystream.interruptions": 0,
        "holystream.strategies": ("prefill",),
        "holystream.queue.duration": 0.0,
        "holystream.request.id": "req-1",
    }


def test_the_metrics_of_a_stream(sdk):
    sdk.telemetry.stream(stream())
    common = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-5",
        "gen_ai.response.model": "gpt-5-2026-08-01",
    }
    unit, (point,) = sdk.points["gen_ai.client.operation.duration"]
    assert (unit, point.sum, dict(point.attributes)) == ("s", 1.5, common)
    assert point.explicit_bounds[:3] == (0.01, 0.02, 0.04)
    assert point.explicit_bounds[-1] == 81.92
    unit, (point,) = sdk.points["gen_ai.client.operation.time_to_first_chunk"]
    assert (unit, point.sum, dict(point.attributes)) == ("s", 0.25, common)
    unit, points = sdk.points["gen_ai.client.token.usage"]
    assert unit == "{token}"
    assert points[0].explicit_bounds[-1] == 67108864
    found = {point.attributes["gen_ai.token.type"]: point.sum for point in points}
    assert found == {"input": 7, "output": 30}


def test_an_error_is_named_by_its_class(sdk):
    sdk.telemetry.stream(
        stream(outcome="error", error_type="IdleTimeout", ttft=None, usage=None)
    )
    (span,) = sdk.spans
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "IdleTimeout"
    assert span.attributes["error.type"] == "IdleTimeout"
    assert "gen_ai.response.time_to_first_chunk" not in span.attributes
    _, (point,) = sdk.points["gen_ai.client.operation.duration"]
    assert point.attributes["error.type"] == "IdleTimeout"
    assert "gen_ai.client.operation.time_to_first_chunk" not in sdk.points


@pytest.mark.parametrize("outcome", ["cancelled", "closed", "abandoned"])
def test_what_the_caller_ended_is_no_error(sdk, outcome):
    sdk.telemetry.stream(stream(outcome=outcome, error_type="StreamCancelled"))
    (span,) = sdk.spans
    assert span.status.status_code is StatusCode.UNSET
    assert "error.type" not in span.attributes
    assert span.attributes["holystream.stream.outcome"] == outcome


@pytest.mark.parametrize(
    ("total", "last", "told"),
    [
        (Usage(prompt_tokens=9), Usage(prompt_tokens=5), 9),
        (Usage(prompt_tokens=9, estimated=True), Usage(prompt_tokens=5), 5),
        (None, Usage(prompt_tokens=5), 5),
        (None, Usage(prompt_tokens=5, estimated=True), None),
        (None, None, None),
    ],
)
def test_only_tokens_that_were_reported_are_told(sdk, total, last, told):
    sdk.telemetry.stream(stream(total_usage=total, usage=last))
    _, points = sdk.points.get("gen_ai.client.token.usage", ("", []))
    found = {point.attributes["gen_ai.token.type"]: point.sum for point in points}
    assert found.get("input") == told


def test_the_parent_is_the_span_around_it(sdk):
    tracer = sdk.tracers.get_tracer("a program")
    with tracer.start_as_current_span("a request") as parent:
        sdk.telemetry.stream(stream())
    assert sdk.spans[0].parent.span_id == parent.get_span_context().span_id


def test_detached_it_hears_nothing(sdk):
    sdk.detach()
    sdk.telemetry.stream(stream())
    assert sdk.spans == ()


@pytest.mark.parametrize(
    ("said", "version"),
    [
        (None, "1.36"),
        ("", "1.36"),
        ("http", "1.36"),
        (LATEST, "latest"),
        (f"http/dup, {LATEST}", "latest"),
    ],
)
def test_the_environment_asks_for_a_version(monkeypatch, said, version):
    monkeypatch.delenv(OPT_IN, raising=False)
    if said is not None:
        monkeypatch.setenv(OPT_IN, said)
    made = Sdk()
    made.telemetry.stream(stream(provider="azure"))
    (span,) = made.spans
    named = {
        "1.36": {"gen_ai.system": "az.ai.openai"},
        "latest": {"gen_ai.provider.name": "azure.ai.openai"},
    }
    both = {"gen_ai.system", "gen_ai.provider.name"} & set(span.attributes)
    assert {name: span.attributes[name] for name in both} == named[version]
    assert asked_for({} if said is None else {OPT_IN: said}) == version
    made.tracers.shutdown()
    made.meters.shutdown()


def test_attached_again_it_takes_the_place_of_the_first(sdk):
    def exporter(semconv="latest"):
        return OpenTelemetryExporter(
            tracer_provider=sdk.tracers, meter_provider=sdk.meters, semconv=semconv
        )

    again = exporter()
    again.attach(sdk.telemetry)
    again.attach(sdk.telemetry)
    sdk.telemetry.stream(stream())
    assert len(sdk.spans) == 1
    exporter("1.36").attach(sdk.telemetry)
    sdk.telemetry.stream(stream())
    assert len(sdk.spans) == 3
    sdk.detach()
    sdk.telemetry.stream(stream())
    assert len(sdk.spans) == 4


def test_a_version_that_is_none():
    with pytest.raises(ConfigurationError, match=re.escape("1.36, latest")):
        OpenTelemetryExporter(semconv="2.0")


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigurationError, match=re.escape("[opentelemetry]")):
        OpenTelemetryExporter()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_names_are_those_of_the_conventions():
    theirs = {
        value
        for module in (released, metrics_released)
        for name, value in vars(module).items()
        if name.startswith("GEN_AI_")
    }
    for names in VERSIONS.values():
        ours = {
            getattr(names, field)
            for field in names.__dataclass_fields__
            if field != "providers"
        }
        assert {name for name in ours if name.startswith("gen_ai.")} <= theirs
        assert all(
            name.startswith(("gen_ai.", "holystream.")) or name == "error.type"
            for name in ours
        )
    systems = {each.value for each in released.GenAiSystemValues}
    assert set(VERSIONS["1.36"].providers.values()) <= systems
    providers = {each.value for each in released.GenAiProviderNameValues}
    assert set(VERSIONS["latest"].providers.values()) <= providers
