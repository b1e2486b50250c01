"""``ask --journal``, ``resume``, ``tail``: real commands, killed and gone on with."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shlex
import signal
import sqlite3
import threading

import pytest

from holystream import Client, Guarantee, RetryPolicy, StreamError
from holystream.events import Connected
from holystream.journal import Outcome
from holystream.journal.sqlite import SQLiteJournal
from holystream.simulator import Script

KEY = "sk-4711-do-not-show-me"
QUESTION = "How does an answer arrive?"
GREEDY = ("--temperature", "0")
GO_ON = re.compile(r"^holystream: to go on: holystream (resume .*)$", re.MULTILINE)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "my streams.db")


@pytest.fixture
def ask(sim, path):
    """Return the words of a command that asks the simulator and records it."""

    def words(*others):
        host = ("--model", "m", "--base-url", sim.base_url)
        return ("ask", *host, "--journal", path, *others)

    return words


@pytest.fixture
def gate():
    return threading.Semaphore(0)


def answer_to(sim, **others):
    messages = [{"role": "user", "content": QUESTION}]
    request = {"model": "m", "messages": messages, "temperature": 0, **others}
    return sim.answer(request)


def read(pipe, size):
    data = b""
    while len(data) < size:
        piece = os.read(pipe.fileno(), size - len(data))
        assert piece, f"it ended after {data!r}"
        data += piece
    return data.decode()


@pytest.fixture
def begun(sim, start, gate, ask):
    """Start to ask; return the process and what it has printed so far."""

    def begin(*words, pieces=9):
        sim.play(Script(gate=gate))
        process = start(*ask(*words, QUESTION))
        gate.release(1 + pieces)
        text = "".join(answer_to(sim).deltas[:pieces])
        return process, read(process.stdout, len(text.encode()))

    return begin


def test_ctrl_c_prints_the_line_that_goes_on(sim, begun, finish, run, path):
    process, text = begun(*GREEDY)
    process.send_signal(signal.SIGINT)
    result = finish(process)
    assert (result.status, result.out) == (130, ""), "no line end: the rest may follow"
    kept = f"the answer is partial: {len(text)} characters were kept"
    first, _ = result.err.splitlines()
    assert first == f"holystream: stopped by Ctrl-C; {kept}"
    words = shlex.split(GO_ON.findall(result.err)[0])
    assert words[2:4] == ["--journal", path]
    assert words[4:6] == ["--after", str(len(text))]
    assert words[6:] == ["--base-url", sim.base_url]
    rest = run(*words)
    assert (rest.status, rest.err) == (0, "")
    assert text + rest.out == answer_to(sim).text.rstrip("\n") + "\n"
    # And again, for it is recorded: nothing more is asked for.
    asked = len(sim.requests)
    assert run(*words).out == rest.out
    assert run("resume", words[1], *words[2:4], *words[6:]).out == text + rest.out
    assert len(sim.requests) == asked


def test_killed_it_goes_on_under_the_name_it_was_given(sim, begun, run, path):
    process, text = begun(*GREEDY, "--stream-id", "mine")
    process.kill()
    process.wait()
    host = ("--journal", path, "--base-url", sim.base_url)
    listed = run("tail", "--journal", path)
    name, stands, written, events = listed.out.split("\t")
    assert (name, stands) == ("mine", "abandoned")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", written)
    assert int(events) >= 9
    rest = run("resume", "mine", *host, "--after", str(len(text)), "-v")
    assert text + rest.out == answer_to(sim).text.rstrip("\n") + "\n"
    assert f"resumed by replay at character {len(text)}: REPLAYED" in rest.err
    assert run("tail", "--journal", path).out.startswith("mine\tdone\t")


def test_the_variable_stands_for_the_option(sim, run, environment, path):
    environment["HOLYSTREAM_JOURNAL"] = path
    host = ("--base-url", sim.base_url)
    asked = run("ask", "--model", "m", *host, "--stream-id", "a", "echo:Hello")
    assert (asked.status, asked.out) == (0, "Hello\n")
    assert run("tail", "a").out == "Hello\n"
    assert run("resume", "a", *host).out == "Hello\n"


def test_nothing_is_recorded_unasked(run, sim, tmp_path, environment):
    environment["HOLYSTREAM_JOURNAL"] = ""
    environment["HOME"] = environment["XDG_STATE_HOME"] = str(tmp_path)
    run("ask", "--model", "m", "--base-url", sim.base_url, "echo:Hello")
    assert list(tmp_path.iterdir()) == []


def test_the_provider_is_the_one_it_was_begun_with(run, ask, path, sim, environment):
    environment["VLLM_API_KEY"] = environment["HOLYSTREAM_API_KEY"]
    run(*ask("--provider", "vllm", "--stream-id", "v", "echo:Hello"))
    other = run("resume", "v", "--journal", path, "--base-url", sim.base_url)
    assert other.status == 3
    assert "begun with --provider 'vllm'" in other.err
    alone = run("resume", "v", "--journal", path)
    assert (alone.status, alone.out) == (0, "Hello\n")


def test_a_break_that_cannot_be_mended_is_gone_on_with_by_a_turn(sim, run, ask, path):
    sim.play(Script(cut_at=6000, cut="rst", pace=0.001), Script(stitch="continue"))
    broken = run(*ask(QUESTION))
    assert broken.status == 1
    assert broken.out
    assert not broken.out.endswith("\n")
    words = shlex.split(GO_ON.findall(broken.err)[0])
    allowed = words.index("--resume")
    assert words[allowed + 1] == "cursor,prefill,replay,stitch"
    assert "the seam may show" in broken.err
    rest = run(*words, "-v")
    assert rest.status == 0, rest.err
    assert "resumed by stitch" in rest.err
    whole = sim.generations[0].text
    assert broken.out + rest.out == whole.rstrip("\n") + "\n"


def test_a_break_that_cannot_be_mended_is_told_by_its_own_cause(sim, run, ask, path):
    sim.play(Script(cut_at=6000, cut="rst", pace=0.001))
    broken = run(*ask(QUESTION))
    words = shlex.split(GO_ON.findall(broken.err)[0])
    asked = len(sim.requests)
    allowed = words.index("--resume")
    again = run(*words[:allowed], *words[allowed + 2 :])
    assert (again.status, again.out) == (1, "")
    assert "the connection broke: Connection reset by peer" in again.err
    assert "is gone" not in again.err
    assert "on a terminal, --resume restart has it written anew" in again.err
    assert GO_ON.findall(again.err) == [shlex.join(words)]
    assert len(sim.requests) == asked


@pytest.mark.parametrize(
    "bound",
    [
        {"response_format": {"type": "json_object"}, "resume": ("stitch",)},
        {"min_guarantee": Guarantee.VERIFIED},
    ],
)
def test_what_nothing_can_go_on_with_has_no_line(sim, run, path, bound):
    sim.play(Script(cut_at=6000, cut="rst", pace=0.001))
    host = {"base_url": sim.base_url, "model": "m", "journal": path}
    with Client(KEY, **host) as client:
        stream = client.stream(QUESTION, stream_id="a", **bound)
        with pytest.raises(StreamError), stream:
            stream.get_final_completion()
    rest = run("resume", "a", "--journal", path, "--base-url", sim.base_url)
    assert rest.status == 1
    assert not GO_ON.findall(rest.err)
    assert "there is no other way to go on with it here: ask again" in rest.err


def test_what_a_pipe_has_is_not_made_void(sim, run, ask, path):
    sim.play(Script(cut_at=6000, cut="rst", pace=0.001))
    broken = run(*ask("--stream-id", "a", QUESTION))
    asked = len(sim.requests)
    host = ("--journal", path, "--base-url", sim.base_url)
    anew = run("resume", "a", *host, "--resume", "replay,restart")
    assert (anew.status, anew.out) == (2, "")
    assert "--resume restart needs a terminal" in anew.err
    assert len(sim.requests) == asked
    there = run("tail", "a", "--journal", path, "--wait", "0")
    assert there.out == f"{broken.out}\n", "what was recorded is as it was"


def test_what_was_begun_on_a_terminal_is_not_made_void_in_a_pipe(sim, run, path):
    sim.play(Script(cut_at=6000, cut="rst", pace=0.001))
    begun = {"base_url": sim.base_url, "model": "m", "retry": RetryPolicy(attempts=1)}
    with Client(KEY, **begun, journal=path) as client:
        stream = client.stream(QUESTION, stream_id="a", resume=("replay", "restart"))
        with pytest.raises(StreamError), stream:
            stream.get_final_completion()
    asked = len(sim.requests)
    rest = run("resume", "a", "--journal", path, "--base-url", sim.base_url)
    assert rest.status == 1
    assert "on a terminal, --resume restart has it written anew" in rest.err
    assert "void" not in rest.err
    assert len(sim.requests) == asked


def test_a_finished_file_leaves_nothing_to_do(sim, run, ask, path):
    whole = run(*ask("--stream-id", "a", "echo:Hello"))
    host = ("--journal", path, "--base-url", sim.base_url)
    for length in (5, len(whole.out)):
        rest = run("resume", "a", *host, "--after", str(length))
        assert (rest.status, rest.out, rest.err) == (0, "", "")
    assert run("resume", "a", *host, "--after", "7").status == 2


def test_a_refused_request_has_no_line(sim, run, ask, path):
    sim.play(Script(status=400))
    refused = run(*ask("--stream-id", "r", "hi"))
    assert refused.status == 2
    assert not GO_ON.findall(refused.err)
    again = run("resume", "r", "--journal", path, "--base-url", sim.base_url)
    assert again.status == 2
    assert run("tail", "r", "--journal", path).status == 2


def test_what_has_ended_needs_no_address_and_no_key(run, ask, path, environment):
    assert run(*ask("--stream-id", "a", "echo:Hello")).status == 0
    for name in ("HOLYSTREAM_API_KEY", "HOLYSHEEP_API_KEY"):
        del environment[name]
    again = run("resume", "a", "--journal", path)
    assert (again.status, again.out, again.err) == (0, "Hello\n", "")


def test_what_is_missing_is_told_before_a_key_is(sim, run, ask, path):
    sim.play(Script(cut_at=6000, cut="rst", pace=0.001))
    assert run(*ask("--stream-id", "a", QUESTION)).status == 1
    nowhere = run("resume", "a", "--journal", path)
    assert nowhere.status == 3
    assert "its address is not recorded: give --base-url" in nowhere.err
    unknown = run("resume", "b", "--journal", path)
    assert unknown.status == 2
    assert "no stream 'b'" in unknown.err


@pytest.mark.parametrize(
    ("words", "status", "complaint"),
    [
        (["resume", "nobody"], 2, "no stream 'nobody'"),
        (["resume", "a", "--after", "99"], 2, "--after 99 is beyond the 5 characters"),
        (["resume", "a", "--after", "-1"], 2, "--after"),
        (["resume", "a", "--after", "x"], 2, "number of characters, not 'x'"),
        (["resume", "a b"], 2, "no stream 'a b'"),
        (["resume"], 2, "ID"),
        (["tail", "nobody"], 2, "no stream 'nobody'"),
        (["tail", "a", "--wait", "soon"], 2, "not 'soon'"),
        (["ask", "--model", "m", "--stream-id", "a", "hi"], 2, "resume that one"),
        (["resume", "a", "--after", "7"], 2, "--after 7 is beyond"),
    ],
)
def test_wrong_arguments_are_told(  # noqa: PLR0917 - fixtures
    sim, run, ask, path, words, status, complaint
):
    assert run(*ask("--stream-id", "a", "echo:Hello")).status == 0
    host = [] if words[0] == "tail" else ["--base-url", sim.base_url]
    asked = len(sim.requests)
    result = run(words[0], "--journal", path, *host, *words[1:])
    assert result.status == status, result.err
    assert complaint in result.err
    assert "partial_text" not in result.err
    assert len(sim.requests) == asked


@pytest.mark.parametrize("command", [["resume", "a"], ["tail"], ["tail", "a"]])
def test_without_a_journal(run, environment, tmp_path, command):
    environment.pop("HOLYSTREAM_JOURNAL", None)
    result = run(*command)
    assert result.status == 3
    assert "--journal PATH, or set the variable HOLYSTREAM_JOURNAL" in result.err
    nowhere = tmp_path / "none.db"
    result = run(*command, "--journal", str(nowhere))
    assert result.status == 3
    assert "there is no journal" in result.err
    assert not nowhere.exists(), "who only looks makes none"


def test_what_is_no_journal(run, ask, tmp_path, path):
    (tmp_path / "my streams.db").write_bytes(b"%PDF-1.4 " + b"x" * 9999)
    for words in (ask("hi"), ("tail", "--journal", path)):
        result = run(*words)
        assert (result.status, result.out) == (3, "")
        assert "damaged, or no journal" in result.err


def test_a_journal_that_cannot_be_made(run, ask, tmp_path, path):
    result = run(*ask("--journal", str(tmp_path / "no" / "such.db"), "hi"))
    assert (result.status, result.out) == (3, "")


def test_a_stream_that_somebody_writes_is_not_taken_away(sim, begun, gate, run, path):
    process, _ = begun(*GREEDY, "--stream-id", "a")
    host = ("--journal", path, "--base-url", sim.base_url)
    busy = run("resume", "a", *host)
    assert busy.status == 1
    assert "is alive" in busy.err
    gate.release(10**4)
    assert process.wait(timeout=50) == 0


class TestTail:
    def test_it_prints_each_piece_as_it_is_written(  # noqa: PLR0917 - fixtures
        self, sim, begun, start, finish, gate, path
    ):
        process, text = begun(*GREEDY, "--stream-id", "a")
        follower = start("tail", "a", "--journal", path)
        assert read(follower.stdout, len(text.encode())) == text
        for delta in answer_to(sim).deltas[9:14]:
            gate.release()
            assert read(follower.stdout, len(delta.encode())) == delta
            text += delta
        gate.release(10**4)
        result = finish(follower)
        assert (result.status, result.err) == (0, "")
        assert text + result.out == answer_to(sim).text.rstrip("\n") + "\n"
        assert finish(process).status == 0

    def test_it_follows_from_one_writer_to_the_next(  # noqa: PLR0917 - fixtures
        self, sim, begun, start, finish, run, path
    ):
        process, text = begun(*GREEDY, "--stream-id", "a")
        follower = start("tail", "a", "--journal", path, "--wait", "50")
        assert read(follower.stdout, len(text.encode())) == text
        process.kill()
        process.wait()
        assert run("resume", "a", "--journal", path, "--base-url", sim.base_url).out
        result = finish(follower)
        assert result.status == 0
        assert text + result.out == answer_to(sim).text.rstrip("\n") + "\n"

    def test_it_ends_when_nobody_writes(self, begun, run, path):
        process, text = begun(*GREEDY, "--stream-id", "a")
        process.kill()
        process.wait()
        result = run("tail", "a", "--journal", path, "--wait", "0")
        assert (result.status, result.out) == (1, text + "\n")
        assert f"nobody writes the stream; the answer is partial: {len(text)}" in (
            result.err
        )
        words = shlex.split(GO_ON.findall(result.err)[0])
        assert words[1:] == [
            *("a", "--journal", path, "--after", str(len(text))),
            *("--base-url", "URL"),
        ]
        assert "URL is the --base-url or base_url= that it was begun with: a " in (
            result.err
        )

    def test_it_names_the_endpoint_that_had_a_name(self, ask, run, path):
        assert run(*ask("--stream-id", "a", QUESTION)).status == 0
        with SQLiteJournal(path) as journal:
            claim = journal.create("b", request=journal.meta("a").request, ttl=60.0)
            for name in ("gpu-1", "gpu-2"):
                journal.append(
                    claim, [Connected(endpoint=name, attempt=1, request_id="r")]
                )
            journal.release(claim)
        result = run("tail", "b", "--journal", path, "--wait", "0")
        assert "that the endpoint 'gpu-2' has: a journal holds no" in result.err

    def test_ctrl_c_ends_it(self, begun, start, finish, path):
        _, text = begun(*GREEDY, "--stream-id", "a")
        follower = start("tail", "a", "--journal", path)
        assert read(follower.stdout, len(text.encode())) == text
        follower.send_signal(signal.SIGINT)
        result = finish(follower)
        assert (result.status, result.out) == (130, "\n")
        assert "stopped by Ctrl-C" in result.err

    @pytest.mark.parametrize("outcome", [Outcome.CANCELLED, Outcome.FAILED])
    def test_it_tells_how_a_stream_ended(self, begun, run, path, outcome):
        process, text = begun(*GREEDY, "--stream-id", "a")
        process.kill()
        process.wait()
        with SQLiteJournal(path) as journal:
            journal.finish(journal.claim("a"), outcome, b"")
        result = run("tail", "a", "--journal", path)
        assert (result.status, result.out) == (1, text + "\n")
        assert outcome.value in result.err

    def test_many_are_listed_the_newest_first(self, sim, run, path):
        with SQLiteJournal(path) as journal:
            for number in range(150):
                journal.create(f"s{number}", request=b"", ttl=60.0)
        listed = run("tail", "--journal", path).out.splitlines()
        assert [line.split("\t")[0] for line in listed] == [
            f"s{number}" for number in reversed(range(150))
        ]

    def test_a_damaged_one_is_listed_among_the_others(self, run, path):
        with SQLiteJournal(path) as journal:
            for name in ("first", "second", "third"):
                claim = journal.create(name, request=b"", ttl=60.0)
                journal.finish(claim, Outcome.DONE, b"")
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute(
                "UPDATE streams SET updated = 9e999 WHERE stream_id = 'second'"
            )
            connection.commit()
        result = run("tail", "--journal", path)
        assert result.status == 0
        listed = [line.split("\t")[:2] for line in result.out.splitlines()]
        assert listed == [["third", "done"], ["second", "damaged"], ["first", "done"]]
        asked = run("tail", "second", "--journal", path)
        assert asked.status == 1
        assert "stream 'second': its row in the journal is damaged" in asked.err


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux")
def test_a_full_disk_is_told_with_what_is_kept(begun, finish, gate):
    process, text = begun(*GREEDY, "--stream-id", "a")
    # As good as full: from now on it may write into no file.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, 0))
    gate.release(10**4)
    result = finish(process)
    assert result.status == 1
    assert result.out == "", "nothing is printed that was not stored"
    assert f"Of stream 'a' {len(text)} characters are recorded" in result.err
    assert "`holystream resume`" in result.err
