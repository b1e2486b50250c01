"""HOLYSTREAM_LOG: one line each, at the right level, without secrets."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest
from made_records import attempt, failed, stream

from holystream.telemetry import Telemetry
from holystream.telemetry.logging import line, log_from_environment, log_records


@pytest.fixture(autouse=True)
def logger():
    """Return the logger without pytest's handlers, as of a program without logging."""
    logger = logging.getLogger("holystream")
    before = (logger.level, logger.propagate, list(logger.handlers))
    logger.propagate = False
    yield logger
    logger.setLevel(before[0])
    logger.propagate = before[1]
    logger.handlers[:] = before[2]


def log_as(telemetry, **environ):
    """Do as a client does that is made in a program without logging."""
    logger = logging.getLogger("holystream")
    for handler in list(logger.handlers):
        if type(handler).__module__.startswith("_pytest"):
            logger.removeHandler(handler)
    log_from_environment(telemetry, environ)


def lines(captured):
    return captured.readouterr().err.splitlines()


def tell_all(telemetry):
    telemetry.attempt(attempt())
    telemetry.attempt(failed())
    telemetry.stream(stream())
    telemetry.stream(stream(outcome="error", error_type="IdleTimeout"))


@pytest.mark.parametrize(
    ("said", "levels"),
    [
        ("debug", ["DEBUG", "INFO", "INFO", "WARNING"]),
        (" INFO ", ["INFO", "INFO", "WARNING"]),
        ("warning", ["WARNING"]),
        ("error", []),
        ("off", []),
        ("", []),
    ],
)
def test_the_levels(capsys, said, levels):
    telemetry = Telemetry()
    log_as(telemetry, HOLYSTREAM_LOG=said)
    tell_all(telemetry)
    assert [each.split()[2] for each in lines(capsys)] == levels


def test_without_the_variable_nothing_is_touched(capsys, logger):
    before = (logger.level, list(logger.handlers))
    telemetry = Telemetry()
    log_as(telemetry)
    tell_all(telemetry)
    after = [each for each in before[1] if each in logger.handlers]
    assert (logger.level, logger.handlers) == (before[0], after)
    assert lines(capsys) == []


def test_the_environment_is_read_when_it_is_called():
    """In a process of its own: nothing but the variable sets up logging there."""
    code = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import holystream
os.environ["HOLYSTREAM_LOG"] = "info"
from made_records import stream
with holystream.Client("sk-0123456789abcdef", model="m") as client:
    client.telemetry.stream(stream())
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert " INFO stream s-1 done " in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_two_clients_write_each_line_once(capsys):
    one, other = Telemetry(), Telemetry()
    for telemetry in (one, other):
        log_as(telemetry, HOLYSTREAM_LOG="info")
    one.stream(stream(stream_id="s-1"))
    other.stream(stream(stream_id="s-2"))
    assert [each.split()[4] for each in lines(capsys)] == ["s-1", "s-2"]


def test_a_program_that_has_set_up_logging_gets_no_second_handler(capsys, logger):
    seen = logging.Handler()
    written = []
    seen.emit = written.append
    logger.propagate = True
    logging.getLogger().addHandler(seen)
    try:
        telemetry = Telemetry()
        log_from_environment(telemetry, {"HOLYSTREAM_LOG": "info"})
        telemetry.stream(stream())
    finally:
        logging.getLogger().removeHandler(seen)
    assert lines(capsys) == []
    assert len(written) == 1


@pytest.mark.parametrize(
    ("said", "level"),
    [
        *(("warn", "WARNING"), ("Warning", "WARNING"), ("30", "WARNING")),
        *(("1", "INFO"), ("true", "INFO"), ("on", "INFO"), ("20", "INFO")),
        *(("fatal", "CRITICAL"), ("critical", "CRITICAL"), ("10", "DEBUG")),
    ],
)
def test_other_names_of_a_level(logger, said, level):
    log_as(Telemetry(), HOLYSTREAM_LOG=said)
    assert logging.getLevelName(logger.level) == level


@pytest.mark.parametrize("said", ["0", "false", "no", "none", "OFF"])
def test_other_names_of_none(capsys, logger, said):
    telemetry = Telemetry()
    log_as(telemetry, HOLYSTREAM_LOG=said)
    tell_all(telemetry)
    assert lines(capsys) == []


def test_a_level_that_is_none_is_told_once(logger):
    word = "loud-and-long" * 9
    with pytest.warns(RuntimeWarning) as caught:
        log_as(Telemetry(), HOLYSTREAM_LOG=word)
    # A warning would be an error here.
    log_as(Telemetry(), HOLYSTREAM_LOG=word)
    said = str(caught[0].message)
    assert said.startswith(f"HOLYSTREAM_LOG is {word[:20]!r}, and is passed over")
    assert "debug, info, warning, error, critical or off" in said


def test_the_line_of_a_stream():
    assert line(stream(strategies=("cursor", "prefill"))) == (
        "stream s-1 done finish_reason=stop guarantee=SINGLE attempts=1 "
        "interruptions=0 strategies=cursor,prefill tokens=7+30 ttft=0.250s "
        "request_id=req-1 queued=0.000s duration=1.500s provider=openai endpoint=eu "
        "model=gpt-5"
    )


def test_the_line_of_an_attempt():
    assert line(failed(2, delay=0.5)) == (
        "attempt 2 of stream s-1 failed error=ConnectionLost verdict=INTERRUPTED "
        "phase=BODY delay=0.500s connect=0.125s first_content=0.250s queued=0.000s "
        "duration=1.500s provider=openai endpoint=eu model=gpt-5"
    )


def test_the_line_of_a_stream_that_failed():
    assert line(stream(outcome="error", error_type="NotFound")).startswith(
        "stream s-1 failed error=NotFound "
    )


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("req\n1 WARNING all is lost\x1b[2J", "req?1?WARNING?all?is?lost?[2J"),
        ("sk-0123456789abcdef", "***"),
        ("x" * 500, "x" * 80),
        ("https://me:secret@example.com", "https://***@example.com"),
    ],
)
def test_a_name_from_outside_is_one_word_without_secrets(name, shown):
    assert f" request_id={shown} " in line(stream(request_id=name))
    assert line(stream(model=name)).endswith(f" model={shown}")


def test_a_traceback_shows_no_key(capsys):
    def broken(_):
        raise RuntimeError("refused: sk-0123456789abcdef")

    telemetry = Telemetry()
    log_as(telemetry, HOLYSTREAM_LOG="error")
    telemetry.add_hook(broken)
    telemetry.stream(stream())
    written = capsys.readouterr().err
    assert "refused: ***" in written
    assert "0123456789" not in written


def test_the_variable_and_the_program_log_each_line_once(capsys):
    telemetry = Telemetry()
    log_as(telemetry, HOLYSTREAM_LOG="info")
    log_records(telemetry)
    end = log_records(telemetry)
    telemetry.stream(stream())
    assert len(lines(capsys)) == 1
    end()
    telemetry.stream(stream())
    assert lines(capsys) == []


def test_log_records_until_it_is_ended(caplog, logger):
    logger.setLevel(logging.DEBUG)
    logger.addHandler(caplog.handler)
    telemetry = Telemetry()
    end = log_records(telemetry)
    tell_all(telemetry)
    end()
    tell_all(telemetry)
    assert len(caplog.records) == 4
