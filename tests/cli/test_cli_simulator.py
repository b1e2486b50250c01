"""``holystream simulator``: what it prints, what it serves, and how it ends."""

from __future__ import annotations

import dataclasses
import signal
import socket
import subprocess

import pytest
from loopback import free_port

from holystream import Client, Overloaded, RetryPolicy, StreamInterrupted
from holystream.cli.simulate import FAULTS
from holystream.simulator import Script


@pytest.fixture
def serve(start):
    """Start the command; return its process and a client for what it prints."""
    clients = []

    def serve_one(*words, **others):
        process = start("simulator", *words, **others)
        url = process.stdout.readline().decode().strip()
        once = RetryPolicy(attempts=1)
        clients.append(
            Client("k", provider="openai-compatible", base_url=url, retry=once)
        )
        return process, clients[-1]

    yield serve_one
    for client in clients:
        client.close()


def text_of(client, prompt="hello"):
    with client.stream(prompt, model="m", temperature=0) as stream:
        return stream.get_final_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_a_signal_and_ends_cleanly(serve, finish, number):
    process, client = serve()
    assert text_of(client, "echo:here I am") == "here I am"
    process.send_signal(number)
    result = finish(process)
    assert (result.status, result.out, result.err) == (0, "", "")


def test_a_signal_ends_it_while_an_answer_stalls(serve, finish):
    process, client = serve("--fault", "stall_at=3000")
    with client.stream("hello", model="m") as stream:
        next(iter(stream.text_stream))
        process.send_signal(signal.SIGTERM)
        assert finish(process).status == 0


def test_it_ends_with_its_standard_input_if_asked_to(serve, finish):
    process, client = serve("--until-eof", stdin=subprocess.PIPE)
    assert text_of(client)
    assert finish(process).status == 0


def test_each_fault_serves_the_next_request(serve):
    _, client = serve(
        *("--fault", "status=503", "--fault", "cut_at=5000,cut=rst,times=1"),
        *("--times", "2", "--text", "every time the same " * 9),
    )
    for _ in range(2):
        with pytest.raises(Overloaded):
            text_of(client)
    with pytest.raises(StreamInterrupted):
        text_of(client)
    assert text_of(client) == "every time the same " * 9


def test_it_listens_where_it_is_told_to(serve):
    port = free_port()
    process, client = serve("--port", str(port), "--host", "127.0.0.1")
    assert f"http://127.0.0.1:{port}/v1" in repr(client)
    assert process.poll() is None


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--fault", "cut_it=7"], "unknown key 'cut_it'; known: "),
        (["--fault", "cut_at=x"], "--fault: cut_at=x: expected a whole number\n"),
        (["--times", "-1", "--fault", "bom"], "times is out of range"),
        (["--port", "70000"], "--port must be from 0 to 65535"),
        (["--port", "x"], "--port"),
    ],
)
def test_bad_arguments_are_named(run, words, complaint):
    result = run("simulator", *words)
    assert (result.status, result.out) == (2, "")
    assert complaint in result.err


def test_a_port_that_is_taken_is_named(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("simulator", "--port", str(port))
    assert result.status == 1
    assert result.err == (
        f"holystream: error: cannot listen on 127.0.0.1:{port}: Address already in "
        "use; --port 0 takes a free one\n"
    )


def test_a_host_that_is_elsewhere_is_named(run):
    result = run("simulator", "--host", "192.0.2.1")
    assert result.status == 1
    assert "cannot listen on 192.0.2.1:0: " in result.err
    assert result.err.count("192.0.2.1") == 1
    assert "--port 0" not in result.err


def test_the_help_lists_every_fault_there_is(run):
    known = {field.name for field in dataclasses.fields(Script)} - {"gate"}
    assert {typed.partition("=")[0].partition(".")[0] for typed in FAULTS} == known
    result = run("simulator", "--help")
    for typed, meaning in FAULTS.items():
        assert f"  {typed} " in result.out
        assert f" {meaning}\n" in result.out
    assert max(map(len, result.out.splitlines())) <= 80


EXAMPLES = {
    "S": "0.5",
    "N": "404",
    "N/S": "3/0.01",
    "NAME|{...}": "openai",
    "TEXT": "x",
    "{...}": '{"error": {}}',
    "URL": "http://x/",
    "F": "close",
    "VALUE": "2",
}


@pytest.mark.parametrize("typed", FAULTS)
def test_the_help_is_right_about_how_a_fault_is_typed(typed):
    key, equals, value = typed.partition("=")
    words = [EXAMPLES[value]] if value in EXAMPLES else value.split("|")
    for word in words:
        where = "cut_at=9; " if key == "cut" else ""
        script = Script.parse(f"{where}{key}={word}" if equals else key)
        assert script != Script() or (key, word) in {
            *(("cut", "fin"), ("usage", "last"), ("newline", "lf")),
            *(("error_event", "openai"), ("prefill", "none")),
        }
