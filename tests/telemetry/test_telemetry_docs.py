"""docs/telemetry.md: its tables hold every name, and its examples run."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import prometheus_client
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import holystream
from holystream.simulator import Simulator
from holystream.telemetry.exposition import CONTENT_TYPE
from holystream.telemetry.names import FAMILIES
from holystream.telemetry.opentelemetry import OpenTelemetryExporter
from holystream.telemetry.semconv import VERSIONS

TEXT = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text("utf-8")
ENVIRONMENT = "HOLYSTREAM_LOG"
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def rows(header):
    """Return the cells of the table below this header."""
    lines = TEXT.partition(f"{header}\n")[2].partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in lines]


def names(cell):
    """Return the names in a cell: `active`, and `quantile` of `quantile(share)`."""
    return re.findall(r"`(\w+)[`(]", cell)


def test_the_table_of_prometheus_is_the_one_in_the_code():
    assert rows("| name | type | label | |") == [
        [
            f"`{family.name}`",
            family.kind,
            f"`{family.label}`" if family.label else "",
            family.help,
        ]
        for family in FAMILIES
    ]


def test_the_tables_of_opentelemetry_are_the_ones_in_the_code():
    old, new = VERSIONS["1.36"], VERSIONS["latest"]
    said = {row[0]: row[1] for row in rows("| attribute | in version 1.36 |")}
    metrics = {row[0] for row in rows("| metric | |")}
    for field in dataclasses.fields(new):
        if field.name in {"providers", "token_type"}:
            continue
        before, now = getattr(old, field.name), getattr(new, field.name)
        if f"`{now}`" in metrics:
            assert before == now
        else:
            assert said.pop(f"`{now}`") == ("" if before == now else f"`{before}`")
    assert not said
    assert len(metrics) == 3


@pytest.fixture
def given():
    """What the examples begin with: a client that was used."""
    with (
        Simulator(length=30) as server,
        holystream.Client(
            "sk-0123456789abcdef", base_url=server.base_url, model="sim"
        ) as client,
    ):
        client.stream("hello").get_final_text()
        yield {"client": client}


def run(marker, given):
    (code,) = [code for code in EXAMPLES if marker in code]
    exec(compile(code, f"{marker} in telemetry.md", "exec"), given)
    return given


def test_every_example_has_a_test():
    tests = Path(__file__).read_text("utf-8")
    markers = re.findall(r'run\("([^"]+)", given\)', tests)
    for code in EXAMPLES:
        assert any(marker in code for marker in markers), code


def test_the_numbers(given, capsys):
    run("metrics.endpoints", given)
    written = capsys.readouterr().out
    assert written.startswith("0 open, 1 ended, 0 reconnects\n100.0% done, p99 ")
    assert "'finished': 1" in written


def test_the_numbers_of_an_endpoint(given, capsys):
    run("each.in_flight", given)
    assert re.fullmatch(
        r"openai-compatible closed 0 \d\.\d+\n", capsys.readouterr().out
    )


def test_the_table_of_numbers_is_the_one_in_the_code(given):
    numbers = given["client"].metrics().streams
    told = {name for row in rows("| of `streams` | |") for name in names(row[0])}
    shown = {name for name in dir(numbers) if not name.startswith("_")}
    assert told | {"endpoints", "models"} == shown - {"summary", "recovery_seconds"}
    (timing,) = [row for row in rows("| of `streams` | |") if "p99" in row[1]]
    for name in names(timing[1]):
        assert hasattr(numbers.ttft, name)


def test_a_hook(given, capsys):
    run("def slow", given)
    record = holystream.StreamRecord
    seen = []
    given["client"].telemetry.add_hook(seen.append)
    given["client"].stream("hello").get_final_text()
    (stream,) = [each for each in seen if isinstance(each, record)]
    given["slow"](dataclasses.replace(stream, duration=31.0))
    given["remove"]()
    assert capsys.readouterr().out == f"{stream.stream_id} done None\n"


def test_the_log(given, caplog):
    caplog.set_level("DEBUG", "holystream")
    run("log_records", given)
    given["client"].stream("hello").get_final_text()
    assert "model=sim" in caplog.text
    assert "hello" not in caplog.text


def test_what_a_hook_raised_can_be_seen():
    """In a process of its own: pytest has set up logging, and a new user has not."""
    program = """
import sys, holystream
client = holystream.Client(base_url=sys.argv[1], model="m")
client.telemetry.add_hook(lambda record: 1 / 0)
client.complete("hello")
"""
    quiet = {name: value for name, value in os.environ.items() if name != ENVIRONMENT}
    with Simulator(length=30) as server:
        silent, said = (
            subprocess.run(
                [sys.executable, "-c", program, server.base_url],
                env=env,
                capture_output=True,
                text=True,
                check=True,
            ).stderr
            for env in (quiet, quiet | {ENVIRONMENT: "error"})
        )
    assert silent == ""
    assert "ZeroDivisionError" in said


def test_prometheus(given, monkeypatch):
    registry = prometheus_client.CollectorRegistry()
    monkeypatch.setattr(prometheus_client, "REGISTRY", registry)
    run("PrometheusExporter", given)
    given["client"].stream("hello").get_final_text()
    page = prometheus_client.generate_latest(registry).decode()
    assert 'holystream_streams_total{model="sim",outcome="done"' in page


def test_the_hook_of_gunicorn(given, monkeypatch, tmp_path):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    gauge = tmp_path / "gauge_livesum_7.db"
    gauge.touch()
    run("child_exit", given)
    given["child_exit"](None, type("Worker", (), {"pid": 7}))
    assert not gauge.exists()


def test_the_page_without_prometheus_client(given):
    page = run("CONTENT_TYPE", given)["page"].decode()
    assert 'holystream_streams_total{provider="openai-compatible",model="sim"' in page
    assert given["CONTENT_TYPE"] == CONTENT_TYPE


def test_opentelemetry(given):
    run("OpenTelemetryExporter", given)
    given["client"].stream("hello").get_final_text()


def test_the_spans_of_a_map_have_the_parent_that_is_told(given):
    spans, tracers = InMemorySpanExporter(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    OpenTelemetryExporter(tracer_provider=tracers).attach(given["client"].telemetry)
    around = tracers.get_tracer("a program").start_as_current_span("a batch")
    with given["client"].map(["one", "two"]) as results, around as parent:
        assert all(result.ok for result in results)
    parents = [
        span.parent and span.parent.span_id
        for span in spans.get_finished_spans()
        if span.name != "a batch"
    ]
    assert parents == [parent.get_span_context().span_id] * 2
    tracers.shutdown()
