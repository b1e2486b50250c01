"""Scripts: what they refuse, and their text form."""

import re
import threading
from dataclasses import fields

import pytest
from simulator_client import fetch, question

from holystream.simulator import ERROR_EVENTS, Script, Simulator, notation

ONE_OF_EACH = [
    Script(),
    Script(latency=0.5, first_token=1.5, pace=0.001, linger=2.0, pings=15.0),
    Script(cut_at=120, cut="rst", stall_at=7, times=0),
    Script(cut_before_headers="fin", garbage_status_line=True, stall_headers=True),
    Script(drip=(3, 0.01), drip_headers=(1, 1e-05)),
    Script(drip_chunk_size=True, framing="chunked"),
    Script(ping_text="a, b; c", content_type="text/html; charset=utf-8"),
    Script(ping_text="", finish_reason=""),
    Script(ping_text=" \u2028é\n", redirect="http://x/?a=b,c"),
    Script(status=429, headers={"Retry-After": "Wed, 21 Oct", "x": ""}),
    Script(error={"a": [1, {"b": "c;d"}]}, echo_key=True),
    Script(error=b"<p>\r\n\xff, ;</p>"),
    Script(error=b""),
    Script(error_event_at=3, error_event={"error": {"code": 1}}),
    Script(error_event=b"event: error\ndata: x\n\n", malformed_at=2),
    *(Script(error_event=name) for name in ERROR_EVENTS),
    Script(finish=False, done=False, usage="none", split_surrogates=True),
    Script(framing="one-chunk", newline="\r\n", rechunk=5, bom=True, gzip=True),
    Script(newline="\r", final_blank_line=False),
    Script(sampling=False, tokens=True, differ_at=3, shorter=0, cached_tokens=9),
    Script(ids="named", cursor="inclusive", replay_events=3, shuffle=4, sampling=True),
    Script(prefill="continue", echo="glued", ring=1000, ttl=0.5),
    Script(stitch="whole", preamble="Sure, continuing: ", overlap=9),
]


@pytest.mark.parametrize("script", ONE_OF_EACH, ids=str)
def test_what_is_written_is_read_back(script):
    text = str(script)
    assert Script.parse(text) == script
    assert text.isascii()
    assert "\n" not in text


def test_every_field_but_the_gate_can_be_written():
    names = {item.name for item in fields(Script)}
    assert names - set(notation._READERS) == {"gate", "headers"}
    assert str(Script(gate=threading.Semaphore())) == ""
    written = {name for script in ONE_OF_EACH for name in notation.read(str(script))}
    assert names - written == {"gate"}


def test_scripts_are_read_as_people_write_them():
    assert Script.parse(" cut_at=120,cut=rst;gzip ; ,bom=YES, done=0 ") == Script(
        cut_at=120, cut="rst", gzip=True, bom=True, done=False
    )
    assert Script.parse("newline=CRLF; drip=3/0.01") == Script(
        newline="\r\n", drip=(3, 0.01)
    )
    assert Script.parse("error=busy; status=503") == Script(error=b"busy", status=503)
    assert Script.parse("headers.Retry-After=2") == Script(headers={"Retry-After": "2"})
    assert Script.parse("") == Script.parse(" ; ") == Script()
    assert Script.parse("ping_text= two words ").ping_text == "two words"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "cutat=1",
            "unknown key 'cutat'; known: bom, cached_tokens, .*headers.NAME",
        ),
        ("headers.=1", "unknown key"),
        ("gate=1", "unknown key 'gate'"),
        ("cut=now", "cut must be one of 'fin', 'rst', 'end', not 'now'"),
        ("framing=none", "framing must be one of None, 'chunked'"),
        ("gzip=maybe", "gzip=maybe: expected true or false"),
        ("newline=nl", "expected lf, crlf or cr"),
        ("drip=3", "expected bytes/seconds"),
        ("drip=0/1", "drip is out of range"),
        ("pace=-1", "pace is out of range"),
        ("pings=0", "pings is out of range"),
        ("pings=nan", "pings is out of range"),
        ("cut_at=x", "^cut_at=x: expected a whole number$"),
        ("times=1.5", "^times=1.5: expected a whole number$"),
        ("pace=fast", "^pace=fast: expected seconds, as in 0.5$"),
        ("drip=x/0.1", "^drip=x/0.1: expected bytes/seconds, as in 3/0.01$"),
        ("drip=3/soon", "^drip=3/soon: expected bytes/seconds, as in 3/0.01$"),
        ("rechunk=0", "rechunk is out of range"),
        ("ids=x", "ids must be one of None, 'plain', 'named', not 'x'"),
        ("cursor=x", "cursor must be one of 'honour', "),
        ("prefill=x", "prefill must be one of 'none', "),
        ("echo=no", "echo must be one of None, 'pieces', 'whole', 'glued'"),
        ("stitch=x", "stitch must be one of None, 'continue', 'whole'"),
        ("ring=0", "ring is out of range"),
        ("ttl=-1", "ttl is out of range"),
        ("shuffle=-1", "shuffle is out of range"),
        ("differ_at=-1", "differ_at is out of range"),
        ("status=20", "status is out of range"),
        ("error={", "error: not valid JSON"),
        ('cut="rst" x', "expected a comma or semicolon"),
        ('cut={"a":1}', "a JSON object does not fit here"),
        ("=1", "expected key=value"),
        ("error_event=opanai", "no error event is named 'opanai'; known: openai, "),
        ("drip_chunk_size; framing=close", "needs chunked framing"),
        ("drip_chunk_size; gzip=1; framing=length", "needs chunked framing"),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        Script.parse(text)


def test_a_script_is_frozen_and_keyword_only():
    with pytest.raises(AttributeError):
        Script().status = 500
    with pytest.raises(TypeError):
        Script(1)


def test_the_header_does_what_the_script_does(sim):
    for script in (
        Script(newline="\r\n", error_event_at=2),
        Script(cut_at=99, bom=True),
    ):
        by_header = fetch(sim, X_Simulator=str(script))
        sim.play(script)
        assert by_header.body == fetch(sim, question()).body


@pytest.mark.parametrize("name", ["cut_at", "pace", "pings", "drip", "times"])
def test_a_value_of_another_type_is_named(name):
    with pytest.raises(TypeError, match=f"^{name} must be a number.*, not '2'$"):
        Script(**{name: "2"})


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("error", "text", "must be a mapping or bytes, as b'busy' for text, not str"),
        ("error", ["a"], "must be a mapping or bytes, as b'busy' for text, not list"),
        ("error", {"a": object()}, "holds what JSON cannot"),
        ("error_event", None, "must be a name, a mapping or bytes, not NoneType"),
        ("error_event", 5, "must be a name, a mapping or bytes, not int"),
        ("error_event", {"a": {1}}, "holds what JSON cannot"),
        ("headers", [("a", "b")], "must be a mapping, not list"),
        ("headers", None, "must be a mapping, not NoneType"),
        ("content_type", b"text/html", "must be a str, not bytes"),
        ("redirect", 5, "must be a str, not int"),
        ("finish_reason", 5, "must be a str, not int"),
        ("ping_text", None, "must be a str, not NoneType"),
        ("preamble", b"Sure", "must be a str, not bytes"),
    ],
)
def test_a_text_or_a_body_of_another_type_is_named(name, value, complaint):
    with pytest.raises(TypeError, match=f"^{name} {re.escape(complaint)}$"):
        Script(**{name: value})


def test_what_is_played_must_be_a_script():
    with Simulator() as sim:
        for arguments in (("cut",), (Script(), {"cut_at": 9})):
            with pytest.raises(TypeError, match=r"takes Script objects, .*, not"):
                sim.play(*arguments)
