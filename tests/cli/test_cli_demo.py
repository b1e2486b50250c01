"""``holystream demo``: it shows what it claims, and it fails when a claim is broken."""

from __future__ import annotations

import ast
import dataclasses
import signal

import pytest

from holystream.cli import claims, demo, main
from holystream.cli.console import Output
from holystream.cli.screen import Screen
from holystream.cli.server_process import ServerDidNotStart, ServerProcess
from holystream.simulator import Simulator

QUICK = 0.001
OTHER = demo.TEXT.replace("déjà vu", "doubt at all")


def test_the_demo_shows_everything_and_fits(run):
    result = run("demo", "--pace", str(QUICK))
    assert (result.status, result.err) == (0, "")
    lines = result.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "FAILED" not in result.out
    assert "\x1b" not in result.out
    order = iter(result.out.split("> "))
    for told in (
        *("kill -9 ", "Interrupted: ", "Waiting: ", "Resumed by replay at character"),
        *("Interrupted: TokenIdleTimeout", "Resumed by replay", "StreamCancelled"),
    ):
        assert any(part.startswith(told) for part in order), told
    assert "ms, " in result.out
    assert lines[-6:] == [f"  {line}" for line in demo.CODE.splitlines()]
    # The text goes on where it stopped: put together, the pieces are the text.
    parts = result.out.split("\n\n")[1:4]
    for part in parts:
        shown = [line[4:] for line in part.splitlines() if line.startswith("    ")]
        assert squeezed("".join(shown)) == squeezed(demo.TEXT)


def squeezed(text):
    return "".join(text.split())


def test_the_demo_needs_neither_unicode_nor_an_open_network(run, environment):
    environment["PYTHONIOENCODING"] = "ascii"
    environment.pop("NO_PROXY")
    environment["HTTP_PROXY"] = environment["http_proxy"] = "http://127.0.0.1:9"
    result = run("demo", "--pace", "0")
    assert result.status == 0, result.out + result.err
    assert "d?j? vu" in result.out


def test_the_code_to_copy_is_six_lines_that_run(capsys):
    assert len(demo.CODE.splitlines()) == 6
    ast.parse(demo.CODE)
    with Simulator() as sim:
        there = f"holystream.Client('k', base_url={sim.base_url!r})"
        code = demo.CODE.replace("holystream.Client()", there)
        assert code != demo.CODE
        names = {}
        exec(compile(code, "<copied>", "exec"), names)
        names["client"].close()
        assert capsys.readouterr().out == sim.answer(sim.requests[0].json).text


@pytest.mark.parametrize("pace", ["inf", "nan", "-1", "2", "x"])
def test_a_pace_that_makes_no_sense_is_refused(run, pace):
    result = run("demo", f"--pace={pace}")
    assert result.status == 2
    assert "must be seconds from 0 to 1" in result.err


def test_ctrl_c_ends_the_demo_at_once(start, finish, environment):
    # It may strike between the opening of a socket and the storing of it, which leaves
    # the closing to the reference count; users do not see that warning either.
    environment["PYTHONWARNINGS"] = "error,ignore::ResourceWarning"
    process = start("demo", "--pace", str(QUICK))
    while b"kill -9" not in (line := process.stdout.readline()):
        assert line
    process.send_signal(signal.SIGINT)
    assert finish(process).status == 130


def test_a_reader_that_leaves_ends_the_demo_quietly(start):
    process = start("demo", "--pace", str(QUICK))
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=50) == 141
    assert process.stderr.read() == b""


@pytest.fixture
def screen():
    return Screen(Output())


@pytest.fixture
def near():
    with Simulator(text=demo.TEXT) as simulator:
        yield simulator


@pytest.fixture
def client(near):
    with claims.client_of(near.base_url) as client:
        yield client


class Tampered:
    """A simulator that changes the scripts it is told to play."""

    def __init__(self, simulator, tamper):
        self._simulator = simulator
        self._tamper = tamper

    def play(self, *scripts):
        self._simulator.play(*map(self._tamper, scripts))


def healthy(script):
    return dataclasses.replace(script, stall_at=None, pings=None)


def without_pings(script):
    return dataclasses.replace(script, pings=None)


def cut(script):
    return dataclasses.replace(script, cut_at=9000)


def broken(finding):
    return [claim for claim, holds in finding.claims.items() if not holds]


SHOWS = [claims.whole, claims.stalled, claims.stopped]


@pytest.mark.parametrize("show", SHOWS)
def test_each_claim_holds_undisturbed(screen, near, client, show):
    assert broken(show(screen, near, client, demo.TEXT, QUICK)) == []


@pytest.mark.parametrize(
    ("show", "claim"),
    [
        (claims.whole, f"all {len(OTHER)} characters arrived"),
        (claims.stalled, "the text is whole all the same"),
    ],
)
def test_another_text_breaks_the_claim(screen, near, client, show, claim):
    assert broken(show(screen, near, client, OTHER, QUICK)) == [claim]


@pytest.mark.parametrize(
    ("show", "tamper", "claim"),
    [
        (claims.whole, cut, "on one connection"),
        (claims.stalled, healthy, "pings do not pass for an answer"),
        (claims.stalled, without_pings, "pings do not pass for an answer"),
        (claims.stopped, healthy, "the reader was told: StreamCancelled"),
    ],
)
def test_another_fault_breaks_the_claim(  # noqa: PLR0917 - fixtures
    screen, near, client, show, tamper, claim
):
    finding = show(screen, Tampered(near, tamper), client, demo.TEXT, QUICK)
    assert claim in broken(finding)


class Forger(ServerProcess):
    """Its second life has another story to tell."""

    def start_again(self, faults):
        self.text = OTHER
        super().start_again(faults)


class LateForger(ServerProcess):
    """The same, but it differs only behind what was delivered before."""

    def start_again(self, faults):
        self.text = self.text[:-1] + "!"
        super().start_again(faults)


class Survivor(ServerProcess):
    """It was told to die, and did not."""

    def kill(self):
        return False

    def start_again(self, faults):
        pass


def show_kill(screen, kind, faults):
    with kind(demo.TEXT, faults) as child:
        child.wait_until_ready()
        with claims.client_of(child.base_url) as client:
            return claims.killed(screen, child, client, demo.TEXT, QUICK)


def test_a_killed_server_breaks_no_claim(screen):
    assert broken(show_kill(screen, ServerProcess, claims.doomed(QUICK))) == []


SAME = "the text is the same, to the last character"
PROVEN = "and proven to be one answer"
DEAD = "the server was killed in the middle"


@pytest.mark.parametrize(
    ("kind", "faults", "expected"),
    [
        (LateForger, claims.doomed(QUICK), [SAME]),
        (Survivor, [], [DEAD, PROVEN]),
        (ServerProcess, ["pace=0.001,cut_at=3000"], [DEAD]),
    ],
)
def test_a_server_that_does_not_play_its_part_breaks_a_claim(
    screen, kind, faults, expected
):
    finding = show_kill(screen, kind, faults)
    assert set(expected) <= set(broken(finding))


def test_a_broken_claim_is_named_and_the_demo_fails(monkeypatch, capsys):
    monkeypatch.setattr("holystream.cli.server_process.ServerProcess", LateForger)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    assert main(["demo", "--pace", str(QUICK)]) == 1
    out, err = capsys.readouterr()
    assert f"[FAILED] {SAME}" in out
    assert err == f"holystream: demo: this claim failed: {SAME}\n"
    assert "import holystream" not in out


def test_a_server_that_cannot_start_is_an_error_with_its_reason(monkeypatch, capsys):
    class Stillborn(ServerProcess):
        def __init__(self, text, faults):
            super().__init__(text, [*faults, "not-a-fault=1"])

    # On a third port it would not start either.
    monkeypatch.setattr("holystream.cli.server_process._TRIES", 2)
    with (
        Stillborn(demo.TEXT, []) as child,
        pytest.raises(ServerDidNotStart, match="unknown key 'not-a-fault'"),
    ):
        child.wait_until_ready()
    monkeypatch.setattr("holystream.cli.server_process.ServerProcess", Stillborn)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    assert main(["demo", "--pace", "0"]) == 1
    assert "the simulator did not start" in capsys.readouterr().err


def test_a_server_process_ends_with_us():
    with ServerProcess("some text", []) as child:
        child.wait_until_ready()
        process = child._process
        with claims.client_of(child.base_url) as client:
            assert client.stream("x", model="m").get_final_text() == "some text"
    assert process.returncode == 0


def test_a_port_that_is_taken_is_left_for_another(monkeypatch):
    with ServerProcess("first", []) as taken:
        taken.wait_until_ready()
        port = int(taken.base_url.split(":")[2].split("/")[0])
        ports = iter([port, port + 1])
        monkeypatch.setattr("random.choice", lambda _: next(ports))
        with ServerProcess("second", []) as child:
            child.wait_until_ready()
            assert child.base_url == f"http://127.0.0.1:{port + 1}/v1"


def test_remarks_break_the_text_where_it_is_and_it_goes_on_there(capsys):
    screen = Screen(Output())
    screen.piece("one ")
    screen.remark("x")
    screen.remark("y")
    screen.piece("two\nthr")
    screen.piece("ee")
    screen.line("end")
    assert capsys.readouterr().out == (
        "    one \n  > x\n  > y\n        two\n    three\nend\n"
    )


def test_the_client_of_the_demo_sends_no_real_key(monkeypatch, near):
    monkeypatch.setenv("HOLYSTREAM_API_KEY", "sk-real")
    with claims.client_of(near.base_url) as client:
        assert client.stream("x", model="m").get_final_text()
    assert near.requests[0].headers["authorization"] == "Bearer demo-key"
