"""docs/telemetry.md: its tables hold every name, and its examples run."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import prometheus_client
import pytest

import holystream
from holystream.simulator import Simulator
from holystream.telemetry.exposition import CONTENT_TYPE
from holystream.telemetry.names import FAMILIES
from holystream.telemetry.semconv import VERSIONS

TEXT = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text("utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def rows(header):
    """Return the cells of the table below this header."""
    lines = TEXT.partition(f"{header}\n")[2].partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in lines]


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
