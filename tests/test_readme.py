"""Every example in the README and in the API reference runs as it stands there.

The client is the reader's own, with its defaults; only the provider's base URL leads to
a simulator.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import flask
import pytest
import requests
from loopback import Peer, read_request
from werkzeug.serving import make_server

import holystream
from holystream.providers import registry
from holystream.simulator import Script, Simulator
from holystream.testing import SleeplessClock

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
API = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
ERRORS = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
ANSWER = "One, two, three. \N{GRINNING FACE}\n"


def _blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def _example(text, marker):
    (code,) = [code for code in _blocks(text, "python") if marker in code]
    return code


@pytest.fixture
def simulator():
    with Simulator(text=ANSWER) as simulator:
        yield simulator


@pytest.fixture
def reader(simulator, monkeypatch):
    """What the reader has typed so far; its default provider is the simulator."""
    monkeypatch.setattr(
        registry,
        "PROFILES",
        {
            name: dataclasses.replace(profile, base_url=simulator.base_url)
            for name, profile in registry.PROFILES.items()
        },
    )
    monkeypatch.setenv("HOLYSHEEP_API_KEY", "hs-readme-4f9a1c")
    with holystream.Client(model="deepseek-v3.2") as client:
        yield {"__name__": "__main__", "holystream": holystream, "client": client}


def _run(code, reader):
    exec(compile(code, "example", "exec"), reader)


def test_every_example_has_a_test():
    tests = Path(__file__).read_text(encoding="utf-8")
    markers = re.findall(
        r'_example\((?:README|API|ERRORS), (?:"([^"]+)"|\'([^\']+)\')\)', tests
    )
    for code in _blocks(README + API + ERRORS, "python"):
        assert any((one or other) in code for one, other in markers), code


def test_six_lines_print_the_answer(reader, simulator, capsys):
    _run(_example(README, "Explain backoff in 3 sentences"), reader)
    assert capsys.readouterr().out == ANSWER
    (request,) = simulator.requests
    assert request.headers["Authorization"] == "Bearer hs-readme-4f9a1c"
    assert request.json["model"] == "deepseek-v3.2"
    reader["client"].close()


def test_another_server_needs_only_its_base_url(reader, simulator, monkeypatch):
    monkeypatch.delenv("HOLYSHEEP_API_KEY")
    code = _example(README, "base_url=")
    assert "http://localhost:8000/v1" in code
    _run(code.replace("http://localhost:8000/v1", simulator.base_url), reader)
    with reader["client"] as client:
        assert client.stream("Count to three").get_final_text() == ANSWER
    (request,) = simulator.requests
    assert "Authorization" not in request.headers
    assert request.json["model"] == "qwen3"


def test_a_completion_says_what_it_is_worth(reader, simulator, capsys):
    simulator.play(Script(cut_at=len(simulator.body({"messages": []})) // 2))
    _run(_example(README, "get_final_completion"), reader)
    assert capsys.readouterr().out.startswith(f"{ANSWER} REPLAYED 2 Usage(")


def test_waiting_can_be_watched(reader, simulator, capsys):
    simulator.play(Script(status=503, headers={"retry-after-ms": "20"}))
    _run(_example(README, "holystream.Waiting"), reader)
    printed = capsys.readouterr().out
    assert re.fullmatch(
        rf"\[again in 0\.\d s: (backoff|server hint)\]\n{ANSWER}", printed
    )


def test_what_breaks_off_at_one_endpoint_goes_on_at_another(reader, simulator):
    code = _example(README, "endpoints=[")
    for number in "12":
        url = f"https://gpu-{number}.example.com/v1"
        assert url in code
        code = code.replace(url, simulator.base_url)
    _run(code, reader)
    simulator.play(Script(cut_at=500))
    with (
        reader["client"] as client,
        client.stream("Count to three", temperature=0) as stream,
    ):
        events = list(stream)
    used = [it.endpoint for it in events if isinstance(it, holystream.Connected)]
    assert sorted(used) == ["gpu-1", "gpu-2"]
    assert stream.partial_text == ANSWER


def test_many_prompts(reader, simulator, capsys):
    simulator.play(Script(status=400))
    _run(_example(README, "client.map("), reader)
    printed = capsys.readouterr().out
    assert printed.count(ANSWER) == 2
    assert re.search(r"^[012] .*request_id: ", printed, re.MULTILINE)
    assert len(simulator.requests) == 3


def test_the_whole_text_when_all_is_well(reader):
    _run(_example(README, "except holystream.StreamInterrupted"), reader)
    assert reader["text"] == ANSWER


def test_partial_text_is_kept(reader, simulator):
    body = simulator.body({"model": "deepseek-v3.2", "messages": []})
    simulator.play(Script(cut_at=body.index(b"data: [DONE]") // 2, times=0))
    _run(_example(README, "except holystream.StreamInterrupted"), reader)
    kept, mark = reader["text"].removesuffix(" [...]"), reader["text"][-6:]
    assert mark == " [...]"
    assert kept
    assert ANSWER.startswith(kept)
    assert kept != ANSWER


@pytest.mark.parametrize(
    ("script", "ending"),
    [
        (Script(status=401), holystream.AuthenticationError),
        (Script(status=503, times=0), holystream.StreamInterrupted),
    ],
)
def test_the_beginning_is_kept_whatever_ended_it(reader, simulator, script, ending):
    code = _example(ERRORS, "except holystream.StreamError")
    code = code.replace('three")', 'three", temperature=0)')
    body = simulator.body({"model": "deepseek-v3.2", "messages": []})
    simulator.play(Script(cut_at=body.index(b"data: [DONE]") // 2), script)
    with SleeplessClock():
        _run(f"{code}    caught = error\n", reader)
    assert type(reader["caught"]) is ending
    assert reader["text"]
    assert ANSWER.startswith(reader["text"])
    assert reader["text"] != ANSWER


def test_how_it_stands(reader, capsys):
    code = _example(README, "client.pool.holders()")
    with reader["client"].stream("Count to three", stream_id="left-open") as stream:
        stream.open()
        _run(code, reader)
    metrics, holder = capsys.readouterr().out.splitlines()
    assert metrics.startswith("<ClientMetrics: 1 stream opened, 0 ended")
    assert holder.startswith("stream left-open for ")


def test_a_rate_limit_says_when(reader, simulator):
    reader["client"] = reader["client"].with_options(
        retry=holystream.RetryPolicy(attempts=1)
    )
    simulator.play(Script(status=429, headers={"Retry-After": "7"}))
    _run(_example(README, "except holystream.RateLimited"), reader)
    assert reader["text"] == "busy, try again in 7 s"


def test_a_program_that_died_goes_on(reader, simulator, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = _example(README, 'stream_id="count-1"')
    # As far as it came: killed while it printed the third piece.
    dying = code.replace("flush=True)", "flush=True); die()")
    pieces = iter([None, None])
    reader["die"] = lambda: next(pieces)
    with pytest.raises(StopIteration):
        _run(dying, reader)
    shown = capsys.readouterr().out
    assert shown
    reader["client"].close()
    reader["printed"] = len(shown)
    _run(_example(README, "after=printed"), reader)
    assert shown + capsys.readouterr().out == ANSWER
    reader["client"].close()


def test_a_generator_goes_on(reader):
    with SleeplessClock() as clock, Peer(_rows) as peer:
        _run(_example(README, "@holystream.retry_stream"), reader)
        rows = list(reader["rows"](peer.url))
    assert rows == [b"one", b"two", b"three"]
    assert len(clock.waits) == 2


def _rows(sock):
    """Answer with the rows after the asked one, and break off behind the first."""
    request = read_request(sock).decode()
    start = int(request.partition("after=")[2].partition(" ")[0])
    rows = [b"one\n", b"two\n", b"three\n"][start:]
    length = len(b"".join(rows))
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length)
    sock.sendall(rows[0])


def test_flask_view(reader, simulator):
    _run(_example(README, "from flask import"), reader)
    app = reader["app"]
    assert isinstance(app, flask.Flask)
    assert _ask(app) == (200, ANSWER)
    simulator.play(Script(status=401))
    assert _ask(app)[0] == 500
    assert reader["client"].pool.statistics().in_use == 0


def test_django_view(reader, simulator):
    from django.conf import settings

    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF="", SECRET_KEY="x")
    from django.test import RequestFactory

    _run(_example(README, "from django.http import"), reader)
    response = reader["ask"](RequestFactory().get("/ask"))
    assert response["Content-Type"] == "text/plain; charset=utf-8"
    assert b"".join(response.streaming_content).decode() == ANSWER
    response.close()
    assert reader["client"].pool.statistics().in_use == 0


def test_what_compresses_passes_over_what_has_an_encoding(reader, simulator):
    from django.conf import settings

    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF="", SECRET_KEY="x")
    from django.middleware.gzip import GZipMiddleware
    from django.test import RequestFactory

    name, value = "Content-Encoding", "identity"
    assert f"`{name}`, such as `{value}`" in " ".join(README.split())
    _run(_example(README, "from django.http import"), reader)
    view = reader["ask"]

    def encoded(request):
        response = view(request)
        response[name] = value
        return response

    request = RequestFactory().get("/ask", headers={"Accept-Encoding": "gzip"})
    collected, passed = (
        list(GZipMiddleware(asked)(request).streaming_content)
        for asked in (view, encoded)
    )
    assert b"".join(passed).decode() == ANSWER
    assert len(passed) > len(collected)


def test_a_broken_answer_is_marked(reader, simulator):
    _run(_example(README, "def marked(stream)"), reader)
    client = reader["client"]
    assert "".join(reader["marked"](client.stream("Count to three"))) == ANSWER
    body = simulator.body({"model": "deepseek-v3.2", "messages": []})
    simulator.play(Script(cut_at=body.index(b"data: [DONE]") // 2, times=0))
    text = "".join(reader["marked"](client.stream("Count to three")))
    assert text.endswith(" [the answer broke off]")
    left = reader["marked"](client.stream("Count to three", deterministic=True))
    next(left)
    left.close()
    assert client.pool.statistics().in_use == 0


def test_notebook_cell(reader, capsys):
    _run(_example(README, 'print(text, end="")'), reader)
    assert capsys.readouterr().out == ANSWER
    assert reader["stream"].partial_text == ANSWER


def test_tenacity_objects_go_into_a_policy(reader, simulator):
    _run(_example(API, "from tenacity import"), reader)
    with reader["client"].with_options(model="m") as client:
        assert client.stream("Count to three").get_final_text() == ANSWER


def test_a_batch_has_a_budget_of_its_own(reader, simulator):
    _run(_example(API, "batch = client.with_options("), reader)
    simulator.play(*[Script(status=503, headers={"retry-after-ms": "1"})] * 9)
    with SleeplessClock():
        assert reader["batch"].complete("Count to three").attempts == 10
    assert reader["batch"].metrics().budget.spent == 9
    assert reader["client"].metrics().budget.spent == 0


def test_a_completion_becomes_plain_data(reader):
    _run(_example(API, "msgspec.to_builtins"), reader)
    assert reader["row"]["choices"][0]["text"] == ANSWER
    assert json.loads(reader["line"]) == json.loads(json.dumps(reader["row"]))
    assert reader["row"]["guarantee"] == int(holystream.Guarantee.SINGLE)


def test_hooks_are_called_by_name(reader, simulator, capsys):
    simulator.play(Script(status=503, headers={"retry-after-ms": "1"}))
    _run(_example(API, "holystream.Hooks("), reader)
    assert capsys.readouterr().out == f"[attempt 2 of 6]\n{ANSWER}[SINGLE]\n"


def test_any_event_stream(reader, simulator, capsys):
    code = _example(API, "client.event_source(")
    assert "https://example.com/feed" in code
    simulator.play(Script(framing="close"))
    url = f"{simulator.base_url}/chat/completions"
    code = code.replace("https://example.com/feed", url)
    with pytest.raises(holystream.APIError):  # it takes POST alone
        _run(code, reader)
    code = code.replace(f'"{url}"', f'"{url}", method="POST", json=QUESTION')
    message = {"role": "user", "content": "Count to three"}
    reader["QUESTION"] = {"model": "m", "messages": [message], "stream": True}
    _run(code + "        break\n", reader)
    assert "message" in capsys.readouterr().out


def test_the_commands_are_those_of_the_makefile_and_of_the_package():
    commands = [
        shlex.split(line, comments=True)
        for block in _blocks(README, "sh")
        for line in block.splitlines()
    ]
    assert ["make", "demo"] in commands
    assert ["make", "test"] in commands
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {"demo:", "test:"} <= {line.split(" ")[0] for line in makefile.splitlines()}
    (install,) = [command for command in commands if "install" in command]
    extra = re.fullmatch(r"\.\[(\w+)\]", install[-1])[1]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert extra in project["project"]["optional-dependencies"]


def test_the_simulator_command_fails_as_asked():
    (line,) = [
        line
        for block in _blocks(README, "sh")
        for line in block.splitlines()
        if line.startswith("holystream simulator")
    ]
    command = shlex.split(line)
    command[command.index("--port") + 1] = "0"
    holystream_command = shutil.which("holystream", path=Path(sys.executable).parent)
    assert holystream_command
    with subprocess.Popen(
        [holystream_command, *command[1:]], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            base_url = process.stdout.readline().split()[-1]
            with (
                holystream.Client(
                    provider="openai-compatible", base_url=base_url, model="m"
                ) as client,
                client.stream("hello", temperature=0) as stream,
            ):
                assert stream.get_final_completion().attempts == 2
        finally:
            process.terminate()


def _ask(app):
    """Ask the view on a real server; return status and text."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        response = requests.get(
            f"http://127.0.0.1:{server.server_port}/ask", timeout=20
        )
        return response.status_code, response.content.decode()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
