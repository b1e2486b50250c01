"""``holystream doctor``: what it prints for people and for programs; its status."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import pytest
from loopback import blackhole, until

from holystream.cli import main
from holystream.cli.doctor import examination
from holystream.cli.doctor.examination import CHECKS
from holystream.cli.doctor.findings import PROBLEMS
from holystream.simulator import Script, Simulator

KEY = "sk-4711-do-not-show-me"
NAMES = [check.name for check in CHECKS]


@pytest.fixture
def closed_url():
    """The URL of a port that nobody listens on, nor will."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{sock.getsockname()[1]}/v1"


def rows(out):
    """Return the label of each check by its name, in their order."""
    lines = out.splitlines()[2:]
    end = lines.index("")
    words = [line.split(None, 2) for line in lines[:end] if not line.startswith(" ")]
    return {name: label for label, name, _ in words}


def test_all_is_well(run):
    # An answer too short for a verdict: this machine may be as slow as it likes.
    with Simulator(api_keys=[KEY], text="Hm.") as server:
        result = run("doctor", "--base-url", server.base_url)
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith("holystream doctor: openai-compatible\n\n")
    found = rows(result.out)
    assert list(found) == NAMES
    others = {"tls": "skip", "clock": "skip", "buffering": "warn"}
    assert found == dict.fromkeys(NAMES, "ok") | others
    assert " events in " in result.out
    assert f"-> {PROBLEMS['buffering.short'].advice}\n" in result.out
    assert "\n7 ok, 1 to look at, 0 failed, 2 skipped\n" in result.out


def test_a_failure_is_a_status_and_has_its_advice(run, closed_url):
    result = run("doctor", "--base-url", closed_url)
    assert (result.status, result.err) == (1, "")
    found = rows(result.out)
    assert found["tcp"] == "FAIL"
    assert [found[name] for name in NAMES[6:]] == ["skip"] * 4
    assert f"-> {PROBLEMS['tcp.unreachable'].advice}\n" in result.out
    assert "skip  authentication  needs tls\n" in result.out
    assert "\n5 ok, 0 to look at, 1 failed, 4 skipped\n" in result.out


def test_programs_get_json(run, sim, environment):
    environment["HOLYSTREAM_API_KEY"] = "sk-0815-somebody-else"
    result = run("doctor", "--base-url", sim.base_url, "--json")
    assert (result.status, result.err) == (1, "")
    report = json.loads(result.out)
    assert report["provider"] == "openai-compatible"
    assert report["base_url"] == sim.base_url
    assert report["status"] == "fail"
    assert [check["check"] for check in report["checks"]] == NAMES
    checks = {check["check"]: check for check in report["checks"]}
    refused = checks["authentication"]
    assert refused["status"] == "fail"
    assert refused["problem"] == "authentication.refused"
    assert "HOLYSTREAM_API_KEY" in refused["advice"]
    assert refused["facts"] == {"status": 401}
    assert checks["tls"]["status"] == "skipped"
    assert checks["proxy"]["advice"] is None
    assert "0815" not in result.out


def test_warnings_are_no_failure(run):
    with Simulator(text="Hm.") as open_to_all:
        result = run("doctor", "--base-url", open_to_all.base_url, "--json")
    assert result.status == 0
    report = json.loads(result.out)
    assert report["status"] == "warn"
    problems = {check["problem"] for check in report["checks"]}
    assert "authentication.open" in problems


def test_a_key_is_not_shown_by_a_server_that_repeats_it(run, sim):
    # The fixture looks for the key in all that is printed.
    sim.play(Script(echo_key=True))
    words = ("--stream", "--model", "m")
    result = run("doctor", "--base-url", sim.base_url, *words)
    assert result.status == 1
    assert "FAIL  buffering" in result.out
    assert "***" in result.out


def test_a_base_url_that_cannot_be_used_stops_the_rest(run):
    result = run("doctor", "--base-url", "api.example/v1")
    assert result.status == 1
    found = rows(result.out)
    assert (found["key"], found["base-url"]) == ("ok", "FAIL")
    assert "skip  proxy           needs base-url\n" in result.out


def test_the_provider_decides_key_and_url(run):
    result = run("doctor", "--provider", "azure", "--json")
    assert result.status == 1
    checks = {each["check"]: each for each in json.loads(result.out)["checks"]}
    assert "AZURE_OPENAI_API_KEY" in checks["key"]["text"]
    assert "https://RESOURCE.openai.azure.com" in checks["base-url"]["advice"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--stream"], "--stream needs --model NAME"),
        (["--provider", "nobody"], "--provider 'nobody' is unknown: use one of"),
        (["--timeout", "0"], "must be seconds, above 0"),
        (["--timeout", "nan"], "must be seconds, above 0"),
        (["--timeout", "soon"], "must be seconds, above 0"),
        (["--timeout", "301"], "up to 300"),
    ],
)
def test_bad_arguments_are_named(run, words, complaint):
    result = run("doctor", *words)
    assert (result.status, result.out) == (2, "")
    assert complaint in result.err


def test_the_help_says_the_cost_and_the_statuses(run):
    out = run("doctor", "--help").out
    assert "at most 200 tokens" in out
    assert "1  a check failed" in out
    assert max(map(len, out.splitlines())) <= 80


def test_ctrl_c_ends_it(start, finish):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        words = ("--timeout", "200", "--base-url", url)
        process = start("doctor", *words)
        # The first connection is the check of tcp; the next one asks, and waits.
        server.settimeout(50)
        with server.accept()[0], server.accept()[0] as asked:
            asked.settimeout(50)
            assert asked.recv(65536).startswith(b"GET /v1/models ")
            process.send_signal(signal.SIGINT)
            result = finish(process)
    assert result.status == 130
    assert "ok    tcp" in result.out


def test_ctrl_c_does_not_wait_for_a_connection(start, finish):
    with blackhole() as port:

        def connecting():
            return Path("/proc/net/tcp").read_text().count(f"0100007F:{port:04X} 02")

        before = connecting()
        url = f"http://127.0.0.1:{port}/v1"
        process = start("doctor", "--base-url", url, "--timeout", "300")
        until(lambda: connecting() > before, "the doctor connects")
        process.send_signal(signal.SIGINT)
        result = finish(process)
    assert result.status == 130
    assert "tcp" not in result.out


def test_a_check_that_breaks_is_told_and_the_others_go_on(monkeypatch, capsys, sim):
    def break_down(case):
        raise RuntimeError("sk-4711")

    broken = examination.Check("key", break_down)
    checks = [broken if check.name == "key" else check for check in CHECKS]
    monkeypatch.setattr(examination, "CHECKS", checks)
    assert main(["doctor", "--base-url", sim.base_url]) == 1
    out = capsys.readouterr().out
    assert "FAIL  key             the check raised RuntimeError\n" in out
    assert f"-> {PROBLEMS['doctor.broken'].advice}" in out
    assert "4711" not in out
    assert list(rows(out)) == NAMES
