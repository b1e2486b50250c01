"""``holystream ask``: what goes to stdout, what to stderr, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading

import pytest

from holystream import Client, errors
from holystream.cli import main
from holystream.cli.exits import exit_status, reworded, table
from holystream.simulator import Script
from holystream.testing import SleeplessClock

QUESTION = "How does an answer arrive?"
GREEDY = ("--temperature", "0")
WAITS = re.compile(r"holystream: attempt \d+ in \d+\.\d\d s(, as the server asks)?: .+")


@pytest.fixture
def ask(sim):
    """Return the words of a command that asks the simulator."""

    def words(*others):
        return ("ask", "--model", "m", "--base-url", sim.base_url, *others)

    return words


def answer_to(sim, question=QUESTION):
    messages = [{"role": "user", "content": question}]
    return sim.answer({"model": "m", "messages": messages, "temperature": 0})


def sent(sim):
    return sim.requests[-1].json


def read(pipe, size):
    """Read exactly so many bytes: what has been flushed, or the test times out."""
    data = b""
    while len(data) < size:
        piece = os.read(pipe.fileno(), size - len(data))
        assert piece, f"it ended after {data!r}"
        data += piece
    return data


def test_the_answer_is_all_that_stdout_gets(sim, run, ask):
    result = run(*ask(*GREEDY, "How does", "an answer arrive?"))
    assert (result.status, result.err) == (0, "")
    assert result.out == answer_to(sim).text.rstrip("\n") + "\n"
    assert sent(sim)["messages"] == [{"role": "user", "content": QUESTION}]


def test_a_line_end_is_added_only_where_there_is_none(run, ask):
    assert run(*ask("echo:no line end")).out == "no line end\n"
    assert run(*ask("echo:a line end\n")).out == "a line end\n"


def test_each_piece_is_out_before_the_server_sends_the_next(sim, start, finish, ask):
    gate = threading.Semaphore(0)
    sim.play(Script(gate=gate))
    process = start(*ask(*GREEDY, QUESTION))
    gate.release()  # the role, without text
    deltas = answer_to(sim).deltas
    for delta in deltas:
        gate.release()
        assert read(process.stdout, len(delta.encode())) == delta.encode()
    gate.release(9)
    assert finish(process).status == 0


def test_options_reach_the_request(sim, run, ask):
    result = run(
        *ask("--system", "Be brief.", "--max-tokens", "7", "--seed", "5"),
        *("--temperature", "0.5", "hello"),
    )
    assert result.status == 0
    body = sent(sim)
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello"},
    ]
    assert (body["max_tokens"], body["seed"], body["temperature"]) == (7, 5, 0.5)
    assert "ended its answer early: length" in result.err


@pytest.mark.parametrize(
    ("words", "given", "prompt"),
    [
        (["summarise:"], "a\nb\n", "summarise:\n\na\nb"),
        ([], "all of it\n", "all of it"),
        (["alone"], "", "alone"),
        ([], "\ufeffnaïve 東京", "naïve 東京"),
    ],
)
def test_standard_input_is_appended(  # noqa: PLR0917 - fixtures
    sim, run, ask, words, given, prompt
):
    assert run(*ask(*words), given=given.encode()).status == 0
    assert sent(sim)["messages"][0]["content"] == prompt


@pytest.mark.parametrize(
    ("words", "given", "complaint"),
    [
        ([], b"", "there is no prompt"),
        ([" "], b"\n\n", "there is no prompt"),
        (["x"], b"\xff\xfe", "standard input is not UTF-8"),
        ([b"\xff"], b"", "an argument is not UTF-8"),
        (["--temperature", "nan", "x"], b"", "temperature is nan"),
        (["--temperature", "hot", "x"], b"", "--temperature"),
        (["--timeout", "-1", "x"], b"", "positive number of seconds, not '-1'"),
        (["--deadline", "soon", "x"], b"", "positive number of seconds, not 'soon'"),
        (["--resume", "magic", "x"], b"", "'magic'"),
        (["--max-tokens", "0", "x"], b"", "number of at least 1, not '0'"),
        (["--api-key", "sk-1", "x"], b"", "unrecognized arguments: --api-key"),
    ],
)
def test_bad_input_is_refused_before_anything_is_sent(  # noqa: PLR0917 - fixtures
    sim, run, ask, words, given, complaint
):
    result = run(*ask(*words), given=given)
    assert result.status == 2
    assert complaint in result.err
    assert result.out == ""
    assert sim.connections == 0


def test_the_key_comes_from_the_environment_alone(sim, run, environment):
    environment.pop("HOLYSHEEP_API_KEY")
    result = run("ask", "--model", "m", "hi")
    assert result.status == 3
    assert "set the environment variable HOLYSHEEP_API_KEY" in result.err
    assert "api_key" not in result.err


def test_a_url_that_was_typed_does_not_get_the_default_providers_key(
    sim, run, ask, environment
):
    environment["HOLYSTREAM_API_KEY"] = ""
    assert run(*ask("hi")).status == 3
    assert "authorization" not in sim.requests[-1].headers
    assert run(*ask("--provider", "holysheep", "hi")).status == 0


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--base-url", "localhost:80"], "--base-url must begin with https://"),
        (["--base-url", "http://10.0.0.1/v1"], "or say --allow-http"),
        (["--provider", "openai-compatible"], "needs --base-url"),
    ],
)
def test_a_wrong_setting_is_told_in_the_words_of_the_command(run, words, complaint):
    result = run("ask", "--model", "m", *words, "hi")
    assert result.status == 3
    assert complaint in result.err


QUOTA = {"error": {"message": "No credit.", "code": "insufficient_quota"}}


@pytest.mark.parametrize(
    ("script", "words", "status"),
    [
        (Script(status=400), (), 2),
        (Script(status=404), (), 2),
        (Script(status=401), (), 3),
        (Script(status=403), (), 2),  # the simulator's 403: no access to this model
        (Script(status=403, error={"error": {"message": "Not you."}}), (), 3),
        (Script(echo_key=True), (), 3),
        (Script(status=429, headers={"Retry-After": "900"}), (), 4),
        (Script(status=429, error=QUOTA), (), 4),
        (Script(stall_headers=True), ("--deadline", "0.3"), 5),
        (Script(stall_headers=True), ("--timeout", "0.2"), 5),
        (Script(error=b"<html>", content_type="text/html"), (), 1),
    ],
    ids=str,
)
def test_each_class_of_error_has_its_status(  # noqa: PLR0917 - fixtures
    sim, run, ask, script, words, status
):
    sim.play(*[script] * 9)
    result = run(*ask(*words, "hi"))
    assert result.status == status, result.err
    *waits, error = result.err.splitlines()
    assert all(WAITS.fullmatch(line) for line in waits)
    assert error.startswith("holystream: error: ")
    assert result.out == ""


def test_a_connection_that_keeps_breaking_has_the_status_of_no_class(
    sim, ask, monkeypatch, capsys
):
    """In this process, where nobody waits between the attempts."""
    monkeypatch.setenv("HOLYSTREAM_API_KEY", "sk-4711-do-not-show-me")
    monkeypatch.setattr("sys.stdin", None)
    sim.play(Script(cut_before_headers="rst", times=0))
    with SleeplessClock() as clock:
        assert main(ask("hi")) == 1
    out, err = capsys.readouterr()
    *waits, error = err.splitlines()
    assert len(waits) == len(clock.waits) == 5
    assert all(WAITS.fullmatch(line) for line in waits)
    assert error.startswith("holystream: error: ")
    assert out == ""


def all_errors(kind=errors.HolystreamError):
    for child in kind.__subclasses__():
        yield child
        yield from all_errors(child)


def test_every_error_ends_in_a_status_that_the_table_explains():
    rows = {int(row.split()[0]) for row in table().splitlines()[1:]}
    for kind in all_errors():
        error = kind.__new__(kind)
        assert exit_status(error) in rows - {0, 130, 141}
    assert exit_status(errors.StreamInterrupted("x")) == 1
    assert exit_status(errors.DeadlineExceeded("x")) == 5
    assert exit_status(errors.QueueTimeout("x")) == 5


def test_no_advice_names_an_argument_that_the_command_lacks():
    assert "api_key" not in reworded("check X, or the argument api_key=.")


def test_a_timeout_is_told_in_the_words_of_the_command(sim, run, ask):
    sim.play(Script(stall_headers=True), Script(stall_headers=True))
    result = run(*ask("--timeout", "0.2", "-v", "hi"))
    *_, error, details = result.err.splitlines()
    assert "no content within --timeout 0.2 s" in error
    assert details.startswith("holystream: FirstTokenTimeout, attempts: 2, phase: SENT")
    assert result.status == 5


REFUSAL = (
    b'data: {"choices":[{"index":0,"delta":{"refusal":"I will not."}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b"data: [DONE]\n\n"
)


def test_a_refusal_is_told_and_is_no_text(sim, run, ask):
    sim.play(Script(error_event_at=0, error_event=REFUSAL))
    result = run(*ask("hi"))
    assert (result.status, result.out) == (0, "")
    assert result.err == "holystream: the model refused: I will not.\n"


def test_an_empty_answer_is_an_answer(run, ask):
    result = run(*ask("-v", "echo:"))
    assert (result.status, result.out) == (0, "")
    assert "holystream: 0 tokens, guarantee SINGLE, attempts 1" in result.err


def test_a_repeatable_answer_that_stays_broken_keeps_the_librarys_words(sim, run, ask):
    sim.play(Script(cut_at=6000), *[Script(stall_headers=True)] * 2)
    # Long enough for the first part, whatever this machine is busy with.
    result = run(*ask(*GREEDY, "--timeout", "1.5", QUESTION))
    assert result.status == 1
    assert "could not be continued" in result.err
    assert "--temperature" not in result.err


def test_the_help_shows_the_statuses(run):
    result = run("ask", "--help")
    assert result.status == 0
    assert table() in result.out
    assert "api-key" not in result.out


def test_a_break_that_cannot_be_mended_keeps_the_text(sim, run, ask):
    sim.play(Script(cut_at=6000, cut="rst", pace=0.001))
    result = run(*ask(QUESTION))
    assert result.status == 1
    assert result.out.endswith("\n")
    text = result.out[:-1]
    assert text
    assert sim.answer(sent(sim), 0).text.startswith(text)
    first, second = result.err.splitlines()
    assert "the answer broke off" in first
    assert "With --temperature 0 or --seed" in first
    kept = f"the answer is partial: {len(text)} characters were kept"
    assert second == f"holystream: {kept}"


def test_a_break_in_a_repeatable_answer_is_mended_and_told_if_asked(sim, run, ask):
    scripts = (Script(cut_at=6000), Script(status=503))
    sim.play(*scripts)
    quiet = run(*ask(*GREEDY, QUESTION))
    sim.play(*scripts)
    verbose = run(*ask(*GREEDY, "-v", QUESTION))
    whole = answer_to(sim).text.rstrip("\n") + "\n"
    assert (quiet.status, quiet.out) == (0, whole)
    for line in quiet.err.splitlines():
        assert WAITS.fullmatch(line), "nothing but waits is told unasked"
    assert (verbose.status, verbose.out) == (0, whole)
    told = [line.removeprefix("holystream: ") for line in verbose.err.splitlines()]
    assert [line.split()[0].rstrip(":") for line in told] == [
        *("connected", "interrupted", "waiting", "interrupted", "waiting"),
        *("connected", "resumed", "first"),
    ]
    assert "guarantee REPLAYED, attempts 3" in told[-1]


BUSY = Script(status=503, headers={"Retry-After": "0.3"})


def test_a_wait_is_told_in_a_plain_line_where_no_terminal_is(sim, run, ask):
    sim.play(BUSY)
    result = run(*ask("echo:Hi"))
    assert (result.status, result.out) == (0, "Hi\n")
    (line,) = result.err.splitlines()
    assert WAITS.fullmatch(line)
    assert ", as the server asks: openai-compatible answered 503" in line
    assert "\r" not in result.err


def test_a_terminal_forgets_a_wait_when_it_is_over(sim, start, ask):
    sim.play(BUSY)
    status, shown = on_a_terminal(start, ask("echo:Hi"))
    assert status == 0
    told, blank, rest = shown.split("\r")
    assert WAITS.match(told)
    assert blank == " " * 79
    assert len(told) <= 79, "it fits, or no CR takes it back"
    assert rest.startswith("Hi\nholystream: first text after")


def test_a_wait_that_ctrl_c_ends_is_forgotten_too(sim, start, ask):
    sim.play(Script(status=503, headers={"Retry-After": "50"}))
    seen = b""

    def interrupt(process, shown):
        nonlocal seen
        # Once, whatever pieces it comes in.
        before, seen = seen, seen + shown
        if b" in 5" in seen and b" in 5" not in before:
            process.send_signal(signal.SIGINT)

    status, shown = on_a_terminal(start, ask("hi"), watch=interrupt)
    assert status == 130
    told, blank, rest = shown.split("\r")
    assert WAITS.match(told)
    assert not blank.strip()
    assert rest == "holystream: stopped by Ctrl-C; nothing had arrived\n"


def test_a_wait_amid_an_answer_stands_on_a_line_of_its_own(sim, start, ask):
    sim.play(Script(cut_at=6000, pace=0.001))
    status, shown = on_a_terminal(start, ask(*GREEDY, QUESTION))
    assert status == 0
    assert "\r" not in shown
    lines = shown.split("\n")
    told = [line for line in lines if line.startswith("holystream: attempt ")]
    assert len(told) == 1
    assert WAITS.fullmatch(told[0])
    text = "".join(line for line in lines if not line.startswith("holystream: "))
    assert text == answer_to(sim).text.replace("\n", "")


def test_a_long_wait_line_is_cut_at_the_terminals_edge(sim, start, ask):
    wide = "\u79d8" * 200
    error = json.dumps({"error": {"message": wide}}, ensure_ascii=False).encode()
    sim.play(Script(status=503, error=error, headers={"Retry-After": "0.3"}))
    status, shown = on_a_terminal(start, ask("echo:Hi"))
    assert status == 0
    told, blank, _ = shown.split("\r")
    assert 78 <= sum(2 if char == "\u79d8" else 1 for char in told) <= 79
    assert blank == " " * 79


def test_what_went_to_a_pipe_is_not_taken_back(sim, run, ask):
    result = run(*ask("--resume", "replay,restart", QUESTION))
    assert (result.status, result.out) == (2, "")
    assert "--resume restart needs a terminal" in result.err
    assert sim.requests == ()


def test_a_name_in_no_journal_is_refused(sim, run, ask):
    result = run(*ask("--stream-id", "zz", QUESTION))
    assert (result.status, result.out) == (2, "")
    assert "--stream-id needs --journal" in result.err
    assert sim.requests == ()


def test_ctrl_c_keeps_the_text(sim, start, finish, ask):
    gate = threading.Semaphore(0)
    sim.play(Script(gate=gate))
    process = start(*ask(*GREEDY, QUESTION))
    text = "".join(answer_to(sim).deltas[:9])
    gate.release(10)
    received = read(process.stdout, len(text.encode())).decode()
    process.send_signal(signal.SIGINT)
    result = finish(process)
    assert received + result.out == text + "\n"
    assert result.status == 130
    kept = f"the answer is partial: {len(text)} characters were kept"
    assert result.err == f"holystream: stopped by Ctrl-C; {kept}\n"


def test_ctrl_c_before_the_first_word(sim, start, finish, ask):
    sim.play(Script(stall_headers=True))
    process = start(*ask("hi"))
    assert sim.wait_until(lambda: len(sim.requests) == 1)
    process.send_signal(signal.SIGINT)
    result = finish(process)
    assert (result.status, result.out) == (130, "")
    assert "nothing had arrived" in result.err


def test_a_reader_that_leaves_ends_it_quietly(sim, start, ask):
    gate = threading.Semaphore(0)
    sim.play(Script(gate=gate))
    process = start(*ask(*GREEDY, QUESTION))
    deltas = answer_to(sim).deltas
    gate.release(2)
    read(process.stdout, len(deltas[0].encode()))
    process.stdout.close()
    gate.release(len(deltas))
    assert process.wait(timeout=50) == 141
    assert process.stderr.read() == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110 - a device
def test_a_full_disk_is_no_traceback(start, finish, ask):
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
        process = start(*ask("hi"), stdout=full)
        process.wait(timeout=50)
    assert process.returncode == 1
    assert b"No space left" in process.stderr.read()


def test_a_closed_output_is_no_traceback(start, ask):
    process = start(*ask("hi"), through=("sh", "-c", 'exec "$@" >&-', "sh"))
    assert process.wait(timeout=50) == 1
    assert b"cannot write to standard output: it is closed" in process.stderr.read()
    process = start(*ask("hi"), through=("sh", "-c", 'exec "$@" >&- 2>&-', "sh"))
    assert process.wait(timeout=50) == 1


def test_a_character_that_stdout_cannot_show_does_not_end_it(run, ask, environment):
    environment["PYTHONIOENCODING"] = "ascii"
    result = run(*ask("echo:na\N{LATIN SMALL LETTER I WITH DIAERESIS}ve"))
    assert (result.status, result.out) == (0, "na?ve\n")


def on_a_terminal(start, words, watch=lambda process, shown: None):
    """Run a command whose three streams are a terminal; return what it shows."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    try:
        process = start(*words, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # how Linux tells the end of a terminal
                piece = b""
            if not piece:
                break
            shown += piece
            watch(process, piece)
        return process.wait(timeout=50), shown.decode().replace("\r\n", "\n")
    finally:
        os.close(ours)


def test_a_terminal_gets_a_summary_and_no_control_characters(start, ask):
    status, shown = on_a_terminal(start, ask("echo:a\x1b[31mb\x07c\x9bd\r\ne\tf"))
    assert status == 0
    text, summary = shown.rsplit("\n", 2)[:2]
    assert text == "a\u241b[31mb\u2407c\ufffdd\ne\tf"
    assert summary.startswith("holystream: first text after ")
    assert summary.endswith("guarantee SINGLE, attempts 1")


def test_a_terminal_sees_the_answer_begin_anew(sim, start, ask):
    sim.play(Script(cut_at=6000, pace=0.001))
    status, shown = on_a_terminal(start, ask("--resume", "restart", QUESTION))
    assert status == 0
    first, second = (sim.answer(sent(sim), sample).text for sample in (0, 1))
    above, _, anew = shown.partition(
        "\nholystream: the answer is begun anew: the text above is void\n"
    )
    void, _, wait = above.partition("\nholystream: attempt 2 in ")
    assert void
    assert "the connection broke" in wait
    assert first.startswith(void)
    assert anew.startswith(second)
    assert "guarantee RESTARTED" in anew


def test_a_terminal_is_told_of_a_restart_where_a_turn_was_allowed(sim, start, tmp_path):
    sim.play(Script(cut_at=6000, cut="rst", pace=0.001))
    path = str(tmp_path / "streams.db")
    host = {"base_url": sim.base_url, "model": "m", "journal": path}
    with Client("sk-4711-do-not-show-me", **host) as client:
        stream = client.stream(
            QUESTION,
            stream_id="a",
            resume=["stitch"],
            response_format={"type": "json_object"},
        )
        with pytest.raises(errors.StreamInterrupted), stream:
            stream.until_done()
    words = ("resume", "a", "--journal", path, "--base-url", sim.base_url)
    status, shown = on_a_terminal(start, words)
    assert status == 1
    assert " --resume stitch,restart " in shown
    assert "the text above becomes void" in shown
    status, shown = on_a_terminal(start, (*words, "--resume", "stitch,restart"))
    assert status == 0
    assert "guarantee RESTARTED" in shown


def test_asking_does_not_load_the_simulator():
    code = (
        "import sys; from holystream.cli import main; main(['ask', '--model', 'm']); "
        "sys.exit('holystream.simulator' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=50,
        check=False,
    )
    assert b"there is no prompt" in done.stderr
    assert done.returncode == 0


def test_the_command_itself(run):
    version = run("--version")
    assert version.status == 0
    assert version.out.startswith("holystream 0.")
    bare = run()
    assert bare.status == 2
    assert table() in bare.out


@pytest.mark.parametrize(
    ("words", "usage", "meant"),
    [
        (("ask", "--model", "m", "--temprature", "0", "hi"), "ask", "--temperature"),
        (("map", "in", "--modell", "m"), "map", "--model"),
        (("tail", "--jurnal", "x"), "tail", "--journal"),
    ],
)
def test_a_misspelt_option_is_told_with_the_nearest(run, words, usage, meant):
    result = run(*words)
    assert result.status == 2
    assert result.err.startswith(f"usage: holystream {usage} ")
    assert f"did you mean {meant}?" in result.err
