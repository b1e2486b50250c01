"""A real scrape of a real prometheus_client, and our own page says the same."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import prometheus_client
import pytest
import requests
from hypothesis import given, settings
from made_records import attempt, failed, notes, stream, tell
from prometheus_client.parser import text_string_to_metric_families

from holystream.errors import ConfigurationError
from holystream.telemetry import Telemetry
from holystream.telemetry.exposition import CONTENT_TYPE, render
from holystream.telemetry.names import FAMILIES
from holystream.telemetry.prometheus import PrometheusExporter


def samples(page):
    """Return what a page says, but zeros, and when something was created."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.value and not sample.name.endswith("_created")
    }


@pytest.fixture
def exported():
    """Telemetry, and what Prometheus gets from it over HTTP."""
    registry = prometheus_client.CollectorRegistry()
    telemetry = Telemetry()
    PrometheusExporter(registry=registry).attach(telemetry)
    server, thread = prometheus_client.start_http_server(
        0, addr="127.0.0.1", registry=registry
    )

    def scrape():
        url = f"http://127.0.0.1:{server.server_port}/metrics"
        answer = requests.get(url, timeout=20)
        answer.raise_for_status()
        return answer.text

    yield telemetry, scrape
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("outcome", ["cancelled", "closed"])
def test_a_stream_that_its_caller_ended_is_no_error(exported, outcome):
    telemetry, scrape = exported
    telemetry.opened("openai", "eu", "gpt-5")
    telemetry.attempt(attempt(outcome=outcome, error_type="StreamClosed"))
    telemetry.stream(stream(outcome=outcome, error_type="StreamClosed"))
    assert "StreamClosed" not in scrape()
    assert "StreamClosed" not in render(telemetry.metrics())
    assert telemetry.metrics().attempt_errors == {}


def test_a_scrape_over_http(exported):
    telemetry, scrape = exported
    telemetry.opened("openai", "eu", "gpt-5")
    telemetry.opened("openai", "eu", "gpt-5")
    telemetry.attempt(failed(error="IdleTimeout"))
    telemetry.attempt(attempt(number=2, strategy="prefill"))
    telemetry.stream(stream(interruptions=1, recoveries=(0.5,), saved_tokens=9))
    found = samples(scrape())
    who = {("provider", "openai"), ("model", "gpt-5")}

    def value(name, **labels):
        return found[f"holystream_{name}", frozenset(who | set(labels.items()))]

    assert value("streams_active") == 1
    assert value("streams_total", outcome="done") == 1
    assert value("attempts_total", outcome="failed") == 1
    assert value("retries_total", reason="IdleTimeout") == 1
    assert value("resumptions_total", strategy="prefill") == 1
    assert value("tokens_total", direction="input") == 7
    assert value("tokens_total", direction="output") == 30
    assert value("saved_tokens_total") == 9
    assert value("recovery_seconds_sum") == 0.5
    assert value("time_to_first_token_seconds_sum") == 0.25
    assert value("time_to_first_token_seconds_bucket", le="0.32") == 1
    assert value("stream_duration_seconds_count") == 1
    assert "s-1" not in scrape()
    assert "req-1" not in scrape()
    assert samples(render(telemetry.metrics())) == found


@settings(max_examples=50)
@given(notes)
def test_our_own_page_says_the_same(told):
    registry = prometheus_client.CollectorRegistry()
    telemetry = Telemetry()
    PrometheusExporter(registry=registry).attach(telemetry)
    for note in told:
        tell(telemetry, note)
    theirs = samples(prometheus_client.generate_latest(registry).decode())
    ours = samples(render(telemetry.metrics()))
    # More that ended than were opened: nobody does that, and one page says -1.
    both = [
        {
            key: value
            for key, value in page.items()
            if "active" not in key[0] or value > 0
        }
        for page in (theirs, ours)
    ]
    assert both[0] == both[1]


def test_our_own_page_is_one_that_prometheus_reads():
    telemetry = Telemetry()
    telemetry.opened("openai", "eu", 'a "model"\\\n\ud800')
    page = render(telemetry.metrics())
    page.encode("utf-8")
    (name,) = {
        labels
        for (name, labels), _ in samples(page).items()
        if name == "holystream_streams_active"
    }
    assert dict(name)["model"] == 'a "model"\\\n?'
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")
    families = {
        family.name: family.type for family in text_string_to_metric_families(page)
    }
    assert families == {
        family.name.removesuffix("_total"): family.kind for family in FAMILIES
    }


def test_two_clients_add_up_in_one_exporter_until_they_are_detached():
    registry = prometheus_client.CollectorRegistry()
    exporter = PrometheusExporter(registry=registry)
    one, other = Telemetry(), Telemetry()
    one.opened("openai", "eu", "gpt-5")  # before it was attached
    detach = exporter.attach(one)
    exporter.attach(other)
    one.stream(stream())
    other.stream(stream())
    detach()
    one.stream(stream())
    labels = {"provider": "openai", "model": "gpt-5"}
    done = registry.get_sample_value(
        "holystream_streams_total", {**labels, "outcome": "done"}
    )
    assert done == 2


def test_what_a_ctrl_c_kept_from_the_gauge_is_made_good():
    registry = prometheus_client.CollectorRegistry()
    telemetry = Telemetry()
    struck = []

    def strike(*_):
        if struck:
            raise struck.pop()

    def active():
        labels = {"provider": "openai", "model": "gpt-5"}
        return registry.get_sample_value("holystream_streams_active", labels)

    telemetry.add_hook(strike, opened=strike)
    PrometheusExporter(registry=registry).attach(telemetry)
    telemetry.opened("openai", "eu", "gpt-5")
    struck.append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        telemetry.opened("openai", "eu", "gpt-5")
    telemetry.stream(stream())
    assert active() == 1
    struck.append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        telemetry.stream(stream())
    telemetry.opened("openai", "eu", "gpt-5")
    assert active() == 1
    telemetry.stream(stream())
    assert active() == 0


def test_what_is_detached_is_not_active_any_more():
    registry = prometheus_client.CollectorRegistry()
    exporter = PrometheusExporter(registry=registry)
    one, other = Telemetry(), Telemetry()
    detach = exporter.attach(one)
    exporter.attach(other)
    one.opened("openai", "eu", "gpt-5")
    other.opened("openai", "eu", "gpt-5")
    labels = {"provider": "openai", "model": "gpt-5"}
    assert registry.get_sample_value("holystream_streams_active", labels) == 2
    detach()
    detach()
    assert registry.get_sample_value("holystream_streams_active", labels) == 1


def test_the_default_registry_is_theirs_and_takes_one_exporter():
    exporter = PrometheusExporter()
    try:
        with pytest.raises(ConfigurationError, match="Duplicated") as caught:
            PrometheusExporter()
        assert "registry=CollectorRegistry()" in str(caught.value)
    finally:
        for metric in exporter._metrics.values():
            prometheus_client.REGISTRY.unregister(metric)


def test_what_was_registered_in_vain_is_taken_back():
    registry = prometheus_client.CollectorRegistry()
    theirs = prometheus_client.Gauge(FAMILIES[3].name, "Theirs", registry=registry)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=FAMILIES[3].name):
            PrometheusExporter(registry=registry)
    registry.unregister(theirs)
    PrometheusExporter(registry=registry)


def test_attached_twice_is_attached_once():
    registry = prometheus_client.CollectorRegistry()
    exporter, telemetry = PrometheusExporter(registry=registry), Telemetry()
    exporter.attach(telemetry)
    detach = exporter.attach(telemetry)
    telemetry.opened("openai", "eu", "gpt-5")
    telemetry.opened("openai", "eu", "gpt-5")
    telemetry.attempt(failed())
    telemetry.attempt(attempt(number=2))
    telemetry.stream(stream())
    page = prometheus_client.generate_latest(registry).decode()
    assert samples(page) == samples(render(telemetry.metrics()))
    detach()
    telemetry.stream(stream())
    labels = {"provider": "openai", "model": "gpt-5"}
    active = registry.get_sample_value("holystream_streams_active", labels)
    done = registry.get_sample_value(
        "holystream_streams_total", {**labels, "outcome": "done"}
    )
    assert (active, done) == (0, 1)


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigurationError, match=re.escape("holystream[prometheus]")):
        PrometheusExporter()


def test_names_follow_the_rules_of_prometheus():
    for family in FAMILIES:
        assert re.fullmatch(r"holystream_[a-z_]+", family.name)
        assert family.name.endswith("_total") == (family.kind == "counter")
        timed = family.kind in {"histogram", "summary"}
        assert family.name.endswith("_seconds") == timed
        assert family.label in {None, "outcome", "reason", "strategy", "direction"}


PROCESS = """
    import sys
    sys.path.insert(0, {here!r})
    from made_records import stream
    from holystream.telemetry import Telemetry
    from holystream.telemetry.prometheus import PrometheusExporter

    telemetry = Telemetry()
    PrometheusExporter().attach(telemetry)
    telemetry.opened("openai", "eu", "gpt-5")
    telemetry.stream(stream())
"""


@pytest.mark.slow
def test_the_processes_of_a_server_add_up(tmp_path):
    """As gunicorn's workers do, with PROMETHEUS_MULTIPROC_DIR."""
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    code = textwrap.dedent(PROCESS).format(here=str(Path(__file__).parent))
    for _ in range(2):
        subprocess.run(
            [sys.executable, "-c", code], check=True, env=environ, timeout=50
        )
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = prometheus_client.CollectorRegistry()
    MultiProcessCollector(registry, path=str(tmp_path))
    found = samples(prometheus_client.generate_latest(registry).decode())
    who = {("provider", "openai"), ("model", "gpt-5")}
    assert (
        found["holystream_streams_total", frozenset(who | {("outcome", "done")})] == 2
    )
    assert found["holystream_stream_duration_seconds_count", frozenset(who)] == 2
